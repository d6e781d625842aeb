//! The command line: global options, then commands joined by `--`, each with its options first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::commands;
use crate::daemon;
use crate::flow_commands::check_formats;
use crate::suggest::did_you_mean;
use crate::table::{CellFormat, Format, Style};

/// Where the daemon's files are unless `--rundir` or `VSWITCH_RUNDIR` says otherwise.
const DEFAULT_RUNDIR: &str = "/run/vswitch";

/// Global options.
#[derive(Debug)]
pub struct Options {
    /// Directory of the daemon's sockets and pid file.
    pub rundir: PathBuf,
    /// `unix:PATH` of the database; in the run directory if not given.
    pub db: Option<String>,
    /// How tables are printed.
    pub style: Style,
    /// Wait for the daemon to take over what changed.
    pub wait: bool,
    /// Give up after this long.
    pub timeout: Option<Duration>,
    /// Change nothing.
    pub dry_run: bool,
    /// One line of output for each command.
    pub oneline: bool,
    /// Keep trying to connect.
    pub retry: bool,
    /// A control socket, or a daemon's name, as `ovs-appctl -t` takes it.
    pub target: Option<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Help about everything, or about one command.
    Help(Option<String>),
    /// The program's version.
    Version,
    /// Commands to run.
    Run {
        /// Global options.
        options: Options,
        /// Options found before the first command that are not global: they belong to it.
        first_options: Vec<String>,
        /// The first command and all that follows.
        words: Vec<String>,
    },
}

/// One command of the `ovs-vsctl` family.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its name.
    pub name: String,
    /// Its options by name without dashes; empty value if it takes none.
    pub options: BTreeMap<String, String>,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Global options with an argument: long name, short letter.
const WITH_ARGUMENT: &[(&str, char)] = &[
    ("rundir", ' '),
    ("db", ' '),
    ("format", 'f'),
    ("data", 'd'),
    ("timeout", 't'),
    ("target", ' '),
    ("max-column-width", ' '),
    ("protocols", 'O'),
    ("flow-format", 'F'),
    ("packet-in-format", 'P'),
    ("log-file", ' '),
    ("syslog-target", ' '),
    ("syslog-method", ' '),
];

/// Global options without one.
const FLAGS: &[&str] = &[
    "no-wait",
    "dry-run",
    "oneline",
    "retry",
    "no-headings",
    "pretty",
    "bare",
    "help",
    "version",
    "no-syslog",
];

/// Reads the command line (without the program's name).
///
/// `rundir` is what `VSWITCH_RUNDIR` says.
pub fn parse(arguments: Vec<String>, rundir: Option<PathBuf>) -> Result<Request> {
    let mut options = Options {
        rundir: rundir.unwrap_or_else(|| DEFAULT_RUNDIR.into()),
        db: None,
        style: Style::default(),
        wait: true,
        timeout: None,
        dry_run: false,
        oneline: false,
        retry: false,
        target: None,
    };
    let mut first_options = Vec::new();
    let mut words = arguments.into_iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
        if word == "--" {
            break;
        }
        let Some((name, attached)) = split_global(&word) else {
            if !commands::is_option(&word) {
                let known =
                    FLAGS.iter().copied().chain(WITH_ARGUMENT.iter().map(|(long, _)| *long));
                let near = did_you_mean(word.trim_start_matches('-'), known);
                bail!("unknown option {word}{near} (see vswitchctl --help)");
            }
            first_options.push(word);
            continue;
        };
        let takes = WITH_ARGUMENT.iter().any(|(long, _)| *long == name);
        let value = match (takes, attached) {
            (true, Some(value)) => value,
            (true, None) => match words.next() {
                Some(value) => value,
                None => bail!("option {word} needs an argument"),
            },
            (false, Some(_)) if name != "verbose" => bail!("option --{name} takes no argument"),
            (false, _) => String::new(),
        };
        match name.as_str() {
            "help" => return Ok(Request::Help(None)),
            "version" => return Ok(Request::Version),
            _ => options.set(&name, value)?,
        }
    }
    let mut words: Vec<String> = words.collect();
    let name = words.iter().find(|word| *word != "--");
    match name {
        None => bail!("no command given (see vswitchctl --help)"),
        Some(name) if name == "help" => Ok(Request::Help(words.get(1).cloned())),
        Some(name) if words.get(1).is_some_and(|word| word == "--help" || word == "-h") => {
            if !daemon::is_operation(name) {
                return Ok(Request::Help(Some(name.clone())));
            }
            // The daemon knows.
            words[1] = "--help".to_owned();
            Ok(Request::Run { options, first_options, words })
        }
        Some(_) => Ok(Request::Run { options, first_options, words }),
    }
}

/// Name and attached argument of a global option; `None` if it is not one.
fn split_global(word: &str) -> Option<(String, Option<String>)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let known = FLAGS.contains(&name)
            || name == "verbose"
            || WITH_ARGUMENT.iter().any(|(long, _)| *long == name);
        return known.then(|| (name.to_owned(), value));
    }
    let mut letters = word.chars().skip(1);
    let letter = letters.next()?;
    let rest: String = letters.collect();
    let rest = (!rest.is_empty()).then_some(rest);
    let name = match letter {
        'h' => "help",
        'V' => "version",
        'v' => "verbose",
        letter => WITH_ARGUMENT.iter().find(|(_, short)| *short == letter)?.0,
    };
    Some((name.to_owned(), rest))
}

impl Options {
    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "rundir" => self.rundir = value.into(),
            "db" => self.db = Some(value),
            "format" => self.style.format = Format::from_name(&value)?,
            "data" => self.style.cells = CellFormat::from_name(&value)?,
            "no-headings" => self.style.headings = false,
            "pretty" => self.style.pretty = true,
            "bare" => {
                let (format, cells) = (Format::List, CellFormat::Bare);
                self.style = Style { format, cells, headings: false, ..self.style };
            }
            "max-column-width" => match value.parse() {
                Ok(width) => self.style.max_width = width,
                Err(_) => bail!("--max-column-width={value}: not a number of columns"),
            },
            "timeout" => self.set_timeout(value)?,
            "target" => self.target = Some(value),
            "no-wait" => self.wait = false,
            "dry-run" => self.dry_run = true,
            "oneline" => self.oneline = true,
            "retry" => self.retry = true,
            "protocols" | "flow-format" | "packet-in-format" => {
                check_formats(name, &value).map_err(anyhow::Error::msg)?;
            }
            // Logging of ovs-vsctl: the daemon logs here. Accepted so that scripts need no change.
            _ => {}
        }
        Ok(())
    }

    /// `-t` means seconds to `ovs-vsctl` and a daemon to `ovs-appctl`: a number is the former.
    fn set_timeout(&mut self, value: String) -> Result<()> {
        match value.parse::<u32>() {
            Ok(seconds @ 1..) => self.timeout = Some(Duration::from_secs(seconds.into())),
            Err(_) if value.contains(['/', '-']) || value.ends_with("vswitchd") => {
                self.target = Some(value);
            }
            _ => bail!(
                "value {value} on -t or --timeout is invalid: not a number of seconds from 1 on"
            ),
        }
        Ok(())
    }
}

/// Cuts `words` at each `--` into commands, checking names, options and numbers of arguments.
pub fn split_commands(first_options: Vec<String>, words: Vec<String>) -> Result<Vec<Invocation>> {
    let mut invocations = Vec::new();
    let mut pending = first_options;
    for part in words.split(|word| word == "--") {
        pending.extend_from_slice(part);
        if !part.is_empty() {
            invocations.push(parse_command(std::mem::take(&mut pending))?);
        }
    }
    Ok(invocations)
}

fn parse_command(words: Vec<String>) -> Result<Invocation> {
    let first = words.iter().position(|word| !word.starts_with('-'));
    let Some(first) = first else {
        bail!("{}: an option without a command after it", words.join(" "));
    };
    let name = &words[first];
    let command = commands::find(name)?;
    let mut options = BTreeMap::new();
    for word in &words[..first] {
        let (option, value) = command.option(word)?;
        options.insert(option, value);
    }
    let args = words[first + 1..].to_vec();
    if let Some(late) = args.iter().find(|arg| arg.starts_with("--")) {
        bail!("{late}: options come before their command, as in vswitchctl {late} {name} …");
    }
    command.check_count(args.len())?;
    Ok(Invocation { name: name.clone(), options, args })
}

impl Invocation {
    /// True if the option was given.
    pub fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    /// The option's argument.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// The argument at `index`, if given.
    pub fn arg(&self, index: usize) -> Option<&str> {
        self.args.get(index).map(String::as_str)
    }

    /// As the user typed it, for messages.
    pub fn text(&self) -> String {
        let mut words = Vec::new();
        for (option, value) in &self.options {
            words.push(if value.is_empty() {
                format!("--{option}")
            } else {
                format!("--{option}={value}")
            });
        }
        words.push(self.name.clone());
        words.extend(self.args.iter().cloned());
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn run(line: &str) -> (Options, Vec<Invocation>) {
        match parse(words(line), None).unwrap() {
            Request::Run { options, first_options, words } => {
                (options, split_commands(first_options, words).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn globals_then_commands_with_their_options() {
        let line = "--rundir=/x -t5 -f json --db unix:/s --may-exist add-br b -- --id=@q create \
                    QoS type=x -- list-br";
        let (options, commands) = run(line);
        assert_eq!(options.rundir, PathBuf::from("/x"));
        assert_eq!(options.timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.db.as_deref(), Some("unix:/s"));
        assert_eq!(options.style.format, Format::Json);
        let names: Vec<&str> = commands.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["add-br", "create", "list-br"]);
        assert!(commands[0].has("may-exist"));
        assert_eq!(commands[1].option("id"), Some("@q"));
        assert_eq!(commands[1].text(), "--id=@q create QoS type=x");
    }

    #[test]
    fn mistakes_name_what_is_wrong() {
        let check = |line: &str, expect: &str| {
            let error = match parse(words(line), None) {
                Ok(Request::Run { first_options, words, .. }) => {
                    split_commands(first_options, words).unwrap_err()
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => error,
            };
            assert!(error.to_string().contains(expect), "{line}: {error}");
        };
        check("", "no command given");
        check("--", "no command given");
        check("--fromat json list-br", "did you mean \"format\"");
        check("--timeout", "needs an argument");
        check("--timeout=soon list-br", "not a number of seconds");
        check("-f yaml list Bridge", "yaml");
        check("ad-br br0", "did you mean \"add-br\"");
        check("add-port br0", "add-port BRIDGE PORT");
        check("--if-exists add-br b", "--if-exists");
        check("list Bridge --columns=name", "options come before their command");
    }

    #[test]
    fn t_is_seconds_or_a_daemon() {
        assert_eq!(run("-t 3 list-br").0.target, None);
        assert_eq!(run("-t ovs-vswitchd list-br").0.target.as_deref(), Some("ovs-vswitchd"));
    }
}

//! The table of commands a server answers, and the texts of its built-in ones.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

type Run = dyn Fn(&[String]) -> Result<String, String> + Send + Sync;

struct Command {
    usage: String,
    args: RangeInclusive<usize>,
    run: Box<Run>,
}

/// The commands of one server, by name. `list-commands` and `version` are always there.
pub struct Commands {
    by_name: BTreeMap<String, Command>,
    version: String,
}

/// Width of the name column in `list-commands`, as `ovs-appctl` prints it.
const NAME_WIDTH: usize = 23;

impl Commands {
    /// An empty table; `version` is the text that the `version` command answers.
    pub fn new(version: &str) -> Commands {
        Commands { by_name: BTreeMap::new(), version: version.to_owned() }
    }

    /// Registers `name`. `usage` names the arguments in `list-commands`, `args` is how many there
    /// may be. `run` is called on the client's own thread, so it may block without holding up
    /// others, and two calls may run at once. A name registered twice means the later one.
    pub fn add(
        &mut self,
        name: &str,
        usage: &str,
        args: RangeInclusive<usize>,
        run: impl Fn(&[String]) -> Result<String, String> + Send + Sync + 'static,
    ) {
        let command = Command { usage: usage.to_owned(), args, run: Box::new(run) };
        self.by_name.insert(name.to_owned(), command);
    }

    /// Runs one command; the error texts are those of `ovs-appctl`. With `--help` alone, which no command of OVS knows,
    /// says how it is called.
    pub(crate) fn run(&self, name: &str, args: &[String]) -> Result<String, String> {
        let built_in = match name {
            "list-commands" => Some(self.list()),
            "version" => Some(self.version.clone()),
            _ => None,
        };
        let usage = self.by_name.get(name).map(|command| command.usage.as_str());
        if let Some(usage) = built_in.as_ref().map(|_| "").or(usage)
            && args == ["--help"]
        {
            return Ok(format!("Usage: {name} {usage}").trim_end().to_owned());
        }
        if let Some(text) = built_in {
            return check_count(name, &(0..=0), args.len()).map(|()| text);
        }
        let Some(command) = self.by_name.get(name) else {
            return Err(format!(
                "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid \
                 commands)"
            ));
        };
        check_count(name, &command.args, args.len())?;
        (command.run)(args)
    }

    fn list(&self) -> String {
        let mut usages: BTreeMap<&str, &str> =
            self.by_name.iter().map(|(name, c)| (name.as_str(), c.usage.as_str())).collect();
        usages.insert("list-commands", "");
        usages.insert("version", "");
        let mut text = "The available commands are:\n".to_owned();
        for (name, usage) in usages {
            let _ = writeln!(text, "  {name:NAME_WIDTH$} {usage}");
        }
        text
    }
}

fn check_count(name: &str, allowed: &RangeInclusive<usize>, given: usize) -> Result<(), String> {
    if given < *allowed.start() {
        let least = allowed.start();
        return Err(format!("\"{name}\" command requires at least {least} arguments"));
    }
    if given > *allowed.end() {
        let most = allowed.end();
        return Err(format!("\"{name}\" command takes at most {most} arguments"));
    }
    Ok(())
}

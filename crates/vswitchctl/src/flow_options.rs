//! Options of the flow commands: before or after the command and its arguments, as `ovs-ofctl` takes
//! them.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::flow_commands::{FlowCommand, IGNORED, TOLD, check_formats};
use crate::suggest::did_you_mean;

/// Options with an argument: long name, short letter.
const WITH_ARGUMENT: &[(&str, char)] =
    &[("protocols", 'O'), ("flow-format", 'F'), ("packet-in-format", 'P'), ("timeout", 't')];

/// Options without one, beside those of [`TOLD`] and [`IGNORED`].
const FLAGS: &[(&str, char)] = &[("read-only", ' '), ("more", 'm'), ("verbose", 'v')];

/// A command's words, sorted.
#[derive(Debug, Default)]
pub struct Words {
    /// Options for the daemon, as it takes them.
    pub told: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// `--timeout`, if it was given here.
    pub timeout: Option<Duration>,
    /// `--read-only`.
    pub read_only: bool,
}

/// True for words that are options of the flow commands and need no other word after them.
pub fn is_option(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    let long = name.strip_prefix("--").is_some_and(|n| {
        let bare = |o: &&&str| o.trim_end_matches(['[', '=']) == n;
        TOLD.iter().chain(IGNORED).any(|o| bare(&o)) || FLAGS.iter().any(|(f, _)| *f == n)
    });
    long || word == "-m"
}

impl Words {
    /// Sorts the words that came before the command, which are all options, and after it.
    ///
    /// # Errors
    /// For unknown options and bad arguments of options.
    pub fn sort(command: &FlowCommand, before: Vec<String>, after: &[String]) -> Result<Words> {
        let mut sorted = Words::default();
        let mut words = before.iter().chain(after);
        while let Some(word) = words.next() {
            if word == "--" {
                let name = command.name;
                bail!("{name} cannot be joined with other commands by --; run it by itself");
            } else if let Some(long) = word.strip_prefix("--") {
                sorted.long(word, long, &mut words)?;
            } else if let Some(short) = word.strip_prefix('-').filter(|s| !s.is_empty()) {
                sorted.short(short, &mut words)?;
            } else {
                sorted.args.push(word.clone());
            }
        }
        command.check_count(sorted.args.len())?;
        if sorted.read_only && command.writes {
            bail!("'{}' command does not work in read only mode", command.name);
        }
        Ok(sorted)
    }

    fn long<'w>(
        &mut self,
        word: &str,
        long: &str,
        words: &mut impl Iterator<Item = &'w String>,
    ) -> Result<()> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        if WITH_ARGUMENT.iter().any(|(n, _)| *n == name) {
            return match value.or_else(|| words.next().map(String::as_str)) {
                Some(value) => self.set(name, value),
                None => bail!("option '--{name}' requires an argument"),
            };
        }
        let known = |list: &[&'static str]| {
            list.iter().find(|o| o.trim_end_matches(['[', '=']) == name).copied()
        };
        let told = known(TOLD);
        let flag = FLAGS.iter().map(|(f, _)| *f).find(|f| *f == name);
        let Some(option) = told.or(known(IGNORED)).or(flag) else {
            let all = TOLD.iter().chain(IGNORED).map(|o| o.trim_end_matches(['[', '=']));
            let all = all.chain(WITH_ARGUMENT.iter().chain(FLAGS).map(|(n, _)| *n));
            bail!("unrecognized option '--{name}'{}", did_you_mean(name, all));
        };
        match value {
            Some(_) if !option.ends_with('=') && name != "verbose" => {
                bail!("option '--{name}' doesn't allow an argument")
            }
            None if option.ends_with('=') && !option.ends_with("[=") => {
                bail!("option '--{name}' requires an argument")
            }
            _ => {}
        }
        self.read_only |= name == "read-only";
        if told.is_some() {
            self.told.push(word.to_owned());
        }
        Ok(())
    }

    /// The letters of one word; those with an argument take the rest of the word, or the next one.
    fn short<'w>(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = &'w String>,
    ) -> Result<()> {
        for (at, letter) in letters.char_indices() {
            if let Some((name, _)) = WITH_ARGUMENT.iter().find(|(_, l)| *l == letter) {
                let rest = &letters[at + letter.len_utf8()..];
                let rest = (!rest.is_empty()).then_some(rest);
                return match rest.or_else(|| words.next().map(String::as_str)) {
                    Some(value) => self.set(name, value),
                    None => bail!("option requires an argument -- '{letter}'"),
                };
            }
            match letter {
                'm' => {}
                // Its argument, if any, is the rest.
                'v' => return Ok(()),
                _ => bail!("invalid option -- '{letter}' (see vswitchctl --help)"),
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        if name == "timeout" {
            return match value.parse() {
                Ok(seconds @ 1..) => {
                    self.timeout = Some(Duration::from_secs(u32::into(seconds)));
                    Ok(())
                }
                _ => bail!(
                    "value {value} on -t or --timeout is invalid: not a number of seconds from 1 on"
                ),
            };
        }
        check_formats(name, value).map_err(anyhow::Error::msg)
    }
}

impl FlowCommand {
    /// Refuses a wrong number of arguments, in the words of `ovs-ofctl`.
    fn check_count(&self, count: usize) -> Result<()> {
        let (name, usage, (min, max)) = (self.name, self.usage, self.args);
        if count < min {
            bail!("'{name}' command requires at least {min} arguments; usage: {name} {usage}");
        }
        if count > max {
            bail!("'{name}' command takes at most {max} arguments; usage: {name} {usage}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_commands::find;

    fn sort(line: &str) -> Result<Words> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let at = words.iter().position(|w| !w.starts_with('-')).unwrap();
        Words::sort(find(&words[at]).unwrap(), words[..at].to_vec(), &words[at + 1..])
    }

    #[test]
    fn options_stand_anywhere() {
        let w = sort("--strict del-flows br0 --bundle -O OpenFlow13 ip -mFnxm -t3").unwrap();
        assert_eq!(
            (w.told, w.args),
            (vec!["--strict".into(), "--bundle".into()], vec!["br0".into(), "ip".into()])
        );
        assert_eq!(w.timeout, Some(Duration::from_secs(3)));
        let w = sort("--sort=nw_dst dump-flows --rsort --color br0").unwrap();
        assert_eq!(
            (w.told, w.args),
            (vec!["--sort=nw_dst".into(), "--rsort".into()], vec!["br0".to_owned()])
        );
        assert_eq!(sort("add-flow br0 -").unwrap().args, ["br0", "-"]);
    }

    #[test]
    fn mistakes_read_as_in_ofctl() {
        for (line, expect) in [
            (
                "add-flow br0",
                "'add-flow' command requires at least 2 arguments; usage: add-flow BRIDGE FLOW",
            ),
            ("add-flow br0 a b", "'add-flow' command takes at most 2 arguments"),
            ("dump-flows br0 --stirct", "unrecognized option '--stirct'; did you mean \"strict\"?"),
            ("--strict=5 dump-flows br0", "option '--strict' doesn't allow an argument"),
            ("dump-flows br0 -O", "option requires an argument -- 'O'"),
            ("dump-flows br0 --flow-format", "option '--flow-format' requires an argument"),
            ("dump-flows -O OpenFlow99 br0", "Unknown OpenFlow version: \"OpenFlow99\""),
            ("dump-flows -F xyz br0", "xyz: unknown flow protocol"),
            ("dump-flows br0 -t 0", "value 0 on -t or --timeout is invalid"),
            ("dump-flows br0 -x", "invalid option -- 'x'"),
            ("del-flows br0 --read-only", "'del-flows' command does not work in read only mode"),
            ("del-flows br0 -- list-br", "cannot be joined"),
        ] {
            let error = sort(line).unwrap_err().to_string();
            assert!(error.contains(expect), "{line}: {error}");
        }
    }
}

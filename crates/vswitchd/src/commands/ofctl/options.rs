//! Options of the `ofctl/…` commands, anywhere among their words.

use super::sort::Criterion;

/// What a command was told besides its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `--strict`: the flow with exactly this match and priority.
    pub(super) strict: bool,
    /// `--bundle`: all or nothing.
    pub(super) bundle: bool,
    /// `--readd`: also flows that are the same.
    pub(super) readd: bool,
    /// `--may-create`: the group need not exist.
    pub(super) may_create: bool,
    /// `--no-stats`: without what changes by itself.
    pub(super) no_stats: bool,
    /// Names of ports.
    pub(super) names: Names,
    /// `--sort`, `--rsort`, in the order given.
    pub(super) sort: Vec<Criterion>,
    /// `--file=NAME`: the last argument is the text of this file, one flow a line.
    pub(super) file: Option<String>,
}

/// How names of ports are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// Understood, but not printed.
    #[default]
    Read,
    /// `--names`: understood and printed.
    Print,
    /// `--no-names`: neither.
    No,
}

type Set = fn(&mut Options);

/// Options without an argument.
const FLAGS: &[(&str, Set)] = &[
    ("strict", |o| o.strict = true),
    ("bundle", |o| o.bundle = true),
    ("readd", |o| o.readd = true),
    ("may-create", |o| o.may_create = true),
    ("stats", |o| o.no_stats = false),
    ("no-stats", |o| o.no_stats = true),
    ("names", |o| o.names = Names::Print),
    ("no-names", |o| o.names = Names::No),
    ("more", |_| {}),
    ("sort", |o| o.sort.push(Criterion::priority(false))),
    ("rsort", |o| o.sort.push(Criterion::priority(true))),
];

impl Options {
    /// The options among `words`, and the other words.
    ///
    /// # Errors
    /// For an option that is unknown, or a field that is.
    pub(super) fn take(words: &[String]) -> Result<(Options, Vec<&str>), String> {
        let mut options = Options::default();
        let mut rest = Vec::new();
        for word in words {
            match word.strip_prefix("--") {
                Some(option) => options.set(option)?,
                None if word == "-m" => {}
                None => rest.push(word.as_str()),
            }
        }
        Ok((options, rest))
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        if let Some((_, set)) = FLAGS.iter().find(|(name, _)| *name == option) {
            set(self);
            return Ok(());
        }
        match option.split_once('=') {
            Some(("sort", field)) => self.sort.push(Criterion::of(field, false)?),
            Some(("rsort", field)) => self.sort.push(Criterion::of(field, true)?),
            Some(("file", name)) => self.file = Some(name.to_owned()),
            _ => return Err(format!("unrecognized option '--{option}'")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Result<(Options, String), String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Options::take(&words).map(|(o, rest)| (o, rest.join(" ")))
    }

    #[test]
    fn anywhere_and_the_last_word_counts() {
        let (o, rest) = take("--strict br0 --names ip --no-names --file=a=b -m").expect("known");
        assert_eq!(rest, "br0 ip");
        assert!(o.strict && o.names == Names::No && o.file.as_deref() == Some("a=b"));
        let (o, _) = take("br0 --sort --rsort=nw_dst").expect("known");
        assert_eq!(o.sort.len(), 2);
        assert_eq!(take("--stirct br0"), Err("unrecognized option '--stirct'".into()));
        assert_eq!(take("--sort=xyz br0"), Err("xyz: unknown field name".into()));
    }
}

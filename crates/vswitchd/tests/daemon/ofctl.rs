//! The commands of `ovs-ofctl`, here and on Debian's Open vSwitch: the same lines one after the other on
//! both, and the same outputs, exit statuses and error texts.

use crate::bench::{Daemon, Run, vswitchctl};
use crate::ovs::{Ovs, run_with};
use std::path::Path;

/// Command lines that must do the same on both, in this order; `@3` stands for `-O OpenFlow13`, `@4`
/// and `@5` accordingly, and what follows ` << ` is on standard input, with `\n` for line ends.
const LINES: &str = include_str!("ofctl_lines.txt");

/// Three ports on a bridge `br0`, p1 to p3 with the numbers 1 to 3.
pub fn both() -> (Ovs, Daemon) {
    let ovs = Ovs::start();
    let mut theirs = "add-br br0 -- set Bridge br0 datapath_type=dummy".to_owned();
    let d = Daemon::start();
    let mut ours = "add-br br0".to_owned();
    for n in 1..=3 {
        theirs += &format!(" -- add-port br0 p{n} -- set Interface p{n} type=dummy");
        ours += &format!(" -- add-port br0 p{n} -- set Interface p{n} type=dpdkvhostuser");
        for line in [&mut theirs, &mut ours] {
            *line += &format!(" ofport_request={n}");
        }
    }
    let made = ovs.vsctl(&theirs);
    assert_eq!((made.status, &*made.err), (0, ""));
    d.vsctl(&ours);
    (ovs, d)
}

/// Words cut at blanks; `'…'` keeps them together.
fn words(line: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        match i % 2 {
            1 => out.push(part.to_owned()),
            _ => out.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    out.into_iter().map(|w| version(&w).map_or(w, str::to_owned)).collect()
}

fn version(word: &str) -> Option<&'static str> {
    Some(match word {
        "@3" => "-OOpenFlow13",
        "@4" => "-OOpenFlow14",
        "@5" => "-OOpenFlow15",
        _ => return None,
    })
}

fn ours(d: &Daemon, dir: &Path, args: &[String], input: &str) -> Run {
    let mut command = vswitchctl();
    command.current_dir(dir).arg("--rundir").arg(d.rundir()).args(args);
    run_with(&mut command, input)
}

/// What is the same on both: times and transaction numbers apart, headers of flow dumps apart (they
/// would keep a dump from being loaded), in an order of its own.
fn output(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|l| !(l.contains("_FLOW reply") && l.ends_with("):")))
        .map(|l| {
            let l = without_value(l, "xid=", ')');
            let l = without_value(&l, "duration=", 's');
            let l = without_value(&l, "duration:", 's');
            let l = without_value(&l, "idle_age=", ' ');
            let l = without_value(&l, "hard_age=", ' ').replace("reset_counts ", "");
            l.trim_end().to_owned()
        })
        .collect();
    lines.sort();
    lines
}

/// The line without `name` and its value up to `end`.
fn without_value(line: &str, name: &str, end: char) -> String {
    match line.split_once(name) {
        Some((before, after)) => {
            let rest = after.split_once(end).map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => line.to_owned(),
    }
}

/// The reason alone: without the program's name, `ovs-ofctl`'s log, and the flow that is meant. Of an
/// error of the switch there, its name.
fn their_reason(err: &str) -> String {
    let is_log = |l: &&str| ["|WARN|", "|INFO|", "|ERR|"].iter().any(|level| l.contains(level));
    let error = err.lines().find_map(|l| {
        let named = l.strip_prefix("Error ").or(l.split_once("OFPT_ERROR").map(|(_, rest)| rest));
        named?.split([' ', ':', ')']).find(|w| w.starts_with("OFP"))
    });
    let said = err.lines().find(|l| !is_log(l) && !l.starts_with("0000")).unwrap_or("");
    let said = error.unwrap_or(said).trim_start_matches("ovs-ofctl: ");
    // A bridge is a socket there.
    let said =
        said.rsplit_once("br0.mgmt").map_or(said.to_owned(), |(_, rest)| format!("br0{rest}"));
    said.replace(" or a socket", "")
}

fn our_reason(err: &str, command: &str) -> String {
    let said = err.lines().next().unwrap_or("").trim_start_matches("vswitchctl: ");
    said.trim_start_matches(command).trim_start_matches(": ").to_owned()
}

fn command_of(args: &[String]) -> &str {
    args.iter().find(|a| !a.starts_with('-')).map_or("", |a| a)
}

/// What a person is told more is good.
fn same_reason(ours: &str, theirs: &str) -> bool {
    ours.starts_with(theirs) || theirs.starts_with("OFP") && ours.contains(theirs)
}

#[test]
fn outputs_statuses_and_errors_are_those_of_ovs_ofctl() {
    let (ovs, d) = both();
    let dir = tempfile::tempdir().expect("directory");
    let mut wrong = Vec::new();
    for (n, line) in LINES.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (command, input) = line.split_once(" << ").unwrap_or((line, ""));
        let input = input.replace("\\n", "\n");
        let args = words(command);
        if let ["write", name] = &*args.iter().map(String::as_str).collect::<Vec<_>>() {
            std::fs::write(dir.path().join(name), input).expect("written");
            continue;
        }
        let (a, b) = (ours(&d, dir.path(), &args, &input), ovs.ofctl(dir.path(), &args, &input));
        let (ra, rb) = (our_reason(&a.err, command_of(&args)), their_reason(&b.err));
        let same = a.status == b.status
            && output(&a.out) == output(&b.out)
            && (b.status == 0 || same_reason(&ra, &rb));
        if !same {
            wrong.push(format!("{}: {line}\n  ours:   {a:?}\n  theirs: {b:?}", n + 1));
        }
    }
    assert!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
}

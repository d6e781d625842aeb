//! Flows, groups and meters given to `ovs-ofctl` and read here: what is taken and what is refused, with
//! which reason, and how it is printed.

mod common;

use common::generate::{self, Rng};
use common::ovs::{Ovs, PORTS, reason};
use openflow::{Command, FlowMod, GroupCommand, MeterCommand, OfPort, PortNames};
use openflow::{format_actions, format_group, format_match, format_meter};
use openflow::{parse_flow_mod, parse_group_mod, parse_meter_mod};
use std::collections::BTreeMap;

struct Names;

impl PortNames for Names {
    fn name(&self, port: OfPort) -> Option<&str> {
        PORTS.iter().find(|(_, n)| *n == port.0).map(|(name, _)| *name)
    }
    fn number(&self, name: &str) -> Option<OfPort> {
        PORTS.iter().find(|(n, _)| *n == name).map(|(_, n)| OfPort(*n))
    }
}

/// Names are understood but not printed.
struct Unprinted;

impl PortNames for Unprinted {
    fn name(&self, _: OfPort) -> Option<&str> {
        None
    }
    fn number(&self, name: &str) -> Option<OfPort> {
        Names.number(name)
    }
}

/// Adds each line by itself. What OVS prints of its actions, or why it does not take it.
fn add_each(ovs: &Ovs, options: &str, lines: &[&str]) -> Vec<Result<String, String>> {
    ovs.ofctl("del-flows", &[]).expect("deletes");
    let command = format!("{options} add-flow");
    let taken: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let work = |offset: usize| {
            let command = &command;
            scope.spawn(move || {
                let mut out = Vec::new();
                for i in (offset..lines.len()).step_by(4) {
                    let line = format!("priority={i},cookie={i},{}", lines[i]);
                    out.push((i, ovs.ofctl(command, &[&line]).map(drop)));
                }
                out
            })
        };
        let threads: Vec<_> = (0..4).map(work).collect();
        let results = threads.into_iter().flat_map(|t| t.join().expect("no panic"));
        results.collect::<BTreeMap<_, _>>().into_values().collect()
    });
    let printed = dump(ovs, options);
    let each = taken.into_iter().enumerate();
    each.map(|(i, it)| match it {
        Ok(()) => Ok(printed.get(&i).cloned().unwrap_or_else(|| panic!("{}", lines[i]))),
        Err(complaint) => Err(reason(&complaint)),
    })
    .collect()
}

fn ours(line: &str) -> Result<String, String> {
    let flow = parse_flow_mod(line, Command::Add, &Unprinted).map_err(|e| e.reason)?;
    Ok(format_actions(&flow.actions, &()))
}

/// Lines of a file that say something.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
}

/// True if both take it alike, or refuse it for the same reason: OVS may name only the error.
fn agree(ours: &Result<String, String>, theirs: &Result<String, String>) -> bool {
    match (ours, theirs) {
        (Err(ours), Err(theirs)) => ours == theirs || ours.ends_with(&format!("({theirs})")),
        (ours, theirs) => ours == theirs,
    }
}

fn start() -> Ovs {
    let ovs = Ovs::start();
    for group in ["5", "16", "0xffffff00"] {
        let group = format!("group_id={group},type=all,bucket=output:1");
        ovs.ofctl("-O OpenFlow15 add-group", &[&group]).expect("a group");
    }
    ovs.ofctl("-O OpenFlow13 add-meter", &["meter=1 kbps bands=type=drop rate=1"])
        .expect("a meter");
    let options = (0..3).map(|n| format!("{{class=0xffff,type={n},len=8}}->tun_metadata{n}"));
    let options = options.collect::<Vec<_>>().join(",");
    ovs.ofctl("add-tlv-map", &[&options]).expect("tunnel options");
    ovs
}

/// Both read and print the same, and what is printed is read again as the same.
fn compare(ovs: &Ovs, options: &str, lines: &[&str]) {
    let mut wrong = Vec::new();
    for (line, theirs) in lines.iter().zip(add_each(ovs, options, lines)) {
        let ours = ours(line);
        if !agree(&ours, &theirs) {
            wrong.push(format!("{line}\n  theirs {theirs:?}\n  ours   {ours:?}"));
        }
        if let Ok(printed) = ours {
            again(line, &printed);
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A flow whose actions are given as they were printed has the same actions.
fn again(line: &str, printed: &str) {
    let read = |line: &str| parse_flow_mod(line, Command::Add, &Unprinted).map(|f| f.actions);
    let (head, _) = line.split_once("action").expect("actions");
    let second = format!("{head}actions={printed}");
    assert_eq!(read(&second).as_ref(), read(line).as_ref(), "{line}\n{second}");
}

#[test]
fn flows() {
    let ovs = start();
    compare(&ovs, "", &lines(include_str!("flows.txt")));
    compare(&ovs, "-O OpenFlow13", &lines(include_str!("flows13.txt")));
    let all = lines(include_str!("deviations.txt"));
    let pairs: Vec<(&str, &str)> = all.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let (newer, older): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|(l, _)| l.starts_with("13 "));
    let newer = newer.into_iter().map(|(line, made)| (&line[3..], made)).collect();
    for (options, pairs) in [("", older), ("-O OpenFlow13", newer)] {
        deviations(&ovs, options, pairs);
    }
}

/// What is made of flows here, and that OVS makes something else of them.
fn deviations(ovs: &Ovs, options: &str, pairs: Vec<(&str, &str)>) {
    let lines: Vec<&str> = pairs.iter().map(|(line, _)| *line).collect();
    for ((line, made), theirs) in pairs.iter().zip(add_each(ovs, options, &lines)) {
        let ours = ours(line);
        let shown = match &ours {
            Ok(printed) => format!("= {printed}"),
            Err(reason) => format!("! {reason}"),
        };
        assert_eq!(shown, *made, "{line}");
        assert!(!agree(&ours, &theirs), "{line}: no deviation any more");
    }
}

/// Gives each line to a command of its own, some at the same time.
fn run_each(ovs: &Ovs, command: &str, lines: &[String]) -> Vec<Result<(), String>> {
    const THREADS: usize = 4;
    std::thread::scope(|scope| {
        let work = |offset: usize| {
            scope.spawn(move || {
                let mine = lines.iter().enumerate().skip(offset).step_by(THREADS);
                let run = |(i, line): (usize, &String)| {
                    (i, ovs.ofctl(command, &[line]).map(drop).map_err(|e| reason(&e)))
                };
                mine.map(run).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(work).collect();
        let results = threads.into_iter().flat_map(|t| t.join().expect("no panic"));
        results.collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

#[test]
fn groups() {
    let ovs = start();
    let numbered =
        |(i, line): (usize, &&str)| line.replace("group_id=1,", &format!("group_id={},", i + 100));
    for (options, text) in [
        ("", include_str!("groups.txt")),
        (
            "-O OpenFlow15",
            "group_id=1,type=all,bucket=push_vlan:0x8100,set_field:4101->vlan_vid,output:1",
        ),
    ] {
        ovs.ofctl("del-groups", &[]).expect("deletes");
        let lines: Vec<String> = lines(text).iter().enumerate().map(numbered).collect();
        let taken = run_each(&ovs, &format!("{options} add-group"), &lines);
        let dump = ovs.ofctl(&format!("{options} dump-groups"), &[]).expect("dumps");
        let mut wrong = Vec::new();
        for (line, theirs) in lines.iter().zip(taken) {
            let ours = parse_group_mod(line, GroupCommand::Add, &Unprinted);
            let id = ours.as_ref().map_or(0, |g| g.group.id);
            let ours = ours.map(|g| format_group(&g.group, &())).map_err(|e| e.reason);
            let start = format!(" group_id={id},");
            let printed = || dump.lines().find(|l| l.starts_with(&start)).unwrap_or_default();
            let theirs = theirs.map(|()| printed().trim().to_owned());
            if !agree(&ours, &theirs) {
                wrong.push(format!("{line}\n  theirs {theirs:?}\n  ours   {ours:?}"));
            }
            let Ok(printed) = ours else { continue };
            let read = |line: &str| parse_group_mod(line, GroupCommand::Add, &()).map(|g| g.group);
            assert_eq!(
                read(&printed).map_err(|e| e.reason),
                parse_group_mod(line, GroupCommand::Add, &Unprinted)
                    .map(|g| g.group)
                    .map_err(|e| e.reason),
                "{line}"
            );
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn meters() {
    let ovs = start();
    let numbered =
        |(i, line): (usize, &&str)| line.replace("meter=1 ", &format!("meter={} ", i + 100));
    let text = include_str!("meters.txt");
    let lines: Vec<String> = lines(text).iter().enumerate().map(numbered).collect();
    let taken = run_each(&ovs, "-O OpenFlow13 add-meter", &lines);
    let dump = ovs.ofctl("-O OpenFlow13 dump-meters", &[]).expect("dumps");
    let mut wrong = Vec::new();
    for (line, theirs) in lines.iter().zip(taken) {
        let ours = parse_meter_mod(line, MeterCommand::Add).map(|m| format_meter(&m.meter));
        let ours = ours.map_err(|e| e.reason);
        let same = match (&ours, &theirs) {
            (Ok(printed), Ok(())) => dump.contains(&format!("\n{printed}")),
            (Err(ours), Err(theirs)) => agree(&Err(ours.clone()), &Err(theirs.clone())),
            _ => false,
        };
        if !same {
            wrong.push(format!("{line}\n  theirs {theirs:?}\n  ours   {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}\n{dump}", wrong.len(), wrong.join("\n"));
}

/// How many random flows there are of each kind.
const RANDOM_FLOWS: usize = 1500;
/// Where their randomness begins.
const SEED: u64 = 3;

/// Adds all lines at once, each with its number as priority and cookie, and returns their actions.
fn add_all(ovs: &Ovs, options: &str, lines: &[String]) -> Vec<String> {
    ovs.ofctl("del-flows", &[]).expect("deletes");
    let numbered = lines.iter().enumerate();
    let text: String =
        numbered.map(|(i, line)| format!("priority={i},cookie={i},{line}\n")).collect();
    std::fs::write(ovs.at("flows"), text).expect("a temporary file");
    let added = ovs.ofctl(&format!("{options} add-flows"), &[&ovs.at("flows")]);
    if let Err(complaint) = added {
        // It names the line.
        let number = complaint.split(':').find_map(|word| word.parse::<usize>().ok());
        let line = number.and_then(|n| lines.get(n - 1));
        panic!("{complaint}{line:?}\n  ours {:?}", line.map(|l| ours(l)));
    }
    let printed = dump(ovs, options);
    (0..lines.len()).map(|i| printed[&i].clone()).collect()
}

fn dump(ovs: &Ovs, options: &str) -> BTreeMap<usize, String> {
    let dump = ovs.ofctl(&format!("{options} --no-stats dump-flows"), &[]).expect("dumps");
    let mut printed = BTreeMap::new();
    for line in dump.lines() {
        let cookie = line.split("cookie=0x").nth(1).and_then(|l| l.split(',').next());
        let i = usize::from_str_radix(cookie.unwrap_or("0"), 16).expect("hex");
        let actions = line.split_once(" actions=").expect("actions").1;
        printed.insert(i, actions.to_owned());
    }
    printed
}

#[test]
fn random_flows() {
    let ovs = start();
    let mut rng = Rng(SEED);
    for (options, openflow13) in [("", false), ("-O OpenFlow13", true)] {
        let line = |_| {
            let (matches, packet) = generate::packet(&mut rng);
            let actions = generate::actions(&mut rng, packet, openflow13);
            format!("{matches}{}actions={actions}", if matches.is_empty() { "" } else { "," })
        };
        let lines: Vec<String> = (0..RANDOM_FLOWS).map(line).collect();
        for (line, theirs) in lines.iter().zip(add_all(&ovs, options, &lines)) {
            let ours = ours(line).unwrap_or_else(|e| panic!("{line}\n{e}"));
            assert_eq!(ours, theirs, "{line}");
            again(line, &ours);
        }
    }
}

/// A flow as `ovs-ofctl parse-flow` prints it.
fn describe(flow: &FlowMod) -> String {
    let mut words = vec!["ADD".to_owned()];
    words.extend(flow.table.filter(|t| *t != 0).map(|table| format!("table:{table}")));
    let matches = format_match(&flow.matches, &(), Some(flow.priority));
    words.push(matches.trim_end_matches(',').to_owned());
    let cookie = flow.new_cookie.filter(|cookie| ![0, u64::MAX].contains(cookie));
    words.extend(cookie.map(|cookie| format!("cookie:{cookie:#x}")));
    let numbers =
        [("idle", flow.idle_timeout), ("hard", flow.hard_timeout), ("importance", flow.importance)];
    words.extend(numbers.iter().filter(|(_, n)| *n != 0).map(|(key, n)| format!("{key}:{n}")));
    let flags = [
        (flow.send_flow_rem, "send_flow_rem"),
        (flow.check_overlap, "check_overlap"),
        (flow.reset_counts, "reset_counts"),
        (flow.no_packet_counts, "no_packet_counts"),
        (flow.no_byte_counts, "no_byte_counts"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
    words.push(format!("actions={}", format_actions(&flow.actions, &())));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

#[test]
fn commands() {
    let ovs = start();
    let mut wrong = Vec::new();
    for line in lines(include_str!("commands.txt")) {
        let (command, line) = line.split_once(' ').unwrap_or((line, ""));
        let (command, run) = match command {
            "add" => (Command::Add, "-O OpenFlow14 parse-flow"),
            "mod" => (Command::Modify, "-O OpenFlow14 mod-flows"),
            "mods" => (Command::ModifyStrict, "-O OpenFlow14 --strict mod-flows"),
            "del" => (Command::Delete, "-O OpenFlow14 del-flows"),
            _ => (Command::DeleteStrict, "-O OpenFlow14 --strict del-flows"),
        };
        let ours = parse_flow_mod(line, command, &Unprinted).map_err(|e| e.reason);
        let same = if command == Command::Add {
            let args = ["-vconsole:off", "-O", "OpenFlow14", "parse-flow", line];
            let theirs = ovs.try_run("ovs-ofctl", &args).map_err(|e| reason(&e));
            let printed = |t: String| t.split_once("): ").map(|(_, flow)| flow.trim().to_owned());
            let theirs = theirs.map(|t| printed(t).expect("a flow"));
            let ours = ours.as_ref().map(describe).map_err(Clone::clone);
            (agree(&ours, &theirs), format!("{theirs:?}"))
        } else {
            let theirs = ovs.ofctl(run, &[line]).map(drop).map_err(|e| reason(&e));
            (ours.as_ref().map(|_| ()).map_err(Clone::clone) == theirs, format!("{theirs:?}"))
        };
        if !same.0 {
            wrong.push(format!(
                "{line}\n  theirs {}\n  ours   {:?}",
                same.1,
                ours.as_ref().map(describe)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn random_groups_and_meters() {
    let ovs = start();
    ovs.ofctl("del-groups", &[]).expect("deletes");
    let mut rng = Rng(SEED);
    let groups: Vec<String> = (100..400).map(|id| generate::group(&mut rng, id)).collect();
    std::fs::write(ovs.at("groups"), groups.join("\n")).expect("a temporary file");
    ovs.ofctl("add-groups", &[&ovs.at("groups")]).expect("groups");
    let dump = ovs.ofctl("dump-groups", &[]).expect("dumps");
    for line in &groups {
        let ours = parse_group_mod(line, GroupCommand::Add, &Unprinted).expect("a group").group;
        let start = format!(" group_id={},", ours.id);
        let theirs = dump.lines().find(|l| l.starts_with(&start)).expect("it is there");
        let printed = format_group(&ours, &());
        assert_eq!(printed, theirs.trim(), "{line}");
        let again = parse_group_mod(&printed, GroupCommand::Add, &()).map(|g| g.group);
        assert_eq!(again, Ok(ours), "{line}");
    }
    let meters: Vec<String> = (2..80).map(|id| generate::meter(&mut rng, id)).collect();
    for taken in run_each(&ovs, "-O OpenFlow13 add-meter", &meters) {
        taken.expect("a meter");
    }
    let dump = ovs.ofctl("-O OpenFlow13 dump-meters", &[]).expect("dumps");
    for line in &meters {
        let ours = parse_meter_mod(line, MeterCommand::Add).expect("a meter").meter;
        let printed = format_meter(&ours);
        assert!(
            dump.contains(&format!("\n{printed}\n")) || dump.ends_with(&printed),
            "{line}\n{dump}"
        );
        let joined = printed.replace('\n', " ");
        assert_eq!(
            parse_meter_mod(&joined, MeterCommand::Add).map(|m| m.meter),
            Ok(ours),
            "{line}"
        );
    }
}

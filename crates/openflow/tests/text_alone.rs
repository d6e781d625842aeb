//! Text of flows and groups without a judge: where errors are, files, limits, and that no text makes it
//! panic or disagree with itself.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "common/generate.rs"]
mod generate;

use generate::Rng;
use openflow::{Action, BucketPlace, BundleMod, Command, GroupCommand, MeterCommand};
use openflow::{LEARN_TABLE, MAX_NESTING, Match, OfPort, PortNames};
use openflow::{check_actions, first_unsupported, format_actions, format_group};
use openflow::{flow_mods, parse_actions, parse_bundle, parse_flow_mod, parse_flow_mods};
use openflow::{parse_group_mod, parse_group_mods, parse_meter_mod};
use std::time::{Duration, Instant};

struct Names;

impl PortNames for Names {
    fn name(&self, port: OfPort) -> Option<&str> {
        [(1, "p1"), (2, "a-b"), (3, "x, y)")].iter().find(|(n, _)| *n == port.0).map(|(_, n)| *n)
    }
    fn number(&self, name: &str) -> Option<OfPort> {
        (1..4).map(OfPort).find(|port| self.name(*port) == Some(name))
    }
}

/// Errors point at the character that is wrong.
#[test]
fn places_of_errors() {
    let cases = [
        ("in_port=1,actions=output:foo", "foo: output to unknown port (at character 26: \"foo\")"),
        ("ip,priority=70000,actions=1", "invalid priority \"70000\" (at character 13: \"70000\")"),
        ("ip,foo=3 actions=1", "unknown keyword foo (at character 4: \"foo\")"),
        (
            "actions=clone(output:1,set_queue:z)",
            "invalid numeric format z (at character 34: \"z\")",
        ),
        (
            "actions=1,set_queue",
            "missing required numeric argument (at character 11: \"set_queue\")",
        ),
        (
            "actions=output:1,drop,mod_nw_ttl:3",
            "\"drop\" must not be accompanied by any other action or instruction \
             (at character 18: \"drop\")",
        ),
        (
            "udp actions=1,set_field:3->tcp_src",
            "actions are invalid with specified match (OFPBAC_MATCH_INCONSISTENT) \
             (at character 15: \"set_field\")",
        ),
        (
            "actions=goto_table:1,output:1",
            "invalid instruction ordering: apply_actions must appear before goto_table, \
             for OpenFlow 1.1+ compatibility (at character 22: \"output\")",
        ),
        (
            "actions=learn(table=1,reg0=bar)",
            "table=1,reg0=bar: reg0 value bar cannot be parsed as a subfield \
             (bar: unknown field `bar') or an immediate value (bar: bad syntax for reg0 value) \
             (at character 28: \"bar\")",
        ),
    ];
    for (line, error) in cases {
        let found = parse_flow_mod(line, Command::Add, &()).expect_err(line);
        assert_eq!(found.to_string(), error, "{line}");
    }
}

#[test]
fn files() {
    let text = "# all of it\r\n\r\n  in_port=1,actions=2 # why\r\n\
        delete in_port=3\nmodify_strict priority=4 actions=drop\n\t\nadd actions=NORMAL";
    let flows = parse_flow_mods(text, Command::Add, &()).expect("a good file");
    let commands: Vec<Command> = flows.iter().map(|f| f.command).collect();
    let expected = [Command::Add, Command::Delete, Command::ModifyStrict, Command::Add];
    assert_eq!(commands, expected);
    assert_eq!(flows[0].actions, [Action::Output { port: OfPort(2), max_len: None }]);
    let lines: Vec<usize> = flow_mods(text, Command::Add, &()).map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 4, 5, 7]);
    // Only files of flows to add have commands.
    let (line, error) = parse_flow_mods(text, Command::Delete, &()).expect_err("actions");
    assert_eq!((line, error.reason.as_str()), (3, "unknown keyword actions"));
    let (line, error) = parse_flow_mods("\n in_port=1,actions=3,bar", Command::Add, &())
        .expect_err("an unknown action");
    assert_eq!(
        (line, error.to_string().as_str()),
        (2, "unknown action bar (at character 22: \"bar\")")
    );

    let text = "flow in_port=1,actions=group:1\ngroup group_id=1,type=all,bucket=output:1\n\
        group insert_bucket group_id=1,command_bucket_id=last,bucket=bucket_id:7,actions=drop\n\
        flow delete_strict priority=3\r\n";
    let changes = parse_bundle(text, &()).expect("a good file");
    assert!(matches!(&changes[0], BundleMod::Flow(f) if f.actions == [Action::Group(1)]));
    assert!(matches!(&changes[1], BundleMod::Group(g) if g.command == GroupCommand::Add));
    assert!(matches!(&changes[2], BundleMod::Group(g) if g.place == BucketPlace::Last));
    assert!(matches!(&changes[3], BundleMod::Flow(f) if f.command == Command::DeleteStrict));
    let (line, error) = parse_bundle("#\nin_port=1,actions=1", &()).expect_err("no kind");
    assert_eq!((line, error.reason.as_str()), (2, "Unsupported bundle message type: in_port=1"));
    let groups = parse_group_mods("group_id=1,type=all\n\ndelete group_id=2\n", &()).expect("two");
    assert_eq!(groups[1].command, GroupCommand::Delete);
}

#[test]
fn groups_and_meters_of_other_commands() {
    let group = |line, command| parse_group_mod(line, command, &()).map_err(|e| e.reason);
    let all = group("", GroupCommand::Delete).expect("all of them");
    assert!(all.all);
    assert!(group("group_id=all", GroupCommand::Delete).expect("all").all);
    let one = group("group_id=3", GroupCommand::Delete).expect("one");
    assert_eq!((one.all, one.group.id), (false, 3));
    let refused = [
        ("type=all,group_id=3", GroupCommand::Delete, "type is not needed"),
        ("group_id=3,bucket=output:1", GroupCommand::RemoveBuckets, "bucket is not needed"),
        ("group_id=3", GroupCommand::RemoveBuckets, "must specify a command bucket id"),
        (
            "group_id=3,command_bucket_id=all",
            GroupCommand::InsertBuckets,
            "command_bucket_id=all is not permitted",
        ),
        ("group_id=3,bucket=output:1", GroupCommand::Modify, "must specify a type"),
        ("command_bucket_id=first", GroupCommand::InsertBuckets, "must specify a group_id"),
        ("group_id=3,command_bucket_id=4", GroupCommand::Add, "command bucket id is not needed"),
    ];
    for (line, command, reason) in refused {
        assert_eq!(group(line, command).expect_err(line), reason, "{line}");
    }
    let removed = group("group_id=3,command_bucket_id=5", GroupCommand::RemoveBuckets);
    assert_eq!(removed.expect("one bucket").place, BucketPlace::Id(5));
    let meter = |line| parse_meter_mod(line, MeterCommand::Delete);
    assert!(meter("").expect("all").all && meter("meter=all").expect("all").all);
    assert_eq!(meter("meter=7").expect("one").meter.id, 7);
    assert_eq!(meter("meter=x").expect_err("none").reason, "invalid numeric format x");
    let group = "group_id=1,type=ff,bucket=watch_port=a-b,actions=output:a-b";
    let group = parse_group_mod(group, GroupCommand::Add, &Names).expect("a group").group;
    assert_eq!(
        format_group(&group, &Names),
        "group_id=1,type=ff,bucket=bucket_id:0,watch_port:\"a-b\",actions=output:\"a-b\""
    );
}

/// What was printed with names is read with names.
#[test]
fn names() {
    let text = "output:p1,output:\"a-b\",enqueue:\"a-b\":7,resubmit(\"a-b\",4),\
        output(port=\"a-b\",max_len=60),bundle(eth_src,0,hrw,ofport,members:p1,\"a-b\"),\
        learn(table=1,in_port=\"a-b\"),sample(probability=1,collector_set_id=0,obs_domain_id=0,\
        obs_point_id=0,sampling_port=p1),output:\"x, y)\",LOCAL";
    let actions = parse_actions(text, &Names).expect("actions");
    assert_eq!(format_actions(&actions, &Names), text);
    let numbers = format_actions(&actions, &());
    assert_eq!(parse_actions(&numbers, &()), Ok(actions));
    assert!(numbers.starts_with("output:1,output:2,enqueue:2:7,resubmit(2,4)"));
}

#[test]
fn nesting_is_bounded() {
    let nested = |n: usize| format!("{}output:1{}", "clone(".repeat(n), ")".repeat(n));
    let deepest = parse_actions(&nested(MAX_NESTING - 1), &()).expect("as deep as can be");
    assert_eq!(format_actions(&deepest, &()), nested(MAX_NESTING - 1));
    assert_eq!(check_actions(&deepest, &Match::any(), 0), Ok(()));
    for n in [MAX_NESTING, 10 * MAX_NESTING, 9_000] {
        let error = parse_actions(&nested(n), &()).expect_err("too deep");
        assert_eq!(error.reason, "Action nested too deeply");
    }
}

/// Long lines take a time that grows as they do.
#[test]
fn long_lines() {
    let many = |part: &str| part.repeat(1_000_000 / part.len());
    let lines = [
        many("output:1,"),
        many("drop,"),
        many("clone(),"),
        many("(\""),
        many("\"\\"),
        many("note(\""),
        format!("learn({})", many("reg0[0..3]=5,")),
        format!("learn({})", many("load:reg0->reg1,")),
        format!("bundle(eth_src,0,hrw,ofport,members:{})", many("1,")),
        format!("controller(userdata={})", many("ab.")),
        format!("note:{}", many("00")),
        format!("ct(commit,exec({}))", many("set_field:1->ct_mark,")),
        format!("write_actions({})", many("set_queue:1,")),
    ];
    let start = Instant::now();
    for line in &lines {
        let flow = format!("actions={line}");
        if let Ok(flow) = parse_flow_mod(&flow, Command::Add, &()) {
            format_actions(&flow.actions, &());
        }
    }
    let buckets = format!("group_id=1,type=all{}", many(",bucket=output:1"));
    assert!(parse_group_mod(&buckets, GroupCommand::Add, &()).is_ok());
    let matches = format!("{}actions=drop", many("in_port=1,"));
    assert!(parse_flow_mod(&matches, Command::Add, &()).is_ok());
    // Seconds where it should be well below one; with a square in it, it would be hours.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Spoilt text is refused or understood, and what is understood is printed so that it is understood the
/// same way again.
#[test]
fn spoilt_text() {
    const ALPHABET: &[u8] = b"(),:=->[]./ 0129axf\"#\\\t";
    let mut rng = Rng(5);
    let (mut taken, mut refused) = (0, 0);
    for i in 0..20_000 {
        let (matches, packet) = generate::packet(&mut rng);
        let actions = generate::actions(&mut rng, packet, i % 2 == 0);
        let mut text = format!("{matches} actions={actions}").into_bytes();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(text.len() as u64) as usize;
            match rng.below(4) {
                0 => text.truncate(at + 1),
                1 => text.insert(at, rng.pick(ALPHABET)),
                2 => text[at] = rng.pick(ALPHABET),
                _ => drop(text.remove(at)),
            }
            if text.is_empty() {
                break;
            }
        }
        let text = String::from_utf8(text).expect("ASCII");
        let Ok(flow) = parse_flow_mod(&text, Command::Add, &Names) else {
            refused += 1;
            continue;
        };
        taken += 1;
        let printed = format_actions(&flow.actions, &Names);
        let (head, _) = text.split_once("action").expect("actions");
        let again = parse_flow_mod(&format!("{head}actions={printed}"), Command::Add, &Names);
        assert_eq!(again.map(|f| f.actions), Ok(flow.actions), "{text}\n{printed}");
        let _ = parse_group_mod(&text.replace("actions=", "bucket="), GroupCommand::Add, &());
        let _ = parse_meter_mod(&text.replace("actions=", "bands="), MeterCommand::Add);
    }
    assert!(taken > 1000 && refused > 1000, "{taken} {refused}");
}

#[test]
fn connection_tracking_is_not_there_yet() {
    let reason = |text: &str| first_unsupported(&parse_actions(text, &()).expect(text));
    assert_eq!(
        reason("output:1,clone(ct_clear)"),
        Some("ct_clear: connection tracking is not available yet")
    );
    assert_eq!(reason("ct(commit)"), Some("ct: connection tracking is not available yet"));
    assert_eq!(reason("write_actions(ct())"), Some("ct: connection tracking is not available yet"));
    assert_eq!(reason("output:1,resubmit(,3)"), None);
}

/// Checks of lists that were not read from a flow's line.
#[test]
fn checks() {
    let check = |text: &str, table| {
        check_actions(&parse_actions(text, &()).expect(text), &Match::any(), table)
    };
    assert_eq!(check("goto_table:5", 4), Ok(()));
    let error = check("goto_table:5", 5).expect_err("backwards");
    assert_eq!(error, "actions are invalid with specified match (OFPBIC_BAD_TABLE_ID)");
    let unordered = [Action::GotoTable(3), Action::ClearActions];
    let error = check_actions(&unordered, &Match::any(), 0).expect_err("unordered");
    assert!(error.starts_with("invalid instruction ordering: clear_actions"), "{error}");
    assert!(check("push_vlan:0x8100,push_vlan:0x8100,push_vlan:0x8100", 0).is_err());
    assert_eq!(LEARN_TABLE, 1);
    assert!(size_of::<Action>() <= 48);
}

/// A list that no OpenFlow message could carry is not taken either.
#[test]
fn lists_have_a_greatest_length() {
    let outputs = |n: usize| vec!["output:1"; n].join(",");
    assert!(parse_actions(&outputs(7_000), &()).is_ok());
    let error = parse_actions(&outputs(8_000), &()).expect_err("too long");
    assert_eq!(error.reason, "input too big: more than 64 kB of actions");
}

//! The commands of the `ovs-ofctl` family: their table. The daemon answers them as `ofctl/NAME`.

/// What a command reads before the daemon is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    None,
    /// The last argument names a file, whose text is sent instead; `-` is standard input.
    File,
    /// The last argument may be `-`: the text is on standard input.
    Dash,
    /// Both arguments name a file or a bridge.
    Sources,
}

/// A command about flows.
pub struct FlowCommand {
    /// Its name.
    pub name: &'static str,
    /// Its arguments as help shows them.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Arguments that show how it is used.
    pub example: &'static str,
    /// Fewest and most arguments.
    pub args: (usize, usize),
    /// What it reads.
    pub input: Input,
    /// It changes something: refused with `--read-only`.
    pub writes: bool,
}

const fn reads(
    name: &'static str,
    usage: &'static str,
    args: (usize, usize),
    about: &'static str,
    example: &'static str,
) -> FlowCommand {
    FlowCommand { name, usage, about, example, args, input: Input::None, writes: false }
}

const fn writes(
    name: &'static str,
    usage: &'static str,
    args: (usize, usize),
    input: Input,
    about: &'static str,
    example: &'static str,
) -> FlowCommand {
    FlowCommand { name, usage, about, example, args, input, writes: true }
}

const MANY: usize = usize::MAX;
const NO: Input = Input::None;
const FILE: Input = Input::File;
const DASH: Input = Input::Dash;

/// The commands, in the order of the help. The daemon says which of them it cannot do yet.
#[rustfmt::skip]
pub const OFCTL: &[FlowCommand] = &[
    reads("show", "BRIDGE", (1, 1), "print the bridge's features and ports", "br0"),
    reads("dump-desc", "BRIDGE", (1, 1), "print who made the switch", "br0"),
    reads("dump-flows", "BRIDGE [FLOW]", (1, 2), "print the flows, or those within FLOW", "--names --no-stats br0 table=0,ip"),
    reads("dump-aggregate", "BRIDGE [FLOW]", (1, 2), "print the sum of the flows' counts", "br0 table=0"),
    reads("dump-tables", "BRIDGE", (1, 1), "print the tables' counts", "br0"),
    reads("dump-table-features", "BRIDGE", (1, 1), "print what tables can do", "br0"),
    reads("dump-table-desc", "BRIDGE", (1, 1), "print the tables' eviction settings", "br0"),
    writes("mod-table", "BRIDGE TABLE evict|noevict|name:NAME", (3, 3), NO, "change a table's settings", "br0 0 evict"),
    writes("add-flow", "BRIDGE FLOW", (2, 2), DASH, "add a flow, or replace the one with its match and priority", "br0 priority=10,ip,nw_dst=10.0.0.0/8,actions=output:vm1"),
    writes("add-flows", "BRIDGE FILE", (2, 2), FILE, "add the flows of a file; its lines may begin with add, modify, modify_strict, delete or delete_strict", "--bundle br0 flows.txt"),
    writes("mod-flows", "BRIDGE FLOW", (2, 2), DASH, "give the flows within FLOW other actions", "--strict br0 priority=10,ip,actions=drop"),
    writes("del-flows", "BRIDGE [FLOW]", (1, 2), DASH, "delete the flows within FLOW, or all", "br0 table=0,in_port=vm1"),
    writes("replace-flows", "BRIDGE FILE", (2, 2), FILE, "make the bridge have the flows of a file and no others", "br0 flows.txt"),
    FlowCommand { name: "diff-flows", usage: "SOURCE1 SOURCE2", about: "print how the flows of two bridges or files differ; exit status 2 if they do", example: "br0 ./flows.txt", args: (2, 2), input: Input::Sources, writes: false },
    writes("bundle", "BRIDGE FILE", (2, 2), FILE, "do all changes of a file or none; its lines begin with flow, group or packet-out", "br0 changes.txt"),
    writes("packet-out", "BRIDGE PACKET-OUT | BRIDGE IN_PORT ACTIONS PACKET...", (2, MANY), NO, "send packets, given in hexadecimal", "br0 in_port=CONTROLLER,packet=ffffffffffff5054000000010800,actions=output:vm1"),
    writes("add-group", "BRIDGE GROUP", (2, 2), DASH, "add a group", "br0 group_id=1,type=select,bucket=output:vm1,bucket=output:vm2"),
    writes("add-groups", "BRIDGE FILE", (2, 2), FILE, "add the groups of a file; its lines may begin with add, modify, add_or_mod, delete, insert_bucket or remove_bucket", "--bundle br0 groups.txt"),
    writes("mod-group", "BRIDGE GROUP", (2, 2), DASH, "change a group; with --may-create it need not exist", "--may-create br0 group_id=1,type=all,bucket=output:vm1"),
    writes("del-groups", "BRIDGE [GROUP]", (1, 2), DASH, "delete a group, or all, with the flows that use it", "br0 group_id=1"),
    writes("insert-buckets", "BRIDGE GROUP", (2, 2), DASH, "add buckets to a group", "br0 group_id=1,command_bucket_id=last,bucket=output:vm3"),
    writes("remove-buckets", "BRIDGE GROUP", (2, 2), DASH, "remove buckets from a group", "br0 group_id=1,command_bucket_id=first"),
    reads("dump-groups", "BRIDGE [GROUP]", (1, 2), "print the groups", "br0 1"),
    reads("dump-group-stats", "BRIDGE [GROUP]", (1, 2), "print the groups' counts", "br0 group_id=1"),
    reads("dump-group-features", "BRIDGE", (1, 1), "print what groups can do", "br0"),
    writes("add-meter", "BRIDGE METER", (2, 2), NO, "add a meter", "br0 meter=1,kbps,burst,bands=type=drop,rate=1000,burst_size=100"),
    writes("mod-meter", "BRIDGE METER", (2, 2), NO, "change a meter", "br0 meter=1,pktps,bands=type=drop,rate=1000"),
    writes("del-meter", "BRIDGE [METER]", (1, 2), NO, "delete a meter, or all, with the flows that use it", "br0 meter=1"),
    writes("del-meters", "BRIDGE [METER]", (1, 2), NO, "delete a meter, or all, with the flows that use it", "br0 meter=1"),
    reads("dump-meter", "BRIDGE METER", (2, 2), "print a meter", "br0 meter=1"),
    reads("dump-meters", "BRIDGE [METER]", (1, 2), "print the meters", "br0 meter=1"),
    reads("meter-stats", "BRIDGE [METER]", (1, 2), "print the meters' counts", "br0 meter=1"),
    reads("meter-features", "BRIDGE", (1, 1), "print what meters can do", "br0"),
    reads("dump-ports", "BRIDGE [PORT]", (1, 2), "print the ports' counts", "br0 vm1"),
    reads("dump-ports-desc", "BRIDGE [PORT]", (1, 2), "print the ports' addresses and states", "br0"),
    writes("mod-port", "BRIDGE PORT ACTION", (3, 3), NO, "change how a port is used: up, down, flood, no-flood, receive, no-receive, forward, no-forward, packet-in, no-packet-in", "br0 vm1 no-flood"),
    reads("queue-stats", "BRIDGE [PORT [QUEUE]]", (1, 3), "print the queues' counts", "br0"),
    reads("queue-get-config", "BRIDGE [PORT [QUEUE]]", (1, 3), "print the queues", "br0"),
    reads("get-frags", "BRIDGE", (1, 1), "print how fragments are treated", "br0"),
    writes("set-frags", "BRIDGE MODE", (2, 2), NO, "change how fragments are treated", "br0 normal"),
    writes("add-tlv-map", "BRIDGE MAP", (2, 2), NO, "give tunnel options fields", "br0 {class=0xffff,type=0,len=4}->tun_metadata0"),
    writes("del-tlv-map", "BRIDGE [MAP]", (1, 2), NO, "take fields from tunnel options", "br0"),
    reads("dump-tlv-map", "BRIDGE", (1, 1), "print the tunnel options that have fields", "br0"),
    writes("ct-flush", "BRIDGE [ARG]...", (1, 4), NO, "forget connections", "br0 zone=5"),
    writes("ct-flush-zone", "BRIDGE ZONE", (2, 2), NO, "forget the connections of a zone", "br0 5"),
    reads("monitor", "BRIDGE [ARG]...", (1, MANY), "print packets sent to controllers (see ofproto/packet-ins)", "br0"),
    reads("snoop", "BRIDGE", (1, 1), "print what the bridge and its controllers say", "br0"),
];

/// The command called `name`.
pub fn find(name: &str) -> Option<&'static FlowCommand> {
    OFCTL.iter().find(|command| command.name == name)
}

/// Options of the flow commands that the daemon is told, `=` where they take an argument, `[=` where
/// they may.
pub const TOLD: &[&str] = &[
    "strict",
    "names",
    "no-names",
    "stats",
    "no-stats",
    "bundle",
    "readd",
    "may-create",
    "sort[=",
    "rsort[=",
];

/// Options that change nothing here: text has no versions, and the daemon writes no colours.
pub const IGNORED: &[&str] = &["more", "timestamp", "color[=", "colour[=", "unixctl="];

/// Versions of OpenFlow that `-O` may name.
const PROTOCOLS: &[&str] =
    &["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"];

/// Flow formats that `-F` may name (ovs-ofctl(8)).
const FORMATS: &[&str] = &[
    "any",
    "OpenFlow10",
    "OpenFlow10-table_id",
    "OpenFlow10+table_id",
    "NXM",
    "NXM-table_id",
    "NXM+table_id",
    "OXM",
    "OpenFlow11",
    "OXM-OpenFlow12",
    "OXM-OpenFlow13",
    "OXM-OpenFlow14",
    "OXM-OpenFlow15",
];

/// Formats of packets for controllers that `-P` may name.
const PACKET_IN_FORMATS: &[&str] =
    &["standard", "openflow10", "nxt_packet_in", "nxm", "nxt_packet_in2"];

/// Checks the argument of `-O`, `-F` or `-P`; the option is without effect otherwise.
///
/// # Errors
/// The text that `ovs-ofctl` has for it.
pub fn check_formats(option: &str, value: &str) -> Result<(), String> {
    let unknown = |known: &[&str], separators: &[char]| {
        let mut words = value.split(separators).filter(|word| !word.is_empty());
        words.find(|word| !known.iter().any(|k| k.eq_ignore_ascii_case(word))).map(str::to_owned)
    };
    let (wrong, text): (_, fn(&str) -> String) = match option {
        "protocols" => {
            (unknown(PROTOCOLS, &[',', ' ']), |w| format!("Unknown OpenFlow version: \"{w}\""))
        }
        "flow-format" => (unknown(FORMATS, &[',']), |w| format!("{w}: unknown flow protocol")),
        "packet-in-format" => {
            (unknown(PACKET_IN_FORMATS, &[]), |w| format!("unknown packet-in format `{w}'"))
        }
        _ => return Ok(()),
    };
    wrong.map_or(Ok(()), |w| Err(text(&w)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert_eq!(check_formats("protocols", "OpenFlow10,openflow15 OpenFlow13"), Ok(()));
        assert!(check_formats("protocols", "OpenFlow16").is_err_and(|e| e.contains("OpenFlow16")));
        assert_eq!(check_formats("flow-format", "nxm,OXM-OpenFlow13"), Ok(()));
        assert!(check_formats("flow-format", "xyz").is_err());
        assert!(check_formats("packet-in-format", "xyz").is_err());
    }

    #[test]
    fn every_command_is_there_once_and_has_an_example_that_fits() {
        for (i, command) in OFCTL.iter().enumerate() {
            assert!(OFCTL[..i].iter().all(|c| c.name != command.name), "{}", command.name);
            let words = command.example.split(' ').filter(|w| !w.starts_with("--")).count();
            let (min, max) = command.args;
            assert!((min..=max).contains(&words), "{}: {}", command.name, command.example);
        }
    }
}

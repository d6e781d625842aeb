//! The same flow mods, group mods and lookups in Open vSwitch and here. Needs the Debian package
//! `openvswitch-switch`, and fails without.

use openflow::{Command as FlowCommand, FullMask, GroupCommand, MeterCommand};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tables::{DumpOptions, Groups, Meters, TableConfig, Tables};

/// How long OVS may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A private ovsdb-server and ovs-vswitchd with one bridge `br0` of dummy ports p1 to p3.
struct Ovs {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Already gone is as good as stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ovs {
    fn start() -> Ovs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Ovs { dir, children: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]).expect("a database");
        let remote = format!("--remote=punix:{}", ovs.at("db.sock"));
        ovs.spawn("ovsdb-server", &[&ovs.at("conf.db"), &remote]);
        let socket = PathBuf::from(ovs.at("db.sock"));
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < PATIENCE, "ovsdb-server's socket is not there");
            std::thread::sleep(Duration::from_millis(5));
        }
        ovs.vsctl("--no-wait init");
        let (db, control) = (format!("unix:{}", ovs.at("db.sock")), ovs.at("ctl"));
        let control = format!("--unixctl={control}");
        ovs.spawn("ovs-vswitchd", &[&db, "--enable-dummy=override", "--disable-system", &control]);
        ovs.vsctl(
            "add-br br0 -- set bridge br0 datapath_type=dummy fail_mode=secure \
             protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15 \
             -- add-port br0 p1 -- set interface p1 type=dummy ofport_request=1 \
             -- add-port br0 p2 -- set interface p2 type=dummy ofport_request=2 \
             -- add-port br0 p3 -- set interface p3 type=dummy ofport_request=3",
        );
        ovs
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("OVS_RUNDIR", self.dir.path()).env("OVS_LOGDIR", self.dir.path());
        command
    }

    fn spawn(&mut self, program: &str, args: &[&str]) {
        let mut command = self.command(program, args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let missing = "install the Debian package openvswitch-switch";
        self.children.push(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; {missing}")));
    }

    /// Runs a program; what it prints, or what it complains of.
    fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.command(program, args).output();
        let missing = "install the Debian package openvswitch-switch";
        let out = out.unwrap_or_else(|e| panic!("{program}: {e}; {missing}"));
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn vsctl(&self, words: &str) {
        let db = format!("--db=unix:{}", self.at("db.sock"));
        let mut args = vec![db.as_str(), "--timeout=20"];
        args.extend(words.split_whitespace());
        self.run("ovs-vsctl", &args).expect("ovs-vsctl");
    }

    /// `ovs-ofctl COMMAND br0 REST`; `command` begins with options.
    fn ofctl(&self, command: &str, rest: &str) -> Result<String, String> {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let mut args: Vec<&str> = command.split_whitespace().chain([target.as_str()]).collect();
        args.extend((!rest.is_empty()).then_some(rest));
        self.run("ovs-ofctl", &args)
    }

    fn appctl(&self, args: &[&str]) -> String {
        let control = self.at("ctl");
        self.run("ovs-appctl", &[&["-t", control.as_str()], args].concat()).expect("ovs-appctl")
    }
}

/// The commands of `ovs-ofctl` that change flows.
const COMMANDS: [(&str, FlowCommand); 5] = [
    ("add-flow", FlowCommand::Add),
    ("mod-flows", FlowCommand::Modify),
    ("--strict mod-flows", FlowCommand::ModifyStrict),
    ("del-flows", FlowCommand::Delete),
    ("--strict del-flows", FlowCommand::DeleteStrict),
];

/// Both, side by side.
struct Pair {
    ovs: Ovs,
    tables: Tables,
    groups: Groups,
    meters: Meters,
}

impl Pair {
    fn start() -> Pair {
        let (tables, groups, meters) = (Tables::new(), Groups::default(), Meters::default());
        Pair { ovs: Ovs::start(), tables, groups, meters }
    }

    /// Gives both a flow mod; they agree on whether it is right, and on OpenFlow's name of the error.
    fn flow_mod(&mut self, command: &str, flow: &str) {
        let kind = COMMANDS.iter().find(|(name, _)| *name == command).expect("a command").1;
        // What is meant is OpenFlow 1.0, as by default. It cannot say these.
        let newer = [
            "importance",
            "no_packet_counts",
            "no_byte_counts",
            "reset_counts",
            "group",
            "meter",
            "write_actions",
        ];
        let version =
            if newer.iter().any(|w| flow.contains(w)) { "OpenFlow14" } else { "OpenFlow10" };
        let theirs = self.ovs.ofctl(&format!("-O{version} {command}"), flow);
        let m = openflow::parse_flow_mod(flow, kind, &());
        let m = m.unwrap_or_else(|e| panic!("{command} {flow}: {e}; theirs: {theirs:?}"));
        let mine = self.tables.apply(&m, 0).map_err(|e| e.to_string());
        match (mine, theirs) {
            (Ok(_), Ok(_)) => {}
            (Err(mine), Err(theirs)) if theirs.contains(&mine) => {}
            (mine, theirs) => panic!("{command} {flow}: {mine:?}, theirs: {theirs:?}"),
        }
    }

    /// Both show the same flows.
    fn compare(&self, filter: &str, what: &str) {
        let theirs = self.ovs.ofctl("-OOpenFlow14 --no-stats dump-flows", filter).expect("dumps");
        // An addition in OpenFlow 1.0 means it, and OVS notes that.
        let theirs = theirs
            .replace("reset_counts ", "")
            .replace("set_queue:2,output:3,pop_queue", "enqueue:3:2");
        let filter = openflow::parse_flow_mod(filter, FlowCommand::Delete, &()).expect("a filter");
        let mine = self.tables.dump_flows(&filter, 0, false, &()).replace("reset_counts ", "");
        assert_eq!(sorted(&mine), sorted(&theirs), "{what}");
        let counts = self.tables.dump_aggregate(&filter);
        let n = mine.lines().count();
        assert!(counts.ends_with(&format!("flow_count={n}\n")), "{counts}");
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|l| l.contains("actions=")).collect();
    lines.sort_unstable();
    lines
}

/// Numbers that are the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let n = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        of[n as usize % of.len()]
    }
}

/// Hand-made changes, each with what is special about it.
#[test]
fn flow_mods() {
    let mut pair = Pair::start();
    let steps = [
        ("add-flow", "priority=5,ip,nw_dst=10.0.0.0/8,actions=1"),
        ("add-flow", "priority=5,ip,nw_dst=10.0.0.0/8,cookie=7,actions=2"),
        ("add-flow", "priority=6,tcp,nw_dst=10.1.0.0/16,tp_dst=80,cookie=8,actions=1,2"),
        ("add-flow", "table=3,udp,idle_timeout=60,hard_timeout=70,importance=5,actions=drop"),
        ("add-flow", "table=3,in_port=1,send_flow_rem,no_packet_counts,actions=3"),
        ("add-flow", "table=253,actions=controller"),
        ("add-flow", "table=254,actions=drop"),
        ("add-flow", "check_overlap,priority=5,tcp,actions=drop"),
        ("add-flow", "check_overlap,priority=5,arp,actions=drop"),
        ("add-flow", "check_overlap,priority=5,ip,nw_dst=10.0.0.0/8,actions=3"),
        ("mod-flows", "ip,actions=2"),
        ("mod-flows", "ip,cookie=9,actions=3"),
        ("mod-flows", "ip,cookie=9/-1,actions=1"),
        ("mod-flows", "icmp,actions=1"),
        ("mod-flows", "sctp,cookie=1/-1,actions=1"),
        ("mod-flows", "table=4,icmp,cookie=6,priority=4,actions=1"),
        ("--strict mod-flows", "priority=6,tcp,nw_dst=10.1.0.0/16,tp_dst=80,actions=drop"),
        ("--strict mod-flows", "priority=7,tcp,nw_dst=10.1.0.0/16,tp_dst=80,actions=1"),
        ("--strict mod-flows", "priority=5,ip,nw_dst=10.0.0.0/8,cookie=1/1,cookie=3,actions=1"),
        ("mod-flows", "table=3,actions=2"),
        ("--strict del-flows", "priority=5,ip,nw_dst=10.0.0.0/9"),
        ("--strict del-flows", "priority=5,ip,nw_dst=10.0.0.0/8,cookie=8/-1"),
        ("del-flows", "table=0,tcp,tp_dst=80,out_port=3"),
        ("del-flows", "out_port=1,cookie=0/1"),
        ("del-flows", "table=254"),
        ("add-flow", "table=9,in_port=1,actions=clone(output:3)"),
        ("add-flow", "table=9,in_port=2,actions=write_actions(output:3)"),
        ("add-flow", "table=9,in_port=3,actions=enqueue:3:2"),
        ("add-flow", "table=9,in_port=4,actions=output(port=3,max_len=100)"),
        ("add-flow", "table=9,in_port=5,actions=controller"),
        ("add-flow", "table=9,in_port=6,actions=in_port"),
        ("del-flows", "table=9,out_port=controller"),
        ("del-flows", "table=9,out_port=3"),
        ("--strict del-flows", "table=253,priority=32768"),
        ("del-flows", "table=3"),
        ("del-flows", ""),
    ];
    for (command, flow) in steps {
        pair.flow_mod(command, flow);
        pair.compare("", &format!("after {command} {flow}"));
    }
    assert!(pair.tables.is_empty());
}

/// Random changes among few flows.
#[test]
fn random_flow_mods() {
    let mut pair = Pair::start();
    let r = &mut Random(20);
    for step in 0..150 {
        let command = r.one(&[
            "add-flow",
            "add-flow",
            "add-flow",
            "mod-flows",
            "--strict mod-flows",
            "del-flows",
            "--strict del-flows",
        ]);
        let adds = command == "add-flow";
        let changes = adds || command.ends_with("mod-flows");
        let mut words =
            vec![r.one(&["", "tcp", "udp", "ip", "arp", "ipv6", "in_port=1", "in_port=2,ip"])];
        if matches!(words[0], "tcp" | "udp") {
            words.push(r.one(&["", "tp_dst=80", "tp_dst=0x50/0xfff0", "tp_src=1"]));
        }
        if matches!(words[0], "tcp" | "udp" | "ip") {
            words.push(r.one(&[
                "",
                "nw_dst=10.0.0.0/8",
                "nw_dst=10.0.0.1",
                "nw_dst=0.0.0.1/0.0.0.1",
            ]));
        }
        words.push(r.one(&["table=0", "table=0", "table=1"]));
        words.push(if adds {
            r.one(&["", "cookie=1", "cookie=0x12"])
        } else {
            r.one(&["", "", "cookie=1/-1", "cookie=2/2"])
        });
        if changes && !adds {
            words.push(r.one(&["", "", "cookie=3"]));
        }
        if !command.ends_with("del-flows") || command.starts_with("--strict") {
            words.push(r.one(&["priority=1", "priority=2", ""]));
        }
        if adds {
            words.push(r.one(&["", "", "check_overlap"]));
            words.push(r.one(&["", "reset_counts", "idle_timeout=100", "send_flow_rem"]));
        }
        words.push(if changes {
            r.one(&["actions=1", "actions=2", "actions=1,2", "actions=drop"])
        } else {
            r.one(&["", "", "out_port=1", "out_port=2"])
        });
        words.retain(|w| !w.is_empty());
        let flow = words.join(",");
        pair.flow_mod(command, &flow);
        pair.compare("", &format!("step {step}: {command} {flow}"));
    }
    for filter in ["table=1", "ip", "tcp,nw_dst=10.0.0.1", "out_port=2", "cookie=1/1", "in_port=2"]
    {
        pair.compare(filter, filter);
    }
}

/// Limits, eviction, names, `dump-tables`.
#[test]
fn limits_and_eviction() {
    let mut pair = Pair::start();
    pair.ovs.vsctl(
        "-- --id=@t create Flow_Table name=web flow_limit=4 overflow_policy=evict \
         groups=\"NXM_OF_IN_PORT[]\" -- set bridge br0 flow_tables:5=@t \
         -- --id=@u create Flow_Table flow_limit=2 overflow_policy=refuse \
         -- set bridge br0 flow_tables:6=@u \
         -- --id=@v create Flow_Table name=a -- set bridge br0 flow_tables:10=@v \
         -- --id=@w create Flow_Table name=b -- set bridge br0 flow_tables:11=@w \
         -- --id=@x create Flow_Table name=first -- set bridge br0 flow_tables:0=@x \
         -- --id=@y create Flow_Table name=1a -- set bridge br0 flow_tables:12=@y",
    );
    let in_port = openflow::Subfield::parse("NXM_OF_IN_PORT[]").expect("a field");
    let config = |name: &str, flow_limit, evict| TableConfig {
        name: (!name.is_empty()).then(|| name.to_owned()),
        flow_limit,
        evict,
        groups: if evict { vec![in_port] } else { Vec::new() },
        prefixes: None,
    };
    for (table, config) in [
        (5, config("web", Some(4), true)),
        (6, config("", Some(2), false)),
        (10, config("a", None, false)),
        (11, config("b", None, false)),
        (0, config("first", None, false)),
        (12, config("1a", None, false)),
    ] {
        assert!(pair.tables.set_table_config(table, config).is_empty());
    }
    // Never two groups of the same size: OVS chooses one of them by chance.
    for (command, flow) in [
        ("add-flow", "actions=2"),
        ("add-flow", "table=12,actions=2"),
        ("add-flow", "table=6,in_port=1,actions=1"),
        ("add-flow", "table=6,in_port=2,actions=1"),
        ("add-flow", "table=6,in_port=3,idle_timeout=90,actions=1"),
        ("add-flow", "table=6,in_port=2,actions=2"),
        ("add-flow", "table=5,in_port=1,tcp,idle_timeout=100,actions=1"),
        ("add-flow", "table=5,in_port=1,udp,idle_timeout=50,actions=1"),
        ("add-flow", "table=5,in_port=1,sctp,idle_timeout=30,importance=2,actions=1"),
        ("add-flow", "table=5,in_port=2,tcp,importance=1,hard_timeout=20,actions=1"),
        ("add-flow", "table=5,in_port=2,udp,actions=1"),
        ("add-flow", "table=5,in_port=2,arp,actions=1"),
        ("del-flows", "table=5,in_port=1"),
        ("add-flow", "table=5,in_port=2,ip,actions=1"),
        ("add-flow", "table=5,in_port=2,ip,nw_dst=1.2.3.4,actions=1"),
        ("add-flow", "table=5,in_port=2,ipv6,idle_timeout=7,actions=1"),
        ("add-flow", "table=5,in_port=2,ip,nw_dst=1.2.3.4,actions=1"),
    ] {
        pair.flow_mod(command, flow);
        pair.compare("", &format!("after {command} {flow}"));
    }
    assert_eq!((pair.tables.len_of(5), pair.tables.len_of(6)), (4, 2));
    let theirs = pair.ovs.ofctl("dump-tables", "").expect("dumps");
    assert_eq!(pair.tables.dump_tables(), theirs);
    let filter = openflow::parse_flow_mod("", FlowCommand::Delete, &()).expect("all");
    for (option, table_names) in [("--names", true), ("--no-names", false)] {
        let theirs = pair.ovs.ofctl(&format!("{option} --no-stats dump-flows"), "");
        let theirs = theirs.expect("dumps").replace("output:p", "output:");
        let options = DumpOptions { stats: false, table_names };
        let mine = pair.tables.dump_flows(&filter, 0, options, &());
        assert_eq!(mine, theirs.replace("in_port=p", "in_port="));
    }
}

/// Groups and meters: the same changes are refused with the same errors, and the same is shown.
#[test]
fn groups_and_meters() {
    let mut pair = Pair::start();
    let steps = [
        (
            "add-group",
            "group_id=1,type=select,bucket=bucket_id=3,weight=10,actions=1,bucket=weight=0,actions=2",
        ),
        ("add-group", "group_id=1,type=all"),
        ("add-group", "group_id=2,type=all,bucket=actions=group:1,bucket=output:2"),
        ("add-group", "group_id=3,type=all,bucket=actions=group:77"),
        (
            "add-group",
            "group_id=7,type=ff,bucket=watch_port=99,actions=1,bucket=watch_group=1,actions=2",
        ),
        ("mod-group", "group_id=100,type=all"),
        ("mod-group --may-create", "group_id=100,type=all"),
        ("mod-group", "group_id=100,type=indirect,bucket=actions=1"),
        (
            "insert-buckets",
            "group_id=1,command_bucket_id=first,bucket=bucket_id=9,weight=3,actions=3",
        ),
        (
            "insert-buckets",
            "group_id=1,command_bucket_id=last,bucket=bucket_id=9,weight=1,actions=3",
        ),
        ("insert-buckets", "group_id=1,command_bucket_id=3,bucket=bucket_id=10,weight=5,actions=3"),
        (
            "insert-buckets",
            "group_id=1,command_bucket_id=55,bucket=bucket_id=11,weight=5,actions=3",
        ),
        ("insert-buckets", "group_id=55,command_bucket_id=last,bucket=bucket_id=11,actions=3"),
        ("remove-buckets", "group_id=1,command_bucket_id=9"),
        ("remove-buckets", "group_id=1,command_bucket_id=99"),
        ("remove-buckets", "group_id=1,command_bucket_id=last"),
        ("remove-buckets", "group_id=1,command_bucket_id=first"),
        ("remove-buckets", "group_id=2,command_bucket_id=all"),
        ("remove-buckets", "group_id=44,command_bucket_id=all"),
        ("del-groups", "group_id=77"),
        ("del-groups", "group_id=3"),
    ];
    for (command, text) in steps {
        let kind = match command {
            "add-group" => GroupCommand::Add,
            "mod-group" => GroupCommand::Modify,
            "mod-group --may-create" => GroupCommand::AddOrModify,
            "insert-buckets" => GroupCommand::InsertBuckets,
            "remove-buckets" => GroupCommand::RemoveBuckets,
            _ => GroupCommand::Delete,
        };
        let theirs = pair.ovs.ofctl(&format!("-OOpenFlow15 {command}"), text);
        let m = openflow::parse_group_mod(text, kind, &()).expect(text);
        let mine = pair.groups.apply(&m, 0).map_err(|e| e.to_string());
        match (&mine, &theirs) {
            (Ok(()), Ok(_)) => {}
            (Err(mine), Err(theirs)) if theirs.contains(mine) => {}
            _ => panic!("{command} {text}: {mine:?}, theirs: {theirs:?}"),
        }
        let theirs = pair.ovs.ofctl("-OOpenFlow15 dump-groups", "").expect("dumps");
        let mine = pair.groups.dump_groups(None, &());
        assert_eq!(group_lines(&mine), group_lines(&theirs), "{command} {text}");
    }
    flows_of_groups(&mut pair);
    meters(&mut pair);
}

fn group_lines(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| l.starts_with(" group_id="));
    // The time differs.
    let without_time = |l: &str| {
        let words = l.split(',').filter(|w| !w.starts_with("duration="));
        words.collect::<Vec<_>>().join(",")
    };
    let mut out: Vec<String> = lines.map(without_time).collect();
    out.sort();
    out
}

/// Flows go with the groups that they use.
fn flows_of_groups(pair: &mut Pair) {
    for flow in [
        "table=1,in_port=1,actions=group:100",
        "table=1,in_port=2,actions=1,write_actions(group:1)",
        "table=1,in_port=3,actions=group:2",
        "table=1,in_port=4,actions=1",
    ] {
        pair.flow_mod("add-flow", flow);
    }
    let theirs = pair.ovs.ofctl("-OOpenFlow15 dump-group-stats", "").expect("dumps");
    let mine = pair.groups.dump_group_stats(None, &pair.tables, 0);
    assert_eq!(group_lines(&mine), group_lines(&theirs));
    for text in ["group_id=1", ""] {
        let m = openflow::parse_group_mod(text, GroupCommand::Delete, &()).expect(text);
        pair.ovs.ofctl("-OOpenFlow15 del-groups", text).expect("deletes");
        pair.groups.apply(&m, 0).expect("deletes");
        pair.tables.remove_users_of_group(&m);
        pair.compare("", "flows without their group");
    }
    assert_eq!(pair.groups.iter().count(), 0);
}

fn meters(pair: &mut Pair) {
    let steps = [
        ("add-meter", "meter=1,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=100"),
        ("add-meter", "meter=1,kbps,bands=type=drop,rate=1000"),
        ("add-meter", "meter=3,pktps,bands=type=drop,rate=5,type=dscp_remark,rate=7,prec_level=1"),
        ("add-meter", "meter=5,pktps,bands=type=drop,rate=5,type=drop,rate=9"),
        ("mod-meter", "meter=9,kbps,bands=type=drop,rate=1000"),
        ("mod-meter", "meter=5,kbps,stats,bands=type=drop,rate=9"),
        ("del-meter", "meter=77"),
    ];
    for (command, text) in steps {
        let kind = match command {
            "add-meter" => MeterCommand::Add,
            "mod-meter" => MeterCommand::Modify,
            _ => MeterCommand::Delete,
        };
        let theirs = pair.ovs.ofctl(&format!("-OOpenFlow13 {command}"), text);
        let m = openflow::parse_meter_mod(text, kind).expect(text);
        let mine = pair.meters.apply(&m, 0).map_err(|e| e.to_string());
        match (&mine, &theirs) {
            (Ok(()), Ok(_)) => {}
            (Err(mine), Err(theirs)) if theirs.contains(mine) => {}
            _ => panic!("{command} {text}: {mine:?}, theirs: {theirs:?}"),
        }
        let theirs = pair.ovs.ofctl("-OOpenFlow13 dump-meters", "").expect("dumps");
        let body = theirs.split_once('\n').expect("a header").1;
        assert_eq!(pair.meters.dump_meters(None).expect("all"), body, "{command} {text}");
    }
    pair.flow_mod("add-flow", "table=2,actions=meter:1,1");
    let theirs = pair.ovs.ofctl("-OOpenFlow13 meter-stats", "").expect("dumps");
    let body = theirs.split_once('\n').expect("a header").1;
    let mine = pair.meters.dump_meter_stats(None, &pair.tables, 0).expect("all");
    let without_time = |text: &str| {
        let words = text.split(' ').filter(|w| !w.starts_with("duration:"));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(without_time(&mine), without_time(body));
    let m = openflow::parse_meter_mod("meter=1", MeterCommand::Delete).expect("one");
    pair.ovs.ofctl("-OOpenFlow13 del-meter", "meter=1").expect("deletes");
    pair.meters.apply(&m, 0).expect("deletes");
    assert_eq!(pair.tables.remove_users_of_meter(&m).len(), 1);
    pair.compare("", "flows without their meter");
}

/// Tables whose megaflows depend on how they are searched, and packets for them.
const SEARCHED: [(&str, &[&str], &[&str]); 7] = [
    (
        "prefixes",
        &[
            "priority=9,ip,nw_dst=10.0.0.0/8",
            "priority=10,ip,nw_dst=10.1.0.0/16",
            "priority=11,ip,nw_dst=10.1.2.0/24",
            "priority=12,ip,nw_dst=10.1.2.3",
            "priority=9,ip,nw_dst=192.168.0.0/16",
            "priority=3,ip,nw_src=10.0.0.0/8",
            "priority=0",
        ],
        &[
            "ip,nw_dst=10.1.2.3",
            "ip,nw_dst=10.1.2.4",
            "ip,nw_dst=10.1.3.1",
            "ip,nw_dst=10.2.0.1",
            "ip,nw_dst=11.0.0.1",
            "ip,nw_dst=192.168.3.4",
            "ip,nw_dst=1.1.1.1,nw_src=10.0.0.1",
            "ip,nw_dst=1.1.1.1,nw_src=11.0.0.1",
            "arp",
            "ipv6",
        ],
    ),
    (
        "IPv6 prefixes",
        &[
            "priority=9,ipv6,ipv6_dst=2001:db8::/32",
            "priority=10,ipv6,ipv6_dst=2001:db8:1::/48",
            "priority=12,ipv6,ipv6_dst=2001:db8:1::1",
            "priority=0",
        ],
        &[
            "ipv6,ipv6_dst=2001:db8:1::1",
            "ipv6,ipv6_dst=2001:db8:1::2",
            "ipv6,ipv6_dst=fe80::1",
            "ipv6,ipv6_dst=2001:db9::1",
            "ip,nw_dst=1.2.3.4",
        ],
    ),
    (
        "ports",
        &[
            "priority=9,tcp,tp_dst=80",
            "priority=9,tcp,tp_dst=443",
            "priority=8,tcp,tp_dst=0x400/0xfc00",
            "priority=9,udp,tp_src=53",
            "priority=0",
        ],
        &[
            "tcp,tp_dst=80",
            "tcp,tp_dst=81",
            "tcp,tp_dst=443",
            "tcp,tp_dst=1030",
            "tcp,tp_dst=40000",
            "udp,udp_dst=80",
            "udp,udp_src=53",
            "udp,udp_src=54",
            "icmp",
        ],
    ),
    (
        "stages",
        &[
            "priority=5,in_port=1,dl_src=02:00:00:00:00:01,ip,nw_dst=10.0.0.1",
            "priority=5,in_port=1,dl_src=02:00:00:00:00:02,tcp,nw_dst=10.0.0.1,tp_dst=80",
            "priority=4,in_port=2,tcp,nw_src=10.0.0.0/8,tp_dst=80",
        ],
        &[
            "in_port=1,dl_src=02:00:00:00:00:01,ip,nw_dst=10.0.0.1",
            "in_port=1,dl_src=02:00:00:00:00:02,tcp,nw_dst=10.0.0.1,tp_dst=80",
            "in_port=1,dl_src=02:00:00:00:00:02,tcp,nw_dst=10.0.0.1,tp_dst=81",
            "in_port=1,dl_src=02:00:00:00:00:03,tcp,nw_dst=10.0.0.1,tp_dst=81",
            "in_port=2,tcp,nw_src=10.2.0.1,tp_dst=80",
            "in_port=2,tcp,nw_src=11.2.0.1,tp_dst=80",
            "in_port=3,tcp,nw_src=10.2.0.1,tp_dst=80",
        ],
    ),
    (
        "conjunctions",
        &[
            "priority=9,ip,nw_src=10.0.0.1 conjunction(7,1/2)",
            "priority=9,ip,nw_src=10.0.0.4/30 conjunction(7,1/2),conjunction(8,2/3)",
            "priority=9,ip,nw_dst=10.0.1.0/24 conjunction(7,2/2)",
            "priority=9,tcp,tp_dst=80 conjunction(8,1/3)",
            "priority=9,ip,nw_dst=10.0.2.0/24 conjunction(8,3/3)",
            "priority=1,conj_id=7,ip",
            "priority=1,conj_id=8,tcp",
            "priority=2,conj_id=7,udp",
            "priority=0",
            "priority=8,ip,nw_src=10.0.0.5",
        ],
        &[
            "ip,nw_src=10.0.0.1,nw_dst=10.0.1.9",
            "udp,nw_src=10.0.0.1,nw_dst=10.0.1.9",
            "ip,nw_src=10.0.0.1,nw_dst=10.0.2.9",
            "ip,nw_src=10.0.0.6,nw_dst=10.0.1.9",
            "tcp,nw_src=10.0.0.6,nw_dst=10.0.2.9,tp_dst=80",
            "ip,nw_src=10.0.0.5,nw_dst=10.0.3.9",
            "tcp,nw_src=10.0.0.6,nw_dst=10.0.2.9,tp_dst=81",
            "ip,nw_src=10.0.0.5,nw_dst=10.0.1.9",
        ],
    ),
    (
        "conjunctions of several priorities",
        &[
            "priority=9,ip,nw_src=10.0.0.0/8 conjunction(1,1/2)",
            "priority=9,ip,nw_dst=10.0.0.0/8 conjunction(1,2/2)",
            "priority=5,ip,nw_src=10.0.0.0/8 conjunction(2,1/2)",
            "priority=5,ip,nw_dst=10.0.0.0/8 conjunction(2,2/2)",
            "priority=3,conj_id=2,ip",
            "priority=3,conj_id=1,tcp",
            "priority=6,udp",
        ],
        &[
            "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2",
            "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2",
            "icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2",
            "icmp,nw_src=10.0.0.1,nw_dst=11.0.0.2",
        ],
    ),
    (
        "a conjunction that no flow answers for",
        &[
            "priority=9,ip,nw_src=10.0.0.0/8 conjunction(1,1/2)",
            "priority=9,ip,nw_dst=10.0.0.0/8 conjunction(1,2/2)",
            "priority=5,ip,nw_src=10.0.0.0/8",
        ],
        &[
            "ip,nw_src=10.0.0.1,nw_dst=10.0.0.2",
            "ip,nw_src=10.0.0.1,nw_dst=11.0.0.2",
            "ip,nw_src=11.0.0.1,nw_dst=10.0.0.2",
        ],
    ),
];

/// The same flow is found, and by looking at no more bits than OVS does.
#[test]
fn looks_at_no_more_than_ovs() {
    let ovs = Ovs::start();
    for (name, flows, packets) in SEARCHED {
        ovs.ofctl("del-flows", "").expect("deletes");
        let mut tables = Tables::new();
        for (cookie, flow) in flows.iter().enumerate() {
            let (matches, actions) = flow.split_once(' ').unwrap_or((flow, "drop"));
            let flow = format!("cookie={},{matches},actions={actions}", cookie + 1);
            ovs.ofctl("add-flow", &flow).expect("adds");
            let m = openflow::parse_flow_mod(&flow, FlowCommand::Add, &()).expect(&flow);
            tables.apply(&m, 0).expect("adds");
        }
        for packet in packets {
            let port = if packet.contains("in_port") { "" } else { "in_port=1," };
            let trace = ovs.appctl(&["ofproto/trace", "br0", &format!("{port}{packet}")]);
            let key = openflow::parse_match(&format!("{port}{packet}"), &()).expect(packet).value;
            let mut seen = FullMask::default();
            let mine = tables.lookup(0, &key, &mut seen).map_or(0, |r| r.cookie);
            assert_eq!(mine, cookie_of(&trace), "{name}: {packet}: {trace}");
            let theirs = megaflow_of(&trace);
            // OVS always looks at these, and nobody knows an `eth()` without addresses.
            seen.0.pkt.dl_type = 0.into();
            (seen.0.in_port, seen.0.conj_id) = (0.into(), 0.into());
            assert!(theirs.covers(&seen), "{name}: {packet}: {trace}{:?}", seen.0.pkt);
        }
    }
}

/// The cookie of the flow that a trace found last, 0 for none.
fn cookie_of(trace: &str) -> u64 {
    let Some((_, rest)) = trace.rsplit_once("cookie 0x") else {
        return 0;
    };
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next().expect("some");
    u64::from_str_radix(digits, 16).expect("hexadecimal")
}

fn megaflow_of(trace: &str) -> FullMask {
    let line = trace.lines().find_map(|l| l.strip_prefix("Megaflow: ")).expect("a megaflow");
    let skip =
        |w: &&str| !w.starts_with("recirc_id") && *w != "eth" && !w.starts_with("packet_type");
    let words: Vec<&str> = line.split(',').filter(skip).collect();
    openflow::parse_match(&words.join(","), &()).expect(line).mask
}

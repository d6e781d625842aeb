//! `ofproto/trace` of the same tables and packets here and in Open vSwitch: the same text, line by line.
//! Needs the Debian package `openvswitch-switch`, and fails without.

use flow::DpPort;
use openflow::{Command as Change, parse_flow_mods, parse_group_mods};
use pipeline::{BridgeConfig, OfPort, Pipeline};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long OVS may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number that OVS's dummy datapath gives a bridge's own port.
const DUMMY_LOCAL: u32 = 100;

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
        ovs.run("ovsdb-tool", &["create", &ovs.at("conf.db"), schema]);
        let remote = format!("--remote=punix:{}", ovs.at("db.sock"));
        ovs.spawn("ovsdb-server", &[&ovs.at("conf.db"), &remote]);
        let (socket, start) = (PathBuf::from(ovs.at("db.sock")), Instant::now());
        while !socket.exists() {
            assert!(start.elapsed() < PATIENCE, "ovsdb-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let db = format!("--db=unix:{}", ovs.at("db.sock"));
        ovs.run("ovs-vsctl", &[&db, "--no-wait", "init"]);
        let control = format!("--unixctl={}", ovs.at("ctl"));
        let args = [&db[5..], "--enable-dummy=override", "--disable-system", &control];
        ovs.spawn("ovs-vswitchd", &args);
        let add = "--timeout=20 add-br br0 -- set bridge br0 datapath_type=dummy \
            -- add-port br0 p1 -- set interface p1 type=dummy ofport_request=1 \
            -- add-port br0 p2 -- set interface p2 type=dummy ofport_request=2 \
            -- add-port br0 p3 -- set interface p3 type=dummy ofport_request=3";
        let args: Vec<&str> = [db.as_str()].into_iter().chain(add.split_whitespace()).collect();
        ovs.run("ovs-vsctl", &args);
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
        let child = command.spawn();
        self.children.push(child.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        }));
    }

    /// Runs a program; what it prints, or what it complains of.
    fn try_run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.command(program, args).output();
        let out = out.unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package openvswitch-switch")
        });
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))
    }

    /// Replaces all flows and groups.
    fn load(&self, case: &Case) {
        let target = format!("unix:{}", self.at("br0.mgmt"));
        let file = |name: &str, text: &str| {
            std::fs::write(self.at(name), text).expect("a temporary file");
            self.at(name)
        };
        self.run("ovs-ofctl", &["del-flows", &target]);
        self.run("ovs-ofctl", &["-O", "OpenFlow15", "del-groups", &target]);
        if !case.groups.is_empty() {
            let groups = file("groups", case.groups);
            self.run("ovs-ofctl", &["-O", "OpenFlow15", "add-groups", &target, &groups]);
        }
        // Instructions are what they are only in later versions.
        let later = ["goto_table", "push_vlan"].iter().any(|w| case.flows.contains(w));
        let version: &[&str] = if later { &["-O", "OpenFlow15"] } else { &[] };
        let flows = file("flows", case.flows);
        self.run("ovs-ofctl", &[version, &["add-flows", &target, &flows]].concat());
        self.appctl(&["fdb/flush", "br0"]).expect("flushes");
    }

    fn appctl(&self, args: &[&str]) -> Result<String, String> {
        let control = self.at("ctl");
        self.try_run("ovs-appctl", &[&["-t", control.as_str()], args].concat())
    }
}

/// Flows, groups, and packets to trace one after the other.
struct Case {
    flows: &'static str,
    groups: &'static str,
    traces: &'static [&'static [&'static str]],
    /// Megaflow and datapath actions are the same too. Elsewhere ours look at fewer fields, or set
    /// fewer bits, and another test compares what they do.
    whole: bool,
}

/// The same bridge and tables here, with the datapath numbers that OVS gives.
fn ours(case: &Case) -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    p.add_port("br0", "br0", OfPort::LOCAL, DpPort(DUMMY_LOCAL)).expect("new");
    for n in 1..=3u16 {
        p.add_port("br0", &format!("p{n}"), OfPort(n), DpPort(n.into())).expect("new");
    }
    let names = p.names("br0").expect("there");
    let groups = parse_group_mods(case.groups, &names).expect("groups");
    p.group_mods("br0", &groups, 0).unwrap_or_else(|e| panic!("{}: {e:?}", case.groups));
    let flows = format!("delete\n{}", case.flows);
    let flows = parse_flow_mods(&flows, Change::Add, &names).expect("flows");
    p.flow_mods("br0", &flows, 0).unwrap_or_else(|e| panic!("{}: {e:?}", case.flows));
    p
}

/// The lines of a trace with what cannot be the same left out: numbers of recirculations, and the order
/// in which a flood's ports are named.
fn lines(trace: &str, whole: bool) -> Vec<String> {
    let line = |l: &str| {
        let mut l = l.trim_end().to_owned();
        if let Some(actions) = l.strip_prefix("Datapath actions: ")
            && !actions.contains('(')
        {
            let mut ports: Vec<&str> = actions.split(',').collect();
            ports.sort_unstable();
            l = format!("Datapath actions: {}", ports.join(","));
        }
        if let Some((before, after)) = l.split_once("recirc(0x")
            && let Some((_, rest)) = after.split_once(')')
        {
            l = format!("{before}recirc(N){rest}");
        }
        l
    };
    let last = |l: &&str| l.starts_with("Megaflow: ") || l.starts_with("Datapath actions: ");
    trace.trim_end().lines().filter(|l| whole || !last(l)).map(line).collect()
}

const NONE: &str = "";

const CASES: &[Case] = &[
    Case {
        flows: "priority=0,actions=NORMAL",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1"],
            &["br0", "in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02", "-generate"],
            &["br0", "in_port=2,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01", "-generate"],
            &["br0", "in_port=1,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"],
            &["br0", "in_port=1,dl_vlan=5,dl_vlan_pcp=3,udp,dl_dst=ff:ff:ff:ff:ff:ff"],
            &["br0", "in_port=LOCAL,arp"],
            &["--names", "br0", "in_port=p1,arp"],
            &[
                "in_port(1),eth(src=02:00:00:00:00:07,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(frag=no)",
            ],
        ],
        whole: true,
    },
    Case {
        flows: "in_port=1,actions=load:5->NXM_NX_REG0[],resubmit(,1),2\n\
            table=1,priority=7,ip,actions=resubmit(,2),resubmit(,3)\n\
            table=3,cookie=0x55,actions=push_mpls:0x8847,3\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1,icmp"],
            &["br0", "in_port=1,dl_type=0x1234"],
            &["br0", "in_port=p2,dl_type=0x1234"],
            &["br0", "in_port=p1,icmp", "--names"],
        ],
        whole: true,
    },
    Case {
        flows: "actions=write_actions(output:2,set_field:3->reg1),goto_table:3\n\
            table=3,actions=write_metadata:5,goto_table:4\n\
            table=4,ip,actions=clear_actions\n\
            table=4,arp,actions=write_actions(output:3)\n\
            table=4,ipv6,actions=drop\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1,ip"], &["br0", "in_port=1,arp"], &["br0", "in_port=1,ipv6"]],
        whole: true,
    },
    Case {
        flows: "in_port=1,actions=group:1,2\nin_port=2,actions=group:2,2\nin_port=3,actions=group:3\n\
            in_port=LOCAL,actions=group:4\n",
        groups: "group_id=1,type=all,bucket=actions=output:2,bucket=actions=output:3,dec_ttl,resubmit(,4)\n\
            group_id=2,type=indirect,bucket=actions=output:3\n\
            group_id=3,type=ff,bucket=watch_port:7,actions=output:2,bucket=watch_port:1,actions=output:1\n\
            group_id=4,type=ff,bucket=watch_port:7,actions=output:2\n",
        traces: &[
            &["br0", "in_port=1,ip,nw_ttl=64"],
            &["br0", "in_port=2,ip"],
            &["br0", "in_port=3,ip"],
            &["br0", "in_port=LOCAL,ip"],
        ],
        whole: false,
    },
    Case {
        flows: "priority=5,ip,nw_src=10.0.0.0/8,actions=conjunction(7,1/2)\n\
            priority=5,ip,nw_dst=11.0.0.0/8,actions=conjunction(7,2/2)\n\
            conj_id=7,ip,actions=2\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1,ip,nw_src=10.1.1.1,nw_dst=11.1.1.1"],
            &["br0", "in_port=1,ip,nw_src=10.1.1.1,nw_dst=12.1.1.1"],
        ],
        whole: true,
    },
    Case {
        flows: "in_port=1,actions=learn(table=9,idle_timeout=10,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],\
            output:NXM_OF_IN_PORT[]),resubmit(,10),note:01.02,2\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1,ip,dl_src=02:00:00:00:00:01"],
            &["br0", "in_port=1,ip,dl_src=02:00:00:00:00:01", "-generate"],
        ],
        whole: true,
    },
    Case {
        flows: "in_port=1,actions=move:in_port->reg0[0..15],output:reg0[0..15],output:in_port,output:1,\
            output:77,multipath(eth_src,50,modulo_n,1,0,reg0[]),bundle(eth_src,0,active_backup,ofport,members:2,3),\
            push:reg0[],pop:reg1[],exit,2\n\
            in_port=2,actions=pop:reg1[],2\n\
            in_port=3,actions=resubmit(,0)\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1,ip,nw_ttl=1"],
            &["br0", "in_port=2,ip,nw_ttl=1"],
            &["br0", "in_port=3,ip,nw_ttl=1"],
        ],
        whole: false,
    },
    Case {
        flows: "in_port=1,actions=clone(2,set_field:5->reg0),check_pkt_larger(100)->reg0[0],resubmit(,3)\n\
            table=3,reg0=1/1,actions=3\ntable=3,actions=2\n\
            in_port=2,tcp,actions=mod_nw_src:1.1.1.1,mod_tp_dst:7,set_queue:3,output:1,pop_queue,\
            enqueue:3:5,fin_timeout(idle_timeout=3),mod_vlan_vid:5,strip_vlan,set_field:5->tun_id,3\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1,ip"], &["br0", "in_port=2,tcp,nw_ttl=3,nw_src=9.9.9.9"]],
        whole: false,
    },
    Case {
        flows: "mpls,actions=2,pop_mpls:0x0800,resubmit(,2),3\ntable=2,ip,actions=3\n\
            ip,actions=push_mpls:0x8847,set_field:7->mpls_label,2\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1,mpls,mpls_label=5,mpls_bos=1"],
            &["br0", "in_port=1,ip,nw_ttl=9"],
        ],
        whole: true,
    },
    Case {
        flows: "arp,actions=push_vlan:0x8100,set_field:4102->vlan_vid,3\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1,arp"]],
        whole: true,
    },
    Case {
        flows: "dl_vlan=5,actions=strip_vlan,2\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1,arp,dl_vlan=5"], &["br0", "in_port=1,dl_vlan=6,ipv6"]],
        whole: false,
    },
    Case {
        flows: "actions=FLOOD,ALL,LOCAL,IN_PORT\n",
        groups: NONE,
        traces: &[
            &["br0", "in_port=1"],
            &["br0", "in_port=1", "ffffffffffff020000000001080045"],
            &["br0", "in_port=2", "ffffffffffff0200000000018100000508060001"],
        ],
        whole: true,
    },
    Case {
        flows: "actions=NORMAL",
        groups: NONE,
        traces: &[&["br0", "in_port=77,ip"]],
        whole: false,
    },
    Case {
        flows: "table=1,actions=drop\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1"]],
        whole: true,
    },
    Case {
        flows: "actions=drop\n",
        groups: NONE,
        traces: &[&["br0", "in_port=1,tcp6"]],
        whole: true,
    },
];

#[test]
fn the_same_text() {
    let ovs = Ovs::start();
    let mut wrong = Vec::new();
    for case in CASES {
        ovs.load(case);
        let p = ours(case);
        for args in case.traces {
            let theirs = ovs.appctl(&[&["ofproto/trace"], *args].concat()).expect("traces");
            let mine = p.trace_command(args, 1000).unwrap_or_else(|e| format!("refused: {e}"));
            if lines(&mine, case.whole) != lines(&theirs, case.whole) {
                wrong.push(format!(
                    "{}{args:?}\n--- ours\n{mine}\n--- theirs\n{theirs}",
                    case.flows
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n=======\n"));
}

/// Actions in place of tables, and what these lead to.
#[test]
fn packet_outs() {
    let case = Case {
        flows: "in_port=1,actions=2,resubmit:3\nin_port=3,actions=in_port\ntable=4,actions=dec_ttl,3",
        groups: NONE,
        traces: &[],
        whole: true,
    };
    let (p, ovs) = (ours(&case), Ovs::start());
    ovs.load(&case);
    for args in [
        ["br0", "in_port=1,ip", "resubmit(,0),output:3"],
        ["br0", "in_port=CONTROLLER,arp", "output:3,normal"],
        ["br0", "in_port=2,tcp,nw_ttl=1", "resubmit(,4),TABLE"],
    ] {
        let theirs = ovs.appctl(&[&["ofproto/trace-packet-out"], &args[..]].concat());
        let mine = p.trace_packet_out_command(&args, 1000).expect("traces");
        let theirs = theirs.expect("traces");
        assert_eq!(lines(&mine, false), lines(&theirs, false), "{args:?}");
    }
    let wrong = p.trace_packet_out_command(&["br0", "in_port=1,ip", "foo"], 0);
    assert!(wrong.expect_err("no such action").starts_with("unknown action foo"));
}

/// What is refused, in the same words where these say enough.
#[test]
fn refusals() {
    let case = Case { flows: "actions=NORMAL", groups: NONE, traces: &[], whole: true };
    let (p, ovs) = (ours(&case), Ovs::start());
    let wrong: [&[&str]; 12] = [
        &["br9", "in_port=1"],
        &["br0", "in_port=1,foo=2"],
        &["br0", "in_port=1,reg0=5/5"],
        &["br0", "in_port=1,nw_src=1.2.3.4"],
        &["br0", "in_port=zz"],
        &["br0", "in_port=1,reg0=0x1ffffffff"],
        &["in_port=1"],
        &["in_port(9"],
        &["in_port(99)"],
        &["br0", "in_port(1)"],
        &["br0", "in_port=1", "--ct-next"],
        &["br0", "in_port=1", "--ct-next", "zz"],
    ];
    for args in wrong {
        let theirs = ovs.appctl(&[&["ofproto/trace"], args].concat()).expect_err("refused");
        let theirs = theirs.lines().next().expect("a line").to_owned();
        let mine = p.trace_command(args, 0).expect_err("refused");
        assert!(mine.starts_with(&theirs), "{args:?}:\n  ours   {mine}\n  theirs {theirs}");
    }
}

/// Any words are answered.
#[test]
fn any_words() {
    let case = Case { flows: "actions=NORMAL", groups: NONE, traces: &[], whole: true };
    let p = ours(&case);
    let pieces =
        ["br0", "in_port=1", "(", ")", "ip", "=", ",", "/", "in_port(1)", "é", "-", "ff", "\0"];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let _ = p.trace_command(&[&format!("{a}{b}{c}")], 0);
                let _ = p.trace_command(&["br0", &format!("{a}{b}{c}"), a], 0);
            }
        }
    }
}

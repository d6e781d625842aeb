//! Flows in the running daemon: loading and dumping them, what controllers are told, what the database
//! says of tables, and what happens to packets.

use crate::bench::{Daemon, Run, vswitchctl, wait_for};
use crate::ofctl::both;
use crate::ovs::{Ovs, run_with};
use std::path::Path;
use virtio_driver::{Config, Driver, SocketMode};

/// An IPv4 frame with UDP from 10.10.10.1 to 10.10.10.2, in hexadecimal.
const UDP: &str =
    "50540000000a50540000000908004500001c000000000011a4cd0a0a0a010a0a0a020001000200080000";

/// `vswitchctl` with words cut at blanks; `input` on standard input.
fn ofctl(d: &Daemon, line: &str, input: &str) -> Run {
    let mut command = vswitchctl();
    command.arg("--rundir").arg(d.rundir()).args(line.split_whitespace());
    run_with(&mut command, input)
}

/// As [`ofctl`], for what must work: its output.
fn done(d: &Daemon, line: &str, input: &str) -> String {
    let run = ofctl(d, line, input);
    assert_eq!((run.status, &*run.err), (0, ""), "{line}");
    run.out
}

fn flows(d: &Daemon) -> String {
    done(d, "--no-stats dump-flows br0", "")
}

fn with_ports(names: &[&str]) -> Daemon {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    for name in names {
        d.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"));
    }
    d
}

fn guest(d: &Daemon, name: &str) -> Driver {
    let config = Config::new(SocketMode::Connect(d.rundir().join(name)));
    let driver = Driver::connect(config).expect("the switch answers");
    d.wait_column(name, "link_state", "up");
    driver
}

fn receive(driver: &mut Driver) -> Vec<u8> {
    let mut frames = Vec::new();
    wait_for("a frame", || {
        driver
            .rx(0, 16, |_, frame| frames.push(frame.to_vec()))
            .expect("the device follows the rules");
        frames.pop()
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: char| c.to_digit(16).expect("hexadecimal") as u8;
    let digits: Vec<u8> = hex.chars().map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Flows of many kinds.
const MANY: &str = "\
table=0,priority=1,arp,arp_op=1,actions=normal
table=0,priority=5,dl_vlan=5,actions=strip_vlan,output:1
cookie=0x7,table=0,priority=8,reg0=5,metadata=8,actions=mod_dl_dst:00:11:22:33:44:55,3
table=0,priority=9,tcp,tcp_flags=+syn-ack,idle_timeout=500,actions=dec_ttl,resubmit(,1)
table=1,ip,nw_src=10.0.0.0/8,hard_timeout=900,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],2
table=1,priority=7,actions=learn(table=2,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])
table=2,ipv6,ipv6_dst=fe80::/10,actions=controller(max_len=128,id=3)
";

/// What one dumps the other loads, and has the same flows then.
#[test]
fn dumps_of_one_load_in_the_other() {
    let (ovs, d) = both();
    done(&d, "replace-flows br0 -", MANY);
    for dump in ["dump-flows br0", "--no-stats dump-flows br0", "--names dump-flows br0"] {
        let ours = done(&d, dump, "");
        assert_eq!(their(&ovs, "--bundle replace-flows br0 -", &ours), "", "{dump}");
        let theirs = their(&ovs, "--no-stats dump-flows br0", "");
        assert_eq!(sorted(&flows(&d)), sorted(&theirs), "{dump}");
        // Theirs here: with the header that they cannot read themselves.
        let theirs = their(&ovs, dump, "");
        done(&d, "del-flows br0", "");
        done(&d, "replace-flows br0 -", &theirs);
        assert_eq!(ofctl(&d, "diff-flows br0 -", &theirs).out, "", "{dump}");
    }
    // Replacing flows by themselves changes nothing, not even their age and counts.
    let before = done(&d, "dump-flows br0 table=1", "");
    done(&d, "replace-flows br0 -", &flows(&d));
    let counts = |t: &str| {
        t.lines().map(|l| l.split(", duration").next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&before), counts(&done(&d, "dump-flows br0 table=1", "")));
    d.appctl("revalidator/wait");
    wait_for("age", || {
        let ages = done(&d, "dump-flows br0 table=1", "");
        ages.lines().all(|l| !l.contains("duration=0.")).then_some(())
    });
    done(&d, "replace-flows br0 -", &flows(&d));
    assert!(
        !done(&d, "dump-flows br0", "").contains("duration=0."),
        "flows that stay keep their age"
    );
}

fn their(ovs: &Ovs, line: &str, input: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let run = ovs.ofctl(Path::new("/"), &words, input);
    assert_eq!(run.status, 0, "{line}: {run:?}");
    run.out
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn many_flows_load_whole_or_not_at_all() {
    let d = with_ports(&["p1"]);
    let line = |n: u32| {
        format!(
            "priority={},ip,nw_dst=10.{}.{}.{},actions=output:1\n",
            n % 7,
            n >> 16,
            n >> 8 & 255,
            n & 255
        )
    };
    let mut file: String = (0..50_000).map(line).collect();
    done(&d, "--bundle add-flows br0 -", &file);
    assert!(done(&d, "dump-aggregate br0", "").contains("flow_count=50001"));
    let dump = done(&d, "dump-flows br0", "");
    assert_eq!(dump.lines().count(), 50_001);
    assert_eq!(ofctl(&d, "diff-flows br0 -", &dump).status, 0);
    // One line is wrong, the last.
    file.push_str("ip,nw_dst=1.2.3.4/33,actions=drop\n");
    for command in ["--bundle add-flows br0 -", "add-flows br0 -", "replace-flows br0 -"] {
        let run = ofctl(&d, command, &file.replace("output:1", "drop"));
        assert_eq!(run.status, 1, "{command}");
        assert!(run.err.contains("-:50001: ") && run.err.contains("1.2.3.4/33"), "{}", run.err);
        assert!(
            run.err.contains("\n            ^^^^^^^^^^"),
            "the mark is under the value: {}",
            run.err
        );
    }
    assert_eq!(done(&d, "--no-stats dump-flows br0 table=0,ip", "").lines().count(), 50_000);
    assert!(!flows(&d).contains("drop"));
    // A change that the tables refuse: without --bundle what came before stays.
    let mixed = "priority=9,actions=drop\nactions=group:77\npriority=10,actions=drop\n";
    assert_eq!(ofctl(&d, "--bundle add-flows br0 -", mixed).status, 1);
    assert!(!flows(&d).contains("priority=9 "));
    let run = ofctl(&d, "add-flows br0 -", mixed);
    assert!(run.err.contains("-:2: OFPBAC_BAD_OUT_GROUP: there is no such group"), "{}", run.err);
    assert!(flows(&d).contains("priority=9 ") && !flows(&d).contains("priority=10 "));
    done(&d, "del-flows br0", "");
    assert_eq!(flows(&d), "");
}

#[test]
fn packets_for_controllers_can_be_read() {
    let d = with_ports(&["p1", "p2"]);
    let mut one = guest(&d, "p1");
    done(
        &d,
        "replace-flows br0 -",
        "in_port=1,cookie=0x77,actions=load:5->NXM_NX_REG3[],\
         load:7->OXM_OF_METADATA[],controller(userdata=01.02.03)\n",
    );
    assert_eq!(one.tx(0, &[&bytes(UDP)]).expect("sent"), 1);
    let expect = "NXT_PACKET_IN2 (xid=0x0): cookie=0x77 total_len=42 reg3=0x5,metadata=0x7,in_port=1 (via action) \
         data_len=42 (unbuffered)\n userdata=01.02.03\nudp,vlan_tci=0x0000,dl_src=50:54:00:00:00:09,\
         dl_dst=50:54:00:00:00:0a,nw_src=10.10.10.1,nw_dst=10.10.10.2,nw_tos=0,nw_ecn=0,nw_ttl=0,\
         nw_frag=no,tp_src=1,tp_dst=2 udp_csum:0\n";
    let text = wait_for("the packet", || {
        Some(d.appctl("ofproto/packet-ins br0")).filter(|t| t.starts_with("NXT"))
    });
    let (message, counts) = text.split_at(text.find("br0: ").expect("counts"));
    assert_eq!(message, expect);
    assert!(
        counts.starts_with("br0: 1 packets and 0 flow removals so far, 0 to be read"),
        "{counts}"
    );
    assert!(!d.appctl("ofproto/packet-ins br0").contains("NXT"), "read once");
    // More than are kept: the oldest go, and are counted.
    done(&d, "replace-flows br0 -", "actions=controller(max_len=20)\n");
    let packets = vec![UDP; 50].join(" ");
    for _ in 0..24 {
        done(&d, &format!("packet-out br0 1 table {packets}"), "");
    }
    let text = d.appctl("ofproto/packet-ins br0 1");
    assert!(
        text.contains(
            "total_len=42 in_port=1 (via packet_out) data_len=20 (unbuffered) (***total_len"
        ),
        "{text}"
    );
    // The daemon may be too busy to take them all from the queue that bridges share.
    let numbers: Vec<u64> = text[text.find("br0: ").expect("counts")..]
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect();
    let [0, packets, 0, kept, overwritten, lost] = numbers[..] else { panic!("{text}") };
    assert_eq!((packets + lost, kept, overwritten), (1201, 999, packets - 1001), "{text}");
    assert!(d.try_appctl(&["ofproto/packet-ins", "br9"]).err.contains("br9"));
    assert!(d.try_appctl(&["ofproto/packet-ins", "br0", "x"]).err.contains("x: not a number"));
}

#[test]
fn flows_end_in_time_and_controllers_are_told() {
    let d = with_ports(&["p1"]);
    done(
        &d,
        "replace-flows br0 -",
        "table=1,hard_timeout=1,cookie=0x9,send_flow_rem,ip,actions=1\n\
         table=2,idle_timeout=1,send_flow_rem,actions=drop\ntable=3,hard_timeout=1,actions=drop\n\
         table=4,send_flow_rem,priority=3,actions=drop\n",
    );
    let start = std::time::Instant::now();
    wait_for("the end of three flows", || (flows(&d).lines().count() == 1).then_some(()));
    let took = start.elapsed().as_millis();
    assert!((500..5000).contains(&took), "{took} ms");
    done(&d, "del-flows br0", "");
    let text = d.appctl("ofproto/packet-ins br0");
    for part in [
        "OFPT_FLOW_REMOVED (xid=0x0): ip reason=hard table_id=1 cookie:0x9 duration1.",
        " reason=idle table_id=2 duration1.",
        ": priority=3 reason=delete table_id=4 duration",
        "br0: 0 packets and 3 flow removals so far, 0 to be read",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn tables_and_fail_mode_follow_the_database() {
    let d = with_ports(&["p1"]);
    assert_eq!(flows(&d), " priority=0 actions=NORMAL\n");
    done(&d, "add-flow br0 table=3,actions=1", "");
    done(&d, "add-group br0 group_id=1,type=all,bucket=1", "");
    d.vsctl("set-fail-mode br0 secure");
    assert_eq!(
        (flows(&d), done(&d, "dump-groups br0", "")),
        (String::new(), "NXST_GROUP_DESC reply (xid=0x2):\n".into())
    );
    done(&d, "add-flow br0 table=3,actions=1", "");
    d.vsctl(
        "add-br br1 -- set-fail-mode br1 secure -- set Bridge br0 other_config:mac-aging-time=20",
    );
    assert_eq!(done(&d, "--no-stats dump-flows br1", ""), "", "new and secure: no flow");
    assert_eq!(flows(&d).lines().count(), 1, "what else changes leaves flows alone");
    d.vsctl("del-fail-mode br0");
    assert_eq!(flows(&d), " priority=0 actions=NORMAL\n");

    d.vsctl("-- --id=@t create Flow_Table name=main flow_limit=3 overflow_policy=refuse prefixes=nw_dst,foo -- \
             set Bridge br0 flow_tables:0=@t");
    assert_eq!(d.log_lines("foo is not an address field").len(), 1);
    done(&d, "add-flow br0 priority=1,actions=1", "");
    done(&d, "add-flow br0 priority=2,actions=1", "");
    let full = ofctl(&d, "add-flow br0 priority=3,actions=1", "");
    assert!(
        full.status == 1 && full.err.contains("OFPFMFC_TABLE_FULL: the table has as many"),
        "{full:?}"
    );
    let tables = done(&d, "dump-tables br0", "");
    assert!(
        tables.contains("table 0 (\"main\"):\n    active=3") && tables.contains("max_entries=3\n"),
        "{tables}"
    );
    assert!(done(&d, "--names dump-flows br0", "").contains(" table=main, "));
    d.vsctl("set Flow_Table main overflow_policy=evict");
    done(&d, "add-flow br0 table=0,priority=2,idle_timeout=60,actions=1", "");
    done(&d, "add-flow br0 priority=4,actions=1", "");
    assert!(
        !flows(&d).contains("idle_timeout"),
        "the flow that would end first was evicted: {}",
        flows(&d)
    );
    d.vsctl("clear Bridge br0 flow_tables");
    assert!(done(&d, "dump-tables br0", "").contains("max_entries=1000000"));
    // By command, until the row changes.
    done(&d, "mod-table br0 5 evict", "");
    assert!(done(&d, "dump-table-desc br0", "").contains("  table 5:\n   eviction=on"));
}

/// The bridge's own port has a number but no device yet: what goes there is dropped and counted.
#[test]
fn the_local_port_takes_nothing_while_its_device_is_down() {
    let d = with_ports(&["p1"]);
    let mut one = guest(&d, "p1");
    assert!(d.appctl("dpif/show").contains("    br0 65534/1: (internal)\n"));
    assert!(d.appctl("dpctl/show").contains("  port 1: br0 (internal)\n"));
    done(&d, "replace-flows br0 -", "actions=LOCAL\n");
    assert_eq!(one.tx(0, &[&bytes(UDP)]).expect("sent"), 1);
    wait_for("the drop", || {
        (d.appctl("coverage/read-counter tx_no_queue_drops").trim() == "1").then_some(())
    });
    let trace = d.appctl("ofproto/trace br0 in_port=1");
    assert!(trace.contains("Datapath actions: 1\n"), "{trace}");
    let described = done(&d, "dump-ports-desc br0 LOCAL", "");
    assert!(described.contains(" LOCAL(br0): ") && described.contains("LINK_DOWN"), "{described}");
    assert!(done(&d, "dump-ports br0", "").contains("2 ports\n  port LOCAL: rx pkts=0"));
    d.vsctl("del-br br0 -- add-br br1");
    assert!(d.appctl("dpif/show").contains("    br1 65534/"));
}

#[test]
fn packets_are_sent_as_a_controller_says() {
    let d = with_ports(&["p1", "p2"]);
    let (_one, mut two) = (guest(&d, "p1"), guest(&d, "p2"));
    done(
        &d,
        &format!("packet-out br0 in_port=1,packet={UDP},actions=mod_dl_src:02:00:00:00:00:99,p2"),
        "",
    );
    let got = receive(&mut two);
    assert_eq!(got[6..12], [2, 0, 0, 0, 0, 0x99]);
    // Through the tables, with a register that the packet begins with; and counted there.
    done(&d, "replace-flows br0 -", "reg5=0x123,actions=p2\n");
    done(
        &d,
        &format!("packet-out br0 in_port=CONTROLLER,reg5=0x123,packet={UDP},actions=table"),
        "",
    );
    assert_eq!(receive(&mut two), bytes(UDP));
    assert!(done(&d, "dump-flows br0", "").contains("n_packets=1, n_bytes=42"));
    let hidden = d.appctl("bridge/dump-flows br0");
    assert!(
        hidden.starts_with("duration=")
            && hidden.ends_with("s, n_packets=1, n_bytes=42, reg5=0x123,actions=output:2\n"),
        "{hidden}"
    );
    let bundle = format!(
        "flow delete\nflow in_port=2,actions=1\ngroup group_id=3,type=all,bucket=2\npacket-out packet={UDP},actions=group:3\n"
    );
    done(&d, "bundle br0 -", &bundle);
    assert_eq!(
        (receive(&mut two), flows(&d)),
        (bytes(UDP), " in_port=2 actions=output:1\n".into())
    );
}

#[test]
fn megaflows_can_be_filtered() {
    let d = with_ports(&["p1", "p2"]);
    let mut one = guest(&d, "p1");
    done(&d, "replace-flows br0 -", "in_port=1,udp,tp_dst=2,actions=2\n");
    assert_eq!(one.tx(0, &[&bytes(UDP)]).expect("sent"), 1);
    wait_for("a megaflow", || d.appctl("dpctl/dump-flows").contains("udp").then_some(()));
    for (filter, there) in [
        ("filter=udp", true),
        ("filter=tcp", false),
        ("filter=in_port=p1,ip", true),
        ("filter=in_port=p2", false),
        ("type=ovs", true),
        ("type=offloaded", false),
    ] {
        assert_eq!(
            d.appctl(&format!("dpctl/dump-flows {filter}")).contains("udp"),
            there,
            "{filter}"
        );
    }
    for (filter, why) in
        [("filter=foo=1", "Failed to parse filter"), ("type=foo", "Failed to parse type (foo)")]
    {
        let run = d.try_appctl(&["dpctl/dump-flows", filter]);
        assert!(run.status != 0 && run.err.contains(why), "{run:?}");
    }
    assert_eq!(d.appctl("revalidator/purge"), "");
    assert!(!d.appctl("dpctl/dump-flows").contains("udp"));
    assert_eq!(
        (d.appctl("ofproto/list"), d.appctl("dpctl/dump-dps")),
        ("br0\n".into(), "netdev@ovs-netdev\n".into())
    );
}

/// Links that come up reach the groups that watch them.
#[test]
fn fast_failover_follows_links() {
    let d = with_ports(&["p1", "p2", "p3"]);
    let (mut one, mut three) = (guest(&d, "p1"), guest(&d, "p3"));
    let group = "group_id=1,type=ff,bucket=watch_port:2,output:2,bucket=watch_port:3,output:3";
    done(&d, &format!("add-group br0 {group}"), "");
    done(&d, "replace-flows br0 -", "in_port=1,actions=group:1\n");
    assert_eq!(one.tx(0, &[&bytes(UDP)]).expect("sent"), 1);
    assert_eq!(receive(&mut three), bytes(UDP), "port 2 has no guest");
    let mut two = guest(&d, "p2");
    let mut frames = 0;
    wait_for("the frame at port 2", || {
        // The link is told a moment after the guest is there.
        one.tx(0, &[&bytes(UDP)]).expect("the device follows the rules");
        two.rx(0, 16, |_, _| frames += 1).expect("the device follows the rules");
        (frames > 0).then_some(())
    });
    drop(two);
    d.wait_column("p2", "link_state", "down");
    while three.rx(0, 256, |_, _| ()).expect("the device follows the rules") > 0 {}
    wait_for("the frame at port 3 again", || {
        one.tx(0, &[&bytes(UDP)]).expect("the device follows the rules");
        let mut frames = 0;
        three.rx(0, 256, |_, _| frames += 1).expect("the device follows the rules");
        (frames > 0).then_some(())
    });
}

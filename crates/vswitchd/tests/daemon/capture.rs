//! `vswitchctl capture` on a running switch.

use crate::bench::{Daemon, Run, run, vswitchctl, wait_for};
use crate::police::{LOAD, load};
use crate::traffic::{add_port, frame, guest, receive, send};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, NetHeader, SocketMode};

/// A capture that was started and has begun.
struct Capture(Child);

fn ctl(d: &Daemon, arguments: &str) -> Command {
    let mut command = vswitchctl();
    command.arg("--rundir").arg(d.rundir()).args(arguments.split(' '));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn running(d: &Daemon) -> usize {
    d.appctl("capture/list").lines().count()
}

fn start(d: &Daemon, arguments: &str) -> Capture {
    let before = running(d);
    let child = ctl(d, &format!("capture {arguments}")).spawn().expect("the program starts");
    wait_for("the capture", || (running(d) == before + 1).then_some(()));
    Capture(child)
}

impl Capture {
    fn interrupt(&self) {
        let pid = self.0.id().to_string();
        assert_eq!(run(Command::new("kill").args(["-INT", &pid])).status, 0);
    }

    /// What it has written when it ends.
    fn end(self) -> Run {
        let output = self.0.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let status = output.status.code().unwrap_or(-1);
        Run { out: text(output.stdout), err: text(output.stderr), status }
    }
}

fn bridge_of(ports: &[&str]) -> Daemon {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    ports.iter().for_each(|p| add_port(&d, "br0", p));
    d
}

/// A packet of a file: direction flags, comment, bytes kept, length.
type Read1 = (u32, Option<String>, Vec<u8>, usize);

/// Reads a file of one port back: the port's name, its packets, and the drops told at the end.
fn read(file: &[u8]) -> (String, Vec<Read1>, u64) {
    let mut reader = PcapNgReader::new(file).expect("a pcapng file");
    let (mut name, mut packets, mut drops) = (String::new(), Vec::new(), None);
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(i) => {
                for option in i.options {
                    if let InterfaceDescriptionOption::IfName(n) = option {
                        name = n.into_owned();
                    }
                }
            }
            Block::EnhancedPacket(p) => {
                let (mut flags, mut comment) = (0, None);
                for option in &p.options {
                    match option {
                        EnhancedPacketOption::Flags(f) => flags = *f,
                        EnhancedPacketOption::Comment(c) => comment = Some(c.to_string()),
                        _ => {}
                    }
                }
                packets.push((flags, comment, p.data.to_vec(), p.original_len as usize));
            }
            Block::InterfaceStatistics(s) => {
                use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption::*;
                drops = s
                    .options
                    .iter()
                    .find_map(|o| if let IsbOsDrop(n) = o { Some(*n) } else { None });
            }
            _ => {}
        }
    }
    (name, packets, drops.expect("statistics at the end"))
}

#[test]
fn both_directions_are_shown_until_the_count_is_reached_and_what_is_not_wanted_is_not() {
    let d = bridge_of(&["a", "b"]);
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    let all = start(&d, "a --count 3");
    let some = start(&d, "--filter udp,dl_src=02:00:00:00:00:02 a");
    let started = Instant::now();
    send(&mut a, &frame(1, 2, 1));
    receive(&mut b);
    send(&mut b, &frame(2, 1, 2));
    receive(&mut a);
    send(&mut a, &frame(1, 2, 3));
    receive(&mut b);
    send(&mut a, &frame(1, 2, 4));
    receive(&mut b);
    let all = all.end();
    assert_eq!(all.status, 0, "{all:?}");
    let lines: Vec<&str> = all.out.lines().collect();
    assert_eq!(lines.len(), 3, "{all:?}");
    let way = |n: usize| lines[n].split(' ').filter(|w| !w.is_empty()).nth(2);
    assert_eq!([way(0), way(1), way(2)], [Some("in"), Some("out"), Some("in")], "{lines:?}");
    let headers =
        "a in  length 100: eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),";
    assert!(lines[0].contains(headers), "{}", lines[0]);
    assert!(all.err.ends_with("3 packets captured, none missed\n"), "{all:?}");
    // The other goes on until it is told to end.
    assert_eq!(running(&d), 1);
    some.interrupt();
    let some = some.end();
    assert_eq!((some.status, some.out.lines().count()), (0, 1), "{some:?}");
    assert!(some.out.contains(" a out length 100: eth(src=02:00:00:00:00:02,"), "{some:?}");
    assert!(some.err.contains("1 packets captured"), "{some:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    wait_for("no capture", || (running(&d) == 0).then_some(()));
    assert!(!d.files().iter().any(|f| f.starts_with("capture.")), "{:?}", d.files());
}

#[test]
fn files_have_super_frames_with_their_metadata_whole_and_cut() {
    let d = bridge_of(&["a", "b"]);
    let offers = feature::CSUM | feature::HOST_TSO4;
    let config = Config::new(SocketMode::Connect(d.rundir().join("a"))).with(offers);
    let mut a = Driver::connect(config).expect("the switch answers");
    d.wait_column("a", "link_state", "up");
    let mut b = guest(&d, "b");
    let file = d.rundir().join("a.pcapng");
    let path = file.display().to_string();
    let whole = start(&d, &format!("a --count 1 -w {path}"));
    let cut = start(&d, "b --count 3 --snaplen 60 -w -");
    // TCP over IPv4 with 2000 bytes of payload, to be cut into segments of 900.
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    f.extend([0x45, 0, 8, 8 - 8, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f[16..18].copy_from_slice(&2040u16.to_be_bytes());
    f.extend([4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    f.extend((0..2000u32).map(|i| i as u8));
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 900,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let sent = a.tx_chain(0, &header, &[&f], &virtio_driver::Layout::whole());
    assert_eq!(sent.expect("the device follows the rules"), 1);
    let told = whole.end();
    assert!(told.err.contains("1 packets captured"), "{told:?}");
    let (name, packets, drops) = read(&std::fs::read(&file).expect("it was written"));
    assert_eq!((&*name, packets.len(), drops), ("a", 1, 0));
    let (flags, comment, bytes, len) = &packets[0];
    assert_eq!((*flags, *len), (1, f.len()));
    assert_eq!(bytes, &f);
    let comment = comment.as_deref().unwrap_or_default();
    let said = "checksum to be completed: from byte 34, stored at 50; super-frame: TCPv4, gso_size 900, \
                headers of 54 bytes";
    assert_eq!(comment, said);
    // The other side takes no super-frames; what is handed to its port is one still.
    let mut received = 0;
    while received < 3 {
        received += receive(&mut b).len();
    }
    for n in 1..=2 {
        send(&mut b, &frame(2, 1, n));
    }
    let mut child = cut.0;
    let mut bytes = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut bytes).expect("it ends");
    assert!(child.wait().expect("it ends").success());
    let (_, packets, _) = read(&bytes);
    assert_eq!(packets.iter().map(|p| p.0).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(
        (packets[0].2.len(), packets[0].3, packets[0].1.as_deref()),
        (60, f.len(), Some(said))
    );
    assert_eq!((packets[1].2.len(), packets[1].3, &packets[1].1), (60, 100, &None));
}

/// A guest's frames go by a patch to another bridge's own device, and the host's to the guest.
#[test]
fn the_hosts_devices_are_captured_too_and_patches_say_where() {
    let d = bridge_of(&["a"]);
    d.vsctl(
        "add-br br1 -- add-port br0 p0 -- set Interface p0 type=patch options:peer=p1 \
         -- add-port br1 p1 -- set Interface p1 type=patch options:peer=p0",
    );
    let ip = |arguments: &str| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &d.pid().to_string(), "-n", "ip"]).args(arguments.split(' '));
        let done = run(&mut command);
        assert_eq!(done.status, 0, "ip {arguments}: {done:?}");
    };
    ip("link set br1 up");
    d.wait_column("br1", "admin_state", "up");
    let mut a = guest(&d, "a");
    let patch = ctl(&d, "capture p0").output().expect("the program starts");
    let told = String::from_utf8_lossy(&patch.stderr).into_owned();
    assert!(!patch.status.success() && told.contains("p0 is a patch port"), "{told}");
    let own = start(&d, "br1 --filter arp --count 2");
    // The host answers who asks for its address.
    ip("addr add 10.9.9.1/24 dev br1");
    let mut ask = vec![0xff; 6];
    ask.extend([2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 9, 9, 2]);
    ask.extend([0, 0, 0, 0, 0, 0, 10, 9, 9, 1]);
    ask.resize(60, 0);
    send(&mut a, &ask);
    wait_for("the host's answer", || {
        receive(&mut a).iter().any(|f| f[12..14] == [8, 6] && f[21] == 2).then_some(())
    });
    let told = own.end();
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(lines.len(), 2, "{told:?}");
    assert!(lines[0].contains("br1 out length 60: ") && lines[0].contains("op=1"), "{told:?}");
    assert!(lines[1].contains("br1 in  length 42: ") && lines[1].contains("op=2"), "{told:?}");
}

#[test]
fn a_flood_is_forwarded_whole_and_what_is_not_captured_is_counted() {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let d = bridge_of(&["a", "b"]);
    d.vsctl("set Open_vSwitch . other_config:pmd-cpu-mask=1");
    d.appctl("ofctl/add-flow br0 priority=9,in_port=1,actions=output:2");
    let (mut a, mut b) = (guest(&d, "a"), guest(&d, "b"));
    let file = d.rundir().join("flood.pcapng").display().to_string();
    let capture = start(&d, &format!("a -w {file}"));
    // One that hangs holds nothing up, and one that is gone takes its capture along.
    let hangs = start(&d, "b -w -");
    let killed = start(&d, "b --filter udp");
    let fill = |n: u16, frame: &mut Vec<u8>| Flow::between(1, 1, 2).frame(n.into(), 64, frame);
    let beyond =
        || d.appctl("capture/list").lines().next().map(|l| l.contains("beyond the budget"));
    {
        let mut a = a.pair(0).saturate(64, fill).expect("room");
        let mut b = b.pair(0).saturate(0, fill).expect("room");
        wait_for("more than the budget", || {
            load(&mut a, &mut b, Duration::from_millis(300));
            (beyond() == Some(true)).then_some(())
        });
        // All that was sent has come: nothing was dropped.
        let (mut patience, mut rest) = (100, 1000);
        a.finish(|| {
            patience -= 1;
            patience > 0
        })
        .expect("the device follows the rules");
        b.finish(|| {
            rest -= 1;
            rest > 0
        })
        .expect("the device follows the rules");
    }
    let mut gone = killed.0;
    gone.kill().expect("it runs");
    gone.wait().expect("it ends");
    wait_for("the end of the killed one's capture", || {
        (!d.appctl("capture/list").contains("b: udp;")).then_some(())
    });
    capture.interrupt();
    let told = capture.end();
    let (_, packets, drops) = read(&std::fs::read(&file).expect("it was written"));
    let last = told.err.lines().last().unwrap_or_default().to_owned();
    let number =
        |s: &str| s.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
    let (captured, missed) = (number(&last), number(last.split(", ").nth(1).unwrap_or_default()));
    assert_eq!((packets.len() as u64, drops), (captured, missed), "{last}");
    assert!(captured > 10_000, "{last}");
    let port = |name: &str| d.appctl(&format!("ofctl/dump-ports br0 {name}"));
    let count = |text: &str, part: &str, what: &str| -> u64 {
        let (_, rest) = text.split_once(part).expect("the part");
        let (_, rest) = rest.split_once(what).expect("the count");
        rest.split(',').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let (at_a, at_b) = (port("a"), port("b"));
    assert_eq!(count(&at_a, "rx ", "pkts="), captured + missed, "{at_a}\n{last}");
    assert_eq!(count(&at_b, "tx ", "pkts="), captured + missed, "{at_b}\n{last}");
    assert_eq!((count(&at_a, "rx ", "drop="), count(&at_b, "tx ", "drop=")), (0, 0));
    hangs.interrupt();
    let mut hangs = hangs.0;
    hangs.kill().expect("it runs");
    hangs.wait().expect("it ends");
    wait_for("no capture", || (running(&d) == 0).then_some(()));
}

#[test]
fn what_cannot_be_is_told() {
    let d = bridge_of(&["a"]);
    let told = |arguments: &str| {
        let output = ctl(&d, arguments).output().expect("the program starts");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(told("capture nobody").contains("there is no open interface nobody"));
    assert!(told("capture a --filter tcp,tpdst=80").contains("did you mean \"tp_dst\""));
    assert!(told("capture a --filter reg0=1").contains("reg0 is not in packets on a port"));
    assert!(told("capture a --count none").contains("a number from 1 on"));
    assert!(told("capture a -w /nowhere/at/all").contains("/nowhere/at/all"));
    assert_eq!(running(&d), 0);
    let many: Vec<Capture> = (0..4).map(|_| start(&d, "a")).collect();
    assert!(told("capture a").contains("4 captures run"));
    for capture in &many {
        capture.interrupt();
    }
    for capture in many {
        assert_eq!(capture.end().status, 0);
    }
    wait_for("no capture", || (running(&d) == 0).then_some(()));
}

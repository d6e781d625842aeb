//! Ports that share frames, between two veth pairs in a network namespace of the test's own. Needs root.

use packet::{Burst, BurstBuf, HEADER_BYTES, Offload, Set};
use port::Port;
use port_xdp::{Config, Mode, SharedFrames, XdpPort};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let out = command.args(words).output().expect("iproute2 is installed");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Moves this thread to a namespace with pairs of `um0` and `um0p`, `um1` and `um1p` and so on.
fn wires(count: usize) {
    // SAFETY: the thread's network namespace alone is its own from now on; no memory is concerned.
    let done = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    done.expect("root");
    for i in 0..count {
        run(&format!("ip link add um{i} type veth peer name um{i}p"));
        run(&format!("ip link set um{i} up"));
        run(&format!("ip link set um{i}p up"));
    }
}

fn config(name: &str, mode: Mode, shared: Option<&Arc<SharedFrames>>) -> Config {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None).expect("a socket");
    let index = netdevice::name_to_index(control, name).expect("there");
    let shared = shared.cloned();
    Config { mode: Some(mode), rx_size: 128, tx_size: 128, shared, ..Config::new(name, index) }
}

fn open(name: &str, mode: Mode, shared: Option<&Arc<SharedFrames>>) -> XdpPort {
    XdpPort::open(&config(name, mode, shared)).expect("opens")
}

/// Frames of three queues.
const FRAMES: usize = 3 * 384;

fn send(port: &XdpPort, frame: &[u8]) {
    let mut buf = BurstBuf::new();
    let mut burst = buf.frame(frame).expect("a frame");
    port.tx(0, &mut burst, Set::one(0));
}

fn is_ours(frame: &[u8]) -> bool {
    frame[6..12] == [2, 0, 0, 0, 0, 1]
}

/// Has what comes next done something with, if it is ours: the host sends some of its own.
fn forward(port: &XdpPort, mut with: impl FnMut(&mut Burst<'_>, usize)) -> usize {
    let mut buf = BurstBuf::new();
    let Some(mut burst) = port.rx(0, &mut buf) else { return 0 };
    let ours = (0..burst.len()).filter(|&i| is_ours(burst.packets()[i].header()));
    let ours: Vec<usize> = ours.collect();
    for &i in &ours {
        with(&mut burst, i);
    }
    ours.len()
}

fn forward_all(port: &XdpPort, n: usize, mut with: impl FnMut(&mut Burst<'_>, usize)) {
    let (mut done, start) = (0, Instant::now());
    while done < n {
        done += forward(port, &mut with);
        assert!(start.elapsed() < Duration::from_secs(20), "{done} of {n}");
    }
}

fn receive(port: &XdpPort, n: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    forward_all(port, n, |burst, i| got.push(burst.copy_out(i, usize::MAX)));
    got
}

fn frame(payload: usize, number: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    f.extend((0..payload).map(|i| (i * 7 + number) as u8));
    f
}

const TAG: [u8; 4] = [0x81, 0, 0, 7];

fn push_tag(burst: &mut Burst<'_>, i: usize) {
    burst.packet_mut(i).insert(12, 4).expect("room").copy_from_slice(&TAG);
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, TAG);
    frame
}

/// What is received on one wire goes out on the other with its payload where it is, in any length, with headers that
/// are longer, shorter, rewritten and as they were.
#[test]
fn frames_go_on_without_a_copy_whatever_their_headers_become() {
    wires(2);
    for mode in [Mode::Native, Mode::Generic] {
        let frames = Arc::new(SharedFrames::new(FRAMES));
        let (one, two) = (open("um0", mode, Some(&frames)), open("um1", mode, Some(&frames)));
        let (left, right) = (open("um0p", mode, None), open("um1p", mode, None));
        assert_eq!(one.shared_frames(), Some((2 * 384, 1536)));
        assert_eq!(left.shared_frames(), None);
        let mut passed = 0;
        // More often than there are frames.
        for n in 0..3000 {
            let plain = frame(46 + n * 31 % 1454, n);
            let (comes, goes) = match n % 3 {
                0 => (plain.clone(), plain.clone()),
                1 => (plain.clone(), tagged(plain.clone())),
                _ => (tagged(plain.clone()), plain.clone()),
            };
            send(&left, &comes);
            forward_all(&one, 1, |burst, i| {
                match n % 3 {
                    0 => {}
                    1 => push_tag(burst, i),
                    _ => assert!(burst.packet_mut(i).remove(12, 4)),
                }
                two.tx(0, burst, Set::one(i));
            });
            assert!(receive(&right, 1) == [goes], "{mode:?} {n}");
            passed += comes.len().saturating_sub(HEADER_BYTES);
        }
        let sent = two.counters();
        assert_eq!((sent.tx_packets, sent.tx_dropped, sent.tx_payload_bytes), (3000, 0, 0));
        assert_eq!(sent.tx_bytes - sent.tx_header_bytes, passed as u64, "counted all the same");
        // Back on the same wire, and there from what one has.
        send(&left, &frame(1000, 1));
        forward_all(&one, 1, |burst, i| one.tx(0, burst, Set::one(i)));
        assert!(receive(&left, 1) == [frame(1000, 1)]);
        assert_eq!(one.counters().tx_payload_bytes, 0);
    }
}

/// Of several outputs the first one has the frame, the others copies; each sees what the packet was then.
#[test]
fn every_output_of_a_flood_is_right() {
    wires(3);
    let frames = Arc::new(SharedFrames::new(FRAMES));
    let [one, two, three] =
        ["um0", "um1", "um2"].map(|name| open(name, Mode::Native, Some(&frames)));
    let far = ["um0p", "um1p", "um2p"].map(|name| open(name, Mode::Native, None));
    for n in 0..1000 {
        let plain = frame(200 + n, n);
        send(&far[0], &plain);
        forward_all(&one, 1, |burst, i| {
            two.tx(0, burst, Set::one(i));
            // It is sent now, and its frame may not be written.
            assert!(receive(&far[1], 1) == [plain.clone()]);
            let other = frame(1400, n + 1);
            send(&two, &other);
            assert!(receive(&far[1], 1) == [other]);
            push_tag(burst, i);
            three.tx(0, burst, Set::one(i));
            two.tx(0, burst, Set::one(i));
            one.tx(0, burst, Set::one(i));
        });
        for far in [&far[2], &far[1], &far[0]] {
            assert!(receive(far, 1) == [tagged(plain.clone())], "{n}");
        }
    }
    let payload = |port: &XdpPort| port.counters().tx_payload_bytes;
    let each: u64 = (0..1000).map(|n| 14 + 200 + n - HEADER_BYTES as u64).sum();
    assert_eq!((payload(&one), payload(&three)), (each, each), "copies");
    let others = 1000 * (1414 - HEADER_BYTES as u64);
    assert_eq!(payload(&two), each + others, "one of its three was none");
}

/// What does not fit in a frame, or is left to the kernel to complete, is copied; what is whole goes on with room for
/// metadata in front.
#[test]
fn what_cannot_go_on_as_it_is_is_copied() {
    wires(2);
    for name in ["um0", "um0p", "um1", "um1p"] {
        run(&format!("ip link set {name} mtu 9702"));
    }
    // So that the kernel completes checksums itself.
    run("ethtool -K um1 tx off");
    let frames = Arc::new(SharedFrames::new(FRAMES));
    let long = |name, shared| Config { mtu: 9702, ..config(name, Mode::Native, shared) };
    let asks = |name| Config { tx_csum: true, ..long(name, Some(&frames)) };
    let [one, two] = ["um0", "um1"].map(|name| XdpPort::open(&asks(name)).expect("opens"));
    assert!(two.leaves_checksums() && two.shared_frames().is_some(), "Linux 6.8");
    let far = ["um0p", "um1p"].map(|name| XdpPort::open(&long(name, None)).expect("opens"));
    let flags = Offload::NEEDS_CSUM;
    let open = Offload { flags, csum_start: 34, csum_offset: 16, ..Offload::default() };
    let mut copied = 0;
    for n in 0..1500 {
        let plain = frame([1000, 9000, 2000][n % 3], n);
        send(&far[0], &plain);
        let mut wanted = plain.clone();
        forward_all(&one, 1, |burst, i| {
            if n % 3 == 2 {
                burst.set_offload(i, open);
                let mut done = open;
                done.complete(&mut wanted);
            }
            two.tx(0, burst, Set::one(i));
        });
        assert!(receive(&far[1], 1) == [wanted], "{n}");
        copied += if n % 3 == 0 { 0 } else { plain.len() - HEADER_BYTES };
    }
    let sent = two.counters();
    assert_eq!((sent.tx_packets, sent.tx_dropped, sent.tx_checksums), (1500, 0, 0));
    assert_eq!(sent.tx_payload_bytes, copied as u64);
}

/// A port whose frames stay where they are, as nobody takes them, keeps no other from receiving.
#[test]
fn a_port_that_cannot_send_starves_nobody() {
    wires(2);
    let frames = Arc::new(SharedFrames::new(FRAMES));
    let [one, two] = ["um0", "um1"].map(|name| open(name, Mode::Native, Some(&frames)));
    let left = open("um0p", Mode::Native, None);
    // Without a carrier the kernel sends nothing.
    run("ip link set um1p down");
    for n in 0..2000 {
        send(&left, &frame(1000, n));
        forward_all(&one, 1, |burst, i| {
            assert!(burst.copy_out(i, usize::MAX) == frame(1000, n));
            two.tx(0, burst, Set::one(i));
        });
    }
    assert_eq!(one.counters().rx_dropped, 0);
    run("ip link set um1p up");
    let right = open("um1p", Mode::Native, None);
    let start = Instant::now();
    loop {
        send(&left, &frame(700, 1));
        forward_all(&one, 1, |burst, i| two.tx(0, burst, Set::one(i)));
        let mut right_one = false;
        forward(&right, |burst, i| right_one |= burst.copy_out(i, usize::MAX) == frame(700, 1));
        if right_one {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it sends again");
    }
}

/// Who asks for something else, or finds no room, has frames of its own, and everything passes all the same.
#[test]
fn who_cannot_share_has_its_own() {
    wires(3);
    let frames = Arc::new(SharedFrames::new(512));
    let one = open("um0", Mode::Native, Some(&frames));
    assert_eq!(one.shared_frames(), Some((384, 512)));
    let two = open("um1", Mode::Native, Some(&frames));
    assert_eq!(two.shared_frames(), None, "no room");
    drop(two);
    let small = Config { rx_size: 32, tx_size: 32, ..config("um1", Mode::Generic, Some(&frames)) };
    let two = XdpPort::open(&small).expect("opens");
    assert_eq!(two.shared_frames(), Some((480, 512)), "copying is copying");
    let other = Config {
        long_frames: false,
        rx_size: 8,
        tx_size: 8,
        ..config("um2", Mode::Native, Some(&frames))
    };
    let three = XdpPort::open(&other).expect("opens");
    assert_eq!(three.shared_frames(), None, "asks for something else");
    let far = ["um0p", "um1p", "um2p"].map(|name| open(name, Mode::Native, None));
    send(&far[0], &frame(900, 5));
    forward_all(&one, 1, |burst, i| {
        two.tx(0, burst, Set::one(i));
        three.tx(0, burst, Set::one(i));
    });
    for far in &far[1..] {
        assert!(receive(far, 1) == [frame(900, 5)]);
    }
    // The first socket of the area goes, and the others go on and may be joined.
    drop(one);
    let one = open("um0", Mode::Native, Some(&frames));
    assert_eq!(one.shared_frames(), Some((480, 512)));
    send(&far[0], &frame(901, 5));
    forward_all(&one, 1, |burst, i| two.tx(0, burst, Set::one(i)));
    assert!(receive(&far[1], 1) == [frame(901, 5)]);
    assert_eq!(two.counters().tx_payload_bytes, 0);
}

/// A port that comes and goes while others send it what they receive.
#[test]
fn ports_come_and_go_under_traffic() {
    wires(4);
    let frames = Arc::new(SharedFrames::new(FRAMES));
    let one = open("um0", Mode::Native, Some(&frames));
    let left = open("um0p", Mode::Native, None);
    let right = open("um1p", Mode::Native, None);
    let over = AtomicBool::new(false);
    let (mut n, mut passed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            let goes_on = |_: &usize| !over.load(Relaxed) && start.elapsed().as_secs() < 60;
            for n in (0..).take_while(goes_on) {
                send(&left, &frame(600, n));
                std::thread::yield_now();
            }
        });
        while n < 8 {
            let two = open("um1", Mode::Native, Some(&frames));
            assert!(two.shared_frames().is_some(), "{:?}", one.shared_frames());
            let (mut buf, start) = (BurstBuf::new(), Instant::now());
            let before = passed;
            // It goes with frames on their way.
            while passed < before + 500 {
                let Some(mut burst) = one.rx(0, &mut buf) else { continue };
                let all = (0..burst.len()).fold(Set::NONE, |set, i| set.with(Set::one(i)));
                two.tx(0, &mut burst, all);
                drop(burst);
                forward(&right, |burst, i| {
                    let frame = burst.copy_out(i, usize::MAX);
                    let number = frame[14];
                    assert!(frame == self::frame(600, number.into()));
                    passed += 1;
                });
                assert!(start.elapsed() < Duration::from_secs(20), "{passed}");
            }
            assert_eq!(two.counters().tx_payload_bytes, 0);
            n += 1;
        }
        over.store(true, Relaxed);
    });
    // None was lost.
    let _others = ["um1", "um2", "um3"].map(|name| open(name, Mode::Native, Some(&frames)));
    assert_eq!(one.shared_frames(), Some((1536, 1536)));
}

/// Two threads flood what they receive to the other's wire and to a third, on which both send: no frame is written
/// while it is on its way, or is still to be sent by the other.
#[test]
fn two_threads_send_on_one_queue() {
    wires(3);
    let frames = Arc::new(SharedFrames::new(FRAMES));
    let near = ["um0", "um1", "um2"].map(|name| open(name, Mode::Native, Some(&frames)));
    let far = ["um0p", "um1p", "um2p"].map(|name| open(name, Mode::Native, None));
    let check = |burst: &mut Burst<'_>, i: usize| {
        let got = burst.copy_out(i, usize::MAX);
        assert!(got == frame(got.len() - 14, got[14].into()), "{} {}", got.len(), got[14]);
    };
    std::thread::scope(|scope| {
        let both = [0, 1].map(|own| {
            let (near, far, check) = (&near, &far, &check);
            scope.spawn(move || {
                let (mut came, start) = (0, Instant::now());
                let mut n = 0;
                while came < 20_000 {
                    n += 1;
                    send(&far[own], &frame(200 + n * 13 % 1200, n));
                    forward(&near[own], |burst, i| {
                        near[2].tx(0, burst, Set::one(i));
                        near[1 - own].tx(0, burst, Set::one(i));
                    });
                    forward(&far[own], check);
                    came += forward(&far[2], check);
                    assert!(start.elapsed() < Duration::from_secs(20), "{came}");
                }
            })
        });
        for thread in both {
            thread.join().expect("all was right");
        }
    });
    let sent = near[2].counters();
    assert!(sent.tx_packets >= 40_000, "{sent:?}");
    assert_eq!(sent.tx_payload_bytes, 0, "the first output");
    let others = near[0].counters().tx_payload_bytes;
    assert!(others > 0, "the second");
    assert_eq!(near[0].shared_frames(), Some((1152, 1536)));
}

//! Two ports at the two ends of a veth pair, in a network namespace of the test's own. Needs root.

use packet::{BurstBuf, HEADER_BYTES, Lender, Offload, Set, gso};
use port::{Port, Wait, Waker};
use port_xdp::{Config, Mode, XdpPort};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let out = command.args(words).output().expect("iproute2 is installed");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Moves this thread to a namespace with a pair `xa`, `xb` of two queues each; returns their indices.
fn pair() -> (u32, u32) {
    // SAFETY: the thread's network namespace alone is its own from now on; no memory is concerned.
    let done = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    done.expect("root");
    run(
        "ip link add xa numrxqueues 2 numtxqueues 2 type veth peer name xb numrxqueues 2 numtxqueues 2",
    );
    run("ip link set xa up");
    run("ip link set xb up");
    let index = |name| rustix::net::netdevice::name_to_index(control(), name).expect("there");
    (index("xa"), index("xb"))
}

fn control() -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::INET, SocketType::DGRAM, None).expect("a socket")
}

fn config(name: &str, index: u32, mode: Option<Mode>, queues: usize) -> Config {
    Config { mode, queues, rx_size: 256, tx_size: 256, ..Config::new(name, index) }
}

struct Nobody;
impl Lender for Nobody {
    fn give_back(&self) {}
}

/// Sends a frame, all but its first bytes borrowed.
fn send(port: &XdpPort, frame: &[u8], offload: Offload) {
    let mut buf = BurstBuf::new();
    let (head, rest) = frame.split_at(frame.len().min(HEADER_BYTES));
    buf.push().expect("room").set_header(head);
    if !rest.is_empty() {
        // SAFETY: the frame outlives the burst.
        assert!(unsafe { buf.add_segment(rest.as_ptr(), rest.len()) });
    }
    if offload != Offload::default() {
        buf.set_offload(offload);
    }
    let mut burst = buf.lend(&Nobody);
    port.tx(0, &mut burst, Set::one(0));
}

/// The next `n` of our frames: the host sends some of its own.
fn receive(port: &XdpPort, n: usize) -> Vec<Vec<u8>> {
    let (mut buf, mut got, start) = (BurstBuf::new(), Vec::new(), Instant::now());
    while got.len() < n {
        for queue in 0..port.rx_queues() {
            let Some(burst) = port.rx(queue, &mut buf) else { continue };
            let frames = (0..burst.len()).map(|i| burst.copy_out(i, usize::MAX));
            got.extend(frames.filter(|f| f[6..12] == [2, 0, 0, 0, 0, 1]));
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{} of {n}", got.len());
    }
    got
}

fn frame(payload: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    f.extend((0..payload).map(|i| i as u8));
    f
}

#[test]
fn frames_pass_in_every_mode_and_the_program_goes_with_the_port() {
    let (a, b) = pair();
    for mode in [Some(Mode::Native), Some(Mode::Generic), None] {
        let queues = if mode == Some(Mode::Generic) { 1 } else { 2 };
        let one = XdpPort::open(&config("xa", a, mode, queues)).expect("opens");
        let two = XdpPort::open(&config("xb", b, mode, queues)).expect("opens");
        assert_eq!(one.mode(), mode.unwrap_or(Mode::Native), "veth has no zero copy");
        // More than the rings hold, so that every frame is used again.
        for round in 0..1000 {
            let sent = frame(46 + round % 1400);
            send(&one, &sent, Offload::default());
            assert_eq!(receive(&two, 1), [sent]);
        }
        let long = frame(1600);
        send(&one, &long, Offload::default());
        let (sent, received) = (one.counters(), two.counters());
        assert_eq!((sent.tx_packets, sent.tx_dropped), (1000, 1), "longer than the MTU");
        assert!(received.rx_packets >= 1000 && received.rx_dropped == 0, "{received:?}");
        let shown = || {
            let out = Command::new("ip").args(["link", "show", "xa"]).output().expect("runs");
            String::from_utf8_lossy(&out.stdout).contains("xdp")
        };
        assert!(shown());
        drop(one);
        assert!(!shown());
    }
}

/// Frames of several pages, each of another length, and super-frames cut into such.
#[test]
fn long_frames_pass_in_several_parts() {
    let (a, b) = pair();
    for device in ["xa", "xb"] {
        run(&format!("ip link set {device} mtu 9702"));
    }
    for mode in [Mode::Native, Mode::Generic] {
        let config = |name, index| Config { mtu: 9702, ..config(name, index, Some(mode), 1) };
        let one = XdpPort::open(&config("xa", a)).expect("opens");
        let two = XdpPort::open(&config("xb", b)).expect("opens");
        assert!(one.mtu_limit() >= 9702, "{}", one.mtu_limit());
        for round in 0..1000 {
            let sent = frame(46 + round * 7919 % 9600);
            send(&one, &sent, Offload::default());
            assert!(receive(&two, 1) == [sent], "{mode:?}, {round}");
        }
        for border in [3839, 3840, 3841, 4095, 4096, 4097, 8191, 8192, 8193, 9702 + 14] {
            let sent = frame(border - 14);
            send(&one, &sent, Offload::default());
            assert!(receive(&two, 1) == [sent], "{mode:?}, {border}");
        }
        let (payload, head, offload) = super_frame(60_000, 8948);
        send(&one, &[head, payload.clone()].concat(), offload);
        check_segments(&receive(&two, payload.len().div_ceil(8948)), &payload);
        assert_eq!((one.counters().tx_dropped, two.counters().rx_dropped), (0, 0));
    }
}

#[test]
fn without_multi_buffer_long_frames_are_refused_and_a_long_mtu_is_told() {
    let (a, b) = pair();
    let short = |name, index| Config { long_frames: false, ..config(name, index, None, 1) };
    let one = XdpPort::open(&Config { mtu: 9000, ..short("xa", a) }).expect("opens");
    let two = XdpPort::open(&short("xb", b)).expect("opens");
    assert_eq!(one.mtu_limit(), 4096 - 256 - 18);
    send(&one, &frame(5000), Offload::default());
    send(&one, &frame(1000), Offload::default());
    assert_eq!(receive(&two, 1), [frame(1000)]);
    assert_eq!(one.counters().drops[packet::DropReason::TxMtuExceeded as usize], 1);
}

#[test]
fn a_tag_does_not_count_to_the_mtu() {
    let (a, b) = pair();
    let one = XdpPort::open(&Config { mtu: 1000, ..config("xa", a, None, 1) }).expect("opens");
    let two = XdpPort::open(&config("xb", b, None, 1)).expect("opens");
    let tagged = |payload| {
        let mut frame = frame(payload);
        frame.splice(12..12, [0x81, 0, 0, 7]);
        frame
    };
    for too_long in [frame(1001), tagged(1001)] {
        send(&one, &too_long, Offload::default());
    }
    for right in [frame(1000), tagged(1000)] {
        send(&one, &right, Offload::default());
        assert!(receive(&two, 1) == [right]);
    }
    assert_eq!(one.counters().drops[packet::DropReason::TxMtuExceeded as usize], 2);
}

/// A super-frame of TCP whose checksum is that of its pseudo-header.
fn super_frame(bytes: u32, gso_size: u16) -> (Vec<u8>, Vec<u8>, Offload) {
    let payload: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
    let mut head = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    head.extend([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    head.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    let sum = packet::checksum::partial(0, &head[26..34]) + 6 + 20 + payload.len() as u64;
    let sum = (sum & 0xffff) + (sum >> 16);
    head[50..52].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    (payload, head, offload)
}

fn check_segments(got: &[Vec<u8>], payload: &[u8]) {
    let whole: Vec<u8> = got.iter().flat_map(|f| f[54..].to_vec()).collect();
    assert!(whole == payload, "in order and whole");
    for f in got {
        let pseudo = packet::checksum::partial(0, &f[26..34]) + 6 + (f.len() - 34) as u64;
        assert_eq!(packet::checksum::internet(pseudo, &f[34..]), 0, "a right checksum");
    }
}

#[test]
fn super_frames_are_cut_and_checksums_completed() {
    let (a, b) = pair();
    let one = XdpPort::open(&config("xa", a, None, 1)).expect("opens");
    let two = XdpPort::open(&config("xb", b, None, 1)).expect("opens");
    let (payload, head, offload) = super_frame(60_000, 1400);
    send(&one, &[head, payload.clone()].concat(), offload);
    let got = receive(&two, payload.len().div_ceil(1400));
    check_segments(&got, &payload);
    assert_eq!(one.counters().tx_segments, got.len() as u64);
}

/// One frame of TCP, or of UDP behind a tag, with its checksum left to be done.
fn left_open(payload: usize, udp: bool) -> (Vec<u8>, Offload) {
    let (payload, mut head, mut offload) = super_frame(payload as u32, 0);
    (offload.gso_type, offload.hdr_len) = (gso::NONE, 0);
    if udp {
        head.truncate(34);
        (head[23], offload.csum_offset) = (17, 6);
        let len = (8 + payload.len()) as u64;
        let sum = !packet::checksum::internet(17 + len, &head[26..34]);
        head.extend([0, 1, 0, 2, (len >> 8) as u8, len as u8]);
        head.extend(sum.to_be_bytes());
        head.splice(12..12, [0x81, 0, 0, 7]);
        offload.csum_start += 4;
    }
    ([head, payload].concat(), offload)
}

/// The kernel completes what it is asked to, in frames of one part and of several, and cut ones. A device without
/// checksum offload has the kernel do it before the frame is sent; veth else leaves it to its other end.
#[test]
fn checksums_are_left_to_the_kernel_if_that_is_asked_for() {
    let (a, b) = pair();
    run("ip link set xa mtu 9702");
    run("ip link set xb mtu 9702");
    let two = XdpPort::open(&Config { mtu: 9702, ..config("xb", b, None, 1) }).expect("opens");
    for (mode, offloads) in [(Mode::Native, "off"), (Mode::Generic, "off"), (Mode::Native, "on")] {
        run(&format!("ethtool -K xa tx {offloads}"));
        let asked = Config { tx_csum: true, mtu: 9702, ..config("xa", a, Some(mode), 1) };
        let one = XdpPort::open(&asked).expect("opens");
        assert!(one.leaves_checksums(), "Linux 6.8");
        for (round, udp) in (0..600).map(|i| (i, i % 2 == 1)) {
            let (sent, mut offload) = left_open(1 + round * 7919 % 9600, udp);
            send(&one, &sent, offload);
            let mut wanted = sent.clone();
            if offloads == "off" {
                offload.complete(&mut wanted);
            }
            assert!(receive(&two, 1) == [wanted], "{mode:?}, {offloads}, {round}");
            // Nothing is done to frames that are whole.
            send(&one, &frame(round), Offload::default());
            assert!(receive(&two, 1) == [frame(round)], "{mode:?}, {offloads}, {round}");
        }
        let (payload, head, offload) = super_frame(60_000, 4060);
        send(&one, &[head, payload.clone()].concat(), offload);
        let got = receive(&two, payload.len().div_ceil(4060));
        if offloads == "off" {
            check_segments(&got, &payload);
        }
        let sent = one.counters();
        assert_eq!((sent.tx_checksums, sent.tx_dropped), (0, 0), "nothing in software");
        assert_eq!(sent.tx_segments, got.len() as u64);
    }
}

/// What the kernel would refuse stops the ring, so it never gets it.
#[test]
fn a_checksum_behind_the_first_bytes_is_completed_in_software() {
    let (a, b) = pair();
    let one = XdpPort::open(&Config { tx_csum: true, ..config("xa", a, None, 1) }).expect("opens");
    let two = XdpPort::open(&config("xb", b, None, 1)).expect("opens");
    let mut sent = frame(1000);
    sent[200..202].fill(0);
    let flags = Offload::NEEDS_CSUM;
    for (csum_start, csum_offset) in [(180, 20), (20, 180)] {
        let mut offload = Offload { flags, csum_start, csum_offset, ..Offload::default() };
        send(&one, &sent, offload);
        let mut wanted = sent.clone();
        offload.complete(&mut wanted);
        assert!(receive(&two, 1) == [wanted]);
    }
    for (csum_start, csum_offset) in [(1000, 900), (14, u16::MAX - 14), (900, 113)] {
        send(&one, &sent, Offload { flags, csum_start, csum_offset, ..Offload::default() });
    }
    send(&one, &frame(100), Offload::default());
    assert_eq!(receive(&two, 1), [frame(100)], "others pass");
    let counters = one.counters();
    assert_eq!((counters.tx_checksums, counters.tx_packets), (2, 3));
    assert_eq!(counters.drops[packet::DropReason::TxInvalidOffload as usize], 3);
}

#[test]
fn segments_before_the_ring_was_full_count_as_sent() {
    let (a, b) = pair();
    for device in ["xa", "xb"] {
        run(&format!("ip link set {device} mtu 9702"));
    }
    let two = XdpPort::open(&Config { mtu: 9702, ..config("xb", b, None, 1) }).expect("opens");
    // Segments of one frame each, and of three, of which one is left over.
    for (tx_size, bytes, gso_size, fit, dropped) in
        [(64, 20_000, 200, 64, 36), (16, 60_000, 8948, 5, 2)]
    {
        let config = Config { tx_size, mtu: 9702, ..config("xa", a, None, 1) };
        let one = XdpPort::open(&config).expect("opens");
        let (payload, head, offload) = super_frame(bytes, gso_size);
        send(&one, &[head, payload.clone()].concat(), offload);
        let got = receive(&two, fit);
        check_segments(&got, &payload[..fit * usize::from(gso_size)]);
        let (sent, fit) = (one.counters(), fit as u64);
        assert_eq!((sent.tx_packets, sent.tx_segments, sent.tx_dropped), (fit, fit, dropped));
        assert_eq!(sent.tx_bytes, fit * (54 + u64::from(gso_size)));
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let (a, _) = pair();
    let first = XdpPort::open(&config("xa", a, None, 1)).expect("opens");
    let text = |c: &Config| XdpPort::open(c).err().expect("must be refused").to_string();
    assert!(text(&config("xa", a, None, 1)).contains("another XDP program is attached"));
    drop(first);
    let many = text(&config("xa", a, Some(Mode::Native), 3));
    assert!(many.contains("queue 2"), "{many}");
    let zero_copy = text(&config("xa", a, Some(Mode::ZeroCopy), 1));
    assert!(zero_copy.contains("queue 0"), "{zero_copy}");
    assert!(XdpPort::open(&config("x", 9999, None, 1)).is_err());
    drop(XdpPort::open(&config("xa", a, None, 2)).expect("nothing of all this stays"));
}

/// Zero-copy is tried first, and its memory is freed only after it was refused: as much again must not be needed.
#[test]
fn memory_of_a_mode_that_was_refused_is_waited_for() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let (a, b) = pair();
    // One queue's frames take 2 MiB. Who may lock as much as it likes, as the other tests, does not care.
    run(&format!("prlimit --pid {} --memlock=3145728:", std::process::id()));
    let mut own = capabilities(None).expect("says it");
    own.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, own).expect("gives it up");
    let small = |name, index| Config { rx_size: 64, tx_size: 64, ..config(name, index, None, 1) };
    let one = XdpPort::open(&small("xa", a)).expect("opens at once");
    assert_eq!(one.mode(), Mode::Native);
    let error = XdpPort::open(&small("xb", b)).err().expect("there is no more").to_string();
    assert!(error.contains("cannot be locked in memory"), "{error}");
}

#[test]
fn who_waits_is_told() {
    let (a, b) = pair();
    let one = XdpPort::open(&config("xa", a, None, 1)).expect("opens");
    let two = XdpPort::open(&config("xb", b, None, 1)).expect("opens");
    let waker = Arc::new(Waker::new(eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd")));
    // What the host itself says when a link comes up.
    while !matches!(two.wait_for(0, &waker), Wait::Signal(_)) {
        let mut buf = BurstBuf::new();
        drop(two.rx(0, &mut buf));
    }
    let Wait::Signal(alarm) = two.wait_for(0, &waker) else { panic!("nothing is there") };
    let told = |milliseconds: i64| {
        let timeout = Timespec { tv_sec: milliseconds / 1000, tv_nsec: 0 };
        let mut watched = [PollFd::new(&*alarm, PollFlags::IN)];
        poll(&mut watched, Some(&timeout)).expect("polls") == 1
    };
    assert!(!told(0));
    send(&one, &frame(60), Offload::default());
    assert!(told(20_000));
    assert!(matches!(two.wait_for(0, &waker), Wait::Poll));
    two.wait_over(0, &waker);
    send(&one, &frame(60), Offload::default());
    assert!(!told(0), "who polls is not told");
    assert_eq!(receive(&two, 2).len(), 2);
}

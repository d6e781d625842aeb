//! Frames whose VLAN tag the sender leaves to the device, as VLAN devices and bridges of Linux do: the kernel has that tag
//! beside the frame's bytes. Needs root and Linux 6.6 (tcx).

use packet::BurstBuf;
use port::Port;
use port_kernel::NetdevPort;
use port_xdp::{Config, Mode, XdpPort};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let out = command.args(words).output().expect("iproute2 and ethtool are installed");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

fn index(name: &str) -> u32 {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).expect("a socket");
    netdevice::name_to_index(socket, name).expect("there")
}

/// Moves this thread to a namespace with a pair `vla`, `vlb` that has this MTU; returns their indices.
fn pair(mtu: u32) -> (u32, u32) {
    // SAFETY: the thread's network namespace alone is its own from now on; no memory is concerned.
    let done = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    done.expect("root");
    run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1");
    run(&format!("ip link add vla mtu {mtu} type veth peer name vlb mtu {mtu}"));
    run("ip link set vla up");
    run("ip link set vlb up");
    (index("vla"), index("vlb"))
}

/// bpf(2) with attributes of that many words, the rest of which are zeros.
fn bpf(command: libc::c_int, attributes: &[u64]) -> OwnedFd {
    let (at, size) = (attributes.as_ptr(), size_of_val(attributes));
    // SAFETY: the kernel reads `size` bytes, and what they point to is there until it returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, at, size) };
    assert!(fd >= 0, "bpf {command}: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel gave it just now, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// Has a netdev's frames leave with a tag that is left to the device, until what is returned is dropped.
fn tag_beside(index: u32, tpid: u16, tci: u16) -> OwnedFd {
    let instruction = |code: u8, registers: u8, constant: i32| {
        u64::from(code) | u64::from(registers) << 8 | u64::from(constant.cast_unsigned()) << 32
    };
    let program = [
        // r2 = tpid, big-endian; r3 = tci; bpf_skb_vlan_push(r1, r2, r3)
        instruction(0xb7, 2, i32::from(tpid.to_be())),
        instruction(0xb7, 3, i32::from(tci)),
        instruction(0x85, 0, 18),
        // return TCX_NEXT
        instruction(0xb7, 0, -1),
        instruction(0x95, 0, 0),
    ];
    let (program_at, license) = (program.as_ptr().expose_provenance(), c"GPL");
    let license = license.as_ptr().expose_provenance();
    // BPF_PROG_TYPE_SCHED_CLS is 3; BPF_TCX_EGRESS is 47.
    let load = [3 | (program.len() as u64) << 32, program_at as u64, license as u64, 0, 0, 0];
    let loaded = bpf(5, &load);
    let link = [loaded.as_raw_fd() as u64 | u64::from(index) << 32, 47, 0, 0, 0];
    bpf(28, &link)
}

/// Sends frames as the host's stack does.
fn send(index: u32, frame: &[u8]) {
    // SAFETY: numbers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(raw >= 0, "root");
    // SAFETY: the kernel gave it just now, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: integers: zeros are a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    (to.sll_family, to.sll_ifindex) = (libc::AF_PACKET as u16, index as i32);
    let (at, size) = ((&raw const to).cast(), size_of_val(&to) as u32);
    // SAFETY: the kernel reads the frame and the address.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, at, size)
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

/// The next frame.
fn receive(port: &XdpPort) -> Vec<u8> {
    let (mut buf, start) = (BurstBuf::new(), Instant::now());
    loop {
        if let Some(burst) = port.rx(0, &mut buf) {
            assert_eq!(burst.len(), 1);
            return burst.copy_out(0, usize::MAX);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nothing came");
    }
}

/// A frame with these bytes for its tags and as many of payload.
fn frame(tags: &[u8], payload: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    f.extend(tags);
    f.extend([0x88, 0xb5]);
    f.extend((0..payload).map(|i| i as u8));
    f
}

fn config(index: u32, mtu: u32) -> Config {
    Config { rx_size: 64, tx_size: 64, mtu, driver_tags: true, ..Config::new("vla", index) }
}

/// Longer than what is private, than a page, than two.
const PAYLOADS: [usize; 10] = [46, 100, 120, 1500, 3700, 3820, 3826, 4096, 8000, 9000];

#[test]
fn a_tag_that_was_left_to_the_device_is_in_the_frame() {
    let (a, b) = pair(9000);
    let port = XdpPort::open(&config(a, 9000)).expect("opens");
    assert!(port.mode() == Mode::Native && port.keeps_tags());
    let other = XdpPort::open(&config(a, 9000)).err().expect("must be refused").to_string();
    assert!(other.contains("another XDP program is attached"), "{other}");
    // With tags that are in the frame already, which become the inner ones. More frames than the rings hold.
    let all = || PAYLOADS.iter().cycle().take(40).flat_map(|&p| [(&[][..], p), (&INNER, p)]);
    let tags: [(u16, u16); 4] = [(0x8100, 0x6007), (0x88a8, 0xffff), (0x8100, 0), (0x8100, 0x1000)];
    for (tpid, tci) in tags {
        let link = tag_beside(b, tpid, tci);
        for (inner, payload) in all() {
            send(b, &frame(inner, payload));
            let tags = [&tpid.to_be_bytes()[..], &tci.to_be_bytes(), inner].concat();
            assert!(receive(&port) == frame(&tags, payload), "{tags:x?}, {payload}");
        }
        drop(link);
        for (inner, payload) in all() {
            send(b, &frame(inner, payload));
            assert!(receive(&port) == frame(inner, payload), "{inner:x?}, {payload}");
        }
    }
    assert_eq!(port.counters().rx_dropped, 0);
}

const INNER: [u8; 4] = [0x81, 0, 0, 9];

/// The host finds the tag beside the frame, and not in it besides.
#[test]
fn what_the_host_gets_is_left_as_it_is() {
    let (a, b) = pair(1500);
    for device in ["vla", "vlb"] {
        run(&format!("ethtool -L {device} rx 2 tx 2"));
    }
    // One of the two queues goes to the host. A veth's frames come in the queue that they were sent in, by a hash of
    // addresses and ports.
    let port = XdpPort::open(&config(a, 1500)).expect("opens");
    assert!(port.keeps_tags());
    let host = NetdevPort::open("vla", a, 1500, false).expect("opens");
    let flow = |tags: &[u8], source: u8| {
        let mut f = frame(tags, 0);
        f.truncate(12 + tags.len());
        f.extend([8, 0, 0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([1, source, 0, 9, 0, 8, 0, 0]);
        f
    };
    let _link = tag_beside(b, 0x8100, 7);
    const FLOWS: u8 = 50;
    (0..FLOWS).for_each(|n| send(b, &flow(&[], n)));
    let (mut got, mut counts, start) = (Vec::new(), [0, 0], Instant::now());
    while got.len() < usize::from(FLOWS) {
        for (count, port) in counts.iter_mut().zip([&port as &dyn Port, &host]) {
            let mut buf = BurstBuf::new();
            let Some(burst) = port.rx(0, &mut buf) else { continue };
            *count += burst.len();
            got.extend((0..burst.len()).map(|i| burst.copy_out(i, usize::MAX)));
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{counts:?}");
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    got.sort();
    let mut wanted: Vec<_> = (0..FLOWS).map(|n| flow(&[0x81, 0, 0, 7], n)).collect();
    wanted.sort();
    assert!(got == wanted);
}

#[test]
fn without_a_driver_that_says_them_everything_else_works() {
    let (a, b) = pair(1500);
    let generic = Config { mode: Some(Mode::Generic), ..config(a, 1500) };
    let unasked = Config { driver_tags: false, ..config(a, 1500) };
    for config in [generic, unasked] {
        let port = XdpPort::open(&config).expect("opens");
        assert!(!port.keeps_tags());
        send(b, &frame(&INNER, 100));
        assert_eq!(receive(&port), frame(&INNER, 100));
        let _link = tag_beside(b, 0x8100, 7);
        send(b, &frame(&[], 100));
        assert_eq!(receive(&port), frame(&[], 100), "lost");
        // What the peer can be told to do about it, as the switch's log says.
        run("ethtool -K vlb tx-vlan-hw-insert off tx-vlan-stag-hw-insert off");
        send(b, &frame(&[], 100));
        assert_eq!(receive(&port), frame(&[0x81, 0, 0, 7], 100));
        run("ethtool -K vlb tx-vlan-hw-insert on tx-vlan-stag-hw-insert on");
    }
}

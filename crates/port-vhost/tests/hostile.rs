//! Front ends that lie, in their rings and in their messages. After each attack the port has been
//! reset or its ring disabled, and counted so; two other ports forward all the time; and an honest
//! front end works on the same port afterwards.

mod common;

use common::{Lab, PATIENCE, Traffic, exchange, ping, until, whole};
use port_vhost::Mode;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use virtio_driver::mapping::Span;
use virtio_driver::payload::Flow;
use virtio_driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Parts};
use virtio_driver::wire::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, MemRegion, VringAddr, feature, mem_table, u64_body,
    vring_state,
};
use virtio_driver::{Config, Driver, Error, Request, Session};

/// Ports 0 and 1 are attacked, 2 and 3 have honest guests.
struct Scene {
    lab: Lab,
    honest: (Driver, Driver),
    sequence: u64,
}

impl Scene {
    fn new() -> Scene {
        let lab = Lab::new(&[Mode::Server; 4], 9000);
        let connect = |port| Driver::connect(lab.guest(port)).expect("connects");
        let honest = (connect(2), connect(3));
        Scene { lab, honest, sequence: 0 }
    }

    /// The other ports forward.
    fn others(&mut self, what: &str) {
        let (flow, n) = (Flow::between(7, 3, 4), self.sequence);
        let t = Traffic { pair: 0, flow, window: 32, len: &|_| 200, layout: &whole };
        exchange(what, &mut self.honest.0, &mut self.honest.1, &t, n..n + 64);
        self.sequence += 64;
        for port in &self.lab.ports[2..] {
            assert_eq!(port.session_counts(), (1, 0, 0), "{what}");
        }
    }

    /// The other ports forward, and the attacked ones work again.
    fn survived(&mut self, what: &str) {
        self.others(what);
        let patient = |port| Driver::connect(self.lab.guest(port));
        let mut a = patient(0).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut b = patient(1).unwrap_or_else(|e| panic!("{what}: {e}"));
        ping(what, &mut a, &mut b);
        drop((a, b));
        self.quiet();
    }

    /// Waits until no front end is on the attacked ports.
    fn quiet(&self) {
        until("disconnected", || self.lab.ports[..2].iter().all(|p| !p.status().connected));
    }

    fn faults(&self) -> u64 {
        self.lab.ports[0].session_counts().2
    }

    fn errors(&self) -> u64 {
        self.lab.ports[0].session_counts().1
    }

    fn session(&self) -> Session {
        let session = Session::connect(&self.lab.socket(0), PATIENCE).expect("connects");
        // Another front end may be going; then this one was refused and closed at once.
        if session.ask(Request::GET_FEATURES, &[]).is_ok() { session } else { self.session() }
    }

    fn guest(&self, packed: bool) -> Config {
        let mut c = self.lab.guest(0);
        c.queue_size = 16;
        if packed { c.with(feature::RING_PACKED) } else { c }
    }
}

type Descriptor = (u64, u32, u16, u16);

/// Writes descriptors over the ring's first ones and makes `heads` of them available.
fn spoil(ring: &Span, packed: bool, descs: &[Descriptor], heads: &[u16], jump: u16) {
    let parts = Parts::of(packed, 16);
    for (i, &(gpa, len, flags, next)) in descs.iter().enumerate().rev() {
        let (a, b) = if packed { (i as u16, flags | 1 << 7) } else { (flags, next) };
        let words = [&gpa.to_le_bytes()[..], &len.to_le_bytes(), &a.to_le_bytes()].concat();
        ring.write(16 * i, &words);
        ring.write(16 * i + 14, &b.to_le_bytes());
    }
    if !packed {
        for (i, head) in heads.iter().enumerate() {
            ring.write(parts.avail + 4 + 2 * i, &head.to_le_bytes());
        }
        ring.write(parts.avail + 2, &(heads.len() as u16 + jump).to_le_bytes());
    }
}

#[test]
fn transmit_rings_that_lie_are_disabled() {
    let mut scene = Scene::new();
    for packed in [false, true] {
        let probe = Driver::connect(scene.guest(packed)).expect("connects");
        let ok = probe.memory().regions()[0].descriptor().gpa;
        let end = ok + probe.memory().regions()[0].descriptor().size;
        drop(probe);
        scene.quiet();
        let looped: Vec<Descriptor> = (0..16).map(|i| (ok, 64, DESC_NEXT, (i + 1) % 16)).collect();
        let mut attacks: Vec<(&str, Vec<Descriptor>)> = vec![
            ("a loop through all descriptors", looped),
            ("a loop of empty descriptors", vec![(ok, 0, DESC_NEXT, 0); 16]),
            ("an address beyond memory", vec![(end, 64, 0, 0)]),
            ("an address 0", vec![(0, 64, 0, 0)]),
            ("an end beyond memory", vec![(end - 63, 64, 0, 0)]),
            ("an address that wraps", vec![(u64::MAX - 5, 64, 0, 0)]),
            ("a length of 4 GiB", vec![(ok, u32::MAX, 0, 0)]),
            ("a writable buffer", vec![(ok, 64, DESC_WRITE, 0)]),
            ("an empty table", vec![(ok, 0, DESC_INDIRECT, 0)]),
            ("a table of 17 bytes", vec![(ok, 17, DESC_INDIRECT, 0)]),
            ("a table beyond memory", vec![(end, 32, DESC_INDIRECT, 0)]),
            ("a table that goes on", vec![(ok, 32, DESC_INDIRECT | DESC_NEXT, 1)]),
            ("a huge table", vec![(ok, 16 << 20, DESC_INDIRECT, 0)]),
        ];
        if !packed {
            attacks.push(("a loop of one", vec![(ok, 64, DESC_NEXT, 0)]));
            attacks.push(("a next beyond the table", vec![(ok, 64, DESC_NEXT, 16)]));
        }
        for (what, descs) in attacks {
            let before = scene.faults();
            let mut a = Driver::connect(scene.guest(packed)).expect("connects");
            spoil(a.pair(0).tx.ring_memory(), packed, &descs, &[0], 0);
            until(what, || scene.faults() == before + 1);
            // Again and again, and it stays one: the ring is not looked at any more.
            spoil(a.pair(0).tx.ring_memory(), packed, &descs, &[0, 0], 0);
            a.session().ask(Request::GET_FEATURES, &[]).expect("the session lives");
            scene.others(what);
            assert_eq!(scene.faults(), before + 1, "{what}");
            assert_eq!(scene.lab.ports[0].status().vring_sizes[1], 0, "{what}");
            // Memory that changes does not start it again; the front end has to.
            a.resend_memory().expect("resends");
            assert_eq!(scene.lab.ports[0].status().vring_sizes[..2], [16, 0], "{what}");
            drop(a);
            scene.quiet();
        }
        scene.survived("rings that lie");
    }
    for (what, heads, jump) in
        [("a head beyond the table", [16].as_slice(), 0), ("an index that jumps", &[0], 100)]
    {
        let before = scene.faults();
        let mut a = Driver::connect(scene.guest(false)).expect("connects");
        spoil(a.pair(0).tx.ring_memory(), false, &[], heads, jump);
        until(what, || scene.faults() == before + 1);
        drop(a);
        scene.quiet();
    }
    scene.survived("indices that lie");
    assert_eq!(scene.errors(), 0);
}

#[test]
fn receive_rings_that_lie_are_disabled() {
    let mut scene = Scene::new();
    for packed in [false, true] {
        for (what, desc) in [
            ("a buffer to read", (1 << 32, 2048, 0, 0)),
            ("a buffer outside", (1 << 50, 2048, DESC_WRITE, 0)),
            ("a buffer that wraps", (u64::MAX - 1, 2048, DESC_WRITE, 0)),
        ] {
            let before = scene.faults();
            let mut a = Driver::connect(scene.guest(packed)).expect("connects");
            let mut b = Driver::connect(scene.lab.guest(1)).expect("connects");
            let ring = a.pair(0).rx.ring_memory().clone();
            spoil(&ring, packed, &[desc; 16], &[0; 16], 0);
            b.tx(0, &vec![[0u8; 100]; 8]).expect("sends");
            until(what, || scene.faults() == before + 1);
            assert!(b.drain_tx(0, Instant::now() + PATIENCE).expect("drains"), "{what}");
            scene.others(what);
            // Started anew it works, with the buffers that are good again.
            a.reset().expect("resets");
            ping(what, &mut a, &mut b);
            drop((a, b));
            scene.quiet();
        }
    }
    scene.survived("receive rings that lie");
}

#[test]
fn buffers_of_one_byte_and_none_at_all_hold_up_nobody() {
    let mut scene = Scene::new();
    let mut a = Driver::connect(scene.guest(false)).expect("connects");
    let mut b = Driver::connect(scene.lab.guest(1)).expect("connects");
    let gpa = a.memory().regions()[0].descriptor().gpa;
    for len in [0, 1] {
        spoil(
            &a.pair(0).rx.ring_memory().clone(),
            false,
            &[(gpa, len, DESC_WRITE, 0); 16],
            &[0; 16],
            0,
        );
        for _ in 0..10 {
            b.tx(0, &vec![[0u8; 100]; 32]).expect("sends");
            assert!(b.drain_tx(0, Instant::now() + PATIENCE).expect("drains"));
        }
        scene.others("tiny buffers");
    }
    assert_eq!(scene.lab.drops(0, packet::DropReason::TxRingFull), 640);
    drop((a, b));
    scene.survived("tiny buffers");
    assert_eq!(scene.faults(), 0);
}

/// A second thread writes nonsense over rings and buffers while they are used.
#[test]
fn descriptors_that_change_while_they_are_read_harm_nobody() {
    let mut scene = Scene::new();
    for packed in [false, true] {
        let mut a = Driver::connect(scene.guest(packed)).expect("connects");
        let mut b = Driver::connect(scene.lab.guest(1)).expect("connects");
        let rings = [a.pair(0).rx.ring_memory().clone(), a.pair(0).tx.ring_memory().clone()];
        let all = a.memory().regions()[0].span().clone();
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| flip(&rings, &all, &stop));
            let end = Instant::now() + Duration::from_secs(2);
            let mut restarts = 0;
            while Instant::now() < end {
                b.tx(0, &vec![[9u8; 300]; 16]).expect("sends");
                scene.others("flipping");
                while b.rx(0, 64, |_, _| {}).expect("the honest guest sees no breach") > 0 {}
                for ring in [0u16, 1] {
                    if scene.lab.ports[0].status().vring_sizes.get(usize::from(ring)) != Some(&16) {
                        let base = a.stop_ring(ring).expect("stops");
                        a.start_ring(ring, base).expect("starts");
                        restarts += 1;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(restarts > 3, "{restarts} restarts, so hardly anything was tried");
        });
        drop((a, b));
        scene.survived("flipping");
    }
    assert!(scene.faults() > 3);
    assert_eq!(scene.errors(), 0);
}

fn flip(rings: &[Span; 2], all: &Span, stop: &AtomicBool) {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (start, len) = (all.gpa(0), all.len() as u64);
    let mut turn = 0u32;
    while !stop.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(64) {
            std::thread::yield_now();
        }
        let (ring, i) = (&rings[next() as usize & 1], 16 * (next() as usize % 16));
        match next() % 8 {
            0 => ring.write(i, &(start + next() % len).to_le_bytes()),
            1 => ring.write(i, &(start + len - next() % 4096).to_le_bytes()),
            2 => ring.write(i + 8, &(next() as u32 % 3000).to_le_bytes()),
            3 => ring.write(i + 8, &(16 * (next() as u32 % 20)).to_le_bytes()),
            4 => ring.write(i + 12 + 2 * (next() as usize % 2), &(next() as u16).to_le_bytes()),
            5 => ring.write(i + 12, &(next() as u16 & 7).to_le_bytes()),
            6 => ring.write(i + 14, &(next() as u16 & 15).to_le_bytes()),
            _ => {
                let at = next() as usize % (ring.len() - 2);
                ring.write(at & !1, &(next() as u16 & 31).to_le_bytes());
            }
        }
    }
}

#[test]
fn memory_that_is_truncated_resets_its_port_only() {
    let mut scene = Scene::new();
    for packed in [false, true] {
        let before = scene.errors();
        let mut a = Driver::connect(scene.guest(packed)).expect("connects");
        a.tx(0, &[[1u8; 100]; 4]).expect("sends");
        // From here on the driver may not touch its memory either.
        ftruncate(a.memory().regions()[0].fd(), 0).expect("truncates");
        until("the port is reset", || scene.errors() == before + 1);
        assert!(a.disconnected().expect("polls"));
        drop(a);
        scene.survived("truncated memory");
    }
    let why = scene.lab.ports[0].status().last_error;
    assert_eq!(why, None, "the honest front end's leaving was no error");
}

#[test]
fn a_call_descriptor_that_blocks_holds_up_nobody_for_long() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let mut scene = Scene::new();
    for stop in [false, true] {
        let before = scene.errors();
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("fd");
        let mut a = Driver::connect(scene.guest(false)).expect("connects");
        a.session().set(Request::SET_VRING_CALL, &u64_body(1), &[eventfd.as_fd()]).expect("sends");
        a.session().ask(Request::GET_FEATURES, &[]).expect("answers");
        // Full and non-blocking it is only ignored.
        rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).expect("fills");
        a.pair(0).tx.ring().ask_for_call();
        a.tx(0, &[[1u8; 100]]).expect("sends");
        scene.others("a full call descriptor");
        assert_eq!(scene.errors(), before);
        let flags = fcntl_getfl(&eventfd).expect("flags");
        assert!(flags.contains(OFlags::NONBLOCK));
        fcntl_setfl(&eventfd, flags - OFlags::NONBLOCK).expect("flags");
        a.pair(0).tx.ring().ask_for_call();
        a.tx(0, &[[1u8; 100]]).expect("sends");
        if stop {
            // The session waits for the ring that the stuck thread holds.
            let _ = a.stop_ring(1);
        }
        until("the connection is reset", || scene.errors() == before + 1);
        drop(a);
        scene.survived("a blocking call descriptor");
    }
}

fn memfd(len: u64) -> OwnedFd {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, len).expect("size");
    fd
}

fn region(gpa: u64, size: u64, mmap_offset: u64) -> MemRegion {
    MemRegion { gpa, size, user_addr: 0x5000_0000_0000 + gpa, mmap_offset }
}

/// A line of /proc/self/status, in kB.
fn status_kb(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = text.lines().find(|l| l.starts_with(name)).expect("the line");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let mut scene = Scene::new();
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    let dir = OwnedFd::from(std::fs::File::open("/tmp").expect("directory"));
    let (good, short) = (memfd(0x10_0000), memfd(0x1000));
    let (a, b) = (region(0, 0x8000, 0), region(0x4000, 0x8000, 0));
    let huge = memfd(1 << 45);
    let table = |r: &[MemRegion]| (Request::SET_MEM_TABLE, mem_table(r));
    let slot = |r: MemRegion| (Request::ADD_MEM_REG, r.single_body());
    let lie = |n: u32| {
        (Request::SET_MEM_TABLE, [vring_state(n, 0), mem_table(&[a])[8..].to_vec()].concat())
    };
    let g = good.as_fd();
    type Attack<'a> = (&'a str, (Request, Vec<u8>), Vec<BorrowedFd<'a>>);
    let attacks: Vec<Attack<'_>> = vec![
        ("0 regions and a body", lie(0), vec![g]),
        ("9 regions in a body of one", lie(9), vec![g]),
        ("2^32-1 regions", lie(u32::MAX), vec![g]),
        ("overlapping", table(&[a, b]), vec![g, g]),
        ("a region too few", table(&[a]), vec![]),
        ("a file too many", table(&[a]), vec![g, g]),
        ("size 0", table(&[region(0, 0, 0)]), vec![g]),
        ("a size that wraps", table(&[region(1 << 40, u64::MAX - 5, 0)]), vec![g]),
        ("an offset that wraps", table(&[region(0, 0x1000, u64::MAX)]), vec![g]),
        ("a pipe", table(&[a]), vec![pipe.as_fd()]),
        ("a directory", table(&[a]), vec![dir.as_fd()]),
        ("a file that is too short", table(&[a]), vec![short.as_fd()]),
        ("an offset beyond the file", slot(region(0, 0x1000, 0x10_0000)), vec![g]),
        ("more than the address space", slot(region(0, 1 << 45, 0)), vec![huge.as_fd()]),
        ("no file", slot(a), vec![]),
        ("a region that is not there", (Request::REM_MEM_REG, a.single_body()), vec![]),
    ];
    for (what, (request, body), fds) in attacks {
        let before = scene.errors();
        let session = scene.session();
        session.send(request, FLAG_VERSION, &body, &fds).expect("sends");
        until(what, || scene.errors() == before + 1);
        until(what, || session.closed().expect("polls"));
        drop(session);
    }
    // With an acknowledgement asked for, memory is refused and the connection goes on.
    let session = scene.session();
    let body = table(&[a, b]).1;
    session
        .send(Request::SET_MEM_TABLE, FLAG_VERSION | FLAG_NEED_REPLY, &body, &[g, g])
        .expect("sends");
    let reply = session.recv(Instant::now() + PATIENCE).expect("receives").expect("in time");
    assert_ne!(reply.as_u64().expect("a number"), 0);
    session.ask(Request::GET_FEATURES, &[]).expect("the session lives");
    // Odd addresses are fine as long as rings are aligned.
    session
        .send(Request::ADD_MEM_REG, FLAG_VERSION, &region(0x11, 0x1001, 7).single_body(), &[g])
        .expect("sends");
    session.ask(Request::GET_FEATURES, &[]).expect("the session lives");
    drop(session);
    scene.survived("impossible memory");
}

#[test]
fn huge_sparse_memory_costs_nothing() {
    let mut scene = Scene::new();
    scene.survived("before");
    let session = scene.session();
    let sparse = memfd(1 << 40);
    let before = status_kb("VmRSS");
    for i in 0..3 {
        let r = region(i << 40, 1 << 40, 0).single_body();
        session.send(Request::ADD_MEM_REG, FLAG_VERSION, &r, &[sparse.as_fd()]).expect("sends");
    }
    session.ask(Request::GET_FEATURES, &[]).expect("the session lives");
    assert_eq!(scene.lab.ports[0].status().mem_regions, 3);
    let grown = status_kb("VmRSS").saturating_sub(before);
    // Other tests of this program run at the same time and have guests of some megabytes.
    assert!(grown < 200 << 10, "3 TiB of sparse memory cost {grown} kB");
    drop(session);
    scene.survived("sparse memory");
}

#[test]
fn messages_that_break_the_protocol_reset_the_connection() {
    let mut scene = Scene::new();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("eventfd");
    let (read, _write) = rustix::pipe::pipe().expect("pipe");
    let file = memfd(4096);
    let e = eventfd.as_fd();
    let many = vec![e; 32];
    let addr = VringAddr { index: 256, flags: 0, desc: 0, used: 0, avail: 0, log: 0 };
    let n = |i: u32| u64_body(i.into());
    type Attack<'a> = (&'a str, Request, u32, Vec<u8>, Vec<BorrowedFd<'a>>);
    let attacks: Vec<Attack<'_>> = vec![
        ("fd where none belongs", Request::SET_OWNER, FLAG_VERSION, vec![], vec![e]),
        ("fd with a question", Request::GET_FEATURES, FLAG_VERSION, vec![], vec![e]),
        ("32 fds", Request::SET_VRING_CALL, FLAG_VERSION, n(0), many),
        ("no fd", Request::SET_VRING_CALL, FLAG_VERSION, n(0), vec![]),
        ("a pipe to call", Request::SET_VRING_CALL, FLAG_VERSION, n(0), vec![read.as_fd()]),
        ("a file to call", Request::SET_VRING_CALL, FLAG_VERSION, n(0), vec![file.as_fd()]),
        ("wrong version", Request::SET_OWNER, 2, vec![], vec![]),
        ("a reply", Request::SET_OWNER, FLAG_VERSION | FLAG_REPLY, vec![], vec![]),
        ("a body too short", Request::SET_FEATURES, FLAG_VERSION, vec![0; 7], vec![]),
        ("a body too long", Request::SET_FEATURES, FLAG_VERSION, vec![0; 9], vec![]),
        ("features not offered", Request::SET_FEATURES, FLAG_VERSION, u64_body(1 << 60), vec![]),
        (
            "protocol features",
            Request::SET_PROTOCOL_FEATURES,
            FLAG_VERSION,
            u64_body(1 << 60),
            vec![],
        ),
        ("ring 256", Request::SET_VRING_NUM, FLAG_VERSION, vring_state(256, 64), vec![]),
        ("ring 65536", Request::SET_VRING_ENABLE, FLAG_VERSION, vring_state(1 << 16, 1), vec![]),
        ("ring -1", Request::GET_VRING_BASE, FLAG_VERSION, vring_state(u32::MAX, 0), vec![]),
        ("address of ring 256", Request::SET_VRING_ADDR, FLAG_VERSION, addr.body(), vec![]),
        ("size 0", Request::SET_VRING_NUM, FLAG_VERSION, vring_state(0, 0), vec![]),
        ("size 65536", Request::SET_VRING_NUM, FLAG_VERSION, vring_state(0, 1 << 16), vec![]),
        ("unknown request", Request(0), FLAG_VERSION, vec![], vec![]),
        ("unknown request", Request(u32::MAX), FLAG_VERSION, vec![], vec![]),
        ("not offered", Request::SET_LOG_BASE, FLAG_VERSION, vec![0; 16], vec![]),
    ];
    for (what, request, flags, body, fds) in attacks {
        let before = scene.errors();
        let session = scene.session();
        session.send(request, flags, &body, &fds).expect("sends");
        until(what, || scene.errors() == before + 1);
        until(what, || session.closed().expect("polls"));
    }
    scene.survived("broken protocol");
    for size in [4097u32, 1 << 20, u32::MAX] {
        let before = scene.errors();
        let session = scene.session();
        let header = [1u32, FLAG_VERSION, size].map(u32::to_le_bytes).concat();
        session.send_bytes(&header, &[]).expect("sends");
        until("an announced size is refused", || scene.errors() == before + 1);
    }
    scene.survived("announced sizes");
}

#[test]
fn order_does_not_matter_and_pieces_are_put_together() {
    let mut scene = Scene::new();
    let session = scene.session();
    let addr = VringAddr { index: 0, flags: 0, desc: 1, used: 2, avail: 3, log: 4 };
    session.set(Request::SET_VRING_ENABLE, &vring_state(0, 1), &[]).expect("sends");
    session.set(Request::SET_VRING_ADDR, &addr.body(), &[]).expect("sends");
    session.set(Request::SET_VRING_KICK, &u64_body(256), &[]).expect("sends");
    session.set(Request::SET_VRING_NUM, &vring_state(0, 3), &[]).expect("sends");
    session.set(Request::SET_FEATURES, &u64_body(1 << 32), &[]).expect("sends");
    let file = memfd(0x10000);
    let table = mem_table(&[region(0, 0x10000, 0)]);
    session.set(Request::SET_MEM_TABLE, &table, &[file.as_fd()]).expect("sends");
    session.set(Request::SET_VRING_NUM, &vring_state(1, 64), &[]).expect("sends");
    let base = session.ask(Request::GET_VRING_BASE, &vring_state(200, 0)).expect("answers").body;
    assert_eq!(base, vring_state(200, 0), "a ring that never ran is at 0");
    for byte in [1u32, FLAG_VERSION, 0].map(u32::to_le_bytes).concat() {
        session.send_bytes(&[byte], &[]).expect("sends");
    }
    let reply = session.recv(Instant::now() + PATIENCE).expect("receives").expect("in time");
    assert_eq!(reply.request, Request::GET_FEATURES);
    assert_eq!(scene.errors(), 0);
    // A second front end is shown the door and the first stays.
    let second = Session::connect(&scene.lab.socket(0), PATIENCE).expect("connects");
    until("the second is refused", || second.closed().expect("polls"));
    session.ask(Request::GET_FEATURES, &[]).expect("the first lives");
    drop(session);
    scene.survived("odd order");
}

#[test]
fn live_rings_are_not_resized_under_the_switch() {
    let mut scene = Scene::new();
    for request in [Request::SET_VRING_NUM, Request::SET_VRING_BASE] {
        let before = scene.errors();
        let a = Driver::connect(scene.guest(false)).expect("connects");
        let session = a.session();
        session.send(request, FLAG_VERSION, &vring_state(1, 8), &[]).expect("sends");
        until("the connection is reset", || scene.errors() == before + 1);
    }
    let mut a = Driver::connect(scene.guest(false)).expect("connects");
    let at = a.memory().regions()[0].descriptor().user_addr;
    for (desc, used) in [(0, at), (at + 1, at), (at, at + 2), (at, u64::MAX - 1)] {
        let addr = VringAddr { index: 1, flags: 0, desc, used, avail: at, log: 0 };
        a.session().set(Request::SET_VRING_ADDR, &addr.body(), &[]).expect("sends");
        let sizes = scene.lab.ports[0].status().vring_sizes;
        assert_eq!(sizes, [16, 0], "a ring at an impossible address does not run");
    }
    scene.others("re-addressed");
    a.reset().expect("resets");
    drop(a);
    scene.survived("re-addressed");
}

fn fd_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Sends more descriptors than anything here has room for.
fn send_253(stream: &UnixStream, fd: BorrowedFd<'_>) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd; 253];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [13u32, FLAG_VERSION, 8, 0, 0].map(u32::to_le_bytes).concat();
    let iov = [std::io::IoSlice::new(&bytes)];
    sendmsg(stream, &iov, &mut control, SendFlags::NOSIGNAL).expect("sends");
}

/// This counts the process's descriptors, so everything that opens many is in one test, and what the
/// other tests have open is allowed for.
#[test]
fn repeated_messages_and_storms_leave_nothing_behind() {
    let mut scene = Scene::new();
    scene.survived("before");
    const OTHERS: usize = 400;
    let (fds, size) = (fd_count(), status_kb("VmSize"));
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("eventfd");
    let file = memfd(0x10_0000);
    let session = scene.session();
    let table = mem_table(&[region(0, 0x10_0000, 0)]);
    for i in 0..10_000u32 {
        for request in [Request::SET_VRING_KICK, Request::SET_VRING_CALL, Request::SET_VRING_ERR] {
            let body = u64_body(u64::from(i % 256));
            session.send(request, FLAG_VERSION, &body, &[eventfd.as_fd()]).expect("sends");
        }
        if i % 10 == 0 {
            let fd = [file.as_fd()];
            session.send(Request::SET_MEM_TABLE, FLAG_VERSION, &table, &fd).expect("sends");
        }
        if i % 100 == 0 {
            session.ask(Request::GET_FEATURES, &[]).expect("answers");
        }
    }
    session.ask(Request::GET_FEATURES, &[]).expect("answers");
    assert!(fd_count() < fds + 3 * 256 + OTHERS, "{fds} descriptors became {}", fd_count());
    drop(session);
    for _ in 0..5 {
        let before = scene.errors();
        let session = scene.session();
        send_253(session.stream(), eventfd.as_fd());
        until("253 descriptors are refused", || scene.errors() == before + 1);
    }
    // Few, because the switch waits longer after each, up to a second.
    for i in 0..13 {
        // Closed at once, in the middle of a header, of a body, of a burst.
        let session = Session::connect(&scene.lab.socket(0), PATIENCE).expect("connects");
        let bytes = [2u32, FLAG_VERSION, 8].map(u32::to_le_bytes).concat();
        let _ = session.send_bytes(&bytes[..i], &[eventfd.as_fd()]);
    }
    for _ in 0..3 {
        let mut a = Driver::connect(scene.guest(false)).expect("connects");
        a.tx(0, &[[0u8; 100]; 16]).expect("sends");
        drop(a);
        scene.quiet();
    }
    scene.survived("a storm");
    until("descriptors are closed", || fd_count() < fds + OTHERS);
    let grown = status_kb("VmSize").saturating_sub(size);
    assert!(grown < 2 << 20, "address space grew by {grown} kB");
}

/// Nine short connections have eight waits between them: 1 + 2 + .. + 128 ms.
#[test]
fn a_peer_that_comes_and_goes_is_made_to_wait() {
    let lab = Lab::new(&[Mode::Server, Mode::Client], 1500);
    let connections = |port: usize| lab.ports[port].session_counts().0;
    let start = Instant::now();
    for n in 1..=9 {
        drop(UnixStream::connect(lab.socket(0)).expect("connects"));
        until("the switch has seen it", || connections(0) == n);
    }
    assert!(start.elapsed() >= Duration::from_millis(255), "{:?}", start.elapsed());
    let listener = UnixListener::bind(lab.socket(1)).expect("binds");
    let start = Instant::now();
    for n in 1..=9 {
        drop(listener.accept().expect("the switch connects"));
        // What happens in the directory does not end the wait.
        std::fs::write(lab.dir.path().join(format!("file{n}")), []).expect("writes");
    }
    assert!(start.elapsed() >= Duration::from_millis(255), "{:?}", start.elapsed());
}

#[test]
fn a_peer_that_stops_half_way_does_not_hold_up_closing() {
    for bytes in [&[1u8, 0, 0][..], &[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]] {
        let scene = Scene::new();
        let session = scene.session();
        session.send_bytes(bytes, &[]).expect("sends");
        let start = Instant::now();
        scene.lab.ports[0].close();
        assert!(start.elapsed() < Duration::from_secs(4), "closing took {:?}", start.elapsed());
        assert!(session.closed().expect("polls"));
    }
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let mut scene = Scene::new();
    let before = scene.errors();
    let session = scene.session();
    let bytes = [1u32, FLAG_VERSION, 0].map(u32::to_le_bytes).concat();
    let error = loop {
        if let Err(e) = session.send_bytes(&bytes, &[]) {
            break e;
        }
    };
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    until("it is counted", || scene.errors() == before + 1);
    scene.survived("a deaf peer");
}

/// Random messages with random bodies and descriptors, for every request.
#[test]
fn random_messages_harm_nobody() {
    let mut scene = Scene::new();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("eventfd");
    let file = memfd(0x10_0000);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let end = Instant::now() + Duration::from_secs(3);
    let mut sent = 0;
    let mut session = scene.session();
    while Instant::now() < end {
        let size = [0, 8, 8, 8, 40, 40, next(100)][next(7) as usize] as usize;
        let mut body: Vec<u8> = (0..size).map(|_| next(256) as u8).collect();
        if next(4) > 0 {
            for (i, b) in body.iter_mut().enumerate() {
                *b = if i == 0 {
                    next(3) as u8
                } else if i == 4 {
                    next(17) as u8
                } else {
                    0
                };
            }
        }
        let fds = [eventfd.as_fd(), file.as_fd()];
        let fds = &fds[..[0, 0, 1, 1, 1, 2][next(6) as usize]];
        let flags = FLAG_VERSION | if next(2) == 0 { FLAG_NEED_REPLY } else { 0 };
        let request = Request(1 + next(42) as u32);
        if session.send(request, flags, &body, fds).is_err() || session.closed().expect("polls") {
            session = Session::connect(&scene.lab.socket(0), PATIENCE).expect("connects");
        }
        sent += 1;
    }
    drop(session);
    assert!(sent > 100);
    scene.survived("random messages");
}

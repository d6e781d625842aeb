//! The `vhost` crate's front end, which is Cloud Hypervisor's, with its order of messages: it
//! negotiates, shares memory slot by slot, and its guest's frame comes in.

use packet::BurstBuf;
use port::Port;
use port_vhost::{Config, Mode, Offers, VhostPort};
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vm_memory::{GuestMemoryRegion, MemoryRegionAddress};
use vmm_sys_util::eventfd::EventFd;

const SIZE: usize = 1 << 20;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x4000;

#[test]
fn cloud_hypervisors_front_end() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("port");
    let port = VhostPort::open(Config {
        name: "port".into(),
        mode: Mode::Server,
        path: path.clone(),
        mtu: 1500,
        offers: Offers::All,
        on_change: Box::new(|| ()),
    })
    .expect("socket");
    let file = tempfile::tempfile().expect("file");
    file.set_len(SIZE as u64).expect("size");
    let fd = file.as_raw_fd();
    let mem = GuestMemoryMmap::<()>::from_ranges_with_files([(
        GuestAddress(0),
        SIZE,
        Some(FileOffset::new(file, 0)),
    )])
    .expect("mapping");
    let base = mem.iter().next().expect("one region");
    let base = base.get_host_address(MemoryRegionAddress(0)).expect("start") as u64;

    let mut front = Frontend::connect(&path, 2).expect("the port listens");
    front.set_owner().expect("owner");
    let offered = front.get_features().expect("features");
    let wanted = 1 << 32 | 1 << 30 | 1 << 15;
    assert_eq!(offered & wanted, wanted);
    front.set_features(wanted).expect("accepted");
    let protocol = front.get_protocol_features().expect("protocol features");
    let protocol = protocol & (Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS);
    assert!(protocol.contains(Protocol::CONFIGURE_MEM_SLOTS));
    front.set_protocol_features(protocol).expect("accepted");
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front.get_queue_num().expect("number"), port_vhost::MAX_QUEUE_PAIRS as u64);
    assert_eq!(front.get_max_mem_slots().expect("number"), 509);
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: SIZE as u64,
        userspace_addr: base,
        mmap_offset: 0,
        mmap_handle: fd,
    };
    front.add_mem_region(&region).expect("mapped");

    // One frame of 60 bytes behind a virtio-net header of 12, in descriptor 5.
    let frame: Vec<u8> = (0..60).collect();
    mem.write_slice(&frame, GuestAddress(BUFFER + 12)).expect("inside");
    mem.write_obj(BUFFER, GuestAddress(DESC + 5 * 16)).expect("inside");
    mem.write_obj(72u32, GuestAddress(DESC + 5 * 16 + 8)).expect("inside");
    mem.write_obj(5u16, GuestAddress(AVAIL + 4)).expect("inside");
    mem.write_obj(1u16, GuestAddress(AVAIL + 2)).expect("inside");
    let (kick, call) = (EventFd::new(0).expect("eventfd"), EventFd::new(0).expect("eventfd"));
    front.set_vring_num(1, 256).expect("size");
    let addresses = VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: base + DESC,
        used_ring_addr: base + USED,
        avail_ring_addr: base + AVAIL,
        log_addr: None,
    };
    front.set_vring_addr(1, &addresses).expect("addresses");
    front.set_vring_base(1, 0).expect("base");
    front.set_vring_call(1, &call).expect("call");
    front.set_vring_kick(1, &kick).expect("kick");

    let mut room = BurstBuf::new();
    assert!(port.rx(0, &mut room).is_none(), "disabled until it says otherwise");
    front.set_vring_enable(1, true).expect("enabled");
    let deadline = Instant::now() + Duration::from_secs(10);
    let burst = loop {
        if let Some(burst) = port.rx(0, &mut room) {
            let header = burst.packets()[0].header().to_vec();
            break (burst.len(), header);
        }
        assert!(Instant::now() < deadline, "the frame came within 10 s");
        std::thread::yield_now();
    };
    assert_eq!(burst, (1, frame));
    fence(Ordering::SeqCst);
    port.tell_taken(0);
    let used: u16 = mem.read_obj(GuestAddress(USED + 2)).expect("inside");
    let id: u32 = mem.read_obj(GuestAddress(USED + 4)).expect("inside");
    assert_eq!((used, id, call.read().expect("interrupt")), (1, 5, 1));
    assert_eq!(front.get_vring_base(1).expect("position"), 1);
    assert!(port.rx(0, &mut room).is_none(), "stopped");
}

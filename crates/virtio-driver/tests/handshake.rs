//! What the driver sends, seen by a back end that only answers: QEMU's order and virtio-user's, memory by table and by slot, refusals.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use virtio_driver::memory::RegionSpec;
use virtio_driver::wire::{FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, feature, protocol, u64_body};
use virtio_driver::{
    Config, Driver, Error, MemoryStyle, Message, MessageOrder, Request, Session, SocketMode,
};

const FEATURES: u64 = feature::VERSION_1
    | feature::MRG_RXBUF
    | feature::PROTOCOL_FEATURES
    | feature::MQ
    | feature::MTU;
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers everything with success (or `refuse`s one request) and hands each message on.
fn back_end(listener: UnixListener, protocol: u64, refuse: Option<Request>) -> Receiver<Message> {
    let (to, messages) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the driver connects");
        let session = Session::new(stream, PATIENCE);
        while let Ok(Some(message)) = session.recv(Instant::now() + PATIENCE) {
            let request = message.request;
            let answer = match request {
                Request::GET_FEATURES => Some(u64_body(FEATURES)),
                Request::GET_PROTOCOL_FEATURES => Some(u64_body(protocol)),
                Request::GET_QUEUE_NUM => Some(u64_body(2)),
                Request::GET_MAX_MEM_SLOTS => Some(u64_body(509)),
                Request::GET_VRING_BASE => Some([&message.body[..4], &7u32.to_le_bytes()].concat()),
                _ if message.flags & FLAG_NEED_REPLY != 0 => {
                    Some(u64_body((refuse == Some(request)).into()))
                }
                _ => None,
            };
            if let Some(body) = answer {
                let _ = session.send(request, FLAG_VERSION | FLAG_REPLY, &body, &[]);
            }
            if to.send(message).is_err() {
                return;
            }
        }
    });
    messages
}

fn run(
    protocol: u64,
    refuse: Option<Request>,
    change: impl Fn(Config) -> Config,
) -> (Result<Driver, Error>, Receiver<Message>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let messages = back_end(UnixListener::bind(&path).unwrap(), protocol, refuse);
    let config = Config { patience: PATIENCE, ..Config::new(SocketMode::Connect(path)) };
    (Driver::connect(change(config)), messages)
}

fn names(messages: &Receiver<Message>) -> Vec<String> {
    messages.try_iter().map(|message| message.request.to_string()).collect()
}

const ALL: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::MTU
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::STATUS;

#[test]
fn qemus_order_with_slots() {
    let regions =
        vec![RegionSpec::of(4 << 20), RegionSpec { mmap_offset: 4096, ..RegionSpec::of(4096) }];
    let (driver, messages) = run(ALL & !protocol::STATUS, None, |config| Config {
        order: MessageOrder::Qemu,
        memory_style: MemoryStyle::Slots,
        regions: regions.clone(),
        queue_pairs: 2,
        mtu: Some(9000),
        ..config.with(feature::MQ | feature::MTU)
    });
    let mut driver = driver.unwrap();
    let ring =
        ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL"];
    let mut expected = vec![
        "SET_OWNER",
        "GET_FEATURES",
        "GET_PROTOCOL_FEATURES",
        "SET_PROTOCOL_FEATURES",
        "GET_QUEUE_NUM",
    ];
    expected.extend(["GET_MAX_MEM_SLOTS", "NET_SET_MTU"]);
    expected.extend(["SET_VRING_CALL"; 4]);
    expected.extend(["SET_VRING_ENABLE"; 4]);
    expected.extend(["SET_FEATURES", "ADD_MEM_REG", "ADD_MEM_REG"]);
    expected.extend(ring.iter().chain(&ring).chain(&["SET_FEATURES"]).chain(&ring).chain(&ring));
    expected.push("GET_FEATURES");
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < expected.len() && Instant::now() < deadline {
        seen.extend(names(&messages));
    }
    assert_eq!(seen, expected);
    let added = driver.add_region(&RegionSpec::of(8192)).unwrap();
    driver.remove_region(added).unwrap();
    let add = messages.recv_timeout(PATIENCE).unwrap();
    assert_eq!((add.request, add.fds.len(), add.body.len()), (Request::ADD_MEM_REG, 1, 40));
    let remove = messages.recv_timeout(PATIENCE).unwrap();
    assert_eq!((remove.request, remove.body), (Request::REM_MEM_REG, add.body));
    assert!(matches!(driver.remove_region(0), Err(Error::Region { region: 0, .. })));
    assert_eq!(driver.stop_ring(3).unwrap(), 7);
}

#[test]
fn virtio_users_order_with_a_table_and_no_acknowledgements() {
    let (driver, messages) = run(protocol::STATUS, None, |config| config);
    let driver = driver.unwrap();
    assert!(!driver.session().acks);
    let ring = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"];
    let mut expected =
        vec!["SET_OWNER", "GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES"];
    expected.extend([
        "SET_STATUS",
        "SET_STATUS",
        "SET_VRING_CALL",
        "SET_VRING_CALL",
        "SET_FEATURES",
        "SET_STATUS",
    ]);
    expected.extend(["SET_MEM_TABLE", "GET_FEATURES"]);
    expected.extend(ring.iter().chain(&ring));
    expected.extend(["SET_VRING_ENABLE", "SET_VRING_ENABLE", "SET_STATUS", "GET_FEATURES"]);
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < expected.len() && Instant::now() < deadline {
        seen.extend(names(&messages));
    }
    assert_eq!(seen, expected);
}

#[test]
fn refusals_and_lacks_are_errors() {
    let (driver, _messages) = run(ALL, Some(Request::SET_VRING_ADDR), |config| config);
    assert!(matches!(driver, Err(Error::Refused { request: Request::SET_VRING_ADDR, code: 1 })));
    let (driver, _messages) = run(ALL, None, |config| config.with(feature::RING_PACKED));
    assert!(matches!(driver, Err(Error::MissingFeatures { missing: feature::RING_PACKED, .. })));
    let (driver, _messages) = run(ALL, None, |config| Config { queue_pairs: 3, ..config });
    assert!(matches!(driver, Err(Error::TooFewQueues { has: 2, wanted: 3 })));
    let slots = |config| Config { memory_style: MemoryStyle::Slots, ..config };
    let (driver, _messages) = run(protocol::REPLY_ACK, None, slots);
    assert!(matches!(driver, Err(Error::Config(_))));
    let nobody = Config {
        patience: Duration::from_millis(20),
        ..Config::new(SocketMode::Connect("/nonexistent/sock".into()))
    };
    assert!(matches!(Driver::connect(nobody), Err(Error::NoPeer { .. })));
}

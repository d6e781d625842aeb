//! Ring operations: one thread plays the guests and the switch in turn, so all memory is warm. An
//! element is a packet out of one guest's ring and into the other's, both sides' work included.

use benches::listening_port;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use packet::{BURST, BurstBuf, Set};
use port::Port;
use port_vhost::VhostPort;
use std::path::Path;
use std::sync::Arc;
use virtio_driver::config::{self, SocketMode};
use virtio_driver::{Driver, wire};

/// A port of the switch and the guest on it.
fn guest(dir: &Path, name: &str, features: u64) -> (Arc<VhostPort>, Driver) {
    let (port, path) = listening_port(dir, name);
    let config = config::Config::new(SocketMode::Connect(path)).with(features);
    (port, Driver::connect(config).expect("the port answers"))
}

fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("guest to guest, one thread");
    group.throughput(Throughput::Elements(BURST as u64));
    let split = wire::feature::MRG_RXBUF;
    let packed = split | wire::feature::RING_PACKED;
    for (layout, features) in [("split", split), ("packed", packed)] {
        for size in [64usize, 1500] {
            let dir = tempfile::tempdir().expect("directory");
            let (from, mut sender) = guest(dir.path(), "from", features);
            let (to, mut receiver) = guest(dir.path(), "to", features);
            let mut sender = sender
                .pair(0)
                .saturate(128, |n, frame| frame.resize(size, n as u8))
                .expect("frames fit");
            let mut receiver = receiver.pair(0).saturate(0, |_, _| ()).expect("buffers fit");
            let mut room = BurstBuf::new();
            let id = BenchmarkId::new(layout, size);
            group.bench_function(id, |b| {
                b.iter(|| {
                    sender.turn().expect("the switch keeps to the rules");
                    if let Some(mut burst) = from.rx(0, &mut room) {
                        let n = burst.len();
                        to.tx(0, &mut burst, Set::range(0, n));
                    }
                    receiver.turn().expect("the switch keeps to the rules");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);

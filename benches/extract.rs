//! Key extraction: from a frame's first bytes to its flow key, and the key's hash.

use benches::{udp_frame, udp6_frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flow::{Extracted, extract};
use packet::arch::{HashKey, hash6};
use std::hint::black_box;

fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("extract");
    group.throughput(Throughput::Elements(1));
    let mut out = Extracted::default();
    let udp = udp_frame(1);
    group.bench_function("udp over ipv4", |b| {
        b.iter(|| extract(black_box(&udp), 64, 1, &mut out));
    });
    let udp6 = udp6_frame();
    group.bench_function("udp over ipv6", |b| {
        b.iter(|| extract(black_box(&udp6), 78, 1, &mut out));
    });
    let key = HashKey::new(42);
    let _ = extract(&udp, 64, 1, &mut out);
    group.bench_function("hash of a short key", |b| {
        b.iter(|| hash6(black_box(out.key.hot()), &key));
    });
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);

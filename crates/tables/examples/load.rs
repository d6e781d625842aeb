//! Loads a million flows and looks up random packets in ten tables; prints the time and the memory.
//!
//! `cargo run --release -p tables --example load [FLOWS]`

use openflow::{Command, FlowMod, FullKey, FullMask};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tables::Tables;
use zerocopy::big_endian::{U16, U32};

/// Tables of the lookup.
const TABLES: u8 = 10;
/// Lookups.
const LOOKUPS: u32 = 1_000_000;

/// Changes of a copy.
const CHANGES: u32 = 1000;

/// Numbers that are the same in each run (xorshift64*).
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Resident memory, in MiB (proc(5), `VmRSS`).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// A prefix, an address and a port, as security groups and load balancers have it.
struct Service {
    source: u32,
    bits: u32,
    destination: u32,
    port: u16,
}

fn service(state: &mut u64) -> Service {
    let n = next(state);
    let bits = [32, 24, 16][(n >> 40) as usize % 3];
    Service {
        source: (0x0a00_0000 | n as u32 >> 8) & (u32::MAX << (32 - bits)),
        bits,
        destination: 0xac10_0000 | next(state) as u32 >> 12,
        port: (n >> 45) as u16 & 0x3ff,
    }
}

fn flow(table: u8, state: &mut u64) -> String {
    let s = service(state);
    let (source, destination) = (Ipv4Addr::from(s.source), Ipv4Addr::from(s.destination));
    let (bits, port, priority) = (s.bits, s.port, 100 + s.port % 16);
    format!(
        "cookie=0x1,table={table},priority={priority},tcp,nw_src={source}/{bits},\
         nw_dst={destination},tp_dst={port},actions=output:1,resubmit(,{})",
        table + 1
    )
}

/// A packet for the service; what its flow does not look at comes from `noise`.
fn key(state: &mut u64, noise: &mut u64) -> FullKey {
    let s = service(state);
    let mut key = FullKey::default();
    let p = &mut key.pkt;
    (p.dl_type, p.nw_proto, p.nw_ttl) = (U16::new(0x800), 6, 64);
    p.nw_src = U32::new(s.source | next(noise) as u32 & (1u32.wrapping_shl(32 - s.bits) - 1));
    p.nw_dst = U32::new(s.destination);
    (p.tp_src, p.tp_dst) = (U16::new(next(noise) as u16), U16::new(s.port));
    key
}

/// Loads flows; how long reading them took, and how long adding them.
fn load(tables: &mut Tables, count: u32, state: &mut u64) -> (Duration, Duration) {
    let (mut reading, mut adding) = (Duration::ZERO, Duration::ZERO);
    for i in 0..count {
        // Table after table, as a dump lists them.
        let table = u64::from(i) * u64::from(TABLES) / u64::from(count);
        let line = flow(table as u8, state);
        let start = Instant::now();
        let m = openflow::parse_flow_mod(&line, Command::Add, &()).expect("a flow");
        let read = Instant::now();
        tables.apply(&m, 0).expect("adds");
        reading += read - start;
        adding += read.elapsed();
    }
    (reading, adding)
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000u32);
    let (mut state, before, mut tables) = (1, resident(), Tables::new());
    let (reading, adding) = load(&mut tables, count, &mut state);
    println!(
        "{} flows: read in {:.2} s, added in {:.2} s; {} MiB",
        tables.len(),
        reading.as_secs_f64(),
        adding.as_secs_f64(),
        resident() - before
    );

    let changes: Vec<FlowMod> = (0..CHANGES)
        .map(|_| openflow::parse_flow_mod(&flow(3, &mut state), Command::Add, &()).expect("a flow"))
        .collect();
    let start = Instant::now();
    for m in &changes {
        let mut copy = tables.clone();
        copy.apply(m, 0).expect("adds");
        tables = copy;
    }
    let each = start.elapsed() / CHANGES;
    println!("{each:?} for a copy, a change of it and the release of the original");

    // For the flows of the first table; the others have none for them.
    let (mut state, mut noise) = (1, 2);
    let keys: Vec<FullKey> = (0..4096).map(|_| key(&mut state, &mut noise)).collect();
    let (mut found, start) = (0u32, Instant::now());
    for i in 0..LOOKUPS {
        let mut seen = FullMask::default();
        let key = &keys[(i / u32::from(TABLES)) as usize % keys.len()];
        let table = (i % u32::from(TABLES)) as u8;
        found += u32::from(tables.lookup(table, key, &mut seen).is_some());
    }
    println!("{:?} a lookup, {found} found", start.elapsed() / LOOKUPS);
}

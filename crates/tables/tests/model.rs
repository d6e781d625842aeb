//! Tables against a plain list of flows: the same answers, and masks that suffice.

use openflow::{
    Action, Command, DEFAULT_PRIORITY, FlowMod, FullKey, FullMask, KEY_WORDS, Match, OfPort,
};
use std::sync::Arc;
use tables::{Rule, Tables};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

/// Numbers that are the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn flow_mod(command: Command, matches: Match, priority: u16) -> FlowMod {
    FlowMod {
        command,
        table: Some(0),
        matches,
        priority,
        cookie_filter: (0, 0),
        new_cookie: None,
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        out_port: None,
        out_group: None,
        send_flow_rem: false,
        check_overlap: false,
        reset_counts: false,
        no_packet_counts: false,
        no_byte_counts: false,
        actions: vec![Action::Output { port: OfPort(1), max_len: None }],
    }
}

/// A packet of few possible values, close to each other in their bits.
fn key(r: &mut Random) -> FullKey {
    let mut key = FullKey {
        in_port: U32::new(r.below(3) as u32),
        metadata: U64::new(r.below(3)),
        ..FullKey::default()
    };
    key.regs[3] = U32::new(r.below(3) as u32);
    let p = &mut key.pkt;
    p.dl_src.0[5] = r.below(3) as u8;
    p.dl_type = U16::new(r.one(&[0x800, 0x86dd]));
    let v4 = [0x0a00_0000, 0x0a00_0001, 0x0a00_00ff, 0x0a01_0000, 0x8000_0000, 0xffff_ffff, 0];
    p.nw_src = U32::new(r.one(&v4));
    p.nw_dst = U32::new(r.one(&v4) ^ r.below(4) as u32);
    p.nw_proto = r.one(&[6, 17]);
    for byte in [0, 1, 7, 8, 15] {
        p.ipv6_dst[byte] = r.one(&[0, 1, 0x80, 0xff]);
    }
    p.tp_src = U16::new(r.one(&[0, 1, 80, 0x8000, 0xffff]));
    p.tp_dst = U16::new(r.below(32) as u16 * 257);
    p.tcp_flags = U16::new(r.below(4) as u16);
    key
}

fn prefix(r: &mut Random, bits: u32) -> u128 {
    match r.below(u64::from(bits) + 1) as u32 {
        0 => 0,
        n => u128::MAX << (128 - n),
    }
}

/// A mask of some of the fields, with prefixes, single bits and all bits.
fn mask(r: &mut Random) -> FullMask {
    let mut mask = FullMask::default();
    let m = &mut mask.0;
    let some = |r: &mut Random| r.below(3) == 0;
    m.in_port = U32::new(if some(r) { u32::MAX } else { 0 });
    m.metadata = U64::new(if some(r) { r.one(&[1, 2, u64::MAX]) } else { 0 });
    m.regs[3] = U32::new(if some(r) { r.one(&[1, u32::MAX]) } else { 0 });
    m.pkt.dl_src.0[5] = if some(r) { r.one(&[1, 0xff]) } else { 0 };
    m.pkt.dl_type = U16::new(if some(r) { u16::MAX } else { 0 });
    m.pkt.nw_src = U32::new(if some(r) { (prefix(r, 32) >> 96) as u32 } else { 0 });
    let odd = r.one(&[0x0000_ff01, 0x8000_0001]);
    let dst = if r.below(6) == 0 { odd } else { (prefix(r, 32) >> 96) as u32 };
    m.pkt.nw_dst = U32::new(if some(r) { dst } else { 0 });
    m.pkt.nw_proto = if some(r) { 0xff } else { 0 };
    m.pkt.ipv6_dst = if some(r) { prefix(r, 128).to_be_bytes() } else { [0; 16] };
    m.pkt.tp_src = U16::new(if some(r) { r.one(&[0xffff, 0x8000, 3]) } else { 0 });
    m.pkt.tp_dst = U16::new(if some(r) { (prefix(r, 16) >> 112) as u16 } else { 0 });
    m.pkt.tcp_flags = U16::new(if some(r) { 2 } else { 0 });
    mask
}

/// A flow that was added: what a plain search looks at.
#[derive(Clone)]
struct Flow {
    m: FlowMod,
    serial: u64,
}

impl Flow {
    fn matches(&self, key: &FullKey) -> bool {
        self.m.matches.mask.agrees(&self.m.matches.value, key)
    }

    fn parts(&self) -> impl Iterator<Item = (u32, u8, u8)> {
        self.m.actions.iter().filter_map(|a| match a {
            Action::Conjunction { id, clause, n_clauses } => Some((*id, *clause, *n_clauses)),
            _ => None,
        })
    }
}

/// The ordinary flow of the highest priority.
fn plain<'a>(flows: &'a [Flow], key: &FullKey) -> Option<&'a Flow> {
    let all = flows.iter().filter(|f| f.parts().next().is_none() && f.matches(key));
    all.max_by_key(|f| f.m.priority)
}

/// What ovs-fields(7) says: from the highest priority down, a conjunction that has all its parts
/// stands for what `conj_id` finds.
fn linear<'a>(flows: &'a [Flow], key: &FullKey) -> Option<&'a Flow> {
    let best = plain(flows, key);
    let part = |f: &&Flow| f.parts().next().is_some() && f.matches(key);
    let mut parts: Vec<&Flow> = flows.iter().filter(part).collect();
    parts.retain(|f| best.is_none_or(|b| f.m.priority > b.m.priority));
    parts.sort_by_key(|f| std::cmp::Reverse(f.m.priority));
    for group in parts.chunk_by(|a, b| a.m.priority == b.m.priority) {
        for id in 0..5 {
            let of_id = || group.iter().flat_map(|f| f.parts()).filter(|p| p.0 == id);
            let Some((_, _, n)) = of_id().next() else { continue };
            if (0..n).all(|c| of_id().any(|p| p.1 == c)) {
                let mut key = *key;
                key.conj_id = U32::new(id);
                if let Some(found) = plain(flows, &key) {
                    return Some(found);
                }
            }
        }
    }
    best
}

/// Flows of unique priorities, among them parts of conjunctions and flows for their ids.
fn flows(r: &mut Random, n: u64) -> Vec<FlowMod> {
    let mut out: Vec<FlowMod> = Vec::new();
    while (out.len() as u64) < n {
        let mut mask = mask(r);
        let mut value = key(r);
        let mut m = flow_mod(Command::Add, Match::any(), out.len() as u16 * 2);
        match r.below(6) {
            0 | 1 => {
                let id = r.below(5) as u32;
                let n = 2 + id as u8 % 2;
                let clause = r.below(n.into()) as u8;
                m.actions = vec![Action::Conjunction { id, clause, n_clauses: n }];
                if r.below(4) == 0 {
                    let part = Action::Conjunction { id: (id + 2) % 4, clause, n_clauses: n };
                    m.actions.push(part);
                }
                m.priority = r.one(&[21, 41, 61]);
            }
            2 => {
                mask.0.conj_id = U32::new(u32::MAX);
                value.conj_id = U32::new(r.below(5) as u32);
            }
            _ => {}
        }
        m.matches = Match { value: mask.apply(&value), mask };
        let same = |f: &&FlowMod| f.priority == m.priority && f.matches == m.matches;
        if out.iter().find(same).is_none() {
            out.push(m);
        }
    }
    out
}

fn find(tables: &Tables, key: &FullKey) -> (Option<u64>, FullMask) {
    let mut seen = FullMask::default();
    let serial = tables.lookup(0, key, &mut seen).map(|r| r.serial);
    (serial, seen)
}

/// `key` with some of the bits outside `seen` changed; often few of them, and in the words that flows
/// look at.
fn alike(r: &mut Random, seen: &FullMask, key: &FullKey, other: &FullKey) -> FullKey {
    let mut out = *key;
    let sparse = r.below(2) == 0;
    for i in 0..KEY_WORDS {
        let change = match sparse {
            true => r.next() & r.next() & r.next() & r.next(),
            false => other.words()[i] ^ key.words()[i],
        };
        out.words_mut()[i] ^= change & !seen.words()[i];
    }
    out
}

fn check(r: &mut Random, tables: &Tables, flows: &[Flow], keys: u64) -> usize {
    let mut found = 0;
    for _ in 0..keys {
        let (key, other) = (key(r), key(r));
        let (serial, seen) = find(tables, &key);
        assert_eq!(serial, linear(flows, &key).map(|f| f.serial));
        found += usize::from(serial.is_some());
        for _ in 0..6 {
            let alike = alike(r, &seen, &key, &other);
            assert_eq!(find(tables, &alike).0, serial);
            assert_eq!(linear(flows, &alike).map(|f| f.serial), serial);
        }
    }
    found
}

/// The same answers as a plain search, with masks that suffice, also after flows came and went, and
/// old copies stay as they were.
#[test]
fn finds_what_a_plain_search_finds() {
    let mut found = 0;
    for seed in 1..=120 {
        let r = &mut Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut tables = Tables::new();
        let count = 5 + seed % 60;
        let mut list: Vec<Flow> = Vec::new();
        for (i, m) in flows(r, count).into_iter().enumerate() {
            tables.apply(&m, 0).expect("adds");
            list.push(Flow { m, serial: i as u64 + 1 });
        }
        found += check(r, &tables, &list, 30);
        let (before, old) = (tables.clone(), list.clone());
        let (gone, left): (Vec<Flow>, Vec<Flow>) = list.into_iter().partition(|_| r.below(2) == 0);
        for f in &gone {
            let m = FlowMod { command: Command::DeleteStrict, ..f.m.clone() };
            assert_eq!(tables.apply(&m, 0).expect("deletes").len(), 1);
        }
        found += check(r, &tables, &left, 20);
        assert_eq!(tables.len(), left.len());
        check(r, &before, &old, 10);
        for f in &left {
            let m = FlowMod { command: Command::DeleteStrict, ..f.m.clone() };
            assert_eq!(tables.apply(&m, 0).expect("deletes").len(), 1);
        }
        assert_eq!(find(&tables, &key(r)), (None, FullMask::default()));
    }
    assert!(found > 2000, "too few keys found a flow: {found}");
}

/// Loose selection, strict selection and overlaps agree with the definitions.
#[test]
fn selects_and_overlaps_as_defined() {
    for seed in 1..=60 {
        let r = &mut Random(seed * 0x0dd0_51e5);
        let mut tables = Tables::new();
        let list = flows(r, 40);
        list.iter().for_each(|m| drop(tables.apply(m, 0).expect("adds")));
        for _ in 0..40 {
            let mask = match r.below(2) {
                0 => mask(r),
                _ => list[r.below(40) as usize].matches.mask,
            };
            let value = mask.apply(&key(r));
            let matches = Match { value, mask };
            let filter = flow_mod(Command::Delete, matches, r.one(&[21, 41, 10]));
            let serials =
                |rules: Vec<&Arc<Rule>>| rules.iter().map(|r| r.serial).collect::<Vec<_>>();
            let mut mine = serials(tables.select(&filter));
            mine.sort_unstable();
            let plain = list.iter().zip(1..).filter(|(m, _)| m.matches.is_within(&matches));
            assert_eq!(mine, plain.map(|(_, n)| n).collect::<Vec<u64>>());
            let same = |m: &&FlowMod| m.priority == filter.priority;
            let exact = list.iter().filter(same).any(|m| m.matches == matches);
            let overlap = list.iter().filter(same).any(|m| m.matches.overlaps(&matches));
            let add = FlowMod { command: Command::Add, check_overlap: true, ..filter.clone() };
            let refused = tables.clone().apply(&add, 0).is_err();
            assert_eq!(refused, overlap && !exact);
        }
    }
}

/// A thousand random prefixes: what decides is a part of the address, and no more.
#[test]
fn prefixes_do_not_force_exact_addresses() {
    let r = &mut Random(77);
    let mut tables = Tables::new();
    for i in 0..1000 {
        let mut m = flow_mod(Command::Add, Match::any(), DEFAULT_PRIORITY + i);
        let len = 8 + r.below(25) as u32;
        m.matches.mask.0.pkt.nw_dst = U32::new(u32::MAX << (32 - len));
        m.matches.value.pkt.nw_dst = U32::new(r.next() as u32 & (u32::MAX << (32 - len)));
        tables.apply(&m, 0).expect("adds");
    }
    let (mut bits, mut most) = (0, 0);
    for _ in 0..1000 {
        let mut key = FullKey::default();
        key.pkt.nw_dst = U32::new(r.next() as u32);
        let (serial, seen) = find(&tables, &key);
        let n = seen.0.pkt.nw_dst.get().leading_ones();
        assert_eq!(seen.0.pkt.nw_dst.get().count_ones(), n, "a prefix");
        let mut alone = FullMask::default();
        alone.0.pkt.nw_dst = seen.0.pkt.nw_dst;
        assert_eq!(seen.0.as_bytes(), alone.0.as_bytes(), "nothing else");
        if serial.is_none() {
            most = most.max(n);
            bits += n;
        }
    }
    // A random address differs from 1,000 others within 10 bits and a few.
    assert!(bits < 13_000 && most < 24, "{bits} bits, {most} at most");
}

/// Ports: one bit that differs is enough to pass over the flows of a thousand ports.
#[test]
fn ports_do_not_force_exact_ports() {
    let mut tables = Tables::new();
    for port in 0..1000 {
        let mut m = flow_mod(Command::Add, Match::any(), DEFAULT_PRIORITY);
        m.matches.mask.0.pkt.nw_proto = 0xff;
        m.matches.value.pkt.nw_proto = 6;
        m.matches.mask.0.pkt.tp_dst = U16::new(0xffff);
        m.matches.value.pkt.tp_dst = U16::new(port);
        tables.apply(&m, 0).expect("adds");
    }
    let seen = |port: u16, proto: u8| {
        let mut key = FullKey::default();
        (key.pkt.tp_dst, key.pkt.nw_proto) = (U16::new(port), proto);
        let seen = find(&tables, &key).1;
        (seen.0.pkt.nw_proto, seen.0.pkt.tp_src.get(), seen.0.pkt.tp_dst.get())
    };
    assert_eq!(seen(40000, 6), (0xff, 0, 0x8000));
    assert_eq!(seen(1030, 6), (0xff, 0, 0xfc00), "1,024 and more");
    assert_eq!(seen(1001, 6), (0xff, 0, 0xfff8), "1,000 to 1,007");
    assert_eq!(seen(999, 6), (0xff, 0, 0xffff));
    assert_eq!(seen(999, 17), (0xff, 0, 0), "the protocol decides first");
}

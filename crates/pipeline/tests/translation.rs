//! Translations of random tables and packets: they are those of a table searched flow by flow, and
//! every packet that agrees with a translated one in the mask gets the same answer.

use flow::{Action, DpPort, FlowKey, FlowMask, Mac, Translate};
use pipeline::{BridgeConfig, Note, OfPort, Pipeline};
use proptest::prelude::*;
use zerocopy::big_endian::U16;

/// A flow as the generator makes it: value and mask of each field.
#[derive(Debug, Clone)]
struct Flow {
    in_port: Option<u16>,
    dl_src: Option<(Mac, Mac)>,
    dl_dst: Option<(Mac, Mac)>,
    dl_type: Option<u16>,
    tci: Option<(u16, u16)>,
    action: Option<u16>,
}

fn mac() -> impl Strategy<Value = Mac> {
    // Few addresses, so that flows and packets meet, some of them multicast.
    (prop_oneof![3 => Just(2u8), 1 => Just(3), 1 => Just(0xff)], 0u8..3, 0u8..4)
        .prop_map(|(a, b, c)| Mac([a, b, 0, 0, 0, c]))
}

fn mac_mask() -> impl Strategy<Value = Mac> {
    prop_oneof![
        2 => Just(Mac([0xff; 6])),
        1 => Just(Mac([1, 0, 0, 0, 0, 0])),
        1 => Just(Mac([0xff, 0xff, 0, 0, 0, 0])),
        1 => Just(Mac([0, 0, 0, 0, 0, 3])),
        1 => any::<[u8; 6]>().prop_map(Mac),
    ]
}

fn tci() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), (0u16..4, 0u16..3).prop_map(|(vid, pcp)| 0x1000 | vid | pcp << 13)]
}

fn tci_mask() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0xffffu16), Just(0x1fff), Just(0x1000), Just(0xf000), Just(0x0003)]
}

fn dl_type() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), Just(0x05ff)]
}

fn flow_strategy() -> impl Strategy<Value = Flow> {
    use proptest::option::weighted;
    (
        weighted(0.4, 1u16..4),
        weighted(0.4, (mac(), mac_mask())),
        weighted(0.4, (mac(), mac_mask())),
        weighted(0.3, dl_type()),
        weighted(0.3, (tci(), tci_mask())),
        weighted(0.8, 1u16..5),
    )
        .prop_map(|(in_port, dl_src, dl_dst, dl_type, tci, action)| Flow {
            in_port,
            dl_src,
            dl_dst,
            dl_type,
            tci,
            action,
        })
}

fn key_strategy() -> impl Strategy<Value = FlowKey> {
    (11u32..14, mac(), mac(), dl_type(), tci(), 0u8..4, 1u32..3, 1u32..3, 0u8..4).prop_map(
        |(in_port, dl_src, dl_dst, dl_type, tci, nw_proto, src, dst, nw_frag)| {
            let mut key = FlowKey {
                in_port,
                dl_src,
                dl_dst,
                nw_proto,
                nw_frag,
                dl_type: U16::new(dl_type),
                nw_src: src.into(),
                nw_dst: dst.into(),
                ..FlowKey::default()
            };
            key.vlan[0].tci = U16::new(tci);
            key.vlan[0].tpid = U16::new(if tci == 0 { 0 } else { 0x8100 });
            key
        },
    )
}

impl Flow {
    /// Every priority once, so that the answer is defined.
    fn text(&self, priority: usize) -> String {
        let mut t = format!("cookie={priority},priority={priority}");
        if let Some(p) = self.in_port {
            t += &format!(",in_port={p}");
        }
        if let Some((v, m)) = self.dl_src {
            t += &format!(",dl_src={v}/{m}");
        }
        if let Some((v, m)) = self.dl_dst {
            t += &format!(",eth_dst={v}/{m}");
        }
        if let Some(v) = self.dl_type {
            t += &format!(",dl_type={v:#x}");
        }
        if let Some((v, m)) = self.tci {
            t += &format!(",vlan_tci={v:#x}/{m:#x}");
        }
        match self.action {
            // Port 5 is there, but only NORMAL ever uses it.
            Some(4) => t + ",actions=normal",
            Some(p) => t + &format!(",actions=in_port,output:{p}"),
            None => t + ",actions=drop",
        }
    }

    fn matches(&self, key: &FlowKey) -> bool {
        let agrees = |rule: Option<(Mac, Mac)>, mac: Mac| {
            rule.is_none_or(|(v, m)| (0..6).all(|i| (v.0[i] ^ mac.0[i]) & m.0[i] == 0))
        };
        self.in_port.is_none_or(|p| u32::from(p) + 10 == key.in_port)
            && agrees(self.dl_src, key.dl_src)
            && agrees(self.dl_dst, key.dl_dst)
            && self.dl_type.is_none_or(|t| t == key.dl_type.get())
            && self.tci.is_none_or(|(v, m)| (v ^ key.vlan[0].tci.get()) & m == 0)
    }
}

fn build(flows: &[Flow]) -> Pipeline {
    let p = Pipeline::new();
    p.add_bridge("br0", BridgeConfig::default(), 0).expect("new");
    for n in 1..=5u16 {
        let dp = DpPort(u32::from(n) + 10);
        p.add_port("br0", &format!("p{n}"), OfPort(n), dp).expect("new");
    }
    p.del_flows("br0", "").expect("no filter");
    let text: String = flows.iter().enumerate().map(|(i, f)| f.text(i) + "\n").collect();
    p.add_flows("br0", &text, 0).expect("the generator writes valid flows");
    p
}

/// The answer and which flow gave it.
fn answer(p: &Pipeline, key: &FlowKey) -> (FlowMask, Vec<Action>, Option<u64>) {
    let mut cookie = None;
    let t = p.translate_noting(key, &mut |note| {
        if let Note::Table { flow, .. } = note {
            cookie = flow.map(|(_, cookie)| cookie);
        }
    });
    (t.mask, t.actions, cookie)
}

/// `a` where the mask has bits, `b` elsewhere.
fn merge(mask: &FlowMask, a: &FlowKey, b: &FlowKey) -> FlowKey {
    let mut words = [0; flow::WORDS];
    for (i, w) in words.iter_mut().enumerate() {
        let m = mask.bits().words()[i];
        *w = (a.words()[i] & m) | (b.words()[i] & !m);
    }
    zerocopy::transmute!(words)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_mask_says_all_that_mattered(
        flows in proptest::collection::vec(flow_strategy(), 0..25),
        keys in proptest::collection::vec(key_strategy(), 1..20),
        noise in any::<[u64; flow::WORDS]>(),
    ) {
        let p = build(&flows);
        // Some addresses are known before.
        for key in &keys[..keys.len() / 2] {
            p.translate(key).effects.apply(1, 64, 0);
        }
        let noise: FlowKey = zerocopy::transmute!(noise);
        for key in &keys {
            let (mask, actions, cookie) = answer(&p, key);
            for other in keys.iter().chain([&noise]) {
                let twin = merge(&mask, key, other);
                prop_assert!(mask.agrees(key, &twin));
                prop_assert_eq!(answer(&p, &twin), (mask, actions.clone(), cookie));
            }
        }
    }

    #[test]
    fn the_flow_that_matches_is_the_first_that_a_plain_search_finds(
        flows in proptest::collection::vec(flow_strategy(), 0..40),
        keys in proptest::collection::vec(key_strategy(), 1..20),
        gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
    ) {
        let p = build(&flows);
        let mut left: Vec<Option<&Flow>> = flows.iter().map(Some).collect();
        for index in gone.iter().filter(|_| !flows.is_empty()) {
            let i = index.index(flows.len());
            p.del_flows("br0", &format!("cookie={i}/-1")).expect("deletes");
            left[i] = None;
        }
        for key in &keys {
            let plain = left.iter().rposition(|f| f.is_some_and(|f| f.matches(key)));
            prop_assert_eq!(answer(&p, key).2, plain.map(|i| i as u64));
        }
    }

    /// What is printed can be loaded, and prints the same again.
    #[test]
    fn dumps_load(flows in proptest::collection::vec(flow_strategy(), 0..25), names: bool) {
        let p = build(&flows);
        let options = pipeline::DumpOptions { names, stats: true };
        let dump = p.dump_flows("br0", "", options, 1234).expect("dumps");
        prop_assert_eq!(dump.lines().count(), {
            let q = build(&[]);
            q.add_flows("br0", &dump, 0).expect("loads");
            prop_assert_eq!(q.dump_flows("br0", "", options, 1234).expect("dumps"), dump.clone());
            q.dump_flows("br0", "", options, 0).expect("dumps").lines().count()
        });
    }
}

/// Nothing more than necessary is looked at.
#[test]
fn masks_are_narrow() {
    let p = build(&[]);
    let mut key = FlowKey { in_port: 11, dl_type: U16::new(0x1234), ..FlowKey::default() };
    p.add_flows(
        "br0",
        "priority=9,in_port=2,dl_src=02:00:00:00:00:01,actions=3\nin_port=1,actions=2",
        0,
    )
    .expect("valid");
    assert_eq!(p.translate(&key).mask, FlowMask::default(), "no flow of port 1 looks at dl_src");
    key.in_port = 12;
    let mask = p.translate(&key).mask;
    assert_eq!((mask.bits().dl_src, mask.bits().dl_dst), (Mac::BROADCAST, Mac([0; 6])));
    p.add_flow("br0", "priority=10,in_port=2,actions=1", 0).expect("valid");
    assert_eq!(p.translate(&key).mask, FlowMask::default(), "a winner hides lower priorities");
}

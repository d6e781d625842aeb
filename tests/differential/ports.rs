//! Settings of ports under NORMAL: generated rows of Port and tagged frames, given to both switches.

use crate::bench::Bench;
use crate::known::tags;
use crate::ours::Ours;
use crate::rng::Rng;
use crate::scenario::{Input, Outputs, PORTS, Scenario, bytes, hex, show};
use pipeline::{
    BridgeConfig, MirrorConfig, MirrorOutput, PortColumns, PortConfig, PortUse, Selected, Snooping,
    VlanSet,
};

/// Port settings, unless `DIFFERENTIAL_CASES` says otherwise.
const CASES: u64 = 40;
/// Frames for each.
const FRAMES: usize = 60;
/// VLANs that ports and frames are in; 0 for none.
pub const VLANS: [i64; 5] = [0, 10, 20, 30, 4095];

/// One row of Port.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub vlan_mode: Option<&'static str>,
    pub tag: Option<i64>,
    pub trunks: Vec<i64>,
    cvlans: Vec<i64>,
    qinq_ethtype: Option<&'static str>,
    priority_tags: Option<&'static str>,
    pub mcast_flood: bool,
    pub mcast_flood_reports: bool,
}

/// All that is set.
pub struct Settings {
    pub rows: Vec<Row>,
    flood_vlans: Vec<i64>,
    vlan_limit: u8,
    mirrors: Vec<Mirror>,
    pub snooping: Option<Snooping>,
}

/// One row of Mirror; ports are indices into [`PORTS`].
struct Mirror {
    all: bool,
    src: Vec<usize>,
    dst: Vec<usize>,
    vlans: Vec<i64>,
    to_port: Option<usize>,
    to_vlan: u16,
    snaplen: Option<u16>,
}

impl Mirror {
    /// One that selects arriving packets or, if it may and there is no other, those that leave by a port.
    /// Of several ports that a packet leaves by, which one is mirrored is up to OVS's hash table.
    fn generate(rng: &mut Rng, departing: bool) -> Mirror {
        let src = (0..PORTS.len()).filter(|_| rng.chance(25)).collect();
        let dst = if departing { vec![rng.below(PORTS.len())] } else { Vec::new() };
        let all = departing && rng.chance(30);
        let vlans = if all { Vec::new() } else { some_vlans(rng) };
        let to_port = rng.chance(60).then(|| rng.below(PORTS.len()));
        Mirror {
            all,
            src,
            dst,
            vlans,
            to_port,
            to_vlan: rng.pick(&VLANS[1..]) as u16,
            // Copies in a VLAN are whole: of those that another mirror sees too, OVS cuts only some.
            snaplen: (to_port.is_some() && rng.chance(30)).then_some(20),
        }
    }

    fn config(&self, id: usize) -> MirrorConfig {
        let ports = |ports: &[usize]| match self.all {
            true => Selected::All,
            false => Selected::Ports(ports.iter().map(|p| PORTS[*p].1).collect()),
        };
        let port = |p: usize| MirrorOutput::Port(PORTS[p].1);
        MirrorConfig {
            id: id as u128,
            src: ports(&self.src),
            dst: ports(&self.dst),
            vlans: VlanSet::of(self.vlans.iter().copied()),
            filter: None,
            output: self.to_port.map_or(MirrorOutput::Vlan(self.to_vlan), port),
            snaplen: self.snaplen,
        }
    }

    /// Words of ovs-vsctl that create it as `@m{n}`.
    fn create(&self, n: usize) -> String {
        let ports = |ports: &[usize]| {
            let names: Vec<_> = ports.iter().map(|p| format!("@{}", PORTS[*p].0)).collect();
            format!("[{}]", names.join(","))
        };
        let vlans: Vec<String> = self.vlans.iter().map(i64::to_string).collect();
        let mut out = format!("-- --id=@m{n} create Mirror name=m{n} select_all={}", self.all);
        out += &format!(" select_src_port={}", ports(&self.src));
        out += &format!(" select_dst_port={}", ports(&self.dst));
        out += &format!(" select_vlan=[{}]", vlans.join(","));
        out += &match self.to_port {
            Some(p) => format!(" output_port=@{}", PORTS[p].0),
            None => format!(" output_vlan={}", self.to_vlan),
        };
        out + &self.snaplen.map_or(String::new(), |n| format!(" snaplen={n}"))
    }
}

fn some_vlans(rng: &mut Rng) -> Vec<i64> {
    if rng.chance(50) {
        return Vec::new();
    }
    VLANS.into_iter().filter(|_| rng.chance(50)).collect()
}

fn row(rng: &mut Rng) -> Row {
    let mode = |m: &'static str| Some(m).filter(|m| !m.is_empty());
    let modes = ["", "access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel"];
    let vlan_mode = mode(rng.pick(&modes));
    // A tunnel of VLAN 0 puts a tag that says nothing before the others, and OVS then takes off all.
    let tunnel = vlan_mode == Some("dot1q-tunnel");
    let tag = (tunnel || rng.chance(70)).then(|| rng.pick(&VLANS[usize::from(tunnel)..4]));
    Row {
        vlan_mode,
        tag,
        trunks: some_vlans(rng),
        cvlans: some_vlans(rng),
        qinq_ethtype: mode(rng.pick(&["", "802.1ad", "802.1q"])),
        priority_tags: mode(rng.pick(&["", "", "never", "if-nonzero", "always"])),
        ..Row::default()
    }
}

impl Row {
    fn config(&self) -> PortConfig {
        let columns = PortColumns {
            vlan_mode: self.vlan_mode,
            tag: self.tag,
            trunks: self.trunks.clone(),
            cvlans: self.cvlans.clone(),
            qinq_ethtype: self.qinq_ethtype,
            priority_tags: self.priority_tags,
            protected: false,
            mcast_flood: self.mcast_flood,
            mcast_flood_reports: self.mcast_flood_reports,
        };
        PortConfig::new(&columns, |_| {})
    }

    /// `column=value` for ovs-vsctl.
    fn columns(&self) -> Vec<String> {
        let list = |ids: &[i64]| {
            let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
            format!("[{}]", ids.join(","))
        };
        let mut other = Vec::new();
        other.extend(self.qinq_ethtype.map(|t| format!("qinq-ethtype=\"{t}\"")));
        other.extend(self.priority_tags.map(|t| format!("priority-tags={t}")));
        other.push(format!("mcast-snooping-flood={}", self.mcast_flood));
        other.push(format!("mcast-snooping-flood-reports={}", self.mcast_flood_reports));
        vec![
            format!("vlan_mode={}", self.vlan_mode.unwrap_or("[]")),
            format!("tag={}", self.tag.map_or("[]".to_owned(), |t| t.to_string())),
            format!("trunks={}", list(&self.trunks)),
            format!("cvlans={}", list(&self.cvlans)),
            format!("other_config={{{}}}", other.join(",")),
        ]
    }

    /// Whether a tag is put before the others of a frame.
    fn is_tunnel(&self) -> bool {
        self.vlan_mode == Some("dot1q-tunnel")
    }
}

impl Settings {
    fn generate(rng: &mut Rng) -> Settings {
        Settings {
            rows: PORTS.iter().map(|_| row(rng)).collect(),
            flood_vlans: if rng.chance(30) { some_vlans(rng) } else { Vec::new() },
            vlan_limit: rng.pick(&[1, 2]),
            mirrors: Vec::new(),
            snooping: None,
        }
    }

    fn vsctl(&self) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let flood: Vec<String> = self.flood_vlans.iter().map(i64::to_string).collect();
        let mut out =
            words(&format!("set Open_vSwitch . other_config:vlan-limit={}", self.vlan_limit));
        out.extend(words(&format!("-- set Bridge br0 flood_vlans=[{}]", flood.join(","))));
        let Snooping { table_size, flood_unregistered, .. } = self.snooping.unwrap_or_default();
        out.extend(words(&format!(
            "-- set Bridge br0 mcast_snooping_enable={} other_config:mcast-snooping-table-size={table_size} \
             other_config:mcast-snooping-disable-flood-unregistered={}",
            self.snooping.is_some(),
            !flood_unregistered
        )));
        for ((name, ..), row) in PORTS.iter().zip(&self.rows) {
            out.extend(words(&format!("-- set Port {name}")));
            out.extend(row.columns());
        }
        for (name, ..) in PORTS.iter().filter(|_| !self.mirrors.is_empty()) {
            out.extend(words(&format!("-- --id=@{name} get Port {name}")));
        }
        for (n, mirror) in self.mirrors.iter().enumerate() {
            out.extend(words(&mirror.create(n)));
        }
        let ids: Vec<String> = (0..self.mirrors.len()).map(|n| format!("@m{n}")).collect();
        out.extend(words(&format!("-- set Bridge br0 mirrors=[{}]", ids.join(","))));
        out
    }

    fn apply(&self, ours: &Ours) -> anyhow::Result<()> {
        let config = BridgeConfig {
            flood_vlans: VlanSet::of(self.flood_vlans.iter().copied()),
            vlan_limit: self.vlan_limit,
            snooping: self.snooping,
            ..BridgeConfig::default()
        };
        ours.pipeline.set_bridge("br0", config)?;
        let mirrors: Vec<_> = (0..).zip(&self.mirrors).map(|(n, m)| m.config(n)).collect();
        ours.pipeline.set_mirrors("br0", &mirrors)?;
        for ((_, number, _), row) in PORTS.iter().zip(&self.rows) {
            ours.pipeline.set_port("br0", *number, row.config())?;
        }
        Ok(())
    }

    /// Whether OVS is known to do otherwise: in each case a tag is lost there, and kept here.
    ///
    /// - It takes all tags off a frame with two of which one says nothing (as in `known.rs`), and the
    ///   second off one with two that enters a tunnel, for which it would need three places.
    /// - In a tunnel, a customer's tag that says nothing (VLAN 0, priority 0) is left out.
    fn known(&self, input: &Input) -> bool {
        let empty =
            |at: usize| input.frame.get(at..at + 2).is_some_and(|t| t[0] & 0xef == 0 && t[1] == 0);
        let (tags, tunnel) = (tags(&input.frame), self.rows[input.port].is_tunnel());
        let two = tags > 1 && self.vlan_limit > 1;
        two && (tunnel || empty(14) || empty(18)) || tags > 0 && tunnel && empty(14)
    }
}

fn frame(rng: &mut Rng) -> Vec<u8> {
    let mac = |n: u8| [2, 0, 0, 0, 0, n];
    let mut f = Vec::new();
    f.extend(match rng.below(8) {
        0 => [0xff; 6],
        1 => [1, 0, 0x5e, 1, 2, 3],
        2 if rng.chance(30) => [1, 0x80, 0xc2, 0, 0, rng.below(32) as u8],
        _ => mac(rng.below(6) as u8),
    });
    f.extend(mac(rng.below(6) as u8));
    for _ in 0..rng.pick(&[0, 0, 1, 1, 1, 1, 2, 2, 3]) {
        f.extend(rng.pick(&[[0x81, 0], [0x81, 0], [0x88, 0xa8]]));
        let tci = rng.pick(&[0u16, 0, 3, 7]) << 13 | rng.pick(&VLANS) as u16;
        f.extend(tci.to_be_bytes());
    }
    f.extend([0x88, 0xb6]);
    f.extend((0..46).map(|i| i ^ f[5]).collect::<Vec<_>>());
    f
}

#[test]
fn vlan_modes() {
    compare(FRAMES, |_, _| {}, frame);
}

/// As above, with one to three mirrors.
#[test]
fn mirrors() {
    let mirrors = |rng: &mut Rng, settings: &mut Settings| {
        let n = rng.range(1, 3);
        let mut mirrors: Vec<Mirror> = Vec::new();
        for _ in 0..n {
            let mut next = Mirror::generate(rng, n == 1);
            // Of two with one output port the first decides, and OVS takes them in the order of their random IDs.
            if let Some(same) = mirrors.iter().find(|m| m.to_port == next.to_port) {
                next.snaplen = same.snaplen;
            }
            mirrors.push(next);
        }
        settings.mirrors = mirrors;
    };
    compare(FRAMES, mirrors, frame);
}

/// Rows of `mdb/show`, without their ages.
fn groups(shown: &str) -> Vec<String> {
    let row = |line: &str| Some(line.rsplit_once(' ')?.0.trim_end().to_owned());
    let mut rows: Vec<String> = shown.lines().skip(1).filter_map(row).collect();
    rows.sort();
    rows
}

/// Generated settings, with what `more` does to them, and as many frames.
pub fn compare(frames: usize, more: fn(&mut Rng, &mut Settings), frame: fn(&mut Rng) -> Vec<u8>) {
    let first = crate::setting("DIFFERENTIAL_SEED", 1);
    let cases = crate::setting("DIFFERENTIAL_CASES", CASES);
    let mut bench = Bench::default();
    let (mut failed, mut sent, mut tagged) = (Vec::new(), 0, 0);
    for seed in first..first + cases {
        let mut rng = Rng::new(seed);
        let mut settings = Settings::generate(&mut rng);
        more(&mut rng, &mut settings);
        let input = |rng: &mut Rng| Input { port: rng.below(PORTS.len()), frame: frame(rng) };
        let mut inputs: Vec<Input> = (0..frames).map(|_| input(&mut rng)).collect();
        // Marks do not come from ports that are kept for mirrors; that nothing does is tested elsewhere.
        let output = |i: &Input| settings.mirrors.iter().any(|m| m.to_port == Some(i.port));
        inputs.retain(|i| !settings.known(i) && !output(i));
        let flows = vec!["cookie=1,actions=normal".to_owned()];
        let scenario =
            Scenario { seed, groups: vec![], flows, changes: vec![], stateful: true, inputs };
        let ovs = bench.ovs().expect("OVS starts");
        ovs.vsctl(&settings.vsctl()).expect("OVS is set");
        let snoops = settings.snooping.is_some();
        if snoops {
            ovs.appctl("mdb/flush", &["br0"]).expect("a table");
        }
        let mut theirs = ovs.run(&scenario).expect("OVS runs").outputs;
        let their_groups = snoops.then(|| ovs.appctl("mdb/show", &["br0"]).expect("a table"));
        let ours = Ours::load(&scenario).expect("a flow of NORMAL");
        settings.apply(&ours).expect("ports that are there");
        let pipeline = ours.pipeline.clone();
        let mut ours = ours.run(&scenario).expect("frames are sent").outputs;
        let all = |o: &Vec<Outputs>| o.iter().flat_map(|o| o.values().flatten()).count();
        sent += all(&theirs);
        let frames = theirs.iter().flat_map(|o| o.values().flatten());
        tagged += frames.filter(|f| tags(f) > 0).count();
        // To a member that has become a router too, OVS sends what it gets twice.
        for frames in theirs.iter_mut().flat_map(|o| o.values_mut()).filter(|_| snoops) {
            frames.dedup();
        }
        // Where a frame leaves a port twice, the order is that of OVS's hash table.
        for frames in theirs.iter_mut().chain(&mut ours).flat_map(|o| o.values_mut()) {
            frames.sort_unstable();
        }
        let our_groups = snoops.then(|| pipeline.mdb_show("br0", 0).expect("a table"));
        let [their_groups, our_groups] =
            [their_groups, our_groups].map(|g| groups(&g.unwrap_or_default()));
        if their_groups != our_groups {
            println!("seed {seed}: OVS: {their_groups:#?}\nhere: {our_groups:#?}");
            failed.push(seed);
        }
        let differs = theirs.iter().zip(&ours).position(|(t, o)| t != o);
        if let Some(at) = differs {
            let input = &scenario.inputs[at];
            let (name, ..) = PORTS[input.port];
            println!(
                "seed {seed}, vlan-limit={}, {name}: {}",
                settings.vlan_limit,
                hex(&input.frame)
            );
            for ((name, ..), row) in PORTS.iter().zip(&settings.rows) {
                println!("  {name}: {}", row.columns().join(" "));
            }
            for (n, mirror) in settings.mirrors.iter().enumerate() {
                println!("  {}", mirror.create(n));
            }
            println!("  OVS:\n{}  here:\n{}", show(&theirs[at]), show(&ours[at]));
            println!("{}", bench.ovs().and_then(|o| o.trace(input)).unwrap_or_default());
            failed.push(seed);
        }
    }
    println!("{cases} settings, {sent} frames sent, {tagged} of them tagged");
    assert!(failed.is_empty(), "seeds {failed:?}");
    assert!(sent as u64 > 20 * cases && tagged as u64 > 5 * cases, "too few frames to tell");
}

/// The last line of a trace.
fn datapath_actions(trace: &str) -> &str {
    trace.lines().rev().find_map(|l| l.strip_prefix("Datapath actions: ")).unwrap_or(trace)
}

/// Nothing goes from a protected port to another, whatever sends it. Frames do not tell here: the marks
/// between them would not reach protected ports either.
#[test]
fn protected_ports() {
    let mut bench = Bench::default();
    let frame = bytes("ffffffffffff 020000000001 88b6 0000");
    for actions in ["normal", "flood", "all", "output:1,output:3,output:4,in_port"] {
        let flows = vec![format!("cookie=1,actions={actions}")];
        let inputs = [0, 1, 2].map(|port| Input { port, frame: frame.clone() }).to_vec();
        let scenario =
            Scenario { seed: 0, groups: vec![], flows, changes: vec![], stateful: true, inputs };
        let ovs = bench.ovs().expect("OVS starts");
        ovs.load(&scenario).expect("flows");
        let ours = Ours::load(&scenario).expect("flows");
        for (name, number, _) in &PORTS[..2] {
            let words = ["set", "Port", name, "protected=true"].map(str::to_owned);
            ovs.vsctl(&words).expect("OVS is set");
            let columns = PortColumns { protected: true, ..PortColumns::default() };
            let config = PortConfig::new(&columns, |_| {});
            ours.pipeline.set_port("br0", *number, config).expect("it is there");
        }
        for input in &scenario.inputs {
            let theirs = ovs.trace(input).expect("OVS traces");
            let ours = ours.trace(input);
            let (theirs, ours) = (datapath_actions(&theirs), datapath_actions(&ours));
            let sorted = |text: &str| {
                let mut ports: Vec<_> = text.split(',').map(str::to_owned).collect();
                ports.sort_unstable();
                ports
            };
            assert_eq!(sorted(theirs), sorted(ours), "{actions} by {}", PORTS[input.port].0);
        }
    }
}

/// What `mod-port` sets, alone: where packets from and to that port go, and how it is shown.
#[test]
fn use_of_ports() {
    let mut bench = Bench::default();
    let frames = [
        "ffffffffffff 020000000001 88b6 0000",
        "0180c2000000 020000000001 88b6 0000",
        "0180c2000000 020000000001 0007 424203 00000000",
    ];
    let words: Vec<_> = PortUse::words().filter(|(_, what, _)| *what != PortUse::DOWN).collect();
    for pair in words.chunks(2) {
        let [(clear, ..), (set, what, _)] = pair else { panic!("two words for each") };
        let ovs = bench.ovs().expect("OVS starts");
        let modify = |ovs: &crate::ovs::Ovs, word: &str| {
            ovs.ofctl(&["mod-port"], &["p1", word]).expect("it runs").expect("it is a word");
        };
        modify(ovs, set);
        let shown = ovs.ofctl(&["show"], &[]).expect("it runs").expect("a bridge");
        let config = PortUse::default().with(*what, true);
        assert!(shown.contains(&format!("     config:     {config}\n")), "{set}: {shown}");
        for actions in ["normal", "flood", "all", "output:1,output:3,in_port"] {
            let flows = vec![format!("cookie=1,actions={actions}")];
            let input = |port: usize, f: &str| Input { port, frame: bytes(f) };
            let inputs = frames.iter().flat_map(|f| [input(0, f), input(1, f)]).collect();
            let scenario = Scenario {
                seed: 0,
                groups: vec![],
                flows,
                changes: vec![],
                stateful: true,
                inputs,
            };
            ovs.load(&scenario).expect("flows");
            let ours = Ours::load(&scenario).expect("flows");
            ours.pipeline.set_port_use("br0", PORTS[0].1, *what, true).expect("it is there");
            for input in &scenario.inputs {
                let theirs = ovs.trace(input).expect("OVS traces");
                let ours = ours.trace(input);
                let sorted = |text: &str| {
                    let mut ports: Vec<_> = text.split(',').map(str::to_owned).collect();
                    ports.sort_unstable();
                    ports
                };
                let (theirs, ours) = (datapath_actions(&theirs), datapath_actions(&ours));
                let place = PORTS[input.port].0;
                assert_eq!(sorted(theirs), sorted(ours), "{set}, {actions} by {place}");
            }
        }
        modify(ovs, clear);
    }
}

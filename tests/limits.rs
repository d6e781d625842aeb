//! How well limits hold on the running switch: rates by frame lengths, both ways of limiting, between two
//! guests that one thread of this process drives.
//!
//! `LIMITS_ALL=1 VSWITCH_BIN_DIR=target/release cargo test -p lab --test limits -- --nocapture` measures all
//! combinations for ten seconds each and prints a table; `LIMITS_ONLY=ingress-1000-super,egress-1-64` only those, by way,
//! Mbit/s and bytes of a frame (`super` for super-frames of TCP).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::scene::{BRIDGE, LINK_LIMIT, PORTS};
use lab::switch::{Kind, Switch};
use lab::{alone, cpu};
use virtio_driver::payload::Flow;
use virtio_driver::wire::feature;
use virtio_driver::{Config, Driver, NetHeader, Saturator, SocketMode};

/// Environment: measure everything.
const ALL_VARIABLE: &str = "LIMITS_ALL";
/// Environment: measure these.
const ONLY_VARIABLE: &str = "LIMITS_ONLY";
/// What a rate may be off.
const TOLERANCE: f64 = 0.02;
/// Offered less than this times the rate, a limit has nothing to do.
const ENOUGH: f64 = 1.05;
/// Windows that are tried: the first one has the full bucket, and others may have the cores for a while.
const WINDOWS: usize = 20;
/// Arrivals in a window at least, so that the time of one of them is not what is measured.
const ARRIVALS: u64 = 4;
/// Without so many frames in this time something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds of its rate in a bucket: whoever shares the cores takes them for less, mostly.
const BUCKET_SECONDS: f64 = 0.05;
/// The least bucket that the switch does not enlarge, in bytes.
const LEAST_BUCKET: f64 = 65_536.0;

const MBIT: f64 = 125_000.0;
const ETHERNET: usize = 14;
/// Ethernet, IPv4 and TCP headers, and payload of a segment.
const TCP_HEADERS: usize = 54;
const SEGMENT: usize = 1446;
const SUPER_FRAME: usize = TCP_HEADERS + 45 * SEGMENT;

/// Where a limit is set.
#[derive(Debug, Clone, Copy)]
enum Way {
    Egress,
    Ingress,
}

/// One combination. The rate is in bytes a second, as policers count them: without Ethernet headers.
#[derive(Debug, Clone, Copy)]
struct Case {
    way: Way,
    rate: f64,
    frame: usize,
}

impl Case {
    fn name(&self) -> String {
        let way = format!("{:?}", self.way).to_lowercase();
        let frame = match self.frame {
            SUPER_FRAME => "super".to_owned(),
            bytes => bytes.to_string(),
        };
        format!("{way}-{}-{frame}", self.rate / MBIT)
    }
}

/// The cases that the environment asks for; `None` if none.
fn asked_for() -> Result<Option<Vec<Case>>> {
    let mut cases = Vec::new();
    for way in [Way::Egress, Way::Ingress] {
        for mbit in [1.0, 100.0, 1000.0, 10_000.0] {
            cases.extend([64, 1500, SUPER_FRAME].map(|frame| Case {
                way,
                rate: mbit * MBIT,
                frame,
            }));
        }
    }
    let Ok(only) = std::env::var(ONLY_VARIABLE) else {
        return Ok(std::env::var_os(ALL_VARIABLE).is_some().then_some(cases));
    };
    let find = |name: &str| {
        let names = || cases.iter().map(Case::name).collect::<Vec<_>>().join(" ");
        let found = cases.iter().find(|case| case.name() == name).copied();
        found.with_context(|| format!("{ONLY_VARIABLE}: {name} is none of {}", names()))
    };
    only.split(',').map(find).collect::<Result<_>>().map(Some)
}

/// What a window counted.
struct Window {
    offered: f64,
    passed: f64,
    seconds: f64,
}

/// What became of a case; rates are shares of the limit.
enum Outcome {
    Held { ratio: f64, offered: f64 },
    NotOffered { offered: f64 },
}

#[test]
fn limits_hold() -> Result<()> {
    let _alone = alone();
    let cases = asked_for()?;
    let mut lab = Lab::start()?;
    // After the switch was started, which would inherit it.
    cpu::take(cpu::load_core())?;
    let case = |way, mbit, frame| Case { way, rate: mbit * MBIT, frame };
    let Some(cases) = cases else {
        // Those that a debug build serves many times over.
        for case in [
            case(Way::Egress, 1.0, SUPER_FRAME),
            case(Way::Egress, 1000.0, 1500),
            case(Way::Ingress, 100.0, 64),
            case(Way::Ingress, 1000.0, SUPER_FRAME),
        ] {
            match lab.hold(case, Duration::from_millis(300))? {
                Outcome::Held { .. } => {}
                Outcome::NotOffered { offered } => bail!("{case:?}: only {offered:.2} offered"),
            }
        }
        return lab.switch.check_alive();
    };
    println!("limit, Mbit/s, bytes   reached  offered");
    for case in cases {
        let (reached, offered) = match lab.hold(case, Duration::from_secs(10))? {
            Outcome::Held { ratio, offered } => (format!("{:.2} %", ratio * 100.0), offered),
            Outcome::NotOffered { offered } => ("not offered enough".to_owned(), offered),
        };
        println!("{:21}  {reached}  {offered:.1} times", case.name());
    }
    lab.switch.check_alive()
}

/// A switch with two ports, from the first of which all goes to the second.
struct Lab {
    switch: Switch,
    guests: [Driver; 2],
}

impl Lab {
    fn start() -> Result<Lab> {
        let switch = Switch::start(Kind::Ours, 0x1)?;
        switch.add_bridge(BRIDGE)?;
        switch.add_listening_ports(BRIDGE, &PORTS.map(str::to_owned), 1500)?;
        let numbers = [switch.ofport(PORTS[0])?, switch.ofport(PORTS[1])?];
        switch.set_flows(BRIDGE, &format!("in_port={},actions={}\n", numbers[0], numbers[1]))?;
        let connect = |port: &str| {
            let offloads =
                feature::CSUM | feature::HOST_TSO4 | feature::GUEST_CSUM | feature::GUEST_TSO4;
            let socket = SocketMode::Connect(switch.rundir().join(port));
            let mut config = Config::new(socket).with(offloads);
            config.rx_buffer = SUPER_FRAME as u32 + 12;
            config.tx_buffer = config.rx_buffer;
            Driver::connect(config)
        };
        let guests = [connect(PORTS[0])?, connect(PORTS[1])?];
        switch.wait_link_up(&PORTS, LINK_LIMIT)?;
        Ok(Lab { switch, guests })
    }

    /// Sets a limit, sends more than it as fast as it goes, and takes the limit away.
    ///
    /// # Errors
    /// If no window is within [`TOLERANCE`], or more passes than the rate and one bucket.
    fn hold(&mut self, case: Case, window: Duration) -> Result<Outcome> {
        let bucket = (case.rate * BUCKET_SECONDS).max(LEAST_BUCKET);
        limit(&self.switch, case, bucket)?;
        let error = self.switch.interface(PORTS[1], "error")?;
        ensure!(error == "[]", "{error}");
        let mut control = self.switch.control()?;
        let mut lost = || -> Result<u64> {
            let counter = ["ovs_tx_failure_drops".to_owned()];
            let said = control.call("coverage/read-counter", &counter)?;
            Ok(said.map_err(anyhow::Error::msg)?.trim().parse()?)
        };
        let (counted, header) = counted(case.frame);
        let fill = |_, frame: &mut Vec<u8>| write(case.frame, frame);
        let depth = if case.frame == SUPER_FRAME { 32 } else { 128 };
        let [a, b] = &mut self.guests;
        let mut a = a.pair(0).saturate_with(depth, &header, fill)?;
        let mut b = b.pair(0).saturate(0, fill)?;
        let mut outcome = None;
        let mut seen = String::new();
        for _ in 0..WINDOWS {
            let lost_before = lost()?;
            let w = measure(&mut a, &mut b, window)?;
            // What the receiving guest had no room for had passed the limit.
            let passed = w.passed + (lost()? - lost_before) as f64;
            let ratio = passed * counted / w.seconds / case.rate;
            let offered = w.offered * counted / w.seconds / case.rate;
            let most = 1.0 + TOLERANCE + bucket / case.rate / w.seconds;
            ensure!(ratio <= most, "{case:?}: {ratio:.4} of the limit in {:.3} s", w.seconds);
            seen += &format!(" {ratio:.4} of {offered:.2}");
            outcome = match (ratio - 1.0).abs() < TOLERANCE {
                true => Some(Outcome::Held { ratio, offered }),
                false if offered < ENOUGH => Some(Outcome::NotOffered { offered }),
                false => None,
            };
            if matches!(outcome, Some(Outcome::Held { .. })) {
                break;
            }
        }
        drain(a, b)?;
        unlimit(&self.switch)?;
        let Some(outcome) = outcome else { bail!("{case:?} does not hold:{seen}") };
        Ok(outcome)
    }
}

/// From one arrival to another that is `least` or more later: what was sent and came between them.
fn measure(a: &mut Saturator<'_>, b: &mut Saturator<'_>, least: Duration) -> Result<Window> {
    let (began, mut first) = (Instant::now(), None::<Instant>);
    let (mut sent, mut received) = (0, 0);
    loop {
        sent += u64::from(a.turn()?.sent);
        let arrived = u64::from(b.turn()?.received);
        let now = Instant::now();
        if let Some(first) = first {
            received += arrived;
            if arrived > 0 && received >= ARRIVALS && now - first >= least {
                let seconds = (now - first).as_secs_f64();
                return Ok(Window { offered: sent as f64, passed: received as f64, seconds });
            }
        } else if arrived > 0 {
            (first, sent) = (Some(now), 0);
        }
        ensure!(now - began < least + PATIENCE, "{received} frames in {:?}", now - began);
    }
}

/// Takes back all that was sent, so that other frames can be written.
fn drain(a: Saturator<'_>, b: Saturator<'_>) -> Result<()> {
    let began = Instant::now();
    a.finish(|| began.elapsed() < PATIENCE)?;
    let mut looks = 2;
    b.finish(|| {
        looks -= 1;
        looks > 0
    })?;
    Ok(())
}

fn limit(switch: &Switch, case: Case, bucket: f64) -> Result<()> {
    let said = match case.way {
        Way::Egress => switch.ctl(&[
            "set",
            "Port",
            PORTS[1],
            "qos=@q",
            "--",
            "--id=@q",
            "create",
            "QoS",
            "type=egress-policer",
            &format!("other_config:cir={}", case.rate),
            &format!("other_config:cbs={bucket}"),
        ]),
        // In kilobits.
        Way::Ingress => switch.ctl(&[
            "set",
            "Interface",
            PORTS[0],
            &format!("ingress_policing_rate={}", case.rate / 125.0),
            &format!("ingress_policing_burst={}", (bucket / 125.0).ceil()),
        ]),
    };
    said.map(drop)
}

fn unlimit(switch: &Switch) -> Result<()> {
    let policing = "ingress_policing_rate=0";
    let clear = ["--", "clear", "Port", PORTS[1], "qos", "--", "--all", "destroy", "QoS"];
    let set = ["--", "set", "Interface", PORTS[0], policing];
    switch.ctl(&[&clear[..], &set[..]].concat()).map(drop)
}

/// What policers count of a frame in bytes, and its virtio-net header.
fn counted(frame: usize) -> (f64, NetHeader) {
    if frame < SUPER_FRAME {
        return ((frame - ETHERNET) as f64, NetHeader::default());
    }
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: TCP_HEADERS as u16,
        gso_size: SEGMENT as u16,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let segments = (frame - TCP_HEADERS) / SEGMENT;
    ((segments * (TCP_HEADERS - ETHERNET + SEGMENT)) as f64, header)
}

/// Writes a frame: UDP, or a super-frame of TCP.
fn write(bytes: usize, frame: &mut Vec<u8>) {
    Flow::between(1, 1, 2).frame(0, bytes, frame);
    if bytes == SUPER_FRAME {
        // TCP in the place of UDP is 11 less in the header's checksum.
        frame[23] = 6;
        let sum = u32::from(u16::from_be_bytes([frame[24], frame[25]])) + 11;
        frame[24..26].copy_from_slice(&((sum & 0xffff) + (sum >> 16)).to_be_bytes()[2..]);
        // Numbers, five words of header, ACK, a window; checksum and urgent pointer are 0.
        frame[38..54].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    }
}

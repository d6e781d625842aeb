//! The limits of a port as its rows have them: QoS, and ingress policing of its interface.

mod trtcm;

use crate::desired::Interface;
use ovsdb::Atom;
use ovsdb::replica::{Replica, Row};
use port::Counters;
use qos::{Limit, Limits, QosDrops};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Types of QoS that work (`qos/show-types`).
pub(crate) const TYPES: &[&str] = &["egress-policer", "trtcm-policer"];
/// Bursts of ingress policing where none is given: kilobits as OVS's DPDK ports have it, thousands of
/// packets as OVS's kernel ports.
const BURST_KBIT: i64 = 8000;
const BURST_KPKTS: i64 = 16;
/// A bucket in bytes holds a super-frame at least.
const BURST_MIN: u64 = 1 << 16;
/// How long the rate of a bucket that was too small may be saved up, as a part of a second: longer than
/// other threads on its core keep a PMD thread from polling.
const BURST_PART: u64 = 500;
/// The largest rate, bytes or packets a second: beyond any machine, and far from where sums run over.
const RATE_MAX: u64 = 1 << 50;

/// `Interface.ingress_policing_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ingress {
    kbit: i64,
    burst_kbit: i64,
    kpkts: i64,
    burst_kpkts: i64,
}

impl Ingress {
    /// Reads an interface's row.
    pub(crate) fn read(row: &Row) -> Ingress {
        let column = |name| row.integer(name).unwrap_or(0).max(0);
        Ingress {
            kbit: column("ingress_policing_rate"),
            burst_kbit: column("ingress_policing_burst"),
            kpkts: column("ingress_policing_kpkts_rate"),
            burst_kpkts: column("ingress_policing_kpkts_burst"),
        }
    }
}

/// A row of `QoS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Qos {
    pub(crate) kind: String,
    pub(crate) settings: BTreeMap<String, String>,
    /// Settings of its queues.
    pub(crate) queues: BTreeMap<i64, BTreeMap<String, String>>,
}

impl Qos {
    /// The QoS of a port's row.
    pub(crate) fn of(db: &Replica, port: &Row) -> Option<Qos> {
        let row = db.row("QoS", port.uuid("qos")?)?;
        let queue = |(number, uuid): (&Atom, &Atom)| match (number, uuid) {
            (Atom::Integer(n), Atom::Uuid(u)) => {
                Some((*n, db.row("Queue", *u)?.string_map("other_config")))
            }
            _ => None,
        };
        let queues = row.get("queues").map(|q| q.pairs().filter_map(queue).collect());
        Some(Qos {
            kind: row.string("type").to_owned(),
            settings: row.string_map("other_config"),
            queues: queues.unwrap_or_default(),
        })
    }

    /// A number of bytes, at least 1.
    fn bytes(&self, key: &str) -> Result<u64, String> {
        let Some(text) = self.settings.get(key) else {
            return Err(format!(
                "QoS {}: other_config:{key} is missing, so nothing is limited",
                self.kind
            ));
        };
        match text.parse() {
            Ok(n) if (1..=RATE_MAX).contains(&n) => Ok(n),
            _ => Err(format!(
                "QoS {}: other_config:{key}=\"{text}\" is not in 1 to {RATE_MAX}, so nothing is limited",
                self.kind
            )),
        }
    }

    /// Limits what may be sent; a line if that is not what was asked for.
    fn limit(&self, limits: &mut Limits) -> Result<Option<String>, String> {
        match &*self.kind {
            "trtcm-policer" => {
                let (queues, told) = trtcm::limits(self)?;
                limits.tx_queues = Some(queues);
                Ok(told)
            }
            "egress-policer" => {
                let (rate, cbs) = (self.bytes("cir")?, self.bytes("cbs")?);
                let (burst, told) = usable(rate, cbs, |burst| {
                    format!(
                        "QoS egress-policer: other_config:cbs={cbs} is less than a super-frame; \
                         {burst} bytes are used, so that cir is reached"
                    )
                });
                limits.tx_bytes = Some(Limit { rate, burst });
                Ok(told)
            }
            other => Err(format!(
                "QoS type \"{other}\" is not supported, so nothing is limited; there is {}",
                TYPES.join(", ")
            )),
        }
    }
}

/// The burst for a bucket in bytes, and what is to be said if it is another than was asked for.
fn usable(rate: u64, burst: u64, say: impl Fn(u64) -> String) -> (u64, Option<String>) {
    if burst >= BURST_MIN {
        return (burst, None);
    }
    let more = BURST_MIN.max(rate / BURST_PART);
    (more, Some(say(more)))
}

/// The limits of an interface, and a line for its row's `error` column if they are not what was asked
/// for.
pub(crate) fn limits(i: &Interface) -> (Limits, Option<String>) {
    let mut limits = Limits::default();
    let mut error = None;
    if let Some(qos) = &i.qos {
        error = qos.limit(&mut limits).unwrap_or_else(Some);
    }
    let p = i.ingress;
    if p.kbit > 0 {
        // 1000 bits are 125 bytes.
        let bytes = |kbit: i64| (kbit as u64).saturating_mul(125).min(RATE_MAX);
        let rate = bytes(p.kbit);
        let kbit = if p.burst_kbit == 0 { BURST_KBIT } else { p.burst_kbit };
        let (burst, told) = usable(rate, bytes(kbit), |burst| {
            format!(
                "ingress_policing_burst={kbit} kbit is less than a super-frame; {burst} bytes are \
                 used, so that the rate is reached"
            )
        });
        limits.rx_bytes = Some(Limit { rate, burst });
        error = error.or(told);
    }
    if p.kpkts > 0 {
        let packets = |k: i64| (k as u64).saturating_mul(1000).min(RATE_MAX);
        let k = if p.burst_kpkts == 0 { BURST_KPKTS } else { p.burst_kpkts };
        limits.rx_packets = Some(Limit { rate: packets(p.kpkts), burst: packets(k) });
    }
    (limits, error)
}

/// Adds what limits dropped to a port's counters.
pub(crate) fn add(sum: &mut Counters, drops: &QosDrops) {
    for (reason, n) in packet::DropReason::ALL.iter().zip(&mut sum.drops) {
        match reason {
            packet::DropReason::RxQos => *n += drops.rx(),
            packet::DropReason::TxQos => *n += drops.tx(),
            _ => {}
        }
    }
    sum.rx_dropped += drops.rx();
    sum.tx_dropped += drops.tx();
}

/// `qos/show`: what is asked for, in the order in which OVS-DPDK has it, and what queues have counted.
pub(crate) fn show(name: &str, qos: Option<&Qos>, drops: &QosDrops) -> String {
    let mut limits = Limits::default();
    let Some(qos) = qos.filter(|q| q.limit(&mut limits).is_ok()) else {
        return format!("QoS not configured on {name}\n");
    };
    let mut out = format!("QoS: {name} {}\n", qos.kind);
    let Some(queues) = &limits.tx_queues else {
        settings(&mut out, "", &["cir", "cbs"], &qos.settings);
        return out;
    };
    settings(&mut out, "", trtcm::KEYS, &qos.settings);
    for number in trtcm::numbers(queues) {
        let title = if number == 0 { "Default".to_owned() } else { format!("Queue {number}") };
        let of_queue =
            qos.queues.get(&number.into()).filter(|_| queues.queues.contains_key(&number));
        let _ = writeln!(out, "\n{title}:");
        settings(&mut out, "  ", trtcm::KEYS, of_queue.unwrap_or(&qos.settings));
        let [packets, bytes, errors] = drops.queue(number).read();
        let _ =
            writeln!(out, "  tx_packets: {packets}\n  tx_bytes: {bytes}\n  tx_errors: {errors}");
    }
    out
}

/// Lines of `keys`, those that are missing as 0.
fn settings(out: &mut String, indent: &str, keys: &[&str], of: &BTreeMap<String, String>) {
    for key in keys {
        let _ = writeln!(out, "{indent}{key}: {}", of.get(*key).map_or("0", String::as_str));
    }
}

/// The numbers of a port's queues; none for a port whose limits have none.
pub(crate) fn queues(limits: &Limits) -> Vec<u16> {
    limits.tx_queues.as_ref().map_or_else(Vec::new, |q| trtcm::numbers(q).into_iter().collect())
}

/// `qos/show-types`.
pub(crate) fn show_types() -> String {
    TYPES.iter().map(|t| format!("QoS type: {t}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, settings: &[(&str, &str)], ingress: Ingress) -> (Limits, Option<String>) {
        let settings = settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let qos = Some(Qos { kind: kind.into(), settings, queues: BTreeMap::new() });
        limits(&Interface { qos, ingress, ..Interface::default() })
    }

    #[test]
    fn egress() {
        let none = Ingress::default();
        let of = |cir, cbs| of("egress-policer", &[("cir", cir), ("cbs", cbs)], none);
        let limit = |rate, burst| Some(Limit { rate, burst });
        assert_eq!(
            of("1000", "100000"),
            (Limits { tx_bytes: limit(1000, 100_000), ..Limits::default() }, None)
        );
        let (limits, told) = of("625000000", "2048");
        assert_eq!(limits.tx_bytes, limit(625_000_000, 1_250_000));
        assert!(told.is_some_and(|t| t.contains("cbs=2048") && t.contains("1250000")));
        for (cir, cbs, key) in [("0", "2048", "cir"), ("x", "9", "cir"), ("9", "-1", "cbs")] {
            let (limits, told) = of(cir, cbs);
            assert_eq!(limits, Limits::default());
            assert!(told.is_some_and(|t| t.contains(key) && t.contains("1 to")), "{cir} {cbs}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        let none = Ingress::default();
        let told = |kind, settings: &[_]| of(kind, settings, none).1.expect("told");
        assert!(told("egress-policer", &[("cir", "9")]).contains("cbs is missing"));
        assert!(told("linux-htb", &[]).contains("linux-htb"));
    }

    #[test]
    fn ingress() {
        let of = |ingress| limits(&Interface { ingress, ..Interface::default() });
        let (limits, told) = of(Ingress { kbit: 1000, kpkts: 2, ..Ingress::default() });
        assert_eq!(limits.rx_bytes, Some(Limit { rate: 125_000, burst: 1_000_000 }));
        assert_eq!(limits.rx_packets, Some(Limit { rate: 2000, burst: 16_000 }));
        assert_eq!((limits.tx_bytes, told), (None, None));
        let (limits, told) = of(Ingress { kbit: i64::MAX, burst_kbit: 1, ..Ingress::default() });
        assert!(told.is_some_and(|t| t.contains("ingress_policing_burst=1 kbit")));
        assert_eq!(limits.rx_bytes.map(|l| l.rate), Some(RATE_MAX));
    }
}

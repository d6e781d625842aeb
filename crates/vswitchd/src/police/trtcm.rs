//! `trtcm-policer`: rates of a port and of its queues.

use super::{Qos, RATE_MAX, usable};
use qos::{Limit, QueueLimits, TwoRates};
use std::collections::{BTreeMap, BTreeSet};

/// Its keys, in the order in which OVS-DPDK shows them.
pub(super) const KEYS: &[&str] = &["cir", "eir", "ebs", "cbs"];
/// The highest number of a queue: packets carry 16 bits of it.
const QUEUE_MAX: i64 = u16::MAX as i64;

/// What is said when something else is used than what was asked for.
type Told = Option<String>;

/// What the rows ask for. A queue that is wrong is left out.
///
/// # Errors
/// The port's own rates are wrong.
pub(super) fn limits(qos: &Qos) -> Result<(QueueLimits, Told), String> {
    let unlimited = |e| format!("QoS trtcm-policer: {e}, so nothing is limited");
    let (port, told) = rates(&qos.settings).map_err(unlimited)?;
    let mut told = told.map(|t| format!("QoS trtcm-policer: {t}"));
    let mut queues = BTreeMap::new();
    for (&number, settings) in &qos.queues {
        let queue = match u16::try_from(number) {
            Ok(n) => rates(settings).map(|(rates, told)| (n, rates, told)),
            Err(_) => Err(format!("queues have numbers from 0 to {QUEUE_MAX}")),
        };
        let about = match queue {
            Ok((n, rates, about)) => {
                queues.insert(n, rates);
                about
            }
            Err(e) => Some(format!("{e}, so its packets go by queue 0")),
        };
        told = told.or(about.map(|t| format!("QoS trtcm-policer, queue {number}: {t}")));
    }
    Ok((QueueLimits { port, queues }, told))
}

/// The rates of one row, of which each may be 0 or missing, but not both.
fn rates(settings: &BTreeMap<String, String>) -> Result<(TwoRates, Told), String> {
    let (committed, told) = limit(settings, "cir", "cbs")?;
    let (excess, more) = limit(settings, "eir", "ebs")?;
    if committed.is_none() && excess.is_none() {
        return Err(format!(
            "neither other_config:cir nor other_config:eir is in 1 to {RATE_MAX}, which would let nothing \
             pass"
        ));
    }
    Ok((TwoRates { committed, excess }, told.or(more)))
}

fn limit(
    settings: &BTreeMap<String, String>,
    rate_key: &str,
    burst_key: &str,
) -> Result<(Option<Limit>, Told), String> {
    let number = |key: &str| -> Result<u64, String> {
        let Some(text) = settings.get(key) else { return Ok(0) };
        let wrong = || format!("other_config:{key}=\"{text}\" is not in 0 to {RATE_MAX}");
        text.parse().ok().filter(|n| *n <= RATE_MAX).ok_or_else(wrong)
    };
    let (rate, asked) = (number(rate_key)?, number(burst_key)?);
    if rate == 0 {
        return Ok((None, None));
    }
    if asked == 0 {
        return Err(format!(
            "other_config:{burst_key} must be in 1 to {RATE_MAX} where {rate_key} is not 0"
        ));
    }
    let (burst, told) = usable(rate, asked, |burst| {
        format!(
            "other_config:{burst_key}={asked} is less than a super-frame; {burst} bytes are used, so that \
             {rate_key} is reached"
        )
    });
    Ok((Some(Limit { rate, burst }), told))
}

/// Its queues' numbers: queue 0 is always there.
pub(super) fn numbers(queues: &QueueLimits) -> BTreeSet<u16> {
    queues.queues.keys().copied().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Qos, limits, show, show_types};
    use crate::desired::Interface;
    use qos::{Limit, Limits, QosDrops};
    use std::collections::BTreeMap;

    fn map(text: &str) -> BTreeMap<String, String> {
        let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.split(' ').filter_map(pair).collect()
    }

    fn qos(port: &str, queues: &[(i64, &str)]) -> Qos {
        let queues = queues.iter().map(|(n, text)| (*n, map(text))).collect();
        Qos { kind: "trtcm-policer".into(), settings: map(port), queues }
    }

    fn of(port: &str, queues: &[(i64, &str)]) -> (Limits, Option<String>) {
        limits(&Interface { qos: Some(qos(port, queues)), ..Interface::default() })
    }

    const GOOD: &str = "cir=52000 cbs=70000 eir=1000000000 ebs=5000000";

    #[test]
    fn rates_of_port_and_queues() {
        let (limits, told) = of(GOOD, &[(5, "eir=1000 ebs=70000")]);
        let queues = limits.tx_queues.expect("limited");
        let limit = |rate, burst| Some(Limit { rate, burst });
        assert_eq!((queues.port.committed, told), (limit(52_000, 70_000), None));
        assert_eq!(queues.port.excess, limit(1_000_000_000, 5_000_000));
        assert_eq!(queues.queues.keys().copied().collect::<Vec<_>>(), [5]);
        assert_eq!(
            (queues.queues[&5].committed, queues.queues[&5].excess),
            (None, limit(1000, 70_000))
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_range_and_disturbs_nothing_else() {
        for (port, said) in [
            ("cir=x cbs=1", "cir=\"x\" is not in 0 to"),
            ("cir=10 cbs=0", "cbs must be in 1 to"),
            ("eir=10", "ebs must be in 1 to"),
            ("cir=0", "neither other_config:cir nor other_config:eir is in 1 to"),
            ("cir=1 cbs=9999999999999999", "cbs=\"9999999999999999\" is not in 0 to"),
        ] {
            let (limits, told) = of(port, &[]);
            assert_eq!(limits, Limits::default(), "{port}");
            let told = told.expect("told");
            assert!(told.contains(said) && told.contains("nothing is limited"), "{told}");
        }
        let (limits, told) = of(GOOD, &[(3, "cir=-1"), (4, "cir=100 cbs=70000"), (70_000, GOOD)]);
        assert_eq!(
            limits.tx_queues.expect("limited").queues.keys().copied().collect::<Vec<_>>(),
            [4]
        );
        let told = told.expect("told");
        assert!(told.contains("queue 3: other_config:cir=\"-1\" is not in 0 to"), "{told}");
        let (_, told) = of(GOOD, &[(70_000, GOOD)]);
        assert!(told.is_some_and(|t| t.contains("numbers from 0 to 65535")));
        let (limits, told) = of("cir=625000000 cbs=2048", &[]);
        assert!(told.is_some_and(|t| t.contains("cbs=2048") && t.contains("1250000")));
        let port = limits.tx_queues.expect("limited").port;
        assert_eq!(port.committed.map(|l| l.burst), Some(1_250_000));
    }

    /// The text is that of OVS-DPDK 3.1 for the same rows, seen once.
    #[test]
    fn shown_as_by_ovs_dpdk() {
        let drops = QosDrops::default();
        let of_queue = "cir=41600 eir=0 cbs=2048 ebs=0";
        let other = "cir=1000000 eir=7 cbs=2048 ebs=9";
        let q = qos("cir=52000 cbs=2048 eir=52000 ebs=2048", &[(0, of_queue), (5, other)]);
        let counts = "  tx_packets: 0\n  tx_bytes: 0\n  tx_errors: 0\n";
        let expected = format!(
            "QoS: p2 trtcm-policer\ncir: 52000\neir: 52000\nebs: 2048\ncbs: 2048\n\nDefault:\n  cir: \
             41600\n  eir: 0\n  ebs: 0\n  cbs: 2048\n{counts}\nQueue 5:\n  cir: 1000000\n  eir: 7\n  \
             ebs: 9\n  cbs: 2048\n{counts}"
        );
        assert_eq!(show("p2", Some(&q), &drops), expected);
        let q = qos("cir=52000 cbs=2048", &[]);
        let expected = format!(
            "QoS: p2 trtcm-policer\ncir: 52000\neir: 0\nebs: 0\ncbs: 2048\n\nDefault:\n  cir: 52000\n  \
             eir: 0\n  ebs: 0\n  cbs: 2048\n{counts}"
        );
        assert_eq!(show("p2", Some(&q), &drops), expected);
        let q = Qos { kind: "egress-policer".into(), settings: map("cbs=2048 cir=46000000"), ..q };
        let expected = "QoS: p1 egress-policer\ncir: 46000000\ncbs: 2048\n";
        assert_eq!(show("p1", Some(&q), &drops), expected);
        assert_eq!(show("p1", None, &drops), "QoS not configured on p1\n");
        assert_eq!(show_types(), "QoS type: egress-policer\nQoS type: trtcm-policer\n");
    }
}

use super::*;
use crate::QosDrops;
use packet::{Burst, BurstBuf, Lender};

struct Nobody;
impl Lender for Nobody {
    fn give_back(&self) {}
}

const SECOND: u64 = 1_000_000_000;

/// Packets of 100 bytes without their Ethernet headers, by queue.
fn burst<'b>(buf: &'b mut BurstBuf, queues: &[u16]) -> Burst<'b> {
    buf.clear();
    for &queue in queues {
        let packet = buf.push().expect("room");
        packet.set_header(&[0; 114]);
        packet.queue = queue;
    }
    buf.lend(&Nobody)
}

fn rates(cir: u64, cbs: u64, eir: u64, ebs: u64) -> TwoRates {
    let limit = |rate, burst| (rate > 0).then_some(Limit { rate, burst });
    TwoRates { committed: limit(cir, cbs), excess: limit(eir, ebs) }
}

fn trtcm(port: TwoRates, queues: &[(u16, TwoRates)]) -> (Trtcm, QosDrops) {
    let drops = QosDrops::default();
    let limits = QueueLimits { port, queues: queues.iter().copied().collect() };
    (Trtcm::new(&limits, |n| drops.queue(n)), drops)
}

#[test]
fn colours_are_those_of_rfc_4115() {
    let meter = |r: TwoRates| Meter::new(&r);
    let all = Set::range(0, 8);
    let one = |_: usize| 1;
    // Three green, then two yellow, then red.
    let m = meter(rates(1, 3, 1, 2));
    assert_eq!(m.colour(0, all, Set::NONE, &one), [Set::range(0, 3), Set::range(3, 5)]);
    assert_eq!(m.colour(0, all, Set::NONE, &one), [Set::NONE; 2]);
    // Each bucket fills by its own rate.
    assert_eq!(m.colour(SECOND, all, Set::NONE, &one), [Set::one(0), Set::one(1)]);
    // What comes yellow is never green, and takes its turn among those that became yellow.
    let m = meter(rates(1, 3, 1, 2));
    let [green, yellow] = m.colour(0, Set::range(4, 8), Set::range(0, 1), &one);
    assert_eq!((green, yellow), (Set::range(4, 7), Set::one(0).with(Set::one(7))));
    // Without a committed rate all is yellow, without an excess rate nothing is.
    assert_eq!(
        meter(rates(0, 0, 1, 2)).colour(0, all, Set::NONE, &one),
        [Set::NONE, Set::range(0, 2)]
    );
    assert_eq!(meter(rates(1, 2, 0, 0)).colour(0, all, all, &one), [Set::range(0, 2), Set::NONE]);
}

#[test]
fn queues_have_their_rates_and_all_have_the_ports() {
    let wide = rates(1_000_000, 1_000_000, 0, 0);
    let narrow = rates(1000, 200, 1000, 100);
    let (t, drops) = trtcm(wide, &[(5, narrow)]);
    let mut buf = BurstBuf::new();
    let b = burst(&mut buf, &[5, 0, 5, 9, 5, 5, 0]);
    // Queue 5 passes two by its committed bucket; a yellow third meets a port without excess.
    let passed = t.pass(0, b.packets(), Set::range(0, 7));
    assert_eq!(passed.collect::<Vec<_>>(), [0, 1, 2, 3, 6]);
    assert_eq!(drops.queue(5).read(), [2, 200, 2]);
    // Who has no queue goes by queue 0, which has the port's rates.
    assert_eq!(drops.queue(0).read(), [3, 300, 0]);
    // The same with an excess rate at the port: the yellow one passes.
    let (t, drops) = trtcm(rates(1_000_000, 1_000_000, 1000, 1000), &[(5, narrow)]);
    assert_eq!(t.pass(0, b.packets(), Set::range(0, 7)).len(), 6);
    assert_eq!(drops.queue(5).read(), [3, 300, 1]);
    // Queues that may send more than the port share what it may.
    let (t, drops) = trtcm(rates(1000, 300, 0, 0), &[(0, wide), (5, wide)]);
    assert_eq!(t.pass(0, b.packets(), Set::range(0, 7)), Set::range(0, 3));
    assert_eq!([drops.queue(0).read()[2], drops.queue(5).read()[2]], [2, 2]);
}

/// Offers three times what may pass for ten seconds.
#[test]
fn the_sum_of_both_rates_is_kept_within_two_percent() {
    for kbyte in [125, 12_500, 1_250_000] {
        let (cir, eir) = (kbyte * 1000, kbyte * 500);
        let port = rates(2 * (cir + eir), cir, 2 * (cir + eir), cir);
        let (t, drops) = trtcm(port, &[(0, rates(cir, cir / 100 + 3200, eir, eir / 100 + 3200))]);
        let mut buf = BurstBuf::new();
        let b = burst(&mut buf, &[0; 32]);
        let step = 32 * 100 * SECOND / (3 * (cir + eir));
        let steps = (10 * SECOND / step).min(1_000_000);
        for n in 0..steps {
            t.pass(n * step, b.packets(), Set::range(0, 32));
        }
        let due = (cir + eir) as f64 * (steps * step) as f64 / SECOND as f64;
        let burst = (cir + eir) as f64 / 100.0 + 6400.0;
        let got = drops.queue(0).read()[1] as f64 - burst;
        assert!((0.98..1.02).contains(&(got / due)), "{got} of {due}");
    }
}

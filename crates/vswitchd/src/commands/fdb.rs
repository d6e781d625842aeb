//! Commands about MAC and multicast tables.

use super::{Answer, at, settle, text};
use crate::daemon::Shared;
use unixctl::Commands;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("fdb/show", "bridge", 1..=1, move |a| {
        settle(&s);
        let (p, now) = at(&s);
        text(p.fdb_show(&a[0], now))
    });
    let s = switch.clone();
    c.add("fdb/flush", "[bridge]", 0..=1, move |a| {
        text(at(&s).0.fdb_flush(a.first().map(String::as_str)))
    });
    let s = switch.clone();
    c.add("fdb/stats-show", "bridge", 1..=1, move |a| text(at(&s).0.fdb_stats_show(&a[0])));
    let s = switch.clone();
    c.add("fdb/stats-clear", "[bridge]", 0..=1, move |a| {
        text(at(&s).0.fdb_stats_clear(a.first().map(String::as_str)))
    });
    let s = switch.clone();
    c.add("fdb/add", "bridge port vlan mac", 4..=4, move |a| {
        text(at(&s).0.fdb_add(&a[0], &a[1], &a[2], &a[3]))
    });
    let s = switch.clone();
    c.add("fdb/del", "bridge vlan mac", 3..=3, move |a| -> Answer {
        text(at(&s).0.fdb_del(&a[0], &a[1], &a[2]))
    });
    let s = switch.clone();
    c.add("mdb/show", "bridge", 1..=1, move |a| {
        let (p, now) = at(&s);
        text(p.mdb_show(&a[0], now))
    });
    let s = switch.clone();
    c.add("mdb/flush", "[bridge]", 0..=1, move |a| {
        text(at(&s).0.mdb_flush(a.first().map(String::as_str)))
    });
}

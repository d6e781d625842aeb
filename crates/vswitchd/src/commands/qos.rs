//! Commands about limits of ports.

use crate::daemon::{Shared, locked};
use crate::police;
use unixctl::Commands;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("qos/show", "interface", 1..=1, move |a| {
        let s = locked(&s);
        let mut all = s.desired.bridges.iter().flat_map(|b| &b.interfaces);
        let running = s.running.get(&a[0]).ok_or("no such interface")?;
        let row = all.find(|i| i.name == a[0]);
        Ok(police::show(&a[0], row.and_then(|i| i.qos.as_ref()), &running.qos_drops))
    });
    let s = switch.clone();
    c.add("qos/show-types", "interface", 1..=1, move |a| match locked(&s).running.get(&a[0]) {
        Some(_) => Ok(police::show_types()),
        None => Err("no such interface".into()),
    });
}

//! Commands about limits of ports.

use crate::daemon::{Shared, locked};
use crate::police;
use unixctl::Commands;

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("qos/show", "interface", 1..=1, move |a| {
        let s = locked(&s);
        let mut all = s.desired.bridges.iter().flat_map(|b| &b.interfaces);
        let found = all.find(|i| i.name == a[0] && s.running.contains_key(&i.name));
        found
            .map(|i| police::show(&i.name, i.qos.as_ref()))
            .ok_or_else(|| "no such interface".into())
    });
    let s = switch.clone();
    c.add("qos/show-types", "interface", 1..=1, move |a| match locked(&s).running.get(&a[0]) {
        Some(_) => Ok(police::show_types()),
        None => Err("no such interface".into()),
    });
}

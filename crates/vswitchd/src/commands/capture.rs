//! `capture/start`: what `vswitchctl capture` asks for.

use super::ofctl::explain_argument;
use crate::capture::{self, Wanted};
use crate::daemon::{Shared, locked};
use datapath::Filter;
use flow::{FlowKey, FlowMask};
use openflow::parse_match;
use unixctl::Commands;

const USAGE: &str = "[--filter=flow] [--count=n] [--snaplen=n] [--pcapng] port";

pub(super) fn add(c: &mut Commands, switch: &Shared) {
    let s = switch.clone();
    c.add("capture/start", USAGE, 1..=5, move |words| {
        let socket = capture::start(&s, wanted(words)?)?;
        Ok(format!("{}\n", socket.display()))
    });
    let s = switch.clone();
    c.add("capture/list", "", 0..=0, move |_| Ok(locked(&s).captures.show()));
}

/// Reads the arguments.
fn wanted(words: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for word in words {
        let Some(option) = word.strip_prefix("--") else {
            if !std::mem::replace(&mut wanted.port, word.clone()).is_empty() {
                return Err(format!("{word}: one port at a time is captured"));
            }
            continue;
        };
        let number = |text: &str| match text.parse::<u64>() {
            Ok(n @ 1..) => Ok(n),
            _ => Err(format!("{word}: it takes a number from 1 on")),
        };
        match option.split_once('=') {
            Some(("filter", flow)) => {
                wanted.filter = Some(filter(flow)?);
                wanted.filter_text = flow.to_owned();
            }
            Some(("count", n)) => wanted.count = Some(number(n)?),
            Some(("snaplen", n)) => wanted.snaplen = usize::try_from(number(n)?).ok(),
            None if option == "pcapng" => wanted.pcapng = true,
            _ => return Err(format!("{word}: unknown option; there are {USAGE}")),
        }
    }
    match wanted.port.is_empty() {
        true => Err(format!("no port; the arguments are {USAGE}")),
        false => Ok(wanted),
    }
}

/// Reads a flow that says of a packet's own fields which are wanted.
fn filter(text: &str) -> Result<Filter, String> {
    let m = parse_match(text, &()).map_err(|e| explain_argument(text, e))?;
    let beyond =
        |f: &&openflow::Field| usize::from(f.at) >= size_of::<FlowKey>() && f.get(&m.mask.0) != 0;
    if let Some(field) = openflow::fields().iter().find(beyond) {
        return Err(format!(
            "--filter: {} is not in packets on a port; match fields of their headers",
            field.name
        ));
    }
    let mut mask = FlowMask::empty();
    *mask.bits_mut() = m.mask.0.pkt;
    Ok(Filter { key: m.value.pkt, mask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let read = |line: &str| wanted(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let w = read("--filter=tcp,tp_dst=80 --count=3 --snaplen=96 --pcapng vm1").expect("right");
        assert_eq!((&*w.port, &*w.filter_text), ("vm1", "tcp,tp_dst=80"));
        assert_eq!((w.count, w.snaplen, w.pcapng), (Some(3), Some(96), true));
        assert_eq!(w.filter.expect("one").key.tp_dst.get(), 80);
        let wrong = |line: &str| read(line).expect_err("wrong");
        assert!(wrong("--count=0 vm1").contains("a number from 1 on"));
        assert!(wrong("vm1 vm2").contains("one port at a time"));
        assert!(wrong("--count=1").contains("no port"));
        assert!(wrong("--loud vm1").contains("unknown option"));
        assert!(wrong("--filter=tcp,tpdst=80 vm1").contains("did you mean \"tp_dst\""));
        for field in ["reg0=1", "in_port=1", "ct_state=+trk", "tun_id=7"] {
            let told = wrong(&format!("--filter={field} vm1"));
            assert!(told.contains("is not in packets on a port"), "{told}");
        }
    }
}

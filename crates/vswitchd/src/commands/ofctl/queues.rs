//! Queues of a bridge's ports: `queue-stats`, `queue-get-config`.

use super::ports::{Shown, chosen, label};
use super::{Answer, Call, locked};
use crate::police;
use crate::switch::Switch;
use std::fmt::Write;

/// The ports that the arguments name, each with its queues, or that one of them which is named.
fn named<'s>(call: &Call<'s>, s: &'s Switch) -> Result<Vec<(Shown<'s>, Vec<u16>)>, String> {
    let mut ports = Vec::new();
    let all = ["", "all", "ALL"];
    let wanted = call.args.get(2).filter(|q| !all.contains(q));
    let chosen = match all.contains(&call.text()) {
        true => super::ports::ports(s, call.bridge()),
        false => chosen(call, s)?,
    };
    for port in chosen {
        let mut queues = port.running.map_or_else(Vec::new, |r| police::queues(&r.limits()));
        queues.retain(|q| wanted.is_none_or(|w| *w == q.to_string()));
        ports.push((port, queues));
    }
    match wanted {
        Some(queue) if ports.iter().all(|(_, queues)| queues.is_empty()) => {
            Err(format!("{}: there is no queue {queue}", call.bridge()))
        }
        _ => Ok(ports),
    }
}

/// As `ovs-ofctl queue-stats` prints its reply. How long a queue has been there is not known.
pub(super) fn stats(call: &Call<'_>) -> Answer {
    let s = locked(call.switch);
    let (mut lines, mut n) = (String::new(), 0);
    for (port, queues) in named(call, &s)? {
        let label = label(&port, &call.options);
        let Some(running) = port.running else { continue };
        for queue in queues {
            let [packets, bytes, errors] = running.qos_drops.queue(queue).read();
            let _ = writeln!(
                lines,
                "  port {label} queue {queue}: bytes={bytes}, pkts={packets}, errors={errors}, duration=?"
            );
            n += 1;
        }
    }
    Ok(format!("OFPST_QUEUE reply (xid=0x2): {n} queues\n{lines}"))
}

/// As `ovs-ofctl queue-get-config` prints a reply for each port.
pub(super) fn config(call: &Call<'_>) -> Answer {
    let s = locked(call.switch);
    let mut out = String::new();
    for (port, queues) in named(call, &s)? {
        out += "OFPT_QUEUE_GET_CONFIG_REPLY (xid=0x2):";
        if !queues.is_empty() {
            let _ = write!(out, " port={}", label(&port, &call.options));
        }
        out.push('\n');
        for queue in queues {
            let _ = writeln!(out, "queue {queue}:");
        }
    }
    Ok(out)
}

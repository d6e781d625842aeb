//! The commands that the daemon answers over unixctl, under the names of `ovs-appctl` (and `ofctl/…`
//! for what `vswitchctl` offers of `ovs-ofctl`).

mod capture;
mod datapath;
mod fdb;
mod megaflows;
mod ofctl;
mod ofproto;
mod perf;
mod qos;

use crate::daemon::{Event, Shared, Stop, locked};
use crate::log;
pub(crate) use ofctl::BridgeNames;
use pipeline::Pipeline;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use unixctl::Commands;

/// How long `exit` waits for the daemon's end before it answers all the same.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// All commands. `exit` sends to `events`.
pub(crate) fn all(switch: &Shared, events: Sender<Event>) -> Commands {
    let mut c = Commands::new(concat!("vswitchd ", env!("CARGO_PKG_VERSION"), "\n"));
    let events = Mutex::new(events);
    c.add("exit", "[--cleanup]", 0..=1, move |_| {
        let (ended, wait) = channel();
        let stop = Stop { why: "exit command", ended: Some(ended) };
        let _ = events.lock().unwrap_or_else(PoisonError::into_inner).send(Event::Stop(stop));
        // Nothing is ever sent: the wait is for the other half to be dropped.
        let _ = wait.recv_timeout(EXIT_PATIENCE);
        Ok(String::new())
    });
    c.add("vlog/set", "{spec | PATTERN:destination:pattern}", 1..=64, |args| {
        log::set(args).map(|()| String::new())
    });
    c.add("vlog/list", "", 0..=0, |_| Ok(log::list()));
    let s = switch.clone();
    c.add("coverage/show", "", 0..=0, move |_| {
        let s = locked(&s);
        Ok(s.coverage.show(&s.events()))
    });
    let s = switch.clone();
    c.add("coverage/read-counter", "counter", 1..=1, move |args| {
        match locked(&s).events().get(&args[0]) {
            Some(n) => Ok(format!("{n}\n")),
            None => Err("No such counter".into()),
        }
    });
    capture::add(&mut c, switch);
    datapath::add(&mut c, switch);
    megaflows::add(&mut c, switch);
    fdb::add(&mut c, switch);
    ofctl::add(&mut c, switch);
    ofproto::add(&mut c, switch);
    perf::add(&mut c, switch);
    qos::add(&mut c, switch);
    c
}

/// What a command says, or why it cannot.
type Answer = Result<String, String>;

fn text<E: std::fmt::Display>(r: Result<String, E>) -> Answer {
    r.map_err(|e| e.to_string())
}

/// What a command about a bridge needs: the pipeline, without the switch's lock, and the time.
fn at(switch: &Shared) -> (Arc<Pipeline>, u64) {
    let s = locked(switch);
    (s.pipeline.clone(), s.clock.now_ms())
}

/// Waits until what megaflows forwarded has been told to flows and MAC tables. The switch is not held
/// meanwhile.
fn settle(switch: &Shared) {
    let revalidator = locked(switch).revalidator.clone();
    revalidator.wait();
}

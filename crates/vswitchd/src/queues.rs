//! A NIC's queues, as many as a row asks for, and what comes spread evenly among them.

use port_kernel::{Channels, Queues, Rss};
use std::io::{ErrorKind, Result as IoResult};
use std::sync::OnceLock;
use std::time::Duration;

/// Time for the kernel to be done with sockets and programs of ours that were closed, or of a daemon that was killed.
pub(crate) const CLOSING: Duration = Duration::from_millis(300);

/// What is asked of a netdev here, and told it.
trait Nic {
    fn name(&self) -> &str;
    fn queues(&self) -> IoResult<Queues>;
    /// Gives it so many; returns what it had.
    fn set_queues(&self, count: u32) -> IoResult<Channels>;
    fn put_back(&self, before: Channels) -> IoResult<()>;
    fn rss(&self) -> IoResult<Rss>;
    fn set_table(&self, table: &[u32]) -> IoResult<()>;
}

/// A netdev of this host.
struct Netdev<'a>(&'a str);

impl Nic for Netdev<'_> {
    fn name(&self) -> &str {
        self.0
    }
    fn queues(&self) -> IoResult<Queues> {
        port_kernel::queues(self.0)
    }
    fn set_queues(&self, count: u32) -> IoResult<Channels> {
        port_kernel::set_queues(self.0, count)
    }
    fn put_back(&self, before: Channels) -> IoResult<()> {
        port_kernel::put_back_queues(self.0, before)
    }
    fn rss(&self) -> IoResult<Rss> {
        port_kernel::rss(self.0)
    }
    fn set_table(&self, table: &[u32]) -> IoResult<()> {
        port_kernel::set_rss_table(self.0, table)
    }
}

/// What a NIC had before it was changed, if it was.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Its table; empty for the driver's own.
    table: OnceLock<Vec<u32>>,
    channels: OnceLock<Channels>,
    /// That it keeps more queues than are asked for was logged.
    told: OnceLock<()>,
}

impl Before {
    /// Makes a netdev have as many queues as are asked for, and none that nobody polls get what it receives. One that says
    /// nothing of its queues has those it has. Waits for `patience` at most until sockets have let go of queues.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn take(&self, netdev: &str, asked: u32, patience: Duration) -> Result<(), String> {
        self.take_of(&Netdev(netdev), asked, patience)
    }

    fn take_of(&self, nic: &impl Nic, asked: u32, patience: Duration) -> Result<(), String> {
        let netdev = nic.name();
        let (before, all) = (nic.rss(), nic.queues());
        let Ok(before) = before else { return self.follow_count(nic, asked, patience) };
        let is_own = all.is_ok_and(|all| before.is_even(all.rx));
        let spread = |now: &Rss| {
            let done = spread(nic, now, asked);
            // The first one is whoever's that was here before.
            let own = || if is_own { Vec::new() } else { before.table.clone() };
            let _ = done.then(|| self.table.set(own()));
            done
        };
        // Linux gives no fewer queues than a table names that somebody has set.
        if !before.is_below(asked) {
            spread(&before);
        }
        let counted = self.follow_count(nic, asked, patience);
        let has = nic.queues().map_or(asked, |q| q.rx);
        if has < asked {
            return counted;
        }
        let now = nic.rss().map_err(|e| format!("{netdev} says no table: {e}"))?;
        if !(now.is_even(asked) || spread(&now) || now.is_below(asked)) {
            return counted.and(Err(format!(
                "{netdev} gives queues what it receives that options:n_rxq={asked} does not poll, and takes no other \
                 table (ethtool -X {netdev} equal {asked})"
            )));
        }
        if let Err(e) = counted
            && self.told.set(()).is_ok()
        {
            tracing::info!("{e}: it keeps {has} receive queues, and spreads among {asked} of them");
        }
        Ok(())
    }

    /// Makes a netdev have as many queues as are asked for.
    fn follow_count(&self, nic: &impl Nic, asked: u32, patience: Duration) -> Result<(), String> {
        let Ok(now) = nic.queues() else { return Ok(()) };
        let (netdev, most) = (nic.name(), now.rx_max.min(now.tx_max));
        if asked > most {
            return Err(format!(
                "options:n_rxq={asked}, and {netdev} can have {most} receive and transmit queues at most"
            ));
        }
        if now.rx == asked && now.tx == asked {
            return Ok(());
        }
        // Linux lets go of sockets some time after they were closed, and keeps their queues meanwhile.
        let limit = if asked < now.rx.max(now.tx) { patience } else { Duration::ZERO };
        let set = || nic.set_queues(asked);
        let before = port_xdp::until_free(limit, &[ErrorKind::InvalidInput], set).map_err(|e| {
            format!("{netdev} does not take options:n_rxq={asked} (ethtool -L): {e}")
        })?;
        let _ = self.channels.set(before);
        let (rx, tx) = (now.rx, now.tx);
        tracing::info!("{netdev} got {asked} queues: it had {rx} to receive, {tx} to send");
        Ok(())
    }

    /// Puts back what was changed, but for the queue count, which is the row's. If a table names queues that are there no
    /// more, the driver's own takes its place.
    pub(crate) fn put_back(&self, netdev: &str) {
        self.put_back_of(&Netdev(netdev));
    }

    fn put_back_of(&self, nic: &impl Nic) {
        let Some(mut table) = self.table.get().map(Vec::as_slice) else { return };
        let all = nic.queues().map_or(u32::MAX, |q| q.rx);
        if table.iter().any(|&queue| queue >= all) {
            table = &[];
        }
        if let Err(e) = nic.set_table(table) {
            let netdev = nic.name();
            tracing::warn!("{netdev} spreads what it receives as before no more: {e}");
        }
    }

    /// Puts back all that was changed, for a port that could not be opened.
    pub(crate) fn undo(&self, netdev: &str) {
        self.undo_of(&Netdev(netdev));
    }

    fn undo_of(&self, nic: &impl Nic) {
        // First too: see `take_of`. A table for more queues than there are now comes after them.
        self.put_back_of(nic);
        if let Some(&channels) = self.channels.get() {
            // Sockets that were opened in vain hold the queues for some time yet.
            let set = || nic.put_back(channels);
            match port_xdp::until_free(CLOSING, &[ErrorKind::InvalidInput], set) {
                Ok(()) => tracing::info!("{} has the queues again that it had", nic.name()),
                Err(e) => {
                    let netdev = nic.name();
                    tracing::warn!("{netdev} does not get back the queues that it had: {e}");
                }
            }
        }
        self.put_back_of(nic);
    }
}

/// Has a netdev spread evenly what it receives; false if it does not take that.
fn spread(nic: &impl Nic, now: &Rss, queues: u32) -> bool {
    let netdev = nic.name();
    if let Err(e) = nic.set_table(&Rss::even(now.table.len(), queues)) {
        tracing::warn!("{netdev} does not spread what it receives among {queues} queues: {e}");
        return false;
    }
    tracing::info!("{netdev} spreads what it receives evenly among {queues} queues");
    true
}

/// What a netdev gives to queues that are not polled, if it has more than are asked for: a line for the row's `error`
/// column.
pub(crate) fn unpolled(netdev: &str, asked: u32) -> Option<String> {
    let has = port_kernel::queues(netdev).ok()?.rx;
    if has == asked || (has > asked && port_kernel::rss(netdev).is_ok_and(|r| r.is_below(asked))) {
        return None;
    }
    Some(format!(
        "{netdev} has {has} receive queues now, and options:n_rxq is {asked}: what others receive goes to the host"
    ))
}

/// Logs that a netdev of which one queue is polled, since no row asks for more, has others.
pub(crate) fn tell_unpolled(netdev: &str) {
    if let Ok(now) = port_kernel::queues(netdev)
        && now.rx > 1
    {
        tracing::warn!(
            "{netdev} has {} receive queues, and one is polled: what others receive goes to the host; options:n_rxq \
             says how many it is to have, and all are polled",
            now.rx
        );
    }
}

/// The row's status of it: `128 entries of 4 queues, evenly; toeplitz, 40 bytes of key`.
pub(crate) fn told(rss: &Rss) -> String {
    let queues = rss.table.iter().max().map_or(0, |most| most + 1);
    let how = if rss.is_even(queues) { "evenly" } else { "unevenly" };
    let (entries, function, key) = (rss.table.len(), rss.function, rss.key);
    format!("{entries} entries of {queues} queues, {how}; {function}, {key} bytes of key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A NIC of at most four queues, with or without a table.
    struct Fake {
        count: Cell<u32>,
        /// Calls that it refuses from now on.
        busy: Cell<u32>,
        table: RefCell<Vec<u32>>,
        /// Whether somebody has set it.
        is_set: Cell<bool>,
    }

    impl Fake {
        fn new(count: u32, busy: u32, table: &[u32]) -> Fake {
            let is_set = (!table.is_empty() && table != [0, 1, 2, 3]).into();
            Fake { count: count.into(), busy: busy.into(), table: table.to_vec().into(), is_set }
        }
    }

    impl Nic for Fake {
        fn name(&self) -> &str {
            "eth7"
        }
        fn queues(&self) -> IoResult<Queues> {
            let n = self.count.get();
            Ok(Queues { rx: n, rx_max: 4, tx: n, tx_max: 4 })
        }
        fn set_queues(&self, count: u32) -> IoResult<Channels> {
            if self.busy.get() > 0 {
                self.busy.set(self.busy.get() - 1);
                return Err(ErrorKind::InvalidInput.into());
            }
            if self.is_set.get() && self.table.borrow().iter().any(|&queue| queue >= count) {
                return Err(ErrorKind::InvalidInput.into());
            }
            Ok(Channels::of(self.count.replace(count)))
        }
        fn put_back(&self, before: Channels) -> IoResult<()> {
            self.set_queues(before.count()).map(drop)
        }
        fn rss(&self) -> IoResult<Rss> {
            let table = self.table.borrow().clone();
            let none = || ErrorKind::Unsupported.into();
            (!table.is_empty()).then_some(Rss { table, key: 40, function: "xor" }).ok_or_else(none)
        }
        fn set_table(&self, table: &[u32]) -> IoResult<()> {
            self.is_set.set(!table.is_empty());
            *self.table.borrow_mut() =
                if table.is_empty() { vec![0, 1, 2, 3] } else { table.into() };
            Ok(())
        }
    }

    #[test]
    fn who_cannot_be_opened_leaves_everything_as_it_was() {
        for table in [&[][..], &[0, 0, 0, 1]] {
            let (nic, before) = (Fake::new(2, 0, table), Before::default());
            before.take_of(&nic, 4, Duration::ZERO).expect("possible");
            before.take_of(&nic, 3, Duration::ZERO).expect("possible");
            assert_eq!(nic.count.get(), 3);
            before.undo_of(&nic);
            assert_eq!((nic.count.get(), &**nic.table.borrow()), (2, table));
        }
        // What was not changed is not put back either.
        let (nic, before) = (Fake::new(2, 0, &[]), Before::default());
        assert!(before.take_of(&nic, 5, Duration::ZERO).is_err_and(|e| e.contains("at most")));
        nic.count.set(1);
        before.undo_of(&nic);
        assert_eq!(nic.count.get(), 1);
    }

    #[test]
    fn a_netdev_that_keeps_its_queues_spreads_among_those_that_are_polled() {
        let (nic, before) = (Fake::new(4, u32::MAX, &[0, 1, 2, 3]), Before::default());
        before.take_of(&nic, 2, Duration::ZERO).expect("its table will do");
        assert_eq!((nic.count.get(), &**nic.table.borrow()), (4, &[0, 1, 0, 1][..]));
        before.put_back_of(&nic);
        assert_eq!(*nic.table.borrow(), [0, 1, 2, 3], "the driver's own");
        // Without a table it has to say no.
        let nic = Fake::new(4, u32::MAX, &[]);
        let refused = Before::default().take_of(&nic, 2, Duration::ZERO);
        assert!(refused.is_err_and(|e| e.contains("does not take options:n_rxq=2")));
    }

    #[test]
    fn queues_are_waited_for_with_patience_only() {
        let nic = Fake::new(4, 3, &[]);
        assert!(Before::default().take_of(&nic, 2, Duration::ZERO).is_err());
        assert!(Before::default().take_of(&nic, 2, CLOSING).is_ok());
        assert_eq!(nic.count.get(), 2);
    }
}

//! A NIC's queues, as many as a row asks for, and what comes spread evenly among them.

use port_kernel::Rss;
use std::io::ErrorKind;
use std::sync::OnceLock;
use std::time::Duration;

/// Time for the kernel to be done with sockets that were closed.
const CLOSING: Duration = Duration::from_millis(300);

/// The table that a NIC had before it was changed, if it was; empty for the driver's own.
#[derive(Default)]
pub(crate) struct Before(OnceLock<Vec<u32>>);

impl Before {
    /// Makes a netdev have as many queues as are asked for, and none that nobody polls get what it receives. One that says
    /// nothing of its queues has those it has.
    ///
    /// # Errors
    /// A line for the row's `error` column.
    pub(crate) fn take(&self, netdev: &str, asked: u32) -> Result<(), String> {
        let (before, all) = (port_kernel::rss(netdev), port_kernel::queues(netdev));
        let Ok(before) = before else { return follow_count(netdev, asked) };
        let is_own = all.is_ok_and(|all| before.is_even(all.rx));
        let spread = |now: &Rss| {
            let done = spread(netdev, now, asked);
            // The first one is whoever's that was here before.
            let _ =
                done.then(|| self.0.set(if is_own { Vec::new() } else { before.table.clone() }));
            done
        };
        // Linux gives no fewer queues than a table names that somebody has set.
        if !before.is_below(asked) {
            spread(&before);
        }
        follow_count(netdev, asked)?;
        let now = port_kernel::rss(netdev).map_err(|e| format!("{netdev} says no table: {e}"))?;
        if now.is_even(asked) || spread(&now) || now.is_below(asked) {
            return Ok(());
        }
        Err(format!(
            "{netdev} gives queues what it receives that options:n_rxq={asked} does not poll, and takes no other table \
             (ethtool -X {netdev} equal {asked})"
        ))
    }

    /// Puts back what was changed. If that names queues that are there no more, the driver's own table.
    pub(crate) fn put_back(&self, netdev: &str) {
        let Some(mut table) = self.0.get().map(Vec::as_slice) else { return };
        let all = port_kernel::queues(netdev).map_or(u32::MAX, |q| q.rx);
        if table.iter().any(|&queue| queue >= all) {
            table = &[];
        }
        if let Err(e) = port_kernel::set_rss_table(netdev, table) {
            tracing::warn!("{netdev} spreads what it receives as before no more: {e}");
        }
    }
}

/// Has a netdev spread evenly what it receives; false if it does not take that.
fn spread(netdev: &str, now: &Rss, queues: u32) -> bool {
    if let Err(e) = port_kernel::spread_rss(netdev, now.table.len(), queues) {
        tracing::warn!("{netdev} does not spread what it receives among {queues} queues: {e}");
        return false;
    }
    tracing::info!("{netdev} spreads what it receives evenly among {queues} queues");
    true
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

/// Makes a netdev have as many queues as are asked for.
fn follow_count(netdev: &str, asked: u32) -> Result<(), String> {
    let Ok(now) = port_kernel::queues(netdev) else { return Ok(()) };
    let most = now.rx_max.min(now.tx_max);
    if asked > most {
        return Err(format!(
            "options:n_rxq={asked}, and {netdev} can have {most} receive and transmit queues at most"
        ));
    }
    if now.rx == asked && now.tx == asked {
        return Ok(());
    }
    // Linux lets go of sockets some time after they were closed, and keeps their queues meanwhile.
    let limit = if asked < now.rx.max(now.tx) { CLOSING } else { Duration::ZERO };
    let set = || port_kernel::set_queues(netdev, asked);
    port_xdp::until_free(limit, &[ErrorKind::InvalidInput], set)
        .map_err(|e| format!("{netdev} does not take options:n_rxq={asked} (ethtool -L): {e}"))?;
    tracing::info!("{netdev} got {asked} queues: it had {} to receive, {} to send", now.rx, now.tx);
    Ok(())
}

/// The row's status of it: `128 entries of 4 queues, evenly; toeplitz, 40 bytes of key`.
pub(crate) fn told(rss: &Rss) -> String {
    let queues = rss.table.iter().max().map_or(0, |most| most + 1);
    let how = if rss.is_even(queues) { "evenly" } else { "unevenly" };
    let (entries, function, key) = (rss.table.len(), rss.function, rss.key);
    format!("{entries} entries of {queues} queues, {how}; {function}, {key} bytes of key")
}

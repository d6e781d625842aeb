//! Which thread gets which queue, and when that is thought over.

use super::{INTERVAL, Inputs, Pool, PortEntry, Usage, WORKER};
use crate::balance::AutoBalance;
use crate::place::{Load, Place, Placed, Placement, Rules, improvement, place};
use crate::poll::Rxq;
use flow::DpPort;
use std::collections::HashSet;
use tracing::{info, warn};

/// A queue of a port.
#[derive(Clone)]
struct Queue {
    entry: PortEntry,
    number: usize,
    /// The node that its packets are on.
    node: Option<usize>,
}

impl Queue {
    fn key(&self) -> (DpPort, usize) {
        (self.entry.number, self.number)
    }
}

impl Pool {
    /// All queues that PMD threads poll, and where each goes; the queues that the worker waits for.
    fn place(&self, inputs: &Inputs) -> (Vec<Queue>, Placement, Vec<Queue>) {
        let ports = self.ports.iter().zip(&inputs.ports);
        let queues = ports.flat_map(|(entry, i)| {
            (0..i.queues).map(|number| Queue { entry: entry.clone(), number, node: i.node })
        });
        let (workers, queues): (Vec<Queue>, Vec<Queue>) = queues.partition(|q| q.entry.by_worker);
        let load = |q: &Queue| Load {
            node: q.node,
            core: q.entry.affinity.get(&q.number).copied(),
            cycles: self.queues.get(&q.key()).map_or(0, |s| s.usage.recent()),
        };
        let loads: Vec<Load> = queues.iter().map(load).collect();
        let threads: Vec<Place> = inputs
            .cores
            .iter()
            .filter(|&&c| c != WORKER)
            .map(|&core| Place { core, node: self.topology.node_of(core).unwrap_or(0) })
            .collect();
        let placement = place(&loads, &threads, inputs.rules);
        (queues, placement, workers)
    }

    /// The queues of each thread, by core.
    pub(super) fn assign(&mut self, inputs: &Inputs) -> Vec<Vec<Rxq>> {
        let (queues, placement, workers) = self.place(inputs);
        // The worker's number is the highest.
        let worker = inputs.cores.iter().position(|&c| c == WORKER);
        let worker = worker.map(|thread| Placed { thread, cross_node: false });
        let placed = queues.into_iter().zip(placement.queues);
        let placed = placed.chain(workers.into_iter().map(|q| (q, worker)));
        let cores = placement.isolated.iter().filter_map(|&t| inputs.cores.get(t));
        self.isolated = cores.copied().collect();
        let mut plans: Vec<Vec<Rxq>> = inputs.cores.iter().map(|_| Vec::new()).collect();
        let mut live = HashSet::new();
        for (q, to) in placed {
            let (key, node, queue) = (q.key(), q.node, q.number);
            let (port, number) = (q.entry.port, q.entry.number);
            let name = port.name();
            live.insert(key);
            let Some((to, plan)) = to.and_then(|to| Some((to, plans.get_mut(to.thread)?))) else {
                warn!(
                    "There's no available (non-isolated) pmd thread. This rx queue will not be polled: \
                     port {name}, queue {queue}"
                );
                continue;
            };
            let state = self.queues.entry(key).or_default();
            let there = inputs.cores.get(to.thread).and_then(|&core| self.topology.node_of(core));
            let cross = node.zip(there).filter(|_| to.cross_node);
            // Once, not with each plan.
            if std::mem::replace(&mut state.told_cross, cross) != cross
                && let Some((node, there)) = cross
            {
                warn!(
                    "There's no available (non-isolated) pmd thread on numa node {node}. Port '{name}' rx \
                     queue {queue} will be assigned to a pmd on numa node {there}. This may lead to \
                     reduced performance."
                );
            }
            let cycles = state.cycles.clone();
            plan.push(Rxq { port, number, queue, cycles });
        }
        self.queues.retain(|key, _| live.contains(key));
        plans
    }

    /// By which rules queues are placed from now on; placed anew if they are others.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.publish();
    }

    /// Whether and when queues are placed anew by themselves.
    pub fn set_auto_balance(&mut self, balance: AutoBalance) {
        self.balance = balance;
    }

    /// Places all queues anew, by what they cost of late (`dpif-netdev/pmd-rxq-rebalance`).
    pub fn rebalance(&mut self) {
        self.published = Inputs::default();
        self.publish();
    }

    /// Places queues anew if threads are overloaded and that would be better.
    pub(super) fn balance_if_due(&mut self) {
        let pmds = || self.pmds.iter().filter(|(core, _)| **core != WORKER).map(|(_, p)| p);
        let last = |u: &Usage| u.intervals.back().copied().unwrap_or(0);
        let loads: Vec<u64> = pmds().map(|p| last(&p.busy) * 100 / last(&p.total).max(1)).collect();
        if !self.watch.take(&loads, INTERVAL, self.balance) {
            return;
        }
        let inputs = self.inputs();
        let (queues, placement, _) = self.place(&inputs);
        let cycles =
            |port: DpPort, queue| self.queues.get(&(port, queue)).map_or(0, |s| s.usage.recent());
        let totals: Vec<u64> = pmds().map(|p| p.total.recent().max(1)).collect();
        let nodes: Vec<usize> =
            pmds().map(|p| self.topology.node_of(p.thread.core).unwrap_or(0)).collect();
        let several = nodes.iter().any(|n| *n != nodes[0]);
        let crosses_now = self.queues.values().any(|q| q.told_cross.is_some());
        let crosses_then = placement.queues.iter().flatten().any(|to| to.cross_node);
        if several && (crosses_now || crosses_then) {
            // A queue costs another node's thread more, and nobody knows how much.
            info!(
                "PMD auto load balance detected cross-numa polling with multiple numa nodes. Unable to \
                 accurately estimate."
            );
            return;
        }
        let now: Vec<u64> = pmds()
            .zip(&totals)
            .map(|(p, total)| {
                let plan = p.thread.plan.load();
                plan.rxqs.iter().map(|q| cycles(q.number, q.queue)).sum::<u64>() * 100 / total
            })
            .collect();
        let mut then = vec![0; totals.len()];
        for (q, to) in queues.iter().zip(&placement.queues) {
            if let Some(to) = to {
                then[to.thread] += cycles(q.entry.number, q.number);
            }
        }
        let then: Vec<u64> = then.iter().zip(&totals).map(|(c, total)| c * 100 / total).collect();
        let better = improvement_of_a_node(&nodes, &now, &then);
        let found = format!("loads {now:?} % would be {then:?} %, variance improvement {better} %");
        if better >= self.balance.improvement && better > 0 {
            info!("PMD auto load balance: {found}; queues are placed anew");
            self.rebalance();
        } else {
            info!("PMD auto load balance: {found}; queues stay");
        }
    }
}

/// The largest [`improvement`] that a node's threads would see: queues do not move between nodes, so what one
/// has more than another says nothing.
fn improvement_of_a_node(nodes: &[usize], now: &[u64], then: &[u64]) -> u64 {
    let of = |node: usize, loads: &[u64]| -> Vec<u64> {
        nodes.iter().zip(loads).filter(|(n, _)| **n == node).map(|(_, load)| *load).collect()
    };
    let each = nodes.iter().map(|&node| improvement(&of(node, now), &of(node, then)));
    each.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_balanced_each_for_itself() {
        let nodes = [0, 0, 1, 1];
        let of = |now, then| improvement_of_a_node(&nodes, now, then);
        assert_eq!(of(&[90, 10, 5, 5], &[50, 50, 5, 5]), 100);
        assert_eq!(of(&[5, 5, 90, 10], &[5, 5, 70, 30]), 75);
        assert_eq!(of(&[95, 95, 5, 5], &[95, 95, 5, 5]), 0, "between nodes nothing moves");
        assert_eq!(improvement_of_a_node(&[], &[], &[]), 0);
    }
}

//! Which thread gets which queue, and when that is thought over.

use super::{INTERVAL, Inputs, Pool, PortEntry, QueueState, Usage, WORKER};
use crate::balance::AutoBalance;
use crate::place::{Load, Place, Placed, Placement, Rules, improvement, place};
use crate::poll::Rxq;
use flow::DpPort;
use std::collections::HashSet;
use std::sync::Arc;
use tracing::{info, warn};

/// Queues by port and number.
type Queues<'p> = Vec<(&'p PortEntry, usize)>;

impl Pool {
    /// All queues that PMD threads poll, and where each goes; the queues that the worker waits for.
    fn place(&self, inputs: &Inputs) -> (Queues<'_>, Placement, Queues<'_>) {
        let ports = self.ports.iter().zip(&inputs.ports);
        let queues = ports.flat_map(|(entry, i)| (0..i.queues).map(move |queue| (entry, queue)));
        let (workers, queues): (Queues<'_>, Queues<'_>) =
            queues.partition(|(entry, _)| entry.by_worker);
        let load = |(entry, queue): &(&PortEntry, usize)| Load {
            node: entry.node,
            core: entry.affinity.get(queue).copied(),
            cycles: self.queues.get(&(entry.number, *queue)).map_or(0, |s| s.usage.recent()),
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
        let placed: Vec<(PortEntry, usize, Option<Placed>)> = queues
            .iter()
            .zip(placement.queues)
            .chain(workers.iter().map(|q| (q, worker)))
            .map(|((entry, queue), to)| ((*entry).clone(), *queue, to))
            .collect();
        let cores = placement.isolated.iter().filter_map(|&t| inputs.cores.get(t));
        self.isolated = cores.copied().collect();
        let mut plans: Vec<Vec<Rxq>> = inputs.cores.iter().map(|_| Vec::new()).collect();
        let mut live = HashSet::new();
        for (entry, queue, to) in placed {
            let (name, key) = (entry.port.name().to_owned(), (entry.number, queue));
            live.insert(key);
            let Some((to, plan)) = to.and_then(|to| Some((to, plans.get_mut(to.thread)?))) else {
                warn!(
                    "There's no available (non-isolated) pmd thread. This rx queue will not be polled: \
                     port {name}, queue {queue}"
                );
                continue;
            };
            if to.cross_node {
                warn!(
                    "There's no available (non-isolated) pmd thread on numa node {:?}; queue {queue} \
                     of port {name} is polled from another node",
                    entry.node,
                );
            }
            let state = self
                .queues
                .entry(key)
                .or_insert_with(|| QueueState { cycles: Arc::default(), usage: Usage::default() });
            let (port, number, cycles) = (entry.port, entry.number, state.cycles.clone());
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
        let now: Vec<u64> = pmds()
            .zip(&totals)
            .map(|(p, total)| {
                let plan = p.thread.plan.load();
                plan.rxqs.iter().map(|q| cycles(q.number, q.queue)).sum::<u64>() * 100 / total
            })
            .collect();
        let mut then = vec![0; totals.len()];
        for ((entry, queue), to) in queues.iter().zip(&placement.queues) {
            if let Some(to) = to {
                then[to.thread] += cycles(entry.number, *queue);
            }
        }
        let then: Vec<u64> = then.iter().zip(&totals).map(|(c, total)| c * 100 / total).collect();
        let better = improvement(&now, &then);
        let found = format!("loads {now:?} % would be {then:?} %, variance improvement {better} %");
        if better >= self.balance.improvement && better > 0 {
            info!("PMD auto load balance: {found}; queues are placed anew");
            self.rebalance();
        } else {
            info!("PMD auto load balance: {found}; queues stay");
        }
    }
}

//! Placement: which thread polls which receive queue, by the rules of OVS (ovs-vswitchd.conf.db(5),
//! `pmd-rxq-assign`; Documentation/topics/dpdk/pmd.rst).

use std::collections::BTreeSet;

/// `other_config:pmd-rxq-assign`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assign {
    /// The dearest queue first, to the threads in turn, there and back.
    #[default]
    Cycles,
    /// The dearest queue first, each to the thread that has least to do.
    Group,
    /// In the order of ports, to the threads in turn.
    RoundRobin,
}

impl Assign {
    /// Reads the setting; `None` if it is none of the three.
    pub fn parse(text: &str) -> Option<Assign> {
        Some(match text {
            "cycles" => Assign::Cycles,
            "group" => Assign::Group,
            "roundrobin" => Assign::RoundRobin,
            _ => return None,
        })
    }
}

/// How queues are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// In which order, and to whom.
    pub assign: Assign,
    /// Threads that queues are pinned to get no others (`other_config:pmd-rxq-isolate`; only
    /// [`Assign::Group`] can do without).
    pub isolate: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { assign: Assign::default(), isolate: true }
    }
}

/// A queue to be placed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// The node that its memory is on, where that is known.
    pub node: Option<usize>,
    /// The core that it is pinned to (`other_config:pmd-rxq-affinity` of its interface).
    pub core: Option<usize>,
    /// Cycles spent on it of late.
    pub cycles: u64,
}

/// A thread that polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its core.
    pub core: usize,
    /// That core's node.
    pub node: usize,
}

/// Where a queue was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Index of the thread.
    pub thread: usize,
    /// The queue's memory is on another node than the thread.
    pub cross_node: bool,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// For each queue; `None` if no thread is left for it.
    pub queues: Vec<Option<Placed>>,
    /// Threads, by index, that have pinned queues and get no others.
    pub isolated: BTreeSet<usize>,
}

/// Places queues among threads, which are in the order of their cores. A queue that is pinned goes to its
/// core's thread, if there is one; any other to a thread of its node that is not isolated, or, if its node
/// has none, to one of the other nodes in turn.
pub fn place(queues: &[Load], threads: &[Place], rules: Rules) -> Placement {
    let mut out = Placement { queues: vec![None; queues.len()], ..Placement::default() };
    let mut turns = Turns::new(threads);
    for (i, q) in queues.iter().enumerate() {
        let pinned = q.core.and_then(|core| threads.iter().position(|t| t.core == core));
        if let Some(thread) = pinned {
            out.queues[i] = Some(turns.give(thread, q));
            if rules.isolate || rules.assign != Assign::Group {
                out.isolated.insert(thread);
            }
        }
    }
    let mut order: Vec<usize> = (0..queues.len()).filter(|&i| out.queues[i].is_none()).collect();
    if rules.assign != Assign::RoundRobin {
        order.sort_by_key(|&i| std::cmp::Reverse(queues[i].cycles));
    }
    let free = |t: &usize| !out.isolated.contains(t);
    let free: Vec<usize> = (0..threads.len()).filter(free).collect();
    for i in order {
        let node = turns.node_for(queues[i].node, &free);
        let here: Vec<usize> =
            free.iter().copied().filter(|&t| Some(threads[t].node) == node).collect();
        let thread = turns.next(&here, rules.assign);
        out.queues[i] = thread.map(|t| turns.give(t, &queues[i]));
    }
    out
}

/// Whose turn it is, and what each thread has.
struct Turns<'t> {
    threads: &'t [Place],
    given: Vec<(u64, usize)>,
    /// Queues given out by turns on each node.
    count: std::collections::BTreeMap<usize, usize>,
    /// The node that last took a queue of a node without threads.
    last_other: Option<usize>,
}

impl Turns<'_> {
    fn new(threads: &[Place]) -> Turns<'_> {
        let given = vec![(0, 0); threads.len()];
        Turns { threads, given, count: Default::default(), last_other: None }
    }

    fn give(&mut self, thread: usize, queue: &Load) -> Placed {
        self.given[thread].0 += queue.cycles;
        self.given[thread].1 += 1;
        let cross_node = queue.node.is_some_and(|n| self.threads[thread].node != n);
        Placed { thread, cross_node }
    }

    /// The node for a queue of `node`: its own if a thread is free there, else the others in turn. A queue
    /// whose memory is anywhere goes wherever fewest queues are.
    fn node_for(&mut self, node: Option<usize>, free: &[usize]) -> Option<usize> {
        let nodes: BTreeSet<usize> = free.iter().map(|&t| self.threads[t].node).collect();
        match node {
            Some(n) if nodes.contains(&n) => Some(n),
            Some(_) => {
                let after = |n: &&usize| self.last_other.is_none_or(|last| **n > last);
                self.last_other = nodes.iter().find(after).or(nodes.first()).copied();
                self.last_other
            }
            None => {
                let queues = |n: usize| {
                    let here = free.iter().filter(|&&t| self.threads[t].node == n);
                    let (threads, given) =
                        here.fold((0, 0), |a, &t| (a.0 + 1, a.1 + self.given[t].1));
                    // By thread, without fractions.
                    given * 1000 / threads.max(1)
                };
                nodes.into_iter().min_by_key(|&n| queues(n))
            }
        }
    }

    /// The next thread among `here`, all of one node.
    fn next(&mut self, here: &[usize], assign: Assign) -> Option<usize> {
        let node = self.threads[*here.first()?].node;
        if assign == Assign::Group {
            return here.iter().copied().min_by_key(|&t| self.given[t]);
        }
        let n = self.count.entry(node).or_default();
        let (turn, at) = (*n / here.len(), *n % here.len());
        *n += 1;
        let back = assign == Assign::Cycles && turn % 2 == 1;
        here.get(if back { here.len() - 1 - at } else { at }).copied()
    }
}

/// Percentage by which the variance of threads' loads would fall; `loads` and `after` are percentages.
pub fn improvement(loads: &[u64], after: &[u64]) -> u64 {
    let (now, then) = (variance(loads), variance(after));
    if now == 0 || then >= now { 0 } else { (now - then) * 100 / now }
}

/// As OVS counts it, in whole numbers.
fn variance(loads: &[u64]) -> u64 {
    let n = loads.len() as u64;
    if n == 0 {
        return 0;
    }
    let mean = loads.iter().sum::<u64>() / n;
    loads.iter().map(|l| l.abs_diff(mean).pow(2)).sum::<u64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    /// Two nodes of four cores, as sysfs has them.
    fn two_by_four() -> Topology {
        let dir = tempfile::tempdir().expect("directory");
        for (node, list) in [("node0", "0-3\n"), ("node1", "4-7\n")] {
            std::fs::create_dir(dir.path().join(node)).expect("directory");
            std::fs::write(dir.path().join(node).join("cpulist"), list).expect("file");
        }
        Topology::read(dir.path())
    }

    fn threads(cores: &[usize]) -> Vec<Place> {
        let topology = two_by_four();
        let node = |core| topology.node_of(core).expect("there");
        cores.iter().map(|&core| Place { core, node: node(core) }).collect()
    }

    fn on(node: usize, cycles: u64) -> Load {
        Load { node: Some(node), cycles, core: None }
    }

    fn rules(assign: Assign) -> Rules {
        Rules { assign, isolate: true }
    }

    fn cores(queues: &[Load], threads: &[Place], rules: Rules) -> Vec<Option<usize>> {
        let placed = place(queues, threads, rules).queues;
        placed.into_iter().map(|p| p.map(|p| threads[p.thread].core)).collect()
    }

    #[test]
    fn each_way_has_its_order() {
        let t = threads(&[1, 2, 3]);
        let q: Vec<Load> = [10, 60, 50, 40, 30, 20].map(|c| on(0, c)).into();
        let by = |assign| cores(&q, &t, rules(assign)).into_iter().flatten().collect::<Vec<_>>();
        // 60 50 40 go up, 30 20 10 down.
        assert_eq!(by(Assign::Cycles), [1, 1, 2, 3, 3, 2]);
        assert_eq!(by(Assign::RoundRobin), [1, 2, 3, 1, 2, 3]);
        let q: Vec<Load> = [90, 20, 20, 20, 20, 5].map(|c| on(0, c)).into();
        let group = cores(&q, &t, rules(Assign::Group));
        assert_eq!(group, [1, 2, 3, 2, 3, 2].map(Some), "one queue has a thread of its own");
        assert_eq!(cores(&[on(0, 0); 3], &t, rules(Assign::Group)), [1, 2, 3].map(Some));
    }

    #[test]
    fn queues_stay_on_their_node_if_it_has_a_thread() {
        let t = threads(&[0, 1, 4, 5]);
        let q = [on(1, 9), on(0, 8), on(1, 7), on(1, 6)];
        assert_eq!(cores(&q, &t, rules(Assign::Cycles)), [4, 0, 5, 5].map(Some));
        let placed = place(&[on(1, 1), on(1, 1)], &threads(&[0, 1]), Rules::default());
        assert!(placed.queues.iter().flatten().all(|p| p.cross_node), "reported");
        let placed = place(&[on(2, 3), on(2, 2), on(2, 1)], &t, Rules::default()).queues;
        let nodes: Vec<_> = placed.iter().flatten().map(|p| t[p.thread].node).collect();
        assert_eq!(nodes, [0, 1, 0], "other nodes in turn");
        let anywhere = cores(&[Load::default(); 4], &t, rules(Assign::RoundRobin));
        assert_eq!(anywhere, [0, 4, 1, 5].map(Some), "without a node all threads serve");
    }

    #[test]
    fn pinned_queues_isolate_their_threads_unless_told_not_to() {
        let t = threads(&[0, 1]);
        let pinned = Load { core: Some(1), ..on(0, 50) };
        let q = [pinned, on(0, 40), on(0, 30)];
        let placed = place(&q, &t, Rules::default());
        assert_eq!(placed.isolated, BTreeSet::from([1]));
        assert_eq!(cores(&q, &t, Rules::default()), [1, 0, 0].map(Some));
        let shared = Rules { assign: Assign::Group, isolate: false };
        let q = [pinned, on(0, 40), on(0, 30), on(0, 20)];
        assert_eq!(cores(&q, &t, shared), [1, 0, 0, 1].map(Some));
        assert_eq!(place(&q, &t, shared).isolated, BTreeSet::new());
        // Other ways always isolate.
        let cycles = Rules { assign: Assign::Cycles, isolate: false };
        assert_eq!(place(&q, &t, cycles).isolated, BTreeSet::from([1]));
        // A core without a thread pins nothing; no free thread, no place.
        let elsewhere = Load { core: Some(7), ..on(0, 50) };
        assert_eq!(cores(&[elsewhere], &t, Rules::default()), [Some(0)]);
        let both = [pinned, Load { core: Some(0), ..pinned }, on(0, 1)];
        assert_eq!(cores(&both, &t, Rules::default()), [Some(1), Some(0), None]);
        assert_eq!(place(&[on(0, 1)], &[], Rules::default()).queues, [None]);
    }

    #[test]
    fn improvements_are_of_the_variance() {
        assert_eq!(improvement(&[90, 10], &[50, 50]), 100);
        assert_eq!(improvement(&[90, 10], &[70, 30]), 75);
        assert_eq!((improvement(&[50, 50], &[90, 10]), improvement(&[50, 50], &[50, 50])), (0, 0));
        assert_eq!(improvement(&[], &[]), 0);
    }
}

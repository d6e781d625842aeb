//! Placement: which thread polls which receive queue.

/// Where a queue was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Index of the thread.
    pub thread: usize,
    /// The queue's memory is on another node than the thread.
    pub cross_node: bool,
}

/// Gives queues to threads in turn. `queues` are the nodes that the queues' memory is on, where that
/// is known; `threads` the nodes of the threads. A queue goes to the next thread of its node; if its
/// node has no thread, to the next of all. Empty if there is no thread.
pub fn round_robin(queues: &[Option<usize>], threads: &[usize]) -> Vec<Placed> {
    let mut given = vec![0usize; threads.len()];
    let pick = |node: &Option<usize>| -> Option<Placed> {
        let least = |only_node: Option<usize>| {
            let fits = |t: &usize| only_node.is_none_or(|n| threads[*t] == n);
            (0..threads.len()).filter(fits).min_by_key(|&t| given[t])
        };
        let near = node.and_then(|n| least(Some(n)));
        let thread = near.or_else(|| least(None))?;
        given[thread] += 1;
        Some(Placed { thread, cross_node: node.is_some_and(|n| threads[thread] != n) })
    };
    queues.iter().map_while(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads_of(queues: &[Option<usize>], threads: &[usize]) -> Vec<(usize, bool)> {
        round_robin(queues, threads).iter().map(|p| (p.thread, p.cross_node)).collect()
    }

    #[test]
    fn in_turn() {
        let got = threads_of(&[None; 5], &[0, 0]);
        assert_eq!(got, [(0, false), (1, false), (0, false), (1, false), (0, false)]);
    }

    #[test]
    fn near_its_memory_and_across_only_if_it_must() {
        let got = threads_of(&[Some(1), Some(0), Some(1), Some(2)], &[0, 1]);
        assert_eq!(got, [(1, false), (0, false), (1, false), (0, true)]);
    }

    #[test]
    fn nowhere_without_threads() {
        assert_eq!(round_robin(&[None], &[]), []);
    }
}

//! Named locks that clients hold (RFC 7047, section 4.1.8).

use std::collections::{BTreeMap, VecDeque};

/// Which client.
pub type ClientId = u64;

/// All locks that anyone holds or waits for.
#[derive(Debug, Default)]
pub struct Locks(BTreeMap<String, VecDeque<ClientId>>);

impl Locks {
    /// True if `client` owns the lock: it is first in the lock's queue.
    pub fn is_owner(&self, name: &str, client: ClientId) -> bool {
        self.0.get(name).and_then(|queue| queue.front()) == Some(&client)
    }

    /// True if `client` owns the lock or waits for it.
    pub fn is_queued(&self, name: &str, client: ClientId) -> bool {
        self.0.get(name).is_some_and(|queue| queue.contains(&client))
    }

    /// Number of locks that `client` owns or waits for.
    pub fn count(&self, client: ClientId) -> usize {
        self.0.values().filter(|queue| queue.contains(&client)).count()
    }

    /// Puts `client` at the end of the queue; true if it owns the lock at once.
    pub fn lock(&mut self, name: &str, client: ClientId) -> bool {
        let queue = self.0.entry(name.to_owned()).or_default();
        queue.push_back(client);
        queue.len() == 1
    }

    /// Makes `client` the owner. Gives the owner it was stolen from, who now waits for it.
    pub fn steal(&mut self, name: &str, client: ClientId) -> Option<ClientId> {
        let queue = self.0.entry(name.to_owned()).or_default();
        queue.push_front(client);
        queue.get(1).copied()
    }

    /// Takes `client` out of the queue. Gives the new owner, if there is one.
    pub fn unlock(&mut self, name: &str, client: ClientId) -> Option<ClientId> {
        let queue = self.0.get_mut(name)?;
        let was_owner = queue.front() == Some(&client);
        queue.retain(|other| *other != client);
        let next = queue.front().copied();
        if queue.is_empty() {
            self.0.remove(name);
        }
        next.filter(|_| was_owner)
    }

    /// Takes `client` out of all queues. Gives the locks that have a new owner, and the owner.
    pub fn release_all(&mut self, client: ClientId) -> Vec<(String, ClientId)> {
        let queued = self.0.iter().filter(|(_, queue)| queue.contains(&client));
        let names: Vec<String> = queued.map(|(name, _)| name.clone()).collect();
        let release = |name: String| self.unlock(&name, client).map(|owner| (name, owner));
        names.into_iter().filter_map(release).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_follow_in_turn() {
        let mut locks = Locks::default();
        assert!(locks.lock("a", 1));
        assert!(!locks.lock("a", 2));
        assert_eq!(locks.steal("a", 3), Some(1));
        assert!(locks.is_owner("a", 3) && !locks.is_owner("a", 1));
        assert_eq!(locks.unlock("a", 2), None);
        assert_eq!(locks.unlock("a", 3), Some(1));
        assert_eq!(locks.count(1), 1);
        assert_eq!(locks.release_all(1), vec![]);
        assert!(!locks.is_queued("a", 1));
        assert!(locks.lock("a", 2));
    }
}

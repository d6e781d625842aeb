//! Translations that stopped half-way: what is left to do when a packet comes back to be looked up
//! again with its `recirc_id`.
//!
//! Equal states have one number, so that megaflows stay the same when they are checked again. A state
//! lives as long as a megaflow's effects refer to it.

use crate::bridge::BridgeId;
use crate::walk::Within;
use openflow::{Action, FullKey};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tables::Rule;

/// States at a time, about 2 kB each: as many as OVS's default limit of megaflows has tenths. When
/// there are more, packets that need one are dropped.
const MAX_FROZEN: usize = 20_000;

/// A list of actions that was not finished.
#[derive(Debug, Clone)]
pub(crate) struct Todo {
    pub table: u8,
    pub rule: Option<Arc<Rule>>,
    pub actions: Vec<Action>,
}

impl PartialEq for Todo {
    fn eq(&self, other: &Todo) -> bool {
        let id = |t: &Todo| t.rule.as_ref().map(|r| (r.serial, r.cookie));
        self.table == other.table && id(self) == id(other) && self.actions == other.actions
    }
}

/// All that a translation knows except the packet's headers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub bridge: BridgeId,
    /// With the packet's own fields cleared.
    pub key: FullKey,
    pub stack: Vec<u128>,
    pub action_set: Vec<Action>,
    pub within: Within,
    pub mirrored: u32,
    /// Innermost first.
    pub todo: Vec<Todo>,
}

impl State {
    fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.bridge.hash(&mut hash);
        self.key.hash(&mut hash);
        self.stack.hash(&mut hash);
        self.action_set.len().hash(&mut hash);
        for todo in &self.todo {
            (todo.table, todo.actions.len()).hash(&mut hash);
            todo.rule.as_ref().map(|r| r.serial).hash(&mut hash);
        }
        hash.finish()
    }
}

/// A state with its number.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub id: u32,
    pub state: State,
    fingerprint: u64,
    home: Weak<FrozenTable>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.forget(self.id, self.fingerprint);
        }
    }
}

/// All states, by number and by content.
#[derive(Debug, Default)]
pub(crate) struct FrozenTable(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<u32, Weak<Frozen>>,
    /// Numbers of the states with a fingerprint.
    by_content: HashMap<u64, Vec<u32>>,
    last: u32,
}

impl FrozenTable {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is a few calls that do not panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state with a number.
    pub fn get(&self, id: u32) -> Option<Arc<Frozen>> {
        self.lock().by_id.get(&id)?.upgrade()
    }

    /// States at the moment.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// A number for a state; `None` if there are too many states.
    pub fn put(self: &Arc<Self>, state: State) -> Option<Arc<Frozen>> {
        let fingerprint = state.fingerprint();
        // Let go after the lock, because the last reference to a state takes the lock to forget it.
        let mut looked_at = Vec::new();
        let mut inner = self.lock();
        for id in inner.by_content.get(&fingerprint).into_iter().flatten() {
            let Some(frozen) = inner.by_id.get(id).and_then(Weak::upgrade) else { continue };
            if frozen.state == state {
                return Some(frozen);
            }
            looked_at.push(frozen);
        }
        if inner.by_id.len() >= MAX_FROZEN {
            return None;
        }
        let id = inner.free_id();
        let home = Arc::downgrade(self);
        let frozen = Arc::new(Frozen { id, state, fingerprint, home });
        inner.by_id.insert(id, Arc::downgrade(&frozen));
        inner.by_content.entry(fingerprint).or_default().push(id);
        Some(frozen)
    }

    fn forget(&self, id: u32, fingerprint: u64) {
        let mut inner = self.lock();
        inner.by_id.remove(&id);
        if let Some(ids) = inner.by_content.get_mut(&fingerprint) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                inner.by_content.remove(&fingerprint);
            }
        }
    }
}

impl Inner {
    /// The next number that is not in use; 0 is for packets that come from outside. There are far
    /// more numbers than states.
    fn free_id(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.by_id.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(table: u8) -> State {
        let todo = vec![Todo { table, rule: None, actions: vec![Action::GotoTable(table + 1)] }];
        State {
            bridge: BridgeId(1),
            key: FullKey::default(),
            stack: Vec::new(),
            action_set: Vec::new(),
            within: Within::default(),
            mirrored: 0,
            todo,
        }
    }

    #[test]
    fn equal_states_have_one_number_as_long_as_they_live() {
        let table = Arc::new(FrozenTable::default());
        let a = table.put(state(1)).expect("there is room");
        let b = table.put(state(1)).expect("there is room");
        let c = table.put(state(2)).expect("there is room");
        assert!(Arc::ptr_eq(&a, &b) && a.id != c.id && table.len() == 2);
        assert!(table.get(a.id).is_some());
        let id = a.id;
        drop((a, b));
        assert!(table.get(id).is_none() && table.len() == 1);
        let again = table.put(state(1)).expect("there is room");
        assert!(again.id != id && table.len() == 2);
    }

    #[test]
    fn the_number_of_states_is_bounded() {
        let table = Arc::new(FrozenTable::default());
        let with = |n: usize| State { stack: vec![n as u128], ..state(1) };
        let held: Vec<_> = (0..MAX_FROZEN).map(|n| table.put(with(n)).expect("room")).collect();
        assert!(table.put(with(MAX_FROZEN)).is_none());
        drop(held);
        assert!(table.put(with(MAX_FROZEN)).is_some());
    }
}

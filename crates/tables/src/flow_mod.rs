//! Changes of flow tables, as OpenFlow's flow mods mean them (OpenFlow 1.0, 4.6; 1.3, 6.4).

use crate::rule::{Birth, Counts, Rule};
use crate::tables::{MAX_TABLE, Reason, Removed, Tables};
use openflow::{Action, Command, FlowMod};
use std::sync::Arc;

/// Why a change was refused, printed as OpenFlow's name of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowModError {
    /// `check_overlap`: a flow of the same priority could match the same packet.
    #[error("OFPFMFC_OVERLAP")]
    Overlap,
    /// The table is at its limit, and has nothing to evict.
    #[error("OFPFMFC_TABLE_FULL")]
    TableFull,
    /// Table 254 is the switch's own.
    #[error("OFPBRC_EPERM")]
    Permission,
}

impl Tables {
    /// Applies one flow mod. Returns the flows that it removed; a flow that another takes the place of
    /// is not among them, as OpenFlow has it.
    ///
    /// # Errors
    /// If it is refused; then nothing has changed.
    pub fn apply(&mut self, m: &FlowMod, now_ms: u64) -> Result<Vec<Removed>, FlowModError> {
        if m.table.is_some_and(|t| t > MAX_TABLE && t != u8::MAX) {
            return Err(FlowModError::Permission);
        }
        if m.table == Some(u8::MAX) {
            return self.apply(&FlowMod { table: None, ..m.clone() }, now_ms);
        }
        match m.command {
            Command::Add => self.add(m, now_ms),
            Command::Modify | Command::ModifyStrict => self.modify(m, now_ms),
            Command::Delete | Command::DeleteStrict => {
                let rules = self.select(m).into_iter().cloned().collect();
                Ok(self.remove_all(rules, Reason::Delete))
            }
        }
    }

    fn add(&mut self, m: &FlowMod, now_ms: u64) -> Result<Vec<Removed>, FlowModError> {
        let table = m.table.unwrap_or(0);
        let serial = self.next_serial();
        let actions = self.shared_actions(&m.actions);
        let shortened = Arc::clone(&self.timeouts.shortened);
        let at = self.table_mut(table);
        let shape = at.shape(&m.matches.mask);
        let birth = Birth { serial, table, now_ms, shape, actions, shortened };
        let rule = Rule::new(m, birth);
        if let Some(old) = at.same(&rule) {
            let old = Arc::clone(old);
            self.put_in_place(&old, rule);
            return Ok(Vec::new());
        }
        if m.check_overlap && at.overlaps(&m.matches, m.priority) {
            return Err(FlowModError::Overlap);
        }
        let mut removed = Vec::new();
        if at.limit().is_some_and(|limit| at.len >= limit) {
            removed.push(self.evict(table).ok_or(FlowModError::TableFull)?);
        }
        let rule = Arc::new(rule);
        self.timeouts.add(&rule);
        self.table_mut(table).insert(rule, &m.matches.value);
        Ok(removed)
    }

    /// Counts and age stay. Where nothing matches, and no cookie was asked for, the flow is added. As
    /// in OpenFlow 1.0, the cookie becomes the one given or 0, unless flows were chosen by cookie.
    fn modify(&mut self, m: &FlowMod, now_ms: u64) -> Result<Vec<Removed>, FlowModError> {
        let all = FlowMod { out_port: None, out_group: None, actions: Vec::new(), ..m.clone() };
        let chosen: Vec<Arc<Rule>> = self.select(&all).into_iter().cloned().collect();
        if chosen.is_empty() {
            return if m.cookie_filter.1 == 0 { self.add(m, now_ms) } else { Ok(Vec::new()) };
        }
        let actions = self.shared_actions(&m.actions);
        let cookie = m.new_cookie.or((m.cookie_filter.1 == 0).then_some(0));
        for old in &chosen {
            let mut rule = old.modified(Arc::clone(&actions), cookie, now_ms);
            if m.reset_counts {
                rule.counts = Arc::new(Counts::new(now_ms));
            }
            self.put_in_place(old, rule);
        }
        Ok(Vec::new())
    }

    /// The actions, shared with the flow before if they are the same: most flows of a long list do what
    /// their neighbours do.
    fn shared_actions(&mut self, actions: &[Action]) -> Arc<[Action]> {
        if *self.last_actions != *actions {
            self.last_actions = actions.into();
        }
        Arc::clone(&self.last_actions)
    }

    /// Puts `rule` in the place of `old`, which has the same table, match and priority.
    fn put_in_place(&mut self, old: &Arc<Rule>, rule: Rule) {
        let rule = Arc::new(rule);
        let Some(table) = self.tables.get_mut(&old.table) else {
            return;
        };
        self.timeouts.forget(old);
        self.timeouts.add(&rule);
        Arc::make_mut(table).replace(old, rule);
    }
}

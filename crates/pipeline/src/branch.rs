//! Actions that work on copies of the packet: `clone`, `check_pkt_larger`, and coming back later.

use crate::commit::trim;
use crate::frozen::{State, Todo};
use crate::headers::Base;
use crate::walk::{Stop, Walk};
use flow::Action as Step;
use openflow::{Action, FullKey, Subfield};
use std::sync::Arc;

/// True if all that the actions do to the datapath's packet can be undone by giving fields their old
/// values, so that a copy need not be made (mostly as in OVS).
fn can_be_undone(actions: &[Action]) -> bool {
    actions.iter().all(|a| match a {
        Action::Output { max_len, .. } => max_len.is_none(),
        Action::OutputField { max_len, .. } => *max_len == 0 || *max_len == u16::MAX,
        Action::Clone(inner) => can_be_undone(inner),
        // Putting the label back would mean to look at all of it.
        Action::PopMpls(_) => false,
        _ => true,
    })
}

impl Walk<'_> {
    /// Runs the action set and, if the packet has to be read again, leaves it at that: the end of a
    /// pipeline, or of a copy's.
    #[inline(never)]
    pub fn conclude(&mut self) {
        if matches!(self.stop, Stop::No | Stop::Exit) {
            self.run_action_set();
        }
        if self.stop == Stop::Freezing {
            self.freeze();
        }
    }

    /// Keeps what is left of a list of actions for when the packet comes back.
    #[cold]
    pub fn postpone(&mut self, actions: &[Action]) {
        if !actions.is_empty() {
            let rule = self.place.rule.cloned();
            self.todo.push(Todo { table: self.place.table, rule, actions: actions.to_vec() });
        }
    }

    /// Has the packet come back for what is to be done yet.
    #[cold]
    fn freeze(&mut self) {
        self.commit();
        let state = State {
            bridge: self.bridge.id,
            key: FullKey { pkt: flow::FlowKey::default(), ..self.h.now.key },
            stack: self.stack.clone(),
            action_set: self.action_set.clone(),
            within: self.within,
            mirrored: self.mirrored,
            todo: std::mem::take(&mut self.todo),
        };
        match self.core.frozen.put(state) {
            Some(frozen) => {
                self.out.push(Step::Recirc(frozen.id));
                self.caused.freeze(frozen);
                self.stop = Stop::Exit;
            }
            None => {
                self.error("too many packets are to be recirculated");
                self.stop = Stop::Failed("No recirculation context");
            }
        }
    }

    /// `clone`. `last` says that nothing follows in the list.
    #[inline(never)]
    pub fn clone_packet(&mut self, actions: &[Action], last: bool) {
        let (stack, action_set) = (self.stack.clone(), self.action_set.clone());
        let within = self.within;
        if last || can_be_undone(actions) {
            let now = self.h.save();
            self.run(actions);
            self.conclude_copy();
            self.h.restore(&now);
        } else {
            self.commit();
            let (now, base) = (self.h.save(), Box::new(self.h.base.clone()));
            let inner = self.apart(&now, &base, |walk| walk.run(actions));
            if !inner.is_empty() {
                self.out.push(Step::Clone(inner));
            }
        }
        (self.stack, self.action_set, self.within) = (stack, action_set, within);
    }

    /// The end of a copy's way. `exit` in it is one for the original too (as in OVS).
    fn conclude_copy(&mut self) {
        let frozen = self.stop == Stop::Freezing;
        self.conclude();
        if frozen && self.stop == Stop::Exit {
            self.stop = Stop::No;
        }
    }

    /// Does something to a copy of the packet, and returns the datapath actions for the copy.
    #[inline(never)]
    fn apart(
        &mut self,
        now: &crate::headers::Now,
        base: &Base,
        run: impl FnOnce(&mut Self),
    ) -> Vec<Step> {
        let outer = std::mem::take(&mut self.out);
        run(self);
        self.conclude_copy();
        let mut inner = std::mem::replace(&mut self.out, outer);
        trim(&mut inner);
        self.h.restore(now);
        self.h.base = base.clone();
        inner
    }

    /// `check_pkt_larger`: what follows is run for either answer, each with the action set as it is.
    /// The list's caller goes on with the packet as it was before, and stops if the first did `exit`
    /// (as in OVS).
    #[inline(never)]
    pub fn check_len(&mut self, limit: u16, dst: &Subfield, rest: &[Action]) {
        self.commit();
        let (now, base) = (self.h.save(), Box::new(self.h.base.clone()));
        let (stack, action_set) = (self.stack.clone(), self.action_set.clone());
        let branch = |walk: &mut Self, larger: u128| {
            (walk.stack, walk.action_set) = (stack.clone(), action_set.clone());
            walk.apart(&now, &base, |walk| {
                walk.h.write(dst.field, larger << dst.first, dst.mask());
                walk.run(rest);
            })
        };
        let greater = branch(self, 1);
        let after = std::mem::replace(&mut self.stop, Stop::No);
        if matches!(after, Stop::Failed(_)) {
            self.stop = after;
            return;
        }
        let less_equal = branch(self, 0);
        if !matches!(self.stop, Stop::Failed(_)) {
            self.stop = after;
        }
        // Both have run the action set.
        (self.stack, self.action_set) = (stack, Vec::new());
        if !greater.is_empty() || !less_equal.is_empty() {
            self.out.push(Step::CheckLen { limit, greater, less_equal });
        }
    }
}

/// Coming back.
impl<'a> Walk<'a> {
    /// Goes on where a packet stopped.
    pub fn resume(&mut self, state: &'a State) {
        self.stack.clone_from(&state.stack);
        self.action_set.clone_from(&state.action_set);
        (self.within, self.mirrored) = (state.within, state.mirrored);
        for (i, todo) in state.todo.iter().enumerate() {
            self.place = crate::walk::Place { table: todo.table, rule: todo.rule.as_ref() };
            self.run(&todo.actions);
            match self.stop {
                Stop::No => {}
                Stop::Freezing => {
                    // What was innermost stands first again.
                    self.todo.extend_from_slice(&state.todo[i + 1..]);
                    break;
                }
                Stop::Exit | Stop::Failed(_) => break,
            }
        }
        self.conclude();
    }
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<State>>();
};

//! What packets of a megaflow cause besides being forwarded: statistics, learned addresses and flows,
//! timeouts that become shorter. It also keeps what their recirculation needs.

use crate::bridge::SharedFdb;
use crate::core::Core;
use crate::fdb::Lesson;
use crate::frozen::Frozen;
use crate::learn::Learned;
use crate::mirror::MirrorCounts;
use crate::port::PatchCounts;
use flow::{Effects, Seen};
use std::sync::Arc;
use tables::{GroupCounts, Rule, TableCounters};

/// TCP flags that end a connection.
const FIN_OR_RST: u16 = 0x05;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Caused {
    rules: Vec<Arc<Rule>>,
    tables: Vec<(Arc<TableCounters>, bool)>,
    groups: Vec<(Arc<GroupCounts>, std::ops::Range<usize>)>,
    /// For each bridge that the packet came through.
    lessons: Vec<(Arc<SharedFdb>, Vec<Lesson>)>,
    /// Ends of patches, and their peers.
    patches: Vec<(Arc<PatchCounts>, Arc<PatchCounts>)>,
    flows: Option<(Arc<Core>, Vec<Arc<Learned>>)>,
    ends: Vec<(Arc<Rule>, u16, u16)>,
    frozen: Vec<Arc<Frozen>>,
    mirrors: Vec<Arc<MirrorCounts>>,
}

impl Caused {
    /// Nothing yet, with room for the rules of a pipeline.
    pub fn new() -> Caused {
        Caused {
            rules: Vec::with_capacity(12),
            tables: Vec::with_capacity(12),
            ..Caused::default()
        }
    }

    /// A table was looked up.
    pub fn table(&mut self, counters: &Arc<TableCounters>, found: bool) {
        self.tables.push((Arc::clone(counters), found));
    }

    /// A flow matched.
    pub fn rule(&mut self, rule: &Arc<Rule>) {
        self.rules.push(Arc::clone(rule));
    }

    /// A group was used, by these of its buckets.
    pub fn group(&mut self, counts: &Arc<GroupCounts>, buckets: std::ops::Range<usize>) {
        self.groups.push((Arc::clone(counts), buckets));
    }

    /// The packet was sent to a mirror.
    pub fn mirror(&mut self, counts: &Arc<MirrorCounts>) {
        self.mirrors.push(Arc::clone(counts));
    }

    /// An address was seen.
    pub fn lesson(&mut self, fdb: &Arc<SharedFdb>, lesson: Lesson) {
        match self.lessons.iter_mut().find(|(of, _)| Arc::ptr_eq(of, fdb)) {
            Some((_, lessons)) => lessons.push(lesson),
            None => self.lessons.push((Arc::clone(fdb), vec![lesson])),
        }
    }

    /// The packet went through a patch.
    pub fn patch(&mut self, out: &Arc<PatchCounts>, peer: &Arc<PatchCounts>) {
        self.patches.push((Arc::clone(out), Arc::clone(peer)));
    }

    /// A flow is to be learned.
    pub fn learn(&mut self, core: &Arc<Core>, flow: Learned) {
        let (_, flows) = self.flows.get_or_insert_with(|| (Arc::clone(core), Vec::new()));
        flows.push(Arc::new(flow));
    }

    /// `fin_timeout`.
    pub fn fin_timeout(&mut self, rule: &Arc<Rule>, idle: u16, hard: u16) {
        self.ends.push((Arc::clone(rule), idle, hard));
    }

    /// The packet comes back: what it then needs lives as long as this.
    pub fn freeze(&mut self, frozen: Arc<Frozen>) {
        self.frozen.push(frozen);
    }
}

impl Caused {
    /// Addresses and flows are learned from a packet that was seen just now.
    pub fn learned(&self, now_ms: u64) {
        for (fdb, lessons) in &self.lessons {
            fdb.change(|fdb| lessons.iter().fold(false, |c, l| fdb.learn(l, now_ms) | c));
        }
        if let Some((core, flows)) = &self.flows {
            for flow in flows {
                core.learn(flow, now_ms);
            }
        }
    }
}

impl Effects for Caused {
    fn apply(&self, seen: &Seen) {
        if seen.packets == 0 {
            return;
        }
        for rule in &self.rules {
            rule.counts.add(seen);
        }
        for counts in &self.mirrors {
            counts.add(seen);
        }
        for (counters, found) in &self.tables {
            counters.add(seen.packets, if *found { seen.packets } else { 0 });
        }
        for (counts, buckets) in &self.groups {
            counts.add_whole(seen);
            buckets.clone().for_each(|n| counts.add(n, seen));
        }
        for (out, peer) in &self.patches {
            out.crossed(peer, seen);
        }
        if seen.tcp_flags & FIN_OR_RST != 0 {
            for (rule, idle, hard) in &self.ends {
                rule.shorten(*idle, *hard);
            }
        }
        self.learned(seen.now_ms);
    }
}

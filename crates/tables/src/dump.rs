//! Tables as text, as `ovs-ofctl` prints them.

use crate::rule::{Rule, RuleFlags};
use crate::tables::{MAX_TABLE, Tables};
use openflow::{DEFAULT_PRIORITY, FlowMod, PortNames, ShowName};
use std::fmt::Write;

/// What a table without a limit says it can take (OVS, `max_entries`).
const DEFAULT_MAX_ENTRIES: u32 = 1_000_000;
/// What OVS says that OpenFlow 1.0 can match.
const MATCHING: &str = "exact match or wildcard: in_port eth_{src,dst,type} vlan_{vid,pcp} \
     ip_{src,dst} nw_{proto,tos} tcp_{src,dst}";

/// How flows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpOptions {
    /// Duration, counts and ages too; off is `--no-stats`.
    pub stats: bool,
    /// Tables by name (`--names`).
    pub table_names: bool,
}

impl From<bool> for DumpOptions {
    /// With or without statistics, tables by number.
    fn from(stats: bool) -> DumpOptions {
        DumpOptions { stats, table_names: false }
    }
}

impl Tables {
    /// The flows that `filter` selects, one a line, by table, then falling priority, then age; without
    /// the header. `options` may be a plain `stats: bool`.
    pub fn dump_flows(
        &self,
        filter: &FlowMod,
        now_ms: u64,
        options: impl Into<DumpOptions>,
        names: &dyn PortNames,
    ) -> String {
        let options = options.into();
        let mut out = String::new();
        for rule in self.select(filter) {
            let named = self.table_name(rule.table).filter(|_| options.table_names);
            let table = match named {
                Some(name) => Some(ShowName(name).to_string()),
                None if options.stats || rule.table != 0 => Some(rule.table.to_string()),
                None => None,
            };
            out.push(' ');
            format_rule(&mut out, rule, table, now_ms, options.stats, names);
            out.push('\n');
        }
        out
    }

    /// The sums of the flows that `filter` selects, as `ovs-ofctl dump-aggregate` prints them.
    pub fn dump_aggregate(&self, filter: &FlowMod) -> String {
        let flows = self.select(filter);
        let packets = flows.iter().fold(0u64, |n, r| n.wrapping_add(r.counts.packets()));
        let bytes = flows.iter().fold(0u64, |n, r| n.wrapping_add(r.counts.bytes()));
        let flows = flows.len();
        format!(
            "NXST_AGGREGATE reply (xid=0x4): packet_count={packets} byte_count={bytes} \
             flow_count={flows}\n"
        )
    }

    /// All tables with what they count, as `ovs-ofctl dump-tables` prints them.
    pub fn dump_tables(&self) -> String {
        let mut out = "OFPST_TABLE reply (xid=0x2):".to_owned();
        let mut table = 0;
        while table <= MAX_TABLE {
            let run = (table..=MAX_TABLE).take_while(|t| self.is_ditto(*t)).count() as u8;
            match run {
                0 => self.dump_table(&mut out, table),
                1 => add(&mut out, format_args!("\n  table {table}: ditto\n")),
                n => {
                    add(&mut out, format_args!("\n  tables {table}...{}: ditto\n", table + n - 1));
                }
            }
            table += run.max(1);
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }

    /// Active flows, lookups, matches.
    fn stats(&self, table: u8) -> (usize, u64, u64) {
        let counters = self.counters(table);
        (self.len_of(table), counters.lookups(), counters.matches())
    }

    fn max_entries(&self, table: u8) -> u32 {
        let limit = self.table_config(table).and_then(|c| c.flow_limit);
        limit.unwrap_or(DEFAULT_MAX_ENTRIES)
    }

    fn table_name(&self, table: u8) -> Option<&str> {
        self.table_config(table)?.name.as_deref().filter(|n| !n.is_empty())
    }

    /// True if all that would be printed is what was printed of the table before.
    fn is_same(&self, table: u8) -> bool {
        let before = table.checked_sub(1);
        before.is_some_and(|b| {
            self.stats(b) == self.stats(table) && self.max_entries(b) == self.max_entries(table)
        })
    }

    fn is_ditto(&self, table: u8) -> bool {
        self.table_name(table).is_none() && self.is_same(table)
    }

    fn dump_table(&self, out: &mut String, table: u8) {
        add(out, format_args!("\n  table {table}"));
        if let Some(name) = self.table_name(table) {
            add(out, format_args!(" (\"{name}\")"));
        }
        if self.is_same(table) {
            return out.push_str(": ditto");
        }
        let (active, lookups, matches) = self.stats(table);
        add(out, format_args!(":\n    active={active}, lookup={lookups}, matched={matches}\n"));
        let max = self.max_entries(table);
        match table.checked_sub(1) {
            Some(before) if self.max_entries(before) == max => {
                out.push_str("    (same features)\n");
            }
            Some(_) => add(out, format_args!("    max_entries={max}\n    (same matching)\n")),
            None => {
                add(out, format_args!("    max_entries={max}\n    matching:\n      {MATCHING}\n"));
            }
        }
    }
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn format_rule(
    out: &mut String,
    rule: &Rule,
    table: Option<String>,
    now_ms: u64,
    stats: bool,
    names: &dyn PortNames,
) {
    if stats || rule.cookie != 0 {
        add(out, format_args!("cookie={:#x}, ", rule.cookie));
    }
    if stats {
        let age = seconds(now_ms.saturating_sub(rule.created_ms));
        add(out, format_args!("duration={age}s, "));
    }
    if let Some(table) = table {
        add(out, format_args!("table={table}, "));
    }
    if stats {
        let (packets, bytes) = (rule.counts.packets(), rule.counts.bytes());
        add(out, format_args!("n_packets={packets}, n_bytes={bytes}, "));
    }
    for (name, value) in
        [("idle_timeout", rule.idle_timeout()), ("hard_timeout", rule.hard_timeout())]
    {
        if value != 0 {
            add(out, format_args!("{name}={value}, "));
        }
    }
    format_flags(out, rule.flags);
    if rule.importance != 0 {
        add(out, format_args!("importance={}, ", rule.importance));
    }
    if stats {
        format_ages(out, rule, now_ms);
    }
    let priority = (rule.priority != DEFAULT_PRIORITY).then_some(rule.priority);
    let matches = openflow::format_match(&rule.matches(), names, priority);
    out.push_str(&matches);
    if !matches.is_empty() {
        out.push(' ');
    }
    out.push_str("actions=");
    out.push_str(&openflow::format_actions(&rule.actions, names));
}

fn format_flags(out: &mut String, flags: RuleFlags) {
    let named = [
        (flags.send_flow_rem, "send_flow_rem "),
        (flags.check_overlap, "check_overlap "),
        (flags.reset_counts, "reset_counts "),
        (flags.no_packet_counts, "no_packet_counts "),
        (flags.no_byte_counts, "no_byte_counts "),
    ];
    named.into_iter().filter(|(set, _)| *set).for_each(|(_, name)| out.push_str(name));
}

/// Seconds since the last packet, and since the last change if that was after the first.
fn format_ages(out: &mut String, rule: &Rule, now_ms: u64) {
    let since = |ms: u64| now_ms.saturating_sub(ms) / 1000;
    add(out, format_args!("idle_age={}, ", since(rule.counts.used_ms())));
    let hard_age = since(rule.modified_ms);
    if hard_age != since(rule.created_ms) {
        add(out, format_args!("hard_age={hard_age}, "));
    }
}

/// Seconds, with three decimals unless they are whole: `5`, `5.100`, `0.013`.
pub(crate) fn seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        rest => format!("{}.{rest:03}", ms / 1000),
    }
}

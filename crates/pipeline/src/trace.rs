//! `ofproto/trace`: one packet's way through the tables, explained in the layout of OVS.

use crate::bridge::Bridge;
use crate::error::Error;
use crate::note::{Note, NoteKind};
use crate::pipeline::Pipeline;
use crate::translate::{self, Noted, Trace};
use flow::{Action, DpPort, Extracted, FlowKey, Translate, odp};
use openflow::{FullKey, OfPort, PortNames, format_key, format_masked};
use std::fmt::Write;

/// Columns of one step of indentation.
const STEP: usize = 4;
/// Columns of indentation at most: tables that are nested as deep as they may be have half as many.
const MAX_INDENT: usize = 1024;

/// How a packet is to be traced.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Its bytes, from which the headers are read.
    pub packet: Option<&'a [u8]>,
    /// There are bytes, it does not matter which.
    pub generate: bool,
    /// Ports are called by their names.
    pub named: bool,
    /// Actions that are run instead of the tables.
    pub actions: Option<&'a str>,
    /// When it is.
    pub now_ms: u64,
}

impl Pipeline {
    /// What the tables of `bridge` do with a packet. `flow` says its fields and where it comes from as
    /// `ovs-ofctl` writes them (`in_port=1,tcp,tcp_dst=80`), or as `dpctl/dump-flows` does
    /// (`in_port(1),eth_type(0x0800)`), and then the port says the bridge. With a `packet`, the headers
    /// are read from it instead. With a packet, or if one is to be generated, addresses and flows are
    /// learned from it, but it is not counted and not sent.
    ///
    /// # Errors
    /// The bridge or port is unknown, or the flow is not understood.
    pub fn trace(
        &self,
        bridge: &str,
        flow: &str,
        packet: Option<&[u8]>,
        generate: bool,
        now_ms: u64,
    ) -> Result<String, Error> {
        let wanted = Wanted { packet, generate, now_ms, ..Wanted::default() };
        match odp::parse_match(flow, &|_| None) {
            Ok((key, _)) => self.trace_datapath(&key, &wanted),
            Err(_) => self.trace_bridge(bridge, flow, &wanted),
        }
    }

    /// A packet of a bridge, with fields as `ovs-ofctl` writes them.
    pub(crate) fn trace_bridge(
        &self,
        bridge: &str,
        flow: &str,
        wanted: &Wanted<'_>,
    ) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let mut key = openflow::parse_key(flow, &*bridge).map_err(|e| {
            let at = e.at.map_or(String::new(), |at| format!(" (at character {at})"));
            Error::Flow(format!("Bad openflow flow syntax: {flow}: {}{at}", e.reason))
        })?;
        if let Some(packet) = wanted.packet {
            key.pkt = headers(packet)?;
        }
        key.actset_output = u32::from(OfPort::UNSET.0).into();
        self.trace_key(&bridge, key, wanted)
    }

    /// A packet with the datapath's fields, whose port says the bridge.
    pub(crate) fn trace_datapath(
        &self,
        key: &FlowKey,
        wanted: &Wanted<'_>,
    ) -> Result<String, Error> {
        let pkt = match wanted.packet {
            Some(packet) => {
                FlowKey { in_port: key.in_port, recirc_id: key.recirc_id, ..headers(packet)? }
            }
            None => *key,
        };
        if pkt.recirc_id != 0 {
            let id = pkt.recirc_id;
            let learn = wanted.packet.is_some() || wanted.generate;
            let unknown = || Error::Flow(format!("no recirculation data for recirc_id {id:#x}"));
            let noted = self.translate_noting(&pkt, learn).ok_or_else(unknown)?;
            return Ok(describe(&noted, id, &(), &odp::number));
        }
        let port = pkt.in_port;
        let nowhere = || Error::Flow(format!("no OpenFlow port for datapath port {port}"));
        let info = self.port_by_dp(DpPort(port)).ok_or_else(nowhere)?;
        let key = translate::full_key(&pkt, info.number);
        self.trace_key(&*self.bridge(&info.bridge)?, key, wanted)
    }

    fn trace_key(
        &self,
        bridge: &Bridge,
        key: FullKey,
        wanted: &Wanted<'_>,
    ) -> Result<String, Error> {
        let actions = match wanted.actions {
            Some(text) => Some(
                openflow::parse_actions(text, bridge).map_err(|e| Error::Flow(e.to_string()))?,
            ),
            None => None,
        };
        if let Some(what) = actions.as_deref().and_then(openflow::first_unsupported) {
            return Err(Error::Unsupported(what.to_owned()));
        }
        let learn = (wanted.packet.is_some() || wanted.generate).then_some(wanted.now_ms);
        let how = Trace { learn, named: wanted.named, actions: actions.as_deref() };
        let noted = translate::traced(&self.core, bridge, key, how);
        if let Some(packet) = wanted.packet {
            for action in &noted.translation.actions {
                if let Action::Snoop(snoop) = action {
                    self.snoop(snoop, packet, wanted.now_ms);
                }
            }
        }
        let by_name = |dp: DpPort| self.port_by_dp(dp).map_or_else(|| odp::number(dp), |p| p.name);
        Ok(match wanted.named {
            true => describe(&noted, 0, bridge, &by_name),
            false => describe(&noted, 0, &(), &odp::number),
        })
    }
}

/// The fields of a frame.
fn headers(packet: &[u8]) -> Result<FlowKey, Error> {
    let mut out = Extracted::default();
    flow::extract(packet, packet.len(), 0, &mut out).map_err(|need| {
        Error::Flow(format!("the packet ends before its {} bytes of headers", need.0))
    })?;
    Ok(out.key)
}

/// The whole of a trace. `recirc_id` is not 0 for a packet that was recirculated.
fn describe(
    noted: &Noted,
    recirc_id: u32,
    names: &dyn PortNames,
    port: odp::PortText<'_>,
) -> String {
    let with_id = |key: &FullKey| {
        let pkt = FlowKey { recirc_id, ..key.pkt };
        FullKey { pkt, ..*key }
    };
    let (first, last) = (with_id(&noted.first), with_id(&noted.last));
    let mut mask = noted.mask;
    mask.0.in_port = u32::from(u16::MAX).into();
    let (before, after) = (format_key(&first, names), format_key(&last, names));
    let mut out = format!("Flow: {before}\n");
    let notes: Vec<Note> = noted.notes.iter().cloned().map(settle).collect();
    lay_out(&mut out, &notes, 0, None);
    let after = if before == after { "unchanged".to_owned() } else { after };
    let mut actions = noted.translation.actions.clone();
    let all = actions.len();
    actions.retain(|a| !matches!(a, Action::Snoop(_)));
    let slow = actions.len() < all;
    let actions = odp::format_actions(&actions, port);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "\nFinal flow: {after}\nMegaflow: {}\nDatapath actions: {actions}",
        format_masked(&first, &mask, names)
    );
    if slow {
        out += "\nThis flow is handled by the userspace slow path because it:\n  \
                - Uses action(s) not supported by datapath.";
    }
    if let Some(error) = noted.error {
        let _ = write!(out, "\nTranslation failed ({error}), packet is dropped.");
    }
    out
}

/// What a bridge does after its first table, as run the action set, is shown as if that table did it.
fn settle(mut note: Note) -> Note {
    let table = note.notes.iter().position(|n| n.kind == NoteKind::Table);
    // Actions that did not come from a table are shown beside those that they lead to.
    let by_table = note.notes.first().is_some_and(|n| n.kind != NoteKind::Action);
    if let Some(at) = table.filter(|_| note.kind == NoteKind::Bridge && by_table) {
        let after = note.notes.split_off(at + 1);
        note.notes[at].notes.extend(after);
    }
    note.notes = note.notes.into_iter().map(settle).collect();
    note
}

/// Notes with their indentation; `inside` is what encloses them. What encloses notes is not indented
/// itself if it is the last of its list, so that tables that go on in one another do not move ever
/// further to the right.
fn lay_out(out: &mut String, notes: &[Note], level: usize, inside: Option<NoteKind>) {
    for (i, note) in notes.iter().enumerate() {
        let encloses = matches!(note.kind, NoteKind::Bridge | NoteKind::Table | NoteKind::Thaw);
        let last = i + 1 == notes.len();
        let deeper = usize::from(!last || !encloses && inside != Some(NoteKind::Thaw));
        let indent = " ".repeat(MAX_INDENT.min((level + deeper) * STEP));
        let text = &note.text;
        // Writing to a String cannot fail.
        let _ = match note.kind {
            NoteKind::Bridge => {
                writeln!(out, "\n{indent}{text}\n{indent}{}", "-".repeat(text.chars().count()))
            }
            NoteKind::Detail => writeln!(out, "{indent} -> {text}"),
            NoteKind::Warn => writeln!(out, "{indent} >> {text}"),
            NoteKind::Error => writeln!(out, "{indent} >>>> {text} <<<<"),
            _ => writeln!(out, "{indent}{text}"),
        };
        lay_out(out, &note.notes, level + 2 * deeper, Some(note.kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: NoteKind, text: &str, notes: Vec<Note>) -> Note {
        Note { kind, text: text.to_owned(), notes }
    }

    #[test]
    fn tables_that_end_a_list_are_not_indented() {
        use NoteKind::{Action, Bridge, Detail, Table};
        let drop = || vec![note(Action, "drop", Vec::new())];
        let first = vec![
            note(Action, "resubmit(,1)", Vec::new()),
            note(Table, " 1. ip, priority 7", drop()),
            note(Action, "NORMAL", Vec::new()),
            note(Detail, "forwarding to learned port", Vec::new()),
            note(Action, "resubmit(,2)", Vec::new()),
            note(Table, " 2. No match.", drop()),
        ];
        let table = note(Table, " 0. priority 0", first);
        let mut out = String::new();
        lay_out(&mut out, &[note(Bridge, "bridge(\"br0\")", vec![table])], 0, None);
        let expected = "\nbridge(\"br0\")\n-------------\n 0. priority 0\n    resubmit(,1)\n     1. ip, \
            priority 7\n            drop\n    NORMAL\n     -> forwarding to learned port\n    \
            resubmit(,2)\n 2. No match.\n    drop\n";
        assert_eq!(out, expected);
    }
}

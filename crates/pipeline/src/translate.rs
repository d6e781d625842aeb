//! One packet's translation: from its key to datapath actions, the bits that these depended on, and
//! what its packets cause.

use crate::bridge::Bridge;
use crate::caused::Caused;
use crate::commit::trim;
use crate::core::{Core, Snapshot};
use crate::headers::{Headers, is_ip};
use crate::note::{Note, NoteKind, Notes};
use crate::walk::{Stop, Walk};
use flow::{DpPort, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, Translation};
use openflow::{Action, FullKey, FullMask, OfPort};
use std::sync::Arc;
use zerocopy::big_endian::U32;

/// The table that packets enter by.
pub(crate) const FIRST_TABLE: u8 = 0;

/// A translation with all that was decided on the way.
pub struct Noted {
    /// The answer.
    pub translation: Translation,
    /// The packet as it came in.
    pub first: FullKey,
    /// The packet as the last action left it.
    pub last: FullKey,
    /// The bits of `first` that the answer depends on.
    pub mask: FullMask,
    /// What was decided, in order.
    pub notes: Vec<Note>,
    /// Why the packet is dropped, if the translation failed.
    pub error: Option<&'static str>,
}

/// What every megaflow of packets like `key` matches, whatever the tables say: fragments are told
/// apart, as OVS does.
fn first_mask(key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::default();
    if is_ip(key.dl_type.get()) {
        mask.bits_mut().nw_frag = FRAG_ANY | FRAG_LATER;
    }
    mask
}

/// A packet that no bridge takes.
#[cold]
fn dropped(key: &FlowKey) -> Translation {
    let effects = Arc::new(Caused::default());
    Translation { mask: first_mask(key), actions: Vec::new(), effects }
}

/// Whether and how a translation is listened to: with the effects that whoever asks will apply, or
/// not.
pub(crate) type Tracing = Option<bool>;

fn begin<'a>(
    (core, snapshot): (&'a Arc<Core>, &'a Snapshot),
    bridge: &'a Bridge,
    key: FullKey,
    pkt: &FlowKey,
    tracing: Tracing,
) -> Walk<'a> {
    let mut walk = Walk::new(core, snapshot, bridge, Headers::new(key, &first_mask(pkt)));
    if let Some(side_effects) = tracing {
        let mut notes = Notes::default();
        notes.open(NoteKind::Bridge, format!("bridge(\"{}\")", bridge.name));
        walk.notes = Some(notes);
        walk.side_effects = side_effects;
    }
    walk
}

/// Key of a packet that came in by a port.
pub(crate) fn full_key(pkt: &FlowKey, in_port: OfPort) -> FullKey {
    let mut key = FullKey::new(pkt, in_port.0.into());
    key.actset_output = U32::new(OfPort::UNSET.0.into());
    key
}

fn end(mut walk: Walk<'_>, key: FullKey) -> (Translation, Option<Box<Noted>>) {
    let error = match walk.stop {
        Stop::Failed(why) => Some(why),
        _ => None,
    };
    if error.is_some() {
        walk.out.clear();
    }
    trim(&mut walk.out);
    let mask = walk.h.mask();
    let (notes, last) = (walk.notes.take(), walk.h.now.key);
    let translation = Translation { mask, actions: walk.out, effects: Arc::new(walk.caused) };
    let noted = notes.map(|notes| {
        let mut mask = FullMask::default();
        mask.0.pkt = *translation.mask.bits();
        let translation = translation.clone();
        Box::new(Noted { translation, first: key, last, mask, notes: notes.finish(), error })
    });
    (translation, noted)
}

/// A packet from a port, or one that comes back.
pub(crate) fn packet(
    core: &Arc<Core>,
    pkt: &FlowKey,
    tracing: Tracing,
) -> (Translation, Option<Box<Noted>>) {
    if pkt.recirc_id != 0 {
        return again(core, pkt, tracing);
    }
    let snapshot = core.snapshot.load();
    let place = snapshot.by_dp.get(&DpPort(pkt.in_port));
    let Some((bridge, port)) =
        place.and_then(|(id, port)| Some((snapshot.bridges.get(id)?, *port)))
    else {
        return (dropped(pkt), None);
    };
    let key = full_key(pkt, port);
    let mut walk = begin((core, &snapshot), bridge, key, pkt, tracing);
    if walk.arrives() {
        walk.table(FIRST_TABLE, port);
    }
    walk.conclude();
    end(walk, key)
}

/// How a packet is traced.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trace<'a> {
    /// When addresses and flows are learned from it, if they are. It is not counted.
    pub learn: Option<u64>,
    /// Ports are called by their names.
    pub named: bool,
    /// Actions that are run instead of the tables.
    pub actions: Option<&'a [Action]>,
}

/// A packet of a bridge, with all that a flow may match.
pub(crate) fn traced(core: &Arc<Core>, bridge: &Bridge, key: FullKey, how: Trace<'_>) -> Noted {
    let snapshot = core.snapshot.load();
    let mut walk = begin((core, &snapshot), bridge, key, &key.pkt, Some(how.learn.is_some()));
    if let Some(notes) = &mut walk.notes {
        notes.named = how.named;
    }
    match how.actions {
        _ if !walk.arrives() => {}
        Some(actions) => {
            walk.within.packet_out = true;
            walk.run(actions);
        }
        None => walk.table(FIRST_TABLE, OfPort(key.in_port.get() as u16)),
    }
    walk.conclude();
    if let Some(now_ms) = how.learn {
        walk.caused.learned(now_ms);
    }
    let (translation, noted) = end(walk, key);
    let without_notes = || Noted {
        mask: FullMask::default(),
        translation,
        first: key,
        last: key,
        notes: Vec::new(),
        error: None,
    };
    noted.map_or_else(without_notes, |n| *n)
}

/// A packet that comes back.
#[cold]
fn again(core: &Arc<Core>, pkt: &FlowKey, tracing: Tracing) -> (Translation, Option<Box<Noted>>) {
    let snapshot = core.snapshot.load();
    let Some(frozen) = core.frozen.get(pkt.recirc_id) else { return (dropped(pkt), None) };
    let state = &frozen.state;
    let Some(bridge) = snapshot.bridges.get(&state.bridge) else { return (dropped(pkt), None) };
    let key = FullKey { pkt: FullKey::new(pkt, 0).pkt, ..state.key };
    let mut walk = begin((core, &snapshot), bridge, key, pkt, tracing);
    if let Some(todo) = state.todo.first() {
        let table = todo.table;
        walk.open(NoteKind::Thaw, || "thaw".to_owned());
        walk.note(NoteKind::Action, || format!("Resuming from table {table}"));
        walk.close();
    }
    walk.resume(state);
    end(walk, key)
}

/// Actions on a packet of a bridge (`packet-out`).
pub(crate) fn packet_out(
    core: &Arc<Core>,
    bridge: &Bridge,
    in_port: OfPort,
    actions: &[Action],
    key: &FullKey,
    tracing: Tracing,
) -> (Translation, Option<Box<Noted>>) {
    let FullKey { in_port, actset_output, .. } = full_key(&key.pkt, in_port);
    let key = FullKey { in_port, actset_output, ..*key };
    let snapshot = core.snapshot.load();
    let mut walk = begin((core, &snapshot), bridge, key, &key.pkt, tracing);
    walk.within.packet_out = true;
    if walk.arrives() {
        walk.run(actions);
    }
    walk.conclude();
    end(walk, key)
}

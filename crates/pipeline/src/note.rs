//! What is decided on the way, for whoever traces a packet.

/// What a [`Note`] is about. The first four enclose notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// The tables of a bridge.
    Bridge,
    /// A flow of a table, or the action set, with its actions.
    Table,
    /// A packet comes back after recirculation.
    Thaw,
    /// A bucket of a group, with its actions.
    Bucket,
    /// An action that is about to be run.
    Action,
    /// What an action did.
    Detail,
    /// Something that a person would not expect.
    Warn,
    /// Something that ends or spoils the translation.
    Error,
}

/// One decision, in the words of OVS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// One line.
    pub text: String,
    /// What was decided inside.
    pub notes: Vec<Note>,
}

/// Notes as they are made: a list, and those that are open, outermost first.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Ports are called by their names.
    pub named: bool,
    done: Vec<Note>,
    open: Vec<Note>,
}

impl Notes {
    /// A note with nothing inside.
    pub fn add(&mut self, kind: NoteKind, text: String) {
        self.put(Note { kind, text, notes: Vec::new() });
    }

    /// What is added from now on is inside of this, until it is closed.
    pub fn open(&mut self, kind: NoteKind, text: String) {
        self.open.push(Note { kind, text, notes: Vec::new() });
    }

    /// Ends what was opened last.
    pub fn close(&mut self) {
        if let Some(note) = self.open.pop() {
            self.put(note);
        }
    }

    fn put(&mut self, note: Note) {
        match self.open.last_mut() {
            Some(open) => open.notes.push(note),
            None => self.done.push(note),
        }
    }

    /// All notes; what is open is closed.
    pub fn finish(mut self) -> Vec<Note> {
        while !self.open.is_empty() {
            self.close();
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_nest() {
        let mut notes = Notes::default();
        notes.add(NoteKind::Action, "a".to_owned());
        notes.open(NoteKind::Table, "t".to_owned());
        notes.add(NoteKind::Action, "b".to_owned());
        notes.open(NoteKind::Bucket, "c".to_owned());
        notes.close();
        let notes = notes.finish();
        assert_eq!(notes.len(), 2);
        assert_eq!(notes[1].notes.iter().map(|n| n.text.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}

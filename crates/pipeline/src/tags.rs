//! How a stack of tags differs from the one that the packet came with.

/// Of the tags that the packet came with, the first `popped` are gone, and `pushed` new ones are in
/// front of the rest. Used for VLAN tags and MPLS labels alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tags {
    pub popped: u8,
    pub pushed: u8,
}

impl Tags {
    /// Takes the first tag away.
    pub fn pop(&mut self) {
        match self.pushed {
            0 => self.popped = self.popped.saturating_add(1),
            n => self.pushed = n - 1,
        }
    }

    /// Which of the packet's own tags is now at position `i`, if it is not a new one.
    pub fn origin(self, i: usize) -> Option<usize> {
        let below = i.checked_sub(usize::from(self.pushed))?;
        Some(below + usize::from(self.popped))
    }

    /// What leads from `self` to `to`: how many tags to take away, and how many of the first ones of
    /// `to` to put in front then. `common` is how many new tags, counted from the last, are the same
    /// in both; it only counts if these are in front of the same tags of the packet.
    pub fn steps(self, to: Tags, common: u8) -> (u8, u8) {
        let kept = if self.popped == to.popped { common } else { 0 };
        let gone = to.popped.saturating_sub(self.popped);
        let back = self.popped.saturating_sub(to.popped);
        (self.pushed - kept + gone, to.pushed - kept + back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(popped: u8, pushed: u8) -> Tags {
        Tags { popped, pushed }
    }

    #[test]
    fn the_shortest_way_from_one_stack_to_another() {
        for (from, to, common, steps) in [
            (tags(0, 0), tags(0, 1), 0, (0, 1)),
            (tags(0, 0), tags(1, 0), 0, (1, 0)),
            (tags(0, 0), tags(1, 1), 0, (1, 1)),
            (tags(0, 1), tags(0, 2), 1, (0, 1)),
            (tags(0, 1), tags(0, 1), 0, (1, 1)),
            (tags(0, 1), tags(1, 0), 0, (2, 0)),
            // Back to what was there before, as after a group's bucket.
            (tags(1, 0), tags(0, 0), 0, (0, 1)),
            (tags(1, 2), tags(0, 1), 1, (2, 2)),
        ] {
            assert_eq!(from.steps(to, common), steps, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn positions_lead_to_the_packets_own_tags() {
        assert_eq!(tags(0, 0).origin(0), Some(0));
        assert_eq!(tags(0, 1).origin(0), None);
        assert_eq!(tags(0, 1).origin(1), Some(0));
        assert_eq!(tags(2, 1).origin(1), Some(2));
        let mut t = tags(0, 1);
        t.pop();
        t.pop();
        assert_eq!(t, tags(1, 0));
    }
}

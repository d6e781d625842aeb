//! Which packets a flow applies to.

use crate::key::{FullKey, FullMask};

/// The packets that agree with `value` in the bits of `mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Match {
    /// Zero in all bits outside `mask`.
    pub value: FullKey,
    /// The bits that matter.
    pub mask: FullMask,
}

impl Match {
    /// Matches every packet.
    pub fn any() -> Match {
        Match::default()
    }

    /// True if every packet that matches `self` also matches `wider`.
    pub fn is_within(&self, wider: &Match) -> bool {
        self.mask.covers(&wider.mask) && wider.mask.agrees(&self.value, &wider.value)
    }

    /// True if some packet could match both.
    pub fn overlaps(&self, other: &Match) -> bool {
        let mut both = self.mask;
        for (w, o) in both.0.words_mut().iter_mut().zip(other.mask.words()) {
            *w &= o;
        }
        both.agrees(&self.value, &other.value)
    }
}

//! What has happened: a checker that never sees a key rotated shows nothing about rotations.

use std::fmt;
use strum::VariantArray;

/// Something that a test claims to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum Milestone {
    /// A first key is stored.
    Delivered,
    Rotated,
    /// The same, because it was about to expire.
    Renewed,
    /// A previous key is revoked at the end of its overlap.
    OverlapEnded,
    /// The same before its end, because every target has the new key.
    RolledOut,
    /// A previous key is revoked because of `rotate-now`.
    LeakRevoked,
    /// A previous key is revoked because there are too many.
    OverlapCut,
    StrayRevoked,
    /// A key that could not be stored is revoked.
    UnstoredRevoked,
    /// A key is revoked because its object is deleted.
    DeletedRevoked,
    /// The object is gone, and so are its keys.
    DeletionEnded,
    /// The object is gone, and its key lives.
    Retained,
    Moved,
    OldSecretDeleted,
    Reshaped,
    Released,
    /// The record names a key that only the status named.
    RecordCompleted,
    LedgerReplaced,
    /// A key was asked whether it is valid.
    KeyChecked,
    /// A call went wrong.
    Struck,
    /// A process ended in the middle.
    Crashed,
    /// Something took effect late.
    Landed,
    /// Something went wrong, and all is good again.
    Recovered,
    /// Nothing happens any more, and all is good.
    Rested,
}

/// As bits, so that the model can compare states.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached(pub u32);

impl Reached {
    pub fn insert(&mut self, milestone: Milestone) {
        self.0 |= 1 << milestone as u32;
    }

    pub fn contains(self, milestone: Milestone) -> bool {
        self.0 & (1 << milestone as u32) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Milestone> {
        Milestone::VARIANTS.iter().copied().filter(move |milestone| self.contains(*milestone))
    }
}

impl FromIterator<Milestone> for Reached {
    fn from_iter<I: IntoIterator<Item = Milestone>>(milestones: I) -> Self {
        let mut reached = Self::default();
        milestones.into_iter().for_each(|milestone| reached.insert(milestone));
        reached
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

//! What this process knows of its own calls.

use super::{
    attempt::{Attempt, Intent, MintedKey, Progress},
    block::Block,
    step::Slot,
    time::Monotonic,
};
use crate::protocol::marker::AttemptId;
use std::collections::{BTreeMap, BTreeSet};

/// What this process knows of its own calls for one object. It is lost with the process, and nothing may depend on it
/// that the ledger, the record and Boltz's list cannot restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessMemory {
    /// What people asked for when the troubles below began. A change of it lifts them.
    pub request: Option<Request>,
    /// When this process first saw an attempt, or a key's id that something names.
    pub first_seen: BTreeMap<String, Monotonic>,
    /// The attempts that this process wrote.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    /// The keys that this process revoked, or learned to be gone when it tried to.
    pub revoked_ids: BTreeSet<String>,
    /// The keys whose revocation was answered with 404, and when last.
    pub not_found: BTreeMap<String, Monotonic>,
    /// What failed last, and how often in a row.
    pub troubles: BTreeMap<Slot, Trouble>,
    /// What was done last in each slot: the same again, soon after, means that something undoes it.
    pub done: BTreeMap<Slot, LastDone>,
    /// The workloads that were restarted, and for which key.
    pub restarted: BTreeMap<String, String>,
    /// The caches are known to be behind: what is written next needs a live read first.
    pub must_read: bool,
    /// A Secret that a live read found under the wanted name and that is not the object's: its name, and whose it is.
    pub foreign_secret: Option<(String, String)>,
}

/// What people asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The values of the annotations `rotate`, `rotate-now` and `retry`.
    pub annotations: [Option<String>; 3],
}

/// Failures in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// What they say, and until when nothing is tried.
    pub block: Block,
    /// It is no passing trouble: status tells of it.
    pub is_told: bool,
}

/// A call that took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct LastDone {
    /// [`super::Step::fingerprint`].
    pub fingerprint: String,
    /// When.
    pub at: Monotonic,
    /// How many times in a row it was the same, each within an hour of the one before.
    pub repeats: u32,
}

impl ProcessMemory {
    /// The key that this process minted under the id, and its attempt.
    pub fn minted(&self, id: &str) -> Option<(&AttemptId, &MintedKey)> {
        self.attempts.iter().find_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } | Progress::Stored { key, .. } if key.id == id => {
                Some((attempt, key))
            }
            _ => None,
        })
    }

    /// The keys in hand: their values are nowhere else.
    pub fn in_hand(&self) -> impl Iterator<Item = (&AttemptId, &MintedKey)> {
        self.attempts.iter().filter_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } => Some((attempt, key)),
            _ => None,
        })
    }

    /// The keys that nobody else knows of when their object is gone: those in hand, and those that were stored while
    /// it went, so that no status ever named them. A retained object leaves the latter to its Secret.
    pub fn left_behind(&self, is_retained: bool) -> Vec<String> {
        let ids = self.attempts.values().filter_map(|known| match &known.progress {
            Progress::InHand { key, .. } => Some(&key.id),
            Progress::Stored { key, is_reported: false } if !is_retained => Some(&key.id),
            _ => None,
        });
        ids.filter(|id| !self.revoked_ids.contains(*id)).cloned().collect()
    }

    /// What holds the slot now.
    pub fn trouble(&self, slot: &Slot, now: Monotonic) -> Option<&Trouble> {
        self.troubles.get(slot).filter(|trouble| trouble.block.holds(now))
    }

    /// C1 is about to be sent. Until its answer is there, the attempt counts as one that is never POSTed: it may land,
    /// and is then harmless.
    pub fn mark_writing(&mut self, attempt: AttemptId, intent: Intent, now: Monotonic) {
        self.attempts.insert(attempt, Attempt { written: now, intent, progress: Progress::Ended });
    }

    /// C2 is about to be sent: whatever ends the call, the attempt is not POSTed again.
    pub fn mark_posting(&mut self, attempt: &AttemptId) -> Option<&Attempt> {
        let known = self.attempts.get_mut(attempt)?;
        known.progress = Progress::Sent;
        Some(known)
    }

    /// C3 is about to be sent: until its answer is there, it may take effect.
    pub fn mark_storing(&mut self, attempt: &AttemptId) {
        if let Some(Progress::InHand { calls_in_doubt, .. }) =
            self.attempts.get_mut(attempt).map(|known| &mut known.progress)
        {
            *calls_in_doubt = calls_in_doubt.saturating_add(1);
        }
    }

    /// Something happened that may cure what stands against the Secret's name: it is tried again now.
    pub fn lift_secret_troubles(&mut self) {
        self.foreign_secret = None;
        for slot in [Slot::Preflight, Slot::Store, Slot::Shape] {
            self.troubles.remove(&slot);
        }
    }
}

//! What this process knows about its own calls.

use super::{
    adopt::Adoptable,
    answer::KeyCheck,
    attempt::{Attempt, Intent, MintedKey, Ownership, Progress},
    block::Block,
    restart::Restart,
    retry::Failure,
    step::Slot,
    time::Monotonic,
};
use crate::protocol::{account_name::AccountName, marker::AttemptId};
use jiff::Timestamp;
use litemap::LiteMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// A failure that has lasted so long is reported, however few tries it took.
pub(super) const TOLD_AFTER: Duration = Duration::from_secs(10);

/// After this time without another try, a failure does not make its call come last any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// What this process knows about its own calls for one object. It is lost at a restart. Everything that matters can be
/// restored from the ledger, the record and Boltz's list. Maps that have entries for every object are sorted
/// vectors: a B-tree reserves room for eleven entries with the first one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessMemory {
    /// [`Request::hash`] of what users requested when the failures below began. A change clears them.
    pub(super) request: Option<u64>,
    /// When users last changed it. Attempts that are older do not delay the next one.
    pub(super) requested_at: Option<Monotonic>,
    /// The change has not ended the waits after failures yet: it followed another one too soon.
    pub(super) is_request_new: bool,
    /// The account of the attempts that this process wrote.
    pub account: Option<AccountName>,
    /// When this process first saw an attempt or the id of a named key.
    pub first_seen: LiteMap<String, Monotonic>,
    /// The attempts that this process wrote.
    pub attempts: LiteMap<AttemptId, Box<Attempt>>,
    /// Keys that this process revoked, or that were already revoked when it tried.
    pub revoked_ids: BTreeSet<String>,
    /// When they began to count as revoked, and why.
    pub(super) revoked_at: BTreeMap<String, (Monotonic, Proof)>,
    /// Keys that Boltz's list showed as active although Boltz had accepted their revocation.
    pub(super) revoked_without_effect: BTreeSet<String>,
    /// Keys whose revocation has to be confirmed by Boltz's list, and when it was tried last: Boltz rejected it, its response
    /// was lost, or an earlier one had no effect.
    pub perhaps_revoked: BTreeMap<String, Monotonic>,
    /// What Boltz said to the stored key itself, the last time that it was asked.
    pub key_check: Option<Box<CheckedKey>>,
    /// The last failure of each slot, and the number of consecutive failures.
    pub troubles: BTreeMap<Slot, Trouble>,
    /// The last successful call of each slot. If the same call is needed again soon, something undoes it.
    pub(crate) done: LiteMap<Slot, LastDone>,
    /// Workloads that were restarted, for which key, and how far their rollouts are.
    pub(super) restarts: BTreeMap<String, Restart>,
    /// When this process first saw that the object is being deleted.
    pub(super) deleting_since: Option<Monotonic>,
    /// When this process first saw a `rotate-now` that no key answers yet.
    pub(super) leaked_since: Option<Timestamp>,
    /// When this process first saw that the ledger was forged.
    pub(super) forged_since: Option<Monotonic>,
    /// The last record of the Secret that this process saw. The Secret may be deleted.
    pub(super) last_record: Option<LastRecord>,
    /// The CRD is older than this operator: the API server drops `status.valueSHA256`, and `status.restarts`.
    pub lacks_value_sha256: bool,
    /// The caches are known to be stale: the next write needs a live read first.
    pub must_read: bool,
    /// The version of the Secret at the last rejected write; empty: there was none. Another version may be the cure.
    pub(super) refused_version: Option<String>,
    /// When another version last ended waits.
    pub(super) lifted_at: Option<Monotonic>,
    /// A Secret of another owner that a live read found under the name in the spec: its name, and whose it is.
    pub foreign_secret: Option<Box<(String, String)>>,
    /// The Secret that a live read found, and that the object is to adopt.
    pub(super) adoptable: Option<Box<Adoptable>>,
}

/// Why a key counts as revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Boltz accepted the revocation, or said that the key was revoked before.
    Response,
    /// After the revocation was tried, a pass did not show the key as active, or Boltz did not accept the key itself.
    Check,
}

/// A key that was asked whether it is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedKey {
    /// Boltz's id of the key.
    pub key_id: String,
    /// The last answer. The one before it may have been another.
    pub check: KeyCheck,
    /// The last time that it was asked.
    pub at: Monotonic,
    /// Since when Boltz has said the same.
    pub since: Monotonic,
}

/// What a record says of `rotate-now`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LastRecord {
    /// The current key of the record.
    pub key_id: String,
    /// The value of the annotation for which that key was issued.
    pub rotate_now: Option<String>,
}

/// What users request: a change of it retries everything.
#[derive(Hash)]
pub(super) struct Request<'a> {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The values of the annotations `rotate`, `rotate-now` and `retry`.
    pub annotations: [&'a Option<String>; 3],
}

impl Request<'_> {
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// Consecutive failures of one slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// How many there were in a row.
    pub failures: u32,
    /// The last failure, and until when the slot is blocked.
    pub block: Block,
    /// When the first of them came.
    pub(super) since: Monotonic,
    /// The status reports it. Short failures are not reported.
    pub is_reported: bool,
    /// The message without the time of the next try, if it tells that time.
    pub(super) untimed: Option<Box<str>>,
    /// The kind of the failures. Another kind is counted from the beginning.
    pub(super) kind: Option<Failure>,
    /// The operator lacks the permission for the call.
    pub(super) is_forbidden: bool,
}

impl Trouble {
    /// A first failure, which the status reports.
    pub fn new(block: Block) -> Self {
        let since = Monotonic::default();
        Self { failures: 1, block, since, is_reported: true, untimed: None, kind: None, is_forbidden: false }
    }

    /// The status reports it now: also if it is a short failure that has not ended for some time.
    pub(super) fn is_told(&self, now: Monotonic) -> bool {
        let may_be_short = matches!(self.kind, Some(Failure::Passing | Failure::Conflict));
        self.is_reported || (may_be_short && now.since(self.since) >= TOLD_AFTER)
    }

    /// Its call failed. After a first conflict it is made again at once, under another version.
    /// One that was not needed again for long tells nothing.
    fn has_failed(&self, now: Monotonic) -> bool {
        let is_fresh = self.block.until.is_none_or(|until| now.since(until) < FORGOTTEN_AFTER);
        is_fresh && self.failures > u32::from(self.kind == Some(Failure::Conflict))
    }
}

/// A call that took effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastDone {
    pub fingerprint: u64,
    pub at: Monotonic,
    /// How many times in a row the call was the same, each within an hour of the one before.
    pub repeats: u32,
}

impl ProcessMemory {
    /// The key with this id, if this process created it, and its attempt.
    pub fn minted(&self, id: &str) -> Option<(&AttemptId, &MintedKey)> {
        self.attempts.iter().find_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } | Progress::Stored { key, .. } if key.id == id => {
                Some((attempt, key))
            }
            _ => None,
        })
    }

    /// Whether the key with this id is that of an attempt of this process; `None`: this process did not create it.
    pub(super) fn ownership(&self, id: &str) -> Option<Ownership> {
        let attempt = self.minted(id)?.0;
        self.attempts.get(attempt).map(|known| known.ownership)
    }

    /// The attempt of this process whose key has this id.
    pub(super) fn attempt_of(&mut self, id: &str) -> Option<&mut Attempt> {
        let attempt = self.minted(id)?.0.clone();
        self.attempts.get_mut(&attempt).map(Box::as_mut)
    }

    /// What Boltz said to the key with this id, and when.
    pub(super) fn check_of(&self, id: &str) -> Option<&CheckedKey> {
        self.key_check.as_deref().filter(|checked| checked.key_id == id)
    }

    /// A write of the Secret got no response, and may take effect.
    pub fn has_calls_in_doubt(&self) -> bool {
        let in_doubt = |known: &Attempt| matches!(known.progress, Progress::InHand { calls_in_doubt, .. } if calls_in_doubt > 0);
        self.attempts.values().any(|known| in_doubt(known))
    }

    /// The keys in hand: their values exist only in this process.
    pub fn in_hand(&self) -> impl Iterator<Item = (&AttemptId, &MintedKey)> {
        self.attempts.iter().filter_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } => Some((attempt, key)),
            _ => None,
        })
    }

    /// Keys that only this process knows after their object is deleted: keys in hand, and keys that were stored while
    /// the object was deleted, so that no status named them. With `Retain`, the Secret keeps the latter.
    pub fn unreported_keys(&self, is_retained: bool) -> Vec<String> {
        let ids = self.attempts.values().filter_map(|known| match &known.progress {
            Progress::InHand { key, .. } => Some(&key.id),
            Progress::Stored { key, is_reported: false } if !is_retained => Some(&key.id),
            _ => None,
        });
        ids.filter(|id| !self.revoked_ids.contains(*id)).cloned().collect()
    }

    /// When a change by users ends the waits after failures.
    pub(super) fn retries_at(&self) -> Option<Monotonic> {
        self.requested_at.filter(|_| self.is_request_new)
    }

    /// The failure that blocks the slot now.
    pub fn trouble(&self, slot: &Slot, now: Monotonic) -> Option<&Trouble> {
        self.troubles.get(slot).filter(|trouble| trouble.block.is_in_effect(now))
    }

    /// Whether the last call of the slot failed.
    pub(super) fn has_failed(&self, slot: &Slot, now: Monotonic) -> bool {
        self.troubles.get(slot).is_some_and(|trouble| trouble.has_failed(now))
    }

    /// Whether a call of the same kind, for another workload or key, got no response, and this one was not tried.
    pub(super) fn hangs_like(&self, slot: &Slot, now: Monotonic) -> bool {
        let is_one_of_many =
            matches!(slot, Slot::Restart(_) | Slot::Rollout(_) | Slot::Revoke(_) | Slot::DeleteSecret(_));
        is_one_of_many
            && self.troubles.iter().any(|(other, trouble)| {
                std::mem::discriminant(other) == std::mem::discriminant(slot)
                    && other != slot
                    && trouble.kind == Some(Failure::Passing)
                    && trouble.has_failed(now)
            })
    }

    /// Call before C1. Until C1 is confirmed, the attempt counts as never sent. If the write takes effect later, it is
    /// harmless.
    pub fn mark_writing(&mut self, attempt: AttemptId, intent: Intent, now: Monotonic) {
        let intent = Some(Box::new(intent));
        let progress = Progress::Ended;
        let ownership = Ownership::Assumed;
        let known = Attempt { written: now, intent, progress, replaced: None, ownership };
        self.attempts.insert(attempt, Box::new(known));
    }

    /// Call before C2. Whatever the result, the POST is not sent again.
    pub fn mark_posting(&mut self, attempt: &AttemptId) -> Option<(&Attempt, &Intent)> {
        let known = self.attempts.get_mut(attempt)?;
        known.progress = Progress::Sent;
        let known: &Attempt = known;
        known.intent.as_deref().map(|intent| (known, intent))
    }

    /// Call before C3. Until its result is known, it may take effect.
    pub fn mark_storing(&mut self, attempt: &AttemptId) {
        if let Some(Progress::InHand { calls_in_doubt, .. }) =
            self.attempts.get_mut(attempt).map(|known| &mut known.progress)
        {
            *calls_in_doubt = calls_in_doubt.saturating_add(1);
        }
    }

    /// The Secret's name may be free now: retry immediately.
    pub(crate) fn lift_secret_troubles(&mut self) {
        self.foreign_secret = None;
        for slot in [Slot::Preflight, Slot::Store, Slot::Shape] {
            self.troubles.remove(&slot);
        }
    }
}

//! When the fate of an attempt is certain.

use super::{
    attempt::Progress,
    facts::{Doubt, Facts, Pass},
    settings::Settings,
    time::{Monotonic, Now, elapsed},
};
use crate::protocol::marker::AttemptId;
use std::time::Duration;

/// An attempt written this long ago is settled even if this process has just started. Longer than any clock error: a
/// clock set to local time is off by up to 14 hours.
const SETTLED_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Facts {
    /// When the attempt is settled: its POST can no longer take effect, and no process will store its key. That is one
    /// window and one settle time after this process first saw it, or immediately if it was written a day ago.
    pub fn settled_at(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> Monotonic {
        let written_at = self
            .object
            .ledger
            .entries
            .iter()
            .find(|entry| entry.attempt == *attempt)
            .map(|entry| entry.written_at);
        // Of its own attempts, this process knows better when they were written.
        if let Some(age) = written_at.map(|time| elapsed(time, now.wall))
            && age >= SETTLED_AFTER
            && !self.memory.attempts.contains_key(attempt)
        {
            return now.monotonic.minus(age - SETTLED_AFTER);
        }
        self.seen_to_settle_at(settings, now, attempt)
    }

    /// The same, by what this process saw itself: users can edit the times in the ledger. Only from then on the attempt
    /// may be forgotten, and a key of it that nothing names be revoked.
    pub(super) fn seen_to_settle_at(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> Monotonic {
        // A user may have removed an attempt of this process from the ledger while its key is not stored yet.
        let written = self.memory.attempts.get(attempt).map(|known| known.written);
        let seen = self.memory.first_seen.get(attempt.as_str()).copied().or(written);
        seen.unwrap_or(now.monotonic).plus(settings.settling())
    }

    /// If the ledger is a forgery: from when on a pass shows every key of an attempt that it may have listed. No process
    /// that saw the forgery has written an attempt since.
    pub(super) fn forgery_settles_at(&self, settings: &Settings, now: Now) -> Option<Monotonic> {
        self.object.ledger.forgery?;
        Some(self.memory.forged_since.unwrap_or(now.monotonic).plus(settings.settling()))
    }

    /// The pass that shows this.
    pub(super) fn pass_after_forgery(&self, settings: &Settings, now: Now) -> Option<&Pass> {
        let settles_at = self.forgery_settles_at(settings, now)?;
        self.passes.first().filter(|pass| pass.doubt == Doubt::None && pass.started >= settles_at)
    }

    /// Whether the attempt is settled.
    pub fn is_settled(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        self.settled_at(settings, now, attempt) <= now.monotonic
    }

    /// Whether the attempt is over: a pass that began after it was settled shows no active key of it.
    pub fn is_over(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        let settled_at = self.seen_to_settle_at(settings, now, attempt);
        let entry = self.object.ledger.entries.iter().find(|entry| entry.attempt == *attempt);
        let is_other = entry.is_some_and(|entry| self.is_elsewhere(entry));
        self.passes.first().is_some_and(|pass| {
            pass.doubt == Doubt::None
                && !is_other
                && settled_at <= now.monotonic
                && pass.started >= settled_at
                && !pass.keys.iter().any(|key| {
                    key.attempt == *attempt
                        && key.is_active_at(now.wall)
                        && !self.memory.revoked_ids.contains(&key.id)
                })
        })
    }

    /// Whether this process wrote the attempt and knows its result: the POST was not and will not be sent, or the key is
    /// revoked.
    pub fn knows_result(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        self.memory.attempts.get(attempt).is_some_and(|known| match &known.progress {
            Progress::Written => {
                self.object.deleting || known.written.plus(settings.window()) <= now.monotonic
            }
            Progress::Sent => false,
            Progress::InHand { key, .. } | Progress::Stored { key, .. } => {
                self.memory.revoked_ids.contains(&key.id)
            }
            Progress::Ended => true,
        })
    }
}

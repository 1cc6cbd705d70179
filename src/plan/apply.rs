//! Applies a result: changes process memory, sets how long a step waits after a failure, and collects counters, events
//! and log lines. Pure, like the decision.

use super::{
    answer::{Answer, ApiFailure, BoltzErrorKind, BoltzFailure, Effect, Verdict},
    attempt::{MintedKey, Progress},
    block::{Block, Reason},
    effects::{Count, Effects, EventKind, transitions},
    facts::{Facts, Settings},
    memory::{LastDone, ProcessMemory, Trouble},
    retry::{Failure, retry_backoff},
    step::{RevokeReason, Slot, Step},
    time::{Monotonic, Now},
};
use crate::protocol::{
    marker::AttemptId,
    record::{PreviousKey, Record},
};
use std::time::Duration;

/// If the same call is needed again within this time, something undoes it.
const UNDONE_WITHIN: Duration = Duration::from_secs(3600);
/// After more consecutive failures than this the status reports the failure.
const FAILURES_UNREPORTED: u32 = 2;

impl ProcessMemory {
    /// Applies the result of a step. `facts` are those on which the step was decided. `jitter`, from 0 to 1, spreads the
    /// retries of objects that failed at the same time.
    pub fn apply(
        &mut self,
        step: &Step,
        answer: Answer,
        facts: &Facts,
        now: Now,
        settings: &Settings,
        jitter: f64,
    ) -> Effects {
        let mut effects = Effects::default();
        let Some(slot) = step.slot() else { return effects };
        self.settle_doubt(step, &answer);
        let mut failing = Failing { memory: self, slot, now, settings, jitter };
        match answer {
            Answer::Done | Answer::Minted(_) | Answer::AlreadyRevoked => {
                failing.succeeded(step, facts);
                self.done(step, answer, facts, &mut effects);
            }
            Answer::Undone(missing) => {
                let reason = failing.reason();
                let message = format!(
                    "The API server accepted a write of the operator, but {missing}. An admission webhook or policy may \
                     have changed it."
                );
                failing.failed(Failure::Refused, reason, message, None, true);
                failing.count_failure(reason, &mut effects);
            }
            Answer::Stale => self.must_read = true,
            Answer::Postponed(block) => failing.set(1, block, true),
            Answer::Gone => effects.is_gone = true,
            Answer::KeyNotFound => {
                if let Step::Revoke { key_id, .. } = step {
                    let message = format!(
                        "Failed to revoke key {key_id}: Boltz responded with 404. The key counts as revoked when Boltz's \
                         list does not show it as active. Until then, the operator will retry."
                    );
                    failing.failed(Failure::Refused, Reason::BoltzRejected, message, None, false);
                    self.not_found.insert(key_id.clone(), now.monotonic);
                    effects.log(
                        EventKind::Warning,
                        "failed to revoke a key: Boltz responded with 404",
                        Some(key_id),
                        "",
                    );
                }
            }
            Answer::ApiFailed(failure) => failing.api_failed(step, &failure, &mut effects),
            Answer::BoltzFailed(failure) => failing.boltz_failed(step, &failure, &mut effects),
        }
        if let Step::RemoveFinalizer { retained_keys } = step
            && effects.is_gone
            && !retained_keys.is_empty()
        {
            let ids = retained_keys.join(", ");
            effects.log(EventKind::Warning, "deleted the object without revoking its keys", None, &ids);
            let note = format!(
                "The object was deleted without revoking its keys. These keys are still valid at Boltz: {ids}."
            );
            effects.event(EventKind::Warning, "KeysRetained", note);
        }
        effects
    }

    /// C2 and C3: updates whether the call may still take effect.
    fn settle_doubt(&mut self, step: &Step, answer: &Answer) {
        let attempt = match step {
            Step::Mint(attempt) | Step::Store { attempt, .. } => attempt,
            _ => return,
        };
        let Some(known) = self.attempts.get_mut(attempt) else { return };
        match (&mut known.progress, answer) {
            (Progress::Sent, Answer::BoltzFailed(BoltzFailure { effect: Effect::None, .. })) => {
                known.progress = Progress::Written;
            }
            (Progress::InHand { calls_in_doubt, .. }, Answer::Stale) => {
                *calls_in_doubt = calls_in_doubt.saturating_sub(1);
            }
            (Progress::InHand { calls_in_doubt, is_refused, .. }, Answer::ApiFailed(failure)) => {
                if failure.verdict != Verdict::Unknown {
                    *calls_in_doubt = calls_in_doubt.saturating_sub(1);
                }
                *is_refused |= matches!(failure.verdict, Verdict::Refused | Verdict::NotFound);
            }
            // The Secret contains the key but no record of it, so the key would later count as altered.
            (Progress::InHand { calls_in_doubt, is_refused, .. }, Answer::Undone(_)) => {
                *calls_in_doubt = calls_in_doubt.saturating_sub(1);
                *is_refused = true;
            }
            _ => {}
        }
    }

    fn done(&mut self, step: &Step, answer: Answer, facts: &Facts, effects: &mut Effects) {
        match step {
            Step::Mint(attempt) => {
                if let Answer::Minted(key) = answer {
                    self.minted_key(attempt, *key);
                }
            }
            Step::Store { attempt, record } => self.stored(attempt, record, facts, effects),
            Step::WriteStatus(status) => {
                for event in transitions(&facts.object.status, status) {
                    effects.log(event.kind, "the status changed", None, event.note.as_str());
                    effects.events.push(event);
                }
            }
            Step::Revoke { key_id, reason } => {
                self.mark_revoked(key_id);
                self.report_revoked(key_id, *reason, answer == Answer::Done, facts, effects);
            }
            Step::RestartWorkload { target, key_id } => {
                self.restarted.insert(target.to_string(), key_id.clone());
                let note = format!("Restarted {target} to load key {key_id}.");
                effects.event(EventKind::Normal, "Restarted", note);
            }
            Step::ReleaseSecret { .. } => self.must_read = true,
            Step::WriteAttempt { .. }
            | Step::Wait
            | Step::ReadLive
            | Step::Preflight
            | Step::AddFinalizer
            | Step::WriteRecord(_)
            | Step::MoveSecret { .. }
            | Step::DeleteSecret { .. }
            | Step::Reshape
            | Step::RemoveFinalizer { .. } => {}
        }
    }

    /// C1 is confirmed: the POST of the attempt may be sent.
    pub fn mark_written(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::Written;
            self.first_seen.insert(attempt.to_string(), known.written);
        }
    }

    fn minted_key(&mut self, attempt: &AttemptId, key: MintedKey) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::InHand { key, calls_in_doubt: 0, is_refused: false };
        }
    }

    fn stored(&mut self, attempt: &AttemptId, record: &Record, facts: &Facts, effects: &mut Effects) {
        if let Some(known) = self.attempts.get_mut(attempt)
            && let Progress::InHand { key, .. } = &known.progress
        {
            known.progress = Progress::Stored { key: key.clone(), is_reported: false };
        }
        self.troubles.remove(&Slot::Preflight);
        let reason = record.reason.as_str();
        effects.counts.push(Count::Issued(reason));
        effects.log(EventKind::Normal, "issued a key", Some(&record.key_id), reason);
        if record.rotations > 0 {
            let replaced = facts.record().map(|record| &record.key_id);
            let replaced = record.previous.iter().find(|key| replaced == Some(&key.key_id));
            effects.event(EventKind::Normal, "Rotated", rotation_note(&record.key_id, reason, replaced));
        }
    }

    /// Collects what to report about a revocation. If the key was used after its replacement was issued, a workload may
    /// not have loaded the new key.
    fn report_revoked(
        &self,
        key_id: &str,
        reason: RevokeReason,
        is_new: bool,
        facts: &Facts,
        effects: &mut Effects,
    ) {
        if is_new {
            effects.counts.push(Count::Revoked(reason.as_str()));
            if reason == RevokeReason::Stray {
                effects.counts.push(Count::StrayRevoked);
            }
        }
        effects.log(EventKind::Normal, "revoked a key", Some(key_id), reason.as_str());
        let mut note = format!("Revoked key {key_id} ({}).", reason.as_str());
        let was_replaced =
            matches!(reason, RevokeReason::OverlapOver | RevokeReason::RotateNow | RevokeReason::OverlapCut);
        let replaced_at = facts.record().filter(|_| was_replaced).map(|record| record.issued_at);
        let last_used_at = facts.listed(key_id).and_then(|listed| listed.last_used_at);
        let mut kind = match reason {
            RevokeReason::OverlapOver | RevokeReason::RotateNow | RevokeReason::Deleted => EventKind::Normal,
            RevokeReason::OverlapCut
            | RevokeReason::Stray
            | RevokeReason::NotStored
            | RevokeReason::Orphan => EventKind::Warning,
        };
        if let (Some(used), Some(replaced)) = (last_used_at, replaced_at)
            && used > replaced
        {
            kind = EventKind::Warning;
            note =
                format!("{note} It was still in use after its replacement was issued; last use: {used:.0}.");
        }
        effects.event(kind, "Revoked", note);
    }
}

/// A slot whose call has a result.
struct Failing<'a> {
    memory: &'a mut ProcessMemory,
    slot: Slot,
    now: Now,
    settings: &'a Settings,
    jitter: f64,
}

impl Failing<'_> {
    fn succeeded(&mut self, step: &Step, facts: &Facts) {
        self.memory.troubles.remove(&self.slot);
        let Some(fingerprint) = step.fingerprint(facts) else { return };
        let at = self.now.monotonic;
        let again = self
            .memory
            .done
            .get(&self.slot)
            .filter(|last| last.fingerprint == fingerprint && at.since(last.at) < UNDONE_WITHIN);
        let repeats = again.map_or(0, |last| last.repeats.saturating_add(1));
        self.memory.done.insert(self.slot.clone(), LastDone { fingerprint, at, repeats });
    }

    fn failures(&self) -> u32 {
        self.memory.troubles.get(&self.slot).map_or(0, |trouble| trouble.failures)
    }

    fn set(&mut self, failures: u32, block: Block, is_reported: bool) {
        self.memory.troubles.insert(self.slot.clone(), Trouble { failures, block, is_reported });
    }

    /// Counts one more failure and extends the wait of the slot.
    fn failed(
        &mut self,
        failure: Failure,
        reason: Reason,
        message: String,
        retry_after: Option<Duration>,
        is_reported: bool,
    ) -> Monotonic {
        let failures = self.failures().saturating_add(1);
        let backoff = retry_backoff(&self.slot, failure, self.settings);
        let until = self.now.monotonic.plus(backoff.jittered(failures, self.jitter, retry_after));
        let is_reported = is_reported || failures > FAILURES_UNREPORTED;
        self.set(failures, Block { reason, message, until: Some(until) }, is_reported);
        until
    }

    /// The condition reason for a failure of the API server.
    fn reason(&self) -> Reason {
        match self.slot {
            Slot::Preflight
            | Slot::Store
            | Slot::Read
            | Slot::Record
            | Slot::Shape
            | Slot::DeleteSecret(_)
            | Slot::Release => Reason::SecretWriteFailed,
            Slot::Restart(_) => Reason::RestartFailed,
            Slot::Ledger | Slot::Mint | Slot::Status | Slot::Revoke(_) | Slot::Finalizer => {
                Reason::ObjectWriteFailed
            }
        }
    }

    /// What failed, as the beginning of a sentence.
    fn what(&self) -> String {
        match &self.slot {
            Slot::Preflight | Slot::Store => "Failed to write the Secret".to_owned(),
            Slot::Read => "Failed to read the object and its Secret".to_owned(),
            Slot::Ledger => "Failed to record the attempt to issue a key on the object".to_owned(),
            Slot::Status => "Failed to update the status".to_owned(),
            Slot::Finalizer => "Failed to update the finalizers of the object".to_owned(),
            Slot::Record => "Failed to update the record on the Secret".to_owned(),
            Slot::Shape => "Failed to update the Secret to match spec.secret".to_owned(),
            Slot::DeleteSecret(name) => format!("Failed to delete the old Secret {name}"),
            Slot::Restart(target) => format!("Failed to restart {target}"),
            Slot::Release => "Failed to remove the ownerReference of the Secret".to_owned(),
            Slot::Mint => "Failed to create a key at Boltz".to_owned(),
            Slot::Revoke(key_id) => format!("Failed to revoke key {key_id}"),
        }
    }

    /// Counts a failed attempt to issue or store a key.
    fn count_failure(&self, reason: Reason, effects: &mut Effects) {
        if matches!(self.slot, Slot::Preflight | Slot::Store | Slot::Ledger | Slot::Mint) {
            effects.counts.push(Count::IssueFailed(reason.as_str()));
        }
    }

    fn api_failed(&mut self, step: &Step, failure: &ApiFailure, effects: &mut Effects) {
        let reason = if failure.by_policy { Reason::PolicyDenied } else { self.reason() };
        let failed = format!("{}: {}", self.what(), failure.message.trim_end_matches('.'));
        let message = format!("{failed}. The operator will retry.");
        effects.counts.push(Count::StepFailed);
        let line = match step {
            Step::Store { .. } => "a key was not stored",
            _ => "a call to the API server failed",
        };
        effects.log(EventKind::Warning, line, None, failed.as_str());
        match failure.verdict {
            Verdict::Conflict => {
                self.memory.must_read = true;
                // A first conflict is normal. The next read resolves it.
                if self.failures() == 0 {
                    let at_once = Block { reason, message, until: Some(self.now.monotonic) };
                    self.set(1, at_once, false);
                } else {
                    self.failed(Failure::Conflict, reason, message, None, false);
                }
            }
            Verdict::NotFound if matches!(step, Step::RestartWorkload { .. }) => {
                // A workload that does not exist does not use the old key.
                if let Step::RestartWorkload { target, key_id } = step {
                    self.memory.restarted.insert(target.to_string(), key_id.clone());
                }
                effects.event(EventKind::Warning, "RestartFailed", format!("{failed}."));
            }
            Verdict::Refused | Verdict::NotFound => {
                if self.failures() == 0 && matches!(step, Step::RestartWorkload { .. }) {
                    effects.event(EventKind::Warning, "RestartFailed", message.clone());
                }
                // The Secret or the object may have been deleted: read.
                self.memory.must_read |=
                    failure.verdict == Verdict::NotFound || matches!(step, Step::Store { .. });
                self.count_failure(reason, effects);
                self.failed(Failure::Refused, reason, message, None, true);
            }
            Verdict::Unknown => {
                // The call may have taken effect: read.
                self.memory.must_read |= *step != Step::ReadLive && *step != Step::Preflight;
                self.count_failure(reason, effects);
                self.failed(Failure::Passing, reason, message, None, false);
            }
        }
    }

    fn boltz_failed(&mut self, step: &Step, failure: &BoltzFailure, effects: &mut Effects) {
        let (reason, kind) = match failure.kind {
            BoltzErrorKind::Unauthorized => (Reason::BoltzUnauthorized, Failure::Refused),
            BoltzErrorKind::Invalid => (Reason::BoltzRejected, Failure::Invalid),
            BoltzErrorKind::Refused => (Reason::BoltzRejected, Failure::Refused),
            BoltzErrorKind::RateLimited => (Reason::RateLimited, Failure::Passing),
            BoltzErrorKind::Unavailable => (Reason::BoltzUnavailable, Failure::Passing),
        };
        let failed = format!("{}: {}.", self.what(), failure.message);
        let is_reported = kind != Failure::Passing || matches!(step, Step::Mint(_));
        let until = self.failed(kind, reason, failed.clone(), failure.retry_after, is_reported);
        if let Some(trouble) = self.memory.troubles.get_mut(&self.slot) {
            trouble.block.message = if kind == Failure::Passing {
                format!("{failed} The operator will retry.")
            } else {
                let at = super::time::later(self.now.wall, until.since(self.now.monotonic));
                format!(
                    "{failed} The next retry is at {at:.0}, or when the spec or the annotation boltz.bio/retry changes."
                )
            };
        }
        self.count_failure(reason, effects);
        let message = match step {
            Step::Mint(_) => "failed to create a key",
            _ => "failed to revoke a key",
        };
        let key_id = match step {
            Step::Revoke { key_id, .. } => Some(key_id.as_str()),
            _ => None,
        };
        effects.log(EventKind::Warning, message, key_id, failure.message.as_str());
    }
}

/// The note of the event `Rotated`. A key that is revoked immediately has no overlap to mention.
fn rotation_note(key_id: &str, reason: &str, replaced: Option<&PreviousKey>) -> String {
    let note = format!("Issued key {key_id} ({reason}).");
    match replaced.filter(|key| !key.even_if_used) {
        Some(PreviousKey { key_id, revoke_after, .. }) => {
            format!("{note} The previous key {key_id} stays valid until {revoke_after:.0}.")
        }
        None => note,
    }
}

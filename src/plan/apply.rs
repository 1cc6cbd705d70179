//! Applies a result: changes process memory, sets how long a step waits after a failure, and collects counters, events
//! and log lines. Pure, like the decision.

use super::{
    answer::{Answer, BoltzFailure, Effect, Verdict},
    attempt::{MintedKey, Progress},
    effects::{Count, Effects, EventKind, transitions},
    facts::{Facts, SecretFacts},
    failing::Failing,
    memory::{ProcessMemory, Proof},
    rollout::Rollout,
    settings::Settings,
    step::{RevokeReason, Slot, Step},
    time::{Now, earlier},
    window::Window,
};
use crate::{
    api::annotations::RECORD_ANNOTATION,
    protocol::{
        marker::AttemptId,
        record::{IssueReason, PreviousKey, Record},
    },
};
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
        let had_no_effect =
            matches!(step, Step::Revoke { key_id, .. } if self.revoked_without_effect.contains(key_id));
        let mut failing = Failing { memory: self, slot, now, settings, jitter };
        match answer {
            Answer::KeyNotFound => failing.record_unconfirmed(step, "Boltz responded with 404", &mut effects),
            Answer::Done | Answer::AlreadyRevoked if had_no_effect => {
                failing.record_unconfirmed(
                    step,
                    "Boltz accepts the revocation, but still lists the key as active",
                    &mut effects,
                );
            }
            Answer::Done | Answer::Minted(_) | Answer::AlreadyRevoked => {
                failing.record_success(step, facts);
                self.done(step, answer, facts, now, &mut effects);
            }
            Answer::Undone(missing) => failing.record_undone(&missing, &mut effects),
            Answer::Unrecorded => {
                failing.record_undone(
                    &format!("the annotation {RECORD_ANNOTATION} is missing on the Secret"),
                    &mut effects,
                );
                // Workloads use it. It is replaced like a key whose Secret was altered, and keeps its overlap.
                if let Step::Store { attempt, .. } = step {
                    self.mark_stored(attempt);
                    self.must_read = true;
                }
            }
            Answer::MintedUnusable(key, unusable) => {
                failing.minted_unusable(&key, &unusable, &mut effects);
                if let Step::Mint(attempt) = step
                    && unusable.is_ours()
                {
                    self.minted_key(attempt, *key, true);
                }
            }
            Answer::Checked(check) => {
                if let Step::CheckKey { key_id, .. } = step {
                    failing.record_check(key_id, check);
                }
            }
            Answer::RolloutRead(rollout) => {
                failing.record_success(step, facts);
                if let Step::ReadRollout { target, key_id } = step {
                    self.read_rollout(target, key_id, rollout, facts, now, &mut effects);
                }
            }
            Answer::Stale => self.must_read = true,
            Answer::Postponed(block) => failing.postpone(block),
            Answer::Gone => effects.is_gone = true,
            Answer::ApiFailed(failure) => failing.api_failed(step, &failure, facts, &mut effects),
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
            _ => {}
        }
    }

    fn done(&mut self, step: &Step, answer: Answer, facts: &Facts, now: Now, effects: &mut Effects) {
        match step {
            Step::Mint(attempt) => {
                if let Answer::Minted(key) = answer {
                    self.minted_key(attempt, *key, false);
                }
            }
            Step::Store { attempt, record } => self.finish_store(attempt, record, facts, now, effects),
            Step::WriteStatus(status) => {
                for event in transitions(&facts.object.status, status) {
                    effects.log(event.kind, "the status changed", None, event.note.as_str());
                    effects.events.push(event);
                }
            }
            Step::Revoke { key_id, reason } => {
                self.mark_revoked(key_id, now.monotonic, Proof::Response);
                self.report_revoked(key_id, *reason, answer == Answer::Done, facts, effects);
            }
            Step::RestartWorkload { target, key_id } => {
                self.saw_rollout(target, key_id, Rollout::Restarted, now);
                let note = format!("Restarted {target} to load key {key_id}.");
                effects.event(EventKind::Normal, "Restarted", note);
            }
            Step::ReleaseSecret { .. } => self.must_read = true,
            Step::WriteAttempt { .. }
            | Step::Wait
            | Step::ReadLive
            | Step::Preflight
            | Step::CheckKey { .. }
            | Step::ReadRollout { .. }
            | Step::WriteLedger(_)
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

    fn minted_key(&mut self, attempt: &AttemptId, key: MintedKey, is_refused: bool) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::InHand { key, calls_in_doubt: 0, is_refused };
        }
    }

    fn mark_stored(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.get_mut(attempt)
            && let Progress::InHand { key, .. } = &known.progress
        {
            known.progress = Progress::Stored { key: key.clone(), is_reported: false };
            known.intent = None;
        }
    }

    /// The object has a rotation window, and it was closed when the attempt was written.
    fn began_outside_window(&self, attempt: &AttemptId, facts: &Facts, now: Now) -> bool {
        let window = facts.object.spec.as_ref().ok().and_then(|spec| spec.rotation.window.as_ref());
        let window = window.and_then(|window| Window::read(window).ok());
        let written = self.attempts.get(attempt).map_or(now.monotonic, |known| known.written);
        window.is_some_and(|window| !window.is_open(earlier(now.wall, now.monotonic.since(written))))
    }

    fn finish_store(
        &mut self,
        attempt: &AttemptId,
        record: &Record,
        facts: &Facts,
        now: Now,
        effects: &mut Effects,
    ) {
        self.mark_stored(attempt);
        self.troubles.remove(&Slot::Preflight);
        let reason = record.reason.as_str();
        effects.counts.push(Count::Issued(reason));
        effects.log(EventKind::Normal, "issued a key", Some(&record.key_id), reason);
        if record.rotations > 0 {
            let replaced = facts.record().map(|record| &record.key_id);
            let replaced = record.previous.iter().find(|key| replaced == Some(&key.key_id));
            let mut note = rotation_note(&record.key_id, reason, replaced, facts.ends_early());
            if self.began_outside_window(attempt, facts, now) {
                note = match record.reason {
                    IssueReason::RotateRequested => {
                        format!("{note} It was requested outside the rotation window.")
                    }
                    _ => format!("{note} It could not wait for the rotation window."),
                };
            }
            effects.event(EventKind::Normal, "Rotated", note);
        }
        if let SecretFacts::Adoptable(found) = &facts.secret {
            effects.event(EventKind::Normal, "Adopted", found.note(record));
        }
        // The operator moved to another organization.
        let is_left = |key: &&PreviousKey| facts.is_other(key.organization.as_ref());
        let left: Vec<&str> = record.previous.iter().filter(is_left).map(|key| key.key_id.as_str()).collect();
        if let Some(former) = facts.record().and_then(|record| record.organization.as_ref())
            && facts.is_other(Some(former))
            && !left.is_empty()
        {
            let ours = facts.account.organization.as_deref().unwrap_or_default();
            let note = format!(
                "The operator moved this object to the Boltz organization {ours}. These keys stay valid in {former}, where \
                 the operator cannot revoke them: {}.",
                left.join(", ")
            );
            effects.event(EventKind::Warning, "KeysLeftBehind", note);
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
        let was_replaced = matches!(
            reason,
            RevokeReason::OverlapOver
                | RevokeReason::RolledOut
                | RevokeReason::RotateNow
                | RevokeReason::OverlapCut
        );
        let replaced_at = facts.record().filter(|_| was_replaced).map(|record| record.issued_at);
        let last_used_at = facts.listed(key_id).and_then(|listed| listed.last_used_at);
        let mut kind = match reason {
            RevokeReason::OverlapOver
            | RevokeReason::RolledOut
            | RevokeReason::RotateNow
            | RevokeReason::Deleted => EventKind::Normal,
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

/// The note of the event `Rotated`. A key that is revoked immediately has no overlap to mention.
fn rotation_note(key_id: &str, reason: &str, replaced: Option<&PreviousKey>, ends_early: bool) -> String {
    let note = format!("Issued key {key_id} ({reason}).");
    match replaced.filter(|key| !key.even_if_used) {
        Some(PreviousKey { key_id, revoke_after, .. }) => {
            let at_latest = if ends_early { " at the latest" } else { "" };
            format!("{note} The previous key {key_id} stays valid until {revoke_after:.0}{at_latest}.")
        }
        None => note,
    }
}

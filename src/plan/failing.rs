//! A call that failed or succeeded, and its slot: how long the slot waits, and what is reported.

use super::{
    answer::{ApiFailure, BoltzErrorKind, BoltzFailure, Effect, Unusable, Verdict},
    attempt::MintedKey,
    block::{Block, Reason},
    effects::{Count, Effects, EventKind},
    facts::Facts,
    memory::{LastDone, ProcessMemory, Trouble},
    retry::{Failure, retry_backoff},
    rollout::Rollout,
    settings::Settings,
    step::{Slot, Step},
    time::{Monotonic, Now, later},
};
use std::time::Duration;

/// If the same call is needed again within this time, something undoes it.
const UNDONE_WITHIN: Duration = Duration::from_secs(3600);
/// After more consecutive failures than this the status reports the failure.
pub(super) const FAILURES_UNREPORTED: u32 = 2;
/// After more consecutive rejections than this, one that may pass counts as one that stays.
const FAILURES_THAT_PASS: u32 = 4;

/// The slots of writes of the Secret that contains the key, which a change of it may cure.
pub(super) const SECRET_SLOTS: [Slot; 4] = [Slot::Preflight, Slot::Record, Slot::Shape, Slot::Release];

/// A slot whose call has a result.
pub(super) struct Failing<'a> {
    pub(super) memory: &'a mut ProcessMemory,
    pub(super) slot: Slot,
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) jitter: f64,
}

impl Failing<'_> {
    pub(super) fn record_success(&mut self, step: &Step, facts: &Facts) {
        self.memory.troubles.remove(&self.slot);
        if self.is_of_secret() {
            self.memory.refused_version = None;
        }
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

    /// Its call writes the Secret that contains the key.
    fn is_of_secret(&self) -> bool {
        SECRET_SLOTS.contains(&self.slot)
    }

    pub(super) fn failures(&self) -> u32 {
        self.memory.troubles.get(&self.slot).map_or(0, |trouble| trouble.failures)
    }

    fn set(&mut self, kind: Option<Failure>, failures: u32, block: Block, is_reported: bool) {
        let before = self.memory.troubles.get(&self.slot);
        let since = before.filter(|last| last.kind == kind).map_or(self.now.monotonic, |last| last.since);
        let (untimed, is_forbidden) = (None, false);
        let trouble = Trouble { failures, block, since, is_reported, untimed, kind, is_forbidden };
        self.memory.troubles.insert(self.slot.clone(), trouble);
    }

    /// The message also says when the next try is.
    fn tell_time(&mut self, failed: String) {
        let now = self.now;
        let Some(trouble) = self.memory.troubles.get_mut(&self.slot) else { return };
        if let Some(until) = trouble.block.until {
            trouble.block.message = timed(&failed, until, now);
            trouble.untimed = Some(failed.into());
        }
    }

    /// No call was made. What failed before still counts, and is still reported.
    pub(super) fn postpone(&mut self, mut block: Block) {
        // A reason without an end may be gone at any moment.
        block.until.get_or_insert(self.now.monotonic.plus(self.settings.recheck));
        match self.memory.troubles.get_mut(&self.slot) {
            Some(last) if last.is_reported => {
                last.block.until = block.until;
                if let (Some(failed), Some(until)) = (&last.untimed, block.until) {
                    last.block.message = timed(failed, until, self.now);
                }
            }
            Some(last) => last.block = block,
            None => self.set(None, 0, block, false),
        }
    }

    /// Counts one more failure and extends the wait of the slot.
    pub(super) fn record_failure(
        &mut self,
        failure: Failure,
        reason: Reason,
        message: String,
        retry_after: Option<Duration>,
        is_reported: bool,
    ) {
        let last = self.memory.troubles.get(&self.slot);
        let failures = last.filter(|last| last.kind.is_none_or(|kind| kind == failure));
        let failures = failures.map_or(0, |last| last.failures).saturating_add(1);
        let mut backoff = retry_backoff(&self.slot, failure, self.settings);
        let is_refused = |slot: &Slot| {
            let trouble = self.memory.troubles.get(slot).filter(|_| *slot != self.slot);
            trouble.is_some_and(|trouble| trouble.kind == Some(Failure::Refused))
        };
        // Together they make no more calls than each alone; and so if each retry also costs a read.
        let costs_more = self.memory.must_read || SECRET_SLOTS.iter().any(is_refused);
        if self.is_of_secret() && failure == Failure::Refused && costs_more {
            backoff.longest *= 2;
        }
        let until = self.now.monotonic.plus(backoff.jittered(failures, self.jitter, retry_after));
        let is_reported = is_reported || failures > FAILURES_UNREPORTED;
        self.set(Some(failure), failures, Block { reason, message, until: Some(until) }, is_reported);
    }

    /// Counts a failed attempt to issue, store or revoke a key.
    pub(super) fn count_failure(&self, reason: Reason, effects: &mut Effects) {
        match self.slot {
            Slot::Preflight | Slot::Store | Slot::Ledger | Slot::Mint => {
                effects.counts.push(Count::IssueFailed(reason.as_str()));
            }
            Slot::Revoke(_) => effects.counts.push(Count::RevokeFailed(reason.as_str())),
            _ => {}
        }
    }

    pub(super) fn api_failed(
        &mut self,
        step: &Step,
        failure: &ApiFailure,
        facts: &Facts,
        effects: &mut Effects,
    ) {
        let reason = if failure.by_policy { Reason::PolicyDenied } else { self.slot.failure_reason() };
        let failed = format!("{}: {}", self.slot.failure(), failure.message.trim_end_matches('.'));
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
                    self.set(Some(Failure::Conflict), 1, at_once, false);
                } else {
                    self.record_failure(Failure::Conflict, reason, message, None, false);
                }
            }
            Verdict::NotFound if matches!(step, Step::RestartWorkload { .. }) => {
                // A workload that does not exist does not use the old key.
                if let Step::RestartWorkload { target, key_id } = step {
                    self.memory.saw_rollout(target, key_id, Rollout::Missing, self.now);
                }
                effects.event(EventKind::Warning, "RestartFailed", format!("{failed}."));
            }
            // The status of the restart says so, not a condition: the key is not concerned.
            _ if matches!(step, Step::ReadRollout { .. }) => {
                let kind = match failure.verdict {
                    Verdict::Unknown => Failure::Passing,
                    _ => Failure::Refused,
                };
                self.record_failure(kind, reason, message, None, false);
                if kind == Failure::Refused || self.failures() > FAILURES_UNREPORTED {
                    self.memory.cannot_read_rollout(step, failure, facts, self.now, effects);
                }
            }
            Verdict::Refused | Verdict::NotFound => {
                if self.failures() == 0 && matches!(step, Step::RestartWorkload { .. }) {
                    effects.event(EventKind::Warning, "RestartFailed", message.clone());
                }
                // The Secret or the object may have been deleted: read.
                self.memory.must_read |=
                    failure.verdict == Verdict::NotFound || matches!(step, Step::Store { .. });
                if self.is_of_secret() {
                    let version = facts.current_secret().map(|secret| secret.resource_version.clone());
                    self.memory.refused_version = Some(version.unwrap_or_default());
                }
                self.count_failure(reason, effects);
                self.record_failure(Failure::Refused, reason, message, None, true);
            }
            Verdict::Unknown => {
                // The call may have taken effect: read.
                self.memory.must_read |= step.may_leave_facts_stale();
                self.count_failure(reason, effects);
                self.record_failure(Failure::Passing, reason, message, None, false);
            }
        }
        if let Some(trouble) = self.memory.troubles.get_mut(&self.slot) {
            trouble.is_forbidden = failure.is_forbidden;
        }
    }

    /// The API server accepted a write, and its response shows that it had no effect.
    pub(super) fn record_undone(&mut self, missing: &str, effects: &mut Effects) {
        let reason = self.slot.failure_reason();
        let message = format!(
            "The API server accepted a write of the operator, but {missing}. An admission webhook or policy may have \
             changed it."
        );
        self.record_failure(Failure::Refused, reason, message, None, true);
        // Each try changes the version.
        self.memory.refused_version = None;
        self.count_failure(reason, effects);
    }

    /// A revocation whose answer does not prove that the key is revoked.
    pub(super) fn record_unconfirmed(&mut self, step: &Step, answer: &str, effects: &mut Effects) {
        let Step::Revoke { key_id, .. } = step else { return };
        let failed = format!(
            "Failed to revoke key {key_id}: {answer}. The key counts as revoked when Boltz's list does not show it as \
             active."
        );
        let is_reported = self.memory.revoked_without_effect.contains(key_id);
        self.record_failure(Failure::Refused, Reason::BoltzRejected, String::new(), None, is_reported);
        self.tell_time(failed);
        self.count_failure(Reason::BoltzRejected, effects);
        self.memory.perhaps_revoked.insert(key_id.clone(), self.now.monotonic);
        effects.log(EventKind::Warning, "failed to revoke a key", Some(key_id), answer);
    }

    /// A new key that must not be used. Each retry creates and revokes a key.
    pub(super) fn minted_unusable(&mut self, key: &MintedKey, unusable: &Unusable, effects: &mut Effects) {
        let (reason, message) = match unusable {
            Unusable::OtherName(name) => (
                Reason::NamesAltered,
                format!(
                    "Boltz named the new key {} \"{name}\", which is not the requested name. The key cannot be found \
                     again by its name, so it is revoked.",
                    key.id
                ),
            ),
            Unusable::NoName => (
                Reason::BoltzUnavailable,
                format!(
                    "Boltz's response to a request for a key does not contain the name of the new key {}, so the key is \
                     revoked. The operator will retry.",
                    key.id
                ),
            ),
            Unusable::OtherMode => (
                Reason::BoltzRejected,
                format!(
                    "The new key {} is a {} key, which was not requested, so it is revoked. The operator will retry.",
                    key.id,
                    if key.livemode { "live" } else { "test-mode" }
                ),
            ),
            Unusable::Inactive => (
                Reason::BoltzRejected,
                format!(
                    "Boltz responded to a request for a key with key {}, which is not active, so it is not used. The operator \
                     will retry.",
                    key.id
                ),
            ),
            Unusable::KeyOfAnother(name) => (
                Reason::BoltzUnavailable,
                format!(
                    "Boltz responded to a request for a key with key {} of another request (\"{name}\"). The key is not \
                     used. A proxy between the operator and Boltz may repeat old responses. The operator will retry.",
                    key.id
                ),
            ),
            Unusable::OtherWorkspace(workspace) => (
                Reason::BoltzRejected,
                format!(
                    "Boltz created the new key {} in workspace {workspace}, which is not the requested workspace, so it is \
                     revoked. The operator will retry.",
                    key.id
                ),
            ),
            Unusable::Expired => (
                Reason::ClockSkew,
                format!(
                    "The new key {} had already expired when it arrived, so it is revoked. Check the clock of the \
                     operator's node, and the metric boltz_clock_skew_seconds. The operator will retry.",
                    key.id
                ),
            ),
        };
        effects.log(EventKind::Warning, "a new key is not usable", Some(&key.id), message.as_str());
        self.count_failure(reason, effects);
        self.record_failure(Failure::Invalid, reason, message, None, true);
    }

    pub(super) fn boltz_failed(&mut self, step: &Step, failure: &BoltzFailure, effects: &mut Effects) {
        // A 409 may pass. One that stays is a refusal.
        let may_pass = failure.kind == BoltzErrorKind::Refused && failure.effect == Effect::Unknown;
        let (reason, kind) = match failure.kind {
            BoltzErrorKind::Refused if may_pass && self.failures() < FAILURES_THAT_PASS => {
                (Reason::BoltzUnavailable, Failure::Passing)
            }
            BoltzErrorKind::Refused if may_pass => (Reason::BoltzRejected, Failure::Passing),
            BoltzErrorKind::Unauthorized => (Reason::BoltzUnauthorized, Failure::Refused),
            BoltzErrorKind::Invalid => (Reason::BoltzRejected, Failure::Invalid),
            BoltzErrorKind::Refused => (Reason::BoltzRejected, Failure::Refused),
            BoltzErrorKind::RateLimited => (Reason::RateLimited, Failure::Passing),
            BoltzErrorKind::Unavailable => (Reason::BoltzUnavailable, Failure::Passing),
        };
        // The key may be gone already. The next pass shows whether it is.
        if let Step::Revoke { key_id, .. } = step
            && failure.may_have_revoked()
        {
            self.memory.perhaps_revoked.insert(key_id.clone(), self.now.monotonic);
        }
        let failed = format!("{}: {}.", self.slot.failure(), failure.message);
        // A key that lives longer than it should is reported at once, unless Boltz only asks to wait or was not reached.
        let is_pause = reason == Reason::RateLimited || failure.effect == Effect::None;
        let is_reported = kind != Failure::Passing
            || matches!(step, Step::Mint(_))
            || (matches!(step, Step::Revoke { .. }) && !is_pause);
        let message = format!("{failed} The operator will retry.");
        self.record_failure(kind, reason, message, failure.retry_after, is_reported);
        if kind != Failure::Passing || reason == Reason::BoltzRejected {
            self.tell_time(failed);
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

/// A failure, and when the next try is.
fn timed(failed: &str, until: Monotonic, now: Now) -> String {
    let at = later(now.wall, until.since(now.monotonic));
    format!(
        "{failed} The next retry is at {at:.0}, or when the spec or the annotation boltz.bio/retry changes."
    )
}

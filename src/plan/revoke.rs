//! Revocations for an object that is not being deleted.

use super::{
    Decision,
    attempt::Progress,
    block::{Block, Reason},
    facts::{Doubt, ListedKey},
    failing::FAILURES_UNREPORTED,
    keys::{KeyState, NamedKey},
    schedule::RotationSchedule,
    status::OverdueKey,
    step::{RevokeReason, Slot, Step},
    time::{Monotonic, later},
};
use crate::{api::OverlapPolicy, protocol::marker::AttemptId};
use jiff::Timestamp;
use std::{collections::HashSet, time::Duration};

/// A key counts as idle when it has not been used for this long, or for its overlap if that is shorter.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

impl Decision<'_> {
    /// Previous keys whose overlap is over, and strays.
    pub(super) fn revocations(&mut self) -> Option<Step> {
        // Rule 13: a paused object keeps every key that a workload may have.
        let is_paused = self.facts.object.is_paused;
        self.leaked_key_lives();
        if is_paused {
            // It may have leaked: whoever paused the object should know.
            let leaked = self.facts.named_keys().into_iter().filter(|key| key.even_if_used);
            for key in leaked
                .filter(|key| self.facts.may_be_active(self.settings, self.now, key))
                .collect::<Vec<_>>()
            {
                self.overdue(&key.id, None);
            }
        }
        if !is_paused {
            let previous: Vec<NamedKey> =
                self.facts.named_keys().into_iter().filter(|key| key.revoke_after.is_some()).collect();
            for key in &previous {
                if let Some(step) = self.end_of_overlap(key) {
                    return Some(step);
                }
            }
        }
        self.strays()
    }

    /// A key that has leaked and is not replaced yet should be revoked already. Said with the failure that keeps the new one
    /// away.
    fn leaked_key_lives(&mut self) {
        if self.facts.memory.leaked_since.is_none() {
            return;
        }
        let lasts = |block: &Block| block.reason.is_stalled() || self.fails_to_issue();
        let failure = self.findings.blocked.clone().filter(lasts);
        let current = self.facts.named_keys().into_iter().filter(|key| key.revoke_after.is_none());
        let alive: Vec<NamedKey> =
            current.filter(|key| self.facts.may_be_active(self.settings, self.now, key)).collect();
        for key in alive {
            self.overdue(&key.id, failure.clone());
        }
    }

    fn end_of_overlap(&mut self, key: &NamedKey) -> Option<Step> {
        let revoke_after = key.revoke_after?;
        if !self.facts.may_be_active(self.settings, self.now, key) {
            return None;
        }
        let is_early = self.now.wall < revoke_after;
        if is_early {
            self.waits.request_wake_up(self.now.monotonic_at(revoke_after));
            if !self.is_rolled_out(key) {
                return None;
            }
        }
        let is_shown_inactive = self.facts.listed(&key.id).is_some_and(|listed| !self.is_active(listed));
        if !is_early && !key.even_if_used && !is_shown_inactive && self.is_still_used(key, revoke_after) {
            self.findings.still_used.push(key.id.clone());
            return None;
        }
        if !key.even_if_used && self.facts.may_be_in_a_secret(&key.id) {
            let message = format!(
                "The Secret was altered, and it may contain key {} now, so the key is not revoked before the Secret \
                 contains a new one.",
                key.id
            );
            let failure = Block { reason: Reason::SecretWriteFailed, message, until: None };
            self.overdue(&key.id, Some(failure).filter(|_| self.findings.blocked.is_some()));
            return None;
        }
        if !self.is_issued_first() && !self.fails_to_issue() {
            self.overdue(&key.id, None);
            return None;
        }
        let reason = match (is_early, key.even_if_used) {
            (true, _) => RevokeReason::RolledOut,
            (false, true) => RevokeReason::RotateNow,
            (false, false) => RevokeReason::OverlapOver,
        };
        self.revoke_when_settled(key, reason)
    }

    /// For `UntilIdle`: whether the key is still in use. It is idle if the newest pass began after the overlap, and at
    /// least the idle time after the last use. A restart that has not ended counts as use.
    fn is_still_used(&mut self, key: &NamedKey, revoke_after: Timestamp) -> bool {
        let Some(spec) = self.facts.object.spec.as_ref().ok() else { return true };
        if spec.rotation.overlap_policy != OverlapPolicy::UntilIdle {
            return false;
        }
        self.findings.unfinished = self.facts.unfinished_restarts();
        if !self.findings.unfinished.is_empty() {
            return true;
        }
        let overlap = RotationSchedule::read(spec).map_or(IDLE, |rotation| rotation.overlap);
        let last_used = self.facts.listed(&key.id).and_then(|listed| listed.last_used_at);
        let idle_from =
            last_used.map_or(revoke_after, |time| revoke_after.max(later(time, IDLE.min(overlap))));
        if self.facts.passes.first().is_some_and(|pass| idle_from <= pass.started_at) {
            return false;
        }
        self.waits.request_pass(self.facts, self.now.monotonic_at(idle_from));
        true
    }

    /// Rule 4: revokes a stray, an active key of an attempt in the ledger that is not a named key. Waits until the attempt
    /// is settled, unless this process sent the POST and knows that the key is lost.
    fn strays(&mut self) -> Option<Step> {
        let issued_first = self.is_issued_first();
        let facts = self.facts;
        let named = facts.named_keys();
        let named_attempts: HashSet<&AttemptId> =
            named.iter().filter_map(|key| key.attempt.as_ref()).collect();
        for attempt in facts.object.ledger.entries.iter().map(|entry| &entry.attempt) {
            if named_attempts.contains(attempt) {
                continue;
            }
            let progress = facts.memory.attempts.get(attempt).map(|known| &known.progress);
            if matches!(progress, Some(Progress::InHand { .. } | Progress::Stored { .. })) {
                continue;
            }
            let settled_at = facts.seen_to_settle_at(self.settings, self.now, attempt);
            let lost_here = matches!(progress, Some(Progress::Sent | Progress::Ended));
            if issued_first
                && (lost_here || settled_at <= self.now.monotonic)
                && let Some(id) = self.active_key_of(attempt)
                && !named.iter().any(|key| key.id == id)
            {
                // A stray that cannot be revoked now does not delay the others.
                if let Some(step) = self.revoke(id, RevokeReason::Stray) {
                    return Some(step);
                }
                continue;
            }
            if !facts.knows_result(self.settings, self.now, attempt) {
                self.waits.request_pass(self.facts, settled_at);
            }
        }
        None
    }

    /// The Secret has a valid key, or none can be issued before somebody acts.
    fn is_issued_first(&self) -> bool {
        self.facts.trusted_record(self.settings, self.now).is_some()
            || self.ledger_is_full
            || self.facts.object.spec.is_err()
            || self.facts.object.wants_no_key()
            || self
                .findings
                .blocked
                .as_ref()
                .is_some_and(|block| block.reason.is_stalled() && block.reason != Reason::BoltzUnauthorized)
    }

    /// Requests for a key fail, and not only for a moment.
    fn fails_to_issue(&self) -> bool {
        let trouble = self.facts.memory.troubles.get(&Slot::Mint);
        trouble.is_some_and(|trouble| trouble.failures > FAILURES_UNREPORTED)
    }

    /// The active key of the attempt in the newest pass.
    pub(super) fn active_key_of(&self, attempt: &AttemptId) -> Option<String> {
        let keys = &self.facts.passes.first()?.keys;
        keys.iter().find(|key| key.attempt == *attempt && self.is_active(key)).map(|key| key.id.clone())
    }

    /// Whether Boltz lists the key as active, and this process has not revoked it.
    pub(super) fn is_active(&self, key: &ListedKey) -> bool {
        key.is_active_at(self.now.wall) && !self.facts.memory.revoked_ids.contains(&key.id)
    }

    /// Rule 8: never before the key's own attempt is settled.
    pub(super) fn revoke_when_settled(&mut self, key: &NamedKey, reason: RevokeReason) -> Option<Step> {
        let settled_at = self.key_settles_at(key);
        if self.now.monotonic < settled_at {
            self.overdue(&key.id, None);
            self.waits.request_wake_up(settled_at);
            return None;
        }
        self.revoke_unless_gone(key, reason)
    }

    pub(super) fn key_settles_at(&self, key: &NamedKey) -> Monotonic {
        match &key.attempt {
            Some(attempt) => self.facts.settled_at(self.settings, self.now, attempt),
            None => self.first_seen(&key.id).plus(self.settings.settling()),
        }
    }

    /// When this process first saw the id: now, if it has not learned it yet.
    pub(super) fn first_seen(&self, key_id: &str) -> Monotonic {
        self.facts.memory.first_seen.get(key_id).copied().unwrap_or(self.now.monotonic)
    }

    /// What follows from what is known about the key.
    pub(super) fn revoke_unless_gone(&mut self, key: &NamedKey, reason: RevokeReason) -> Option<Step> {
        match self.facts.key_state(self.settings, self.now, &key.id, key.attempt.as_ref()) {
            KeyState::Active | KeyState::ShownInactive => self.revoke(key.id.clone(), reason),
            // Inactive in a list that is not believed: the revocation shows whether this is true.
            KeyState::Unknown if self.facts.listed(&key.id).is_some() => self.revoke(key.id.clone(), reason),
            KeyState::Unknown => {
                self.overdue(&key.id, self.facts.account.list_failing.clone());
                self.request_passes_for(key);
                None
            }
            KeyState::OtherOrganization => {
                self.report_other_organization(key);
                None
            }
            KeyState::Inactive | KeyState::Foreign | KeyState::Absent => None,
        }
    }

    /// A key that was left behind in another organization.
    fn report_other_organization(&mut self, key: &NamedKey) {
        let of = |organization: &Option<String>| organization.clone().unwrap_or_default();
        let message = format!(
            "Key {id} belongs to the Boltz organization {its}, and the operator's admin key belongs to {ours}, so the \
             operator cannot revoke the key. Revoke it in {its}.",
            id = key.id,
            its = of(&key.organization),
            ours = of(&self.facts.account.organization)
        );
        self.findings.also.push(Block { reason: Reason::BoltzUnauthorized, message, until: None });
    }

    /// Requests the passes that show whether Boltz has the key. While passes are doubtful, the inventory repeats them.
    pub(super) fn request_passes_for(&mut self, key: &NamedKey) {
        if self.facts.passes.first().is_some_and(|pass| pass.doubt != Doubt::None) {
            return;
        }
        let from = self.first_seen(&key.id).plus(self.settings.settle_time);
        let after_the_last = self.facts.passes.first().map(|pass| pass.started.plus(Duration::from_nanos(1)));
        self.waits.request_pass(self.facts, Monotonic::default());
        self.waits.request_pass(self.facts, after_the_last.map_or(from, |after| after.max(from)));
    }

    /// The revocation, unless Boltz must not be called now. After a 404 the next pass may show that the key is revoked.
    pub(super) fn revoke(&mut self, key_id: String, reason: RevokeReason) -> Option<Step> {
        if let Some(at) = self.facts.memory.perhaps_revoked.get(&key_id) {
            self.waits.request_pass(self.facts, at.plus(Duration::from_nanos(1)));
        }
        if let Some(block) =
            self.facts.account.calls_blocked.clone().filter(|block| block.is_in_effect(self.now.monotonic))
        {
            self.waits.wait_for(&block);
            self.overdue(&key_id, Some(block.clone()).filter(|block| block.until.is_none()));
            if self.facts.object.deleting {
                self.findings.blocked.get_or_insert(block);
            }
            return None;
        }
        let step = self.attempt(Step::Revoke { key_id: key_id.clone(), reason });
        if step.is_none() {
            // Before a revocation the Secret is read (rule 8).
            let slots = [Slot::Revoke(key_id.clone()), Slot::Read];
            let mut troubles = slots.iter().filter_map(|slot| self.trouble(slot));
            let told = troubles.find(|trouble| trouble.is_told(self.now.monotonic));
            let failure = told.map(|trouble| trouble.block.clone());
            self.overdue(&key_id, failure);
        }
        step
    }

    /// The key should be revoked by now. A deletion says so itself.
    fn overdue(&mut self, key_id: &str, failure: Option<Block>) {
        if self.facts.object.deleting {
            return;
        }
        let named = self.facts.named_keys().into_iter().find(|key| key.id == key_id);
        let since = match named {
            Some(key) => key.revoke_after.or(self.facts.memory.leaked_since),
            None => self.facts.listed(key_id).and_then(|key| {
                let entries = &self.facts.object.ledger.entries;
                let entry = entries.iter().find(|entry| entry.attempt == key.attempt)?;
                Some(later(entry.written_at, self.settings.settling()))
            }),
        };
        let since = since.filter(|since| *since <= self.now.wall);
        self.findings.overdue.push(OverdueKey { key_id: key_id.to_owned(), since, failure });
    }
}

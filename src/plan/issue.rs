//! Decides whether to issue a key.

use super::{
    Decision,
    attempt::{Intent, Progress},
    block::{Block, Reason},
    facts::SecretFacts,
    keys::NamedKey,
    schedule::{Planned, RotationSchedule},
    step::{RevokeReason, Slot, Step},
};
use crate::{
    api::{BoltzApiKeySpec, recorded::parameters_hash},
    protocol::{
        ledger::MAX_ENTRIES,
        marker::AttemptId,
        record::{IssueReason, MAX_PREVIOUS, Record},
    },
};

impl Decision<'_> {
    /// The reason to issue a key, or `None`. A restart, a resync or an unrelated annotation is no reason.
    pub(super) fn issue_reason(
        &self,
        spec: &BoltzApiKeySpec,
        rotation: &RotationSchedule,
    ) -> Option<IssueReason> {
        let facts = self.facts;
        // First: the key that is replaced gets no overlap, whatever else happened to its Secret.
        if facts.has_leaked(&facts.memory) {
            return Some(IssueReason::RotateNow);
        }
        let Some(record) = facts.record() else {
            let had_a_key = facts.object.status.key_id.is_some() || !facts.named_keys().is_empty();
            return Some(match &facts.secret {
                SecretFacts::Ours(_) if had_a_key => IssueReason::SecretAltered,
                SecretFacts::Absent | SecretFacts::Foreign(_) | SecretFacts::Adoptable(_) if had_a_key => {
                    IssueReason::SecretMissing
                }
                _ => IssueReason::Initial,
            });
        };
        let now = self.now.wall;
        let due = |planned: Option<Planned>| planned.is_some_and(|planned| planned.at <= now);
        if !facts.value_is_intact() {
            Some(IssueReason::SecretAltered)
        } else if due(rotation.expiry_renewal(record, now)) {
            Some(IssueReason::Renewal)
        } else if self.is_dead(record) {
            Some(IssueReason::KeyInactive)
        } else if record.parameters_hash != parameters_hash(spec)
            || facts.is_other(record.organization.as_ref())
        {
            Some(IssueReason::ParametersChanged)
        } else if self.is_rotation_requested(record) && due(self.requested(record, rotation)) {
            Some(IssueReason::RotateRequested)
        } else if due(rotation.interval_renewal(record, now)) {
            Some(IssueReason::Interval)
        } else {
            None
        }
    }

    /// The annotation `rotate` has a value that the current key does not answer.
    fn is_rotation_requested(&self, record: &Record) -> bool {
        let asked = &self.facts.object.rotate;
        asked.is_some() && *asked != record.rotate
    }

    /// When the rotation that the annotation requests begins.
    fn requested(&self, record: &Record, rotation: &RotationSchedule) -> Option<Planned> {
        if self.facts.object.rotates_outside_window {
            return Some(Planned { at: self.now.wall, opening: None });
        }
        rotation.requested(record, self.now.wall)
    }

    /// Why the key is to be replaced, although no rotation window is open; and when.
    fn waits_for_window(
        &self,
        record: &Record,
        rotation: &RotationSchedule,
    ) -> Option<(IssueReason, Option<Planned>)> {
        if rotation.window.is_none() && rotation.window_error.is_none() {
            return None;
        }
        let now = self.now.wall;
        let is_due = |due: Option<jiff::Timestamp>| due.is_some_and(|due| due <= now);
        if is_due(rotation.expiry_due(record)) {
            Some((IssueReason::Renewal, rotation.expiry_renewal(record, now)))
        } else if self.is_rotation_requested(record) {
            Some((IssueReason::RotateRequested, self.requested(record, rotation)))
        } else if is_due(rotation.interval_due(record)) {
            Some((IssueReason::Interval, rotation.interval_renewal(record, now)))
        } else {
            None
        }
    }

    /// Steps C0 to C2, or the reason why they cannot run.
    pub(super) fn issue(&mut self, rotation: &RotationSchedule) -> Option<Step> {
        let spec = self.facts.object.spec.as_ref().ok()?;
        if let Some(record) = self.facts.record() {
            let waits = self.waits_for_window(record, rotation).filter(|_| !self.facts.object.wants_no_key());
            let renewal = rotation.renewal(record, self.now.wall).map(|planned| planned.at);
            let begins = waits.and_then(|(_, planned)| Some(planned?.at));
            self.findings.outside_window = waits.filter(|_| begins.is_none_or(|at| at > self.now.wall));
            for time in [renewal, begins, record.expires_at]
                .into_iter()
                .flatten()
                .filter(|time| *time > self.now.wall)
            {
                self.waits.request_wake_up(self.now.monotonic_at(time));
            }
        }
        if self.facts.has_unread_value() {
            self.findings.blocked = self.block_of(&[Slot::Read]);
            return None;
        }
        let reason = self.issue_reason(spec, rotation);
        let is_urgent = reason.is_some_and(|reason| !reason.is_optional());
        if !is_urgent
            && !self.facts.object.wants_no_key()
            && let Some(step) = self.check_key()
        {
            return Some(step);
        }
        let reason = reason?;
        if self.facts.object.wants_no_key() {
            return None;
        }
        self.findings.issue = Some(reason);
        if matches!(self.facts.secret, SecretFacts::Foreign(_)) && self.block_of(&[Slot::Preflight]).is_none()
        {
            // It may have been deleted. Secrets of other owners are not watched, so read.
            return self.attempt(Step::ReadLive);
        }
        if let Some(block) = self.why_not_now() {
            self.waits.wait_for(&block);
            self.findings.blocked = Some(block);
            return None;
        }
        if let Some(block) = self.lost_attempts() {
            self.findings.blocked = Some(block);
            return None;
        }
        if let Some(step) = self.room_for_previous(reason) {
            return step;
        }
        let keep = self.entries_to_keep();
        let reusable = self.reusable_attempt();
        if reusable.is_none() && keep.len() >= MAX_ENTRIES {
            self.ledger_is_full = true;
            for entry in &keep {
                let settled_at = self.facts.seen_to_settle_at(self.settings, self.now, &entry.attempt);
                self.waits.request_pass(self.facts, settled_at);
            }
            self.findings.blocked = Some(Block {
                reason: Reason::Pending,
                message: format!(
                    "{MAX_ENTRIES} requests for a key have an unknown result. No new request is sent until Boltz's \
                     list of keys shows the results."
                ),
                until: None,
            });
            return None;
        }
        if let Some(step) = self.ask_held_key() {
            return step;
        }
        self.findings.wants_turn = Some(reason);
        if let Some(block) = self.no_turn() {
            self.waits.wait_for(&block);
            self.findings.blocked = Some(block);
            return None;
        }
        if !self.facts.preflight_passed {
            return self.attempt(Step::Preflight);
        }
        self.attempt(match reusable {
            Some(attempt) => Step::Mint(attempt),
            None => Step::WriteAttempt {
                keep,
                intent: Box::new(Intent {
                    reason,
                    spec: spec.clone(),
                    rotate: self.facts.object.rotate.clone(),
                    rotate_now: self.facts.object.rotate_now.clone(),
                }),
            },
        })
    }

    /// An attempt of this process whose POST may still be sent, if it fits the current spec and annotations.
    pub(super) fn reusable_attempt(&self) -> Option<AttemptId> {
        let spec = self.facts.object.spec.as_ref().ok()?;
        self.facts.memory.attempts.iter().find_map(|(id, attempt)| {
            let is_same = attempt.intent.as_ref().is_some_and(|intent| {
                intent.spec == *spec
                    && intent.rotate == self.facts.object.rotate
                    && intent.rotate_now == self.facts.object.rotate_now
            });
            let reusable = attempt.progress == Progress::Written
                && self.now.monotonic < attempt.written.plus(self.settings.window())
                && self.facts.object.ledger.contains(id)
                && is_same;
            reusable.then(|| id.clone())
        })
    }

    /// Why no key can be issued now: the Secret, the account's policy, an earlier failure or the account, in this order.
    fn why_not_now(&self) -> Option<Block> {
        let of_secret = self.block_of(&[Slot::Preflight, Slot::Store, Slot::Ledger, Slot::Read]);
        let denied = of_secret.or_else(|| self.policy_denies(self.findings.issue));
        denied.or_else(|| self.belongs_to_another_organization()).or_else(|| {
            let refused = self.in_effect(&self.facts.account.calls_blocked);
            let block = refused
                .filter(|block| block.reason.is_stalled() || self.facts.account.is_absent)
                .or_else(|| self.block_of(&[Slot::Mint]))
                .or_else(|| self.in_effect(&self.facts.account.mints_blocked))
                .or_else(|| self.ledger_backoff())?;
            Some(self.as_described(block))
        })
    }

    /// Why an object whose keys belong to another organization than the admin key gets no new one.
    fn belongs_to_another_organization(&self) -> Option<Block> {
        let facts = self.facts;
        if facts.account.accepts_organization {
            return None;
        }
        let of_record = facts.record().map(|record| record.organization.as_ref());
        let of_attempts =
            || facts.object.ledger.entries.iter().rev().find_map(|entry| entry.organization.as_ref());
        let its = of_record.unwrap_or_else(of_attempts).filter(|its| facts.is_other(Some(its)))?;
        let ours = facts.account.organization.clone().unwrap_or_default();
        let way = facts.account.name.way_to(&ours);
        let message = format!(
            "The keys of this object belong to the Boltz organization {its}, and the operator's admin key belongs to {ours}. \
             No key is issued. Provide an admin key of {its}. {way}"
        );
        Some(Block { reason: Reason::BoltzUnauthorized, message, until: None })
    }

    /// Why the key has to wait for others. Asked last: nothing else is in the way of an object that has its turn.
    fn no_turn(&self) -> Option<Block> {
        let account = &self.facts.account;
        let block = self.in_effect(&account.turn_blocked).or_else(|| self.in_effect(&account.calls_blocked));
        block.map(|block| self.as_described(block))
    }

    pub(super) fn in_effect(&self, block: &Option<Block>) -> Option<Block> {
        block.clone().filter(|block| block.is_in_effect(self.now.monotonic))
    }

    /// Keeps the message of an earlier failure, unless somebody has to act. Only the time of the retry changes.
    fn as_described(&self, block: Block) -> Block {
        match self.facts.memory.troubles.get(&Slot::Mint) {
            Some(trouble) if !block.reason.is_stalled() => {
                Block { until: block.until, ..trouble.block.clone() }
            }
            _ => block,
        }
    }

    /// The block of the first of these slots that is blocked now.
    pub(super) fn block_of(&self, slots: &[Slot]) -> Option<Block> {
        slots.iter().find_map(|slot| self.trouble(slot)).map(|trouble| trouble.block.clone())
    }

    /// Rule 3: with the maximum number of previous keys, optional rotations wait, and other rotations revoke the oldest
    /// previous key early. The outer `None`: there is room.
    fn room_for_previous(&mut self, reason: IssueReason) -> Option<Option<Step>> {
        let active: Vec<NamedKey> = self
            .facts
            .named_keys()
            .into_iter()
            .filter(|key| self.facts.may_be_active(self.settings, self.now, key))
            // Keys of another organization cannot be revoked to make room.
            .filter(|key| !self.facts.is_other(key.organization.as_ref()))
            .collect();
        if active.len() <= MAX_PREVIOUS {
            return None;
        }
        // Overlaps may end together, and keys whose Secret was deleted have no end: then the oldest attempt is first.
        let ledger = &self.facts.object.ledger;
        let position = |key: &NamedKey| key.attempt.as_ref().and_then(|attempt| ledger.position(attempt));
        let oldest = active
            .iter()
            .filter(|key| key.revoke_after.is_some())
            .min_by_key(|key| (key.revoke_after, position(key)));
        let oldest = oldest.or_else(|| active.iter().min_by_key(|key| position(key)))?;
        // If the list is right, these are dead.
        let is_dead =
            |key: &&NamedKey| self.facts.listed(&key.id).is_some_and(|listed| !self.is_active(listed));
        let dead = active.iter().find(is_dead);
        if dead.is_none() && reason.is_optional() {
            if let Some(revoke_after) = oldest.revoke_after {
                self.waits.request_wake_up(self.now.monotonic_at(revoke_after));
                self.findings.postponed = Some((reason, revoke_after));
            }
            self.findings.issue = None;
            return Some(None);
        }
        if self.no_turn().is_some() {
            return None;
        }
        Some(self.revoke_when_settled(dead.unwrap_or(oldest), RevokeReason::OverlapCut))
    }
}

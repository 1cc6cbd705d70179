//! What to do with a key that is received but not stored.

use super::{
    Decision,
    attempt::{Attempt, Intent, MintedKey, Progress},
    facts::SecretFacts,
    schedule::RotationSchedule,
    step::{RevokeReason, Slot, Step},
    time::later,
};
use crate::{
    api::recorded::parameters_hash,
    protocol::{
        marker::AttemptId,
        record::{IssueReason, PreviousKey, Record},
    },
};
use std::time::Duration;

impl Decision<'_> {
    /// Rules 1 and 9: stores a received key within its window. After that, revokes it once it is certain that it was not
    /// stored.
    pub(super) fn keys_in_hand(&mut self) -> Option<Step> {
        let facts = self.facts;
        facts.memory.attempts.iter().find_map(|(attempt, known)| self.key_in_hand(attempt, known))
    }

    fn key_in_hand(&mut self, attempt: &AttemptId, known: &Attempt) -> Option<Step> {
        let Progress::InHand { key, calls_in_doubt, is_refused } = &known.progress else { return None };
        let window_end = known.written.plus(self.settings.window());
        let superseded = self.facts.record().is_some_and(|record| self.is_later(&record.attempt, attempt));
        let foreign = matches!(self.facts.secret, SecretFacts::Foreign(_));
        if self.now.monotonic < window_end
            && !is_refused
            && !superseded
            && !foreign
            && let Some(intent) = &known.intent
        {
            let step = self.attempt(self.store(attempt, intent, key));
            if step.is_none() {
                // Retried within the window or not at all. Meanwhile no other key is issued.
                self.waits.request_wake_up(window_end);
                self.key_in_hand_waits = true;
                self.findings.blocked = self.block_of(&[Slot::Store, Slot::Read]);
            }
            return step;
        }
        if *calls_in_doubt > 0 && !self.facts.is_settled(self.settings, self.now, attempt) {
            // The write of the Secret may still take effect. A new attempt need not wait for it (rule 5).
            self.waits.request_wake_up(self.facts.settled_at(self.settings, self.now, attempt));
            return None;
        }
        self.revoke(key.id.clone(), RevokeReason::NotStored)
    }

    /// Whether `this` comes later in the ledger. An attempt that is not in the ledger is earlier than all others.
    fn is_later(&self, this: &AttemptId, other: &AttemptId) -> bool {
        let ledger = &self.facts.object.ledger;
        ledger.position(this) > ledger.position(other)
    }

    /// C3, R3: lists every other active key in the record's `previous`, in the same write.
    fn store(&self, attempt: &AttemptId, intent: &Intent, key: &MintedKey) -> Step {
        let overlap = match (intent.reason, RotationSchedule::read(&intent.spec)) {
            (IssueReason::RotateNow, _) | (_, Err(_)) => Duration::ZERO,
            (_, Ok(rotation)) => rotation.overlap,
        };
        let end = later(self.now.wall, overlap);
        // Something took its record away. Until now it may have held any key that only the status names.
        let is_unrecorded = matches!(&self.facts.secret, SecretFacts::Ours(own) if own.record.is_none());
        let mut previous: Vec<PreviousKey> = self
            .facts
            .named_keys()
            .into_iter()
            .filter(|key| self.facts.may_be_active(self.settings, self.now, key))
            .map(|key| {
                // Somebody may have put its value back: its overlap begins now.
                let is_back = self.facts.may_be_in_a_secret(&key.id) && !key.even_if_used;
                let mut previous = key.into_previous(end);
                if is_unrecorded && !previous.even_if_used || is_back {
                    previous.revoke_after = previous.revoke_after.max(end);
                }
                if intent.reason == IssueReason::RotateNow {
                    previous.revoke_after = previous.revoke_after.min(end);
                    previous.even_if_used = true;
                }
                previous
            })
            .collect();
        previous.extend(self.unproven_in_overlap());
        previous.extend(self.held_key_as_previous(end));
        previous.sort_by_key(|previous| previous.revoke_after);
        let replaced = self
            .facts
            .record()
            .map(|record| record.rotations)
            .or_else(|| self.facts.object.status.key_id.as_ref().map(|_| self.reported_rotations()))
            // Users can edit the number, so it may be i64::MAX.
            .map(|rotations| rotations.saturating_add(1));
        let mut record = Record {
            key_id: key.id.clone(),
            key_prefix: key.prefix.clone(),
            attempt: attempt.clone(),
            reason: intent.reason,
            issued_at: key.received_at,
            created_at: key.created_at,
            expires_at: key.expires_at,
            livemode: key.livemode,
            workspace_id: key.workspace_id.clone(),
            organization: key.organization.clone(),
            account: self.facts.account.name.clone(),
            value_sha256: key.value_sha256.clone(),
            parameters_hash: parameters_hash(&intent.spec),
            rotate: intent.rotate.clone(),
            rotate_now: intent.rotate_now.clone(),
            rotations: replaced.unwrap_or_default(),
            replaced_value: self.replaces_unknown_value(),
            previous,
            data: self.facts.record().and_then(|record| record.data.clone()),
            other: self.facts.record().map(|record| record.other.clone()).unwrap_or_default(),
            ..Record::placeholder(&self.facts.object.uid)
        };
        let spec = self.facts.object.spec.as_ref().unwrap_or(&intent.spec);
        record.take_shape(spec, &self.facts.account.base_url);
        Step::Store { attempt: attempt.clone(), record: Box::new(record) }
    }

    fn reported_rotations(&self) -> i64 {
        self.facts.object.status.rotations.unwrap_or_default()
    }
}

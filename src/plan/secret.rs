//! The Secret's shape (name, data key, further fields, template, label, ownerReference) and the completeness of its record.

use super::{
    Decision,
    facts::SecretFacts,
    keys::{KeyState, NamedKey},
    schedule::RotationSchedule,
    step::{Slot, Step},
    time::later,
};
use crate::protocol::record::Record;

impl Decision<'_> {
    /// `Retain`: a foreground deletion would delete a Secret that still has its ownerReference. So this waits for nothing else
    /// that the Secret needs, nor for the end of a pause. A Secret under an old name stays known only by the status.
    pub(super) fn release_secret(&mut self) -> Option<Step> {
        let facts = self.facts;
        let secret = facts
            .current_secret()
            .filter(|secret| secret.owned && (secret.labelled || secret.record.is_some()))?;
        let is_known = secret.name == facts.object.secret_name()
            || facts.object.status.secret_name.as_ref() == Some(&secret.name);
        // An account that is not served may forbid it.
        if facts.object.owns_its_secret() || !is_known || facts.account.is_absent {
            return None;
        }
        self.attempt(Step::ReleaseSecret { name: secret.name.clone() })
    }

    /// Updates the Secret to match the spec, without a new key.
    pub(super) fn secret(&mut self, rotation: &RotationSchedule) -> Option<Step> {
        let facts = self.facts;
        // Which fields the Secret has depends on the account.
        if facts.account.is_absent {
            return None;
        }
        let is_paused = facts.object.is_paused;
        let spec = facts.object.spec.as_ref().ok()?;
        let record = facts.trusted_record(self.settings, self.now)?;
        if facts.has_unread_value() {
            return None;
        }
        let own = match &facts.secret {
            SecretFacts::Ours(own) => own,
            // Rule 13: the Secret stays as it is. What its record has to know is still added.
            SecretFacts::Foreign(_) | SecretFacts::Absent if is_paused => return None,
            // Only an object without a Secret adopts one.
            SecretFacts::Adoptable(_) => return None,
            SecretFacts::Foreign(_) => {
                let block = self.block_of(&[Slot::Preflight]);
                if block.is_none() {
                    return self.attempt(Step::ReadLive);
                }
                if let Some(block) = &block {
                    self.waits.wait_for(block);
                }
                self.findings.blocked = block;
                return None;
            }
            SecretFacts::Absent => {
                let from = facts.other_secrets.first()?.name.clone();
                return self.attempt(Step::MoveSecret { from });
            }
        };
        // Rule 2: before the status drops a key that only the status, process memory or a replaced Secret names, add it
        // to the record. Of the status's previous keys, add only those that Boltz's list confirms.
        let end = later(self.now.wall, rotation.overlap);
        let active: Vec<NamedKey> = facts
            .named_keys()
            .into_iter()
            .filter(|key| key.id != record.key_id && facts.may_be_active(self.settings, self.now, key))
            .filter(|key| {
                record.names(&key.id)
                    || key.revoke_after.is_none()
                    || facts.key_state(self.settings, self.now, &key.id, key.attempt.as_ref())
                        == KeyState::Active
            })
            .collect();
        let is_known = |key: &NamedKey| {
            let state = facts.key_state(self.settings, self.now, &key.id, key.attempt.as_ref());
            state != KeyState::Unknown
        };
        // A forged record is written anew when Boltz's list shows which of its keys exist.
        let is_cut = record.is_cut && active.iter().all(is_known);
        let is_complete = active.iter().all(|key| record.names(&key.id));
        let unproven = self.unproven_in_overlap();
        if is_cut || !is_complete || self.names_unproven_too_long(record) {
            let previous = active.into_iter().map(|key| key.into_previous(end)).chain(unproven).collect();
            let record = Record { previous, is_cut: false, ..record.clone() };
            if let Some(step) = self.attempt(Step::WriteRecord(Box::new(record))) {
                return Some(step);
            }
        }
        if is_paused {
            return None;
        }
        // `release_secret` removes the ownerReference.
        let has_label_and_owner = own.labelled && (own.owned || !facts.object.owns_its_secret());
        let is_shaped = has_label_and_owner && record.has_shape_of(spec, &facts.account.base_url);
        if !is_shaped && let Some(step) = self.attempt(Step::Reshape) {
            return Some(step);
        }
        // Rule 2: until then, an old Secret may be all that names its key.
        let other = facts.other_secrets.first().filter(|_| is_complete)?;
        self.attempt(Step::DeleteSecret { name: other.name.clone(), uid: other.uid.clone() })
    }
}

//! Deletion: steps D1 and D2.

use super::{
    Decision,
    block::{Block, Reason},
    facts::Doubt,
    keys::{KeyState, NamedKey},
    memory::TOLD_AFTER,
    step::{RevokeReason, Step},
};
use crate::{
    api::{DeletionPolicy, annotations::LEDGER_ANNOTATION},
    protocol::marker::AttemptId,
};
use std::collections::BTreeSet;

/// Maximum number of keys that a message names.
const MAX_NAMED: usize = 10;

impl Decision<'_> {
    /// Revokes every key that the record, the status or the ledger refers to. Removes the finalizer when no key is left
    /// and every attempt is finished.
    pub(super) fn deletion(&mut self) -> Step {
        if !self.facts.object.has_finalizer {
            return Step::Wait;
        }
        let policy = match self.facts.object.effective_deletion_policy() {
            Ok(policy) => policy,
            Err(error) => {
                let message = format!(
                    "The spec is invalid ({error}), so the deletion policy is unknown. Set the annotation \
                     boltz.bio/deletion-policy to Revoke or Retain."
                );
                self.findings.blocked = Some(Block { reason: Reason::InvalidSpec, message, until: None });
                return self.status().unwrap_or(Step::Wait);
            }
        };
        if policy == DeletionPolicy::Retain {
            return self.retain();
        }
        let mut waiting_for = BTreeSet::new();
        let step = self
            .ask_current_key(&mut waiting_for)
            .or_else(|| self.revoke_named(&mut waiting_for))
            .or_else(|| self.finish_attempts(&mut waiting_for));
        if let Some(step) = step {
            return step;
        }
        if waiting_for.is_empty() {
            return self.remove_finalizer(Vec::new());
        }
        let told_at = self.facts.memory.deleting_since.unwrap_or_default().plus(TOLD_AFTER);
        if self.now.monotonic < told_at && !self.somebody_has_to_act() {
            // Most waits are shorter, and no status was needed.
            self.waits.request_wake_up(told_at);
            return Step::Wait;
        }
        let more = waiting_for.len().saturating_sub(MAX_NAMED);
        let mut waiting_for = Vec::from_iter(waiting_for.into_iter().take(MAX_NAMED)).join(", ");
        if more > 0 {
            waiting_for = format!("{waiting_for} and {more} more");
        }
        if let Some(trouble) = self.findings.also.first().cloned().filter(|_| self.findings.blocked.is_none())
        {
            self.findings.blocked = Some(trouble);
        }
        if self.findings.blocked.is_none() {
            self.findings.blocked = self.facts.account.list_failing.clone();
        }
        if self.findings.blocked.is_none() {
            self.findings.blocked = Some(Block {
                reason: Reason::Deleting,
                message: format!(
                    "Waiting for Boltz's list of keys to show whether these keys exist: {waiting_for}. Keys that exist \
                     are then revoked.{}",
                    if self.facts.passes.first().is_some_and(|pass| pass.doubt != Doubt::None) {
                        " The operator does not trust the list yet. Either keys are missing from it, or it may be the list \
                         of another organization."
                    } else {
                        ""
                    }
                ),
                until: None,
            });
        } else if let Some(block) = &mut self.findings.blocked
            && !self.facts.object.retain_is_forbidden
        {
            block.message = format!(
                "{} To delete the object without revoking {waiting_for}, set the annotation \
                 boltz.bio/deletion-policy=Retain.",
                block.message
            );
        }
        self.status().unwrap_or(Step::Wait)
    }

    fn somebody_has_to_act(&self) -> bool {
        let mut blocks = self.findings.blocked.iter().chain(&self.findings.also);
        blocks.any(|block| block.until.is_none() || block.reason.is_stalled())
            || self.facts.account.list_failing.is_some()
    }

    /// Rule 7: revokes a key id only if this process created the key, or if Boltz lists it with this object's marker.
    fn revoke_named(&mut self, waiting_for: &mut BTreeSet<String>) -> Option<Step> {
        let in_hand: Vec<String> = self.facts.memory.in_hand().map(|(_, key)| key.id.clone()).collect();
        for id in in_hand {
            waiting_for.insert(id.clone());
            if let Some(step) = self.revoke(id, RevokeReason::Deleted) {
                return Some(step);
            }
        }
        for key in self.facts.named_keys() {
            if !self.facts.may_be_active(self.settings, self.now, &key) {
                continue;
            }
            waiting_for.insert(key.id.clone());
            if let Some(step) = self.revoke_unless_gone(&key, RevokeReason::Deleted) {
                return Some(step);
            }
        }
        None
    }

    /// D2: every attempt in the ledger is finished.
    fn finish_attempts(&mut self, waiting_for: &mut BTreeSet<String>) -> Option<Step> {
        let facts = self.facts;
        if self.lost_attempts().is_some() {
            waiting_for
                .insert(format!("the keys that the forged annotation {LEDGER_ANNOTATION} no longer names"));
        }
        let named = facts.named_keys();
        for entry in &facts.object.ledger.entries {
            let attempt = &entry.attempt;
            if facts.is_elsewhere(entry) && self.active_key_of(attempt).is_none() {
                if self.is_known_to_be_finished(attempt, &named) {
                    continue;
                }
                // No list of this account shows that it ends. Only its expiry does.
                let has_expired = |key: &NamedKey| {
                    key.attempt.as_ref() == Some(attempt)
                        && key.expires_at.is_some_and(|expires_at| expires_at <= self.now.wall)
                };
                if !named.iter().any(has_expired) {
                    let place = match &entry.organization {
                        Some(organization) => format!("organization {organization}"),
                        None => entry.account.to_string(),
                    };
                    waiting_for.insert(format!("the key of attempt {attempt} in {place}"));
                }
                continue;
            }
            if let Some(id) = self.active_key_of(attempt) {
                waiting_for.insert(id.clone());
                if let Some(step) = self.revoke(id, RevokeReason::Deleted) {
                    return Some(step);
                }
            } else if !self.is_finished(attempt, &named) {
                // Once is enough for a key that is also named by its id.
                let is_named =
                    |key: &NamedKey| key.attempt.as_ref() == Some(attempt) && waiting_for.contains(&key.id);
                if !named.iter().any(is_named) {
                    waiting_for.insert(format!("the key of attempt {attempt}"));
                }
                let settled_at = facts.seen_to_settle_at(self.settings, self.now, attempt);
                self.waits.request_pass(facts, settled_at);
            }
        }
        None
    }

    fn is_finished(&self, attempt: &AttemptId, named: &[NamedKey]) -> bool {
        self.is_known_to_be_finished(attempt, named) || self.facts.is_over(self.settings, self.now, attempt)
    }

    /// The same, but not because its key is absent from Boltz's list.
    fn is_known_to_be_finished(&self, attempt: &AttemptId, named: &[NamedKey]) -> bool {
        // Its key is named, is listed with this attempt or was created by this process, and is revoked.
        let named_and_gone = named.iter().filter(|key| key.attempt.as_ref() == Some(attempt)).any(|key| {
            let shown = self.facts.listed(&key.id).is_some_and(|listed| listed.attempt == *attempt)
                || self.facts.memory.attempts.contains_key(attempt);
            let state = self.facts.key_state(self.settings, self.now, &key.id, Some(attempt));
            shown && matches!(state, KeyState::Inactive | KeyState::ShownInactive)
        });
        named_and_gone || self.facts.knows_result(self.settings, self.now, attempt)
    }

    /// Keeps the keys and the Secret. Does not call Boltz, so it also works when Boltz is unreachable.
    fn retain(&mut self) -> Step {
        if let Some(secret) = self.facts.own_secrets().find(|secret| secret.owned) {
            let step = Step::ReleaseSecret { name: secret.name.clone() };
            return self.attempt(step).or_else(|| self.status()).unwrap_or(Step::Wait);
        }
        let mut retained_keys: Vec<String> = self
            .facts
            .named_keys()
            .into_iter()
            .filter(|key| self.facts.may_be_active(self.settings, self.now, key))
            .map(|key| key.id)
            .collect();
        for key in self.facts.passes.first().iter().flat_map(|pass| &pass.keys) {
            if self.facts.object.ledger.may_contain(&key.attempt)
                && self.is_active(key)
                && !retained_keys.contains(&key.id)
            {
                retained_keys.push(key.id.clone());
            }
        }
        self.remove_finalizer(retained_keys)
    }

    fn remove_finalizer(&mut self, retained_keys: Vec<String>) -> Step {
        let step = self.attempt(Step::RemoveFinalizer { retained_keys });
        step.or_else(|| self.status()).unwrap_or(Step::Wait)
    }
}

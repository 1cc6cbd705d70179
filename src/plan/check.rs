//! Checks the current key itself, with `auth/me`, before a list is believed that does not show it as active.

use super::{
    Decision,
    answer::KeyCheck,
    attempt::Ownership,
    block::{Block, Reason},
    facts::Doubt,
    failing::Failing,
    keys::KeyState,
    memory::CheckedKey,
    retry::Failure,
    step::{Slot, Step},
    time::Monotonic,
};
use crate::protocol::record::Record;
use std::{collections::BTreeSet, time::Duration};

/// If the check is unclear for so long, and the list says all the time that the key is gone, the list is believed.
pub(super) const UNCLEAR_FOR: Duration = Duration::from_secs(3600);

impl Decision<'_> {
    /// Whether the current key is gone: Boltz's list says so, and so does the key.
    pub(super) fn is_dead(&self, record: &Record) -> bool {
        let facts = self.facts;
        // The key of something else: it may be valid, and this object must not use it. A key of this process is asked first.
        let is_assumed = facts.memory.ownership(&record.key_id) == Some(Ownership::Assumed);
        if !is_assumed && self.state_by_list(record, Doubt::None) == KeyState::Foreign {
            return true;
        }
        let by_list = |accepted_doubt| self.state_by_list(record, accepted_doubt).is_gone();
        match facts.memory.check_of(&record.key_id) {
            Some(CheckedKey { check: KeyCheck::Invalid, .. }) => by_list(Doubt::All),
            Some(CheckedKey { check: KeyCheck::Unclear(_) | KeyCheck::OtherKey, since, .. }) => {
                self.now.monotonic.since(*since) >= UNCLEAR_FOR && by_list(Doubt::None)
            }
            Some(CheckedKey { check: KeyCheck::Valid, .. }) => false,
            // Without `auth/me`, only the list says something. A revocation by this process needs no second source.
            None => {
                (facts.account.lacks_auth_me || facts.memory.revoked_ids.contains(&record.key_id))
                    && by_list(Doubt::None)
            }
        }
    }

    /// Asks the current key, if the newest pass says that it is gone and it was not asked since.
    pub(super) fn check_key(&mut self) -> Option<Step> {
        let facts = self.facts;
        let record = facts.record()?;
        let (id, pass) = (&record.key_id, facts.passes.first()?);
        let is_gone = |accepted_doubt| self.state_by_list(record, accepted_doubt).is_gone();
        if record.expires_at.is_some_and(|expires_at| expires_at <= self.now.wall) || self.is_dead(record) {
            return None;
        }
        if !is_gone(Doubt::All) {
            if is_gone(Doubt::Many) {
                self.report_doubt(
                    id,
                    "but it also lacks many other keys that it showed before, so it is not believed",
                );
            }
            return None;
        }
        if facts.account.lacks_auth_me {
            return None;
        }
        if facts.memory.check_of(id).is_some_and(|checked| checked.check == KeyCheck::Valid) {
            self.report_doubt(id, "but Boltz accepts the key, so the list is wrong");
        }
        self.ask(record, pass.started)
    }

    /// Asks the current key, unless it was asked since then.
    fn ask(&mut self, record: &Record, since: Monotonic) -> Option<Step> {
        let facts = self.facts;
        let (id, secret) = (&record.key_id, facts.current_secret()?.name.clone());
        let checked = facts.memory.check_of(id);
        let is_answered = checked.is_some_and(|checked| {
            checked.at >= since && !matches!(checked.check, KeyCheck::Unclear(_) | KeyCheck::OtherKey)
        });
        if is_answered {
            return None;
        }
        if let Some(block) = self.in_effect(&facts.account.calls_blocked) {
            self.waits.wait_for(&block);
            if checked.is_none_or(|checked| checked.check != KeyCheck::Valid) {
                self.findings.blocked = Some(block);
            }
            return None;
        }
        let step = self.attempt(Step::CheckKey { secret, key_id: id.clone() });
        if step.is_none() && checked.is_none_or(|checked| checked.check != KeyCheck::Valid) {
            self.findings.blocked = self.block_of(&[Slot::Check, Slot::Read]);
        }
        step
    }

    /// Before a deletion gives up the current key because the list does not show it, or because its revocation may have had its
    /// effect and the list is not believed. If its value cannot be read, only the list says something.
    pub(super) fn ask_current_key(&mut self, waiting_for: &mut BTreeSet<String>) -> Option<Step> {
        let facts = self.facts;
        let record = facts.record()?;
        let doubtful = facts.passes.first().filter(|pass| pass.doubt != Doubt::None);
        let tried = facts.memory.perhaps_revoked.get(&record.key_id).copied();
        if let (Some(pass), Some(tried)) = (doubtful, tried)
            && tried < pass.started
            && !facts.account.lacks_auth_me
            && facts.value_is_intact()
        {
            waiting_for.insert(record.key_id.clone());
            return self.ask(record, tried);
        }
        if !self.state_by_list(record, Doubt::None).is_gone() {
            return None;
        }
        let checked = facts.memory.check_of(&record.key_id);
        let trouble = facts.memory.troubles.get(&Slot::Check);
        let is_answered = match checked {
            Some(checked) => checked.check == KeyCheck::Valid,
            // Refused, or failed several times: not only for a moment.
            None => trouble.is_some_and(|trouble| trouble.is_reported),
        };
        let has_expired = record.expires_at.is_some_and(|expires_at| expires_at <= self.now.wall);
        if is_answered || has_expired || self.is_dead(record) || !facts.value_is_intact() {
            return None;
        }
        waiting_for.insert(record.key_id.clone());
        self.check_key()
    }

    fn state_by_list(&self, record: &Record, accepted_doubt: Doubt) -> KeyState {
        let attempt = Some(&record.attempt);
        self.facts.state_by_list(self.settings, self.now, &record.key_id, attempt, accepted_doubt)
    }

    fn report_doubt(&mut self, key_id: &str, but: &str) {
        let message = format!(
            "Boltz's list of keys does not show key {key_id} as active, {but}. No new key is issued because of that. To \
             issue one anyway, set the annotation boltz.bio/rotate: the old key keeps its overlap. boltz.bio/rotate-now \
             would revoke a key that may still work."
        );
        self.findings.also.push(Block { reason: Reason::KeyDoubtful, message, until: None });
    }
}

impl Failing<'_> {
    /// Applies the answer to a check.
    pub(super) fn record_check(&mut self, key_id: &str, check: KeyCheck) {
        let at = self.now.monotonic;
        if matches!(check, KeyCheck::Invalid | KeyCheck::OtherKey)
            && let Some(attempt) = self.memory.attempt_of(key_id)
        {
            attempt.ownership = Ownership::Refuted;
        }
        let before = self.memory.key_check.take();
        let is_same = |before: &CheckedKey| {
            before.key_id == key_id && std::mem::discriminant(&before.check) == std::mem::discriminant(&check)
        };
        let since = before.filter(|before| is_same(before)).map_or(at, |before| before.since);
        self.memory.key_check =
            Some(Box::new(CheckedKey { key_id: key_id.to_owned(), check: check.clone(), at, since }));
        match &check {
            KeyCheck::Invalid => {
                self.memory.troubles.remove(&self.slot);
            }
            KeyCheck::Valid => {
                self.record_failure(Failure::Undone, Reason::KeyDoubtful, String::new(), None, false);
                // The decision reports it, as long as the list is wrong.
                if let Some(trouble) = self.memory.troubles.get_mut(&self.slot) {
                    trouble.is_reported = false;
                }
            }
            KeyCheck::Unclear(_) | KeyCheck::OtherKey => {
                let answer = check.told();
                let is_held = self.memory.adoptable.as_ref().is_some_and(|adoptable| adoptable.holds(key_id));
                let message = if is_held {
                    format!(
                        "The Secret to be adopted may contain key {key_id} of this operator, and a request with the key \
                         itself does not show that: {answer}. A new key replaces it when this is clear, and after one hour \
                         at the latest."
                    )
                } else {
                    format!(
                        "Boltz's list of keys does not show key {key_id} as active, and a request with the key itself does \
                         not show whether it is valid: {answer}. No new key is issued until this is clear, for at \
                         most one hour. To issue one now, set the annotation boltz.bio/rotate. boltz.bio/rotate-now would \
                         revoke a key that may still work."
                    )
                };
                self.record_failure(Failure::Passing, Reason::KeyDoubtful, message, None, true);
            }
        }
    }
}

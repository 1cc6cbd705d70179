//! Takes over a Secret that consents to it. Its record may be forged, so the key that it may hold is asked first.

use super::{
    Decision,
    answer::KeyCheck,
    block::{Block, Reason},
    check::UNCLEAR_FOR,
    facts::{Doubt, Facts, ListedKey, OwnSecret, SecretFacts},
    keys::KeyState,
    memory::ProcessMemory,
    step::{Slot, Step},
    time::Monotonic,
};
use crate::protocol::{
    OtherFields,
    record::{PreviousKey, Record},
};
use jiff::Timestamp;

/// A Secret that belongs to nobody, and consents to belong to the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoptable {
    /// What the object's own Secret will be. It has no record yet; the hash is that of the value which the record below is
    /// about.
    pub secret: OwnSecret,
    /// What the Secret says of itself. It proves nothing.
    pub record: Option<Record>,
    /// A complete live list of all namespaces has no object that the record may speak of.
    pub is_owner_gone: bool,
    /// The key that the record names, if the newest pass shows it as active, and as one of the record's owner.
    pub listed: Option<ListedKey>,
    /// What makes this operator believe later that it may revoke that key.
    pub proof: Option<String>,
}

impl Adoptable {
    /// The record, if the value is the one that it speaks of. Whether that is true, only the key can tell.
    pub fn held_key(&self) -> Option<&Record> {
        let hash = self.secret.value_sha256.as_ref();
        self.record.as_ref().filter(|record| hash == Some(&record.value_sha256))
    }

    /// Whether it may hold the key with this id.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.held_key().is_some_and(|record| record.key_id == id)
    }

    /// The note of the event `Adopted`.
    pub(super) fn note(&self, record: &Record) -> String {
        let note = format!("Took over Secret {}. It contains key {} now.", self.secret.name, record.key_id);
        let Some(held) = self.held_key() else {
            return format!(
                "{note} The operator does not know the value before. If it is a key, revoke it yourself."
            );
        };
        let id = &held.key_id;
        match record.previous.iter().find(|key| key.key_id == *id) {
            Some(PreviousKey { adopted: Some(proof), revoke_after, .. }) if !proof.is_empty() => {
                format!("{note} The key before, {id}, stays valid until {revoke_after:.0}.")
            }
            _ => format!(
                "{note} The operator could not prove that the key before is its key {id}, so it does not revoke it. If it \
                 is valid, it will be reported as orphaned, or is the key of somebody else."
            ),
        }
    }
}

impl Facts {
    /// The Secret that the object is to adopt.
    pub fn adoptable(&self) -> Option<&Adoptable> {
        match &self.secret {
            SecretFacts::Adoptable(found) => Some(found),
            SecretFacts::Ours(_) | SecretFacts::Absent | SecretFacts::Foreign(_) => None,
        }
    }

    /// Previous keys that the object says to have adopted, and what proves it. The proof may be forged.
    pub fn adopted_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let records = self.own_secrets().filter_map(|secret| secret.record.as_ref());
        let previous = records.flat_map(|record| &record.previous);
        previous.filter_map(|key| Some((key.key_id.as_str(), key.adopted.as_deref()?)))
    }

    fn check_of_held(&self, record: &Record) -> Option<&KeyCheck> {
        self.memory.check_of(&record.key_id).map(|checked| &checked.check)
    }
}

impl Decision<'_> {
    /// Before a Secret is adopted: asks the key that its record names, with the value that it holds, because afterwards the
    /// value is gone. For at most an hour; the outer `None`: it need not be asked any more.
    pub(super) fn ask_held_key(&mut self) -> Option<Option<Step>> {
        let facts = self.facts;
        let adoptable = facts.adoptable().filter(|adoptable| adoptable.is_owner_gone)?;
        let record = adoptable.held_key()?;
        let is_answered = matches!(
            facts.check_of_held(record),
            Some(KeyCheck::Valid | KeyCheck::Invalid | KeyCheck::OtherKey)
        );
        let seen = self.first_seen(&record.key_id);
        let gives_up_at = seen.plus(UNCLEAR_FOR);
        if is_answered || facts.account.lacks_auth_me || gives_up_at <= self.now.monotonic {
            return None;
        }
        if adoptable.listed.is_none() {
            if !self.may_be_listed_later(record) {
                return None;
            }
            self.waits.request_wake_up(gives_up_at);
            if self.has_no_trusted_pass() {
                self.waits.request_pass(facts, Monotonic::default());
            } else {
                // One that may show it already, and one that must.
                self.waits.request_pass(facts, seen);
                self.waits.request_pass(facts, seen.plus(self.settings.settle_time));
            }
            let message = format!(
                "Waiting for Boltz's list of keys to show whether key {}, which Secret {} may contain, is a key of this \
                 operator. A new key replaces it then, and after one hour at the latest.",
                record.key_id, adoptable.secret.name
            );
            let waiting = Block { reason: Reason::Pending, message, until: None };
            self.findings.blocked = Some(facts.account.list_failing.clone().unwrap_or(waiting));
            return Some(None);
        }
        self.waits.request_wake_up(gives_up_at);
        if let Some(block) = self.in_effect(&facts.account.calls_blocked) {
            self.waits.wait_for(&block);
            self.findings.blocked = Some(block);
            return Some(None);
        }
        let (secret, key_id) = (adoptable.secret.name.clone(), record.key_id.clone());
        let step = self.attempt(Step::CheckKey { secret, key_id });
        if step.is_none() {
            self.findings.blocked = self.block_of(&[Slot::Check, Slot::Read]);
        }
        Some(step)
    }

    /// There is no pass, it is doubtful, or the key may be newer.
    fn may_be_listed_later(&self, record: &Record) -> bool {
        let shows_it_from = self.first_seen(&record.key_id).plus(self.settings.settle_time);
        let newest = self.facts.passes.first();
        self.has_no_trusted_pass() || newest.is_some_and(|pass| pass.started < shows_it_from)
    }

    fn has_no_trusted_pass(&self) -> bool {
        self.facts.passes.first().is_none_or(|pass| pass.doubt != Doubt::None)
    }

    /// The key that is replaced by adoption. Rule 7: it is revoked at the end of its overlap only with a proof. Without one
    /// it is named until then, so that it is no orphan before.
    pub(super) fn held_key_as_previous(&self, end: Timestamp) -> Option<PreviousKey> {
        let facts = self.facts;
        let adoptable = facts.adoptable()?;
        let record = adoptable.held_key()?;
        let check = facts.check_of_held(record);
        let is_known_to_be_none = matches!(check, Some(KeyCheck::Invalid | KeyCheck::OtherKey))
            || (adoptable.listed.is_none() && !self.may_be_listed_later(record));
        if is_known_to_be_none || facts.named_keys().iter().any(|key| key.id == record.key_id) {
            return None;
        }
        let is_proven = check == Some(&KeyCheck::Valid) && adoptable.is_owner_gone;
        let listed = adoptable.listed.as_ref().filter(|_| is_proven);
        let proof = listed.and(adoptable.proof.clone()).unwrap_or_default();
        Some(PreviousKey {
            key_id: record.key_id.clone(),
            key_prefix: Some(listed.map_or_else(|| record.key_prefix.clone(), |key| key.prefix.clone())),
            attempt: Some(listed.map_or_else(|| record.attempt.clone(), |key| key.attempt.clone())),
            revoke_after: end,
            expires_at: listed.map_or(record.expires_at, |key| key.expires_at),
            even_if_used: false,
            organization: facts.account.organization.clone(),
            adopted: Some(proof),
            other: OtherFields::default(),
        })
    }

    /// Whether a first key is about to replace a value that workloads may have loaded.
    pub(super) fn replaces_unknown_value(&self) -> bool {
        self.facts.object.status.key_id.is_none()
            && matches!(self.facts.secret, SecretFacts::Ours(_) | SecretFacts::Adoptable(_))
    }

    /// Adopted keys without a proof. Each stays in the record until its overlap is over.
    pub(super) fn unproven_in_overlap(&self) -> Vec<PreviousKey> {
        let records = self.facts.own_secrets().filter_map(|secret| secret.record.as_ref());
        let unproven = records.flat_map(|record| &record.previous).filter(|key| self.is_unproven(key));
        unproven.filter(|key| self.now.wall < key.revoke_after).cloned().collect()
    }

    /// Whether the record names one for longer: then nobody would report it as an orphan.
    pub(super) fn names_unproven_too_long(&mut self, record: &Record) -> bool {
        let unproven: Vec<&PreviousKey> =
            record.previous.iter().filter(|key| self.is_unproven(key)).collect();
        for key in &unproven {
            self.waits.request_wake_up(self.now.monotonic_at(key.revoke_after));
        }
        unproven.iter().any(|key| key.revoke_after <= self.now.wall)
    }

    /// It is named as adopted, and passes show it as that of another object, or not at all. Without a valid admin key no
    /// proof can be read.
    fn is_unproven(&self, key: &PreviousKey) -> bool {
        let facts = self.facts;
        let state = || facts.key_state(self.settings, self.now, &key.key_id, key.attempt.as_ref());
        let is_admin_key_refused =
            facts.account.calls_blocked.as_ref().is_some_and(|block| block.reason.is_stalled());
        key.adopted.is_some()
            && !is_admin_key_refused
            && matches!(state(), KeyState::Foreign | KeyState::Absent)
    }
}

impl ProcessMemory {
    /// No cache shows that a Secret is adoptable: it has no label, or that of another object. What a live read found counts
    /// until the next one. A write of it has its version as precondition.
    pub(super) fn learn_adoptable(&mut self, facts: &mut Facts) {
        if let SecretFacts::Adoptable(found) = &facts.secret {
            let known = self.adoptable.as_ref();
            let is_same = known.is_some_and(|known| known.held_key() == found.held_key());
            // Another value was not asked.
            self.key_check.take_if(|checked| !is_same && found.holds(&checked.key_id));
            self.adoptable = Some(found.clone());
            return;
        }
        let is_wanted = |known: &Adoptable| {
            !facts.live
                && !matches!(facts.secret, SecretFacts::Ours(_))
                && facts.other_secrets.is_empty()
                && facts.object.wants_to_adopt()
                && facts.object.secret_name() == known.secret.name
        };
        self.adoptable.take_if(|known| !is_wanted(known));
        if let Some(known) = &self.adoptable {
            facts.secret = SecretFacts::Adoptable(known.clone());
        }
    }
}

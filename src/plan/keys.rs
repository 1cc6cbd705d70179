//! What is known about one key.

use super::{
    adopt::Adoptable,
    answer::KeyCheck,
    attempt::{Ownership, Progress},
    facts::{Doubt, Facts, ListedKey, OwnSecret, Pass, SecretFacts},
    memory::ProcessMemory,
    settings::Settings,
    time::{Now, elapsed},
};
use crate::{
    api::annotations::FINALIZER,
    protocol::{
        OtherFields,
        ledger::LedgerEntry,
        marker::AttemptId,
        record::{PreviousKey, Record},
    },
};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};

/// What is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Boltz accepts the key, according to its list or because this process created the key.
    Active,
    /// Revoked by this process, or the key itself is refused.
    Inactive,
    /// Boltz's list shows it as inactive, which may be wrong. When its time has come it is revoked all the same.
    ShownInactive,
    /// Boltz lists the id without this object's marker: it belongs to something else.
    Foreign,
    /// Missing from two complete passes that should have shown it.
    Absent,
    /// It belongs to another organization than the admin key: nothing is known about it, and it cannot be revoked.
    OtherOrganization,
    /// Not known yet.
    Unknown,
}

impl KeyState {
    /// Boltz may still accept the key.
    pub(super) fn may_be_active(self) -> bool {
        !self.is_gone()
    }

    /// Boltz does not accept the key for this object any more.
    pub(super) fn is_gone(self) -> bool {
        matches!(self, Self::Inactive | Self::ShownInactive | Self::Foreign | Self::Absent)
    }
}

/// A key that the record, the status or process memory refers to, with the end of its overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedKey {
    /// Boltz's id of the key.
    pub id: String,
    /// Its first characters, if known.
    pub prefix: Option<String>,
    /// Leads from the key to its entry in the ledger. `None`: only the status names the key.
    pub attempt: Option<AttemptId>,
    /// When it expires, if known.
    pub expires_at: Option<Timestamp>,
    /// When its overlap ends. `None`: it is or was the current one.
    pub revoke_after: Option<Timestamp>,
    /// Revoke it at that time even if it is still in use.
    pub even_if_used: bool,
    /// A key of another one than the admin key's cannot be revoked. `None`: not known, treated as ours.
    pub organization: Option<String>,
    /// The proof in the record that it may be revoked, if it was in a Secret that the object adopted.
    pub adopted: Option<String>,
    /// Fields of later releases, if the record lists it as previous.
    pub other: OtherFields,
}

impl NamedKey {
    /// As an entry of the record's `previous`.
    pub(crate) fn into_previous(self, revoke_after: Timestamp) -> PreviousKey {
        PreviousKey {
            key_id: self.id,
            key_prefix: self.prefix,
            attempt: self.attempt,
            revoke_after: self.revoke_after.unwrap_or(revoke_after),
            expires_at: self.expires_at,
            even_if_used: self.even_if_used,
            organization: self.organization,
            adopted: self.adopted,
            other: self.other,
        }
    }
}

impl Facts {
    /// The Secret that contains the key: the one with the name in the spec or, before a move, the one with the old name.
    pub(crate) fn current_secret(&self) -> Option<&OwnSecret> {
        self.own_secrets().next()
    }

    /// Its record, whether or not its value can be trusted.
    pub fn record(&self) -> Option<&Record> {
        self.current_secret()?.record.as_ref()
    }

    /// The record, if its hash matches the stored value and Boltz's list does not contradict it.
    pub(crate) fn trusted_record(&self, settings: &Settings, now: Now) -> Option<&Record> {
        let record = self.record().filter(|_| self.value_is_intact())?;
        let state = self.key_state(settings, now, &record.key_id, Some(&record.attempt));
        (!matches!(state, KeyState::Foreign | KeyState::Absent)).then_some(record)
    }

    /// The Secrets of the object: first the one at the wanted name.
    pub(super) fn own_secrets(&self) -> impl Iterator<Item = &OwnSecret> {
        let wanted = match &self.secret {
            SecretFacts::Ours(own) => Some(own.as_ref()),
            SecretFacts::Absent | SecretFacts::Foreign(_) | SecretFacts::Adoptable(_) => None,
        };
        wanted.into_iter().chain(&self.other_secrets)
    }

    /// Whether the value of a Secret must be read first.
    pub(crate) fn has_unread_value(&self) -> bool {
        self.own_secrets().any(|secret| secret.is_unread)
    }

    /// Whether the Secret contains the value that its record describes. An unread value counts as intact.
    pub(crate) fn value_is_intact(&self) -> bool {
        self.current_secret().is_some_and(|secret| {
            if secret.is_unread {
                return secret.record.is_some();
            }
            let recorded = secret.record.as_ref().map(|record| &record.value_sha256);
            recorded.is_some() && recorded == secret.value_sha256.as_ref()
        })
    }

    /// Whether a Secret was altered so that it may contain the value of this key, which is not the key of its record.
    pub(super) fn may_be_in_a_secret(&self, id: &str) -> bool {
        let known = self.memory.minted(id).map(|(_, key)| &key.value_sha256);
        self.own_secrets().any(|secret| match (&secret.record, &secret.value_sha256) {
            (Some(record), Some(value)) => {
                *value != record.value_sha256 && known.is_none_or(|known| known == value)
            }
            // There is no value, or it is that of the record beside another field that was altered.
            (Some(_), None) => secret.is_unread,
            (None, value) => value.is_none() || known.is_none_or(|known| Some(known) == value.as_ref()),
        })
    }

    /// The key that the newest pass lists with this id and this object's marker.
    pub fn listed(&self, id: &str) -> Option<&ListedKey> {
        self.passes.first()?.keys.iter().find(|key| key.id == id)
    }

    /// The named keys, each once: the current key of the Secret, its previous keys, then the keys of other Secrets, of
    /// process memory and of the status.
    pub fn named_keys(&self) -> Vec<NamedKey> {
        let mut named: Vec<NamedKey> = Vec::new();
        let mut ids: HashSet<String> = HashSet::new();
        let mut add = |key: NamedKey| {
            if ids.insert(key.id.clone()) {
                named.push(key);
            }
        };
        let status = &self.object.status;
        let others = self.other_secrets.iter().filter_map(|secret| secret.record.as_ref());
        for record in self.record().into_iter().chain(others) {
            add(NamedKey {
                id: record.key_id.clone(),
                prefix: Some(record.key_prefix.clone()),
                attempt: Some(record.attempt.clone()),
                expires_at: record.expires_at,
                revoke_after: None,
                even_if_used: false,
                organization: record.organization.clone(),
                adopted: None,
                other: OtherFields::default(),
            });
            for previous in &record.previous {
                add(NamedKey {
                    id: previous.key_id.clone(),
                    prefix: previous.key_prefix.clone(),
                    attempt: previous.attempt.clone(),
                    expires_at: previous.expires_at,
                    revoke_after: Some(previous.revoke_after),
                    even_if_used: previous.even_if_used,
                    organization: previous.organization.clone(),
                    adopted: previous.adopted.clone(),
                    other: previous.other.clone(),
                });
            }
        }
        for (attempt, known) in &self.memory.attempts {
            if let Progress::Stored { key, .. } = &known.progress {
                add(NamedKey {
                    id: key.id.clone(),
                    prefix: Some(key.prefix.clone()),
                    attempt: Some(attempt.clone()),
                    expires_at: key.expires_at,
                    revoke_after: known.replaced.map(|replaced| replaced.revoke_after),
                    even_if_used: known.replaced.is_some_and(|replaced| replaced.even_if_used),
                    organization: key.organization.clone(),
                    adopted: None,
                    other: OtherFields::default(),
                });
            }
        }
        if let Some(id) = &status.key_id {
            add(NamedKey {
                id: id.clone(),
                prefix: status.key_prefix.clone(),
                attempt: self.listed(id).map(|key| key.attempt.clone()),
                expires_at: status.expires_at.as_ref().map(|time| time.0),
                revoke_after: None,
                even_if_used: false,
                organization: None,
                adopted: None,
                other: OtherFields::default(),
            });
        }
        for previous in &status.previous_keys {
            add(NamedKey {
                id: previous.key_id.clone(),
                prefix: previous.key_prefix.clone(),
                attempt: self.listed(&previous.key_id).map(|key| key.attempt.clone()),
                expires_at: None,
                revoke_after: Some(previous.revoke_after.0),
                even_if_used: false,
                organization: None,
                adopted: None,
                other: OtherFields::default(),
            });
        }
        named
    }

    /// When a key of the object was last used, as the newest pass shows it.
    pub(crate) fn newest_use(&self) -> Option<Timestamp> {
        self.passes.first()?.keys.iter().filter_map(|key| key.last_used_at).max()
    }

    /// `rotate-now` has a value that the current key does not answer. Without its record, this is known only if this
    /// process saw it.
    pub(super) fn has_leaked(&self, memory: &ProcessMemory) -> bool {
        let is_current = |key_id: &String| self.object.status.key_id.as_ref() == Some(key_id);
        let seen = memory.last_record.as_ref().filter(|record| is_current(&record.key_id));
        let seen = seen.map(|record| &record.rotate_now);
        let handled = self.record().map(|record| &record.rotate_now).or(seen);
        self.object.rotate_now.is_some() && handled.is_some_and(|handled| *handled != self.object.rotate_now)
    }

    /// Key ids and attempts for which this process remembers when it first saw them.
    pub(crate) fn ids_and_attempts(&self) -> BTreeSet<String> {
        let attempts = self.object.ledger.entries.iter().map(|entry| entry.attempt.to_string());
        let named = self.named_keys().into_iter();
        let held = self.adoptable().and_then(Adoptable::held_key).map(|record| record.key_id.clone());
        attempts
            .chain(held)
            .chain(named.flat_map(|key| [Some(key.id), key.attempt.map(String::from)]).flatten())
            .collect()
    }

    /// What is known about a named key. The key itself, if it was asked, knows better than Boltz's list. A key of this
    /// process is not given up because the list does not show it, or shows it under another name: its revocation is tried.
    /// But if Boltz does not accept the value as that key, an id under another name is somebody else's.
    pub(crate) fn key_state(
        &self,
        settings: &Settings,
        now: Now,
        id: &str,
        attempt: Option<&AttemptId>,
    ) -> KeyState {
        let believed = self.state_by_list(settings, now, id, attempt, Doubt::None);
        match self.memory.check_of(id).map(|checked| &checked.check) {
            Some(KeyCheck::Valid) if believed.is_gone() => KeyState::Active,
            Some(KeyCheck::Invalid)
                if self.state_by_list(settings, now, id, attempt, Doubt::All).is_gone() =>
            {
                // Both may be those of another environment: then the key is kept in mind, and revoked in the end.
                if believed.is_gone() { KeyState::Inactive } else { KeyState::ShownInactive }
            }
            _ => match (believed, self.memory.ownership(id)) {
                (KeyState::Absent, Some(_)) | (KeyState::Foreign, Some(Ownership::Assumed)) => {
                    KeyState::Active
                }
                _ => believed,
            },
        }
    }

    /// What Boltz's list says about a key. Passes with more doubt than this prove only that a key is active.
    pub(super) fn state_by_list(
        &self,
        settings: &Settings,
        now: Now,
        id: &str,
        attempt: Option<&AttemptId>,
        accepted_doubt: Doubt,
    ) -> KeyState {
        if self.memory.revoked_ids.contains(id) {
            return KeyState::Inactive;
        }
        if self.is_of_other_organization(id) {
            return KeyState::OtherOrganization;
        }
        let is_believed = |pass: &Pass| pass.doubt <= accepted_doubt;
        let newest_is_believed = self.passes.first().is_none_or(is_believed);
        if let Some(key) = self.listed(id) {
            return match key.is_active_at(now.wall) {
                true => KeyState::Active,
                false if newest_is_believed => KeyState::ShownInactive,
                false => KeyState::Unknown,
            };
        }
        if newest_is_believed && self.passes.first().is_some_and(|pass| pass.under_other_names.contains(id)) {
            return KeyState::Foreign;
        }
        // A pass counts only if it began at least one settle time after the key was first seen.
        let expected_from = [Some(id), attempt.map(AttemptId::as_str)]
            .into_iter()
            .flatten()
            .filter_map(|name| self.memory.first_seen.get(name))
            .min()
            .map(|seen| seen.plus(settings.settle_time));
        let missed = |pass: &Pass| {
            is_believed(pass)
                && expected_from.is_some_and(|from| pass.started >= from)
                && !pass.under_other_names.contains(id)
                && !pass.keys.iter().any(|key| key.id == id)
        };
        if self.passes.len() >= 2 && self.passes.iter().take(2).all(missed) {
            KeyState::Absent
        } else if self.memory.minted(id).is_some() {
            KeyState::Active
        } else {
            KeyState::Unknown
        }
    }

    /// Whether Boltz's list is that of another organization.
    pub(super) fn is_other(&self, organization: Option<&String>) -> bool {
        let current = self.account.organization.as_ref();
        organization.is_some_and(|organization| current.is_some_and(|current| current != organization))
    }

    /// Whether the list of the object's account cannot show the key of this attempt.
    pub(super) fn is_elsewhere(&self, entry: &LedgerEntry) -> bool {
        self.is_other(entry.organization.as_ref()) || entry.account != self.account.name
    }

    fn is_of_other_organization(&self, id: &str) -> bool {
        let records = self.own_secrets().filter_map(|secret| secret.record.as_ref());
        let mut keys = records.flat_map(|record| {
            let current = (record.key_id.as_str(), record.organization.as_ref());
            let previous = record.previous.iter().map(|key| (key.key_id.as_str(), key.organization.as_ref()));
            std::iter::once(current).chain(previous)
        });
        keys.any(|(key_id, organization)| key_id == id && self.is_other(organization))
    }

    /// Whether the key may still be active. An expired key is not. One that only a list shows as inactive may be, unless its
    /// overlap had ended before this process first saw it: then another process has revoked it, and the record still names it.
    pub fn may_be_active(&self, settings: &Settings, now: Now, key: &NamedKey) -> bool {
        let state = self.key_state(settings, now, &key.id, key.attempt.as_ref());
        let was_seen_before = |end: Timestamp| {
            self.memory
                .first_seen
                .get(&key.id)
                .is_some_and(|seen| elapsed(end, now.wall) <= now.monotonic.since(*seen))
        };
        let is_awaited = || key.revoke_after.is_none_or(was_seen_before);
        key.expires_at.is_none_or(|expires_at| now.wall < expires_at)
            && (state.may_be_active() || (state == KeyState::ShownInactive && is_awaited()))
    }

    /// Whether the object needs a finalizer: it has attempts or keys.
    pub fn has_something_to_revoke(&self) -> bool {
        let ledger = &self.object.ledger;
        ledger.forgery.is_some() || !ledger.entries.is_empty() || !self.named_keys().is_empty()
    }
}

/// The finalizers of an object, including ours.
pub fn with_finalizer(finalizers: &[String]) -> Vec<String> {
    let mut finalizers = finalizers.to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    finalizers
}

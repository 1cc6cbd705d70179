//! What is known about single keys and attempts.

use super::{
    attempt::Progress,
    facts::{Facts, ListedKey, OwnSecret, Pass, SecretFacts, Settings},
    time::{Monotonic, Now, elapsed},
};
use crate::{
    api::annotations::FINALIZER,
    protocol::{
        marker::AttemptId,
        record::{PreviousKey, Record},
    },
};
use jiff::Timestamp;
use std::{collections::BTreeSet, time::Duration};

/// After this long by the wall clock an attempt is settled even if this process saw it only now. Longer than a clock is
/// wrong by: one that keeps local time is off by up to 14 hours.
const SURELY_SETTLED: Duration = Duration::from_secs(24 * 3600);

/// What is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Boltz takes it, by its list or because this process minted it.
    Active,
    /// Boltz does not take it any more: revoked or expired.
    Inactive,
    /// The list shows the id under a name without this object's marker: it is none of ours.
    Foreign,
    /// Two complete passes that should have shown it did not.
    Absent,
    /// No pass tells yet.
    Unknown,
}

/// A key that something names, and until when it is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedKey {
    /// Its id.
    pub id: String,
    /// Its first characters, if known.
    pub prefix: Option<String>,
    /// Its attempt, if known.
    pub attempt: Option<AttemptId>,
    /// When it expires, if known.
    pub expires_at: Option<Timestamp>,
    /// When its overlap ends. `None`: it is or was the current one.
    pub revoke_after: Option<Timestamp>,
    /// It is revoked then even if it is still used.
    pub even_if_used: bool,
}

impl NamedKey {
    /// As an entry of the record's `previous`.
    pub fn into_previous(self, revoke_after: Timestamp) -> PreviousKey {
        PreviousKey {
            key_id: self.id,
            key_prefix: self.prefix,
            attempt: self.attempt,
            revoke_after: self.revoke_after.unwrap_or(revoke_after),
            expires_at: self.expires_at,
            even_if_used: self.even_if_used,
        }
    }
}

impl Facts {
    /// The Secret that holds the key: the one at the wanted name or, before a move, the one at the old name.
    pub fn current_secret(&self) -> Option<&OwnSecret> {
        match &self.secret {
            SecretFacts::Ours(secret) => Some(secret),
            SecretFacts::Absent | SecretFacts::Foreign(_) => self.other_secrets.first(),
        }
    }

    /// Its record, whether or not its value can be trusted.
    pub fn record(&self) -> Option<&Record> {
        self.current_secret()?.record.as_ref()
    }

    /// The record, if its hash fits the stored value and the list does not contradict it.
    pub fn trusted_record(&self, settings: &Settings, now: Now) -> Option<&Record> {
        let record = self.record().filter(|_| self.value_is_intact())?;
        let state = self.key_state(settings, now, &record.key_id, Some(&record.attempt));
        (!matches!(state, KeyState::Foreign | KeyState::Absent)).then_some(record)
    }

    /// Whether a Secret's value has to be read before anything is concluded from it.
    pub fn has_unread_value(&self) -> bool {
        let own = match &self.secret {
            SecretFacts::Ours(own) => Some(own.as_ref()),
            SecretFacts::Absent | SecretFacts::Foreign(_) => None,
        };
        own.into_iter().chain(&self.other_secrets).any(|secret| secret.is_unread)
    }

    /// Whether the Secret holds the value that its record speaks of. It is believed until somebody has looked.
    pub fn value_is_intact(&self) -> bool {
        self.current_secret().is_some_and(|secret| {
            if secret.is_unread {
                return secret.record.is_some();
            }
            let recorded = secret.record.as_ref().map(|record| &record.value_sha256);
            recorded.is_some() && recorded == secret.value_sha256.as_ref()
        })
    }

    /// What the newest pass lists under the id, with this object's marker.
    pub fn listed(&self, id: &str) -> Option<&ListedKey> {
        self.passes.first()?.keys.iter().find(|key| key.id == id)
    }

    /// The keys that records, status or this process's own stored writes name, each once: first the wanted Secret's
    /// current key, then its previous ones, those of other Secrets, of memory, of status.
    pub fn named_keys(&self) -> Vec<NamedKey> {
        let mut named: Vec<NamedKey> = Vec::new();
        let mut add = |key: NamedKey| {
            if !named.iter().any(|known| known.id == key.id) {
                named.push(key);
            }
        };
        let others = self.other_secrets.iter().filter_map(|secret| secret.record.as_ref());
        for record in self.record().into_iter().chain(others) {
            add(NamedKey {
                id: record.key_id.clone(),
                prefix: Some(record.key_prefix.clone()),
                attempt: Some(record.attempt.clone()),
                expires_at: record.expires_at,
                revoke_after: None,
                even_if_used: false,
            });
            for previous in &record.previous {
                add(NamedKey {
                    id: previous.key_id.clone(),
                    prefix: previous.key_prefix.clone(),
                    attempt: previous.attempt.clone(),
                    expires_at: previous.expires_at,
                    revoke_after: Some(previous.revoke_after),
                    even_if_used: previous.even_if_used,
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
                    revoke_after: None,
                    even_if_used: false,
                });
            }
        }
        let status = &self.object.status;
        if let Some(id) = &status.key_id {
            add(NamedKey {
                id: id.clone(),
                prefix: status.key_prefix.clone(),
                attempt: self.listed(id).map(|key| key.attempt.clone()),
                expires_at: status.expires_at.as_ref().map(|time| time.0),
                revoke_after: None,
                even_if_used: false,
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
            });
        }
        named
    }

    /// The ids and attempts whose first sight by this process counts: those that ledger, record, status or memory name.
    pub fn ids_and_attempts(&self) -> BTreeSet<String> {
        let attempts = self.object.ledger.entries.iter().map(|entry| entry.attempt.to_string());
        let named = self.named_keys().into_iter();
        attempts
            .chain(named.flat_map(|key| [Some(key.id), key.attempt.map(String::from)]).flatten())
            .collect()
    }

    /// What is known about a key that something names.
    pub fn key_state(
        &self,
        settings: &Settings,
        now: Now,
        id: &str,
        attempt: Option<&AttemptId>,
    ) -> KeyState {
        if self.memory.revoked_ids.contains(id) {
            return KeyState::Inactive;
        }
        if let Some(key) = self.listed(id) {
            return if key.is_active_at(now.wall) { KeyState::Active } else { KeyState::Inactive };
        }
        if self.passes.first().is_some_and(|pass| pass.under_other_names.contains(id)) {
            return KeyState::Foreign;
        }
        // Only passes begun a settle time after the key's issue could have been expected to show it.
        let expected_from = [Some(id), attempt.map(AttemptId::as_str)]
            .into_iter()
            .flatten()
            .filter_map(|name| self.memory.first_seen.get(name))
            .min()
            .map(|seen| seen.plus(settings.settle_time));
        let missed = |pass: &Pass| {
            expected_from.is_some_and(|from| pass.started >= from)
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

    /// Whether a named key still lives, as far as anybody knows. A key past its expiry does not.
    pub fn may_live(&self, settings: &Settings, now: Now, key: &NamedKey) -> bool {
        key.expires_at.is_none_or(|expires_at| now.wall < expires_at)
            && matches!(
                self.key_state(settings, now, &key.id, key.attempt.as_ref()),
                KeyState::Active | KeyState::Unknown
            )
    }

    /// When the attempt's POST can no longer take effect and nobody will store its key: a window and a settle time
    /// after this process first saw it, or at once when it was written a day ago.
    pub fn settled_at(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> Monotonic {
        let written_at = self
            .object
            .ledger
            .entries
            .iter()
            .find(|entry| entry.attempt == *attempt)
            .map(|entry| entry.written_at);
        if let Some(age) = written_at.map(|time| elapsed(time, now.wall))
            && age >= SURELY_SETTLED
        {
            return now.monotonic.minus(age - SURELY_SETTLED);
        }
        // An attempt of this process may have left the ledger by somebody's hand, while its key is still here.
        let written = self.memory.attempts.get(attempt).map(|known| known.written);
        let seen = self.memory.first_seen.get(attempt.as_str()).copied().or(written);
        seen.unwrap_or(now.monotonic).plus(settings.window() + settings.settle_time)
    }

    /// Whether the attempt is settled.
    pub fn is_settled(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        self.settled_at(settings, now, attempt) <= now.monotonic
    }

    /// Whether a complete pass begun after the attempt was settled shows no active key of it: the attempt is over.
    pub fn is_over(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        let settled_at = self.settled_at(settings, now, attempt);
        self.passes.first().is_some_and(|pass| {
            settled_at <= now.monotonic
                && pass.started >= settled_at
                && !pass.keys.iter().any(|key| {
                    key.attempt == *attempt
                        && key.is_active_at(now.wall)
                        && !self.memory.revoked_ids.contains(&key.id)
                })
        })
    }

    /// Whether this process wrote the attempt and knows its end: it was not and will not be POSTed, or its key is
    /// revoked.
    pub fn knows_the_end(&self, settings: &Settings, now: Now, attempt: &AttemptId) -> bool {
        self.memory.attempts.get(attempt).is_some_and(|known| match &known.progress {
            Progress::Written => {
                self.object.deleting || known.written.plus(settings.window()) <= now.monotonic
            }
            Progress::Sent => false,
            Progress::InHand { key, .. } | Progress::Stored { key, .. } => {
                self.memory.revoked_ids.contains(&key.id)
            }
            Progress::Ended => true,
        })
    }

    /// Whether there is anything that a finalizer has to keep the object for.
    pub fn has_something_to_revoke(&self) -> bool {
        !self.object.ledger.entries.is_empty() || !self.named_keys().is_empty()
    }
}

/// The finalizers of an object, with ours.
pub fn with_finalizer(finalizers: &[String]) -> Vec<String> {
    let mut finalizers = finalizers.to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    finalizers
}

//! Boltz: its keys.

use crate::{DAY, World};
use boltz_operator::{
    plan::{KeyCheck, RevokeReason, later},
    protocol::marker::{AttemptId, ObjectMark},
};
use jiff::Timestamp;

/// A key as Boltz knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub id: String,
    pub object: ObjectMark,
    pub attempt: AttemptId,
    pub value: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub revoked: bool,
    /// Why we revoked it, if we did.
    pub reason: Option<RevokeReason>,
}

impl World {
    /// Boltz makes the key of a POST.
    pub fn make_key(&mut self, uid: &str, attempt: &AttemptId, days: Option<u32>) -> Key {
        self.keys_made += 1;
        let id = key_id(self.keys_made);
        let created_at = self.true_time();
        let key = Key {
            value: key_value(&id),
            id,
            object: ObjectMark::from_uid(uid),
            attempt: attempt.clone(),
            created_at,
            expires_at: days.map(|days| later(created_at, days * DAY)),
            last_used_at: None,
            revoked: false,
            reason: None,
        };
        self.keys.push(key.clone());
        self.changed();
        key
    }

    /// We revoke a key for the object with that UID.
    pub(crate) fn revoke(&mut self, uid: &str, id: &str, reason: RevokeReason) {
        self.changed();
        let lives = self.object.as_ref().is_some_and(|object| object.uid == uid && !object.deleting);
        let Some(key) = self.keys.iter_mut().find(|key| key.id == id) else { return };
        let is_held = self
            .secrets
            .values()
            .any(|secret| secret.owner.as_deref() == Some(uid) && secret.value.as_ref() == Some(&key.value));
        if key.object != ObjectMark::from_uid(uid) {
            self.violation = Some(format!("{id} is not ours, and is revoked"));
        } else if lives && is_held && !key.revoked {
            self.violation = Some(format!("the Secret holds {id}, which is revoked: {}", reason.as_str()));
        }
        key.revoked = true;
        key.reason = Some(reason);
    }

    /// What Boltz says to a request with the key itself.
    pub(crate) fn check_key(&self, id: &str) -> KeyCheck {
        if self.active().contains(&id) { KeyCheck::Valid } else { KeyCheck::Invalid }
    }

    pub fn key(&mut self, id: &str) -> &mut Key {
        self.keys.iter_mut().find(|key| key.id == id).unwrap()
    }

    /// The ids of the keys that Boltz takes.
    pub fn active(&self) -> Vec<&str> {
        let now = self.true_time();
        self.keys
            .iter()
            .filter(|key| !key.revoked && key.expires_at.is_none_or(|expires_at| now < expires_at))
            .map(|key| key.id.as_str())
            .collect()
    }
}

/// The id of the key with that number; the first is 1.
pub fn key_id(number: usize) -> String {
    format!("key-{number}")
}

/// The value of the key with that id.
pub fn key_value(id: &str) -> String {
    format!("value of {id}")
}

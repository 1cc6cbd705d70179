//! Boltz: its keys.

use crate::{DAY, Milestone, World, overlaps::By};
use boltz_operator::{
    plan::{KeyCheck, RevokeReason, later},
    protocol::{
        marker::{AttemptId, ObjectMark},
        record::value_sha256,
    },
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
        self.mark_changed();
        key
    }

    /// We revoke a key for the object with that UID.
    pub(crate) fn revoke(&mut self, uid: &str, id: &str, reason: RevokeReason) {
        self.mark_changed();
        self.follow_deliveries(By::Users);
        let wrong = self.why_it_must_live(id, reason);
        let Some(key) = self.keys.iter_mut().find(|key| key.id == id) else { return };
        let is_adopted = self.adopted.contains(&(uid.to_owned(), id.to_owned()));
        if key.object != ObjectMark::from_uid(uid) && !is_adopted {
            self.violation = Some(format!("{id} is not ours, and is revoked"));
        } else if wrong.is_some() {
            self.violation = wrong;
        }
        if !key.revoked {
            self.reached.insert(match reason {
                RevokeReason::OverlapOver => Milestone::OverlapEnded,
                RevokeReason::RolledOut => Milestone::RolledOut,
                RevokeReason::RotateNow => Milestone::LeakRevoked,
                RevokeReason::OverlapCut => Milestone::OverlapCut,
                RevokeReason::Deleted => Milestone::DeletedRevoked,
                RevokeReason::Stray | RevokeReason::Orphan => Milestone::StrayRevoked,
                RevokeReason::NotStored => Milestone::UnstoredRevoked,
            });
        }
        key.revoked = true;
        key.reason = Some(reason);
    }

    /// We revoke a key that is named by nothing but the process that got it, because its object is gone.
    pub(crate) fn revoke_unnamed(&mut self, id: &str) {
        let object = self.object.as_ref().map(|object| object.uid.clone());
        let Some(key) = self.keys.iter().find(|key| key.id == id) else { return };
        let uid = object.filter(|uid| ObjectMark::from_uid(uid) == key.object);
        match uid {
            Some(uid) => self.revoke(&uid, id, RevokeReason::NotStored),
            None => {
                self.mark_changed();
                self.key(id).revoked = true;
            }
        }
    }

    /// What Boltz says to a request with the key itself, if the Secret still has it.
    pub(crate) fn check_key(&self, secret: &str, id: &str) -> Option<KeyCheck> {
        let secret = self.secrets.get(secret)?;
        let (record, value) = (secret.record.as_ref()?, secret.value.as_ref()?);
        let is_intact = record.key_id == id && value_sha256(value.as_bytes()) == record.value_sha256;
        let active = self.active();
        let mut accepted = self.keys.iter().filter(|key| key.value == *value && active.contains(&&*key.id));
        is_intact.then(|| match accepted.next() {
            Some(key) if key.id == id => KeyCheck::Valid,
            Some(_) => KeyCheck::OtherKey,
            None => KeyCheck::Invalid,
        })
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

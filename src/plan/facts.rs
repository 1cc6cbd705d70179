//! The input of a decision. Plain data, collected by [`crate::controller`].

use super::{account::AccountPolicy, adopt::Adoptable, block::Block, memory::ProcessMemory, time::Monotonic};
use crate::{
    api::{BoltzApiKeySpec, BoltzApiKeyStatus, DeletionPolicy},
    protocol::{account_name::AccountName, ledger::Ledger, marker::AttemptId, record::Record},
};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Everything that is known about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The object, whether or not its spec can be read.
    pub object: ObjectFacts,
    /// The Secret with the name that the spec asks for.
    pub secret: SecretFacts,
    /// Secrets of this object under other names.
    pub other_secrets: Vec<OwnSecret>,
    /// The object and its Secrets were read from the API server for this decision, not from a cache.
    pub live: bool,
    /// The dry run (C0, R0) passed for this version of the Secret.
    pub preflight_passed: bool,
    /// The newest passes over Boltz's list, reduced to this object; newest first, at most two.
    pub passes: Vec<Pass>,
    /// What this process knows about its own calls.
    pub memory: ProcessMemory,
    /// State shared by all objects of the account.
    pub account: AccountFacts,
}

/// The object, as read.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectFacts {
    /// The default for the Secret's name and the key's display name.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from an earlier object of the same name. Markers contain the first 64 bits.
    pub uid: String,
    /// Its resourceVersion: each write of the object requires that it is unchanged.
    pub resource_version: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// Among its finalizers is `boltz.bio/revoke-keys`.
    pub has_finalizer: bool,
    /// All, those of others too: the patch that removes ours writes the whole list.
    pub finalizers: Vec<String>,
    /// Its spec, or why it cannot be read.
    pub spec: Result<BoltzApiKeySpec, String>,
    /// Its attempts that may still have an active key.
    pub ledger: Ledger,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The rotation that it requests does not wait for the rotation window.
    pub rotates_outside_window: bool,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// The value of the rotate-now annotation.
    pub rotate_now: Option<String>,
    /// The annotation `boltz.bio/paused` is `true`.
    pub is_paused: bool,
    /// The value of the deletion-policy annotation.
    pub deletion_policy: Option<DeletionPolicy>,
    /// Its account allows no key to be retained.
    pub retain_is_forbidden: bool,
    /// Its status. Only a hint (rule 2).
    pub status: BoltzApiKeyStatus,
}

impl ObjectFacts {
    /// What happens to the keys when the object is deleted. The annotation overrides the spec. The error is that of the
    /// spec.
    pub(crate) fn effective_deletion_policy(&self) -> Result<DeletionPolicy, &String> {
        if self.retain_is_forbidden {
            return Ok(DeletionPolicy::Revoke);
        }
        self.wanted_deletion_policy()
    }

    /// The same as the object asks for it, whatever its account allows.
    pub(super) fn wanted_deletion_policy(&self) -> Result<DeletionPolicy, &String> {
        match (self.deletion_policy, &self.spec) {
            (Some(policy), _) => Ok(policy),
            (None, Ok(spec)) => Ok(spec.deletion_policy),
            (None, Err(error)) => Err(error),
        }
    }

    /// Whether the Secret is deleted with the object. With `Retain` the ownerReference is removed as soon as the field is
    /// set: a foreground deletion would delete the Secret before the operator can act.
    pub fn owns_its_secret(&self) -> bool {
        self.effective_deletion_policy() != Ok(DeletionPolicy::Retain)
    }

    /// Whether no key is to be issued: the object is paused or suspended.
    pub(super) fn wants_no_key(&self) -> bool {
        self.is_paused || self.spec.as_ref().is_ok_and(|spec| spec.suspend)
    }

    /// Whether a Secret that exists already may become its own.
    pub fn wants_to_adopt(&self) -> bool {
        !self.deleting && self.spec.as_ref().is_ok_and(|spec| spec.secret.adopt)
    }

    /// The name of the Secret that the spec asks for. Default: the name of the object.
    pub fn secret_name(&self) -> &str {
        self.spec.as_ref().map_or(&self.name, |spec| spec.secret_name(&self.name))
    }
}

/// The Secret with the name that the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretFacts {
    /// No Secret is known. One without our label may exist; the dry run finds it.
    Absent,
    /// The Secret belongs to another owner. The text names it, if known.
    Foreign(String),
    /// It belongs to the object.
    Ours(Box<OwnSecret>),
    /// It belongs to nobody, and consents to belong to the object. It stays as it is until a key is stored in it.
    Adoptable(Box<Adoptable>),
}

/// A Secret that belongs to the object.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnSecret {
    /// Another one than the spec's while it is being moved.
    pub name: String,
    /// Tells it from an earlier Secret of the same name.
    pub uid: String,
    /// Its resourceVersion: each write of the Secret requires that it is unchanged.
    pub resource_version: String,
    /// Its record, when there is one that names the object as owner.
    pub record: Option<Record>,
    /// The SHA-256 of the value under the record's data key, hexadecimal. `None`: there is no such value, or it is the
    /// recorded one and another field that the operator wrote was altered.
    pub value_sha256: Option<String>,
    /// Its value was not read since the last change: `value_sha256` is unknown.
    pub is_unread: bool,
    /// It has our label, so the watch sees it.
    pub labelled: bool,
    /// It has an ownerReference to the object, so the garbage collector deletes it with the object.
    pub owned: bool,
}

/// One complete pass over Boltz's list, reduced to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// When its first page was requested: it need not show what happened later.
    pub started: Monotonic,
    /// The same by the wall clock, to compare with Boltz's times.
    pub started_at: Timestamp,
    /// The keys with the object's marker, and previous keys of its record that it has adopted with proof.
    pub keys: Vec<ListedKey>,
    /// Key ids that the object refers to, but that Boltz lists without this object's marker.
    pub under_other_names: BTreeSet<String>,
    /// What the pass does not prove.
    pub doubt: Doubt,
}

/// What a pass does not prove. Keys that it shows as active are always believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// What it does not show as active is not.
    #[default]
    None,
    /// It lacks all keys that earlier passes showed as active, and they are few: an absence counts if the key itself
    /// confirms it.
    All,
    /// It lacks many keys that earlier passes showed as active: it proves no absence.
    Many,
}

/// A key with the object's marker, as Boltz lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedKey {
    /// Boltz's id of the key.
    pub id: String,
    /// The attempt in its name.
    pub attempt: AttemptId,
    /// The first 12 characters.
    pub prefix: String,
    /// As Boltz says. May still be true after the expiry.
    pub is_active: bool,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// `None`: never. Decides when an overlap `UntilIdle` ends.
    pub last_used_at: Option<Timestamp>,
}

impl ListedKey {
    /// Active, and not past its expiry: whether Boltz turns `is_active` false then is not known.
    pub fn is_active_at(&self, now: Timestamp) -> bool {
        self.is_active && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// State shared by all objects of the account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountFacts {
    /// The account that the object uses.
    pub name: AccountName,
    /// It is not served. What depends on it waits.
    pub is_absent: bool,
    /// The object asks for another account: why it stays with this one.
    pub stays: Option<String>,
    /// What the account allows.
    pub policy: AccountPolicy,
    /// Why Boltz must not be called at all.
    pub calls_blocked: Option<Block>,
    /// Why no key may be created.
    pub mints_blocked: Option<Block>,
    /// The address of Boltz's API.
    pub base_url: String,
    /// Boltz has no `auth/me`: a key cannot be asked whether it is valid.
    pub lacks_auth_me: bool,
    /// The organization that Boltz's list belongs to, if known.
    pub organization: Option<String>,
    /// Somebody accepted that organization in place of another one: objects whose keys belong to another one get new keys.
    pub accepts_organization: bool,
    /// Why Boltz's list of keys cannot be read, if that has lasted.
    pub list_failing: Option<Block>,
    /// Why it is not the object's turn to get a key. The object is woken when it is.
    pub turn_blocked: Option<Block>,
}

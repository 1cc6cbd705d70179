//! What a decision is taken from. Data only: [`crate::controller`] gathers it, the functions beside this file read it.

use super::{block::Block, memory::ProcessMemory, time::Monotonic};
use crate::{
    api::{BoltzApiKeySpec, BoltzApiKeyStatus, DeletionPolicy},
    protocol::{ledger::Ledger, marker::AttemptId, record::Record},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, time::Duration};

/// What configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an unanswered POST may still take effect, the list's lag included.
    pub settle_time: Duration,
    /// How soon a refused Secret is looked at again for the first time.
    pub recheck: Duration,
}

impl Settings {
    /// How long after its writing an attempt may be POSTed and its key stored.
    pub fn window(&self) -> Duration {
        self.settle_time / 2
    }
}

/// All that is known about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The object.
    pub object: ObjectFacts,
    /// The Secret at the name that the spec asks for.
    pub secret: SecretFacts,
    /// Secrets of this object under other names.
    pub other_secrets: Vec<OwnSecret>,
    /// Object and Secrets were read from the API server for this very decision, not from a cache.
    pub live: bool,
    /// The server-side dry run of the Secret's next write passed, for the Secret as it stands here.
    pub preflight_passed: bool,
    /// Boltz's list, as far as it concerns this object, newest complete pass first; at most two.
    pub passes: Vec<Pass>,
    /// What this process knows of its own calls.
    pub memory: ProcessMemory,
    /// What holds for every object.
    pub account: AccountFacts,
}

/// The object, as read.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that the facts speak of.
    pub resource_version: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// It carries our finalizer.
    pub has_finalizer: bool,
    /// All its finalizers.
    pub finalizers: Vec<String>,
    /// What is asked for, or why that cannot be read.
    pub spec: Result<BoltzApiKeySpec, String>,
    /// Its attempts.
    pub ledger: Ledger,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// The value of the rotate-now annotation.
    pub rotate_now: Option<String>,
    /// The value of the deletion-policy annotation.
    pub deletion_policy: Option<DeletionPolicy>,
    /// Its status: a hint.
    pub status: BoltzApiKeyStatus,
}

impl ObjectFacts {
    /// What becomes of the keys when the object is deleted; the annotation overrides the spec. The error says why that
    /// cannot be read.
    pub fn effective_deletion_policy(&self) -> Result<DeletionPolicy, &String> {
        match (self.deletion_policy, &self.spec) {
            (Some(policy), _) => Ok(policy),
            (None, Ok(spec)) => Ok(spec.deletion_policy),
            (None, Err(error)) => Err(error),
        }
    }

    /// Whether the Secret goes with the object. A retained one has no ownerReference from the moment the field says
    /// so: a foreground deletion takes the Secret before the operator has a word.
    pub fn owns_its_secret(&self) -> bool {
        self.effective_deletion_policy() != Ok(DeletionPolicy::Retain)
    }

    /// The name of the Secret that the spec asks for; the object's own by default.
    pub fn secret_name(&self) -> &str {
        self.spec.as_ref().map_or(&self.name, |spec| spec.secret_name(&self.name))
    }
}

/// The Secret at the name that the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretFacts {
    /// None is known. It may exist all the same, without our label: the dry run tells.
    Absent,
    /// It belongs to something else; says to what, as far as it can be told.
    Foreign(String),
    /// It belongs to the object.
    Ours(Box<OwnSecret>),
}

/// A Secret that belongs to the object.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnSecret {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// Its record, when there is one that names the object as owner.
    pub record: Option<Record>,
    /// The SHA-256 of the value under the record's data key, hexadecimal. `None`: there is no such value.
    pub value_sha256: Option<String>,
    /// Its value was not read since it may have changed: `value_sha256` says nothing.
    pub is_unread: bool,
    /// It carries our label.
    pub labelled: bool,
    /// It has an ownerReference to the object.
    pub owned: bool,
}

/// One complete pass over Boltz's list, as far as it concerns one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// When it was begun.
    pub started: Monotonic,
    /// The same by the wall clock.
    pub started_at: Timestamp,
    /// The keys whose names carry the object's marker.
    pub keys: Vec<ListedKey>,
    /// Those ids that the object's record, status or memory names and that the list shows under another name.
    pub under_other_names: BTreeSet<String>,
}

/// A key with the object's marker, as Boltz lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedKey {
    /// Its id.
    pub id: String,
    /// The attempt in its name.
    pub attempt: AttemptId,
    /// Its first characters.
    pub prefix: String,
    /// Boltz's `is_active`.
    pub is_active: bool,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

impl ListedKey {
    /// Active, and not past its expiry: whether Boltz turns `is_active` false then is not known.
    pub fn is_active_at(&self, now: Timestamp) -> bool {
        self.is_active && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// What holds for every object of the account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountFacts {
    /// Why Boltz must not be called at all.
    pub calls_blocked: Option<Block>,
    /// Why nothing may be minted.
    pub mints_blocked: Option<Block>,
}

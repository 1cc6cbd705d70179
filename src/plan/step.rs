//! The steps that a decision can ask for, and what each of them is blocked under.

use super::{attempt::Intent, facts::Facts};
use crate::{
    api::{BoltzApiKeyStatus, RolloutRestartTarget},
    protocol::{ledger::LedgerEntry, marker::AttemptId, record::Record},
};

/// One next step: at most one call that changes something. Everything that it needs and the facts do not hold stands
/// in it. `docs/protocol.md` defines C0 to C4, R0 to R6, D1 and D2.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// Object and Secrets are read from the API server itself.
    ReadLive,
    /// C0, R0: the Secret's write as a server-side dry run.
    Preflight,
    /// C1, R1: the ledger with these entries and a new attempt, and the finalizer, in one write.
    WriteAttempt {
        /// The entries that stay.
        keep: Vec<LedgerEntry>,
        /// What is asked now.
        intent: Box<Intent>,
    },
    /// C2, R2: the POST.
    Mint(AttemptId),
    /// C3, R3: the key in hand into the Secret, with the record.
    Store {
        /// The attempt whose key it is.
        attempt: AttemptId,
        /// What the Secret then accounts for.
        record: Box<Record>,
    },
    /// C4, R4, R6: the status.
    WriteStatus(Box<BoltzApiKeyStatus>),
    /// R5, D1, strays, compensation: revoke a key. Only ever on live facts.
    Revoke {
        /// Its id.
        key_id: String,
        /// Why.
        reason: RevokeReason,
    },
    /// The finalizer goes back on a live object that has keys.
    AddFinalizer,
    /// The record, around the same value: it then names keys that only status or memory named.
    WriteRecord(Box<Record>),
    /// The Secret of that name is copied to the wanted name.
    MoveSecret {
        /// Where it is now.
        from: String,
    },
    /// A Secret that another one has replaced goes.
    DeleteSecret {
        /// Its name.
        name: String,
        /// Its UID: no other is deleted.
        uid: String,
    },
    /// The Secret gets the wanted data key, template, label and ownerReference around the same value.
    Reshape,
    /// A workload that reads the key from its environment is restarted.
    RestartWorkload {
        /// Which.
        target: RolloutRestartTarget,
        /// The key that it is to read.
        key_id: String,
    },
    /// Retain: the Secret loses its ownerReference, so that it outlives the object.
    ReleaseSecret {
        /// Its name.
        name: String,
    },
    /// D2: the object may go. Says which key ids stay behind (`deletionPolicy: Retain`).
    DropFinalizer {
        /// Live keys that nobody will revoke.
        retained_keys: Vec<String>,
    },
}

/// Why a key is revoked. The words stand in events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum RevokeReason {
    /// Its overlap is over.
    OverlapOver,
    /// The annotation `boltz.bio/rotate-now` ended it: it may have leaked.
    RotateNow,
    /// Its overlap was cut short: the record has no room, and a rotation cannot wait.
    OverlapCut,
    /// The object is being deleted.
    Deleted,
    /// Its secret is lost: the answer or the writer was.
    Stray,
    /// It could not be stored.
    NotStored,
    /// No object and no Secret accounts for it, and `--orphan-policy=revoke` says so.
    Orphan,
}

impl RevokeReason {
    /// One word, in camel case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a refusal blocks. While it holds, no step of the slot is tried; every other one is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// [`Step::ReadLive`].
    Read,
    /// [`Step::Preflight`].
    Preflight,
    /// [`Step::Store`].
    Store,
    /// [`Step::WriteAttempt`].
    Ledger,
    /// [`Step::Mint`].
    Mint,
    /// [`Step::WriteStatus`].
    Status,
    /// [`Step::Revoke`] of that key.
    Revoke(String),
    /// [`Step::AddFinalizer`] and [`Step::DropFinalizer`].
    Finalizer,
    /// [`Step::WriteRecord`].
    Record,
    /// [`Step::MoveSecret`] and [`Step::Reshape`].
    Shape,
    /// [`Step::DeleteSecret`] of that name.
    DeleteSecret(String),
    /// [`Step::RestartWorkload`] of that kind and name.
    Restart(String),
    /// [`Step::ReleaseSecret`].
    Release,
}

impl Step {
    /// What it is blocked under; `None`: it makes no call.
    pub fn slot(&self) -> Option<Slot> {
        Some(match self {
            Self::Wait => return None,
            Self::ReadLive => Slot::Read,
            Self::Preflight => Slot::Preflight,
            Self::Store { .. } => Slot::Store,
            Self::WriteAttempt { .. } => Slot::Ledger,
            Self::Mint(_) => Slot::Mint,
            Self::WriteStatus(_) => Slot::Status,
            Self::Revoke { key_id, .. } => Slot::Revoke(key_id.clone()),
            Self::AddFinalizer | Self::DropFinalizer { .. } => Slot::Finalizer,
            Self::WriteRecord(_) => Slot::Record,
            Self::MoveSecret { .. } | Self::Reshape => Slot::Shape,
            Self::DeleteSecret { name, .. } => Slot::DeleteSecret(name.clone()),
            Self::RestartWorkload { target, .. } => Slot::Restart(target.to_string()),
            Self::ReleaseSecret { .. } => Slot::Release,
        })
    }

    /// What two equal calls have in common: when it comes again soon after it was done, something undoes it. `None`:
    /// another rule bounds its repetition.
    pub fn fingerprint(&self, facts: &Facts) -> Option<String> {
        match self {
            Self::Wait
            | Self::ReadLive
            | Self::Preflight
            | Self::WriteAttempt { .. }
            | Self::Mint(_)
            | Self::Store { .. }
            | Self::Revoke { .. } => None,
            Self::WriteStatus(status) => serde_json::to_string(&status.without_transition_times()).ok(),
            Self::AddFinalizer => Some("add".to_owned()),
            Self::DropFinalizer { .. } => Some("drop".to_owned()),
            Self::WriteRecord(record) => Some(record.to_annotation()),
            Self::MoveSecret { from } => Some(format!("{from}>{}", facts.object.secret_name())),
            Self::Reshape => facts.object.spec.as_ref().ok().map(|spec| {
                format!(
                    "{}/{}/{:?}",
                    spec.secret.key,
                    crate::protocol::record::template_hash(spec),
                    spec.deletion_policy as u8
                )
            }),
            Self::DeleteSecret { uid, .. } => Some(uid.clone()),
            Self::RestartWorkload { key_id, .. } => Some(key_id.clone()),
            Self::ReleaseSecret { name } => Some(name.clone()),
        }
    }
}

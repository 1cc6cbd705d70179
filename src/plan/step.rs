//! The steps that a decision can ask for, and the slot of each step.

use super::{attempt::Intent, block::Reason};
use crate::{
    api::{BoltzApiKeyStatus, RolloutRestartTarget},
    protocol::{ledger::LedgerEntry, marker::AttemptId, record::Record},
};

/// The next step, with all data that the facts do not contain: at most one call that changes something.
/// `docs/protocol.md` defines C0 to C4, R0 to R6, D1 and D2.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr, strum::VariantNames)]
pub enum Step {
    /// There is nothing to do until an event, or until the time in [`Plan`](super::Plan).
    Wait,
    /// Reads the object and its Secrets from the API server.
    ReadLive,
    /// C0, R0: the write of the Secret as a server-side dry run.
    Preflight,
    /// C1, R1: writes the ledger with these entries and a new attempt, and the finalizer, in one write.
    WriteAttempt {
        /// Entries of the present ledger that are not finished, and those that the backoff still counts.
        keep: Vec<LedgerEntry>,
        /// Goes into process memory with the new attempt. The POST uses it, even if the spec has changed since.
        intent: Box<Intent>,
    },
    /// Writes these entries in place of a forged ledger.
    WriteLedger(Vec<LedgerEntry>),
    /// C2, R2: sends the POST.
    Mint(AttemptId),
    /// C3, R3: writes the key in hand and the record to the Secret.
    Store {
        /// The attempt of the key.
        attempt: AttemptId,
        /// The record, which names this key as the current one.
        record: Box<Record>,
    },
    /// Asks Boltz with the stored key itself whether it is valid, before a list that says otherwise is believed.
    CheckKey {
        /// The Secret with the key.
        secret: String,
        /// The id of the key.
        key_id: String,
    },
    /// C4, R4, R6: writes the status.
    WriteStatus(Box<BoltzApiKeyStatus>),
    /// R5, D1, strays, unstored keys: revokes a key. Only on live facts (rule 8).
    Revoke {
        /// Boltz's id of the key.
        key_id: String,
        /// For the event and the metric only.
        reason: RevokeReason,
    },
    /// Adds a missing finalizer to an object that has keys.
    AddFinalizer,
    /// Updates the record without changing the value: adds keys that only the status or process memory refers to.
    WriteRecord(Box<Record>),
    /// Copies the Secret to the name in the spec.
    MoveSecret {
        /// The name that it has now.
        from: String,
    },
    /// Deletes a Secret that was replaced by another.
    DeleteSecret {
        /// The name that it had before the move.
        name: String,
        /// Precondition: another Secret of this name stays.
        uid: String,
    },
    /// Updates data key, template, label and ownerReference of the Secret without changing the value.
    Reshape,
    /// Restarts a workload that reads the key from an environment variable.
    RestartWorkload {
        /// One of `spec.rolloutRestartTargets`.
        target: RolloutRestartTarget,
        /// The key that it has to load.
        key_id: String,
    },
    /// Reads how far the rollout of a restarted workload is.
    ReadRollout {
        /// One of `spec.rolloutRestartTargets`.
        target: RolloutRestartTarget,
        /// The key that it has to load.
        key_id: String,
    },
    /// `Retain`: removes the ownerReference, so that the Secret is not deleted with the object.
    ReleaseSecret {
        /// The name in the spec, or one from before a move.
        name: String,
    },
    /// D2: removes the finalizer.
    RemoveFinalizer {
        /// Active keys that are not revoked (`deletionPolicy: Retain`).
        retained_keys: Vec<String>,
    },
}

/// Why a key is revoked. Used in events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
pub enum RevokeReason {
    /// The overlap of a previous key has ended.
    OverlapOver,
    /// `UntilRolledOut`: all workloads have the new key, and the previous key is not used.
    RolledOut,
    /// The annotation `boltz.bio/rotate-now` was set: the key may have leaked.
    RotateNow,
    /// The overlap was cut short, because the maximum number of previous keys was reached.
    OverlapCut,
    /// The object is being deleted.
    Deleted,
    /// The value of the key is lost.
    Stray,
    /// The key could not be stored.
    NotStored,
    /// No object and no Secret refers to the key, and `--orphan-policy=revoke` is set.
    Orphan,
}

impl RevokeReason {
    /// The label `reason` of `boltz_apikey_revoked_total`, and a part of the event.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a failure blocks: as long as the block is in effect, no step of the slot runs. Other slots are not affected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// [`Step::ReadLive`].
    Read,
    /// [`Step::Preflight`].
    Preflight,
    /// [`Step::Store`].
    Store,
    /// [`Step::WriteAttempt`] and [`Step::WriteLedger`].
    Ledger,
    /// [`Step::Mint`].
    Mint,
    /// [`Step::CheckKey`].
    Check,
    /// [`Step::WriteStatus`].
    Status,
    /// [`Step::Revoke`] of that key.
    Revoke(String),
    /// [`Step::AddFinalizer`] and [`Step::RemoveFinalizer`].
    Finalizer,
    /// [`Step::WriteRecord`].
    Record,
    /// [`Step::MoveSecret`] and [`Step::Reshape`].
    Shape,
    /// [`Step::DeleteSecret`] of that name.
    DeleteSecret(String),
    /// [`Step::RestartWorkload`] of that kind and name.
    Restart(String),
    /// [`Step::ReadRollout`] of that kind and name.
    Rollout(String),
    /// [`Step::ReleaseSecret`].
    Release,
}

impl Slot {
    /// The condition reason for a failure of the API server.
    pub(super) fn failure_reason(&self) -> Reason {
        match self {
            Self::Preflight
            | Self::Store
            | Self::Read
            | Self::Check
            | Self::Record
            | Self::Shape
            | Self::DeleteSecret(_)
            | Self::Release => Reason::SecretWriteFailed,
            Self::Restart(_) | Self::Rollout(_) => Reason::RestartFailed,
            Self::Ledger | Self::Mint | Self::Status | Self::Revoke(_) | Self::Finalizer => {
                Reason::ObjectWriteFailed
            }
        }
    }

    /// What failed, as the beginning of a sentence.
    pub(super) fn failure(&self) -> String {
        match self {
            Self::Preflight | Self::Store => "Failed to write the Secret".to_owned(),
            Self::Read => "Failed to read the object and its Secret".to_owned(),
            Self::Ledger => "Failed to record the attempt to issue a key on the object".to_owned(),
            Self::Check => "Failed to check whether the key is valid".to_owned(),
            Self::Status => "Failed to update the status".to_owned(),
            Self::Finalizer => "Failed to update the finalizers of the object".to_owned(),
            Self::Record => "Failed to update the record on the Secret".to_owned(),
            Self::Shape => "Failed to update the Secret to match spec.secret".to_owned(),
            Self::DeleteSecret(name) => format!("Failed to delete the old Secret {name}"),
            Self::Restart(target) => format!("Failed to restart {target}"),
            Self::Rollout(target) => format!("Failed to read {target}"),
            Self::Release => "Failed to remove the ownerReference of the Secret".to_owned(),
            Self::Mint => "Failed to create a key at Boltz".to_owned(),
            Self::Revoke(key_id) => format!("Failed to revoke key {key_id}"),
        }
    }
}

impl Step {
    /// The attempt that it is about.
    pub fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Self::Mint(attempt) | Self::Store { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    /// The id of the key that it is about.
    pub fn key_id(&self) -> Option<&str> {
        match self {
            Self::CheckKey { key_id, .. }
            | Self::Revoke { key_id, .. }
            | Self::RestartWorkload { key_id, .. }
            | Self::ReadRollout { key_id, .. } => Some(key_id),
            Self::Store { record, .. } | Self::WriteRecord(record) => Some(&record.key_id),
            _ => None,
        }
    }

    /// Whether its call, if it got no answer, may have changed what is decided on. If it stays so, each retry costs a read.
    pub(super) fn may_leave_facts_stale(&self) -> bool {
        !matches!(
            self,
            // They change nothing.
            Self::ReadLive | Self::Preflight | Self::CheckKey { .. } | Self::ReadRollout { .. }
                // It is neither the object nor its Secret.
                | Self::RestartWorkload { .. }
                // A retry under an old version is a conflict, and then there is a read.
                | Self::WriteStatus(_)
        )
    }

    /// Its slot; `None` if it makes no call.
    pub fn slot(&self) -> Option<Slot> {
        Some(match self {
            Self::Wait => return None,
            Self::ReadLive => Slot::Read,
            Self::Preflight => Slot::Preflight,
            Self::Store { .. } => Slot::Store,
            Self::WriteAttempt { .. } | Self::WriteLedger(_) => Slot::Ledger,
            Self::Mint(_) => Slot::Mint,
            Self::CheckKey { .. } => Slot::Check,
            Self::WriteStatus(_) => Slot::Status,
            Self::Revoke { key_id, .. } => Slot::Revoke(key_id.clone()),
            Self::AddFinalizer | Self::RemoveFinalizer { .. } => Slot::Finalizer,
            Self::WriteRecord(_) => Slot::Record,
            Self::MoveSecret { .. } | Self::Reshape => Slot::Shape,
            Self::DeleteSecret { name, .. } => Slot::DeleteSecret(name.clone()),
            Self::RestartWorkload { target, .. } => Slot::Restart(target.to_string()),
            Self::ReadRollout { target, .. } => Slot::Rollout(target.to_string()),
            Self::ReleaseSecret { .. } => Slot::Release,
        })
    }
}

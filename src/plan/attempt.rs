//! An attempt of this process, and its progress.

use super::time::Monotonic;
use crate::{api::BoltzApiKeySpec, protocol::record::IssueReason};
use jiff::Timestamp;

/// An attempt that this process wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When C1 was sent, so the ledger cannot be older. The window and the settle time are counted from it.
    pub written: Monotonic,
    /// What was requested when it was written, until its key is stored.
    pub intent: Option<Box<Intent>>,
    /// How far it has come.
    pub progress: Progress,
    /// The end of its key's overlap, once a record listed the key as previous: the record may go.
    pub replaced: Option<Replaced>,
    /// Whether the id in the response to the create is that of its key.
    pub ownership: Ownership,
}

/// Whether a key belongs to the attempt in whose response it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The response says so, and nothing speaks against it.
    Assumed,
    /// Boltz does not accept the value as that key. If the list shows the id under another name, it is somebody else's.
    Refuted,
}

/// When the overlap of a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// By the wall clock, as in the record.
    pub revoke_after: Timestamp,
    /// Revoke it at that time even if it is still in use.
    pub even_if_used: bool,
}

/// What was requested when an attempt was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Why a key is issued.
    pub reason: IssueReason,
    /// The spec that the key is issued for. It may be changed meanwhile.
    pub spec: BoltzApiKeySpec,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The value of the rotate-now annotation.
    pub rotate_now: Option<String>,
}

/// The progress of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The POST may be sent, once, within the window. A POST that certainly had no effect returns to this state.
    Written,
    /// The POST was sent and its result is unknown. If it created a key, the key's value is lost.
    Sent,
    /// Boltz returned a key that is not stored yet.
    InHand {
        /// The key that Boltz returned.
        key: MintedKey,
        /// The number of writes of the Secret that may still take effect.
        calls_in_doubt: u32,
        /// A write of the Secret was certainly rejected.
        is_refused: bool,
    },
    /// C3 took effect: the Secret holds the value.
    Stored {
        /// As Boltz returned it. The Secret's record names it.
        key: MintedKey,
        /// The status has named the key.
        is_reported: bool,
    },
    /// There is no key, or it is revoked.
    Ended,
}

/// A key as returned by Boltz's create, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct MintedKey {
    /// Boltz's id of the key.
    pub id: String,
    /// The first 12 characters, as Boltz returned them.
    pub prefix: String,
    /// Hexadecimal. The value itself never enters the plan.
    pub value_sha256: String,
    /// By the operator's wall clock.
    pub received_at: Timestamp,
    /// By Boltz's clock.
    pub created_at: Timestamp,
    /// By Boltz's clock. `None`: never.
    pub expires_at: Option<Timestamp>,
    /// As Boltz returned it; false for test-mode keys.
    pub livemode: bool,
    /// The workspace that Boltz returned.
    pub workspace_id: Option<String>,
    /// Of the admin key with which it was created; `None`: Boltz did not say.
    pub organization: Option<String>,
}

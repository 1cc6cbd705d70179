//! An attempt of this process, and its progress.

use super::time::Monotonic;
use crate::{api::BoltzApiKeySpec, protocol::record::IssueReason};
use jiff::Timestamp;

/// An attempt that this process wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When C1 was sent.
    pub written: Monotonic,
    /// What was requested when it was written, until its key is stored.
    pub intent: Option<Box<Intent>>,
    /// How far it has come.
    pub progress: Progress,
    /// The end of its key's overlap, once a record listed the key as previous: the record may go.
    pub replaced: Option<Replaced>,
}

/// When the overlap of a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// When it ends.
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
    /// The key is stored.
    Stored {
        /// The key that Boltz returned.
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
    /// Its first characters.
    pub prefix: String,
    /// The SHA-256 of its value, hexadecimal.
    pub value_sha256: String,
    /// When it was received.
    pub received_at: Timestamp,
    /// When Boltz created it.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// False in test mode.
    pub livemode: bool,
    /// The workspace that Boltz returned.
    pub workspace_id: Option<String>,
    /// Its organization, if known.
    pub organization: Option<String>,
}

//! An attempt of this process, and how far it got.

use super::time::Monotonic;
use crate::{api::BoltzApiKeySpec, protocol::record::IssueReason};
use jiff::Timestamp;

/// An attempt that this process wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Before its writing was sent.
    pub written: Monotonic,
    /// What was asked when it was written.
    pub intent: Intent,
    /// How far it got.
    pub progress: Progress,
}

/// What was asked when an attempt was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Why a key is issued.
    pub reason: IssueReason,
    /// The spec.
    pub spec: BoltzApiKeySpec,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The value of the rotate-now annotation.
    pub rotate_now: Option<String>,
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It may be POSTed, once, inside the window. What surely had no effect returns here.
    Written,
    /// It was POSTed, and the answer is not known. Its key, if there is one, is lost.
    Sent,
    /// Its key is in this process's hands.
    InHand {
        /// What Boltz answered.
        key: MintedKey,
        /// How many writes of the Secret were sent that may still take effect.
        calls_in_doubt: u32,
        /// The write of the Secret was definitely refused.
        is_refused: bool,
    },
    /// Its key was stored.
    Stored {
        /// What Boltz answered.
        key: MintedKey,
        /// Status has named it.
        is_reported: bool,
    },
    /// It ended without a key, or with one that was revoked.
    Ended,
}

/// A key as answered on creation, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct MintedKey {
    /// Its id.
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
    /// Its workspace.
    pub workspace_id: Option<String>,
}

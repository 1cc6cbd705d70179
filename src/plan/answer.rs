//! Results of a step's call. The controller converts responses of the API server and of Boltz to these types;
//! [`super::ProcessMemory::apply`] decides what they mean.

use super::{attempt::MintedKey, block::Block};
use std::time::Duration;

/// Result of a step's call.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It took effect, and the facts contain the response.
    Done,
    /// It was accepted, but the response shows that it had no effect. The text names what is missing.
    Undone(String),
    /// Nothing was sent: the facts are stale.
    Stale,
    /// Nothing was sent: one of the operator's own limits is reached.
    Postponed(Block),
    /// The object does not exist any more.
    Gone,
    /// Boltz created a key.
    Minted(Box<MintedKey>),
    /// The key was already revoked.
    AlreadyRevoked,
    /// Boltz, or a gateway in front of it, responded to a revocation with 404.
    KeyNotFound,
    /// The API server rejected the call, or did not respond.
    ApiFailed(ApiFailure),
    /// Boltz rejected the call, or did not respond.
    BoltzFailed(BoltzFailure),
}

/// What a failed call to the API server means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may or may not have taken effect, now or later.
    Unknown,
    /// No effect: the object exists already, or has another version. Read, then decide again.
    Conflict,
    /// No effect: the object does not exist.
    NotFound,
    /// No effect: rejected.
    Refused,
}

/// A failed call to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiFailure {
    /// What it means for the caller.
    pub verdict: Verdict,
    /// Denied by an admission webhook or policy.
    pub by_policy: bool,
    /// The API server's message, or why there is none.
    pub message: String,
}

/// Whether a failed create may have made a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No.
    None,
    /// Possibly, now or later.
    Unknown,
}

/// What to do about a failure of Boltz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoltzErrorKind {
    /// Boltz rejected the admin key for this call: another key, or more permissions, are needed.
    Unauthorized,
    /// The request is invalid: 400 and 422.
    Invalid,
    /// The request is rejected for a reason outside of it: a bill, a workspace, a quota.
    Refused,
    /// Too many calls: wait.
    RateLimited,
    /// Boltz, or the network, does not work: wait.
    Unavailable,
}

/// A failed call to Boltz.
#[derive(Clone, Debug, PartialEq)]
pub struct BoltzFailure {
    /// What kind of failure.
    pub kind: BoltzErrorKind,
    /// Whether a create may have made a key.
    pub effect: Effect,
    /// How long Boltz asks to wait.
    pub retry_after: Option<Duration>,
    /// The error, without a period at the end.
    pub message: String,
}

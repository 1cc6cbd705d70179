//! What became of a step's call. The shell translates answers of the API server and of Boltz into these; what they mean
//! is decided by [`super::ProcessMemory::apply`].

use super::{attempt::MintedKey, block::Block};
use std::time::Duration;

/// What became of a step's call.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It took effect, and the facts hold what it answered.
    Done,
    /// It was answered as done, and the answer shows that it was not: says what is missing.
    Undone(String),
    /// Nothing was sent: the facts do not speak of what is there now.
    Stale,
    /// Nothing was sent: a limit of the operator's own.
    Postponed(Block),
    /// The object is gone.
    Gone,
    /// A create was answered with a key.
    Minted(Box<MintedKey>),
    /// A revocation found the key revoked before.
    AlreadyRevoked,
    /// A revocation was answered with 404. That may be a gateway's word.
    KeyNotFound,
    /// The API server refused, or did not answer.
    ApiFailed(ApiFailure),
    /// Boltz refused, or did not answer.
    BoltzFailed(BoltzFailure),
}

/// What a failed call to the API server means for the one who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may or may not have taken effect, now or later.
    Unknown,
    /// No effect: the object exists already, or is not the version that it was thought to be. Read and decide again.
    Conflict,
    /// No effect: the object does not exist.
    NotFound,
    /// No effect: refused as things stand.
    Refused,
}

/// A failed call to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiFailure {
    /// What it means.
    pub verdict: Verdict,
    /// An admission webhook or policy said no.
    pub by_policy: bool,
    /// The API server's words, or why there are none.
    pub message: String,
}

/// Whether a failed create may have made a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Surely not.
    None,
    /// Perhaps, now or later.
    Unknown,
}

/// What to do about a failure of Boltz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoltzErrorKind {
    /// The admin key is not taken for this: another key, or more rights, are needed.
    Unauthorized,
    /// The request cannot be right: 400 and 422.
    Invalid,
    /// The request is refused, and somebody else can cure that: a bill, a workspace, a quota.
    Refused,
    /// Too many calls: wait.
    RateLimited,
    /// Boltz, or the way to it, is out of order: wait.
    Unavailable,
}

/// A failed call to Boltz.
#[derive(Clone, Debug, PartialEq)]
pub struct BoltzFailure {
    /// What to do about it.
    pub kind: BoltzErrorKind,
    /// Whether a create may have made a key.
    pub effect: Effect,
    /// How long Boltz asks to wait.
    pub retry_after: Option<Duration>,
    /// What happened, in one sentence without its period.
    pub message: String,
}

//! What can go wrong with a call, and what that means for the one who made it.

use crate::plan::{BoltzErrorKind, BoltzFailure, Effect};
use std::time::Duration;

/// What went wrong beneath HTTP.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request could not be sent, or had no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("no connection")]
    Connect(#[source] BoxError),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] BoxError),
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            Self::Connect(error.into())
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::Broken(error.into())
        }
    }
}

/// A call to Boltz failed. Neither `Display` nor `Debug` ever shows a key, a header or the body of a 2xx answer.
#[derive(Debug, thiserror::Error)]
pub enum BoltzError {
    /// No connection: nothing was sent.
    #[error("{operation}: no connection to Boltz")]
    Connect {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: BoxError,
    },
    /// No answer in time.
    #[error("{operation}: no answer from Boltz in time")]
    Timeout {
        /// What was tried.
        operation: &'static str,
    },
    /// The connection broke before the whole answer was there.
    #[error("{operation}: the connection to Boltz broke")]
    Transport {
        /// What was tried.
        operation: &'static str,
        /// How.
        source: BoxError,
    },
    /// Boltz answered with an error.
    #[error("{operation}: Boltz answered {status}{}", describe(.code, .message))]
    Status {
        /// What was tried.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// Boltz's machine-readable code, if there was one.
        code: String,
        /// Boltz's words, if there were any.
        message: String,
        /// How long Boltz asks to wait.
        retry_after: Option<Duration>,
    },
    /// The id cannot be one of Boltz's. Nothing was sent.
    #[error("{operation}: not the id of a key")]
    InvalidId {
        /// What was tried.
        operation: &'static str,
    },
    /// A 2xx answer that is not what it should be. Its content is not told: it may hold a key.
    #[error("{operation}: Boltz's answer could not be read")]
    Unreadable {
        /// What was tried.
        operation: &'static str,
    },
}

fn describe(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(" ({text})"),
        (code, message) => format!(" ({code}: {message})"),
    }
}

impl BoltzError {
    /// Whether a create that failed so may have made a key. Surely not only when it was not sent, or when the answer
    /// is a 4xx that says what is wrong with it. A 429 may come although the call was executed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Connect { .. }
            | Self::InvalidId { .. }
            | Self::Status { status: 400..=407 | 410..=422, .. } => Effect::None,
            Self::Timeout { .. } | Self::Transport { .. } | Self::Status { .. } | Self::Unreadable { .. } => {
                Effect::Unknown
            }
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> BoltzErrorKind {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Unreadable { .. } => BoltzErrorKind::Unavailable,
            Self::InvalidId { .. } => BoltzErrorKind::Invalid,
            Self::Status { status, .. } => match status {
                401 | 403 => BoltzErrorKind::Unauthorized,
                429 => BoltzErrorKind::RateLimited,
                408 | 409 | 425 => BoltzErrorKind::Unavailable,
                400 | 422 => BoltzErrorKind::Invalid,
                402..=499 => BoltzErrorKind::Refused,
                _ => BoltzErrorKind::Unavailable,
            },
        }
    }

    /// What the plan has to know of it.
    pub fn failure(&self) -> BoltzFailure {
        BoltzFailure {
            kind: self.kind(),
            effect: self.effect(),
            retry_after: self.retry_after(),
            message: self.to_string(),
        }
    }

    /// The HTTP status, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::InvalidId { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// How long Boltz asks to wait; not capped.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::InvalidId { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// For the metric: the status, or one word.
    pub(super) fn metric_code(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Transport { .. } | Self::InvalidId { .. } | Self::Unreadable { .. } => "error".to_owned(),
            Self::Status { status, .. } => status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_had_no_effect_counts_as_such() {
        use BoltzErrorKind::{Invalid, RateLimited, Refused, Unauthorized, Unavailable};
        for (status, effect, kind) in [
            (400, Effect::None, Invalid),
            (402, Effect::None, Refused),
            (401, Effect::None, Unauthorized),
            (403, Effect::None, Unauthorized),
            (404, Effect::None, Refused),
            (410, Effect::None, Refused),
            (408, Effect::Unknown, Unavailable),
            (409, Effect::Unknown, Unavailable),
            (422, Effect::None, Invalid),
            (425, Effect::Unknown, Unavailable),
            (429, Effect::Unknown, RateLimited),
            (500, Effect::Unknown, Unavailable),
            (502, Effect::Unknown, Unavailable),
            (503, Effect::Unknown, Unavailable),
            (302, Effect::Unknown, Unavailable),
        ] {
            let error = BoltzError::Status {
                operation: "create a key",
                status,
                code: String::new(),
                message: String::new(),
                retry_after: None,
            };
            assert_eq!((error.effect(), error.kind()), (effect, kind), "{status}");
        }
        for error in [
            BoltzError::Timeout { operation: "create a key" },
            BoltzError::Unreadable { operation: "create a key" },
        ] {
            assert_eq!((error.effect(), error.kind()), (Effect::Unknown, Unavailable));
        }
    }
}

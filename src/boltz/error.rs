//! Errors of calls to Boltz, and what they mean for the caller.

use crate::plan::{BoltzErrorKind, BoltzFailure, Effect};
use http::StatusCode;
use std::time::Duration;

/// Cause of a transport error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request could not be sent, or got no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("connection failed")]
    Connect(#[source] BoxError),
    /// The whole response did not come within the limit. The request may have been executed.
    #[error("timed out")]
    Timeout,
    /// The connection was closed after the request was sent. The request may have been executed.
    #[error("connection closed")]
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

/// Why a call to Boltz failed; the caller says which call. Neither `Display` nor `Debug` ever shows a key, a header or
/// the body of a 2xx response.
#[derive(Debug, thiserror::Error)]
pub enum BoltzError {
    /// No connection: nothing was sent.
    #[error("cannot connect to Boltz")]
    Connect(#[source] BoxError),
    /// The whole response did not come within the limit. The request may have been executed.
    #[error("no response from Boltz in time")]
    Timeout,
    /// The connection was closed before the response was complete.
    #[error("the connection to Boltz was closed before the response was complete")]
    Transport(#[source] BoxError),
    /// A response that is not 2xx.
    #[error("Boltz responded with {}{}", .status.as_u16(), describe(.code, .message))]
    Status {
        /// Not 2xx. Redirects are not followed, so a 3xx is an error too.
        status: StatusCode,
        /// Boltz's machine-readable code, if there was one.
        code: String,
        /// Boltz's message, if there was one.
        message: String,
        /// How long Boltz asks to wait.
        retry_after: Option<Duration>,
    },
    /// The id cannot be one of Boltz's. Nothing was sent.
    #[error("invalid key id")]
    InvalidId,
    /// A 2xx response that is not what it should be. Its content is not shown: it may contain a key.
    #[error("cannot read Boltz's response")]
    Unreadable,
}

fn describe(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(" ({text})"),
        (code, message) => format!(" ({code}: {message})"),
    }
}

/// A 4xx after which the same call may succeed.
fn may_pass(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY)
}

impl BoltzError {
    /// Whether a create that failed with this error may have created a key. Certainly not if it was not sent, or if the
    /// response is a 4xx that rejects it. A call answered with 429 may have been executed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Connect(_) | Self::InvalidId => Effect::None,
            Self::Status { status, .. } => match status.as_u16() {
                400..=407 | 410..=422 => Effect::None,
                _ => Effect::Unknown,
            },
            Self::Timeout | Self::Transport(_) | Self::Unreadable => Effect::Unknown,
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> BoltzErrorKind {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Transport(_) | Self::Unreadable => {
                BoltzErrorKind::Unavailable
            }
            Self::InvalidId => BoltzErrorKind::Invalid,
            Self::Status { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BoltzErrorKind::Unauthorized,
                StatusCode::TOO_MANY_REQUESTS => BoltzErrorKind::RateLimited,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => BoltzErrorKind::Invalid,
                status if status.is_client_error() && !may_pass(status) => BoltzErrorKind::Refused,
                _ => BoltzErrorKind::Unavailable,
            },
        }
    }

    /// Boltz does not accept the key with which the call was made. A 403 does not say so: it may concern one workspace.
    pub fn is_invalid_key(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::UNAUTHORIZED, .. })
    }

    /// Converts to the input of the plan.
    pub fn failure(&self) -> BoltzFailure {
        BoltzFailure {
            kind: match self {
                // For one object, it may be a refusal that stays.
                Self::Status { status, .. } if may_pass(*status) => BoltzErrorKind::Refused,
                _ => self.kind(),
            },
            effect: self.effect(),
            retry_after: self.retry_after(),
            message: self.to_string(),
        }
    }

    /// The HTTP status, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            Self::Connect(_) | Self::Timeout | Self::Transport(_) | Self::InvalidId | Self::Unreadable => {
                None
            }
        }
    }

    /// How long Boltz asks to wait, without a limit.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Connect(_) | Self::Timeout | Self::Transport(_) | Self::InvalidId | Self::Unreadable => {
                None
            }
        }
    }

    /// The label of the metric: the status, or one word.
    pub(super) fn metric_code(&self) -> String {
        match self {
            Self::Connect(_) => "connect".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Transport(_) | Self::InvalidId | Self::Unreadable => "error".to_owned(),
            Self::Status { status, .. } => status.as_str().to_owned(),
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
            let (code, message) = (String::new(), String::new());
            let error = BoltzError::Status {
                status: StatusCode::from_u16(status).unwrap(),
                code,
                message,
                retry_after: None,
            };
            assert_eq!((error.effect(), error.kind()), (effect, kind), "{status}");
        }
        for error in [BoltzError::Timeout, BoltzError::Unreadable] {
            assert_eq!((error.effect(), error.kind()), (Effect::Unknown, Unavailable));
        }
    }
}

//! Errors of calls to the API server, and what they mean for the caller.

use crate::{
    plan::{ApiFailure, Verdict},
    scrub::scrub,
};
use http::StatusCode;
use kube::core::Status;
use std::time::Duration;

/// So many characters of a message of the API server are repeated.
const MAX_MESSAGE_LENGTH: usize = 1024;

/// For each call to the API server but those about the Lease.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a call to the API server failed; the caller says which call.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The API server rejected the call.
    #[error("{message} ({code} {reason})")]
    ApiStatus {
        /// The `code` of the API server's `Status`, which is also the HTTP status.
        code: u16,
        /// In CamelCase, for example `AlreadyExists`. May be empty.
        reason: String,
        /// For people. It may quote an admission webhook, so anything like a key is removed.
        message: String,
    },
    /// The call took longer than `TIMEOUT`. It may take effect later.
    #[error("no response from the API server in time")]
    Timeout,
    /// A success whose body lacks what every object has.
    #[error("the API server's response has no metadata")]
    NoMetadata,
    /// The request could not be sent, or the response could not be read.
    #[error("{0}")]
    Transport(Box<kube::Error>),
}

impl KubernetesError {
    pub(super) fn new(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let Status { code, reason, message, .. } = *status;
                // An admission webhook may repeat the value that it denies, and may say more than a status can hold.
                let message = scrub(&message, &[]).chars().take(MAX_MESSAGE_LENGTH).collect();
                Self::ApiStatus { code, reason, message }
            }
            other => Self::Transport(Box::new(other)),
        }
    }

    /// What it means for the caller.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Timeout | Self::Transport(_) | Self::NoMetadata => Verdict::Unknown,
            Self::ApiStatus { code, reason, .. } => match StatusCode::from_u16(*code) {
                Ok(StatusCode::NOT_FOUND) => Verdict::NotFound,
                Ok(StatusCode::CONFLICT) => Verdict::Conflict,
                // Another UID in a patch, or a new finalizer on an object that is being deleted.
                Ok(StatusCode::UNPROCESSABLE_ENTITY)
                    if reason == "Invalid"
                        && (self.message().contains("Precondition failed")
                            || self.message().contains("no new finalizers can be added")) =>
                {
                    Verdict::Conflict
                }
                Ok(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => Verdict::Unknown,
                Ok(status) if status.is_client_error() => Verdict::Refused,
                _ => Verdict::Unknown,
            },
        }
    }

    /// Converts to the input of the plan.
    pub fn failure(&self) -> ApiFailure {
        let message = match self {
            Self::ApiStatus { message, .. } => message.clone(),
            Self::Timeout | Self::Transport(_) | Self::NoMetadata => self.to_string(),
        };
        let (by_policy, is_forbidden) = (self.is_policy(), self.is_forbidden());
        ApiFailure { verdict: self.verdict(), by_policy, is_forbidden, message }
    }

    /// Denied by an admission webhook or policy.
    pub fn is_policy(&self) -> bool {
        self.verdict() == Verdict::Refused
            && self.message().contains("denied")
            && (self.message().contains("admission webhook")
                || self.message().contains("ValidatingAdmissionPolicy"))
    }

    /// The operator lacks the permission for the call.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::ApiStatus { code, .. } if *code == StatusCode::FORBIDDEN) && !self.is_policy()
    }

    /// A webhook does not support dry runs.
    pub(crate) fn is_lack_of_dry_run(&self) -> bool {
        matches!(self, Self::ApiStatus { code, .. } if *code == StatusCode::BAD_REQUEST)
            && self.message().contains("dry run")
    }

    /// The API server's message, if there is one.
    pub fn message(&self) -> &str {
        match self {
            Self::ApiStatus { message, .. } => message,
            Self::Timeout | Self::Transport(_) | Self::NoMetadata => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_repeated_up_to_a_length() {
        let status = Status { message: "ä".repeat(5000), code: 403, ..Status::default() };
        let error = KubernetesError::new(kube::Error::Api(Box::new(status)));
        assert_eq!(error.message().chars().count(), MAX_MESSAGE_LENGTH);
    }

    fn refused(code: u16, reason: &str, message: &str) -> KubernetesError {
        KubernetesError::ApiStatus { code, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn only_what_surely_had_no_effect_is_sorted_as_such() {
        for (code, reason, message, verdict) in [
            (400, "BadRequest", "", Verdict::Refused),
            (403, "Forbidden", "", Verdict::Refused),
            (404, "NotFound", "", Verdict::NotFound),
            (408, "Timeout", "", Verdict::Unknown),
            (409, "AlreadyExists", "", Verdict::Conflict),
            (422, "Invalid", "Precondition failed: UID in precondition", Verdict::Conflict),
            (422, "Invalid", "metadata.labels: Invalid value", Verdict::Refused),
            (429, "TooManyRequests", "", Verdict::Unknown),
            (500, "InternalError", "", Verdict::Unknown),
            (504, "Timeout", "", Verdict::Unknown),
        ] {
            assert_eq!(refused(code, reason, message).verdict(), verdict, "{code} {reason} {message}");
        }
        assert_eq!(KubernetesError::Timeout.verdict(), Verdict::Unknown);
    }

    /// Trace 13 in docs/design/traces.md. The texts are those of the API server's `NewDryRunUnsupportedErr`; admission/v1 demands
    /// webhooks without side effects, so a webhook that has some cannot be registered on 1.33 and later.
    #[test]
    fn a_webhook_without_dry_run_support_is_told_from_one_that_refuses() {
        let lacks = refused(400, "BadRequest", r#"admission webhook "w.example" does not support dry run"#);
        assert!(lacks.is_lack_of_dry_run() && !lacks.is_policy());
        let denies = refused(403, "Forbidden", r#"admission webhook "w.example" denied the request: no"#);
        assert!(denies.is_policy() && !denies.is_lack_of_dry_run());
    }
}

//! Faults on demand.

use crate::lie::Lie;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /compute/v1/admin/api-keys`
    Create,
    /// `GET /compute/v1/admin/api-keys`
    List,
    /// `POST /compute/v1/admin/api-keys/{id}/revoke`
    Revoke,
    /// `GET /compute/v1/auth/me`
    AuthMe,
}

/// Whether, and when, a request that meets a fault takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Never.
    #[default]
    None,
    /// Before the answer.
    Before,
    /// So many milliseconds after the request came. Only an outcome that needs the real answer waits for it.
    After(u64),
    /// When the held requests are released. Only an outcome that needs the real answer waits for it.
    OnRelease,
}

/// What the client gets instead of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The real answer; a 500 if the request has no effect.
    Answer,
    /// The real answer, once the held requests are released.
    Hold,
    /// The connection is closed without a byte of an answer.
    Cut,
    /// The connection is closed in the middle of the real answer.
    CutMidAnswer,
    /// No answer: the connection stays open until the client gives up.
    Hang,
    /// A status, with headers and a body.
    Status {
        /// For example 503.
        status: u16,
        /// For example `retry-after`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Default: an error body of the API.
        #[serde(default)]
        body: Option<String>,
    },
    /// The real answer, cut to that many characters but complete for HTTP.
    Truncated(usize),
    /// A 200 with something else.
    Foreign(String),
    /// The real answer, changed into nonsense.
    Lie(Lie),
}

impl Outcome {
    /// A status with an error body.
    pub fn status(status: u16) -> Self {
        Self::Status { status, headers: BTreeMap::new(), body: None }
    }

    /// Whether it cannot be had before the request has taken effect.
    pub fn needs_the_answer(&self) -> bool {
        match self {
            Self::Answer | Self::Hold | Self::CutMidAnswer | Self::Truncated(_) | Self::Lie(_) => true,
            Self::Cut | Self::Hang | Self::Status { .. } | Self::Foreign(_) => false,
        }
    }
}

/// One fault, which so many requests meet. Of several that fit, the oldest comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Only requests of this operation. Absent: all.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// Whether they take effect.
    #[serde(default)]
    pub effect: Effect,
    /// The answer that the client gets, if any.
    pub outcome: Outcome,
    /// How long the answer is held back, in milliseconds.
    #[serde(default)]
    pub latency_milliseconds: u64,
    /// How many requests meet it.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// A fault for the next request of that kind.
    pub fn once(operation: Operation, effect: Effect, outcome: Outcome) -> Self {
        Self { operation: Some(operation), effect, outcome, latency_milliseconds: 0, times: 1 }
    }

    /// The same for so many requests.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// No fault: the real answer, at once.
    pub fn none() -> Self {
        Self {
            operation: None,
            effect: Effect::Before,
            outcome: Outcome::Answer,
            latency_milliseconds: 0,
            times: 1,
        }
    }
}

/// A fault that stays until it is lifted. One that counts its requests comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingFault {
    /// What it does, and to which operation. How many times counts for nothing here.
    pub fault: Fault,
    /// Only requests about this: a part of the key's name for a create, the key's id for a revocation.
    #[serde(default)]
    pub subject: Option<String>,
    /// Only requests about this workspace: the one that a create asks for, or that a key to be revoked is in.
    #[serde(default)]
    pub workspace: Option<String>,
}

impl StandingFault {
    /// All requests of that kind get that status, and have no effect.
    pub fn status(operation: Operation, status: u16) -> Self {
        Self::of(Fault::once(operation, Effect::None, Outcome::status(status)))
    }

    /// All requests of that kind take effect, and are answered with that lie.
    pub fn lie(operation: Operation, lie: Lie) -> Self {
        Self::of(Fault::once(operation, Effect::Before, Outcome::Lie(lie)))
    }

    /// For all requests that the fault names, until the faults are cleared.
    pub fn of(fault: Fault) -> Self {
        Self { fault, subject: None, workspace: None }
    }

    /// The same for one key only: a part of its name, or its id.
    pub fn about(self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self }
    }

    /// The same for one workspace only.
    pub fn in_workspace(self, workspace: &str) -> Self {
        Self { workspace: Some(workspace.to_owned()), ..self }
    }

    /// Whether the request meets it.
    pub(crate) fn fits(&self, operation: Operation, subject: &str, workspace: Option<&str>) -> bool {
        self.fault.operation.is_none_or(|wanted| wanted == operation)
            && self.subject.as_ref().is_none_or(|wanted| subject.contains(wanted))
            && self.workspace.as_deref().is_none_or(|wanted| workspace == Some(wanted))
    }
}

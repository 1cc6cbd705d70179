//! Counters, events and log lines that follow from a result. Plain data; the controller publishes them.

use super::status::REVOCATION_FAILING;
use crate::api::BoltzApiKeyStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What follows from a result, apart from the change of process memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Each raises one counter by one.
    pub counts: Vec<Count>,
    /// Published on the object.
    pub events: Vec<EventNote>,
    /// Written with the object's namespace and name.
    pub log: Vec<LogLine>,
    /// The object does not exist any more: no further decision.
    pub is_gone: bool,
}

/// A counter to raise by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A key was issued and stored, with the reason.
    Issued(&'static str),
    /// A key was revoked, with the reason.
    Revoked(&'static str),
    /// A stray was revoked. Counted in addition to `Revoked`.
    StrayRevoked,
    /// An attempt to issue or store a key failed, with the reason.
    IssueFailed(&'static str),
    /// An attempt to revoke a key failed, with the reason.
    RevokeFailed(&'static str),
    /// A call to the API server failed.
    StepFailed,
}

/// The type of an event, and the level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum EventKind {
    /// Type `Normal` of an event, level INFO of a line.
    Normal,
    /// Type `Warning` of an event, level WARN of a line: a person may have to act.
    Warning,
}

/// An event about the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Its `type`.
    pub kind: EventKind,
    /// In CamelCase, as `kubectl get events` shows it.
    pub reason: &'static str,
    /// Complete sentences, for people. May quote Boltz or the API server, never a key.
    pub note: String,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its level.
    pub kind: EventKind,
    /// The same for all objects, so that lines can be searched for.
    pub message: &'static str,
    /// The key that the line is about.
    pub key_id: Option<String>,
    /// The reason, or the error.
    pub detail: String,
}

impl Effects {
    pub(super) fn event(&mut self, kind: EventKind, reason: &'static str, note: String) {
        self.events.push(EventNote { kind, reason, note });
    }

    pub(super) fn log(
        &mut self,
        kind: EventKind,
        message: &'static str,
        key_id: Option<&str>,
        detail: impl Into<String>,
    ) {
        let key_id = key_id.map(str::to_owned);
        self.log.push(LogLine { kind, message, key_id, detail: detail.into() });
    }
}

/// The events for a change of the status: a new reason for not being ready or for being stalled, and the end of one.
pub fn transitions(before: &BoltzApiKeyStatus, after: &BoltzApiKeyStatus) -> Vec<EventNote> {
    let find = |status: &BoltzApiKeyStatus, kind: &str| {
        // Unknown is the default of the CRD: nobody has said anything yet.
        let is_said = |condition: &&Condition| condition.type_ == kind && condition.status != "Unknown";
        let found = status.conditions.iter().find(is_said);
        found.map(|condition| {
            (condition.status == "True", condition.reason.clone(), condition.message.clone())
        })
    };
    let (ready_before, ready) = (find(before, "Ready"), find(after, "Ready"));
    let (stalled_before, stalled) = (find(before, "Stalled"), find(after, "Stalled"));
    let is_new = ready_before.as_ref().map(|(is, reason, _)| (*is, reason))
        != ready.as_ref().map(|(is, reason, _)| (*is, reason));
    let warning = |reason, note| Some(EventNote { kind: EventKind::Warning, reason, note });
    let of_ready = match &ready {
        // Nothing is wrong with these.
        Some((false, reason, _))
            if ["Deleting", "Pending", "MintBudgetExceeded"].contains(&reason.as_str()) =>
        {
            None
        }
        Some((false, reason, message)) if is_new => warning("NotReady", format!("{reason}: {message}")),
        Some((true, reason, message)) if is_new && reason == "PreviousKeyStillUsed" => {
            warning("PreviousKeyStillUsed", message.clone())
        }
        Some((true, ..)) if ready_before.is_some_and(|(was_ready, ..)| !was_ready) => Some(EventNote {
            kind: EventKind::Normal,
            reason: "Ready",
            note: "The Secret contains a valid key.".to_owned(),
        }),
        _ => None,
    };
    let was_failing = find(before, REVOCATION_FAILING).is_some_and(|(is, ..)| is);
    let failing = find(after, REVOCATION_FAILING).filter(|(is, ..)| *is && !was_failing);
    let of_revocation = failing.and_then(|(_, _, message)| warning(REVOCATION_FAILING, message));
    let of_stalled = || {
        let was_stalled = stalled_before.is_some_and(|(is, ..)| is);
        let (_, reason, message) = stalled.filter(|(is, ..)| *is && !was_stalled)?;
        let is_ready = ready.as_ref().is_some_and(|(is, ..)| *is);
        let is_told = of_revocation.as_ref().is_some_and(|event| event.note.contains(&message));
        (is_ready && !is_told).then(|| warning("Stalled", format!("{reason}: {message}")))?
    };
    of_ready.or_else(of_stalled).into_iter().chain(of_revocation.clone()).collect()
}

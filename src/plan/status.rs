//! The status of the object, derived from the facts.

use super::{
    block::{Block, Reason},
    facts::Facts,
    schedule::{Planned, RotationSchedule},
    settings::Settings,
    time::{Now, elapsed, later},
};
use crate::{
    api::{BoltzApiKeyStatus, PreviousKeyStatus, RotationWindowStatus},
    protocol::{
        record::{IssueReason, MAX_PREVIOUS},
        secret_data::is_sha256,
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;

/// The type of the condition for revocations that fail.
pub(super) const REVOCATION_FAILING: &str = "RevocationFailing";
/// `lastUsedAt` is updated at most this often, because it changes with every use of the key.
const LAST_USED_COARSENESS: Duration = Duration::from_secs(24 * 3600);

/// Results of the decision that the status reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Why a key is to be issued now.
    pub issue: Option<IssueReason>,
    /// A key can be issued when it is the object's turn: why it is to be issued.
    pub wants_turn: Option<IssueReason>,
    /// Why no key can be issued, or why the deletion has to wait.
    pub blocked: Option<Block>,
    /// Why other steps have to wait.
    pub also: Vec<Block>,
    /// Keys that should be revoked by now.
    pub overdue: Vec<OverdueKey>,
    /// Ids of previous keys that are still in use after the end of their overlap.
    pub still_used: Vec<String>,
    /// Workloads whose restart has not ended, which counts as use.
    pub unfinished: Vec<String>,
    /// A rotation that waits for the rotation window, and when it begins. Without a time, the window never opens.
    pub outside_window: Option<(IssueReason, Option<Planned>)>,
    /// A rotation that waits for the end of an overlap, because the maximum number of previous keys is active.
    pub postponed: Option<(IssueReason, Timestamp)>,
}

/// The reason of the condition `RevocationFailing` when it is False.
pub const NO_KEY_OVERDUE: &str = "NoKeyOverdue";

/// A key that should be revoked by now.
#[derive(Clone, Debug, PartialEq)]
pub struct OverdueKey {
    /// Boltz's id of the key.
    pub key_id: String,
    /// Since when it should be revoked. `None`: it is revoked earlier than planned.
    pub since: Option<Timestamp>,
    /// Why it is not, if that is more than a pause.
    pub failure: Option<Block>,
}

/// The status that the facts ask for.
pub fn desired_status(
    facts: &Facts,
    settings: &Settings,
    now: Now,
    findings: &Findings,
) -> BoltzApiKeyStatus {
    let old = &facts.object.status;
    let mut status = BoltzApiKeyStatus {
        observed_generation: facts.object.generation,
        rotations: old.rotations,
        last_rotation_time: old.last_rotation_time.clone(),
        last_rotation_reason: old.last_rotation_reason.clone(),
        ..BoltzApiKeyStatus::default()
    };
    status.account_name = facts.pinned_account().and_then(Into::into);
    let record = facts.record();
    let mut is_valid = false;
    if let Some(record) = record {
        let state = facts.key_state(settings, now, &record.key_id, Some(&record.attempt));
        let active =
            state.may_be_active() && record.expires_at.is_none_or(|expires_at| now.wall < expires_at);
        is_valid = active && facts.trusted_record(settings, now).is_some();
        status.key_id = Some(record.key_id.clone());
        status.key_prefix = Some(record.key_prefix.clone());
        status.value_sha256 = Some(record.value_sha256.clone())
            .filter(|hash| is_sha256(hash) && !facts.memory.lacks_value_sha256);
        status.is_active = Some(active);
        status.livemode = Some(record.livemode);
        status.workspace_id = record.workspace_id.clone();
        status.created_at = Some(Time(record.created_at));
        status.expires_at = record.expires_at.map(Time);
        let renewal = renewal(facts, now, record);
        status.renewal_time = renewal.map(|planned| Time(planned.at));
        // Of a rotation that was requested, or of the renewal.
        let waits = findings.outside_window.and_then(|(_, planned)| planned);
        status.rotation_window = waits
            .or(renewal)
            .and_then(|planned| planned.opening)
            .map(|opening| RotationWindowStatus { start: Time(opening.start), end: Time(opening.end) });
        status.rotations = Some(record.rotations);
        if record.rotations > 0 {
            status.last_rotation_time = Some(Time(record.issued_at));
            status.last_rotation_reason = Some(record.reason.as_str().to_owned());
        }
        // Also of a key that was replaced: what rotates often would seem unused else.
        status.last_used_at = coarse(old.last_used_at.as_ref(), facts.newest_use());
    } else {
        // The Secret is missing. The status is then the only source for the keys that it contained.
        status.key_id = old.key_id.clone();
        status.key_prefix = old.key_prefix.clone();
        status.value_sha256 = old.value_sha256.clone();
        status.livemode = old.livemode;
        status.workspace_id = old.workspace_id.clone();
        status.created_at = old.created_at.clone();
        status.expires_at = old.expires_at.clone();
        status.last_used_at = old.last_used_at.clone();
        status.is_active = old.key_id.as_deref().map(|id| {
            old.expires_at.as_ref().is_none_or(|expires_at| now.wall < expires_at.0)
                && facts.key_state(settings, now, id, None).may_be_active()
        });
    }
    status.secret_name = facts.current_secret().map(|secret| secret.name.clone());
    let overlap = facts.object.spec.as_ref().ok().and_then(|spec| RotationSchedule::read(spec).ok());
    let end = later(now.wall, overlap.map_or(LAST_USED_COARSENESS, |rotation| rotation.overlap));
    for key in facts.named_keys().into_iter().filter(|key| status.key_id.as_ref() != Some(&key.id)) {
        if facts.may_be_active(settings, now, &key) {
            let before = old.previous_keys.iter().find(|previous| previous.key_id == key.id);
            // A key without an end was the current one until now, and the record could not be updated yet.
            let reported = before.map_or(end, |previous| previous.revoke_after.0);
            let revoke_after = key.revoke_after.unwrap_or(reported);
            status.previous_keys.push(PreviousKeyStatus {
                last_used_at: coarse(
                    before.and_then(|previous| previous.last_used_at.as_ref()),
                    last_used(facts, &key.id),
                ),
                key_id: key.id,
                key_prefix: key.prefix,
                revoke_after: Time(whole_seconds(revoke_after)),
            });
        }
    }
    status.pending_restarts = facts.pending_restarts().into_iter().map(|(target, _)| target).collect();
    status.restarts = facts.desired_restarts();
    status.conditions = conditions(facts, now, findings, is_valid);
    truncate_times(&mut status);
    status
}

fn renewal(facts: &Facts, now: Now, record: &crate::protocol::record::Record) -> Option<Planned> {
    let spec = facts.object.spec.as_ref().ok().filter(|_| !facts.object.wants_no_key())?;
    RotationSchedule::read(spec).ok()?.renewal(record, now.wall)
}

fn last_used(facts: &Facts, id: &str) -> Option<Timestamp> {
    facts.listed(id)?.last_used_at
}

/// The new time only if the old one is more than a day behind.
fn coarse(before: Option<&Time>, after: Option<Timestamp>) -> Option<Time> {
    match (before, after) {
        (Some(before), Some(after)) if elapsed(before.0, after) < LAST_USED_COARSENESS => {
            Some(before.clone())
        }
        (_, Some(after)) => Some(Time(after)),
        (before, None) => before.cloned(),
    }
}

/// Kubernetes writes times in whole seconds; a finer one would differ from the value that is read back.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn truncate_times(status: &mut BoltzApiKeyStatus) {
    let times = [
        &mut status.created_at,
        &mut status.expires_at,
        &mut status.last_used_at,
        &mut status.renewal_time,
        &mut status.last_rotation_time,
    ];
    for time in times.into_iter().flatten() {
        time.0 = whole_seconds(time.0);
    }
    for time in status.previous_keys.iter_mut().filter_map(|previous| previous.last_used_at.as_mut()) {
        time.0 = whole_seconds(time.0);
    }
}

fn conditions(facts: &Facts, now: Now, findings: &Findings, is_valid: bool) -> Vec<Condition> {
    let stopped = if facts.object.is_paused {
        Some((Reason::Paused, "The annotation boltz.bio/paused is true"))
    } else if facts.object.wants_no_key() {
        Some((Reason::Suspended, "spec.suspend is true"))
    } else {
        None
    };
    let blocked = findings.blocked.as_ref();
    let (ready, reason, message) = if facts.object.deleting {
        let message =
            blocked.map_or("Revoking the keys of this object.".to_owned(), |block| block.message.clone());
        (false, Reason::Deleting, message)
    } else if is_valid {
        if !findings.still_used.is_empty() {
            let mut message = format!(
                "The key is valid, but these previous keys are still in use after the end of their overlap: {}.",
                findings.still_used.join(", ")
            );
            if !findings.unfinished.is_empty() {
                let workloads = findings.unfinished.join(", ");
                message = format!("{message} The restart of these workloads has not ended: {workloads}.");
            }
            (true, Reason::PreviousKeyStillUsed, message)
        } else if let Some((reason, why)) = stopped {
            let what = match reason {
                Reason::Paused => {
                    "so it is not rotated, previous keys are not revoked, and the Secret and workloads are not changed"
                }
                _ => "so it is not rotated",
            };
            (true, reason, format!("The key is valid. {why}, {what}."))
        } else if let Some((issue, until)) = findings.postponed {
            let message = format!(
                "The Secret contains a valid key. A rotation ({}) waits until {}: {MAX_PREVIOUS} previous keys are still \
                 active, the maximum.",
                issue.as_str(),
                whole_seconds(until)
            );
            (true, Reason::Issued, message)
        } else if let Some((issue, planned)) = findings.outside_window {
            let waits = match planned {
                Some(planned) => {
                    format!("waits until {}: the rotation window is closed", whole_seconds(planned.at))
                }
                None => "cannot start, because spec.rotation.window never opens".to_owned(),
            };
            let issue = issue.as_str();
            let message = format!("The Secret contains a valid key. A rotation ({issue}) {waits}.");
            (true, Reason::Issued, message)
        } else {
            (true, Reason::Issued, "The Secret contains a valid key.".to_owned())
        }
    } else if facts.record().and_then(|record| record.expires_at).is_some_and(|expiry| expiry <= now.wall) {
        let why = match (blocked, stopped) {
            (Some(block), _) => block.message.clone(),
            (None, Some((_, why))) => format!("{why}, so it is not replaced."),
            (None, None) => "It is being replaced.".to_owned(),
        };
        (false, Reason::Expired, format!("The key has expired. {why}"))
    } else if let Some(block) = blocked {
        (false, block.reason, block.message.clone())
    } else if let Some((reason, why)) = stopped {
        (false, reason, format!("{why}, so no key is issued."))
    } else if facts.record().is_some() {
        (false, Reason::Rotating, "The key is no longer valid and is being replaced.".to_owned())
    } else {
        (false, Reason::Pending, "A key is being issued.".to_owned())
    };
    let also: Vec<&Block> = findings.also.iter().filter(|block| blocked != Some(block)).collect();
    let blocks: Vec<&Block> = blocked.into_iter().chain(also).collect();
    let waiting = findings.issue.is_some() || !blocks.is_empty() || facts.object.deleting;
    let stalled = blocks.iter().any(|block| block.reason.is_stalled());
    let messages: Vec<&str> = blocks.iter().map(|block| block.message.as_str()).collect();
    let messages = messages.join(" ");
    let (progress_reason, progress_message) = match blocks.first() {
        Some(block) => (block.reason.as_str(), messages.as_str()),
        None if facts.object.deleting => (Reason::Deleting.as_str(), "Revoking the keys of this object."),
        None => {
            findings.issue.map_or((reason.as_str(), ""), |issue| (issue.as_str(), "A key is being issued."))
        }
    };
    let condition = |kind: &str, is_true: bool, reason: &str, message: &str| Condition {
        type_: kind.to_owned(),
        status: if is_true { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: facts.object.generation,
        last_transition_time: transition_time(facts, now, kind, is_true),
    };
    let mut conditions = vec![
        condition("Ready", ready, reason.as_str(), &message),
        condition("Reconciling", waiting && !stalled, progress_reason, progress_message),
        condition("Stalled", stalled, progress_reason, if stalled { progress_message } else { "" }),
    ];
    conditions.extend(
        revocation_failing(facts, findings)
            .map(|(is_true, reason, message)| condition(REVOCATION_FAILING, is_true, &reason, &message)),
    );
    conditions
}

/// Status, reason and message of the condition for revocations that fail. Absent until one does.
fn revocation_failing(facts: &Facts, findings: &Findings) -> Option<(bool, String, String)> {
    let before = facts.object.status.conditions.iter().find(|known| known.type_ == REVOCATION_FAILING);
    let failing: Vec<(&OverdueKey, &Block)> =
        findings.overdue.iter().filter_map(|key| Some((key, key.failure.as_ref()?))).collect();
    if let Some((_, first)) = failing.first() {
        let messages = failing.iter().map(|(key, block)| match key.since {
            Some(since) => format!(
                "Key {} should have been revoked at {}, and is still valid. {}",
                key.key_id,
                whole_seconds(since),
                block.message
            ),
            None => block.message.clone(),
        });
        return Some((true, first.reason.as_str().to_owned(), messages.collect::<Vec<_>>().join(" ")));
    }
    let before = before?;
    // It ends when no key is overdue any more, not when the next try has to wait.
    let goes_on = !findings.overdue.is_empty() || facts.object.deleting || facts.object.is_paused;
    let lasts = before.status == "True" && goes_on;
    Some(match lasts {
        true => (true, before.reason.clone(), before.message.clone()),
        false => (false, NO_KEY_OVERDUE.to_owned(), String::new()),
    })
}

/// When the condition last changed its status: now, unless it has not.
fn transition_time(facts: &Facts, now: Now, kind: &str, is_true: bool) -> Time {
    let status = if is_true { "True" } else { "False" };
    facts
        .object
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .map_or(Time(whole_seconds(now.wall)), |condition| condition.last_transition_time.clone())
}

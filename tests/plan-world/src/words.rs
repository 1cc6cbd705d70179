//! Steps in words, and the plainest spec.

use boltz_operator::plan::{Plan, Step};
use serde_json::json;

/// Steps C2 and R2: the POST.
pub fn is_mint(step: &Step) -> bool {
    matches!(step, Step::Mint(_))
}

/// Steps C3 and R3: the Secret gets the value.
pub fn is_store(step: &Step) -> bool {
    matches!(step, Step::Store { .. })
}

/// A step in words, for tables.
pub fn words(decision: &Plan) -> String {
    let issue = || decision.findings.issue.map_or("nothing", |reason| reason.as_str());
    match &decision.step {
        Step::Wait => "wait".to_owned(),
        Step::CheckKey { .. } => "check the key".to_owned(),
        Step::Preflight => format!("issue: {}", issue()),
        Step::WriteAttempt { intent, .. } => format!("attempt: {}", intent.reason.as_str()),
        Step::WriteLedger(entries) => format!("ledger of {}", entries.len()),
        Step::Mint(_) => "mint".to_owned(),
        Step::Store { record, .. } => format!("store {}", record.key_id),
        Step::WriteStatus(status) => {
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            format!("status: {}", ready.map_or("", |ready| &ready.reason))
        }
        Step::Revoke { key_id, reason } => format!("revoke {key_id}: {}", reason.as_str()),
        Step::AddFinalizer => "add the finalizer".to_owned(),
        Step::WriteRecord(record) => {
            let ids: Vec<&str> = record.previous.iter().map(|previous| previous.key_id.as_str()).collect();
            format!("record previous {}", ids.join(" "))
        }
        Step::MoveSecret { from } => format!("move {from}"),
        Step::DeleteSecret { name, .. } => format!("delete {name}"),
        Step::Reshape => "reshape".to_owned(),
        Step::RestartWorkload { target, .. } => format!("restart {}", target.name),
        Step::ReadRollout { target, .. } => format!("look at {}", target.name),
        Step::ReadLive => "read".to_owned(),
        Step::ReleaseSecret { name } => format!("release {name}"),
        Step::RemoveFinalizer { retained_keys } if retained_keys.is_empty() => {
            "remove the finalizer".to_owned()
        }
        Step::RemoveFinalizer { retained_keys } => {
            format!("remove the finalizer, leaving {}", retained_keys.join(" "))
        }
    }
}

/// An empty spec: a key that never expires.
pub fn plain() -> serde_json::Value {
    json!({})
}

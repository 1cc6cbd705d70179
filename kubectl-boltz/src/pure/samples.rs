//! Objects for tests.

use boltz_operator::api::WatchedApiKey;
use serde_json::{Value as Json, json};

/// The present of all tests.
pub const NOW: &str = "2026-11-26T12:00:00Z";

/// An object of the namespace `team`.
pub fn object(name: &str, spec: Json, status: Json) -> WatchedApiKey {
    let metadata = json!({
        "name": name, "namespace": "team", "uid": "550e8400-e29b-41d4-a716-446655440000", "generation": 1,
    });
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

/// A condition that changed at present.
pub fn condition_of(kind: &str, is_true: bool, reason: &str, message: &str) -> Json {
    json!({
        "type": kind, "status": if is_true { "True" } else { "False" }, "reason": reason, "message": message,
        "lastTransitionTime": NOW,
    })
}

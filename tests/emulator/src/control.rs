//! The control routes, under `/_emulator`: ground truth and faults, for loopback use only.

use crate::{
    api::{SharedState, lock},
    fault::Fault,
    state::{AdminKey, Settings, State},
};
use axum::{
    Json, Router,
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::{get, post, put},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The routes.
pub fn routes() -> Router<SharedState> {
    Router::new()
        .route("/_emulator/state", get(state))
        .route("/_emulator/requests", get(requests))
        .route("/_emulator/settings", get(settings).put(change_settings))
        .route("/_emulator/faults", post(add_fault).delete(clear_faults))
        .route("/_emulator/admin-keys", put(set_admin_keys))
        .route("/_emulator/keys/{id}/deactivate", post(deactivate))
        .route("/_emulator/keys/{id}/expire", post(expire))
        .route("/_emulator/reset", post(reset))
}

async fn state(Shared(state): Shared<SharedState>) -> Json<Value> {
    let state = lock(&state);
    let now = Timestamp::now();
    let keys: Vec<Value> = state
        .keys
        .iter()
        .map(|key| {
            let mut value = json!(key);
            value["is_active"] = json!(key.authenticates(now));
            value
        })
        .collect();
    let counts: Vec<Value> = state
        .counts()
        .into_iter()
        .map(|(operation, statuses)| json!({"operation": operation, "statuses": statuses}))
        .collect();
    Json(json!({"keys": keys, "requests": counts}))
}

async fn requests(Shared(state): Shared<SharedState>) -> Json<Value> {
    Json(json!(lock(&state).requests))
}

async fn settings(Shared(state): Shared<SharedState>) -> Json<Settings> {
    Json(lock(&state).settings.clone())
}

/// Changes the settings that the body names.
async fn change_settings(
    Shared(state): Shared<SharedState>,
    Json(change): Json<Value>,
) -> Result<Json<Settings>, (StatusCode, String)> {
    let mut state = lock(&state);
    let mut merged = json!(state.settings);
    if let (Some(merged), Some(change)) = (merged.as_object_mut(), change.as_object()) {
        merged.extend(change.clone());
    }
    state.settings =
        serde_json::from_value(merged).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(state.settings.clone()))
}

async fn add_fault(Shared(state): Shared<SharedState>, Json(fault): Json<Fault>) -> StatusCode {
    lock(&state).faults.push_back(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(Shared(state): Shared<SharedState>) -> StatusCode {
    lock(&state).faults.clear();
    StatusCode::NO_CONTENT
}

async fn set_admin_keys(Shared(state): Shared<SharedState>, Json(keys): Json<Vec<AdminKey>>) -> StatusCode {
    lock(&state).admin_keys = keys;
    StatusCode::NO_CONTENT
}

async fn deactivate(Shared(state): Shared<SharedState>, Path(id): Path<String>) -> StatusCode {
    match lock(&state).revoke(&id, Timestamp::now()) {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::NOT_FOUND,
    }
}

async fn expire(Shared(state): Shared<SharedState>, Path(id): Path<String>) -> StatusCode {
    match lock(&state).key_mut(&id) {
        Some(key) => {
            key.expires_at = Some(Timestamp::now());
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}

/// Forgets keys, faults and requests; settings and admin keys stay.
async fn reset(Shared(state): Shared<SharedState>) -> StatusCode {
    let mut state = lock(&state);
    *state = State::new(state.settings.clone(), state.admin_keys.clone());
    StatusCode::NO_CONTENT
}

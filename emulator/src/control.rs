//! The control routes, under `/_emulator`: ground truth and faults. No authentication: for loopback use only.

use crate::{
    fault::{Fault, StandingFault},
    key::{AdminKey, Key},
    settings::Settings,
    state::{CreateRequest, LoggedRequest, SharedState},
};
use axum::{
    Json, Router,
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::{get, post, put},
};
use jiff::Timestamp;
use serde_json::{Value, json};

type Refused = (StatusCode, String);

/// Under `/_emulator`: for tests, not a part of Boltz's API.
pub fn routes() -> Router<SharedState> {
    Router::new()
        .route("/_emulator/state", get(state))
        .route("/_emulator/requests", get(requests))
        .route("/_emulator/settings", get(settings).put(change_settings))
        .route("/_emulator/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/_emulator/standing-faults", get(standing))
        .route("/_emulator/standing-faults/{name}", put(stand).delete(lift))
        .route("/_emulator/release", post(release))
        .route("/_emulator/admin-keys", get(admin_keys).put(set_admin_keys))
        .route("/_emulator/keys", post(create_foreign))
        .route("/_emulator/keys/{id}/deactivate", post(deactivate))
        .route("/_emulator/keys/{id}/expire", post(expire))
        .route("/_emulator/keys/{id}/use", post(use_key))
        .route("/_emulator/reset", post(reset))
}

/// Every key with all its fields, and how many requests of each kind got each status.
async fn state(Shared(state): Shared<SharedState>) -> Json<Value> {
    let state = state.lock();
    let now = state.clock.now();
    let keys: Vec<Value> = state
        .keys
        .iter()
        .map(|key| {
            let mut value = json!(key);
            value["is_active"] = json!(key.authenticates(now));
            value["sha256"] = json!(key.sha256());
            value
        })
        .collect();
    Json(json!({"keys": keys, "requests": state.counts()}))
}

async fn requests(Shared(state): Shared<SharedState>) -> Json<Vec<LoggedRequest>> {
    Json(state.lock().requests.clone())
}

async fn settings(Shared(state): Shared<SharedState>) -> Json<Settings> {
    Json(state.lock().settings.clone())
}

/// Changes the settings that the body names.
async fn change_settings(
    Shared(state): Shared<SharedState>,
    Json(change): Json<serde_json::Map<String, Value>>,
) -> Result<Json<Settings>, Refused> {
    let mut state = state.lock();
    let mut merged = json!(state.settings);
    if let Some(merged) = merged.as_object_mut() {
        merged.extend(change);
    }
    state.settings =
        serde_json::from_value(merged).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(state.settings.clone()))
}

/// The faults that wait for their requests, and how many requests are held.
async fn faults(Shared(state): Shared<SharedState>) -> Json<Value> {
    let state = state.lock();
    Json(json!({"faults": state.faults, "held": state.release.receiver_count()}))
}

async fn add_fault(Shared(state): Shared<SharedState>, Json(fault): Json<Fault>) -> StatusCode {
    state.lock().faults.push_back(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(Shared(state): Shared<SharedState>) -> StatusCode {
    state.lock().faults.clear();
    StatusCode::NO_CONTENT
}

/// The faults that stay, by their names.
async fn standing(Shared(state): Shared<SharedState>) -> Json<Value> {
    Json(json!(state.lock().standing))
}

/// A fault that stays until it is lifted by its name.
async fn stand(
    Shared(state): Shared<SharedState>,
    Path(name): Path<String>,
    Json(fault): Json<StandingFault>,
) -> StatusCode {
    state.lock().standing.insert(name, fault);
    StatusCode::NO_CONTENT
}

async fn lift(Shared(state): Shared<SharedState>, Path(name): Path<String>) -> StatusCode {
    match state.lock().standing.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

async fn release(Shared(state): Shared<SharedState>) -> StatusCode {
    state.lock().release.send_replace(());
    StatusCode::NO_CONTENT
}

async fn admin_keys(Shared(state): Shared<SharedState>) -> Json<Vec<AdminKey>> {
    Json(state.lock().admin_keys.clone())
}

async fn set_admin_keys(Shared(state): Shared<SharedState>, Json(keys): Json<Vec<AdminKey>>) -> StatusCode {
    state.lock().admin_keys = keys;
    StatusCode::NO_CONTENT
}

/// A key that somebody else made: the body of the API's create.
async fn create_foreign(
    Shared(state): Shared<SharedState>,
    Json(request): Json<CreateRequest>,
) -> Result<Json<Key>, Refused> {
    let mut state = state.lock();
    let now = state.clock.now();
    let key = state.create(&request, now);
    key.map(Json).map_err(|refusal| (StatusCode::UNPROCESSABLE_ENTITY, refusal.message))
}

async fn deactivate(shared: Shared<SharedState>, id: Path<String>) -> StatusCode {
    change_key(shared, id, |key, now| {
        key.revoked_at.get_or_insert(now);
    })
}

async fn expire(shared: Shared<SharedState>, id: Path<String>) -> StatusCode {
    change_key(shared, id, |key, now| key.expires_at = Some(now))
}

async fn use_key(shared: Shared<SharedState>, id: Path<String>) -> StatusCode {
    change_key(shared, id, |key, now| key.last_used_at = Some(now))
}

fn change_key(
    Shared(state): Shared<SharedState>,
    Path(id): Path<String>,
    change: impl FnOnce(&mut Key, Timestamp),
) -> StatusCode {
    let mut state = state.lock();
    let now = state.clock.now();
    match state.key_mut(&id) {
        Some(key) => {
            change(key, now);
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}

async fn reset(Shared(state): Shared<SharedState>) -> StatusCode {
    state.lock().reset();
    StatusCode::NO_CONTENT
}

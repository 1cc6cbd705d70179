//! The routes of the Boltz API, and where faults come in.

use crate::{
    fault::{Effect, Fault, Operation, Outcome},
    state::{CreateRequest, Key, LoggedRequest, Principal, Refusal, State, refusal},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::Response,
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The state, shared by all requests.
pub type SharedState = Arc<Mutex<State>>;

/// The lock; a panic elsewhere must not hide what happened.
pub fn lock(state: &SharedState) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The routes.
pub fn routes() -> Router<SharedState> {
    Router::new()
        .route("/compute/v1/admin/api-keys", post(create).get(list))
        .route("/compute/v1/admin/api-keys/{id}/revoke", post(revoke))
        .route("/compute/v1/auth/me", get(auth_me))
}

async fn create(Shared(state): Shared<SharedState>, headers: HeaderMap, body: Bytes) -> Response {
    let parsed: Result<CreateRequest, _> = serde_json::from_slice(&body);
    let subject = parsed.as_ref().ok().and_then(|request| request.name.clone()).unwrap_or_default();
    serve(state, Operation::Create, subject, move |state, now| {
        authorize_admin(state, &headers, now)?;
        let request =
            parsed.as_ref().map_err(|_| refusal(400, "BAD_REQUEST", "the body is not what it should be"))?;
        let key = state.create(request, now)?;
        Ok(json!({"key": key.plaintext, "key_details": details(state, &key, now)}))
    })
    .await
}

#[derive(Deserialize)]
struct ListQuery {
    after_id: Option<String>,
    before_id: Option<String>,
    limit: Option<String>,
    workspace_id: Option<String>,
}

async fn list(
    Shared(state): Shared<SharedState>,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Response {
    serve(state, Operation::List, String::new(), move |state, now| {
        authorize_admin(state, &headers, now)?;
        let limit = match query.limit.as_deref().map(str::parse::<usize>) {
            None => 100,
            Some(Ok(limit @ 1..=1000)) => limit,
            Some(_) => return Err(refusal(422, "VALIDATION_ERROR", "limit: must be from 1 to 1000")),
        };
        let limit = limit.min(state.settings.page_size.max(1));
        let (after, before) = (query.after_id.as_deref(), query.before_id.as_deref());
        let (rows, has_more) = state.page(after, before, limit, query.workspace_id.as_deref(), now)?;
        let data: Vec<Json> = rows.iter().map(|key| details(state, key, now)).collect();
        Ok(json!({
            "data": data,
            "first_id": rows.first().map(|key| &key.id),
            "last_id": rows.last().map(|key| &key.id),
            "has_more": has_more,
        }))
    })
    .await
}

async fn revoke(Shared(state): Shared<SharedState>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    serve(state, Operation::Revoke, id.clone(), move |state, now| {
        authorize_admin(state, &headers, now)?;
        let key = state.revoke(&id, now)?;
        Ok(details(state, &key, now))
    })
    .await
}

async fn auth_me(Shared(state): Shared<SharedState>, headers: HeaderMap) -> Response {
    serve(state, Operation::AuthMe, String::new(), move |state, now| {
        if !state.settings.has_auth_me {
            return Err(refusal(404, "NOT_FOUND", "no such route"));
        }
        match authorize(state, &headers, now)? {
            Principal::Admin(admin) => Ok(json!({
                "api_key_id": "key_admin",
                "key_type": admin.key_type,
                "mode": admin.mode,
                "organization_id": "org_emulated",
                "organization_name": "Emulated organization",
                "principal_type": "api_key",
                "selected_organization_id": "org_emulated",
            })),
            Principal::Workspace(id) => {
                let key = state.key_mut(&id).ok_or_else(unauthorized)?;
                key.last_used_at = Some(now);
                Ok(json!({
                    "api_key_id": key.id,
                    "key_type": "workspace",
                    "mode": if key.livemode { "live" } else { "test" },
                    "organization_id": "org_emulated",
                    "organization_name": "Emulated organization",
                    "workspace_id": key.workspace_id,
                    "principal_type": "api_key",
                    "selected_organization_id": "org_emulated",
                }))
            }
        }
    })
    .await
}

fn unauthorized() -> Refusal {
    refusal(401, "UNAUTHORIZED", "the API key is missing, unknown, revoked or expired")
}

fn authorize(state: &State, headers: &HeaderMap, now: Timestamp) -> Result<Principal, Refusal> {
    let presented = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    presented.and_then(|plaintext| state.authenticate(plaintext, now)).ok_or_else(unauthorized)
}

fn authorize_admin(state: &State, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
    match authorize(state, headers, now)? {
        Principal::Admin(admin) if admin.key_type == "admin" => Ok(()),
        Principal::Admin(_) | Principal::Workspace(_) => {
            Err(refusal(403, "FORBIDDEN", "this call needs an admin key"))
        }
    }
}

fn details(state: &State, key: &Key, now: Timestamp) -> Json {
    let is_active =
        if state.settings.expiry_deactivates { key.authenticates(now) } else { key.revoked_at.is_none() };
    json!({
        "id": key.id,
        "allowed_ips": key.allowed_ips,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "is_active": is_active,
        "key_prefix": key.prefix(),
        "key_type": "workspace",
        "last_used_at": key.last_used_at,
        "livemode": key.livemode,
        "name": key.name,
        "workspace_id": key.workspace_id,
    })
}

/// Answers one request: logs it, meets a fault if one waits, else runs the handler.
async fn serve<H>(state: SharedState, operation: Operation, subject: String, handler: H) -> Response
where
    H: FnOnce(&mut State, Timestamp) -> Result<Json, Refusal> + Send + 'static,
{
    let now = Timestamp::now();
    let (index, fault, limited) = {
        let mut state = lock(&state);
        state.requests.push(LoggedRequest { operation, at: now, subject, status: None });
        let index = state.requests.len() - 1;
        let fault = state.take_fault(operation);
        let limited = state.is_over_the_limit(now);
        (index, fault, limited)
    };
    let fault = fault.unwrap_or(Fault {
        operation: None,
        effect: Effect::Before,
        outcome: if limited { too_many() } else { Outcome::Answer },
        latency_milliseconds: 0,
        times: 1,
    });
    let effect = if limited { Effect::None } else { fault.effect };
    let answer = match effect {
        Effect::None => None,
        Effect::Before => Some(handler(&mut lock(&state), Timestamp::now())),
        Effect::After(milliseconds) => {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                let _ = handler(&mut lock(&state), Timestamp::now());
            });
            None
        }
    };
    if fault.latency_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(fault.latency_milliseconds)).await;
    }
    let answer = match answer {
        Some(Ok(body)) => Ok(body),
        Some(Err(refusal)) => Err(refusal),
        None => Err(refusal(500, "INTERNAL", "the emulator was asked for a fault")),
    };
    let response = match fault.outcome {
        Outcome::Answer => plain(answer),
        Outcome::Cut => return cut(),
        Outcome::Hang => std::future::pending().await,
        Outcome::Status { status, headers, body } => {
            let body = body.unwrap_or_else(|| error_body("EMULATED_FAULT", "a fault on demand"));
            let mut response = respond(status, body);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Outcome::Truncated(length) => {
            let text = answer.map(|body| body.to_string()).unwrap_or_default();
            respond(200, text.chars().take(length).collect())
        }
        Outcome::Foreign(body) => respond(200, body),
    };
    let mut state = lock(&state);
    if let Some(logged) = state.requests.get_mut(index) {
        logged.status = Some(response.status().as_u16());
    }
    response
}

fn too_many() -> Outcome {
    Outcome::Status {
        status: 429,
        headers: [("retry-after".to_owned(), "1".to_owned())].into(),
        body: Some(error_body("RATE_LIMITED", "too many requests")),
    }
}

fn plain(answer: Result<Json, Refusal>) -> Response {
    match answer {
        Ok(body) => respond(200, body.to_string()),
        Err(Refusal { status, code, message }) => respond(status, error_body(code, &message)),
    }
}

fn error_body(code: &str, message: &str) -> String {
    json!({"code": code, "message": message}).to_string()
}

fn respond(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that fails before its first byte: the server drops the connection in the middle of the answer.
fn cut() -> Response {
    let failing = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut on demand")) });
    let mut response = Response::new(Body::from_stream(failing));
    response.headers_mut().insert("content-length", HeaderValue::from_static("1000"));
    response
}

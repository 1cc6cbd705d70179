//! The routes of the Boltz API.

use crate::{
    answer::{Answer, answer, refusal_response},
    connection::Connection,
    fault::Operation,
    state::{CreateRequest, PageRequest, Principal, Refusal, Row, SharedState, State},
};
use axum::{
    Router,
    body::Bytes,
    extract::{Extension, Path, Query, State as Shared, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

/// Boltz's API, as far as the emulator knows it.
pub fn routes() -> Router<SharedState> {
    Router::new()
        .route("/compute/v1/admin/api-keys", post(create).get(list))
        .route("/compute/v1/admin/api-keys/{id}/revoke", post(revoke))
        .route("/compute/v1/auth/me", get(auth_me))
        .method_not_allowed_fallback(async || {
            refusal_response(Refusal::new(405, "METHOD_NOT_ALLOWED", "no such method"))
        })
        .fallback(async || refusal_response(no_such_route()))
}

async fn create(
    Shared(state): Shared<SharedState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Through an object, because serde would also take an array for a struct.
    let parsed = serde_json::from_slice::<Map<String, Json>>(&body)
        .and_then(|object| serde_json::from_value::<CreateRequest>(object.into()));
    let subject = parsed.as_ref().ok().and_then(|request| request.name.clone()).unwrap_or_default();
    let workspace = parsed.as_ref().ok().and_then(|request| request.workspace_id.clone());
    let handler = move |state: &mut State, now| {
        authorize_admin(state, &headers, now)?;
        let request = parsed.map_err(|_| bad_request("the body is not what it should be"))?;
        let key = state.create(&request, now)?;
        Ok(json!({"key": key.plaintext, "key_details": details(state, Row::Workspace(&key), now)}))
    };
    answer(state, connection, Operation::Create, subject, workspace, handler).await
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
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let workspace = query.as_ref().ok().and_then(|query| query.workspace_id.clone());
    let handler = move |state: &mut State, now| {
        authorize_admin(state, &headers, now)?;
        let Query(query) = query.map_err(|_| bad_request("the query is not what it should be"))?;
        page(state, &query, now)
    };
    answer(state, connection, Operation::List, String::new(), workspace, handler).await
}

fn page(state: &State, query: &ListQuery, now: Timestamp) -> Answer {
    let limit = match query.limit.as_deref().map(str::parse::<usize>) {
        None => 100,
        Some(Ok(limit)) if (1..=state.settings.largest_limit).contains(&limit) => limit,
        Some(_) => {
            let message = format!("must be from 1 to {}", state.settings.largest_limit);
            let status = state.settings.larger_limit_status;
            return Err(Refusal { status, ..Refusal::invalid("limit", &message) });
        }
    };
    let wanted = PageRequest {
        after: query.after_id.as_deref(),
        before: query.before_id.as_deref(),
        limit: limit.min(state.settings.page_size.max(1)),
        workspace: query.workspace_id.as_deref(),
    };
    let (rows, has_more) = state.page(wanted, now)?;
    Ok(json!({
        "data": rows.iter().map(|row| details(state, *row, now)).collect::<Vec<Json>>(),
        "first_id": rows.first().map(Row::id),
        "last_id": rows.last().map(Row::id),
        "has_more": has_more,
    }))
}

async fn revoke(
    Shared(state): Shared<SharedState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let subject = id.clone();
    let handler = move |state: &mut State, now| {
        authorize_admin(state, &headers, now)?;
        let key = state.revoke(&id, now)?;
        Ok(details(state, Row::Workspace(&key), now))
    };
    answer(state, connection, Operation::Revoke, subject, None, handler).await
}

async fn auth_me(
    Shared(state): Shared<SharedState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Response {
    let handler = move |state: &mut State, now| {
        if !state.settings.has_auth_me {
            return Err(no_such_route());
        }
        let principal = authorize(state, &headers, now)?;
        Ok(state.who_is(principal, now))
    };
    answer(state, connection, Operation::AuthMe, String::new(), None, handler).await
}

fn bad_request(message: &str) -> Refusal {
    Refusal::new(400, "BAD_REQUEST", message)
}

fn no_such_route() -> Refusal {
    Refusal::new(404, "NOT_FOUND", "no such route")
}

fn authorize(state: &State, headers: &HeaderMap, now: Timestamp) -> Result<Principal, Refusal> {
    let presented = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    presented.and_then(|plaintext| state.authenticate(plaintext, now)).ok_or_else(|| {
        Refusal::new(401, "UNAUTHORIZED", "the API key is missing, unknown, revoked or expired")
    })
}

fn authorize_admin(state: &State, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
    match authorize(state, headers, now)? {
        Principal::Admin(_, admin) if admin.key_type == "admin" => Ok(()),
        Principal::Admin(..) | Principal::Workspace(_) => {
            Err(Refusal::new(403, "FORBIDDEN", "this call needs an admin key"))
        }
    }
}

/// The key object of the API.
fn details(state: &State, row: Row<'_>, now: Timestamp) -> Json {
    match row {
        Row::Admin(_, admin) => json!({
            "id": row.id(),
            "allowed_ips": [],
            "created_at": Timestamp::UNIX_EPOCH,
            "expires_at": admin.expires_at,
            "is_active": true,
            "key_prefix": admin.plaintext.chars().take(12).collect::<String>(),
            "key_type": admin.key_type,
            "last_used_at": null,
            "livemode": admin.mode == "live",
            "name": "Admin key",
            "workspace_id": null,
        }),
        Row::Workspace(key) => json!({
            "id": key.id,
            "allowed_ips": key.allowed_ips,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "is_active": match state.settings.expiry_deactivates {
                true => key.authenticates(now),
                false => key.revoked_at.is_none(),
            },
            "key_prefix": key.prefix(),
            "key_type": "workspace",
            "last_used_at": key.last_used_at,
            "livemode": key.livemode,
            "name": key.name,
            "workspace_id": key.workspace_id,
        }),
    }
}

//! One request from its log entry to its answer, or to a fault.

use crate::{
    connection::Connection,
    fault::{Effect, Fault, Operation, Outcome},
    state::{LoggedRequest, Refusal, SharedState, State},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use std::{convert::Infallible, time::Duration};
use tokio::task::JoinHandle;

/// What a request does to the state, and what the API answers.
pub type Answer = Result<Json, Refusal>;

/// Answers one request: logs it, counts it against the limit, meets a fault if one waits, else runs the handler.
pub async fn answer<H>(
    state: SharedState,
    connection: Connection,
    operation: Operation,
    subject: String,
    workspace: Option<String>,
    handler: H,
) -> Response
where
    H: FnOnce(&mut State, Timestamp) -> Answer + Send + 'static,
{
    let (entry, taken) = {
        let mut state = state.lock();
        let at = state.clock.now();
        let taken = state.limit(at).map(|()| {
            let fault = state.take_fault(operation, &subject, workspace.as_deref());
            let mut fault = fault.unwrap_or_else(Fault::none);
            fault.latency_milliseconds =
                fault.latency_milliseconds.saturating_add(state.settings.latency_milliseconds);
            fault
        });
        state.requests.push(LoggedRequest { operation, at, subject, status: None });
        let entry = (state.epoch, state.requests.len() - 1);
        (entry, taken)
    };
    let response = match taken {
        Ok(fault) => met(&state, &connection, fault, handler).await,
        Err(seconds) => too_many(seconds),
    };
    let mut state = state.lock();
    if state.epoch == entry.0
        && let Some(logged) = state.requests.get_mut(entry.1)
    {
        logged.status = Some(response.status().as_u16());
    }
    response
}

async fn met<H>(state: &SharedState, connection: &Connection, fault: Fault, handler: H) -> Response
where
    H: FnOnce(&mut State, Timestamp) -> Answer + Send + 'static,
{
    let (epoch, mut release) = {
        let state = state.lock();
        (state.epoch, (fault.outcome == Outcome::Hold).then(|| state.release.subscribe()))
    };
    let task = match fault.effect {
        Effect::None => None,
        Effect::Before => {
            let mut state = state.lock();
            let now = state.clock.now();
            Some(Take::Now(handler(&mut state, now)))
        }
        Effect::After(milliseconds) => {
            let wait = tokio::time::sleep(Duration::from_millis(milliseconds));
            state.lock().late += 1;
            let handler = move |state: &mut State, now: Timestamp| {
                state.late -= 1;
                handler(state, now)
            };
            Some(Take::Later(later(state.clone(), epoch, wait, handler)))
        }
        Effect::OnRelease => {
            // One receiver for one held request: their number is what `held` tells.
            let mut release = release.take().unwrap_or_else(|| state.lock().release.subscribe());
            let wait = async move {
                let _ = release.changed().await;
            };
            Some(Take::Later(later(state.clone(), epoch, wait, handler)))
        }
    };
    tokio::time::sleep(Duration::from_millis(fault.latency_milliseconds)).await;
    if let Some(release) = &mut release {
        let _ = release.changed().await;
    }
    let real = if fault.outcome.needs_the_answer() { real_answer(task).await } else { (500, String::new()) };
    match fault.outcome {
        Outcome::Answer | Outcome::Hold => respond(real.0, real.1),
        Outcome::Cut => connection.cut().await,
        Outcome::CutMidAnswer => cut_mid_answer(connection.clone(), real.0, real.1),
        Outcome::Hang => std::future::pending().await,
        Outcome::Status { status, headers, body } => {
            let body = body.unwrap_or_else(|| error_body("EMULATED_FAULT", "a fault on demand", None));
            let mut response = respond(status, body);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Outcome::Truncated(length) => respond(real.0, real.1.chars().take(length).collect()),
        Outcome::Foreign(body) => respond(200, body),
        Outcome::Lie(lie) => match serde_json::from_str(&real.1) {
            Ok(answer) if real.0 == 200 => {
                let number = state.lock().requests.len();
                respond(200, lie.told(answer, number).to_string())
            }
            _ => respond(real.0, real.1),
        },
    }
}

/// An effect that was taken, or will be.
enum Take {
    Now(Answer),
    Later(JoinHandle<Option<Answer>>),
}

/// The effect comes when the wait is over, also when the client is gone by then; not after a reset.
fn later<H>(
    state: SharedState,
    epoch: u64,
    wait: impl Future<Output = ()> + Send + 'static,
    handler: H,
) -> JoinHandle<Option<Answer>>
where
    H: FnOnce(&mut State, Timestamp) -> Answer + Send + 'static,
{
    tokio::spawn(async move {
        wait.await;
        let mut state = state.lock();
        let now = state.clock.now();
        (state.epoch == epoch).then(|| handler(&mut state, now))
    })
}

async fn real_answer(take: Option<Take>) -> (u16, String) {
    let answer = match take {
        Some(Take::Now(answer)) => Some(answer),
        Some(Take::Later(task)) => task.await.ok().flatten(),
        None => None,
    };
    match answer {
        Some(Ok(body)) => (200, body.to_string()),
        Some(Err(refusal)) => refused(refusal),
        None => (500, error_body("EMULATED_FAULT", "no effect, hence no answer", None)),
    }
}

/// The API's words for a refusal.
pub fn refusal_response(refusal: Refusal) -> Response {
    let (status, body) = refused(refusal);
    respond(status, body)
}

fn refused(refusal: Refusal) -> (u16, String) {
    (refusal.status, error_body(refusal.code, &refusal.message, refusal.details))
}

fn too_many(seconds: u64) -> Response {
    let mut response = respond(429, error_body("RATE_LIMITED", "too many requests", None));
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn error_body(code: &str, message: &str, details: Option<Json>) -> String {
    let mut body = json!({"code": code, "message": message});
    if let Some(details) = details {
        body["details"] = details;
    }
    body.to_string()
}

fn respond(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Promises the whole body, sends half of it, and closes the connection.
fn cut_mid_answer(connection: Connection, status: u16, body: String) -> Response {
    let whole = Bytes::from(body);
    let half = whole.slice(..whole.len() / 2);
    let cut = stream::once(async move {
        // The first half is written when the body has nothing more to give for now.
        tokio::task::yield_now().await;
        connection.cut().await
    });
    let mut response = respond(status, String::new());
    response.headers_mut().insert(header::CONTENT_LENGTH, whole.len().into());
    *response.body_mut() = Body::from_stream(stream::iter([Ok::<_, Infallible>(half)]).chain(cut));
    response
}

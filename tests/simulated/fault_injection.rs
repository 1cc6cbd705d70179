//! Between the operator and its two servers: where calls are recorded, and where they go wrong.

use crate::{
    api_server::{self, Call},
    watch_stream::{self, Line},
    world::World,
};
use axum::body::Body;
use boltz_operator::boltz::SendError;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tower::ServiceExt;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The connection breaks before the call arrives.
    Cut,
    /// There is no connection: for Boltz this surely is no effect.
    Unreachable,
    /// It takes effect, and the connection breaks before the answer.
    Lost,
    /// Nothing arrives, and nobody says so.
    Silent,
    /// It takes effect, and nobody says so.
    Deaf,
    /// The connection breaks, and it takes effect that much later.
    Late(Duration),
    /// It takes effect, and is answered, that much later.
    Slow(Duration),
    /// A 503 without effect.
    Refused,
    /// It is answered with that status, without effect.
    Status(u16),
    /// It is answered with 200 and with a body that is not of this API, without effect.
    Odd,
    /// It takes effect, and is answered with a 429 or 503.
    RefusedThoughDone(u16),
    /// It is answered with a 503, and takes effect that much later: a gateway gave up.
    RefusedThenDone(Duration),
    /// It takes effect, and half of the answer arrives.
    Truncated,
    /// The process ends before it is sent.
    CrashBefore,
    /// It takes effect, and the process ends before the answer.
    CrashAfter,
    /// The process ends, and it takes effect that much later.
    CrashLate(Duration),
}

/// One run of an operator's process: its connections to the servers.
#[derive(Clone)]
pub struct ProcessRun {
    pub world: Arc<World>,
    /// Which controller it is.
    pub process: usize,
    pub crash: Arc<Notify>,
    /// How its watches are.
    pub line: Arc<Mutex<Line>>,
}

/// What a call met, for those who decide about faults.
#[derive(Clone, Debug)]
pub struct Met {
    pub process: usize,
    pub what: String,
}

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock()
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the simulation cut the connection")
}

/// The status, the headers and the whole body.
type Whole = (StatusCode, HeaderMap, Vec<u8>);

impl ProcessRun {
    /// Lets one call meet its fault, if there is one. `effect` makes it happen.
    async fn meet<E, F>(&self, what: String, effect: E) -> Result<Whole, Failure>
    where
        E: FnOnce() -> F + Send + 'static,
        F: Future<Output = Whole> + Send + 'static,
    {
        let fault = self.world.decide(Met { process: self.process, what });
        let later = |wait: Duration, effect: E| {
            let world = Arc::clone(&self.world);
            world.late.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                effect().await;
                world.late.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            });
        };
        match fault {
            None => Ok(effect().await),
            Some(Fault::Cut) => Err(Failure::Broken),
            Some(Fault::Unreachable) => Err(Failure::Unreachable),
            Some(Fault::Lost) => {
                effect().await;
                Err(Failure::Broken)
            }
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Deaf) => {
                effect().await;
                std::future::pending().await
            }
            Some(Fault::Late(wait)) => {
                later(wait, effect);
                Err(Failure::Broken)
            }
            Some(Fault::Slow(wait)) => {
                tokio::time::sleep(wait).await;
                Ok(effect().await)
            }
            Some(Fault::Refused) => Ok(refusal(503)),
            Some(Fault::Status(status)) => Ok(refusal(status)),
            Some(Fault::Odd) => Ok((StatusCode::OK, HeaderMap::new(), br#"{"ok":true}"#.to_vec())),
            Some(Fault::RefusedThoughDone(status)) => {
                effect().await;
                Ok(refusal(status))
            }
            Some(Fault::RefusedThenDone(wait)) => {
                later(wait, effect);
                Ok(refusal(503))
            }
            Some(Fault::Truncated) => {
                let (status, headers, mut body) = effect().await;
                body.truncate(body.len() / 2);
                Ok((status, headers, body))
            }
            Some(Fault::CrashBefore) => self.end().await,
            Some(Fault::CrashAfter) => {
                effect().await;
                self.end().await
            }
            Some(Fault::CrashLate(wait)) => {
                later(wait, effect);
                self.end().await
            }
        }
    }

    async fn end<T>(&self) -> T {
        self.crash.notify_one();
        std::future::pending().await
    }

    /// The service for `kube::Client::new`.
    pub async fn kubernetes(self, request: Request<kube::client::Body>) -> Result<Response<Body>, io::Error> {
        let call = read(request, self.world.now()).await;
        if call.query.get("watch").is_some_and(|value| value == "true" || value == "1") {
            return watch_stream::start(&self, &call);
        }
        let world = Arc::clone(&self.world);
        let dry = if call.query.contains_key("dryRun") { " dry" } else { "" };
        let what = format!("{} {}{dry}", call.method, call.path);
        if what.ends_with("/status") {
            world.tell(format!("  {}: {}", self.process, call.body["status"]));
        }
        let (status, _, body) = self
            .meet(what, move || async move {
                let (status, answer) = world.call(&call);
                (status, HeaderMap::new(), answer.to_string().into_bytes())
            })
            .await
            .map_err(|_| broken())?;
        Ok(response(status, Body::from(body)))
    }

    /// The service for `BoltzClient::through`.
    pub async fn boltz(self, request: reqwest::Request) -> Result<reqwest::Response, SendError> {
        let path = request.url().path().to_owned();
        let what = format!("Boltz {} {path}", request.method());
        let revoked = path.strip_suffix("/revoke").and_then(|path| path.rsplit('/').next());
        let revoked = revoked.map(percent_decoded);
        let sent: Request<reqwest::Body> = request.try_into().unwrap();
        let sent = sent.map(Body::new);
        let world = Arc::clone(&self.world);
        let answered = self
            .meet(what, move || async move {
                if let Some(id) = &revoked {
                    world.before_revocation(id);
                }
                let answer = world.emulator.routes().oneshot(sent).await.unwrap();
                let (status, headers) = (answer.status(), answer.headers().clone());
                let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
                (status, headers, body.to_vec())
            })
            .await;
        match answered {
            Ok((status, headers, body)) => {
                let mut response = response(status, reqwest::Body::from(body));
                if let Some(wait) = headers.get(RETRY_AFTER) {
                    response.headers_mut().insert(RETRY_AFTER, wait.clone());
                }
                Ok(response.into())
            }
            Err(Failure::Unreachable) => Err(SendError::Connect(broken().into())),
            Err(Failure::Broken) => Err(SendError::Broken(broken().into())),
        }
    }
}

enum Failure {
    Broken,
    Unreachable,
}

fn response<T>(status: StatusCode, body: T) -> Response<T> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn refusal(status: u16) -> Whole {
    let code = StatusCode::from_u16(status).unwrap();
    let reason = match status {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "ServiceUnavailable",
    };
    let (code, answer) = api_server::failure(code, reason, "a fault of the simulation");
    (code, HeaderMap::new(), answer.to_string().into_bytes())
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

async fn read(request: Request<kube::client::Body>, sent_at: Timestamp) -> Call {
    let method: Method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
        .collect();
    let accept = request.headers().get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let wants_metadata = accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
    let body = request.into_body().collect_bytes().await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
    Call { method, path, query, wants_metadata, body, sent_at: Some(sent_at) }
}

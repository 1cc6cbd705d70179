//! A proxy in front of the API server, with faults on demand.
//!
//! It speaks plain HTTP on loopback to one operator, and passes everything on, watches included, but for the one call
//! that a test has named, and for watches that it has made to lag or break.

use crate::{
    control_plane::{ControlPlane, HarnessError},
    watch_faults::{WatchFault, Watches, faulty_body, gone},
};
use axum::{
    Extension, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State as Shared},
    response::{IntoResponse, Response},
};
use boltz_emulator::connection::{self, Connection};
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::{Mutex, MutexGuard};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The largest body that is passed on, in bytes.
const LARGEST_BODY: usize = 16 << 20;

/// A kind of call to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCall {
    /// As in HTTP: `PATCH` and `PUT` change, `POST` creates.
    pub method: Method,
    /// With a star for the name: `secrets` for all of them, `secrets/*`, `boltzapikeys/*/status`.
    pub resource: &'static str,
    /// Whether the query asks for a dry run. Other calls to the same resource are other calls.
    pub dry_run: bool,
}

impl ApiCall {
    /// A call that is no dry run.
    pub fn new(method: Method, resource: &'static str) -> Self {
        Self { method, resource, dry_run: false }
    }

    /// The same as a dry run.
    pub fn as_dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }

    fn is(&self, request: &Request) -> bool {
        let query = request.uri().query().unwrap_or_default();
        self.method == *request.method()
            && self.dry_run == query.contains("dryRun=All")
            && !is_watch(request)
            && resource_of(request.uri().path()) == self.resource
    }
}

/// `/api/v1/namespaces/<namespace>/secrets/<name>` is `secrets/*`.
fn resource_of(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // `api/v1` or `apis/<group>/<version>`.
    let rest = parts.get(if parts.first() == Some(&"api") { 2 } else { 3 }..).unwrap_or_default();
    let rest = if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { rest };
    match rest {
        [resource] => (*resource).to_owned(),
        [resource, _] => format!("{resource}/*"),
        [resource, _, subresource, ..] => format!("{resource}/*/{subresource}"),
        [] => String::new(),
    }
}

fn is_watch(request: &Request) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"))
}

/// What goes wrong with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// It never arrives, and the client waits.
    HoldBefore,
    /// It takes effect, and the client waits.
    HoldAfter,
    /// It takes effect, and is answered when the proxy is told to release it. Others are not held.
    HoldAnswer,
    /// It is answered, and nothing after it arrives.
    FreezeAfter,
    /// The connection is cut, without effect.
    Cut,
    /// It takes effect, and the connection is cut.
    Lost,
    /// The connection is cut, and it takes effect that much later.
    Late(Duration),
    /// It takes effect, and is answered with that status.
    Status(u16),
    /// It takes effect, and half of the answer arrives as if it were whole.
    Truncated,
    /// It takes effect, and something else is answered with 200.
    Foreign,
}

#[derive(Default)]
struct State {
    armed: Option<(ApiCall, ApiFault)>,
    frozen: bool,
    /// Effects that are still to come.
    late: usize,
    writes: Vec<String>,
}

struct Proxy {
    http: reqwest::Client,
    upstream: String,
    state: Mutex<State>,
    fired: watch::Sender<bool>,
    /// A call has come since the proxy was frozen.
    has_frozen: watch::Sender<bool>,
    released: watch::Sender<u64>,
    watches: Arc<Watches>,
}

/// A running proxy. It stops when it is dropped.
pub struct ApiProxy {
    proxy: Arc<Proxy>,
    kubeconfig: PathBuf,
    server: JoinHandle<()>,
}

impl ApiProxy {
    /// In front of that control plane, for a client with the operator's rights.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self, HarnessError> {
        let failed = |error: &dyn std::fmt::Display| HarnessError::Client(error.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let root = reqwest::Certificate::from_pem(control_plane.authority_pem().as_bytes());
        let http = reqwest::Client::builder()
            .tls_certs_only([root.map_err(|error| failed(&error))?])
            .no_proxy()
            .build()
            .map_err(|error| failed(&error))?;
        let proxy = Arc::new(Proxy {
            http,
            upstream: control_plane.api_server_url(),
            state: Mutex::default(),
            fired: watch::Sender::new(false),
            has_frozen: watch::Sender::new(false),
            released: watch::Sender::new(0),
            watches: Arc::default(),
        });
        let router = Router::new().fallback(handle).with_state(Arc::clone(&proxy));
        let server = tokio::spawn(connection::serve(listener, router));
        let kubeconfig = control_plane.operator_kubeconfig_at(&format!("http://{address}"))?;
        Ok(Self { proxy, kubeconfig, server })
    }

    /// The kubeconfig file of the operator behind it.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// The next such call meets the fault.
    pub fn arm(&self, call: ApiCall, fault: ApiFault) {
        self.proxy.fired.send_replace(false);
        self.proxy.lock().armed = Some((call, fault));
    }

    /// Nothing but watches arrives any more.
    pub fn freeze(&self) {
        self.proxy.has_frozen.send_replace(false);
        self.proxy.lock().frozen = true;
    }

    /// Waits until a call has come that does not arrive because of [`ApiProxy::freeze`].
    pub async fn wait_frozen(&self) {
        // The sender lives as long as this borrow of it.
        let _ = self.proxy.has_frozen.subscribe().wait_for(|frozen| *frozen).await;
    }

    /// Answers what is held by [`ApiFault::HoldAnswer`].
    pub fn release(&self) {
        self.proxy.released.send_modify(|count| *count += 1);
    }

    /// The watches of these resources meet the fault until they are healed.
    pub fn break_watches(&self, fault: WatchFault, resources: &'static [&'static str]) {
        self.proxy.watches.set(Some((fault, resources)));
    }

    /// How often a fault of watches has shown: an event that was held up, lost or repeated, a refused watch, an older
    /// list that was not the newest.
    pub fn broken_watches(&self) -> usize {
        self.proxy.watches.met()
    }

    /// Watches are as they should be again.
    pub fn heal_watches(&self) {
        self.proxy.watches.set(None);
    }

    /// No fault of a call any more.
    pub fn clear(&self) {
        let mut state = self.proxy.lock();
        state.armed = None;
        state.frozen = false;
    }

    /// The writes, dry runs, leases and events aside: `PATCH boltzapikeys/*`. What was not done comes with its status:
    /// `PATCH secrets/* 409`.
    pub fn writes(&self) -> Vec<String> {
        self.proxy.lock().writes.clone()
    }

    /// How many effects are still to come, by [`ApiFault::Late`].
    pub fn late(&self) -> usize {
        self.proxy.lock().late
    }

    /// Waits until the fault has been met, its effect included unless that is late.
    pub async fn wait_fired(&self) {
        // The sender lives as long as this borrow of it.
        let _ = self.proxy.fired.subscribe().wait_for(|fired| *fired).await;
    }

    /// Whether the fault has been met.
    pub fn has_fired(&self) -> bool {
        *self.proxy.fired.borrow()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The fault that this request meets.
    fn fault_of(&self, request: &Request) -> Option<ApiFault> {
        let mut state = self.lock();
        let fits = state.armed.as_ref().is_some_and(|(call, _)| call.is(request));
        let (_, fault) = state.armed.take_if(|_| fits)?;
        if fault == ApiFault::FreezeAfter {
            state.frozen = true;
        }
        Some(fault)
    }

    async fn forward(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let write = format!("{} {}", parts.method, resource_of(parts.uri.path()));
        let counts = parts.method != Method::GET
            && !path.contains("dryRun=All")
            && !write.contains("leases")
            && !write.contains("configmaps")
            && !write.contains("events");
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        let request =
            self.http.request(parts.method, format!("{}{path}", self.upstream)).headers(headers).body(body);
        let in_flight = counts.then(|| self.watches.write_begins());
        let answer = request.send().await;
        let (status, headers) = match &answer {
            Ok(answer) => (answer.status(), end_to_end(answer.headers().clone())),
            Err(_) => (StatusCode::BAD_GATEWAY, HeaderMap::new()),
        };
        if !counts {
            return match answer {
                Ok(answer) => (status, headers, Body::from_stream(answer.bytes_stream())).into_response(),
                Err(error) => (status, error.to_string()).into_response(),
            };
        }
        let body = match answer {
            Ok(answer) => answer.bytes().await.unwrap_or_default(),
            Err(_) => Bytes::new(),
        };
        self.watches.write_answered(&body);
        drop(in_flight);
        let write = if status.is_success() { write } else { format!("{write} {}", status.as_u16()) };
        self.lock().writes.push(write);
        (status, headers, body).into_response()
    }

    /// A watch, as its fault leaves it.
    async fn watch(&self, request: Request) -> Response {
        let uri = request.uri().clone();
        let resource = resource_of(uri.path());
        let version = parameter(&uri, "resourceVersion").and_then(|version| version.parse().ok());
        if self.watches.is_gone(&resource, uri.path(), version.unwrap_or_default()) {
            return json_answer(StatusCode::GONE, gone().to_string());
        }
        let (parts, body) = self.forward(request).await.into_parts();
        let events = faulty_body(Arc::clone(&self.watches), resource, body.into_data_stream());
        (parts.status, parts.headers, events).into_response()
    }

    /// A list, or an older answer to it.
    async fn list(&self, request: Request) -> Response {
        let resource = resource_of(request.uri().path());
        let accept = request.headers().get(header::ACCEPT).cloned();
        let key = format!("{} {accept:?}", request.uri());
        let (status, headers, body) = self.effect(request).await;
        let body = if status.is_success() { self.watches.list(&resource, key, body) } else { body };
        (status, headers, body).into_response()
    }

    /// The request's effect is complete once its answer is.
    async fn effect(&self, request: Request) -> (StatusCode, HeaderMap, Vec<u8>) {
        let answer = self.forward(request).await;
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
        (parts.status, parts.headers, body.to_vec())
    }
}

fn json_answer(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn parameter<'a>(uri: &'a http::Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Lengths and encodings are this connection's own.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::CONNECTION] {
        headers.remove(name);
    }
    headers
}

async fn handle(
    Shared(proxy): Shared<Arc<Proxy>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    if proxy.lock().frozen && !is_watch(&request) {
        proxy.has_frozen.send_replace(true);
        return std::future::pending().await;
    }
    let Some(fault) = proxy.fault_of(&request) else {
        return match resource_of(request.uri().path()).as_str() {
            _ if is_watch(&request) => proxy.watch(request).await,
            "boltzapikeys" | "secrets" if request.method() == Method::GET => proxy.list(request).await,
            _ => proxy.forward(request).await,
        };
    };
    let fire = || proxy.fired.send_replace(true);
    match fault {
        ApiFault::HoldBefore => {
            fire();
            std::future::pending().await
        }
        ApiFault::HoldAfter => {
            proxy.effect(request).await;
            fire();
            std::future::pending().await
        }
        ApiFault::HoldAnswer => {
            let mut released = proxy.released.subscribe();
            let (status, headers, body) = proxy.effect(request).await;
            fire();
            // The sender lives as long as this borrow of it.
            let _ = released.changed().await;
            (status, headers, body).into_response()
        }
        ApiFault::FreezeAfter => {
            let (status, headers, body) = proxy.effect(request).await;
            fire();
            (status, headers, body).into_response()
        }
        ApiFault::Cut => {
            fire();
            connection.cut().await
        }
        ApiFault::Lost => {
            proxy.effect(request).await;
            fire();
            connection.cut().await
        }
        ApiFault::Late(by) => {
            let sender = Arc::clone(&proxy);
            proxy.lock().late += 1;
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                sender.effect(request).await;
                sender.lock().late -= 1;
            });
            fire();
            connection.cut().await
        }
        ApiFault::Status(status) => {
            proxy.effect(request).await;
            fire();
            let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                "message": "a fault", "reason": if status == 429 { "TooManyRequests" } else { "ServiceUnavailable" },
            });
            json_answer(code, body.to_string())
        }
        ApiFault::Truncated => {
            let (status, headers, mut body) = proxy.effect(request).await;
            body.truncate(body.len() / 2);
            fire();
            (status, headers, body).into_response()
        }
        ApiFault::Foreign => {
            proxy.effect(request).await;
            fire();
            (StatusCode::OK, [(header::CONTENT_TYPE, "text/html")], "<html>").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resource_of;

    #[test]
    fn paths_name_their_resource() {
        for (path, resource) in [
            ("/api/v1/namespaces/team/secrets/key", "secrets/*"),
            ("/api/v1/namespaces/team/secrets", "secrets"),
            ("/api/v1/secrets", "secrets"),
            ("/api/v1/namespaces/kube-system", "namespaces/*"),
            ("/apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key", "boltzapikeys/*"),
            ("/apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key/status", "boltzapikeys/*/status"),
            ("/apis/apps/v1/namespaces/team/deployments/d", "deployments/*"),
            ("/healthz", ""),
        ] {
            assert_eq!(resource_of(path), resource, "{path}");
        }
    }
}

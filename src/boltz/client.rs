//! The client: one method per call, no retries, no redirects, limited time and size.

use super::{
    error::{BoltzError, SendError},
    proof::adoption_proof,
    request_id,
    response::{date, read_answer, read_refusal, retry_after, says_already},
    types::{AuthMe, CreateKeyRequest, CreatedKey, KeyDetails, KeyPage, Revocation},
};
use crate::{
    observability::metrics::Metrics,
    scrub::{REDACTED, without},
};
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Request, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout_at};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

const KEYS: &str = "/compute/v1/admin/api-keys";
/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const API_KEY: &str = "x-api-key";
const AUTH_ME: &str = "/compute/v1/auth/me";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response, in bytes. A full page of the list has about 50 KiB.
const MAX_BODY_SIZE: usize = 4 << 20;

/// Where Boltz is, whom to trust, and how long to wait.
#[derive(Clone, Debug)]
pub struct BoltzClientOptions {
    /// For example `https://api.boltz.bio`.
    pub base_url: String,
    /// PEM certificates of authorities that are trusted in addition to the public ones.
    pub extra_roots_pem: Option<Vec<u8>>,
    /// The limit of one call, from sending it to the last byte of the response.
    pub request_timeout: Duration,
}

/// The client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BoltzClientError {
    /// The additional root certificates are not PEM.
    #[error("--boltz-ca-file: must contain certificates in PEM format")]
    Roots(#[source] reqwest::Error),
    /// There are none.
    #[error("--boltz-ca-file: contains no certificate")]
    NoRoots,
    /// TLS or proxy settings are invalid.
    #[error("failed to create the Boltz client: {0}")]
    Build(#[source] reqwest::Error),
}

type Transport = BoxCloneSyncService<Request, Response, SendError>;

/// The admin API of one organization. Cheap to clone.
#[derive(Clone)]
pub struct BoltzClient {
    /// Replaced when other authorities are to be trusted.
    connections: Arc<watch::Sender<reqwest::Client>>,
    transport: Transport,
    base_url: String,
    request_timeout: Duration,
    admin_key: watch::Receiver<Option<SecretString>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for BoltzClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BoltzClient").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl BoltzClient {
    /// The address of the API, without a slash at its end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Uses the current admin key for each call.
    pub fn new(
        options: BoltzClientOptions,
        admin_key: watch::Receiver<Option<SecretString>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BoltzClientError> {
        let connections = Arc::new(watch::Sender::new(connections(options.extra_roots_pem.as_deref())?));
        let current = Arc::clone(&connections);
        let send = tower::service_fn(move |request| {
            let client = current.borrow().clone();
            async move { client.execute(request).await.map_err(SendError::from) }
        });
        Ok(Self {
            connections,
            transport: Transport::new(send),
            base_url: options.base_url.trim_end_matches('/').to_owned(),
            request_timeout: options.request_timeout,
            admin_key,
            metrics,
        })
    }

    /// Trusts these authorities, in addition to the public ones, from the next request on.
    pub fn replace_roots(&self, pem: &[u8]) -> Result<(), BoltzClientError> {
        self.connections.send_replace(connections(Some(pem))?);
        Ok(())
    }

    /// Sends requests to this service instead of the network.
    #[must_use]
    pub fn through<S>(self, service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = SendError> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self { transport: Transport::new(service), ..self }
    }

    /// Creates a key. Its value is returned only here. Not idempotent: see [`BoltzError::effect`].
    pub async fn create_key(
        &self,
        request: &CreateKeyRequest,
        timeout: Duration,
    ) -> Result<CreatedKey, BoltzError> {
        let call = self.request(Method::POST, KEYS).json(request);
        let timeout = timeout.min(self.request_timeout);
        let created: CreatedKey = self.send_within("create", call, timeout).await?;
        // An id that cannot be read is empty, and one that repeats the value is none. A value that is the admin key must
        // not get into a Secret.
        let value = created.key.expose_secret();
        let is_admin_key = value.contains(REDACTED)
            || self.admin_key.borrow().as_ref().is_some_and(|admin_key| value == admin_key.expose_secret());
        let details = &created.details;
        let repeats_value = details.id.contains(value)
            || details.workspace_id.as_ref().is_some_and(|workspace| workspace.contains(value));
        if value.is_empty() || is_admin_key || details.id.is_empty() || repeats_value {
            return Err(BoltzError::Unreadable);
        }
        Ok(created)
    }

    /// One page of the list of keys of all workspaces, after the key with this id, with at most so many rows. Without a
    /// limit, Boltz's default applies.
    pub async fn list_keys(&self, after_id: Option<&str>, limit: Option<u32>) -> Result<KeyPage, BoltzError> {
        let mut call = self.request(Method::GET, KEYS);
        if let Some(limit) = limit {
            call = call.query(&[("limit", limit)]);
        }
        if let Some(after_id) = after_id {
            call = call.query(&[("after_id", after_id)]);
        }
        self.send("list", call).await
    }

    /// Revokes a key. "Already revoked" and 404 are no errors: the caller decides what they mean.
    pub async fn revoke_key(&self, id: &str) -> Result<Revocation, BoltzError> {
        // The format of Boltz's ids is not known, and an id can come from an annotation: encode it as one segment of the
        // path. `.` and `..` cannot be encoded.
        if matches!(id, "" | "." | "..") {
            return Err(BoltzError::InvalidId);
        }
        let encoded = utf8_percent_encode(id, RESERVED);
        let call = self.request(Method::POST, &format!("{KEYS}/{encoded}/revoke"));
        match self.send::<KeyDetails>("revoke", call).await {
            // A 2xx response with `is_active: true`, or about another key, is no revocation.
            Ok(details) if details.is_active || !(details.id.is_empty() || details.id == id) => {
                Err(BoltzError::Unreadable)
            }
            Ok(details) => Ok(Revocation::Revoked(Box::new(details))),
            Err(BoltzError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(Revocation::NotFound),
            Err(BoltzError::Status {
                status: StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY,
                code,
                message,
                ..
            }) if says_already(&code) || says_already(&message) => Ok(Revocation::AlreadyRevoked),
            Err(error) => Err(error),
        }
    }

    /// Type, mode and organization of the admin key; `None` if the server does not have this call.
    pub async fn auth_me(&self) -> Result<Option<AuthMe>, BoltzError> {
        self.who_is(self.request(Method::GET, AUTH_ME)).await
    }

    /// The same of another key, if Boltz accepts it. Boltz may count this as use of the key.
    pub async fn auth_me_with(&self, key: &SecretString) -> Result<Option<AuthMe>, BoltzError> {
        let url = format!("{}{AUTH_ME}", self.base_url);
        let request = self.connections.borrow().request(Method::GET, url);
        let Ok(mut header) = HeaderValue::from_str(key.expose_secret()) else {
            return Err(BoltzError::InvalidId);
        };
        header.set_sensitive(true);
        self.who_is(request.header(API_KEY, header)).await
    }

    async fn who_is(&self, request: RequestBuilder) -> Result<Option<AuthMe>, BoltzError> {
        match self.send("auth_me", request).await {
            Ok(me) => Ok(Some(me)),
            Err(BoltzError::Status {
                status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What proves to this operator that it wrote itself that the object adopted that key. `None`: there is no admin key.
    pub(crate) fn adoption_proof(&self, object_uid: &str, key_id: &str) -> Option<String> {
        self.admin_key.borrow().as_ref().map(|key| adoption_proof(key, object_uid, key_id))
    }

    pub(super) fn has_no_admin_key(&self) -> bool {
        self.admin_key.borrow().is_none()
    }

    /// Changes when the admin key changes.
    pub(super) fn admin_key_changes(&self) -> watch::Receiver<Option<SecretString>> {
        let mut changes = self.admin_key.clone();
        changes.mark_unchanged();
        changes
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.connections.borrow().request(method, format!("{}{path}", self.base_url));
        let key = self.admin_key.borrow();
        // AdminKeySource returns only keys that are valid header values.
        let header = key.as_ref().and_then(|key| HeaderValue::from_str(key.expose_secret()).ok());
        match header {
            Some(mut header) => {
                header.set_sensitive(true);
                request.header(API_KEY, header)
            }
            // Without a key the response is a 401, which the caller handles.
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        metric: &'static str,
        request: RequestBuilder,
    ) -> Result<T, BoltzError> {
        self.send_within(metric, request, self.request_timeout).await
    }

    async fn send_within<T: DeserializeOwned>(
        &self,
        metric: &'static str,
        request: RequestBuilder,
        timeout: Duration,
    ) -> Result<T, BoltzError> {
        let started = Instant::now();
        let admin_key = self.admin_key.borrow().clone();
        let result = exchange(self.transport.clone(), request, timeout, admin_key, &self.metrics).await;
        let code = result
            .as_ref()
            .map_or_else(|error| error.metric_code(), |(status, _)| status.as_str().to_owned());
        self.metrics.boltz_call(metric, &code, started.elapsed());
        let (_, body) = result?;
        read_answer(&body)
    }
}

/// Connections that trust the public authorities and these.
fn connections(extra_roots_pem: Option<&[u8]>) -> Result<reqwest::Client, BoltzClientError> {
    // Built in, because an image from scratch has no root certificates, and reqwest then fails even for http.
    let mut roots: Vec<Certificate> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<_, _>>()
        .map_err(BoltzClientError::Build)?;
    if let Some(pem) = extra_roots_pem {
        let extra = Certificate::from_pem_bundle(pem).map_err(BoltzClientError::Roots)?;
        if extra.is_empty() {
            return Err(BoltzClientError::NoRoots);
        }
        roots.extend(extra);
    }
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("boltz-operator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(BoltzClientError::Build)
}

/// Sends one request and reads the complete response: the status and body of a 2xx, or an error. The timeout is enforced
/// here, so that it also covers a replaced transport (`through`).
async fn exchange(
    transport: Transport,
    request: RequestBuilder,
    timeout: Duration,
    admin_key: Option<SecretString>,
    metrics: &Metrics,
) -> Result<(StatusCode, Vec<u8>), BoltzError> {
    let failed = |error: SendError| match error {
        SendError::Connect(source) => BoltzError::Connect(source),
        SendError::Timeout => BoltzError::Timeout,
        SendError::Broken(source) => BoltzError::Transport(source),
    };
    let too_late = |_| BoltzError::Timeout;
    let deadline = tokio::time::Instant::now() + timeout;
    let request = request.build().map_err(|error| failed(error.into()))?;
    // Not always the admin key; and that may have changed meanwhile.
    let sent = request.headers().get(API_KEY).cloned();
    let answer = timeout_at(deadline, transport.oneshot(request)).await.map_err(too_late)?;
    let mut response = answer.map_err(failed)?;
    let status = response.status();
    let now = Timestamp::now();
    let date = date(response.headers());
    if let Some(date) = date {
        metrics.set_clock_skew(now.as_second() - date.as_second());
    }
    // A time to wait for is one of Boltz's clock.
    let retry_after = retry_after(response.headers(), date.unwrap_or(now));
    if let Some(wait) = retry_after {
        metrics.set_retry_after(wait);
    }
    let sent = sent.as_ref().and_then(|value| value.to_str().ok());
    let secrets = [sent.unwrap_or_default(), admin_key.as_ref().map_or("", |key| key.expose_secret())];
    request_id::note(response.headers(), &secrets);
    let mut body = Vec::new();
    loop {
        let chunk = match timeout_at(deadline, response.chunk()).await {
            Ok(chunk) => chunk.map_err(SendError::from),
            Err(_) => Err(SendError::Timeout),
        };
        match chunk {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY_SIZE => body.extend_from_slice(&chunk),
            Ok(None) => break,
            // The status is known even if the body is incomplete, or too long.
            Ok(Some(_)) | Err(_) if !status.is_success() => break,
            Ok(Some(_)) => return Err(BoltzError::Unreadable),
            // The request was sent, so this is never `Connect`.
            Err(SendError::Timeout) => return Err(BoltzError::Timeout),
            Err(SendError::Connect(source) | SendError::Broken(source)) => {
                return Err(BoltzError::Transport(source));
            }
        }
    }
    if status.is_success() {
        return Ok((status, without(body, &secrets)));
    }
    Err(read_refusal(status, retry_after, &body, &secrets))
}

//! What the tests talk with.

use boltz_emulator::{Emulator, Options, Settings};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

pub const KEYS: &str = "/compute/v1/admin/api-keys";
pub const ME: &str = "/compute/v1/auth/me";

/// An emulator and a client that knows its admin key.
pub struct TestEnv {
    pub emulator: Emulator,
    pub http: reqwest::Client,
}

impl TestEnv {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let emulator = Emulator::start(Options { settings, ..Options::default() }).await.unwrap();
        Self { emulator, http: http() }
    }

    /// A request with the admin key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_as(self.emulator.admin_key(), method, path)
    }

    pub fn request_as(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.emulator.base_url())).header("x-api-key", key)
    }

    pub fn create(&self, body: Json) -> RequestBuilder {
        self.request(Method::POST, KEYS).json(&body)
    }

    /// A key's plaintext and id.
    pub async fn created(&self, body: Json) -> (String, String) {
        let answer = ok(self.create(body)).await;
        (text(&answer["key"]), text(&answer["key_details"]["id"]))
    }

    pub async fn list(&self, query: &str) -> Json {
        ok(self.request(Method::GET, &format!("{KEYS}?{query}"))).await
    }

    pub fn revoke(&self, id: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("{KEYS}/{id}/revoke"))
    }

    pub fn me(&self, key: &str) -> RequestBuilder {
        self.request_as(key, Method::GET, ME)
    }

    /// A control request.
    pub async fn control(&self, method: Method, path: &str, body: Json) -> Response {
        let url = format!("{}/_emulator/{path}", self.emulator.base_url());
        send(self.http.request(method, url).json(&body)).await
    }
}

pub fn http() -> reqwest::Client {
    // reqwest wants a TLS provider even for http. Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .retry(reqwest::retry::never())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

pub fn text(value: &Json) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

pub async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

/// The body of a 200.
pub async fn ok(request: RequestBuilder) -> Json {
    let response = send(request).await;
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The status and code of a refusal, which has a message too.
pub async fn refused(request: RequestBuilder) -> (u16, String) {
    let response = send(request).await;
    let status = response.status().as_u16();
    let body: Json = response.json().await.unwrap();
    assert_ne!(body["message"], json!(""));
    (status, text(&body["code"]))
}

/// Waits, within reason, until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

//! Kubeconfig files, and clients made from them.

use crate::{certificates::Credential, control_plane::HarnessError};
use k8s_openapi::ByteString;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value as Json, json};
use std::path::Path;

/// Proves its identity by a client certificate.
pub fn certificate_user(credential: Credential) -> Json {
    json!({
        "client-certificate-data": ByteString(credential.certificate.into_bytes()),
        "client-key-data": ByteString(credential.key.into_bytes()),
    })
}

/// Proves its identity by a token of the API server's token file.
pub fn token_user(token: &str) -> Json {
    json!({"token": token})
}

/// The file's text. JSON is YAML.
pub fn render(server: &str, authority_pem: &str, user: &Json) -> String {
    let authority = ByteString(authority_pem.as_bytes().to_vec());
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "harness", "cluster": {
            "server": server,
            "certificate-authority-data": authority,
        }}],
        "users": [{"name": "harness", "user": user}],
        "contexts": [{"name": "harness", "context": {"cluster": "harness", "user": "harness"}}],
        "current-context": "harness",
    })
    .to_string()
}

/// A client from such a file.
pub async fn client(file: &Path) -> Result<Client, HarnessError> {
    let failed = |error: &dyn std::fmt::Display| HarnessError::Client(error.to_string());
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| failed(&error))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(&error))?;
    // The API server is on loopback.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| failed(&error))
}

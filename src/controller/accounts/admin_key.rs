//! The admin key of a `BoltzAccount`, from a Secret in the operator's namespace.

use crate::{
    api::AdminKeySecretRef,
    controller::Context,
    kubernetes::{client::SecretWithData, error::KubernetesError},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

/// Its first characters can be shown: they say of which kind it is.
const PREFIX_LENGTH: usize = 12;

/// Why there is no admin key.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminKeyError {
    #[error("cannot read Secret {name} in the operator's namespace: {error}")]
    Unreadable { name: String, error: KubernetesError },
    #[error("there is no Secret {0} in the operator's namespace")]
    NoSecret(String),
    #[error("Secret {name} in the operator's namespace has no key {key}, or it is empty")]
    NoKey { name: String, key: String },
    #[error("key {key} of Secret {name} contains characters that are not allowed in an HTTP header")]
    NoHeader { name: String, key: String },
}

/// Reads the key.
pub(super) async fn read(
    context: &Context,
    namespace: &str,
    reference: &AdminKeySecretRef,
) -> Result<SecretString, AdminKeyError> {
    let AdminKeySecretRef { name, key } = reference.clone();
    let secret = match context.kubernetes.get_secret(namespace, &name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return Err(AdminKeyError::NoSecret(name)),
        Err(error) => return Err(AdminKeyError::Unreadable { name, error }),
    };
    let data = SecretWithData::into_parts(secret).map(|(_, data)| data).unwrap_or_default();
    let bytes = data.get(&key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        return Err(AdminKeyError::NoKey { name, key });
    }
    if http::HeaderValue::from_str(text).is_err() {
        return Err(AdminKeyError::NoHeader { name, key });
    }
    Ok(SecretString::from(text))
}

/// Publishes the key, if it is another one. Returns whether it was.
pub(super) fn publish(key: &watch::Sender<Option<SecretString>>, read: Option<&SecretString>) -> bool {
    key.send_if_modified(|known| {
        let differs = known.as_ref().map(|key| key.expose_secret()) != read.map(|key| key.expose_secret());
        if differs {
            *known = read.cloned();
        }
        differs
    })
}

/// The first characters of the key. Of one that does not look like an admin key, none.
pub(super) fn prefix(key: &SecretString) -> Option<String> {
    let prefix: String = key.expose_secret().chars().take(PREFIX_LENGTH).collect();
    (prefix == "sk_bc_admin_").then_some(prefix)
}

//! Request and response bodies. Source: `docs/boltz-api.md`.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// The length of `key_prefix`, in characters.
const KEY_PREFIX_LENGTH: usize = 12;

/// The body of a create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateKeyRequest {
    /// Display name and marker.
    pub name: String,
    /// Empty: any address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<String>,
    /// Absent: never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
    /// Live or test.
    pub mode: KeyMode,
    /// Absent: the default workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
}

/// Mode of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyMode {
    /// Billed computations.
    Live,
    /// Synthetic data, free of charge.
    Test,
}

/// The response to a create. Deliberately without `Debug`, `Clone` and `Serialize`.
#[derive(Deserialize)]
pub struct CreatedKey {
    /// The value of the key. Boltz returns it only once.
    pub key: SecretString,
    /// Everything else about it.
    #[serde(rename = "key_details")]
    pub details: KeyDetails,
}

/// A key as Boltz lists it. Only the id is required. Otherwise one invalid row would make the whole pass fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyDetails {
    /// What a revocation names.
    pub id: String,
    /// When it was created.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
    /// Absent: never.
    #[serde(default, deserialize_with = "lenient")]
    pub expires_at: Option<Timestamp>,
    /// Whether Boltz accepts it. Whether this turns false on expiry is not known (`docs/boltz-api.md`). An invalid value
    /// counts as active.
    #[serde(default = "yes", deserialize_with = "lenient_yes")]
    pub is_active: bool,
    /// Its first 12 characters; may be the same for every key. Never more, whatever Boltz says: the rest is secret.
    #[serde(default, deserialize_with = "key_prefix")]
    pub key_prefix: String,
    /// False for test-mode keys.
    #[serde(default = "yes", deserialize_with = "lenient_yes")]
    pub livemode: bool,
    /// When it was last used.
    #[serde(default, deserialize_with = "lenient")]
    pub last_used_at: Option<Timestamp>,
    /// Display name and marker: the only field that the operator can write.
    #[serde(default, deserialize_with = "lenient")]
    pub name: String,
    /// Admin keys have none.
    #[serde(default, deserialize_with = "lenient")]
    pub workspace_id: Option<String>,
}

fn yes() -> bool {
    true
}

/// The value, or the default if it is invalid.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

fn key_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix: String = lenient(deserializer)?;
    Ok(prefix.chars().filter(|character| !character.is_control()).take(KEY_PREFIX_LENGTH).collect())
}

fn lenient_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    lenient::<D, Option<bool>>(deserializer).map(|value| value.unwrap_or(true))
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyPage {
    /// At most as many keys as were asked for.
    pub data: Vec<KeyDetails>,
    /// Whether there is a page after this one.
    pub has_more: bool,
    /// The cursor for it.
    #[serde(default, deserialize_with = "lenient")]
    pub last_id: Option<String>,
}

/// Result of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Boltz returned the key as inactive.
    Revoked(Box<KeyDetails>),
    /// Boltz reported that the key was already revoked.
    AlreadyRevoked,
    /// 404: Boltz does not know the key, or a gateway does not know the path.
    NotFound,
}

/// Type and mode of a key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthMe {
    /// `admin` or `workspace`.
    pub key_type: String,
    /// `live` or `test`.
    #[serde(default, deserialize_with = "lenient")]
    pub mode: Option<String>,
    /// The id of the key.
    #[serde(default, deserialize_with = "lenient")]
    pub api_key_id: Option<String>,
    /// The organization that the key belongs to.
    #[serde(default, deserialize_with = "lenient")]
    pub organization_id: Option<String>,
}

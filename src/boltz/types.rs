//! What goes over the wire. Source: Boltz's public "API Keys" reference page and its official SDKs.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// The body of a create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateKeyRequest {
    /// Display name and marker.
    pub name: String,
    /// Empty: from everywhere.
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

/// Live or test mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyMode {
    /// Computes for money.
    Live,
    /// Synthetic data at no cost.
    Test,
}

/// The answer to a create. Deliberately without `Debug`, `Clone` and `Serialize`.
#[derive(Deserialize)]
pub struct CreatedKey {
    /// The full key, shown only this once.
    pub key: SecretString,
    /// Everything else about it.
    #[serde(rename = "key_details")]
    pub details: KeyDetails,
}

/// A key as Boltz lists it. Only what identifies a key has to be there: one row that cannot be read would hide every
/// other one, because absence from a list counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyDetails {
    /// Its id.
    pub id: String,
    /// When it was created.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
    /// Absent: never.
    #[serde(default, deserialize_with = "lenient")]
    pub expires_at: Option<Timestamp>,
    /// Whether Boltz takes it. Whether this turns false on expiry is not known. What cannot be read counts as active.
    #[serde(default = "yes", deserialize_with = "lenient_yes")]
    pub is_active: bool,
    /// Its first 12 characters; may be the same for every key.
    #[serde(default, deserialize_with = "lenient")]
    pub key_prefix: String,
    /// False for test keys.
    #[serde(default = "yes", deserialize_with = "lenient_yes")]
    pub livemode: bool,
    /// When it was last used.
    #[serde(default, deserialize_with = "lenient")]
    pub last_used_at: Option<Timestamp>,
    /// The only free text that a key carries.
    #[serde(default)]
    pub name: String,
    /// Admin keys have none.
    #[serde(default, deserialize_with = "lenient")]
    pub workspace_id: Option<String>,
}

fn yes() -> bool {
    true
}

/// The value, or its default when it cannot be read.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

fn lenient_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    lenient::<D, Option<bool>>(deserializer).map(|value| value.unwrap_or(true))
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyPage {
    /// The keys.
    pub data: Vec<KeyDetails>,
    /// Whether there is a page after this one.
    pub has_more: bool,
    /// The cursor for it.
    #[serde(default)]
    pub last_id: Option<String>,
}

/// What came of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Boltz revoked it now, or says again that it is revoked.
    Revoked(Box<KeyDetails>),
    /// Boltz says that it had revoked it before.
    AlreadyRevoked,
    /// 404. Boltz does not know the key, or a gateway did not find the way.
    NotFound,
}

/// Who a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthMe {
    /// `admin` or `workspace`.
    pub key_type: String,
    /// `live` or `test`.
    #[serde(default)]
    pub mode: Option<String>,
}

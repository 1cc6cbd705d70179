//! Request and response bodies. Source: `docs/boltz-api.md`.

use crate::{protocol::is_id, scrub::REDACTED};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error, SeqAccess, Visitor},
};
use std::fmt;

/// Longer words of Boltz count as absent. They are written to annotations, conditions and the log.
const MAX_WORD_LENGTH: usize = 128;
/// A page with more rows cannot be read. Small rows take fifty times as much memory as their text.
const MAX_ROWS: usize = 10_000;
/// How the value of each key begins (`docs/boltz-api.md`).
const VALUE_PREFIX: &str = "sk_bc_";
/// The length of `key_prefix`, in characters.
const KEY_PREFIX_LENGTH: usize = 12;

/// The body of `POST /compute/v1/admin/api-keys`.
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
    /// What computations with the key cost.
    pub mode: KeyMode,
    /// Absent: the default workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
}

/// `live` and `test` in Boltz's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyMode {
    /// Boltz computes, and bills the organization.
    Live,
    /// Boltz returns synthetic data, free of charge.
    Test,
}

/// The response to a create. Deliberately without `Debug`, `Clone` and `Serialize`.
#[derive(Deserialize)]
pub struct CreatedKey {
    /// The value of the key. Boltz returns it only once.
    pub key: SecretString,
    /// The same fields as in the list, the name with the marker among them.
    #[serde(rename = "key_details")]
    pub details: KeyDetails,
}

/// A key as Boltz lists it. Nothing is required. Otherwise one invalid row would make the whole pass fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyDetails {
    /// What a revocation names. Empty: absent, or not one that can be repeated.
    #[serde(default, deserialize_with = "id")]
    pub id: String,
    /// By Boltz's clock. Absent: Boltz did not say, or not in RFC 3339.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
    /// By Boltz's clock. Absent: the key never expires.
    #[serde(default, deserialize_with = "lenient")]
    pub expires_at: Option<Timestamp>,
    /// Whether Boltz accepts it. Whether this turns false on expiry is not known (`docs/boltz-api.md`). An invalid value
    /// counts as active.
    #[serde(default = "yes", deserialize_with = "lenient_yes")]
    pub is_active: bool,
    /// Its first 12 characters; may be the same for every key. Never more, whatever Boltz says: the rest is secret.
    #[serde(default, deserialize_with = "key_prefix")]
    pub key_prefix: String,
    /// False for test-mode keys. Absent: Boltz did not say.
    #[serde(default, deserialize_with = "lenient")]
    pub livemode: Option<bool>,
    /// By Boltz's clock. Absent: the key was not used yet, or Boltz did not say.
    #[serde(default, deserialize_with = "lenient")]
    pub last_used_at: Option<Timestamp>,
    /// Display name and marker: the only field that the operator can write.
    #[serde(default, deserialize_with = "lenient")]
    pub name: String,
    /// Admin keys have none.
    #[serde(default, deserialize_with = "word")]
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

/// A word that can be repeated: short, printable, not like a key. Anything else counts as absent.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = lenient(deserializer)?;
    Ok(text.filter(|text| text.chars().count() <= MAX_WORD_LENGTH && is_repeatable(text)))
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text: String = lenient(deserializer)?;
    let is_printable = text.chars().all(|character| character.is_ascii_graphic());
    Ok(Some(text).filter(|text| is_printable && is_id(text) && is_repeatable(text)).unwrap_or_default())
}

fn id_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    id(deserializer).map(|id| Some(id).filter(|id| !id.is_empty()))
}

fn key_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_word = text.chars().count() <= MAX_WORD_LENGTH && is_repeatable(&text);
    Ok(if is_word { text } else { "unknown".to_owned() })
}

/// Whether the text is not the value of a key. The admin key was replaced already. `scrub` suspects more, but a random id can
/// look like a part of a key by chance, and one id that counts as absent makes every pass fail.
fn is_repeatable(text: &str) -> bool {
    !text.contains(char::is_control) && !text.starts_with(VALUE_PREFIX) && !text.contains(REDACTED)
}

fn lenient_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    lenient::<D, Option<bool>>(deserializer).map(|value| value.unwrap_or(true))
}

fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyDetails>, D::Error> {
    struct Rows;
    impl<'de> Visitor<'de> for Rows {
        type Value = Vec<KeyDetails>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MAX_ROWS} keys")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut rows = Vec::new();
            while let Some(row) = sequence.next_element()? {
                if rows.len() == MAX_ROWS {
                    return Err(A::Error::invalid_length(MAX_ROWS + 1, &self));
                }
                rows.push(row);
            }
            Ok(rows)
        }
    }
    deserializer.deserialize_seq(Rows)
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyPage {
    /// At most as many keys as were asked for.
    #[serde(deserialize_with = "rows")]
    pub data: Vec<KeyDetails>,
    /// Whether there is a page after this one.
    pub has_more: bool,
    /// The `after_id` of the request for the next page.
    #[serde(default, deserialize_with = "id_or_none")]
    pub last_id: Option<String>,
}

/// What a revocation that did not fail says of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Boltz returned the key as inactive.
    Revoked(Box<KeyDetails>),
    /// Boltz reported that the key was already revoked.
    AlreadyRevoked,
    /// 404: Boltz does not know the key, or a gateway does not know the path.
    NotFound,
}

/// What Boltz says of the key with which `auth/me` was called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthMe {
    /// `admin` or `workspace`.
    #[serde(deserialize_with = "key_type")]
    pub key_type: String,
    /// `live` or `test`.
    #[serde(default, deserialize_with = "word")]
    pub mode: Option<String>,
    /// Compared with the id in the record, before a stored value counts as that key.
    #[serde(default, deserialize_with = "id_or_none")]
    pub api_key_id: Option<String>,
    /// The organization that the key belongs to.
    #[serde(default, deserialize_with = "word")]
    pub organization_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_repeated_is_absent() {
        let (long, longer) = ("x".repeat(128), "x".repeat(257));
        for (text, as_id, as_word) in [
            ("key_1", true, true),
            (long.as_str(), true, true),
            (longer.as_str(), false, false),
            ("", false, true),
            ("two words", false, true),
            ("line\nbreak", false, false),
            ("\u{1b}[31m", false, false),
            ("sk_bc_ws_live_0123456789", false, false),
            ("key_c2sTCuWCsogILSm7yVTE", true, true),
            ("key_c2stCuWCsogILSm7yVTE", true, true),
            ("V1StGXR8-sk_5jdHi6Bmyt", true, true),
            ("sk-5jdHi6BmytV1StGXR8", true, true),
        ] {
            let row = json!({"id": text, "workspace_id": text});
            let row: KeyDetails = serde_json::from_value(row).unwrap();
            assert_eq!(
                (row.id == text && !text.is_empty(), row.workspace_id.is_some()),
                (as_id, as_word),
                "{text}"
            );
            let page = json!({"data": [], "has_more": true, "last_id": text});
            assert_eq!(serde_json::from_value::<KeyPage>(page).unwrap().last_id.is_some(), as_id, "{text}");
            let me = json!({"key_type": text, "organization_id": text, "api_key_id": text, "mode": text});
            let me: AuthMe = serde_json::from_value(me).unwrap();
            let words = [me.organization_id.is_some(), me.mode.is_some(), me.key_type == text];
            assert_eq!((me.api_key_id.is_some(), words), (as_id, [as_word; 3]), "{text}");
        }
        assert!(serde_json::from_value::<AuthMe>(json!({})).is_err());
        let nothing: KeyDetails = serde_json::from_value(json!({"name": "n"})).unwrap();
        assert_eq!((nothing.id.as_str(), nothing.livemode, nothing.is_active), ("", None, true));
        let odd: KeyDetails = serde_json::from_value(json!({"livemode": null})).unwrap();
        assert_eq!(odd.livemode, None, "a key of either mode may have been requested");
    }
}

//! The ConfigMap in which the operator publishes orphans, reads requests to revoke some of them, and writes what came of
//! each. Who may see orphans, and who may ask, is decided by the rights on this ConfigMap. It contains no secrets.
//!
//! Several installations may share it, so each key of its data begins with the name of the cluster. The name of a
//! `BoltzAccount` follows, if the keys are not of the account of the flags.

use crate::{
    boltz::account_data::of_account,
    duration::parse_duration,
    protocol::{account_name::AccountName, is_id, marker::ClusterName},
};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Maximum number of orphans that are published, and of keys in a request.
pub const MAX_ORPHANS: usize = 100;
/// Maximum length of the id of a request.
const MAX_REQUEST_ID: usize = 64;

/// The name of the ConfigMap.
pub fn config_map_name(lease_name: &str) -> String {
    format!("{lease_name}-orphans")
}

/// The key of the published [`OrphanList`].
pub fn list_key(cluster: &ClusterName, account: &AccountName) -> String {
    of_account(account, &format!("{cluster}.orphans"))
}

/// Reads what [`list_key`] wrote. `None`: the key is of something else.
pub fn read_list_key(key: &str) -> Option<(ClusterName, AccountName)> {
    let names = key.strip_suffix(".orphans")?;
    let (cluster, account) = match names.split_once('.') {
        Some((cluster, account)) => (cluster, AccountName::named(account)),
        None => (names, AccountName::OF_FLAGS),
    };
    let cluster = cluster.parse().ok()?;
    (list_key(&cluster, &account) == key).then_some((cluster, account))
}

/// The key of the [`RevocationRequest`].
pub fn request_key(cluster: &ClusterName, account: &AccountName) -> String {
    of_account(account, &format!("{cluster}.revoke"))
}

/// The key of the [`RevocationResponse`].
pub fn response_key(cluster: &ClusterName, account: &AccountName) -> String {
    of_account(account, &format!("{cluster}.revoked"))
}

/// The orphans of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanList {
    /// How many there are. More than are listed if there are more than [`MAX_ORPHANS`].
    pub count: usize,
    /// The oldest first, at most [`MAX_ORPHANS`].
    pub orphans: Vec<PublishedOrphan>,
}

/// An active key that no BoltzApiKey and no Secret refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedOrphan {
    /// Boltz's id of the key.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// First characters of the key.
    pub key_prefix: String,
    /// The `BoltzAccount` of the key. Absent: the account of the operator's flags.
    #[serde(default, skip_serializing_if = "AccountName::is_of_flags")]
    pub account: AccountName,
    /// The object in the key's name: the first 64 bits of its UID.
    pub object: String,
    /// The attempt in the key's name.
    pub attempt: String,
    /// Since when the operator has known it as an orphan.
    pub orphaned_since: Timestamp,
    /// When it expires. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The day on which it was last used, in UTC. Not the time, which changes with every use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_on: Option<Date>,
}

/// Asks the operator to revoke orphans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationRequest {
    /// A new one for each request.
    pub id: String,
    /// The ids of the keys.
    #[serde(rename = "keyIDs")]
    pub key_ids: Vec<String>,
    /// Only keys that have been orphans for longer than this are revoked.
    pub older_than: String,
}

impl RevocationRequest {
    /// Reads the text. `None` if it is no request.
    pub(super) fn parse(text: &str) -> Option<(Self, Duration)> {
        let request: Self = serde_json::from_str(text).ok()?;
        let older_than = parse_duration(&request.older_than).ok()?;
        let is_bounded = request.id.len() <= MAX_REQUEST_ID
            && request.key_ids.len() <= MAX_ORPHANS
            && request.key_ids.iter().all(|id| is_id(id));
        is_bounded.then_some((request, older_than))
    }
}

/// Whether it began less than this age ago. A time in the future is young.
pub(super) fn is_younger(since: Timestamp, now: Timestamp, age: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|known| known < age) || now < since
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationResponse {
    /// The id of the request.
    pub request: String,
    /// For each key, what came of it.
    pub results: BTreeMap<String, RevocationResult>,
}

/// What came of the request to revoke one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationResult {
    /// Whether the key is revoked.
    pub is_revoked: bool,
    /// The reason, if it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl RevocationResult {
    pub(super) fn revoked() -> Self {
        Self { is_revoked: true, message: String::new() }
    }

    pub(super) fn not_revoked(message: impl Into<String>) -> Self {
        Self { is_revoked: false, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_bounded() {
        let request = |id: &str, count: usize, older_than: &str| {
            let request = RevocationRequest {
                id: id.to_owned(),
                key_ids: (0..count).map(|index| index.to_string()).collect(),
                older_than: older_than.to_owned(),
            };
            serde_json::to_string(&request).unwrap()
        };
        let (read, older_than) = RevocationRequest::parse(&request("1", 100, "24h")).unwrap();
        assert_eq!((read.key_ids.len(), older_than), (100, Duration::from_secs(24 * 3600)));
        for text in [
            request("1", 101, "24h"),
            request(&"1".repeat(65), 1, "24h"),
            request("1", 1, "soon"),
            String::new(),
            "[]".to_owned(),
        ] {
            assert_eq!(RevocationRequest::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_key_of_a_list_names_its_account() {
        let cluster: ClusterName = "prod".parse().unwrap();
        for (account, key) in [
            (AccountName::OF_FLAGS, "prod.orphans"),
            (AccountName::named("a"), "prod.a.orphans"),
            (AccountName::named("a.orphans"), "prod.a.orphans.orphans"),
        ] {
            assert_eq!(list_key(&cluster, &account), key);
            assert_eq!(read_list_key(key), Some((cluster.clone(), account)));
        }
        for other in
            ["orphans", ".orphans", "prod.revoke", "prod..orphans", "prod.A.orphans", "pr od.orphans"]
        {
            assert_eq!(read_list_key(other), None, "{other}");
        }
    }

    #[test]
    fn a_time_in_the_future_is_young() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let hour = Duration::from_secs(3600);
        for (since, is_young) in [(0, false), (1, true), (4000, true)] {
            assert_eq!(is_younger(at(since), at(3600), hour), is_young, "{since}");
        }
        assert!(!is_younger(at(5), at(5), Duration::ZERO));
    }
}

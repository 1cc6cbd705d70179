//! The status of a `BoltzApiKey`. Its doc comments become `kubectl explain`, too.

use super::workload::{RestartStatus, RolloutRestartTarget};
use crate::protocol::{
    account_name::MAX_ACCOUNT_NAME, is_id, record::MAX_PREVIOUS_READ, secret_data::is_sha256,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use std::collections::HashSet;

/// The operator writes three conditions. Others may add some.
const MAX_CONDITIONS_READ: usize = 64;
/// The maximum of the CRD.
const MAX_RESTART_TARGETS: usize = 32;

/// Observed state of the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoltzApiKeyStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` is True while the Secret contains a valid key. `Reconciling` and `Stalled` follow the kstatus convention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Boltz's id of the key.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,

    /// The BoltzAccount of the object's keys. Absent: the account of the operator's flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_name: Option<String>,

    /// First characters of the key. Different keys can have the same prefix; use keyID to identify a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,

    /// The SHA-256 of the key's value in hexadecimal digits. It tells whose a leaked value is, without the Secret.
    #[serde(default, rename = "valueSHA256", skip_serializing_if = "Option::is_none")]
    pub value_sha256: Option<String>,

    /// Whether Boltz accepts the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,

    /// False for test-mode keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livemode: Option<bool>,

    /// The workspace of the key, as reported by Boltz.
    #[serde(default, rename = "workspaceID", skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,

    /// When Boltz created the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,

    /// When the key expires. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When a key of this object was last used, the present one or one before it. Updated at most once a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,

    /// When the operator will replace the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,

    /// The rotation window in which the operator will replace the key. Absent without `spec.rotation.window`, or if the
    /// rotation cannot wait for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_window: Option<RotationWindowStatus>,

    /// The Secret that contains the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// How many times the key has been replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotations: Option<i64>,

    /// When the key was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,

    /// Why the key was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_reason: Option<String>,

    /// Previous keys that are still valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_keys: Vec<PreviousKeyStatus>,

    /// Workloads of `rolloutRestartTargets` that were not yet restarted for the current key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub pending_restarts: Vec<RolloutRestartTarget>,

    /// Workloads of `rolloutRestartTargets` that were restarted for the current key, and how far their rollouts are.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub restarts: Vec<RestartStatus>,
}

/// Without the entries that only a later release can read: they must not make the whole status unreadable.
fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let entries = Vec::<serde_json::Value>::deserialize(deserializer)?;
    Ok(entries.into_iter().filter_map(|entry| T::deserialize(entry).ok()).collect())
}

impl BoltzApiKeyStatus {
    /// The status without the transition times of its conditions.
    #[must_use]
    pub(crate) fn without_transition_times(&self) -> Self {
        let mut status = self.clone();
        for condition in &mut status.conditions {
            condition.last_transition_time = Time(jiff::Timestamp::UNIX_EPOCH);
        }
        status
    }

    /// The status as far as it is read: users can write more.
    #[must_use]
    pub(crate) fn bounded(mut self) -> Self {
        self.key_id = self.key_id.filter(|id| is_id(id));
        self.account_name = self.account_name.filter(|name| name.len() <= MAX_ACCOUNT_NAME);
        self.value_sha256 = self.value_sha256.filter(|hash| is_sha256(hash));
        let mut seen = HashSet::new();
        self.previous_keys.retain(|previous| is_id(&previous.key_id) && seen.insert(previous.key_id.clone()));
        self.previous_keys.truncate(MAX_PREVIOUS_READ);
        self.conditions.truncate(MAX_CONDITIONS_READ);
        self.pending_restarts.truncate(MAX_RESTART_TARGETS);
        self.restarts.truncate(MAX_RESTART_TARGETS);
        self
    }

    /// Whether no operator has written it yet: it is absent, or the default of the CRD. Operators write no condition that
    /// is Unknown.
    pub fn is_untouched(&self) -> bool {
        let mut ready = self.conditions.iter().filter(|condition| condition.type_ == "Ready");
        self.observed_generation.is_none() && ready.all(|condition| condition.status == "Unknown")
    }

    /// Whether the condition `Ready` is True.
    pub(crate) fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    /// Whether it names the key, as current or previous.
    pub fn names(&self, key_id: &str) -> bool {
        self.key_id.as_deref() == Some(key_id)
            || self.previous_keys.iter().any(|previous| previous.key_id == key_id)
    }
}

/// A rotation window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RotationWindowStatus {
    /// When it opens.
    pub start: Time,
    /// When it closes.
    pub end: Time,
}

/// A previous key that is still valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKeyStatus {
    /// Boltz's id of the key.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// First characters of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// When the overlap ends. The key is revoked then, or before that with `UntilRolledOut`.
    pub revoke_after: Time,
    /// When the key was last used. Updated at most once a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}

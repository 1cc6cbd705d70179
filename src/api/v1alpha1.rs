//! The `BoltzApiKey` resource: its types, its admission rules, its printed columns. No I/O.
//!
//! The doc comments of the fields become `kubectl explain`, so they are written for the person who applies manifests.

// kube's printed columns share their parameters' names, as they must.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A workspace key of the Boltz API, created, stored in a Secret, rotated and revoked by boltz-operator.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "boltz.bio",
    version = "v1alpha1",
    kind = "BoltzApiKey",
    plural = "boltzapikeys",
    shortname = "bak",
    category = "boltz",
    namespaced,
    status = "BoltzApiKeyStatus",
    derive = "PartialEq",
    doc = "A workspace key of the Boltz API: created through Boltz's admin API, stored in a Secret that workloads mount, rotated before it expires, revoked when the object is deleted.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Active", type_ = "boolean", json_path = ".status.isActive"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".status.keyPrefix"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Mode", type_ = "string", priority = 1, json_path = ".spec.mode"),
    printcolumn(name = "Workspace", type_ = "string", priority = 1, json_path = ".status.workspaceID"),
    printcolumn(name = "Renewal", type_ = "string", priority = 1, json_path = ".status.renewalTime"),
    printcolumn(name = "Last-Used", type_ = "string", priority = 1, json_path = ".status.lastUsedAt"),
    printcolumn(name = "ID", type_ = "string", priority = 1, json_path = ".status.keyID")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.expiresInDays) || !has(self.rotation) || !has(self.rotation.renewBefore) || !self.rotation.renewBefore.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') || duration(self.rotation.renewBefore).getSeconds() < self.expiresInDays * 86400").message("rotation.renewBefore must be shorter than the life of the key (expiresInDays)").field_path(".rotation.renewBefore")
)]
pub struct BoltzApiKeySpec {
    /// A name for the people who look at the keys in Boltz's console. The operator appends a marker by which it
    /// recognises its keys, and cuts this text so that both fit in 64 characters. Changing it has an effect from the
    /// next rotation on. Default: <namespace>/<name>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub display_name: Option<String>,

    /// The Boltz workspace that the key belongs to. Default: the default workspace of the organization. A change
    /// issues a new key.
    #[serde(default, rename = "workspaceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[!-~]*$"))]
    pub workspace_id: Option<String>,

    /// `live` keys compute for money; `test` keys create test-mode resources with synthetic data at no cost.
    /// A change issues a new key.
    #[serde(default)]
    pub mode: Mode,

    /// The IPv4 and IPv6 addresses from which the key may be used. Empty: from everywhere. A change of the set
    /// issues a new key; the order does not matter.
    #[serde(default, rename = "allowedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 45)))]
    #[x_kube(validation = Rule::new("self.all(address, isIP(address))").message("each entry must be an IPv4 or IPv6 address, without a prefix length"))]
    pub allowed_ips: Vec<String>,

    /// How many days the key lives, from 1 to 36500. Absent: it never expires. A change issues a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub expires_in_days: Option<u32>,

    /// When the key is replaced, and how long the old one lives on.
    #[serde(default)]
    pub rotation: RotationSpec,

    /// The Secret that holds the key.
    #[serde(default)]
    pub secret: SecretSpec,

    /// Workloads in the same namespace that are restarted after a rotation, as `kubectl rollout restart` does it: for
    /// those that read the key from an environment variable, which does not change under a running container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rollout_restart_targets: Vec<RolloutRestartTarget>,

    /// `Revoke` revokes the keys when the object is deleted; `Retain` keeps key and Secret. The annotation
    /// `boltz.bio/deletion-policy` overrides it: the way out when Boltz cannot be reached any more.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Stops issuing and rotating. Deletion still works, and keys whose overlap is over are still revoked.
    #[serde(default)]
    pub suspend: bool,
}

impl BoltzApiKeySpec {
    /// The name of the Secret that it asks for: by default that of the object.
    pub fn secret_name<'a>(&'a self, object_name: &'a str) -> &'a str {
        self.secret.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(object_name)
    }
}

/// Live or test mode of a key, in Boltz's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Computes for money.
    #[default]
    Live,
    /// Synthetic data at no cost.
    Test,
}

/// When a key is replaced, and how long the old one lives on.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))").message("renewBefore and renewBeforePercentage exclude each other: give one of them"))]
pub struct RotationSpec {
    /// How long before its expiry a key is replaced, for example `720h`. Must be shorter than the life of the key.
    /// Every object renews up to a tenth of this earlier, so that keys made together do not renew together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) > duration('0s')").message("must be a positive duration such as 90s, 30m or 720h"))]
    pub renew_before: Option<String>,

    /// The same as a percentage of the life of the key: 25 replaces a key of 40 days 10 days before it expires.
    /// Default, when neither is given: a third of the life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub renew_before_percentage: Option<u8>,

    /// Replaces the key this often even if it does not expire, for example `2160h`. `0s`: never.
    #[serde(default = "zero")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('0s')").message("must be a duration such as 90s, 30m or 720h; 0s for never"))]
    pub interval: String,

    /// How long the old key lives on after the new one is stored: the time in which every workload must have picked
    /// up the new one.
    #[serde(default = "a_day")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('0s')").message("must be a duration such as 90s, 30m or 24h"))]
    pub overlap: String,

    /// `Strict` revokes the old key at the end of the overlap. `UntilIdle` waits for Boltz to report no more use of
    /// it, at most until it expires.
    #[serde(default)]
    pub overlap_policy: OverlapPolicy,
}

fn zero() -> String {
    "0s".to_owned()
}

fn a_day() -> String {
    "24h".to_owned()
}

impl Default for RotationSpec {
    fn default() -> Self {
        Self {
            renew_before: None,
            renew_before_percentage: None,
            interval: zero(),
            overlap: a_day(),
            overlap_policy: OverlapPolicy::default(),
        }
    }
}

/// What happens to an old key that is still used at the end of its overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverlapPolicy {
    /// It is revoked all the same.
    #[default]
    Strict,
    /// It is revoked when it has fallen idle.
    UntilIdle,
}

/// The Secret that holds the key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// The name of the Secret. Default: the name of this object. The Secret must not exist yet; after a change the
    /// same key moves to the new Secret and the old Secret is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == '' || !format.dns1123Subdomain().validate(self).hasValue()").message("must be a DNS-1123 subdomain: lower-case letters, digits, '-' and '.'"))]
    pub name: Option<String>,

    /// The key within the Secret's data under which the API key is stored.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,

    /// Labels and annotations for the Secret.
    #[serde(default, skip_serializing_if = "SecretTemplate::is_empty")]
    pub template: SecretTemplate,
}

fn default_secret_key() -> String {
    "BOLTZ_API_KEY".to_owned()
}

impl Default for SecretSpec {
    fn default() -> Self {
        Self { name: None, key: default_secret_key(), template: SecretTemplate::default() }
    }
}

/// Labels and annotations that the Secret carries.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new("self.all(name, !name.startsWith('boltz.bio/'))").message("labels under boltz.bio/ are the operator's own"),
        validation = Rule::new("self.all(name, !format.qualifiedName().validate(name).hasValue())").message("each name must be a qualified name, such as team or example.com/team"),
        validation = Rule::new("self.all(name, self[name].size() <= 63 && !format.labelValue().validate(self[name]).hasValue())").message("each value must be a label value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends")
    )]
    pub labels: BTreeMap<String, String>,

    /// Annotations for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new("self.all(name, !name.startsWith('boltz.bio/'))").message("annotations under boltz.bio/ are the operator's own"),
        validation = Rule::new("self.all(name, !format.qualifiedName().validate(name.lowerAscii()).hasValue())").message("each name must be a qualified name, such as team or example.com/team")
    )]
    pub annotations: BTreeMap<String, String>,
}

impl SecretTemplate {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// A workload that is restarted after a rotation.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRestartTarget {
    /// The kind of the workload.
    pub kind: WorkloadKind,
    /// The name of the workload, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()").message("must be the name of a workload: a DNS-1123 subdomain"))]
    pub name: String,
}

impl std::fmt::Display for RolloutRestartTarget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", <&str>::from(self.kind), self.name)
    }
}

/// The kinds of workload that can be restarted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 DaemonSet.
    DaemonSet,
}

/// What happens to the keys when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are revoked.
    #[default]
    Revoke,
    /// They stay, and so does the Secret.
    Retain,
}

/// What the operator reports about the key. A view that can be rebuilt: the truth is the record on the Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoltzApiKeyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` is True while a working key is in the Secret. `Reconciling` and `Stalled` are as kstatus wants them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The id of the key at Boltz.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,

    /// The first characters of the key. They may be the same for many keys: use keyID to tell keys apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,

    /// Whether Boltz takes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,

    /// False for keys in test mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livemode: Option<bool>,

    /// The workspace of the key, as Boltz answered it.
    #[serde(default, rename = "workspaceID", skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,

    /// When Boltz created the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,

    /// When the key expires. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When the key was last used, to about a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,

    /// When the operator will replace the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,

    /// The Secret that holds the key.
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

    /// Older keys that still work, and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_keys: Vec<PreviousKeyStatus>,

    /// Workloads of `rolloutRestartTargets` that are still to be restarted for the current key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restarts: Vec<RolloutRestartTarget>,
}

impl BoltzApiKeyStatus {
    /// What it says, whenever its conditions came to be so.
    #[must_use]
    pub fn without_transition_times(&self) -> Self {
        let mut status = self.clone();
        for condition in &mut status.conditions {
            condition.last_transition_time = Time(jiff::Timestamp::UNIX_EPOCH);
        }
        status
    }

    /// Whether it names the key, as current or previous.
    pub fn names(&self, key_id: &str) -> bool {
        self.key_id.as_deref() == Some(key_id)
            || self.previous_keys.iter().any(|previous| previous.key_id == key_id)
    }
}

/// An older key that still works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKeyStatus {
    /// The id of the key at Boltz.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The first characters of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// When the overlap ends and the key is revoked.
    pub revoke_after: Time,
    /// When the key was last used, to about a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}

//! The `BoltzAccount` resource: an admin key of one Boltz organization, and who may use it for what. No I/O.
//!
//! The doc comments of the fields become `kubectl explain`, so they are written for the person who applies manifests.

// The printed columns repeat parameter names.
#![allow(clippy::duplicated_attributes)]

use super::v1alpha1::Mode;
use crate::duration::parse_duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An admin key of one Boltz organization, and who may use it for what.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "boltz.bio",
    version = "v1alpha1",
    kind = "BoltzAccount",
    plural = "boltzaccounts",
    shortname = "bac",
    category = "boltz",
    status = "BoltzAccountStatus",
    derive = "PartialEq",
    doc = "An admin key of one Boltz organization, and which namespaces may use it for what. The operator creates, rotates and revokes the keys of BoltzApiKeys with it.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Organization", type_ = "string", json_path = ".status.organizationID"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.keys.current"),
    printcolumn(name = "Previous", type_ = "integer", json_path = ".status.keys.previous"),
    printcolumn(name = "Orphaned", type_ = "integer", json_path = ".status.keys.orphaned"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Suspect",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Suspect\")].status"
    ),
    printcolumn(name = "Foreign", type_ = "integer", priority = 1, json_path = ".status.keys.foreign"),
    printcolumn(name = "Secret", type_ = "string", priority = 1, json_path = ".spec.adminKeySecretRef.name"),
    printcolumn(name = "URL", type_ = "string", priority = 1, json_path = ".spec.baseURL")
)]
#[serde(rename_all = "camelCase")]
pub struct BoltzAccountSpec {
    /// The Secret with the admin key, in the operator's namespace: a tenant's namespace can go, and its keys can still be
    /// revoked. When the Secret changes, the operator uses the new key without a restart.
    pub admin_key_secret_ref: AdminKeySecretRef,

    /// The address of the Boltz API. Other addresses than that of the operator must be allowed by its flag
    /// `--allowed-boltz-urls`. It cannot be changed.
    #[serde(default = "boltz", rename = "baseURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("baseURL cannot be changed: the keys of this account are there"))]
    pub base_url: String,

    /// Which namespaces may use the account, by their labels. Absent: none. Empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// The workspaces in which keys may be.
    #[serde(default)]
    pub workspaces: AccountWorkspaces,

    /// The modes that keys may have.
    #[serde(default = "all_modes")]
    #[schemars(length(min = 1, max = 2))]
    pub modes: Vec<Mode>,

    /// Limits of the keys.
    #[serde(default)]
    pub keys: AccountKeys,

    /// What to do with orphaned keys: active keys of this cluster that no BoltzApiKey and no Secret refers to. `Report` lists
    /// them in the status, `Revoke` also revokes them after `orphanGrace`.
    #[serde(default)]
    pub orphan_policy: AccountOrphanPolicy,

    /// How long a key must be orphaned before it is revoked.
    #[serde(default = "an_hour")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) > duration('0s')").message("must be a positive duration such as 30m or 24h"))]
    pub orphan_grace: String,

    /// How often the full list of keys is read from Boltz.
    #[serde(default = "ten_minutes")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('1s')").message("must be a duration of at least 1s, such as 10m"))]
    pub inventory_interval: String,
}

impl BoltzAccountSpec {
    /// Whether objects may retain their keys.
    pub fn allows_retain(&self) -> bool {
        let is_limited = self.keys.max_per_namespace.is_some();
        !is_limited && self.keys.allow_retain.unwrap_or(true)
    }

    /// How long a key must be orphaned before it is revoked.
    pub fn orphan_grace(&self) -> Duration {
        parse_duration(&self.orphan_grace).unwrap_or(Duration::from_secs(3600))
    }

    /// How often the list is read. At most once a second, also if no CRD checks the field.
    pub fn inventory_interval(&self) -> Duration {
        parse_duration(&self.inventory_interval)
            .unwrap_or(Duration::from_secs(600))
            .max(Duration::from_secs(1))
    }
}

fn boltz() -> String {
    "https://api.boltz.bio".to_owned()
}

fn all_modes() -> Vec<Mode> {
    vec![Mode::Live, Mode::Test]
}

fn an_hour() -> String {
    "1h".to_owned()
}

fn ten_minutes() -> String {
    "10m".to_owned()
}

/// A key of a Secret in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdminKeySecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()").message("must be a DNS-1123 subdomain: lower-case letters, digits, '-' and '.'"))]
    pub name: String,

    /// Key in the Secret's data.
    #[serde(default = "admin_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn admin_key() -> String {
    "admin-key".to_owned()
}

/// The workspaces in which keys may be.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.allowed) || size(self.allowed) == 0 || !has(self.default) || self.default == '' || self.default in self.allowed").message("must be one of workspaces.allowed").field_path(".default")
)]
pub struct AccountWorkspaces {
    /// The ids of the workspaces. Empty: all, also Boltz's default workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128), regex(pattern = r"^[!-~]+$")))]
    pub allowed: Vec<String>,

    /// The workspace of keys whose object names none. Default: Boltz's default workspace. A change issues no new keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[!-~]*$"))]
    pub default: Option<String>,
}

/// Limits of the keys. A limit that becomes narrower revokes nothing: objects that violate it say so, and get no new key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxPerNamespace) || !has(self.allowRetain) || !self.allowRetain").message("must be false with maxPerNamespace: retained keys would not count").field_path(".allowRetain")
)]
pub struct AccountKeys {
    /// The longest lifetime in days. Keys that never expire exceed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub max_expires_in_days: Option<u32>,

    /// Whether each key must expire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_expiry: bool,

    /// How many live keys the BoltzApiKeys of one namespace may have together: current ones, and previous ones in their
    /// overlap. A key that replaces one that expires, is not valid any more or has leaked is always issued. With this limit, no
    /// key can be retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_namespace: Option<u32>,

    /// How many keys may be created per minute. Default: `--max-mints-per-minute` of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_mints_per_minute: Option<u32>,

    /// Whether `deletionPolicy: Retain` may keep keys of deleted objects. If not, they are revoked, whatever the object and
    /// its annotation say. Default: true, or false with maxPerNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_retain: Option<bool>,
}

/// What to do with orphaned keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccountOrphanPolicy {
    /// List them in the status.
    #[default]
    Report,
    /// Revoke them after the grace.
    Revoke,
}

/// Maximum number of orphans in the status.
pub const MAX_LISTED_ORPHANS: usize = 100;

/// Observed state of the account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoltzAccountStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: keys can be issued and revoked. `AdminKeyValid`: Boltz accepts the admin key. `InventoryCurrent`: Boltz's list
    /// of keys was read recently. `Suspect`: the list lacks so many keys that their absence is not believed, or Boltz changes
    /// the names of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The organization of the admin key, as Boltz says.
    #[serde(default, rename = "organizationID", skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,

    /// First characters of the admin key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_key_prefix: Option<String>,

    /// When the admin key expires, if Boltz tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_key_expires_at: Option<Time>,

    /// How many active keys Boltz's list shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<AccountKeyCounts>,

    /// Active keys of this cluster that no BoltzApiKey and no Secret refers to, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub orphans: Vec<AccountOrphan>,
}

/// How many active keys Boltz's list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountKeyCounts {
    /// Keys that are current in a Secret.
    pub current: u32,
    /// Keys in their overlap, and others of BoltzApiKeys that will be revoked.
    pub previous: u32,
    /// Keys of this cluster that nothing refers to.
    pub orphaned: u32,
    /// Keys without this cluster's marker.
    pub foreign: u32,
}

/// An active key that no BoltzApiKey and no Secret refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountOrphan {
    /// Boltz's id of the key.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The machine-readable end of its name at Boltz: cluster, object and attempt.
    pub name: String,
    /// When Boltz created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it was last used. Updated at most once a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// Since when the operator has known it as an orphan.
    pub orphaned_since: Time,
}

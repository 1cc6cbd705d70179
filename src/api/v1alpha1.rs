//! The `BoltzApiKey` resource: its spec, its admission rules, its printed columns. No I/O.
//!
//! The doc comments of the fields become `kubectl explain`, so they are written for the person who applies manifests.

// The printed columns repeat parameter names.
#![allow(clippy::duplicated_attributes)]

use super::{status::BoltzApiKeyStatus, workload::RolloutRestartTarget};
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
    doc = "A workspace key of the Boltz API. The operator creates the key, stores it in a Secret, rotates it before it expires, and revokes it when the object is deleted.",
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
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Renewal", type_ = "string", json_path = ".status.renewalTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Prefix", type_ = "string", priority = 1, json_path = ".status.keyPrefix"),
    printcolumn(name = "Active", type_ = "boolean", priority = 1, json_path = ".status.isActive"),
    printcolumn(name = "ID", type_ = "string", priority = 1, json_path = ".status.keyID"),
    printcolumn(name = "Account", type_ = "string", priority = 1, json_path = ".status.accountName"),
    printcolumn(name = "Mode", type_ = "string", priority = 1, json_path = ".spec.mode"),
    printcolumn(name = "Workspace", type_ = "string", priority = 1, json_path = ".status.workspaceID"),
    printcolumn(name = "Last-Used", type_ = "string", priority = 1, json_path = ".status.lastUsedAt")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.expiresInDays) || !has(self.rotation) || !has(self.rotation.renewBefore) || !self.rotation.renewBefore.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') || duration(self.rotation.renewBefore).getSeconds() < self.expiresInDays * 86400").message("rotation.renewBefore must be shorter than the lifetime of the key (expiresInDays)").field_path(".rotation.renewBefore"),
    validation = Rule::new("!has(self.rotation) || !has(self.rotation.overlapPolicy) || self.rotation.overlapPolicy != 'UntilRolledOut' || (has(self.rolloutRestartTargets) && size(self.rolloutRestartTargets) > 0)").message("UntilRolledOut needs at least one entry in rolloutRestartTargets").field_path(".rotation.overlapPolicy")
)]
pub struct BoltzApiKeySpec {
    /// Name of the key in Boltz's console. The operator appends a marker that identifies the key, and shortens this
    /// text so that both fit in 64 characters. A change takes effect with the next rotation. Default:
    /// `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub display_name: Option<String>,

    /// The BoltzAccount with which the key is created. Default: the account of the operator's installation. It cannot be changed
    /// once a key was requested: create a new object instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_ref: Option<AccountRef>,

    /// The Boltz workspace of the key. Default: the default workspace of the organization. A change issues a new key.
    #[serde(default, rename = "workspaceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[!-~]*$"))]
    pub workspace_id: Option<String>,

    /// `live` keys run billed computations. `test` keys create test-mode resources with synthetic data, free of
    /// charge. A change issues a new key.
    #[serde(default)]
    pub mode: Mode,

    /// IPv4 and IPv6 addresses from which the key can be used. Empty: any address. A change issues a new key; the
    /// order does not matter.
    #[serde(default, rename = "allowedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 45)))]
    #[x_kube(validation = Rule::new("self.all(address, isIP(address))").message("each entry must be an IPv4 or IPv6 address, without a prefix length"))]
    pub allowed_ips: Vec<String>,

    /// Lifetime of the key in days, from 1 to 36500. Absent: the key never expires. A change issues a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub expires_in_days: Option<u32>,

    /// When the key is replaced, and how long the old key stays valid.
    #[serde(default)]
    pub rotation: RotationSpec,

    /// The Secret that contains the key.
    #[serde(default)]
    pub secret: SecretSpec,

    /// Workloads in the same namespace to restart after each rotation, as `kubectl rollout restart` does; also after a
    /// first key that replaced the value of a Secret. List workloads that read the key from an environment variable: a
    /// running container does not see the new value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rollout_restart_targets: Vec<RolloutRestartTarget>,

    /// What happens when the object is deleted. `Revoke` revokes its keys. `Retain` keeps the keys and the Secret. The
    /// annotation `boltz.bio/deletion-policy` overrides this field, for example when Boltz is no longer reachable.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// If true, no key is issued or rotated. Old keys are still revoked at the end of their overlap, and the object can
    /// be deleted. The annotation `boltz.bio/paused: "true"` stops more: also revocations and restarts.
    #[serde(default)]
    pub suspend: bool,
}

impl BoltzApiKeySpec {
    /// The name of the Secret. Default: the name of the object.
    pub fn secret_name<'a>(&'a self, object_name: &'a str) -> &'a str {
        self.secret.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(object_name)
    }
}

/// A BoltzAccount.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountRef {
    /// Name of the BoltzAccount.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()").message("must be a DNS-1123 subdomain: lower-case letters, digits, '-' and '.'"))]
    pub name: String,
}

/// Mode of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Billed computations.
    #[default]
    Live,
    /// Synthetic data, free of charge.
    Test,
}

/// When the key is replaced, and how long the old key stays valid.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))").message("set only one of renewBefore and renewBeforePercentage"))]
pub struct RotationSpec {
    /// How long before it expires the key is replaced, for example `720h`. Must be shorter than the lifetime of the
    /// key. To spread load, each object renews up to 10% of this time earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) > duration('0s')").message("must be a positive duration such as 90s, 30m or 720h"))]
    pub renew_before: Option<String>,

    /// Like renewBefore, as a percentage of the lifetime: with 25, a key with a lifetime of 40 days is replaced 10 days
    /// before it expires. If neither is set, the key is replaced after two thirds of its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub renew_before_percentage: Option<u8>,

    /// Replaces the key at this interval even if it does not expire, for example `2160h`. At least `1h`; `0s` turns this
    /// off.
    #[serde(default = "zero")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('0s')").message("must be a duration such as 90s, 30m or 720h; 0s for never"),
        validation = Rule::new("!self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') || duration(self) == duration('0s') || duration(self) >= duration('1h') || oldSelf.orValue('') == self").message("must be at least 1h; 0s for never").optional_old_self(true)
    )]
    pub interval: String,

    /// How long the old key stays valid after the new key is stored. All workloads must load the new key within this
    /// time.
    #[serde(default = "a_day")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('0s')").message("must be a duration such as 90s, 30m or 24h"))]
    pub overlap: String,

    /// `Strict` revokes the old key at the end of the overlap. `UntilIdle` waits until Boltz reports that the old key
    /// is no longer used and the restarts have ended, or until it expires. `UntilRolledOut` revokes it at the end of the
    /// overlap or, before that, when all rolloutRestartTargets have new pods and Boltz reports that it is no longer used.
    #[serde(default)]
    pub overlap_policy: OverlapPolicy,

    /// When rotations that can wait may begin: the renewal of a key that has enough time left, `interval`, and the
    /// annotation `boltz.bio/rotate`. All other rotations, and first keys, do not wait. Default: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<RotationWindow>,
}

/// A time that comes again and again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// When the window opens, as in a CronJob: minute, hour, day of the month, month, day of the week. `0 2 * * 6` is every
    /// Saturday at two in the night, `@weekly` every Sunday at midnight.
    #[schemars(
        length(max = 128),
        regex(
            pattern = r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9A-Za-z*?/,-]+( +[0-9A-Za-z*?/,-]+){4})$"
        )
    )]
    pub schedule: String,

    /// How long the window stays open, at least `10m`. Each object begins at a time of its own in the first three quarters.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms))+$') && duration(self) >= duration('10m')").message("must be a duration of at least 10m, such as 30m or 3h"))]
    pub duration: String,

    /// Name of the schedule's time zone in the IANA database, for example `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: String,
}

fn utc() -> String {
    "Etc/UTC".to_owned()
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
            window: None,
        }
    }
}

/// When an old key is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverlapPolicy {
    /// At the end of the overlap.
    #[default]
    Strict,
    /// After the overlap, when it is no longer used.
    UntilIdle,
    /// At the end of the overlap, or before it when all restarts have ended and it is no longer used.
    UntilRolledOut,
}

/// The type of a Secret that asks for no other.
pub const DEFAULT_SECRET_TYPE: &str = "Opaque";
/// Types that begin so make the API server or other programs act on the Secret: with them, a tenant could have the operator
/// create other credentials. The rule of `type` says the same in CEL.
const RESERVED_TYPES: [&str; 3] = ["kubernetes.io/", "bootstrap.kubernetes.io/", "helm.sh/"];

/// The Secret that contains the key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.data) || !(self.key in self.data)").message("data must not have the entry that secret.key names").field_path(".data")
)]
pub struct SecretSpec {
    /// Name of the Secret. Default: the name of this object. A Secret with this name must not exist yet, unless `adopt` is
    /// true. A change moves the key to the new Secret and deletes the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == '' || !format.dns1123Subdomain().validate(self).hasValue()").message("must be a DNS-1123 subdomain: lower-case letters, digits, '-' and '.'"))]
    pub name: Option<String>,

    /// Key in the Secret's data that contains the API key.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,

    /// Further entries of the Secret's data: texts in which `$(key)` stands for the API key, `$(keyID)`, `$(workspaceID)`,
    /// `$(expiresAt)` and `$(mode)` for what Boltz says of it, and `$(baseURL)` for the address of Boltz's API. As in the
    /// arguments of a container, `$$(key)` is the text `$(key)`, and other references stay as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 8192}))]
    pub data: BTreeMap<String, String>,

    /// Type of the Secret. Default: `Opaque`. Types that begin with `kubernetes.io/`, `bootstrap.kubernetes.io/` or
    /// `helm.sh/` are not allowed. A change is possible only together with a change of `name`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._/a-zA-Z0-9]+$"))]
    #[x_kube(validation = Rule::new("!['kubernetes.io/', 'bootstrap.kubernetes.io/', 'helm.sh/'].exists(prefix, self.startsWith(prefix))").message("types of Kubernetes and Helm are not allowed"))]
    pub type_: Option<String>,

    /// Labels and annotations of the Secret.
    #[serde(default, skip_serializing_if = "SecretTemplate::is_empty")]
    pub template: SecretTemplate,

    /// If true, a Secret that exists already is taken over: a new key replaces its value. The Secret must consent with the
    /// annotation `boltz.bio/adoptable-by: <name of this object>`. It must have the type that `type` says, no owner, and must
    /// not be immutable. Only an object that has no Secret yet adopts one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

fn default_secret_key() -> String {
    "BOLTZ_API_KEY".to_owned()
}

impl Default for SecretSpec {
    fn default() -> Self {
        Self {
            name: None,
            key: default_secret_key(),
            data: BTreeMap::new(),
            type_: None,
            template: SecretTemplate::default(),
            adopt: false,
        }
    }
}

/// Whether a Secret of this type makes others act on it.
pub fn is_reserved_type(kind: &str) -> bool {
    RESERVED_TYPES.iter().any(|reserved| kind.starts_with(*reserved))
}

impl SecretSpec {
    /// Whether its type is allowed. The CRD's rule rejects others, so an error occurs only with an older CRD.
    pub(crate) fn check_type(&self) -> Result<(), String> {
        let kind = self.type_.as_deref().unwrap_or_default();
        match RESERVED_TYPES.iter().find(|reserved| kind.starts_with(**reserved)) {
            Some(reserved) => Err(format!("spec.secret.type must not begin with {reserved}")),
            None => Ok(()),
        }
    }

    /// The entries of `data` whose names the API server accepts in a Secret. The CRD cannot check names of a map: they have
    /// no maximum length, so a rule over them exceeds the cost budget.
    pub(crate) fn usable_data(&self) -> BTreeMap<&str, &str> {
        let entries = self.data.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        entries.filter(|(name, _)| is_data_name(name)).collect()
    }

    /// Why an entry of `data` cannot be used.
    pub(crate) fn data_error(&self) -> Option<String> {
        let name = self.data.keys().find(|name| !is_data_name(name))?;
        Some(format!(
            "spec.secret.data: the name {name:?} must have 1 to 253 characters from a-z, A-Z, 0-9, '-', '_' and '.'. The \
             Secret does not get this entry."
        ))
    }
}

/// As the API server checks the names in a Secret's data.
fn is_data_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&name.len()) && name.bytes().all(is_plain) && name != "." && !name.starts_with("..")
}

/// Labels and annotations of the Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = label_value()))]
    #[x_kube(validation = Rule::new("self.all(name, !name.startsWith('boltz.bio/'))").message("labels with the prefix boltz.bio/ are reserved for the operator"))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("self.all(name, !name.startsWith('boltz.bio/'))").message("annotations with the prefix boltz.bio/ are reserved for the operator"))]
    pub annotations: BTreeMap<String, String>,
}

/// The values that the API server accepts for labels. A schema and not a CEL rule: names of a map have no maximum length,
/// so a rule over them exceeds the cost budget.
fn label_value() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    })
}

impl SecretTemplate {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// What happens to the keys when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Revoke the keys.
    #[default]
    Revoke,
    /// Keep the keys and the Secret.
    Retain,
}

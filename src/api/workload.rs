//! The workloads that are restarted after a rotation: what the spec and the status say of them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A workload to restart after a rotation.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRestartTarget {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()").message("must be a DNS-1123 subdomain"))]
    pub name: String,
}

impl std::fmt::Display for RolloutRestartTarget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", <&str>::from(self.kind), self.name)
    }
}

/// Kinds of workloads that can be restarted.
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

/// A restart of a workload, and how far its rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartStatus {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    pub name: String,
    /// The key that the workload has to load.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// How far the rollout was when the operator looked last. `Restarted`: the pod template was changed. `Progressing`: pods
    /// are being replaced. `Done`: all pods are new, and available. `Paused`: the workload is paused, or its update strategy
    /// is OnDelete or has a partition. `Failed`: it makes no progress, does not exist, or its pod template was changed back.
    pub state: RestartState,
    /// Why the rollout does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl RestartStatus {
    /// Whether it is the restart of this workload for that key.
    pub fn is_of(&self, target: &RolloutRestartTarget, key_id: &str) -> bool {
        (self.kind, &self.name) == (target.kind, &target.name) && self.key_id == key_id
    }
}

/// How far the rollout of a restarted workload is, as the status says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum RestartState {
    /// The pod template was changed. The controller of the workload has not begun, or the workload could not be read.
    Restarted,
    /// Pods are being replaced.
    Progressing,
    /// All pods were created after the rotation, and are available.
    Done,
    /// It waits for a person: the workload is paused, or its update strategy is OnDelete or has a partition.
    Paused,
    /// It made no progress within its deadline, the workload is missing, or its pod template was changed back.
    Failed,
}

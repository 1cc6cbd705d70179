//! What the rollout of a restarted workload means, by what the API server shows of it.

use crate::api::{RestartState, annotations::RESTARTED_FOR_ANNOTATION};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// What Kubernetes takes if the pod template does not say it.
const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(30);

/// So much of what others wrote is repeated.
const LONGEST_MESSAGE: usize = 512;

/// How far the rollout of a restarted workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// The pod template was changed. The controller has not seen it yet.
    Restarted,
    /// Pods are being replaced.
    Progressing,
    /// All pods are new, and available. Pods that are being ended may still run for that time.
    Done(Duration),
    /// It waits for a person, who is told why.
    Paused(String),
    /// It made no progress within its deadline.
    Failed(String),
    /// The pod template does not name the key any more: old pods may have stayed, or come back.
    ChangedBack,
    /// The workload does not exist, so it uses no key.
    Missing,
    /// It could not be read.
    Unreadable(String),
}

impl Rollout {
    /// State and message for the status.
    pub fn told(&self) -> (RestartState, Option<String>) {
        match self {
            Self::Restarted => (RestartState::Restarted, None),
            Self::Progressing => (RestartState::Progressing, None),
            Self::Done(_) => (RestartState::Done, None),
            Self::Paused(why) => (RestartState::Paused, Some(why.clone())),
            Self::Failed(why) => (RestartState::Failed, Some(why.clone())),
            Self::ChangedBack => {
                let why = format!(
                    "The annotation {RESTARTED_FOR_ANNOTATION} of its pod template does not name the key: something \
                     changed it after the restart, or it was not restarted."
                );
                (RestartState::Failed, Some(why))
            }
            Self::Missing => (RestartState::Failed, Some("It does not exist.".to_owned())),
            Self::Unreadable(why) => (RestartState::Restarted, Some(format!("It cannot be read: {why}."))),
        }
    }

    /// Whether nothing that happens to the workload later changes it for this key.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::ChangedBack | Self::Missing)
    }
}

/// A Deployment, StatefulSet or DaemonSet, as far as it shows its rollout.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Workload {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    generation: i64,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    /// A DaemonSet has none.
    replicas: Option<i64>,
    paused: bool,
    template: Template,
    /// Of StatefulSets and DaemonSets.
    update_strategy: UpdateStrategy,
    ordinals: Ordinals,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    termination_grace_period_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UpdateStrategy {
    #[serde(rename = "type")]
    type_: String,
    rolling_update: RollingUpdate,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RollingUpdate {
    partition: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    available_replicas: i64,
    /// Of Deployments, since Kubernetes 1.33.
    terminating_replicas: i64,
    /// Of DaemonSets, which have it always.
    desired_number_scheduled: Option<i64>,
    updated_number_scheduled: i64,
    number_available: i64,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    reason: String,
    message: String,
}

impl Workload {
    /// How far the rollout is by which its pods load that key.
    pub fn rollout(&self, key_id: &str) -> Rollout {
        let Self { metadata, spec, status } = self;
        let annotations = &spec.template.metadata.annotations;
        if annotations.get(RESTARTED_FOR_ANNOTATION).is_none_or(|restarted_for| restarted_for != key_id) {
            return Rollout::ChangedBack;
        }
        // What is written there is of an older template.
        let is_observed = status.observed_generation >= metadata.generation;
        let is_done = match status.desired_number_scheduled {
            Some(desired) => status.updated_number_scheduled >= desired && status.number_available >= desired,
            None => {
                let wanted = spec.replicas.unwrap_or(1);
                status.updated_replicas >= wanted
                    && status.replicas <= status.updated_replicas
                    && status.available_replicas >= status.updated_replicas
                    && status.terminating_replicas == 0
            }
        };
        if is_observed && is_done {
            let grace = spec.template.spec.termination_grace_period_seconds;
            return Rollout::Done(grace.map_or(DEFAULT_GRACE_PERIOD, Duration::from_secs));
        }
        if let Some(why) = spec.paused_because() {
            return Rollout::Paused(why);
        }
        if !is_observed {
            return Rollout::Restarted;
        }
        let has_failed = |condition: &&Condition| {
            (condition.type_.as_str(), condition.reason.as_str()) == DEADLINE_EXCEEDED
        };
        match status.conditions.iter().find(has_failed) {
            Some(condition) => Rollout::Failed(condition.message.chars().take(LONGEST_MESSAGE).collect()),
            None => Rollout::Progressing,
        }
    }
}

/// Type and reason of the condition of a Deployment that makes no progress.
const DEADLINE_EXCEEDED: (&str, &str) = ("Progressing", "ProgressDeadlineExceeded");

impl Spec {
    /// Why the controller does not replace all pods by itself.
    fn paused_because(&self) -> Option<String> {
        let partition = self.update_strategy.rolling_update.partition;
        if self.paused {
            Some("spec.paused is true: its pods are not replaced.".to_owned())
        } else if self.update_strategy.type_ == "OnDelete" {
            Some("The update strategy is OnDelete: only pods that somebody deletes are replaced.".to_owned())
        } else if partition > self.ordinals.start {
            Some(format!(
                "The update strategy has the partition {partition}: pods with lower numbers are not replaced."
            ))
        } else {
            None
        }
    }
}

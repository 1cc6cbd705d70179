//! The calls that the operator makes, and how to bring it to make them.

use super::outcome::Target;
use crate::test_env::TestEnv;
use boltz_emulator::{Effect, Fault, Operation, Outcome as Answer};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::PostParams};
use serde_json::json;

/// What is going on when the call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// An object is new.
    Create,
    /// A rotation is asked for.
    Rotate,
    /// A rotation is over, and the old key's overlap ends.
    EndOfOverlap,
    /// The process comes back after a POST whose answer was lost.
    Recover,
    /// An object with a current and a previous key is deleted.
    Delete,
    /// The Secret gets another name.
    Move,
    /// A rotation restarts a workload.
    Restart,
}

/// One call: a row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub name: &'static str,
    pub scenario: Scenario,
    pub target: Target,
}

const fn api(
    name: &'static str,
    scenario: Scenario,
    method: &'static str,
    resource: &'static str,
    dry_run: bool,
) -> Call {
    Call { name, scenario, target: Target::Api(method, resource, dry_run) }
}

const fn boltz(name: &'static str, scenario: Scenario, operation: Operation, skip: u32) -> Call {
    Call { name, scenario, target: Target::Boltz(operation, skip) }
}

pub const CALLS: [Call; 29] = [
    api("C0 dry run", Scenario::Create, "POST", "secrets", true),
    api("C1 attempt", Scenario::Create, "PATCH", "boltzapikeys/*", false),
    boltz("C2 POST", Scenario::Create, Operation::Create, 0),
    api("C3 Secret", Scenario::Create, "POST", "secrets", false),
    api("C4 status", Scenario::Create, "PATCH", "boltzapikeys/*/status", false),
    api("R0 dry run", Scenario::Rotate, "PATCH", "secrets/*", true),
    api("R1 attempt", Scenario::Rotate, "PATCH", "boltzapikeys/*", false),
    boltz("R2 POST", Scenario::Rotate, Operation::Create, 0),
    api("R3 Secret", Scenario::Rotate, "PATCH", "secrets/*", false),
    api("R4 status", Scenario::Rotate, "PATCH", "boltzapikeys/*/status", false),
    api("R5 live read, object", Scenario::EndOfOverlap, "GET", "boltzapikeys/*", false),
    api("R5 live read, Secret", Scenario::EndOfOverlap, "GET", "secrets/*", false),
    boltz("R5 revoke", Scenario::EndOfOverlap, Operation::Revoke, 0),
    api("R6 status", Scenario::EndOfOverlap, "PATCH", "boltzapikeys/*/status", false),
    boltz("recover: list", Scenario::Recover, Operation::List, 0),
    api("recover: second attempt", Scenario::Recover, "PATCH", "boltzapikeys/*", false),
    boltz("recover: second POST", Scenario::Recover, Operation::Create, 0),
    api("recover: live read, object", Scenario::Recover, "GET", "boltzapikeys/*", false),
    api("recover: live read, Secret", Scenario::Recover, "GET", "secrets/*", false),
    boltz("recover: revoke the stray", Scenario::Recover, Operation::Revoke, 0),
    boltz("D1 revoke the first", Scenario::Delete, Operation::Revoke, 0),
    boltz("D1 revoke the second", Scenario::Delete, Operation::Revoke, 1),
    api("D1 live read, object", Scenario::Delete, "GET", "boltzapikeys/*", false),
    api("D1 live read, Secret", Scenario::Delete, "GET", "secrets/*", false),
    api("D2 drop the finalizer", Scenario::Delete, "PATCH", "boltzapikeys/*", false),
    api("move: read the old Secret", Scenario::Move, "GET", "secrets/*", false),
    api("move: write the new Secret", Scenario::Move, "POST", "secrets", false),
    api("move: delete the old Secret", Scenario::Move, "DELETE", "secrets/*", false),
    api("restart the workload", Scenario::Restart, "PATCH", "deployments/*", false),
];

impl Scenario {
    /// Brings everything to where the call comes next but for the trigger.
    pub async fn prepare(self, env: &mut TestEnv) -> Result<(), String> {
        match self {
            Self::Create => {}
            Self::Rotate | Self::Move => ready(env, json!({"rotation": {"overlap": "1s"}})).await?,
            Self::EndOfOverlap => {
                ready(env, json!({"rotation": {"overlap": "6s"}})).await?;
                rotated(env).await?;
            }
            Self::Recover => {
                // Often enough for a test that is held up itself, and sees the first only when the operator has given up.
                env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Answer::Hold).times(9));
                env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
                boltz_harness::eventually(crate::test_env::PATIENCE, "the POST is held", async || {
                    if env.emulator.held() > 0 { Ok(()) } else { Err("not yet") }
                })
                .await?;
                env.operator.kill();
                env.emulator.clear_faults();
            }
            Self::Delete => {
                ready(env, json!({"rotation": {"overlap": "1h"}})).await?;
                rotated(env).await?;
            }
            Self::Restart => {
                let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
                let deployment = serde_json::from_value(json!({
                    "metadata": {"name": "workload"},
                    "spec": {
                        "selector": {"matchLabels": {"app": "workload"}},
                        "template": {
                            "metadata": {"labels": {"app": "workload"}},
                            "spec": {"containers": [{"name": "main", "image": "registry.example/workload:1"}]},
                        },
                    },
                }))
                .unwrap();
                deployments
                    .create(&PostParams::default(), &deployment)
                    .await
                    .map_err(|error| error.to_string())?;
                let targets = json!([{"kind": "Deployment", "name": "workload"}]);
                ready(env, json!({"rotation": {"overlap": "1s"}, "rolloutRestartTargets": targets})).await?;
            }
        }
        Ok(())
    }

    /// Makes the operator act.
    pub async fn trigger(self, env: &mut TestEnv) -> Result<(), String> {
        match self {
            Self::Create => drop(env.create("key", json!({"rotation": {"overlap": "1s"}})).await),
            Self::Rotate | Self::Restart => env.annotate("key", "boltz.bio/rotate", "1").await,
            // Time does it.
            Self::EndOfOverlap => {}
            Self::Recover => env.operator.restart().map_err(|error| error.to_string())?,
            Self::Delete => env.delete("key").await,
            Self::Move => drop(env.patch("key", json!({"spec": {"secret": {"name": "moved"}}})).await),
        }
        Ok(())
    }

    /// How many POSTs it takes without a fault.
    pub fn posts(self) -> usize {
        match self {
            Self::Create | Self::Move => 1,
            Self::Rotate | Self::EndOfOverlap | Self::Recover | Self::Delete | Self::Restart => 2,
        }
    }

    /// How many writes to the API server it takes without a fault, dry runs aside: three for each key, one at the end of
    /// an overlap, and what is written for the scenario itself.
    pub fn writes(self) -> usize {
        match self {
            Self::Create => 3,
            // Secret created, status, old one deleted.
            Self::Move => 6,
            Self::Rotate | Self::EndOfOverlap => 7,
            // One attempt without a key, which was written before the crash.
            Self::Recover => 4,
            // The finalizer.
            Self::Delete => 7,
            Self::Restart => 8,
        }
    }
}

async fn ready(env: &TestEnv, spec: serde_json::Value) -> Result<(), String> {
    env.create("key", spec).await;
    env.ready("key").await;
    Ok(())
}

async fn rotated(env: &TestEnv) -> Result<(), String> {
    env.annotate("key", "boltz.bio/rotate", "1").await;
    env.until("key", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
    })
    .await;
    Ok(())
}

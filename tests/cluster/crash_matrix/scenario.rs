//! The calls that the operator makes, and how to bring it to make them.

use super::outcome::{Outcome, Target};
use crate::test_env::{TestEnv, workload};
use boltz_emulator::{Effect, Fault, Operation, Outcome as Answer};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{ops::RangeInclusive, time::Duration};

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
    /// The Secret of an object that is gone is adopted.
    Adopt,
}

/// One call: a row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub name: &'static str,
    /// How many writes the worst of its outcomes costs: an attempt without a key, a refused write, a status that says what
    /// is wrong and one that it is over.
    more_writes: usize,
    pub scenario: Scenario,
    pub target: Target,
}

const fn api(
    name: &'static str,
    more_writes: usize,
    scenario: Scenario,
    method: &'static str,
    resource: &'static str,
    dry_run: bool,
) -> Call {
    Call { name, more_writes, scenario, target: Target::Api(method, resource, dry_run) }
}

const fn boltz(
    name: &'static str,
    more_writes: usize,
    scenario: Scenario,
    operation: Operation,
    skip: u32,
) -> Call {
    Call { name, more_writes, scenario, target: Target::Boltz(operation, skip) }
}

pub const CALLS: [Call; 34] = [
    api("C0 dry run", 1, Scenario::Create, "POST", "secrets", true),
    api("C1 attempt", 3, Scenario::Create, "PATCH", "boltzapikeys/*", false),
    boltz("C2 POST", 2, Scenario::Create, Operation::Create, 0),
    api("C3 Secret", 2, Scenario::Create, "POST", "secrets", false),
    api("C4 status", 1, Scenario::Create, "PATCH", "boltzapikeys/*/status", false),
    api("R0 dry run", 1, Scenario::Rotate, "PATCH", "secrets/*", true),
    api("R1 attempt", 3, Scenario::Rotate, "PATCH", "boltzapikeys/*", false),
    boltz("R2 POST", 2, Scenario::Rotate, Operation::Create, 0),
    api("R3 Secret", 2, Scenario::Rotate, "PATCH", "secrets/*", false),
    api("R4 status", 1, Scenario::Rotate, "PATCH", "boltzapikeys/*/status", false),
    api("R5 live read, object", 1, Scenario::EndOfOverlap, "GET", "boltzapikeys/*", false),
    api("R5 live read, Secret", 1, Scenario::EndOfOverlap, "GET", "secrets/*", false),
    boltz("R5 revoke", 1, Scenario::EndOfOverlap, Operation::Revoke, 0),
    api("R6 status", 1, Scenario::EndOfOverlap, "PATCH", "boltzapikeys/*/status", false),
    boltz("recover: list", 1, Scenario::Recover, Operation::List, 0),
    api("recover: second attempt", 3, Scenario::Recover, "PATCH", "boltzapikeys/*", false),
    boltz("recover: second POST", 2, Scenario::Recover, Operation::Create, 0),
    api("recover: live read, object", 1, Scenario::Recover, "GET", "boltzapikeys/*", false),
    api("recover: live read, Secret", 1, Scenario::Recover, "GET", "secrets/*", false),
    // The condition RevocationFailing comes and goes.
    boltz("recover: revoke the stray", 2, Scenario::Recover, Operation::Revoke, 0),
    boltz("D1 revoke the first", 2, Scenario::Delete, Operation::Revoke, 0),
    boltz("D1 revoke the second", 3, Scenario::Delete, Operation::Revoke, 1),
    api("D1 live read, object", 2, Scenario::Delete, "GET", "boltzapikeys/*", false),
    api("D1 live read, Secret", 1, Scenario::Delete, "GET", "secrets/*", false),
    api("D2 drop the finalizer", 3, Scenario::Delete, "PATCH", "boltzapikeys/*", false),
    api("move: read the old Secret", 1, Scenario::Move, "GET", "secrets/*", false),
    api("move: write the new Secret", 2, Scenario::Move, "POST", "secrets", false),
    api("move: delete the old Secret", 1, Scenario::Move, "DELETE", "secrets/*", false),
    api("restart the workload", 2, Scenario::Restart, "PATCH", "deployments/*", false),
    api("read the rollout", 0, Scenario::Restart, "GET", "deployments/*", false),
    api("adopt: read the Secret", 1, Scenario::Adopt, "GET", "secrets/*", false),
    boltz("adopt: check the key", 1, Scenario::Adopt, Operation::AuthMe, 0),
    api("adopt: dry run", 1, Scenario::Adopt, "PATCH", "secrets/*", true),
    api("adopt: write the Secret", 2, Scenario::Adopt, "PATCH", "secrets/*", false),
];

/// A further field of the Secret.
pub const FIELD: &str = ".env";

impl Scenario {
    /// Brings everything to where the call comes next but for the trigger.
    pub async fn prepare(self, env: &mut TestEnv) -> Result<(), String> {
        match self {
            Self::Create => {}
            Self::Rotate | Self::Move => ready(env, self.spec()).await?,
            Self::EndOfOverlap => {
                ready(env, self.spec()).await?;
                rotated(env).await?;
            }
            Self::Recover => {
                // Often enough for a test that is held up itself, and sees the first only when the operator has given up.
                env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Answer::Hold).times(9));
                env.create("key", self.spec()).await;
                boltz_harness::eventually(crate::test_env::PATIENCE, "the POST is held", async || {
                    if env.emulator.held() > 0 { Ok(()) } else { Err("not yet") }
                })
                .await?;
                env.operator.killed().await;
                env.emulator.clear_faults();
            }
            Self::Delete => {
                ready(env, self.spec()).await?;
                rotated(env).await?;
            }
            Self::Adopt => {
                let spec = json!({"secret": {"name": "key"}, "deletionPolicy": "Retain"});
                env.create("before", spec).await;
                env.ready("before").await;
                env.delete("before").await;
                env.gone("before").await;
                let consent = json!({"metadata": {"annotations": {"boltz.bio/adoptable-by": "key"}}});
                let consented =
                    env.secrets().patch("key", &PatchParams::default(), &Patch::Merge(consent)).await;
                consented.map_err(|error| error.to_string())?;
            }
            Self::Restart => {
                let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
                let deployment = serde_json::from_value(workload("Deployment", "workload")).unwrap();
                deployments
                    .create(&PostParams::default(), &deployment)
                    .await
                    .map_err(|error| error.to_string())?;
                let mut spec = self.spec();
                spec["rolloutRestartTargets"] = json!([{"kind": "Deployment", "name": "workload"}]);
                ready(env, spec).await?;
            }
        }
        Ok(())
    }

    /// Makes the operator act.
    pub async fn trigger(self, env: &mut TestEnv) -> Result<(), String> {
        match self {
            Self::Create | Self::Adopt => drop(env.create("key", self.spec()).await),
            Self::Rotate | Self::Restart => env.annotate("key", "boltz.bio/rotate", "1").await,
            // Time does it.
            Self::EndOfOverlap => {}
            Self::Recover => env.operator.killed_and_restarted().await.map_err(|error| error.to_string())?,
            Self::Delete => env.delete("key").await,
            Self::Move => drop(env.patch("key", json!({"spec": {"secret": {"name": "moved"}}})).await),
        }
        Ok(())
    }

    /// How long a key works after it was replaced.
    pub fn overlap(self) -> Duration {
        Duration::from_secs(match self {
            Self::Create | Self::Rotate | Self::Recover | Self::Move | Self::Restart | Self::Adopt => 1,
            // Not before the attempt of the old key is settled. On a busy machine the call must not come before the fault.
            Self::EndOfOverlap => 9,
            Self::Delete => 3600,
        })
    }

    pub fn spec(self) -> serde_json::Value {
        json!({
            "rotation": {"overlap": format!("{}s", self.overlap().as_secs())},
            "secret": {"adopt": self == Self::Adopt, "data": {FIELD: "BOLTZ_API_KEY=$(key)"}},
        })
    }

    /// How many POSTs it takes without a fault.
    fn posts(self) -> usize {
        match self {
            Self::Create | Self::Move => 1,
            Self::Rotate
            | Self::EndOfOverlap
            | Self::Recover
            | Self::Delete
            | Self::Restart
            | Self::Adopt => 2,
        }
    }

    /// How many writes to the API server it takes without a fault, dry runs aside: three for each key, one at the end of
    /// an overlap, and what is written for the scenario itself.
    fn writes(self) -> usize {
        match self {
            Self::Create => 3,
            // Secret created, status, old one deleted.
            Self::Move => 6,
            Self::Rotate | Self::EndOfOverlap => 7,
            // One attempt without a key, which was written before the crash, and a status that says what is awaited.
            Self::Recover => 5,
            // The finalizer.
            Self::Delete => 7,
            // The finalizer of the object before.
            Self::Restart => 8,
            // Also a status that says that Boltz's list is awaited, and one that says when the adopted key was used: the
            // operator asks Boltz with it. A pass that comes early says both with something else.
            Self::Adopt => 10,
        }
    }
}

impl Call {
    /// How many POSTs it takes.
    pub fn posts(&self, outcome: Outcome) -> RangeInclusive<usize> {
        // The value of a key that is not stored dies with its process.
        let is_lost = ["C3 Secret", "R3 Secret", "adopt: write the Secret"].contains(&self.name)
            && outcome == Outcome::KilledBefore;
        let least = self.scenario.posts() + usize::from(self.is_post() || is_lost);
        // It may send its POST before it is killed, or not.
        let is_attempt = ["C1 attempt", "R1 attempt", "recover: second attempt"].contains(&self.name);
        least..=least + usize::from(is_attempt && outcome == Outcome::KilledAfter)
    }

    /// Whatever becomes of a POST that is not answered as it should be: a second one follows.
    fn is_post(&self) -> bool {
        matches!(self.target, Target::Boltz(Operation::Create, _))
    }

    /// How many writes to the API server it takes, those that were refused included.
    pub fn writes(&self) -> RangeInclusive<usize> {
        let without = self.scenario.writes();
        // One that comes late says two things at once: a key was replaced and its overlap is over, what was awaited and came.
        let joined = match self.scenario {
            Scenario::Create | Scenario::Move | Scenario::Delete => 0,
            Scenario::Adopt => 3,
            _ => 1,
        };
        without - joined..=without + self.more_writes
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

//! Workloads that cannot be restarted: what is more important does not wait for them.

use crate::{
    lifecycle::causes::{
        Backend, Obstacle, PROMPT, RECHECK, TOLD, Verdict, is_revoked, is_revoked_by, is_well,
        neighbour_is_served, quiet, says, silence, time_to, until_refused, warning_says, with_neighbour,
    },
    test_env::{TestEnv, run_rows, workload},
};
use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

/// What becomes of the Deployments.
#[derive(Clone, Copy)]
enum Trouble {
    /// A webhook that does not answer: silent for so many seconds, or refusing connections.
    Webhook(Option<u8>),
    /// A policy that refuses the restart.
    Policy,
    /// They are deleted.
    Deleted,
}

async fn create(env: &TestEnv, kind: &str, name: &str) {
    let workload = serde_json::from_value(workload(kind, name)).unwrap();
    env.workloads(kind).create(&Default::default(), &workload).await.unwrap();
}

/// The workload was restarted for the key that status names.
async fn is_restarted(env: &TestEnv, kind: &str, name: &str, object: &str) -> Result<(), String> {
    let workload = env.workloads(kind).get(name).await.map_err(|error| error.to_string())?;
    let annotations = &workload.data["spec"]["template"]["metadata"]["annotations"];
    let restarted_for = annotations["boltz.bio/restarted-for"].as_str().map(str::to_owned);
    let wanted = env.get(object).await.status.unwrap_or_default().key_id;
    if restarted_for.is_some() && restarted_for == wanted {
        Ok(())
    } else {
        Err(format!("restarted for {restarted_for:?}, the key is {wanted:?}"))
    }
}

#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn a_workload_that_cannot_be_restarted_delays_nothing() {
    let rows = [
        ("a webhook that refuses connections", Trouble::Webhook(None), "failed calling webhook"),
        ("a webhook that is silent for 2 s", Trouble::Webhook(Some(2)), "failed calling webhook"),
        // Longer than the operator waits for an answer.
        ("a webhook that is silent for 30 s", Trouble::Webhook(Some(30)), "no response"),
        ("a policy", Trouble::Policy, "no restarts on a Friday"),
        ("Deployments that are gone", Trouble::Deleted, "not found"),
    ];
    run_rows(4, rows.into_iter().map(|(name, trouble, words)| (name, unrestarted(name, trouble, words))))
        .await;
}

async fn unrestarted(row: &'static str, trouble: Trouble, words: &str) {
    let mut verdict = Verdict::new(row);
    let mut env = TestEnv::judged_by_times().await;
    with_neighbour(&mut env).await;
    let overlap = Duration::from_secs(6);
    for (name, overlap) in [("leaked", "24h"), ("rotated", "6s")] {
        create(&env, "Deployment", name).await;
        create(&env, "StatefulSet", name).await;
        let targets =
            [json!({"kind": "Deployment", "name": name}), json!({"kind": "StatefulSet", "name": name})];
        env.create(name, json!({"rotation": {"overlap": overlap}, "rolloutRestartTargets": targets})).await;
    }
    let leaked = env.id_of("leaked").await;
    let old = env.id_of("rotated").await;
    let (_listener, address) = silence().await;
    let obstacle = match trouble {
        Trouble::Webhook(seconds) => {
            let backend = seconds.map_or(Backend::Refuses, |seconds| Backend::Silent(address, seconds));
            Some(Obstacle::webhook(&env, &backend, "apps", "deployments").await)
        }
        Trouble::Policy => {
            let on = ("apps", "deployments");
            Some(Obstacle::policy(&env, on, &["UPDATE"], "false", "no restarts on a Friday").await)
        }
        Trouble::Deleted => {
            for name in ["leaked", "rotated"] {
                env.workloads("Deployment").delete(name, &DeleteParams::default()).await.unwrap();
            }
            None
        }
    };
    if obstacle.is_some() && !matches!(trouble, Trouble::Webhook(Some(10..))) {
        until_refused(&env, "deployments", "leaked", true).await;
    }

    let since = Timestamp::now();
    env.annotate("leaked", "boltz.bio/rotate-now", "1").await;
    env.annotate("rotated", "boltz.bio/rotate", "1").await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    for (name, old) in [("leaked", &leaked), ("rotated", &old)] {
        verdict
            .within(time_to(since + PROMPT), &format!("status names the new key of {name}"), async || {
                let key_id = env.get(name).await.status.unwrap_or_default().key_id;
                if key_id.as_ref() != Some(old) { Ok(()) } else { Err(format!("{key_id:?}")) }
            })
            .await;
    }
    let latest = since + PROMPT;
    verdict
        .within(time_to(latest), "the leaked key is revoked at once", async || {
            is_revoked_by(&env, &leaked, latest)
        })
        .await;
    let latest = since + overlap + PROMPT;
    verdict
        .within(time_to(latest), "the old key is revoked after its overlap", async || {
            is_revoked_by(&env, &old, latest)
        })
        .await;
    for name in ["leaked", "rotated"] {
        verdict
            .within(PROMPT, &format!("the StatefulSet of {name} is restarted"), async || {
                is_restarted(&env, "StatefulSet", name, name).await
            })
            .await;
    }
    verdict
        .within(TOLD, "an event or a condition says which workload waits, and why", async || {
            match says(&env.get("leaked").await, words, &[]) {
                Ok(()) => Ok(()),
                Err(_) => warning_says(&env, words).await,
            }
        })
        .await;
    quiet(&env, &mut verdict, since, &["leaked", "rotated"], 1).await;

    if let Some(obstacle) = obstacle {
        obstacle.lift().await;
        until_refused(&env, "deployments", "leaked", false).await;
        env.annotate("leaked", "boltz.bio/retry", "1").await;
        // A call that is still on its way is waited for as long as every other.
        let hanging = matches!(trouble, Trouble::Webhook(Some(10..)));
        let touched = if hanging { PROMPT + Duration::from_secs(15) } else { PROMPT };
        for (name, wait) in [("leaked", touched), ("rotated", RECHECK)] {
            verdict
                .within(wait, &format!("the Deployment of {name} is restarted"), async || {
                    is_restarted(&env, "Deployment", name, name).await
                })
                .await;
        }
    }
    for name in ["leaked", "rotated"] {
        verdict.within(PROMPT, &format!("{name} is well"), async || is_well(&env.get(name).await)).await;
    }
    for id in [&leaked, &old] {
        verdict.that("the old keys are revoked in the end", is_revoked(&env, id).map(|()| String::new()));
    }
    verdict.at_most("keys alive", 2 + beside.iter().count(), env.active_ids().len(), "");
    verdict.end();
}

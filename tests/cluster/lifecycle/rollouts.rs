//! Restarts that are seen through. Nothing here replaces pods: the test writes what the controllers of workloads would.

use crate::test_env::{TestEnv, condition, workload};
use boltz_emulator::Operation;
use boltz_operator::api::{BoltzApiKey, RestartState};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value as Json, json};

/// A workload whose pods end at once.
async fn create(env: &TestEnv, kind: &str, name: &str, strategy: Option<&str>) {
    let mut workload = workload(kind, name);
    workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    if let Some(strategy) = strategy {
        workload["spec"]["updateStrategy"] = json!({"type": strategy});
    }
    let workload = serde_json::from_value(workload).unwrap();
    env.workloads(kind).create(&Default::default(), &workload).await.unwrap();
}

/// The controller of the workload has seen its newest template, and says that.
async fn says(env: &TestEnv, kind: &str, name: &str, mut status: Json) {
    let api = env.workloads(kind);
    status["observedGeneration"] = json!(api.get(name).await.unwrap().metadata.generation);
    let patch = json!({"status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

fn all_new() -> Json {
    json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "conditions": []})
}

/// The states in the order of the targets, once they are these.
async fn until_states(env: &TestEnv, name: &str, states: &[RestartState]) -> BoltzApiKey {
    env.until(name, &format!("restarts {states:?}"), |object| {
        let restarts = object.status.iter().flat_map(|status| &status.restarts);
        restarts.map(|restart| restart.state).eq(states.iter().copied())
    })
    .await
}

async fn notes(env: &TestEnv, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let wanted = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    wanted.filter_map(|event| event.note).collect()
}

#[tokio::test]
async fn a_restart_is_seen_through_and_may_end_the_overlap() {
    use RestartState::{Done, Failed, Paused, Progressing, Restarted};
    let mut env = TestEnv::settling_fast().await;
    create(&env, "Deployment", "web", None).await;
    create(&env, "StatefulSet", "db", Some("OnDelete")).await;
    create(&env, "DaemonSet", "agent", None).await;
    let targets = [("Deployment", "web"), ("StatefulSet", "db"), ("DaemonSet", "agent")]
        .map(|(kind, name)| json!({"kind": kind, "name": name}));
    let rotation = json!({"overlap": "24h", "overlapPolicy": "UntilRolledOut"});
    env.create("key", json!({"rotation": rotation, "rolloutRestartTargets": targets})).await;
    let old = env.id_of("key").await;
    assert!(env.get("key").await.status.unwrap().restarts.is_empty(), "nobody runs with an older key");

    env.annotate("key", "boltz.bio/rotate", "1").await;
    // The one that needs a person is told at once.
    let object = until_states(&env, "key", &[Restarted, Paused, Restarted]).await;
    let status = object.status.unwrap();
    assert_ne!(status.key_id.as_ref(), Some(&old));
    assert!(status.restarts.iter().all(|restart| Some(&restart.key_id) == status.key_id.as_ref()));
    assert!(status.restarts[1].message.as_ref().unwrap().contains("OnDelete"));

    says(&env, "Deployment", "web", json!({"replicas": 2, "updatedReplicas": 1, "unavailableReplicas": 1}))
        .await;
    until_states(&env, "key", &[Progressing, Paused, Restarted]).await;
    let late = json!({
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"web-1\" has timed out progressing.",
    });
    says(&env, "Deployment", "web", json!({"conditions": [late]})).await;
    let object = until_states(&env, "key", &[Failed, Paused, Restarted]).await;
    assert!(object.status.unwrap().restarts[0].message.as_ref().unwrap().contains("timed out"));
    let unfinished = |count: u8| {
        let namespace = &env.namespace;
        format!("boltz_apikey_restarts_unfinished{{namespace=\"{namespace}\",name=\"key\"}} {count}")
    };
    let [all, none] = [unfinished(3), unfinished(0)];
    env.until_metric(&all).await;
    says(&env, "Deployment", "web", all_new()).await;
    until_states(&env, "key", &[Done, Paused, Restarted]).await;

    // Another process goes on.
    env.operator.killed_and_restarted().await.unwrap();
    let agents = json!({
        "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1,
        "numberMisscheduled": 0, "numberReady": 1, "numberAvailable": 1,
    });
    says(&env, "DaemonSet", "agent", agents).await;
    until_states(&env, "key", &[Done, Paused, Done]).await;
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Revoke), 0, "one of three may have old pods");
    // Somebody deletes the pods.
    says(&env, "StatefulSet", "db", all_new()).await;
    until_states(&env, "key", &[Done, Done, Done]).await;
    env.until_metric(&none).await;
    env.until_active(1).await;
    assert!(!env.active_ids().contains(&old), "long before the end of its overlap");
    env.until("key", "no previous keys", |object| {
        object.status.as_ref().is_some_and(|status| status.previous_keys.is_empty())
    })
    .await;
    env.judge("key").await;
    boltz_harness::eventually(crate::test_env::PATIENCE, "the events", async || {
        let all =
            (notes(&env, "NotRolledOut").await, notes(&env, "RolledOut").await, notes(&env, "Revoked").await);
        let is_said = all.0.len() >= 2
            && all.0.iter().any(|note| note.contains("StatefulSet db") && note.contains("OnDelete"))
            && all.1.len() == 3
            && all.2 == [format!("Revoked key {old} (RolledOut).")];
        if is_said { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn under_until_idle_a_restart_that_has_not_ended_keeps_the_old_key() {
    let env = TestEnv::settling_fast().await;
    for name in ["web", "gone"] {
        create(&env, "Deployment", name, None).await;
    }
    let targets = ["web", "gone"].map(|name| json!({"kind": "Deployment", "name": name}));
    let rotation = json!({"overlap": "1s", "overlapPolicy": "UntilIdle"});
    env.create("key", json!({"rotation": rotation, "rolloutRestartTargets": targets})).await;
    let old = env.id_of("key").await;
    env.annotate("key", "boltz.bio/rotate", "1").await;
    env.until("key", "PreviousKeyStillUsed", |object| {
        let ready = condition(object, "Ready");
        ready.is_some_and(|ready| {
            ready.reason == "PreviousKeyStillUsed" && ready.message.contains("has not ended: Deployment web")
        })
    })
    .await;
    // A workload that is not there uses no key.
    env.workloads("Deployment").delete("gone", &DeleteParams::default()).await.unwrap();
    until_states(&env, "key", &[RestartState::Restarted, RestartState::Failed]).await;
    env.passes(3).await;
    assert!(env.active_ids().contains(&old));
    says(&env, "Deployment", "web", all_new()).await;
    env.until_active(1).await;
    until_states(&env, "key", &[RestartState::Done, RestartState::Failed]).await;
    env.judge("key").await;
}

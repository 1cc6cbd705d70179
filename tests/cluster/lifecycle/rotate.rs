//! What starts a rotation, what does not, and what becomes of the old key.

use crate::test_env::{EnvOptions, TestEnv, condition, is, workload};
use boltz_emulator::{Operation, Settings};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::Deployment, core::v1::Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Waits for a rotation and answers (old id, new id).
async fn rotated(env: &TestEnv, name: &str, old: &str, reason: &str) -> String {
    let object = env
        .until(name, &format!("rotated: {reason}"), |object| {
            object.status.as_ref().is_some_and(|status| {
                status.key_id.as_deref() != Some(old)
                    && status.last_rotation_reason.as_deref() == Some(reason)
            })
        })
        .await;
    object.status.unwrap().key_id.unwrap()
}

#[tokio::test]
async fn a_key_rotates_before_it_expires_and_the_old_one_lives_through_its_overlap() {
    let settings = Settings { day_milliseconds: 36_000, ..Settings::default() };
    let env = TestEnv::with_options(EnvOptions { settings, ..EnvOptions::default() }).await;
    env.create("short", json!({"expiresInDays": 1, "rotation": {"overlap": "6s"}})).await;
    let old = env.id_of("short").await;
    let new = rotated(&env, "short", &old, "Renewal").await;
    assert!(is(&env.get("short").await, "Ready"));
    env.wait("the old key is revoked", || {
        let key = env.emulator.key(&old).unwrap();
        if key.revoked_at.is_some() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    let (old, new) = (env.emulator.key(&old).unwrap(), env.emulator.key(&new).unwrap());
    let overlap = old.revoked_at.unwrap().duration_since(new.created_at);
    assert!(overlap.as_millis() >= 5900, "the whole overlap was granted: {overlap}");
    assert!(new.created_at < old.expires_at.unwrap(), "before the old one expired");
}

#[tokio::test]
async fn a_rotation_takes_three_writes_and_its_end_one() {
    let env = TestEnv::new().await;
    env.create("counted", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.id_of("counted").await;
    let before = env.writes().len();
    env.annotate("counted", "boltz.bio/rotate", "1").await;
    rotated(&env, "counted", &old, "RotateRequested").await;
    env.until_active(1).await;
    env.until("counted", "no previous keys", |object| {
        object.status.as_ref().is_some_and(|status| status.previous_keys.is_empty())
    })
    .await;
    env.passes(2).await;
    assert_eq!(
        env.writes()[before..],
        [
            "patch boltzapikeys  -> 200",
            "patch secrets  -> 200",
            "patch boltzapikeys status -> 200",
            "patch boltzapikeys status -> 200",
        ]
    );
    assert_eq!(env.emulator.count(Operation::Create), 2);
    env.judge("counted").await;
}

#[tokio::test]
async fn a_change_of_what_makes_a_key_issues_a_new_one_and_nothing_else_does() {
    let env = TestEnv::new().await;
    env.create("changing", json!({"allowedIPs": ["192.0.2.1", "192.0.2.2"]})).await;
    let old = env.id_of("changing").await;
    for same in [
        json!({"displayName": "another name"}),
        json!({"allowedIPs": ["192.0.2.2", "192.0.2.1"]}),
        json!({"rotation": {"overlap": "2s"}}),
        json!({"workspaceID": ""}),
    ] {
        env.patch("changing", json!({"spec": same})).await;
        assert_eq!(env.id_of("changing").await, old, "{same}");
    }
    env.annotate("changing", "example.org/foreign", "1").await;
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.patch("changing", json!({"spec": {"workspaceID": "ws_other"}})).await;
    let new = rotated(&env, "changing", &old, "ParametersChanged").await;
    assert_eq!(env.emulator.key(&new).unwrap().workspace_id, "ws_other");
    env.until_active(1).await;
    env.judge("changing").await;
}

#[tokio::test]
async fn a_deleted_secret_is_made_again_with_a_new_key() {
    let env = TestEnv::new().await;
    env.create("lost", json!({"rotation": {"overlap": "2s"}})).await;
    let old = env.id_of("lost").await;
    env.secrets().delete("lost", &DeleteParams::default()).await.unwrap();
    rotated(&env, "lost", &old, "SecretMissing").await;
    assert!(env.active_ids().contains(&old), "pods may still use the old key");
    assert_eq!(env.record("lost").await.previous[0].key_id, old);
    env.until_active(1).await;
    env.judge("lost").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn an_altered_value_is_replaced() {
    let env = TestEnv::new().await;
    env.create("altered", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.id_of("altered").await;
    let patch = json!({"data": {"BOLTZ_API_KEY": ByteString(b"something else".to_vec())}});
    env.secrets().patch("altered", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    rotated(&env, "altered", &old, "SecretAltered").await;
    env.until_active(1).await;
    env.judge("altered").await;
}

#[tokio::test]
async fn an_altered_value_is_found_after_a_restart_too() {
    let mut env = TestEnv::new().await;
    env.create("altered", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.id_of("altered").await;
    env.operator.kill();
    let patch = json!({"data": {"BOLTZ_API_KEY": ByteString(b"something else".to_vec())}});
    env.secrets().patch("altered", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    env.operator.restart().unwrap();
    rotated(&env, "altered", &old, "SecretAltered").await;
    env.until_active(1).await;
    env.judge("altered").await;
}

#[tokio::test]
async fn a_key_that_boltz_calls_inactive_is_replaced() {
    let env = TestEnv::new().await;
    env.create("revoked", json!({})).await;
    let old = env.id_of("revoked").await;
    env.emulator.deactivate(&old);
    rotated(&env, "revoked", &old, "KeyInactive").await;
    env.judge("revoked").await;
}

#[tokio::test]
async fn a_leaked_key_is_revoked_as_soon_as_the_new_one_is_stored() {
    let env = TestEnv::new().await;
    env.create("leaked", json!({"rotation": {"overlap": "24h"}})).await;
    let old = env.id_of("leaked").await;
    env.annotate("leaked", "boltz.bio/rotate-now", "incident-1").await;
    rotated(&env, "leaked", &old, "RotateNow").await;
    env.until_active(1).await;
    env.judge("leaked").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn under_until_idle_a_used_key_is_not_revoked_until_it_falls_idle() {
    let env = TestEnv::new().await;
    env.create("busy", json!({"rotation": {"overlap": "4s", "overlapPolicy": "UntilIdle"}})).await;
    let old = env.id_of("busy").await;
    env.annotate("busy", "boltz.bio/rotate", "1").await;
    rotated(&env, "busy", &old, "RotateRequested").await;
    let blocked = async {
        env.until("busy", "PreviousKeyStillUsed", |object| {
            condition(object, "Ready").is_some_and(|condition| {
                condition.reason == "PreviousKeyStillUsed" && condition.message.contains(&old)
            })
        })
        .await
    };
    tokio::pin!(blocked);
    let object = loop {
        env.emulator.use_key(&old);
        tokio::select! {
            object = &mut blocked => break object,
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    };
    assert!(is(&object, "Ready"), "the new key works all the same");
    assert!(env.active_ids().contains(&old));
    env.until_active(1).await;
    env.judge("busy").await;
}

#[tokio::test]
async fn workloads_are_restarted_after_a_rotation_but_not_after_the_first_issue() {
    let env = TestEnv::new().await;
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
    let deployment = serde_json::from_value(workload("Deployment", "worker")).unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let targets =
        json!([{"kind": "Deployment", "name": "worker"}, {"kind": "StatefulSet", "name": "absent"}]);
    env.create("restarts", json!({"rolloutRestartTargets": targets})).await;
    let old = env.id_of("restarts").await;
    let restarted_for = |deployment: &Deployment| {
        let template = deployment.spec.clone().unwrap().template.metadata.unwrap();
        template.annotations.and_then(|annotations| annotations.get("boltz.bio/restarted-for").cloned())
    };
    assert_eq!(restarted_for(&deployments.get("worker").await.unwrap()), None);
    env.annotate("restarts", "boltz.bio/rotate", "1").await;
    let new = rotated(&env, "restarts", &old, "RotateRequested").await;
    assert_eq!(restarted_for(&deployments.get("worker").await.unwrap()), Some(new));
    let generation = deployments.get("worker").await.unwrap().metadata.generation;
    env.passes(2).await;
    assert_eq!(deployments.get("worker").await.unwrap().metadata.generation, generation, "once");
}

#[tokio::test]
async fn with_four_previous_keys_optional_rotations_wait() {
    let env = TestEnv::new().await;
    env.create("eager", json!({"rotation": {"overlap": "24h"}})).await;
    for round in 1..=4 {
        let old = env.id_of("eager").await;
        env.annotate("eager", "boltz.bio/rotate", &round.to_string()).await;
        rotated(&env, "eager", &old, "RotateRequested").await;
    }
    let old = env.id_of("eager").await;
    env.annotate("eager", "boltz.bio/rotate", "5").await;
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Create), 5, "the fifth request waits");
    // One that cannot wait revokes the oldest early.
    let oldest = env.record("eager").await.previous[0].key_id.clone();
    env.patch("eager", json!({"spec": {"mode": "test"}})).await;
    rotated(&env, "eager", &old, "ParametersChanged").await;
    assert!(!env.active_ids().contains(&oldest));
    assert_eq!(env.active_ids().len(), 5);
    env.judge("eager").await;
}

#[tokio::test]
async fn foreign_labels_and_annotations_of_the_secret_are_left_alone() {
    let env = TestEnv::new().await;
    env.create("theirs", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.id_of("theirs").await;
    let patch = json!({"metadata": {"labels": {"added": "by-someone"}}, "data": {"other": ByteString(b"x".to_vec())}});
    env.secrets().patch("theirs", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.annotate("theirs", "boltz.bio/rotate", "1").await;
    rotated(&env, "theirs", &old, "RotateRequested").await;
    let secret: Secret = env.secret("theirs").await;
    assert_eq!(secret.labels()["added"], "by-someone");
    assert_eq!(secret.data.unwrap()["other"].0, b"x");
}

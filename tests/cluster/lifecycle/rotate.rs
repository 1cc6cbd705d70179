//! What starts a rotation, what does not, and what becomes of the old key.

use crate::test_env::{Bed, Make, condition, is};
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
async fn rotated(bed: &Bed, name: &str, old: &str, reason: &str) -> String {
    let object = bed
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
    let settings = Settings { day_milliseconds: 12_000, ..Settings::default() };
    let bed = Bed::make(Make { settings, ..Make::default() }).await;
    bed.create("short", json!({"expiresInDays": 1, "rotation": {"overlap": "3s"}})).await;
    let old = bed.id_of("short").await;
    let new = rotated(&bed, "short", &old, "Renewal").await;
    assert!(bed.active_ids().contains(&old), "both live during the overlap");
    assert!(bed.active_ids().contains(&new));
    assert!(is(&bed.get("short").await, "Ready"));
    bed.wait("the old key is revoked", || {
        let key = bed.emulator.key(&old).unwrap();
        if key.revoked_at.is_some() { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    let (old, new) = (bed.emulator.key(&old).unwrap(), bed.emulator.key(&new).unwrap());
    let overlap = old.revoked_at.unwrap().duration_since(new.created_at);
    assert!(overlap.as_millis() >= 2900, "the whole overlap was granted: {overlap}");
    assert!(new.created_at < old.expires_at.unwrap(), "before the old one expired");
}

#[tokio::test]
async fn a_rotation_takes_three_writes_and_its_end_one() {
    let bed = Bed::new().await;
    bed.create("counted", json!({"rotation": {"overlap": "1s"}})).await;
    let old = bed.id_of("counted").await;
    let before = bed.writes().len();
    bed.annotate("counted", "boltz.bio/rotate", "1").await;
    rotated(&bed, "counted", &old, "RotateRequested").await;
    bed.until_active(1).await;
    bed.until("counted", "no previous keys", |object| {
        object.status.as_ref().is_some_and(|status| status.previous_keys.is_empty())
    })
    .await;
    bed.passes(2).await;
    assert_eq!(
        bed.writes()[before..],
        [
            "patch boltzapikeys  -> 200",
            "patch secrets  -> 200",
            "patch boltzapikeys status -> 200",
            "patch boltzapikeys status -> 200",
        ]
    );
    assert_eq!(bed.emulator.count(Operation::Create), 2);
    bed.judge("counted").await;
}

#[tokio::test]
async fn a_change_of_what_makes_a_key_issues_a_new_one_and_nothing_else_does() {
    let bed = Bed::new().await;
    bed.create("changing", json!({"allowedIPs": ["192.0.2.1", "192.0.2.2"]})).await;
    let old = bed.id_of("changing").await;
    for same in [
        json!({"displayName": "another name"}),
        json!({"allowedIPs": ["192.0.2.2", "192.0.2.1"]}),
        json!({"rotation": {"overlap": "2s"}}),
        json!({"workspaceID": ""}),
    ] {
        bed.patch("changing", json!({"spec": same})).await;
        assert_eq!(bed.id_of("changing").await, old, "{same}");
    }
    bed.annotate("changing", "example.org/foreign", "1").await;
    bed.passes(2).await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    bed.patch("changing", json!({"spec": {"workspaceID": "ws_other"}})).await;
    let new = rotated(&bed, "changing", &old, "ParametersChanged").await;
    assert_eq!(bed.emulator.key(&new).unwrap().workspace_id, "ws_other");
    bed.until_active(1).await;
    bed.judge("changing").await;
}

#[tokio::test]
async fn a_deleted_secret_is_made_again_with_a_new_key() {
    let bed = Bed::new().await;
    bed.create("lost", json!({"rotation": {"overlap": "2s"}})).await;
    let old = bed.id_of("lost").await;
    bed.secrets().delete("lost", &DeleteParams::default()).await.unwrap();
    rotated(&bed, "lost", &old, "SecretMissing").await;
    assert!(bed.active_ids().contains(&old), "pods may still use the old key");
    assert_eq!(bed.record("lost").await.previous[0].key_id, old);
    bed.until_active(1).await;
    bed.judge("lost").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn an_altered_value_is_replaced() {
    let bed = Bed::new().await;
    bed.create("altered", json!({"rotation": {"overlap": "1s"}})).await;
    let old = bed.id_of("altered").await;
    let patch = json!({"data": {"BOLTZ_API_KEY": ByteString(b"something else".to_vec())}});
    bed.secrets().patch("altered", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    rotated(&bed, "altered", &old, "SecretAltered").await;
    bed.until_active(1).await;
    bed.judge("altered").await;
}

#[tokio::test]
async fn an_altered_value_is_found_after_a_restart_too() {
    let mut bed = Bed::new().await;
    bed.create("altered", json!({"rotation": {"overlap": "1s"}})).await;
    let old = bed.id_of("altered").await;
    bed.operator.kill();
    let patch = json!({"data": {"BOLTZ_API_KEY": ByteString(b"something else".to_vec())}});
    bed.secrets().patch("altered", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    bed.operator.restart().unwrap();
    rotated(&bed, "altered", &old, "SecretAltered").await;
    bed.until_active(1).await;
    bed.judge("altered").await;
}

#[tokio::test]
async fn a_key_that_boltz_calls_inactive_is_replaced() {
    let bed = Bed::new().await;
    bed.create("revoked", json!({})).await;
    let old = bed.id_of("revoked").await;
    bed.emulator.deactivate(&old);
    rotated(&bed, "revoked", &old, "KeyInactive").await;
    bed.judge("revoked").await;
}

#[tokio::test]
async fn an_interval_rotates_a_key_that_never_expires() {
    let bed = Bed::new().await;
    bed.create("regular", json!({"rotation": {"interval": "4s", "overlap": "1s"}})).await;
    let old = bed.id_of("regular").await;
    rotated(&bed, "regular", &old, "Interval").await;
}

#[tokio::test]
async fn a_leaked_key_is_revoked_as_soon_as_the_new_one_is_stored() {
    let bed = Bed::new().await;
    bed.create("leaked", json!({"rotation": {"overlap": "24h"}})).await;
    let old = bed.id_of("leaked").await;
    bed.annotate("leaked", "boltz.bio/rotate-now", "incident-1").await;
    rotated(&bed, "leaked", &old, "RotateNow").await;
    bed.until_active(1).await;
    bed.judge("leaked").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn under_until_idle_a_used_key_is_not_revoked_until_it_falls_idle() {
    let bed = Bed::new().await;
    bed.create("busy", json!({"rotation": {"overlap": "4s", "overlapPolicy": "UntilIdle"}})).await;
    let old = bed.id_of("busy").await;
    bed.annotate("busy", "boltz.bio/rotate", "1").await;
    rotated(&bed, "busy", &old, "RotateRequested").await;
    let blocked = async {
        bed.until("busy", "RevocationBlocked", |object| {
            condition(object, "Ready").is_some_and(|condition| {
                condition.reason == "RevocationBlocked" && condition.message.contains(&old)
            })
        })
        .await
    };
    tokio::pin!(blocked);
    let object = loop {
        bed.emulator.use_key(&old);
        tokio::select! {
            object = &mut blocked => break object,
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    };
    assert!(is(&object, "Ready"), "the new key works all the same");
    assert!(bed.active_ids().contains(&old));
    bed.until_active(1).await;
    bed.judge("busy").await;
}

#[tokio::test]
async fn workloads_are_restarted_after_a_rotation_but_not_after_the_first_issue() {
    let bed = Bed::new().await;
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let deployment = serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker"},
        "spec": {
            "selector": {"matchLabels": {"app": "worker"}},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{"name": "worker", "image": "worker"}]},
            },
        },
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let targets =
        json!([{"kind": "Deployment", "name": "worker"}, {"kind": "StatefulSet", "name": "absent"}]);
    bed.create("restarts", json!({"rolloutRestartTargets": targets})).await;
    let old = bed.id_of("restarts").await;
    let restarted_for = |deployment: &Deployment| {
        let template = deployment.spec.clone().unwrap().template.metadata.unwrap();
        template.annotations.and_then(|annotations| annotations.get("boltz.bio/restarted-for").cloned())
    };
    assert_eq!(restarted_for(&deployments.get("worker").await.unwrap()), None);
    bed.annotate("restarts", "boltz.bio/rotate", "1").await;
    let new = rotated(&bed, "restarts", &old, "RotateRequested").await;
    assert_eq!(restarted_for(&deployments.get("worker").await.unwrap()), Some(new));
    let generation = deployments.get("worker").await.unwrap().metadata.generation;
    bed.passes(2).await;
    assert_eq!(deployments.get("worker").await.unwrap().metadata.generation, generation, "once");
}

#[tokio::test]
async fn with_four_previous_keys_optional_rotations_wait() {
    let bed = Bed::new().await;
    bed.create("eager", json!({"rotation": {"overlap": "24h"}})).await;
    for round in 1..=4 {
        let old = bed.id_of("eager").await;
        bed.annotate("eager", "boltz.bio/rotate", &round.to_string()).await;
        rotated(&bed, "eager", &old, "RotateRequested").await;
    }
    let old = bed.id_of("eager").await;
    bed.annotate("eager", "boltz.bio/rotate", "5").await;
    bed.passes(3).await;
    assert_eq!(bed.emulator.count(Operation::Create), 5, "the fifth request waits");
    // One that cannot wait revokes the oldest early.
    let oldest = bed.record("eager").await.previous[0].key_id.clone();
    bed.patch("eager", json!({"spec": {"mode": "test"}})).await;
    rotated(&bed, "eager", &old, "ParametersChanged").await;
    assert!(!bed.active_ids().contains(&oldest));
    assert_eq!(bed.active_ids().len(), 5);
    bed.judge("eager").await;
}

#[tokio::test]
async fn foreign_labels_and_annotations_of_the_secret_are_left_alone() {
    let bed = Bed::new().await;
    bed.create("theirs", json!({"rotation": {"overlap": "1s"}})).await;
    let old = bed.id_of("theirs").await;
    let patch = json!({"metadata": {"labels": {"added": "by-someone"}}, "data": {"other": ByteString(b"x".to_vec())}});
    bed.secrets().patch("theirs", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    bed.passes(2).await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    bed.annotate("theirs", "boltz.bio/rotate", "1").await;
    rotated(&bed, "theirs", &old, "RotateRequested").await;
    let secret: Secret = bed.secret("theirs").await;
    assert_eq!(secret.labels()["added"], "by-someone");
    assert_eq!(secret.data.unwrap()["other"].0, b"x");
}

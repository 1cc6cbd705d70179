//! The end of objects.

use crate::test_env::TestEnv;
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

#[tokio::test]
async fn a_deleted_object_has_its_keys_revoked() {
    let env = TestEnv::new().await;
    let theirs = env.emulator.create_foreign("the key of a person").unwrap();
    env.create("going", json!({})).await;
    env.ready("going").await;
    env.annotate("going", "boltz.bio/rotate", "1").await;
    env.until_active(3).await;
    env.delete("going").await;
    env.gone("going").await;
    assert_eq!(env.active_ids(), [theirs].into(), "current and previous are revoked, others are not touched");
}

#[tokio::test]
async fn a_deletion_while_the_operator_is_down_is_done_after_it() {
    let mut env = TestEnv::new().await;
    env.create("going", json!({})).await;
    env.ready("going").await;
    env.operator.kill();
    env.delete("going").await;
    env.secrets().delete("going", &DeleteParams::default()).await.unwrap();
    env.operator.restart().unwrap();
    env.gone("going").await;
    assert!(env.active_ids().is_empty());
}

#[tokio::test]
async fn retain_keeps_key_and_secret() {
    let env = TestEnv::new().await;
    env.create("kept", json!({"deletionPolicy": "Retain"})).await;
    env.ready("kept").await;
    let value = env.value("kept").await;
    env.delete("kept").await;
    env.gone("kept").await;
    let secret = env.secret("kept").await;
    assert!(secret.owner_references().is_empty(), "nothing deletes the Secret");
    assert!(env.emulator.authenticate(&value).is_some(), "the key lives");
    // A new object of that name is told whose the Secret is.
    env.create("kept", json!({})).await;
    env.not_ready("kept", "SecretConflict").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_deleted_namespace_goes_and_its_keys_are_revoked() {
    let env = TestEnv::new().await;
    for name in ["one", "two"] {
        env.create(name, json!({})).await;
        env.ready(name).await;
    }
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.delete(&env.namespace, &DeleteParams::default()).await.unwrap();
    env.until_active(0).await;
    let patience = std::time::Duration::from_secs(90);
    boltz_harness::eventually(patience, "the namespace is gone", async || {
        match namespaces.get_opt(&env.namespace).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn when_boltz_is_gone_for_good_an_annotation_releases_the_object_and_names_the_keys() {
    let env = TestEnv::new().await;
    env.create("stuck", json!({})).await;
    let id = env.ready("stuck").await.status.unwrap().key_id.unwrap();
    env.emulator.inject(Fault {
        operation: None,
        effect: Effect::None,
        outcome: Outcome::status(503),
        latency_milliseconds: 0,
        times: u32::MAX,
    });
    env.delete("stuck").await;
    let object = env
        .until("stuck", "it says what to do", |object| {
            crate::test_env::condition(object, "Ready").is_some_and(|condition| {
                condition.reason == "Deleting"
                    && condition.message.contains("boltz.bio/deletion-policy=Retain")
            })
        })
        .await;
    assert!(crate::test_env::condition(&object, "Ready").unwrap().message.contains(&id));
    env.annotate("stuck", "boltz.bio/deletion-policy", "Retain").await;
    env.gone("stuck").await;
    boltz_harness::eventually(crate::test_env::PATIENCE, "an event names the key", async || {
        let events = env.control_plane.kubectl(&["get", "events", "-n", &env.namespace]).unwrap();
        if events.contains("KeysRetained") && events.contains(&id) { Ok(()) } else { Err(events) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_revoked_with_the_object() {
    let mut env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hang));
    env.create("lost", json!({})).await;
    env.until_active(1).await;
    env.operator.kill();
    env.delete("lost").await;
    env.operator.restart().unwrap();
    env.gone("lost").await;
    assert!(env.active_ids().is_empty());
}

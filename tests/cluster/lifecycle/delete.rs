//! The end of objects.

use crate::test_env::Bed;
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

#[tokio::test]
async fn a_deleted_object_has_its_keys_revoked() {
    let bed = Bed::new().await;
    let theirs = bed.emulator.create_foreign("the key of a person").unwrap();
    bed.create("going", json!({})).await;
    bed.ready("going").await;
    bed.annotate("going", "boltz.bio/rotate", "1").await;
    bed.until_active(3).await;
    bed.delete("going").await;
    bed.gone("going").await;
    assert_eq!(bed.active_ids(), [theirs].into(), "current and previous are revoked, others are not touched");
}

#[tokio::test]
async fn a_deletion_while_the_operator_is_down_is_done_after_it() {
    let mut bed = Bed::new().await;
    bed.create("going", json!({})).await;
    bed.ready("going").await;
    bed.operator.kill();
    bed.delete("going").await;
    bed.secrets().delete("going", &DeleteParams::default()).await.unwrap();
    bed.operator.restart().unwrap();
    bed.gone("going").await;
    assert!(bed.active_ids().is_empty());
}

#[tokio::test]
async fn retain_keeps_key_and_secret() {
    let bed = Bed::new().await;
    bed.create("kept", json!({"deletionPolicy": "Retain"})).await;
    bed.ready("kept").await;
    let value = bed.value("kept").await;
    bed.delete("kept").await;
    bed.gone("kept").await;
    let secret = bed.secret("kept").await;
    assert!(secret.owner_references().is_empty(), "nothing deletes the Secret");
    assert!(bed.emulator.authenticate(&value).is_some(), "the key lives");
    // A new object of that name is told whose the Secret is.
    bed.create("kept", json!({})).await;
    bed.not_ready("kept", "SecretConflict").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_deleted_namespace_goes_and_its_keys_are_revoked() {
    let bed = Bed::new().await;
    for name in ["one", "two"] {
        bed.create(name, json!({})).await;
        bed.ready(name).await;
    }
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    namespaces.delete(&bed.namespace, &DeleteParams::default()).await.unwrap();
    bed.until_active(0).await;
    let patience = std::time::Duration::from_secs(90);
    boltz_harness::eventually(patience, "the namespace is gone", async || {
        match namespaces.get_opt(&bed.namespace).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn when_boltz_is_gone_for_good_an_annotation_releases_the_object_and_names_the_keys() {
    let bed = Bed::new().await;
    bed.create("stuck", json!({})).await;
    let id = bed.ready("stuck").await.status.unwrap().key_id.unwrap();
    bed.emulator.inject(Fault {
        operation: None,
        effect: Effect::None,
        outcome: Outcome::status(503),
        latency_milliseconds: 0,
        times: u32::MAX,
    });
    bed.delete("stuck").await;
    let object = bed
        .until("stuck", "it says what to do", |object| {
            crate::test_env::condition(object, "Ready").is_some_and(|condition| {
                condition.reason == "Deleting"
                    && condition.message.contains("boltz.bio/deletion-policy=Retain")
            })
        })
        .await;
    assert!(crate::test_env::condition(&object, "Ready").unwrap().message.contains(&id));
    bed.annotate("stuck", "boltz.bio/deletion-policy", "Retain").await;
    bed.gone("stuck").await;
    boltz_harness::eventually(crate::test_env::PATIENCE, "an event names the key", async || {
        let events = bed.control_plane.kubectl(&["get", "events", "-n", &bed.namespace]).unwrap();
        if events.contains("KeysRetained") && events.contains(&id) { Ok(()) } else { Err(events) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_revoked_with_the_object() {
    let mut bed = Bed::new().await;
    bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hang));
    bed.create("lost", json!({})).await;
    bed.until_active(1).await;
    bed.operator.kill();
    bed.delete("lost").await;
    bed.operator.restart().unwrap();
    bed.gone("lost").await;
    assert!(bed.active_ids().is_empty());
}

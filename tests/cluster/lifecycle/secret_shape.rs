//! The Secret's name, data key and template: changed without a new key; and names that are taken.

use crate::test_env::{Bed, Make, condition, is, record_of, value_of};
use boltz_emulator::Operation;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

async fn foreign(bed: &Bed, name: &str) -> Secret {
    let secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"theirs": "precious"},
    }))
    .unwrap();
    bed.secrets().create(&PostParams::default(), &secret).await.unwrap()
}

#[tokio::test]
async fn a_taken_name_mints_nothing_and_recovers_by_itself() {
    let bed = Bed::new().await;
    let theirs = foreign(&bed, "taken").await;
    bed.create("taken", json!({})).await;
    let object = bed.not_ready("taken", "SecretConflict").await;
    assert!(is(&object, "Stalled"));
    assert!(condition(&object, "Ready").unwrap().message.contains("taken"));
    assert_eq!(bed.emulator.count(Operation::Create), 0);
    assert_eq!(bed.secret("taken").await, theirs, "the other Secret is untouched");
    bed.secrets().delete("taken", &DeleteParams::default()).await.unwrap();
    let patience = std::time::Duration::from_secs(70);
    boltz_harness::eventually(patience, "recovery within 60 s", async || {
        let object = bed.get("taken").await;
        if is(&object, "Ready") { Ok(()) } else { Err(format!("{:?}", object.status)) }
    })
    .await
    .unwrap();
    bed.judge("taken").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_secret_moves_to_another_name_with_the_same_key() {
    let bed = Bed::new().await;
    bed.create("moving", json!({})).await;
    bed.judge("moving").await;
    let value = bed.value("moving").await;
    bed.patch("moving", json!({"spec": {"secret": {"name": "moved"}}})).await;
    bed.until("moving", "moved", |object| {
        object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
    })
    .await;
    assert_eq!(bed.value("moved").await, value);
    assert!(bed.secrets().get_opt("moving").await.unwrap().is_none(), "the old Secret is deleted");
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    bed.judge("moving").await;
}

#[tokio::test]
async fn a_move_to_a_taken_name_keeps_the_old_secret_working() {
    let bed = Bed::new().await;
    let theirs = foreign(&bed, "theirs").await;
    bed.create("moving", json!({})).await;
    bed.ready("moving").await;
    bed.patch("moving", json!({"spec": {"secret": {"name": "theirs"}}})).await;
    let object = bed.until("moving", "Stalled", |object| is(object, "Stalled")).await;
    assert_eq!(condition(&object, "Stalled").unwrap().reason, "SecretConflict");
    assert!(is(&object, "Ready"), "the key in the old Secret works");
    assert_eq!(bed.secret("theirs").await, theirs);
    bed.judge("moving").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn data_key_and_template_change_without_a_new_key() {
    let bed = Bed::new().await;
    bed.create("shaped", json!({"secret": {"template": {"labels": {"one": "1", "two": "2"}}}})).await;
    bed.ready("shaped").await;
    let value = bed.value("shaped").await;
    bed.patch(
        "shaped",
        json!({"spec": {"secret": {"key": "TOKEN", "template": {"labels": {"one": null, "two": "3"}}}}}),
    )
    .await;
    bed.wait("the new shape", || Ok(())).await;
    let reshaped = boltz_harness::eventually(crate::test_env::PATIENCE, "the new shape", async || {
        let secret = bed.secret("shaped").await;
        let data = secret.data.clone().unwrap();
        if data.contains_key("TOKEN") { Ok(secret) } else { Err(format!("{:?}", data.keys())) }
    })
    .await
    .unwrap();
    assert_eq!(value_of(&reshaped, "TOKEN"), value);
    assert!(!reshaped.data.as_ref().unwrap().contains_key("BOLTZ_API_KEY"));
    assert_eq!(reshaped.labels().get("one"), None);
    assert_eq!(reshaped.labels()["two"], "3");
    assert_eq!(record_of(&reshaped).secret_key, "TOKEN");
    bed.judge("shaped").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_secret_that_lost_its_label_is_tied_again() {
    let bed = Bed::new().await;
    bed.create("untied", json!({})).await;
    bed.ready("untied").await;
    let patch = json!({"metadata": {"labels": {"boltz.bio/owner-uid": null}}});
    bed.secrets().patch("untied", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    boltz_harness::eventually(crate::test_env::PATIENCE, "the label is back", async || {
        let secret = bed.secret("untied").await;
        if secret.labels().contains_key("boltz.bio/owner-uid") { Ok(()) } else { Err("no label") }
    })
    .await
    .unwrap();
    bed.judge("untied").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn no_key_is_minted_that_could_not_be_stored() {
    let bed = Bed::new().await;
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> =
        Api::namespaced(bed.client.clone(), &bed.namespace);
    let quota = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"secrets": "0"}},
    }))
    .unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    // The quota holds once its status is there.
    boltz_harness::eventually(crate::test_env::PATIENCE, "the quota counts", async || {
        let status = quotas.get("none").await.unwrap().status;
        if status.is_some_and(|status| status.hard.is_some()) { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    bed.create("full", json!({})).await;
    let object = bed.not_ready("full", "SecretWriteFailed").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("quota"));
    assert_eq!(bed.emulator.count(Operation::Create), 0);
}

#[tokio::test]
async fn a_policy_that_refuses_the_secret_is_named_and_mints_nothing() {
    let bed = Bed::make(Make { own_control_plane: true, ..Make::default() }).await;
    let manifests = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-secrets}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]
  validations: [{expression: "false", message: "no Secrets here"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-secrets}
spec: {policyName: no-secrets, validationActions: [Deny]}
"#;
    bed.control_plane.apply(manifests).unwrap();
    // The policy holds once it is compiled.
    boltz_harness::eventually(crate::test_env::PATIENCE, "the policy holds", async || {
        let probe = serde_json::from_value(json!({"metadata": {"name": "probe"}})).unwrap();
        match bed.secrets().create(&PostParams { dry_run: true, ..PostParams::default() }, &probe).await {
            Ok(_) => Err("not yet"),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
    bed.create("refused", json!({})).await;
    let object = bed.not_ready("refused", "PolicyDenied").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("no Secrets here"));
    assert!(is(&object, "Stalled"));
    assert_eq!(bed.emulator.count(Operation::Create), 0);
}

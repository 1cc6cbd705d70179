//! The Secret's name, data key and template: changed without a new key; and names that are taken.

use crate::test_env::{EnvOptions, TestEnv, condition, is, record_of, value_of};
use boltz_emulator::Operation;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

async fn foreign(env: &TestEnv, name: &str) -> Secret {
    let secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"theirs": "precious"},
    }))
    .unwrap();
    env.secrets().create(&PostParams::default(), &secret).await.unwrap()
}

#[tokio::test]
async fn a_taken_name_mints_nothing_and_recovers_by_itself() {
    let env = TestEnv::new().await;
    let theirs = foreign(&env, "taken").await;
    env.create("taken", json!({})).await;
    let object = env.not_ready("taken", "SecretConflict").await;
    assert!(is(&object, "Stalled"));
    assert!(condition(&object, "Ready").unwrap().message.contains("taken"));
    assert_eq!(env.emulator.count(Operation::Create), 0);
    assert_eq!(env.secret("taken").await, theirs, "the other Secret is untouched");
    env.secrets().delete("taken", &DeleteParams::default()).await.unwrap();
    let patience = std::time::Duration::from_secs(70);
    boltz_harness::eventually(patience, "recovery within 60 s", async || {
        let object = env.get("taken").await;
        if is(&object, "Ready") { Ok(()) } else { Err(format!("{:?}", object.status)) }
    })
    .await
    .unwrap();
    env.judge("taken").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_secret_moves_to_another_name_with_the_same_key() {
    let env = TestEnv::new().await;
    env.create("moving", json!({})).await;
    env.judge("moving").await;
    let value = env.value("moving").await;
    env.patch("moving", json!({"spec": {"secret": {"name": "moved"}}})).await;
    env.until("moving", "moved", |object| {
        object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
    })
    .await;
    assert_eq!(env.value("moved").await, value);
    assert!(env.secrets().get_opt("moving").await.unwrap().is_none(), "the old Secret is deleted");
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.judge("moving").await;
}

#[tokio::test]
async fn a_move_to_a_taken_name_keeps_the_old_secret_working() {
    let env = TestEnv::new().await;
    let theirs = foreign(&env, "theirs").await;
    env.create("moving", json!({})).await;
    env.ready("moving").await;
    env.patch("moving", json!({"spec": {"secret": {"name": "theirs"}}})).await;
    let object = env.until("moving", "Stalled", |object| is(object, "Stalled")).await;
    assert_eq!(condition(&object, "Stalled").unwrap().reason, "SecretConflict");
    assert!(is(&object, "Ready"), "the key in the old Secret works");
    assert_eq!(env.secret("theirs").await, theirs);
    env.judge("moving").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn data_key_and_template_change_without_a_new_key() {
    let env = TestEnv::new().await;
    env.create("shaped", json!({"secret": {"template": {"labels": {"one": "1", "two": "2"}}}})).await;
    env.ready("shaped").await;
    let value = env.value("shaped").await;
    env.patch(
        "shaped",
        json!({"spec": {"secret": {"key": "TOKEN", "template": {"labels": {"one": null, "two": "3"}}}}}),
    )
    .await;
    let reshaped = boltz_harness::eventually(crate::test_env::PATIENCE, "the new shape", async || {
        let secret = env.secret("shaped").await;
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
    env.judge("shaped").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_secret_that_lost_its_label_is_tied_again() {
    let env = TestEnv::new().await;
    env.create("untied", json!({})).await;
    env.ready("untied").await;
    let patch = json!({"metadata": {"labels": {"boltz.bio/owner-uid": null}}});
    env.secrets().patch("untied", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let back = boltz_harness::eventually(crate::test_env::PATIENCE, "the label is back", async || {
        let secret = env.secret("untied").await;
        if secret.labels().contains_key("boltz.bio/owner-uid") { Ok(()) } else { Err("no label") }
    });
    if let Err(error) = back.await {
        panic!("{error}\n{}", env.operator.process().last_lines(40));
    }
    env.judge("untied").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn no_key_is_minted_that_could_not_be_stored() {
    let env = TestEnv::new().await;
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> =
        Api::namespaced(env.client.clone(), &env.namespace);
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
    env.create("full", json!({})).await;
    let object = env.not_ready("full", "SecretWriteFailed").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("quota"));
    assert_eq!(env.emulator.count(Operation::Create), 0);
}

#[tokio::test]
async fn a_policy_that_refuses_the_secret_is_named_and_mints_nothing() {
    let env = TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
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
    env.control_plane.apply(manifests).unwrap();
    // The policy holds once it is compiled.
    boltz_harness::eventually(crate::test_env::PATIENCE, "the policy holds", async || {
        let probe = serde_json::from_value(json!({"metadata": {"name": "probe"}})).unwrap();
        match env.secrets().create(&PostParams { dry_run: true, ..PostParams::default() }, &probe).await {
            Err(error) if error.to_string().contains("no Secrets here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    env.create("refused", json!({})).await;
    let object = env.not_ready("refused", "PolicyDenied").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("no Secrets here"));
    assert!(is(&object, "Stalled"));
    assert_eq!(env.emulator.count(Operation::Create), 0);
}

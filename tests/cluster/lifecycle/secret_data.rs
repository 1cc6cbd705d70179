//! `secret.data` and `secret.type`: the Secret in the shape that programs want.

use crate::test_env::{PATIENCE, TestEnv, condition, record_of, value_of};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use boltz_operator::api::BoltzApiKey;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value as Json, json};

const ENV_FILE: &str = "BOLTZ_API_KEY=$(key)\nBOLTZ_BASE_URL=$(baseURL)\n# $$(key), $(unknown), costs $5\n";
const JSON_FILE: &str =
    r#"{"id": "$(keyID)", "workspace": "$(workspaceID)", "mode": "$(mode)", "until": "$(expiresAt)"}"#;

async fn until(env: &TestEnv, name: &str, what: &str, is_so: impl Fn(&Secret) -> bool) -> Secret {
    let seen = eventually(PATIENCE, what, async || match env.secrets().get_opt(name).await.unwrap() {
        Some(secret) if is_so(&secret) => Ok(secret),
        other => Err(format!(
            "{:?}",
            other.map(|secret| secret.data.unwrap_or_default().into_keys().collect::<Vec<_>>())
        )),
    });
    match seen.await {
        Ok(secret) => secret,
        Err(error) => panic!("{error}\n{}", env.operator.process().last_lines(40)),
    }
}

fn has(secret: &Secret, name: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(name))
}

async fn edit_secret(env: &TestEnv, name: &str, patch: Json) {
    env.secrets().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// The fields are those of the key that the Secret holds.
async fn assert_fields(env: &TestEnv, name: &str) {
    let (secret, object) = (env.secret(name).await, env.get(name).await);
    let (key, status) = (value_of(&secret, "BOLTZ_API_KEY"), object.status.unwrap());
    let base_url = env.emulator.base_url();
    assert_eq!(
        value_of(&secret, ".env"),
        format!("BOLTZ_API_KEY={key}\nBOLTZ_BASE_URL={base_url}\n# $(key), $(unknown), costs $5\n")
    );
    let parsed: Json = serde_json::from_str(&value_of(&secret, "boltz.json")).unwrap();
    let until = status.expires_at.map(|time| time.0.to_string());
    assert_eq!(
        parsed,
        json!({
            "id": status.key_id, "workspace": status.workspace_id, "mode": "live", "until": until.unwrap_or_default(),
        })
    );
}

#[tokio::test]
async fn fields_follow_the_key_and_the_spec() {
    let env = TestEnv::new().await;
    let texts = json!({".env": ENV_FILE, "boltz.json": JSON_FILE});
    env.create("shaped", json!({"expiresInDays": 30, "workspaceID": "ws_7", "secret": {"data": texts}}))
        .await;
    env.judge("shaped").await;
    assert_fields(&env, "shaped").await;
    // All in the one write that carries key and record.
    assert_eq!(env.writes().len(), 3, "{:?}", env.writes());

    // A rotation writes them anew.
    let old = value_of(&env.secret("shaped").await, ".env");
    env.annotate("shaped", "boltz.bio/rotate", "1").await;
    until(&env, "shaped", "rotated", |secret| value_of(secret, ".env") != old).await;
    env.judge("shaped").await;
    assert_fields(&env, "shaped").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);

    // A change of the texts costs no key, and what others added stays.
    let key = env.value("shaped").await;
    edit_secret(&env, "shaped", json!({"stringData": {"theirs": "precious"}})).await;
    env.patch("shaped", json!({"spec": {"secret": {"data": {".env": null, "url": "$(baseURL)"}}}})).await;
    let secret = until(&env, "shaped", "another shape", |secret| has(secret, "url")).await;
    assert!(!has(&secret, ".env"), "what the operator wrote and no longer writes is gone");
    assert_eq!(value_of(&secret, "theirs"), "precious");
    assert_eq!(value_of(&secret, "url"), env.emulator.base_url());

    // Without texts the Secret is as a plain one.
    env.patch("shaped", json!({"spec": {"secret": {"data": null}}})).await;
    let secret = until(&env, "shaped", "a plain shape", |secret| !has(secret, "url")).await;
    assert_eq!(secret.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["BOLTZ_API_KEY", "theirs"]);
    assert_eq!(record_of(&secret).data, None);
    assert_eq!(env.value("shaped").await, key);
    env.judge("shaped").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn an_altered_field_counts_as_altered_and_one_of_others_does_not() {
    let mut env = TestEnv::new().await;
    env.create("altered", json!({"secret": {"data": {".env": ENV_FILE, "boltz.json": JSON_FILE}}})).await;
    env.judge("altered").await;
    edit_secret(&env, "altered", json!({"stringData": {"theirs": "precious"}})).await;
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    for (patch, keys) in
        [(json!({"stringData": {".env": "x"}}), 2), (json!({"data": {"boltz.json": null}}), 3)]
    {
        edit_secret(&env, "altered", patch).await;
        env.wait("a new key", || match env.emulator.count(Operation::Create) {
            count if count == keys => Ok(()),
            count => Err(format!("{count}")),
        })
        .await;
        env.judge("altered").await;
        assert_fields(&env, "altered").await;
    }
    assert_eq!(value_of(&env.secret("altered").await, "theirs"), "precious");
    // What was altered while no operator ran is found by the list at the start.
    assert_eq!(env.operator.terminate(), Some(0));
    edit_secret(&env, "altered", json!({"stringData": {".env": "x"}})).await;
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    until(&env, "altered", "restored", |secret| value_of(secret, ".env") != "x").await;
    env.judge("altered").await;
    assert_eq!(env.emulator.count(Operation::Create), 4);
}

/// 0.1.0 writes the key and a record without the entry `data`, and leaves the fields with the old key.
#[tokio::test]
async fn what_an_older_operator_wrote_is_completed_without_a_new_key() {
    let mut env = TestEnv::new().await;
    env.create("older", json!({"secret": {"data": {".env": ENV_FILE, "boltz.json": JSON_FILE}}})).await;
    env.judge("older").await;
    assert_eq!(env.operator.terminate(), Some(0));
    let mut record = json!(env.record("older").await);
    record.as_object_mut().unwrap().remove("data").unwrap();
    let annotations = json!({"boltz.bio/record": record.to_string()});
    edit_secret(
        &env,
        "older",
        json!({"metadata": {"annotations": annotations}, "stringData": {".env": "of the old key"}}),
    )
    .await;
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    until(&env, "older", "completed", |secret| value_of(secret, ".env") != "of the old key").await;
    env.judge("older").await;
    assert_fields(&env, "older").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn a_move_takes_a_new_type_and_what_others_added_along() {
    let env = TestEnv::new().await;
    let spec = json!({"secret": {"type": "example.com/api-key", "data": {".env": ENV_FILE, "boltz.json": JSON_FILE}}});
    env.create("moving", spec).await;
    env.judge("moving").await;
    assert_eq!(env.secret("moving").await.type_.as_deref(), Some("example.com/api-key"));
    edit_secret(&env, "moving", json!({"stringData": {"theirs": "precious"}})).await;
    env.patch("moving", json!({"spec": {"secret": {"name": "moved", "type": "Opaque"}}})).await;
    let secret = until(&env, "moved", "moved", |secret| has(secret, ".env")).await;
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(value_of(&secret, "theirs"), "precious");
    env.until("moving", "the old Secret is gone", |object| {
        object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
    })
    .await;
    env.judge("moving").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

#[tokio::test]
async fn labels_and_annotations_of_well_known_tools_go_through_the_template() {
    let env = TestEnv::new().await;
    let labels =
        json!({"app.kubernetes.io/managed-by": "boltz-operator", "app.kubernetes.io/part-of": "design"});
    let annotations = json!({
        "reloader.stakater.com/match": "true",
        "reflector.v1.k8s.emberstack.com/reflection-allowed": "true",
        "reflector.v1.k8s.emberstack.com/reflection-allowed-namespaces": "team-a,team-b",
    });
    env.create("known", json!({"secret": {"template": {"labels": labels, "annotations": annotations}}}))
        .await;
    env.judge("known").await;
    let secret = env.secret("known").await;
    for (name, value) in labels.as_object().unwrap() {
        assert_eq!(secret.labels()[name], value.as_str().unwrap());
    }
    for (name, value) in annotations.as_object().unwrap() {
        assert_eq!(secret.annotations()[name], value.as_str().unwrap());
    }
}

/// The CRD cannot check the names of a map.
#[tokio::test]
async fn a_name_that_no_secret_can_have_costs_only_its_entry() {
    let env = TestEnv::new().await;
    env.create("named", json!({"secret": {"data": {"a/b": "$(key)", "good": "$(keyID)"}}})).await;
    let is_told = |object: &BoltzApiKey| {
        condition(object, "Stalled").is_some_and(|stalled| {
            stalled.status == "True" && stalled.reason == "InvalidSpec" && stalled.message.contains("\"a/b\"")
        })
    };
    env.until("named", "the name is told", is_told).await;
    env.annotate("named", "boltz.bio/rotate", "1").await;
    let rotated = env
        .until("named", "rotated", |object| {
            object.status.as_ref().is_some_and(|status| status.rotations == Some(1)) && is_told(object)
        })
        .await;
    let data = env.secret("named").await.data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["BOLTZ_API_KEY", "good"]);
    assert_eq!(data["good"].0, rotated.status.unwrap().key_id.unwrap().into_bytes());
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_by_the_api_server() {
    let env = TestEnv::new().await;
    for kind in [
        "kubernetes.io/service-account-token",
        "kubernetes.io/dockerconfigjson",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
    ] {
        refused(&env, json!({"type": kind}), "types of Kubernetes and Helm are not allowed").await;
    }
    refused(&env, json!({"type": "with space"}), "should match").await;
    refused(&env, json!({"data": {"BOLTZ_API_KEY": "x"}}), "must not have the entry that secret.key names")
        .await;
    let many: serde_json::Map<String, Json> =
        (0..17).map(|number| (number.to_string(), json!("x"))).collect();
    refused(&env, json!({"data": many}), "must have at most 16 items").await;
    refused(&env, json!({"data": {"long": "x".repeat(8193)}}), "may not be more than 8192").await;

    env.create("typed", json!({"secret": {"type": "example.com/one"}})).await;
    let change = async |secret: Json| {
        let patch = Patch::Merge(json!({"spec": {"secret": secret}}));
        let changed = env.objects().patch("typed", &PatchParams::default(), &patch).await;
        changed.map(drop).map_err(|error| error.to_string())
    };
    for kind in [json!("example.com/two"), json!(null)] {
        let error = change(json!({"type": kind})).await.unwrap_err();
        assert!(error.contains("can be changed only together with secret.name"), "{error}");
    }
    let error = change(json!({"type": "example.com/two", "name": "typed"})).await.unwrap_err();
    assert!(error.contains("can be changed only together with secret.name"), "the same name: {error}");
    change(json!({"template": {"labels": {"a": "b"}}})).await.unwrap();
    change(json!({"type": "example.com/two", "name": "another"})).await.unwrap();
}

async fn refused(env: &TestEnv, secret: Json, message: &str) {
    let object = json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": "refused"},
        "spec": {"secret": secret},
    });
    let created = env.objects().create(&Default::default(), &serde_json::from_value(object).unwrap()).await;
    let error = created.unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

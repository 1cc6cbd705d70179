//! Secrets that were there before: adopted with their consent, and not otherwise. An object is renamed without a moment
//! without a key.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, condition, owned, value_of, workload};
use boltz_emulator::{Emulator, Operation};
use boltz_harness::eventually;
use boltz_operator::protocol::record::{Record, value_sha256};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Event, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{sync::Arc, time::Duration};

const CONSENT: &str = "boltz.bio/adoptable-by";

/// Somebody makes a Secret, with that change to it.
async fn make(env: &TestEnv, name: &str, change: Json) {
    let mut secret = json!({
        "metadata": {"name": name, "annotations": {CONSENT: name}},
        "stringData": {"BOLTZ_API_KEY": "made by hand", "theirs": "precious"},
    });
    for (field, value) in change.as_object().unwrap() {
        secret[field] = value.clone();
    }
    let secret: Secret = serde_json::from_value(secret).unwrap();
    env.secrets().create(&PostParams::default(), &secret).await.unwrap();
}

async fn annotate_secret(env: &TestEnv, name: &str, annotations: Json) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    env.secrets().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Waits for the event `Adopted` about that object. What it says.
async fn adopted_note(env: &TestEnv, name: &str) -> String {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    let is_about = |event: &Event| {
        event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some("Adopted")
    };
    eventually(PATIENCE, "the event Adopted", async || {
        let all = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        all.into_iter().find(is_about).and_then(|event| event.message).ok_or_else(|| "none".to_owned())
    })
    .await
    .unwrap()
}

/// Deletes an object, and keeps its key and its Secret.
async fn retained(env: &TestEnv, name: &str, secret: &str) -> String {
    env.create(name, json!({"deletionPolicy": "Retain", "secret": {"name": secret}})).await;
    let id = env.ready(name).await.status.unwrap().key_id.unwrap();
    env.delete(name).await;
    env.gone(name).await;
    id
}

fn adopting(secret: &str, overlap: &str) -> Json {
    json!({"secret": {"name": secret, "adopt": true}, "rotation": {"overlap": overlap}})
}

#[tokio::test]
async fn a_secret_that_people_made_is_adopted_when_it_consents() {
    let env = TestEnv::new().await;
    make(&env, "web", json!({"metadata": {"name": "web", "labels": {"app": "web"}}})).await;
    let before = env.secret("web").await;
    env.create("web", json!({"secret": {"adopt": true}})).await;
    let object = env.not_ready("web", "SecretConflict").await;
    let message = &condition(&object, "Ready").unwrap().message;
    assert!(message.contains("boltz.bio/adoptable-by: web"), "{message}");
    assert_eq!(env.secret("web").await.data, before.data, "nothing was changed");
    assert_eq!(env.emulator.count(Operation::Create), 0);
    annotate_secret(&env, "web", json!({CONSENT: "another"})).await;
    env.annotate("web", "boltz.bio/retry", "1").await;
    env.passes(2).await;
    assert_eq!(env.secret("web").await.data, before.data, "it consents to another");
    annotate_secret(&env, "web", json!({CONSENT: "web"})).await;
    // Several changes within ten seconds count as one.
    env.annotate("web", "boltz.bio/retry", "2").await;
    env.ready("web").await;
    let after = env.secret("web").await;
    assert_eq!(after.uid(), before.uid());
    assert_eq!(value_of(&after, "theirs"), "precious");
    assert_eq!(after.labels()["app"], "web");
    assert_eq!(after.owner_references().len(), 1);
    assert!(!after.annotations().contains_key(CONSENT), "it was for this once");
    env.judge("web").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    let note = adopted_note(&env, "web").await;
    assert!(note.contains("Took over Secret web") && note.contains("does not know the value"), "{note}");
}

#[tokio::test]
async fn what_may_not_be_adopted_stays_as_it_is_and_the_object_says_why() {
    let env = TestEnv::new().await;
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let owners: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    let uid = owners.create(&PostParams::default(), &owner).await.unwrap().uid();
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    let consenting = |name: &str| json!({CONSENT: name});
    let rows = [
        (
            "type",
            json!({"type": "kubernetes.io/basic-auth", "stringData": {"username": "u", "password": "p"}}),
            "kubernetes.io/basic-auth",
        ),
        ("helm", json!({"type": "helm.sh/release.v1"}), "not adopted"),
        ("other-type", json!({"type": "example.com/other"}), "spec.secret.type"),
        ("immutable", json!({"immutable": true}), "immutable"),
        (
            "another",
            json!({"metadata": {"name": "another", "annotations": {CONSENT: "else"}}}),
            "boltz.bio/adoptable-by: another",
        ),
        (
            "owned",
            json!({"metadata": {"name": "owned", "annotations": consenting("owned"), "ownerReferences": owner}}),
            "has an owner",
        ),
    ];
    for (name, change, _) in &rows {
        make(&env, name, change.clone()).await;
        env.create(name, json!({"secret": {"adopt": true}})).await;
    }
    // A Secret that another object has, and one that a living object retains: no ownerReference says so.
    for (name, policy) in [("mine", "Revoke"), ("kept", "Retain")] {
        env.create(name, json!({"deletionPolicy": policy})).await;
        env.ready(name).await;
        annotate_secret(&env, name, json!({CONSENT: format!("thief-of-{name}")})).await;
        env.create(&format!("thief-of-{name}"), adopting(name, "1s")).await;
    }
    let mut all: Vec<(String, String, &str)> =
        rows.iter().map(|(name, _, words)| ((*name).to_owned(), (*name).to_owned(), *words)).collect();
    all.push(("thief-of-mine".to_owned(), "mine".to_owned(), "has an owner"));
    all.push((
        "thief-of-kept".to_owned(),
        "kept".to_owned(),
        "belongs to the BoltzApiKey kept, which exists",
    ));
    let mut before = Vec::new();
    for (name, secret, words) in &all {
        let object = env.not_ready(name, "SecretConflict").await;
        let message = &condition(&object, "Ready").unwrap().message;
        assert!(message.contains(words), "{name}: {message}");
        before.push(env.secret(secret).await.data);
    }
    env.passes(3).await;
    for ((name, secret, _), before) in all.iter().zip(before) {
        assert_eq!(env.secret(secret).await.data, before, "{name}");
    }
    assert_eq!(env.emulator.count(Operation::Create), 2);
    assert!(env.revoked_ids().is_empty());
    for name in ["mine", "kept"] {
        env.ready(name).await;
    }
}

/// Looks all the time whether what the Secret holds is a key that works, until that many keys are active.
async fn always_has_a_key(secrets: Api<Secret>, name: &str, emulator: &Arc<Emulator>) -> String {
    loop {
        let value = match secrets.get_opt(name).await {
            Ok(Some(secret)) => value_of(&secret, "BOLTZ_API_KEY"),
            other => return format!("no Secret: {:?}", other.map(|_| ())),
        };
        if emulator.authenticate(&value).is_none() {
            return "the Secret holds a key that does not work".to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With orphans that are revoked at once: the old key is none before the end of its overlap, and a restart of the operator
/// changes nothing.
#[tokio::test]
async fn an_object_is_renamed_without_a_moment_without_a_key() {
    let mut env = TestEnv::with_options(EnvOptions {
        arguments: owned(&["--orphan-policy", "revoke", "--orphan-grace", "1s"]),
        own_control_plane: true,
        all_namespaces: true,
        ..EnvOptions::default()
    })
    .await;
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
    let workload = serde_json::from_value(workload("Deployment", "web")).unwrap();
    deployments.create(&PostParams::default(), &workload).await.unwrap();
    env.create("old-name", json!({"secret": {"name": "shared"}})).await;
    let old = env.ready("old-name").await.status.unwrap().key_id.unwrap();
    let (secrets, emulator) = (env.secrets(), Arc::clone(&env.emulator));
    let watch = always_has_a_key(secrets, "shared", &emulator);
    let story = async {
        env.annotate("old-name", "boltz.bio/deletion-policy", "Retain").await;
        env.delete("old-name").await;
        env.gone("old-name").await;
        annotate_secret(&env, "shared", json!({CONSENT: "new-name"})).await;
        let mut spec = adopting("shared", "12s");
        spec["rolloutRestartTargets"] = json!([{"kind": "Deployment", "name": "web"}]);
        env.create("new-name", spec).await;
        let new = env.ready("new-name").await.status.unwrap().key_id.unwrap();
        assert_ne!(old, new);
        assert_eq!(env.active_ids(), [old.clone(), new.clone()].into());
        let record = env.record("shared").await;
        let is_named = record.previous.iter().any(|key| key.key_id == old);
        assert!(is_named, "{record:?}\n{}", env.operator.log());
        let note = adopted_note(&env, "new-name").await;
        assert!(note.contains(&format!("The key before, {old}, stays valid until")), "{note}");
        let restarted = deployments.get("web").await.unwrap().spec.unwrap().template.metadata.unwrap();
        assert_eq!(restarted.annotations.unwrap()["boltz.bio/restarted-for"], new);
        env.operator.killed_and_restarted().await.unwrap();
        env.wait("the old key is revoked", || {
            let key = env.emulator.key(&old).unwrap();
            if key.revoked_at.is_some() { Ok(()) } else { Err("it lives".to_owned()) }
        })
        .await;
        let revoked_at = env.emulator.key(&old).unwrap().revoked_at.unwrap();
        assert!(revoked_at >= record.previous[0].revoke_after, "{revoked_at}: its overlap was not over");
        env.passes(2).await;
        env.judge("new-name").await;
        assert_eq!(env.revoked_ids(), [old.clone()].into());
        assert_eq!(env.emulator.count(Operation::Create), 2);
    };
    tokio::select! {
        () = story => {}
        wrong = watch => panic!("{wrong}"),
    }
}

/// A tenant gives its own Secret, which consents, the record of another's key.
#[tokio::test]
async fn a_forged_record_has_nobodys_key_revoked() {
    let env = TestEnv::new().await;
    let gone = retained(&env, "gone", "gone").await;
    let template = env.record("gone").await;
    env.create("lives", json!({})).await;
    let lives = env.id_of("lives").await;
    let of_lives = env.record("lives").await;
    let person = env.emulator.create_foreign("a person's key").unwrap();
    let marker = "550e8400e29b41d4.0123456789ab";
    let other_cluster = env.emulator.create_foreign(&format!("other bo.other-cluster.{marker}")).unwrap();
    let hash = value_sha256(b"made by hand");
    let claims = [
        ("gone-key", Record { value_sha256: hash.clone(), ..template.clone() }),
        ("live-key", Record { value_sha256: hash.clone(), owner_uid: "invented".to_owned(), ..of_lives }),
        ("person-key", Record { value_sha256: hash.clone(), key_id: person.clone(), ..template.clone() }),
        (
            "other-key",
            Record { value_sha256: hash.clone(), key_id: other_cluster.clone(), ..template.clone() },
        ),
    ];
    let expected: std::collections::BTreeSet<String> =
        [&gone, &lives, &person, &other_cluster].into_iter().cloned().collect();
    for (name, record) in &claims {
        let annotations = json!({CONSENT: name, "boltz.bio/record": record.to_annotation()});
        make(&env, name, json!({"metadata": {"name": name, "annotations": annotations}})).await;
        env.create(name, adopting(name, "1s")).await;
    }
    for (name, record) in &claims {
        env.ready(name).await;
        let now = env.record(name).await;
        assert!(!now.names(&record.key_id), "{name}: {now:?}");
        // Now it forges a proof.
        let mut forged = serde_json::to_value(&now).unwrap();
        let entry =
            json!({"keyID": record.key_id, "revokeAfter": "2020-01-01T00:00:00Z", "adopted": "a".repeat(64)});
        forged["previous"] = json!([entry]);
        annotate_secret(&env, name, json!({"boltz.bio/record": forged.to_string()})).await;
    }
    env.passes(8).await;
    assert!(env.active_ids().is_superset(&expected), "{:?} lack some of {expected:?}", env.active_ids());
    assert!(env.revoked_ids().is_disjoint(&expected));
    for (name, _) in &claims {
        env.ready(name).await;
    }
}

/// The last word on a key is the key's: a Secret that holds the value of another key than its record says.
#[tokio::test]
async fn a_value_that_is_another_key_proves_nothing() {
    let env = TestEnv::new().await;
    let gone = retained(&env, "gone", "gone").await;
    let template = env.record("gone").await;
    env.create("lives", json!({})).await;
    let lives = env.id_of("lives").await;
    let (value, of_lives) = (env.value("lives").await, env.record("lives").await);
    let hash = value_sha256(value.as_bytes());
    let claims = [
        ("names-another", Record { value_sha256: hash, ..template }),
        // Who has the value of a key, and says that its object is gone.
        ("invents-an-owner", Record { owner_uid: "invented".to_owned(), ..of_lives }),
    ];
    for (name, record) in claims {
        let annotations = json!({CONSENT: name, "boltz.bio/record": record.to_annotation()});
        let metadata = json!({"name": name, "annotations": annotations});
        make(&env, name, json!({"metadata": metadata, "stringData": {"BOLTZ_API_KEY": value}})).await;
        env.create(name, adopting(name, "1s")).await;
    }
    for name in ["names-another", "invents-an-owner"] {
        env.ready(name).await;
        assert!(env.record(name).await.previous.is_empty(), "{name}");
    }
    env.passes(6).await;
    assert!(env.active_ids().is_superset(&[gone, lives].into()));
    env.secrets().delete("gone", &DeleteParams::default()).await.unwrap();
    env.until_orphaned(1).await;
}

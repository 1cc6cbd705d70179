//! Orphans are published, and revoked on request.

use super::Plugin;
use crate::test_env::{EnvOptions, PATIENCE, TestEnv};
use boltz_harness::eventually;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value as Json, json};

const NAME: &str = "boltz-operator-orphans";

struct Published {
    api: Api<ConfigMap>,
    cluster: String,
}

impl Published {
    async fn value(&self, key: &str) -> Json {
        let data = self.api.get_opt(NAME).await.unwrap().and_then(|found| found.data).unwrap_or_default();
        let text = data.get(&format!("{}.{key}", self.cluster)).map(String::as_str).unwrap_or("null");
        serde_json::from_str(text).unwrap()
    }

    async fn until(&self, what: &str, key: &str, is_so: impl Fn(&Json) -> bool) -> Json {
        eventually(PATIENCE, what, async || {
            let value = self.value(key).await;
            if is_so(&value) { Ok(value) } else { Err(value.to_string()) }
        })
        .await
        .unwrap()
    }

    /// A request that the program would not make.
    async fn ask(&self, id: &str, key_ids: &[&String], older_than: &str) -> Json {
        let request = json!({"id": id, "keyIDs": key_ids, "olderThan": older_than}).to_string();
        let patch = json!({"data": {format!("{}.revoke", self.cluster): request}});
        self.api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let response = self.until("a response", "revoked", |response| response["request"] == id).await;
        response["results"].clone()
    }
}

#[tokio::test]
async fn orphans_are_published_and_only_orphans_are_revoked_on_request() {
    let mut env = TestEnv::with_options(EnvOptions {
        own_control_plane: true,
        all_namespaces: true,
        ..EnvOptions::default()
    })
    .await;
    env.create("mine", json!({})).await;
    let mine = env.id_of("mine").await;
    let make = |attempt: &str| {
        let name = format!("x bo.{}.550e8400e29b41d4.{attempt}", env.namespace);
        env.emulator.create_foreign(&name).unwrap()
    };
    let (one, two) = (make("0123456789ab"), make("0123456789ac"));
    let published = Published {
        api: Api::namespaced(env.client.clone(), "boltz-system"),
        cluster: env.namespace.clone(),
    };
    let list = published.until("two orphans", "orphans", |list| list["count"] == 2).await;
    assert_eq!(list["orphans"][0]["object"], "550e8400e29b41d4");
    // Without a change nothing is written.
    let version = async || published.api.get(NAME).await.unwrap().metadata.resource_version;
    let before = version().await;
    env.passes(3).await;
    assert_eq!(version().await, before);

    // What is no orphan, or too young, stays, whoever asks.
    let results = published.ask("1", &[&mine, &one], "24h").await;
    assert_eq!(results[&mine], json!({"isRevoked": false, "message": "not an orphan"}));
    assert!(results[&one]["message"].as_str().unwrap().starts_with("an orphan only since"), "{results}");
    assert_eq!(env.active_ids(), [mine.clone(), one.clone(), two.clone()].into());

    let viewer = Plugin::of_admin(&env);
    let said = viewer.expect(0, &["orphans"]);
    assert!(said.out.contains(&one) && said.out.contains(&two), "{said:?}");
    let said = viewer.expect(0, &["keys", "-A"]);
    assert!(said.out.contains(&one) && said.out.contains(&mine), "{said:?}");
    let said = viewer.expect(0, &["whose", &one]);
    assert!(said.out.contains("an orphan"), "{said:?}");
    viewer.run(&["orphans", "--revoke", "--yes"]).fails_with(1, "no orphan is that old");
    let said = viewer.expect(0, &["orphans", "--revoke", "--yes", "--older-than", "0s", &one]);
    assert_eq!(said.out, format!("{one} revoked\n"));
    assert_eq!(env.active_ids(), [mine.clone(), two.clone()].into());
    published.until("one orphan", "orphans", |list| list["count"] == 1).await;

    // A restart forgets neither since when a key is an orphan, nor that the request was responded to.
    let since = published.value("orphans").await["orphans"][0]["orphanedSince"].clone();
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    env.passes(4).await;
    assert_eq!(published.value("orphans").await["orphans"][0]["orphanedSince"], since);
    assert_eq!(env.active_ids(), [mine.clone(), two.clone()].into());

    // One request reads everything once, however many keys it names.
    let (three, four) = (make("0123456789ad"), make("0123456789ae"));
    published.until("three orphans", "orphans", |list| list["count"] == 3).await;
    let asked_at = Timestamp::now();
    let results = published.ask("many", &[&two, &three, &four], "0s").await;
    assert_eq!(env.active_ids(), [mine].into(), "{results}");
    let lists = |resource: &str| {
        let events = env.control_plane.audit_events().into_iter();
        let lists = events.filter(|event| {
            event.user.username.starts_with("system:serviceaccount:boltz-system:")
                && event.verb == "list"
                && event.object_ref.resource == resource
                && event.received >= asked_at
        });
        lists.count()
    };
    assert_eq!((lists("boltzapikeys"), lists("secrets")), (1, 1));
}

#[tokio::test]
async fn who_watches_only_some_namespaces_revokes_no_orphans_on_request() {
    let env = TestEnv::new().await;
    let name = format!("x bo.{}.550e8400e29b41d4.0123456789ab", env.namespace);
    let orphan = env.emulator.create_foreign(&name).unwrap();
    let published = Published {
        api: Api::namespaced(env.client.clone(), "boltz-system"),
        cluster: env.namespace.clone(),
    };
    published.until("an orphan", "orphans", |list| list["count"] == 1).await;
    let results = published.ask("1", &[&orphan], "0s").await;
    assert!(results[&orphan]["message"].as_str().unwrap().contains("only some namespaces"), "{results}");
    assert!(env.active_ids().contains(&orphan));
}

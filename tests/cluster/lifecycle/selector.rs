//! `--label-selector` and `--watch-namespaces`: an object that leaves them is another installation's, and so is its key.

use crate::test_env::{EnvOptions, TestEnv, owned};
use boltz_emulator::Operation;
use serde_json::json;

#[tokio::test]
async fn an_object_that_leaves_the_selector_has_no_series_and_none_is_issued_when_it_returns() {
    let env = TestEnv::with_options(EnvOptions {
        arguments: owned(&["--label-selector", "shard=a"]),
        ..EnvOptions::default()
    })
    .await;
    let shard = |shard: &str| json!({"metadata": {"labels": {"shard": shard}}});
    for name in ["leaves", "stays"] {
        env.create(name, json!({})).await;
        env.patch(name, shard("a")).await;
        env.ready(name).await;
    }
    let has_series = |metrics: &str, name: &str| metrics.contains(&format!("name=\"{name}\""));
    env.until_metrics("both have series", |metrics| {
        has_series(metrics, "leaves") && has_series(metrics, "stays")
    })
    .await;
    env.patch("leaves", shard("b")).await;
    env.until_metrics("only one has series", |metrics| {
        !has_series(metrics, "leaves") && has_series(metrics, "stays")
    })
    .await;
    let log = env.operator.log();
    assert!(log.contains("does not match --label-selector any more"), "{log}");
    // Nothing is done to it.
    env.annotate("leaves", "boltz.bio/rotate", "1").await;
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
    // Until it comes back.
    env.patch("leaves", shard("a")).await;
    env.until("leaves", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
    })
    .await;
    env.until_metrics("both have series", |metrics| has_series(metrics, "leaves")).await;
    assert_eq!(env.emulator.count(Operation::Create), 3);
}

/// The orphans that an operator counts.
async fn orphans(operator: &boltz_harness::OperatorProcess) -> Option<String> {
    let metrics = operator.get("/metrics").await.unwrap();
    metrics.lines().find_map(|line| line.strip_prefix("boltz_orphaned_keys ")).map(str::to_owned)
}

#[tokio::test]
async fn two_shards_of_one_cluster_name_leave_each_others_objects_alone() {
    let env = TestEnv::with_options(EnvOptions {
        arguments: owned(&["--label-selector", "shard=a"]),
        ..EnvOptions::default()
    })
    .await;
    let other = env.another(&["--label-selector", "shard=b"]).await;
    let shard = |shard: &str| json!({"metadata": {"labels": {"shard": shard}}});
    let all = ["a-1", "a-2", "b-1", "b-2"];
    for name in all {
        env.create(name, json!({})).await;
        env.patch(name, shard(&name[..1])).await;
    }
    for name in all {
        env.ready(name).await;
    }
    env.passes(6).await;
    assert_eq!(env.emulator.count(Operation::Create), 4);
    assert_eq!((orphans(&env.operator).await, orphans(&other).await), (Some("0".into()), Some("0".into())));
    // An object moves, without a new key, and is served.
    env.patch("a-1", shard("b")).await;
    env.until_metrics("it is gone here", |metrics| !metrics.contains("name=\"a-1\"")).await;
    env.annotate("a-1", "boltz.bio/rotate", "1").await;
    env.until("a-1", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
    })
    .await;
    assert_eq!(env.emulator.count(Operation::Create), 5);
    let steps = |log: &str, name: &str| log.matches(&format!("name=\"{name}\"")).count();
    for (own, foreign, log) in [("a-2", "b-1", env.operator.log()), ("b-2", "a-2", other.log())] {
        assert!(steps(&log, own) > 0 && steps(&log, foreign) == 0, "{log}");
    }
    for name in all {
        env.delete(name).await;
        env.gone(name).await;
    }
    env.until_active(0).await;
}

#[tokio::test]
async fn a_key_that_an_object_elsewhere_names_is_no_orphan() {
    let env = TestEnv::new().await;
    let elsewhere = format!("{}-elsewhere", env.namespace);
    crate::test_env::create_namespace(&env.client, &elsewhere).await;
    let other = env.another(&["--watch-namespaces", &elsewhere]).await;
    let object = env.create("here", json!({})).await;
    let objects: kube::Api<boltz_operator::api::BoltzApiKey> =
        kube::Api::namespaced(env.client.clone(), &elsewhere);
    let metadata = json!({"name": "there"});
    let there = serde_json::from_value(json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": metadata, "spec": object.spec,
    }));
    objects.create(&kube::api::PostParams::default(), &there.unwrap()).await.unwrap();
    env.ready("here").await;
    env.until_active(2).await;
    env.passes(8).await;
    assert_eq!((orphans(&env.operator).await, orphans(&other).await), (Some("0".into()), Some("0".into())));
    // One that nothing names is one. The other operator would put the finalizer back.
    drop(other);
    let patch = json!({"metadata": {"finalizers": null}});
    objects
        .patch("there", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(patch))
        .await
        .unwrap();
    objects.delete("there", &kube::api::DeleteParams::default()).await.unwrap();
    env.until_metric("boltz_orphaned_keys 1").await;
}

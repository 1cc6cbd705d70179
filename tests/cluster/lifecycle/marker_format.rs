//! The two formats of the marker: an operator writes one and reads both.

use crate::test_env::{EnvOptions, TestEnv, owned};
use boltz_emulator::Operation;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::ListParams};
use serde_json::json;
use std::collections::BTreeSet;

/// The objects: of the first the replaced keys are needed all the time, of the second they go.
const KEEPS: &str = "design-keeps-1";
const DROPS: &str = "design-drops-1";

/// Starts the operator anew with that format, and waits until it would have reported and revoked what it takes for
/// orphaned. At rest, nothing comes of it.
async fn switch(env: &mut TestEnv, format: &str) {
    assert_innocent(env).await;
    let seen = |env: &TestEnv| (env.emulator.count(Operation::Create), env.revoked_ids());
    let before = seen(env);
    let kubeconfig = env.control_plane.kubeconfig("operator");
    env.replace_operator(&kubeconfig, &["--marker-format", format]);
    env.operator.wait_ready().await.unwrap();
    env.passes(5).await;
    assert_eq!(seen(env), before, "format {format}");
    assert_innocent(env).await;
}

/// What this process has seen: no orphan, no stray, no pass that lacks keys.
async fn assert_innocent(env: &TestEnv) {
    for line in ["boltz_orphaned_keys 0", "boltz_strays_revoked_total 0", "boltz_inventory_doubtful 0"] {
        env.until_metric(line).await;
    }
    let log = env.operator.log();
    assert!(!log.contains("orphaned key"), "{log}");
}

/// Rotates an object, and answers the name of its new key.
async fn rotate(env: &TestEnv, name: &str, value: &str) -> String {
    let before = env.id_of(name).await;
    env.annotate(name, "boltz.bio/rotate", value).await;
    let is_new = |id: &String| *id != before;
    env.until(name, "a new key", |object| {
        object.status.as_ref().and_then(|status| status.key_id.as_ref()).is_some_and(is_new)
    })
    .await;
    name_of_current(env, name).await
}

async fn name_of_current(env: &TestEnv, name: &str) -> String {
    env.emulator.key(&env.id_of(name).await).unwrap().name
}

/// Waits until only the current key of the object is left, and every active key is accounted for.
async fn until_overlap_is_over(env: &TestEnv) {
    env.until(DROPS, "the end of the overlap", |object| {
        object.status.as_ref().is_some_and(|status| status.previous_keys.is_empty())
    })
    .await;
    env.judge_all(&[KEEPS, DROPS], &[]).await;
}

#[tokio::test]
async fn a_switch_of_the_markers_format_and_a_rollback_keep_every_key_ours() {
    // What counts as orphaned is revoked at once, so that a mistake shows. The cluster has no name: the default differs.
    let arguments = ["--orphan-policy", "revoke", "--orphan-grace", "1s", "--settle-time", "4s"];
    let mut env = TestEnv::with_options(EnvOptions {
        arguments: owned(&arguments),
        own_control_plane: true,
        without: vec!["--cluster-name", "--watch-namespaces"],
        ..EnvOptions::default()
    })
    .await;
    env.create(KEEPS, json!({"rotation": {"overlap": "1h"}})).await;
    env.create(DROPS, json!({"rotation": {"overlap": "1s"}})).await;
    let shown = |name: &str| format!("{}/{name} b2.", env.namespace);
    let (keeps, drops) = (shown(KEEPS), shown(DROPS));
    for name in [KEEPS, DROPS] {
        let of_key = name_of_current(&env, name).await;
        assert!(of_key.contains(" bo.") && !of_key.contains(name), "cut, in format 1: {of_key}");
    }

    // Format 2: its first keys replace those of format 1, of which one is revoked.
    switch(&mut env, "2").await;
    let of_key = rotate(&env, KEEPS, "1").await;
    assert!(of_key.starts_with(&keeps), "{of_key}");
    let of_key = rotate(&env, DROPS, "1").await;
    assert!(of_key.starts_with(&drops), "{of_key}");
    until_overlap_is_over(&env).await;
    assert_eq!(env.active_ids().len(), 3);

    // Back to format 1, with a current and a previous key of format 2.
    switch(&mut env, "1").await;
    let of_key = rotate(&env, DROPS, "2").await;
    assert!(of_key.contains(" bo."), "{of_key}");
    until_overlap_is_over(&env).await;
    // Both of its keys are revoked: one of either format.
    env.delete(KEEPS).await;
    env.gone(KEEPS).await;
    env.judge(DROPS).await;
    assert_eq!(env.active_ids().len(), 1);

    // Format 2 again: what is left is of format 1.
    switch(&mut env, "2").await;
    env.delete(DROPS).await;
    env.gone(DROPS).await;
    env.until_active(0).await;
    assert_innocent(&env).await;

    // What is remembered is where it was, whatever was written.
    let config_maps = Api::<ConfigMap>::namespaced(env.client.clone(), "boltz-system");
    let found = config_maps.list(&ListParams::default()).await.unwrap();
    let data = found.iter().filter(|found| {
        let name = found.metadata.name.as_deref().unwrap_or_default();
        name.ends_with("-account") || name.ends_with("-orphans")
    });
    let keys: Vec<&String> = data.flat_map(|found| found.data.iter().flatten()).map(|(key, _)| key).collect();
    let clusters: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    assert!(clusters.len() == 1 && keys.len() > 3, "{keys:?}");
}

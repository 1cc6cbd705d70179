//! Issuing, storing, reporting; and how few writes that takes.

use crate::test_env::{PATIENCE, TestEnv, is};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use kube::ResourceExt;
use serde_json::json;

#[tokio::test]
async fn a_key_is_issued_stored_and_reported_with_three_writes() {
    let mut env = TestEnv::new().await;
    env.create("first", json!({"expiresInDays": 90})).await;
    env.judge("first").await;
    let three = ["patch boltzapikeys  -> 200", "create secrets  -> 201", "patch boltzapikeys status -> 200"];
    assert_eq!(env.writes(), three);

    // Steady state: nothing is written while the list is read again and again.
    env.passes(3).await;
    assert_eq!(env.writes(), three);

    // Neither over a restart.
    assert_eq!(env.operator.terminate(), Some(0));
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    env.passes(3).await;
    assert_eq!(env.writes(), three);
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.judge("first").await;
}

#[tokio::test]
async fn many_objects_at_once_cost_a_dry_run_and_three_writes_each() {
    let env = TestEnv::new().await;
    let names: Vec<String> = (0..40).map(|number| format!("many-{number}")).collect();
    for name in &names {
        env.create(name, json!({})).await;
    }
    for name in &names {
        env.ready(name).await;
    }
    assert_eq!(env.writes().len(), 3 * names.len());
    let dry_runs = env.control_plane.audit_events_where(|event| {
        event.is_dry_run()
            && event.user.username == boltz_harness::OPERATOR_USER
            && event.object_ref.namespace == env.namespace
    });
    assert_eq!(dry_runs.len(), names.len());
    assert_eq!(env.emulator.count(Operation::Create), names.len());
}

/// Six keys at once, then one each second: who waits makes no call.
#[tokio::test]
async fn under_a_small_budget_each_key_costs_one_dry_run() {
    let arguments = crate::test_env::owned(&["--max-mints-per-minute", "60"]);
    let options = crate::test_env::EnvOptions { arguments, ..Default::default() };
    let env = TestEnv::with_options(options).await;
    let names: Vec<String> = (0..16).map(|number| format!("slow-{number}")).collect();
    for name in &names {
        env.create(name, json!({})).await;
    }
    env.not_ready(&names[15], "MintBudgetExceeded").await;
    for name in &names {
        env.ready(name).await;
    }
    let dry_runs = env.control_plane.audit_events_where(|event| {
        event.is_dry_run()
            && event.user.username == boltz_harness::OPERATOR_USER
            && event.object_ref.namespace == env.namespace
    });
    assert_eq!(dry_runs.len(), names.len());
}

#[tokio::test]
async fn status_and_secret_say_what_boltz_answered() {
    let env = TestEnv::new().await;
    env.create(
        "told",
        json!({
            "displayName": "Design team", "workspaceID": "ws_7", "mode": "test", "expiresInDays": 30,
            "allowedIPs": ["192.0.2.1", "2001:db8::1"],
            "secret": {"template": {"labels": {"team": "design"}, "annotations": {"note": "theirs"}}},
        }),
    )
    .await;
    env.judge("told").await;
    let [key] = env.emulator.keys().try_into().unwrap();
    assert!(key.name.starts_with("Design team bo."), "{}", key.name);
    assert_eq!(key.allowed_ips, ["192.0.2.1", "2001:db8::1"]);
    let object = env.get("told").await;
    let status = object.status.clone().unwrap();
    assert_eq!(status.key_prefix.as_deref(), Some(key.prefix()));
    assert_eq!(status.workspace_id.as_deref(), Some("ws_7"));
    assert_eq!(status.livemode, Some(false));
    assert_eq!(status.is_active, Some(true));
    assert_eq!(status.secret_name.as_deref(), Some("told"));
    assert_eq!(
        status.expires_at.unwrap().0.as_second(),
        key.expires_at.unwrap().as_second(),
        "the expiry is the answered one"
    );
    assert!(!is(&object, "Reconciling") && !is(&object, "Stalled"));
    let secret = env.secret("told").await;
    assert_eq!(secret.labels()["team"], "design");
    assert_eq!(secret.annotations()["note"], "theirs");
    let [owner] = secret.owner_references() else { panic!("one owner") };
    assert_eq!(Some(&owner.uid), object.uid().as_ref());
}

#[tokio::test]
async fn nothing_is_issued_while_suspended() {
    let env = TestEnv::new().await;
    env.create("paused", json!({"suspend": true})).await;
    env.not_ready("paused", "Suspended").await;
    assert_eq!(env.emulator.count(Operation::Create), 0);
    let line = |metric| format!(r#"boltz_apikey_{metric}{{namespace="{}",name="paused"}}"#, env.namespace);
    eventually(PATIENCE, "it is shown, and nobody is alerted", async || {
        let metrics = env.operator.get("/metrics").await?;
        let is_shown = |metric| metrics.contains(&line(metric));
        if is_shown("active") && !is_shown("ready") { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();
    env.patch("paused", json!({"spec": {"suspend": false}})).await;
    env.judge("paused").await;
    env.until_metric(&format!("{} 1", line("ready"))).await;
    env.patch("paused", json!({"spec": {"suspend": true}})).await;
    let object = env.until("paused", "Suspended", |object| {
        crate::test_env::condition(object, "Ready").is_some_and(|condition| condition.reason == "Suspended")
    });
    assert!(is(&object.await, "Ready"), "a working key stays Ready");
    env.annotate("paused", "boltz.bio/rotate", "now").await;
    env.passes(2).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.delete("paused").await;
    env.gone("paused").await;
    assert!(env.active_ids().is_empty(), "deletion works while suspended");
}

#[tokio::test]
async fn many_objects_at_once_get_one_key_each() {
    let env = TestEnv::new().await;
    let names: Vec<String> = (0..40).map(|index| format!("key-{index}")).collect();
    for name in &names {
        env.create(name, json!({})).await;
    }
    for name in &names {
        let object = env.ready(name).await;
        let id = env.emulator.authenticate(&env.value(name).await);
        assert_eq!(object.status.unwrap().key_id, id);
    }
    assert_eq!(env.emulator.count(Operation::Create), 40);
    assert_eq!(env.writes().len(), 120);
}

#[tokio::test]
async fn a_stripped_finalizer_comes_back() {
    let env = TestEnv::new().await;
    env.create("bare", json!({})).await;
    env.ready("bare").await;
    env.patch("bare", json!({"metadata": {"finalizers": []}})).await;
    env.until("bare", "the finalizer is back", |object| !object.finalizers().is_empty()).await;
    env.judge("bare").await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

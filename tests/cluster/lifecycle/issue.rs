//! Issuing, storing, reporting; and how few writes that takes.

use crate::test_env::{Bed, PATIENCE, is};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use kube::ResourceExt;
use serde_json::json;

#[tokio::test]
async fn a_key_is_issued_stored_and_reported_with_three_writes() {
    let mut bed = Bed::new().await;
    bed.create("first", json!({"expiresInDays": 90})).await;
    bed.judge("first").await;
    let three = ["patch boltzapikeys  -> 200", "create secrets  -> 201", "patch boltzapikeys status -> 200"];
    assert_eq!(bed.writes(), three);

    // Steady state: nothing is written while the list is read again and again.
    bed.passes(3).await;
    assert_eq!(bed.writes(), three);

    // Neither over a restart.
    assert_eq!(bed.operator.terminate(), Some(0));
    bed.operator.restart().unwrap();
    bed.operator.wait_ready().await.unwrap();
    bed.passes(3).await;
    assert_eq!(bed.writes(), three);
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    bed.judge("first").await;
}

#[tokio::test]
async fn status_and_secret_say_what_boltz_answered() {
    let bed = Bed::new().await;
    bed.create(
        "told",
        json!({
            "displayName": "Design team", "workspaceID": "ws_7", "mode": "test", "expiresInDays": 30,
            "allowedIPs": ["192.0.2.1", "2001:db8::1"],
            "secret": {"template": {"labels": {"team": "design"}, "annotations": {"note": "theirs"}}},
        }),
    )
    .await;
    bed.judge("told").await;
    let [key] = bed.emulator.keys().try_into().unwrap();
    assert!(key.name.starts_with("Design team bo."), "{}", key.name);
    assert_eq!(key.allowed_ips, ["192.0.2.1", "2001:db8::1"]);
    let object = bed.get("told").await;
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
    let secret = bed.secret("told").await;
    assert_eq!(secret.labels()["team"], "design");
    assert_eq!(secret.annotations()["note"], "theirs");
    let [owner] = secret.owner_references() else { panic!("one owner") };
    assert_eq!(Some(&owner.uid), object.uid().as_ref());
}

#[tokio::test]
async fn nothing_is_issued_while_suspended() {
    let bed = Bed::new().await;
    bed.create("paused", json!({"suspend": true})).await;
    bed.not_ready("paused", "Suspended").await;
    assert_eq!(bed.emulator.count(Operation::Create), 0);
    let line = |metric| format!(r#"boltz_apikey_{metric}{{namespace="{}",name="paused"}}"#, bed.namespace);
    eventually(PATIENCE, "it is shown, and nobody is alerted", async || {
        let metrics = bed.operator.get("/metrics").await?;
        let is_shown = |metric| metrics.contains(&line(metric));
        if is_shown("active") && !is_shown("ready") { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();
    bed.patch("paused", json!({"spec": {"suspend": false}})).await;
    bed.judge("paused").await;
    bed.until_metric(&format!("{} 1", line("ready"))).await;
    bed.patch("paused", json!({"spec": {"suspend": true}})).await;
    let object = bed.until("paused", "Suspended", |object| {
        crate::test_env::condition(object, "Ready").is_some_and(|condition| condition.reason == "Suspended")
    });
    assert!(is(&object.await, "Ready"), "a working key stays Ready");
    bed.annotate("paused", "boltz.bio/rotate", "now").await;
    bed.passes(2).await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    bed.delete("paused").await;
    bed.gone("paused").await;
    assert!(bed.active_ids().is_empty(), "deletion works while suspended");
}

#[tokio::test]
async fn many_objects_at_once_get_one_key_each() {
    let bed = Bed::new().await;
    let names: Vec<String> = (0..40).map(|index| format!("key-{index}")).collect();
    for name in &names {
        bed.create(name, json!({})).await;
    }
    for name in &names {
        let object = bed.ready(name).await;
        let id = bed.emulator.authenticate(&bed.value(name).await);
        assert_eq!(object.status.unwrap().key_id, id);
    }
    assert_eq!(bed.emulator.count(Operation::Create), 40);
    assert_eq!(bed.writes().len(), 120);
}

#[tokio::test]
async fn a_stripped_finalizer_comes_back() {
    let bed = Bed::new().await;
    bed.create("bare", json!({})).await;
    bed.ready("bare").await;
    bed.patch("bare", json!({"metadata": {"finalizers": []}})).await;
    bed.until("bare", "the finalizer is back", |object| !object.finalizers().is_empty()).await;
    bed.judge("bare").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
}

//! The annotation `boltz.bio/paused`, against a real API server.

use crate::test_env::{TestEnv, condition, is, value_of};
use boltz_emulator::Operation;
use serde_json::json;

const PAUSED: &str = "boltz.bio/paused";

#[tokio::test]
async fn a_pause_stops_what_workloads_could_notice() {
    let env = TestEnv::settling_fast().await;
    env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    env.judge("key").await;
    env.annotate("key", PAUSED, "true").await;
    let paused = |object: &boltz_operator::api::BoltzApiKey| {
        condition(object, "Ready").is_some_and(|ready| ready.reason == "Paused")
    };
    let object = env.until("key", "Paused", paused).await;
    assert!(is(&object, "Ready"), "a working key stays Ready");
    let line = |metric, value| {
        format!(r#"boltz_apikey_{metric}{{namespace="{}",name="key"}} {value}"#, env.namespace)
    };
    env.until_metric(&line("paused", 1)).await;

    let before = env.secret("key").await;
    env.annotate("key", "boltz.bio/rotate-now", "leaked").await;
    let spec = json!({"secret": {"key": "OTHER", "template": {"labels": {"team": "a"}}}});
    env.patch("key", json!({"spec": spec})).await;
    env.until("key", "seen", crate::test_env::observed).await;
    env.passes(3).await;
    assert_eq!(env.secret("key").await, before);
    assert_eq!((env.emulator.count(Operation::Create), env.emulator.count(Operation::Revoke)), (1, 0));

    env.patch("key", json!({"metadata": {"annotations": {PAUSED: null}}})).await;
    env.wait("the leaked key is replaced", || match env.emulator.count(Operation::Revoke) {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    env.judge("key").await;
    let after = env.secret("key").await;
    assert!(!value_of(&after, "OTHER").is_empty());
    assert_eq!(env.emulator.count(Operation::Create), 2);
    env.until_metric(&line("paused", 0)).await;

    env.annotate("key", PAUSED, "true").await;
    env.until("key", "Paused", paused).await;
    env.delete("key").await;
    env.gone("key").await;
    assert!(env.active_ids().is_empty(), "a deletion ends the pause");
}

#[tokio::test]
async fn a_paused_object_gets_no_first_key() {
    let env = TestEnv::new().await;
    let object = json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
        "metadata": {"name": "early", "annotations": {PAUSED: "true"}}, "spec": {},
    });
    env.objects().create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    env.not_ready("early", "Paused").await;
    assert_eq!(env.emulator.count(Operation::Create), 0);
    env.annotate("early", PAUSED, "false").await;
    env.judge("early").await;
}

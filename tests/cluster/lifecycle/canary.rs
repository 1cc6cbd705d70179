//! The secret value is in the Secret's body, and nowhere else.

use crate::test_env::{EnvOptions, TestEnv, is};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn no_log_line_status_event_or_metric_holds_a_secret_value() {
    let trace = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
    let mut env = TestEnv::with_options(EnvOptions { environment: trace, ..EnvOptions::default() }).await;
    env.create("canary", json!({"rotation": {"overlap": "1s"}})).await;
    env.ready("canary").await;
    let mut round = 0;
    let mut delivered = BTreeSet::new();
    for outcome in [Outcome::Truncated(90), Outcome::Foreign("[]".to_owned()), Outcome::status(500)] {
        round += 1;
        let old = env.get("canary").await.status.unwrap().key_id;
        delivered.extend(old.clone());
        env.emulator.inject(Fault::once(Operation::Create, Effect::Before, outcome));
        env.annotate("canary", "boltz.bio/rotate", &round.to_string()).await;
        env.until("canary", "rotated", |object| {
            is(object, "Ready") && object.status.as_ref().is_some_and(|status| status.key_id != old)
        })
        .await;
    }
    env.patch("canary", json!({"spec": {"secret": {"name": "moved", "key": "TOKEN"}}})).await;
    env.until("canary", "moved", |object| {
        object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
    })
    .await;
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    env.secrets().patch("moved", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    env.operator.terminate();
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    env.passes(2).await;
    env.secrets().delete("moved", &DeleteParams::default()).await.unwrap();
    env.passes(2).await;
    let metrics = env.operator.get("/metrics").await.unwrap();
    let object = serde_json::to_string(&env.get("canary").await).unwrap();
    let events = env.control_plane.kubectl(&["get", "events", "-n", &env.namespace, "-o", "yaml"]).unwrap();
    env.delete("canary").await;
    env.gone("canary").await;
    let log = env.operator.log();
    assert!(log.contains("TRACE"), "the log is really at TRACE");
    for key in env.emulator.keys().iter().filter(|key| delivered.contains(&key.id)) {
        assert!(log.contains(&key.id), "the log speaks of the key {}", key.id);
    }
    let keys = env.emulator.keys();
    assert!(keys.len() >= 7, "there were values to leak: {}", keys.len());
    let values = keys.iter().map(|key| key.plaintext.as_str()).chain([env.emulator.admin_key()]);
    for value in values {
        // Base64 as in a Secret's body: of the middle, whatever the alignment.
        let encoded = json!(k8s_openapi::ByteString(value.as_bytes().to_vec()));
        let encoded = encoded.as_str().unwrap().trim_end_matches('=');
        for (place, text) in [("log", &log), ("metrics", &metrics), ("object", &object), ("events", &events)]
        {
            for form in [value, &value[20..], &encoded[..encoded.len() - 2]] {
                if let Some(at) = text.find(form) {
                    let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                    panic!("a secret value stands in the {place}: {}", &text[line..at]);
                }
            }
        }
    }
}

//! The secret value is in the Secret's body, and nowhere else.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, is};
use boltz_emulator::{Effect, Fault, Operation, Outcome, StandingFault};
use boltz_harness::eventually;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test]
async fn no_log_line_status_event_metric_or_debug_page_holds_a_secret_value() {
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
    // With all that it can show: a key that waits, a pause, and why.
    let body = json!({"code": "DOWN", "message": format!("the key {} is down", env.emulator.admin_key())});
    let down = Outcome::Status { status: 503, headers: BTreeMap::new(), body: Some(body.to_string()) };
    env.emulator.stand("down", StandingFault::of(Fault::once(Operation::Create, Effect::None, down)));
    env.create("waits", json!({})).await;
    let mut debug = String::new();
    eventually(PATIENCE, "/debug shows the pause", async || {
        debug = env.operator.get("/debug").await?;
        let seen: serde_json::Value = serde_json::from_str(&debug).map_err(|error| error.to_string())?;
        let is_shown = seen["isLeader"] == true
            && seen["account"]["pauses"][0]["reason"] == "BoltzUnavailable"
            && seen["account"]["mintQueue"]["waiting"][0]["name"] == "waits"
            && seen["inventory"]["passes"][1]["keys"].is_number()
            && seen["reconcileQueue"] == json!({"length": 0, "waiting": []})
            && seen["stuck"] == json!([]);
        if is_shown { Ok(()) } else { Err(debug.clone()) }
    })
    .await
    .unwrap();
    assert!(debug.contains("DOWN: the key [redacted] is down"), "{debug}");
    env.emulator.lift("down");
    // What `ps` shows, and the environment, which is no secret either.
    let of_process = |file: &str| {
        let text = std::fs::read(format!("/proc/{}/{file}", env.operator.process().pid())).unwrap();
        assert!(!text.is_empty(), "{file} can be read here");
        String::from_utf8_lossy(&text).into_owned()
    };
    let (arguments, environment) = (of_process("cmdline"), of_process("environ"));
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
        for (place, text) in [
            ("log", &log),
            ("metrics", &metrics),
            ("debug", &debug),
            ("object", &object),
            ("events", &events),
            ("arguments", &arguments),
            ("environment", &environment),
        ] {
            for form in [value, &value[20..], &encoded[..encoded.len() - 2]] {
                if let Some(at) = text.find(form) {
                    let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                    panic!("a secret value stands in the {place}: {}", &text[line..at]);
                }
            }
        }
    }
}

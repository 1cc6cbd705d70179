//! The secret value is in the Secret's body, and nowhere else.

use crate::test_env::{Bed, Make, is};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn no_log_line_status_event_or_metric_holds_a_secret_value() {
    let trace = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
    let mut bed = Bed::make(Make { environment: trace, ..Make::default() }).await;
    bed.create("canary", json!({"rotation": {"overlap": "1s"}})).await;
    bed.ready("canary").await;
    let mut round = 0;
    for outcome in [Outcome::Truncated(90), Outcome::Foreign("[]".to_owned()), Outcome::status(500)] {
        round += 1;
        let old = bed.get("canary").await.status.unwrap().key_id;
        bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, outcome));
        bed.annotate("canary", "boltz.bio/rotate", &round.to_string()).await;
        bed.until("canary", "rotated", |object| {
            is(object, "Ready") && object.status.as_ref().is_some_and(|status| status.key_id != old)
        })
        .await;
    }
    bed.patch("canary", json!({"spec": {"secret": {"name": "moved", "key": "TOKEN"}}})).await;
    bed.until("canary", "moved", |object| {
        object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
    })
    .await;
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    bed.secrets().patch("moved", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    bed.operator.terminate();
    bed.operator.restart().unwrap();
    bed.operator.wait_ready().await.unwrap();
    bed.passes(2).await;
    bed.secrets().delete("moved", &DeleteParams::default()).await.unwrap();
    bed.passes(2).await;
    let metrics = bed.operator.get("/metrics").await.unwrap();
    let object = serde_json::to_string(&bed.get("canary").await).unwrap();
    let events = bed.control_plane.kubectl(&["get", "events", "-n", &bed.namespace, "-o", "yaml"]).unwrap();
    bed.delete("canary").await;
    bed.gone("canary").await;
    let log = bed.operator.log();
    assert!(log.contains("TRACE"), "the log is really at TRACE");
    assert!(log.len() > 20_000, "and not empty");
    let keys = bed.emulator.keys();
    assert!(keys.len() >= 7, "there were values to leak: {}", keys.len());
    let values = keys.iter().map(|key| key.plaintext.as_str()).chain([bed.emulator.admin_key()]);
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

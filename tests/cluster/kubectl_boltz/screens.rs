//! The screens of `docs/kubectl-boltz.md` are what the program shows. `SCREENS=write` writes them anew.

use super::{Plugin, look::run_pod};
use crate::test_env::{control_plane, create_namespace};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::path::Path;

const NAMESPACE: &str = "team-d";
/// Half an hour more than whole days, so that a slow test changes no day.
const HALF: SignedDuration = SignedDuration::from_mins(30);

fn after(days: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(24 * days) + HALF).strftime("%FT%TZ").to_string()
}

fn before(days: i64) -> String {
    (Timestamp::now() - SignedDuration::from_hours(24 * days) - HALF).strftime("%FT%TZ").to_string()
}

fn conditions(is_ready: bool, reason: &str, message: &str) -> Json {
    let condition = |kind: &str, is_true: bool, message: &str| {
        json!({
            "type": kind, "status": if is_true { "True" } else { "False" }, "reason": reason, "message": message,
            "lastTransitionTime": before(9), "observedGeneration": 1,
        })
    };
    json!([
        condition("Ready", is_ready, message),
        condition("Reconciling", false, ""),
        condition("Stalled", !is_ready, if is_ready { "" } else { message }),
    ])
}

/// The objects of the screens; no operator looks at them.
async fn set_up() -> Plugin {
    let control_plane = control_plane().await;
    let client = control_plane.admin_client().await.unwrap();
    create_namespace(&client, NAMESPACE).await;
    let objects: Api<boltz_operator::api::BoltzApiKey> = Api::namespaced(client.clone(), NAMESPACE);
    let issued = conditions(true, "Issued", "The Secret contains a valid key.");
    let taken = "The Secret \"reports\" exists and does not belong to this object.";
    for (name, spec, status) in [
        (
            "design",
            json!({"expiresInDays": 30}),
            json!({
                "conditions": issued, "keyID": "ky_b2f7", "keyPrefix": "sk_bc_work_l", "secretName": "design",
                "createdAt": before(9), "expiresAt": after(20), "renewalTime": after(10),
                "lastRotationTime": before(9), "lastUsedAt": before(2), "rotations": 1,
                "previousKeys": [{"keyID": "ky_91c0", "revokeAfter": after(1), "lastUsedAt": before(2)}],
            }),
        ),
        (
            "screening",
            json!({}),
            json!({
                "conditions": issued, "keyID": "ky_77d1", "keyPrefix": "sk_bc_work_l", "secretName": "screening",
                "createdAt": before(90), "lastUsedAt": before(60),
            }),
        ),
        ("reports", json!({}), json!({"conditions": conditions(false, "SecretConflict", taken)})),
    ] {
        let object = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": name}, "spec": spec,
        });
        objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let mut status = status;
        status["observedGeneration"] = json!(1);
        let patch = Patch::Merge(json!({"status": status}));
        objects.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    run_pod(&pods, NAMESPACE, "design-worker", "design", &before(30)).await;
    run_pod(&pods, NAMESPACE, "design-web", "design", &before(3)).await;
    Plugin::of(&control_plane, "viewer-of-screens", NAMESPACE, Some("view")).await
}

/// Dates and times of day differ from run to run: `2026-12-16 18:00 UTC`, `2026-12-16`.
fn without_dates(text: &str) -> String {
    let is_like = |word: &str, pattern: &str| {
        word.len() == pattern.len()
            && word.bytes().zip(pattern.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                like => byte == like,
            })
    };
    let mask = |word: &str| {
        let bare = word.trim_start_matches('(').trim_end();
        let pattern = ["0000-00-00", "00:00"].into_iter().find(|pattern| is_like(bare, pattern));
        pattern.map_or_else(|| word.to_owned(), |pattern| word.replace(bare, pattern))
    };
    text.split_inclusive([' ', '\n']).map(mask).collect()
}

#[tokio::test]
async fn the_screens_of_the_documentation_are_what_the_program_shows() {
    let viewer = set_up().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubectl-boltz.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let prompt = "```console\n$ kubectl boltz ";
    let (mut written, mut count) = (String::new(), 0);
    let mut parts = page.split(prompt);
    written.push_str(parts.next().unwrap());
    for part in parts {
        let (command, rest) = part.split_once('\n').unwrap();
        let (shown, rest) = rest.split_once("```").unwrap();
        let arguments: Vec<&str> = command.split(' ').collect();
        let said = viewer.run(&arguments);
        let is = said.out + &said.err;
        count += 1;
        if std::env::var_os("SCREENS").is_none() {
            assert_eq!(without_dates(shown), without_dates(&is), "kubectl boltz {command}");
        }
        written.push_str(&format!("{prompt}{command}\n{is}```{rest}"));
    }
    assert!(count > 5, "{count} screens");
    if std::env::var_os("SCREENS").is_some() {
        std::fs::write(file, written).unwrap();
    }
}

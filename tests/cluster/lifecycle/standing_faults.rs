//! The API server refuses, or fails at, what an object needs, and goes on doing so. What is asked:
//! few calls, conditions that name cause and cure, every other duty on time, other objects undisturbed, and all well once
//! the cause is gone.

use crate::{
    lifecycle::causes::{
        Backend, LABEL, Obstacle, PROMPT, RECHECK, TOLD, Verdict, calls, in_shape, is_down, is_revoked,
        is_revoked_by, is_well, kinds, neighbour_is_served, quiet, right_keys_live, rights_for_secrets, says,
        silence, stored_anew, time_to, until_altered, until_refused, with_neighbour, with_rights_of_its_own,
    },
    test_env::{EnvOptions, PATIENCE, TestEnv, is, run_rows},
};
use boltz_emulator::{Operation, Settings, StandingFault};
use boltz_harness::eventually;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long the old key of a rotation lives.
const OVERLAP: Duration = Duration::from_secs(12);

/// Why the Secrets cannot be written.
#[derive(Clone, Copy)]
enum Cause {
    /// What the change asks for is refused by itself.
    TheChange,
    /// A policy about the operator's writes of that kind: operations, expression, message.
    Policy(&'static [&'static str], &'static str, &'static str),
    /// A mutating policy takes the operator's label off.
    LabelTakenOff,
    /// No Secret more.
    Quota,
    /// Somebody made the Secrets immutable.
    Immutable,
    /// Somebody's annotations leave little room.
    Crowded,
    /// The RoleBinding for Secrets is gone.
    NoRights,
}

/// Objects whose keys are issued, a cause, and a change that asks for a write which is refused from then on.
struct Refusal {
    name: &'static str,
    cause: Cause,
    /// A merge patch of each object.
    change: Json,
    /// What takes it back, with the cause.
    back: Json,
    /// The API server's words, which a condition repeats.
    words: &'static str,
    reasons: &'static [&'static str],
    /// Somebody touches the objects once the cause is gone; else they are looked at by themselves.
    touched: bool,
}

fn other_key() -> (Json, Json) {
    (json!({"spec": {"secret": {"key": "TOKEN"}}}), json!({"spec": {"secret": {"key": "BOLTZ_API_KEY"}}}))
}

fn refusals() -> Vec<Refusal> {
    let written = &["SecretWriteFailed"][..];
    let denied = &["PolicyDenied"][..];
    let template = |value: Json| json!({"spec": {"secret": {"template": value}}});
    vec![
        Refusal {
            name: "a label that is none",
            cause: Cause::TheChange,
            change: template(json!({"labels": {"team": "Data Science"}})),
            back: template(json!({"labels": null})),
            words: "a valid label must be",
            reasons: written,
            touched: true,
        },
        Refusal {
            name: "a forbidden label",
            cause: Cause::Policy(
                &["CREATE", "UPDATE"],
                "!has(object.metadata.labels) || !('forbidden' in object.metadata.labels)",
                "the label forbidden is forbidden",
            ),
            change: template(json!({"labels": {"forbidden": "yes"}})),
            back: template(json!({"labels": null})),
            words: "the label forbidden is forbidden",
            reasons: denied,
            touched: true,
        },
        Refusal {
            name: "no room for annotations",
            cause: Cause::Crowded,
            change: template(json!({"annotations": {"one": "1".repeat(100 << 10)}})),
            back: template(json!({"annotations": null})),
            words: "may not be more than 262144 bytes",
            reasons: written,
            touched: true,
        },
        Refusal {
            name: "an immutable Secret",
            cause: Cause::Immutable,
            change: other_key().0,
            back: other_key().1,
            words: "immutable",
            reasons: written,
            touched: true,
        },
        Refusal {
            name: "our label is taken off",
            cause: Cause::LabelTakenOff,
            change: other_key().0,
            back: json!({"metadata": {"annotations": {"boltz.bio/retry": "1"}}}),
            words: LABEL,
            reasons: &[],
            touched: true,
        },
        Refusal {
            name: "a full quota",
            cause: Cause::Quota,
            change: json!({"spec": {"secret": {"name": "PLACEHOLDER"}}}),
            back: json!({"metadata": {"annotations": {"boltz.bio/retry": "1"}}}),
            words: "exceeded quota",
            reasons: written,
            touched: true,
        },
        Refusal {
            name: "a quota for updates, left alone",
            cause: Cause::Policy(&["UPDATE"], "false", "exceeded the quota of updates"),
            change: other_key().0,
            back: json!({}),
            words: "exceeded the quota of updates",
            reasons: denied,
            touched: false,
        },
        Refusal {
            name: "no rights for Secrets",
            cause: Cause::NoRights,
            change: other_key().0,
            back: json!({"metadata": {"annotations": {"boltz.bio/retry": "1"}}}),
            words: "cannot",
            reasons: written,
            touched: true,
        },
    ]
}

/// `ROW="an immutable Secret" cargo test --test cluster a_refused_secret -- --ignored --nocapture` runs one row.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn a_refused_secret_is_told_and_stops_nothing_else() {
    run_rows(4, refusals().into_iter().map(|row| (row.name, refused(row)))).await;
}

async fn refused(row: Refusal) {
    let mut verdict = Verdict::new(row.name);
    let mut env = TestEnv::settling_fast().await;
    match row.cause {
        Cause::NoRights => with_rights_of_its_own(&mut env).await,
        _ => with_neighbour(&mut env).await,
    }
    let overlap = format!("{}s", OVERLAP.as_secs());
    let names = ["main", "leaked", "doomed"];
    for name in names {
        env.create(name, json!({"rotation": {"overlap": overlap}})).await;
    }
    let main_key = env.id_of("main").await;
    let leaked_key = env.id_of("leaked").await;
    let doomed_key = env.id_of("doomed").await;
    // The leaked key outlives its rotation, because Boltz is out of order for a moment.
    env.emulator.stand("leaked", StandingFault::status(Operation::Revoke, 503).about(&leaked_key));
    env.annotate("main", "boltz.bio/rotate", "1").await;
    env.annotate("leaked", "boltz.bio/rotate-now", "1").await;
    for (name, old) in [("main", &main_key), ("leaked", &leaked_key)] {
        stored_anew(&env, name, old).await;
    }
    let rotated = Timestamp::now();

    let obstacle = begin(&env, row.cause, &names).await;
    let since = Timestamp::now();
    for name in names {
        let change = row.change.to_string().replace("PLACEHOLDER", &format!("{name}-moved"));
        let patch = Patch::Merge(serde_json::from_str::<Json>(&change).unwrap());
        match env.objects().patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 422 => {
                verdict.that("refused at admission", Ok(status.message.clone()));
                return verdict.end();
            }
            Err(error) => panic!("{error}"),
        }
    }
    env.emulator.lift("leaked");
    let lifted = Timestamp::now();
    let beside = neighbour_is_served(&env, &mut verdict).await;
    verdict
        .within(TOLD, "a condition says what and how to cure it", async || {
            says(&env.get("main").await, row.words, row.reasons)
        })
        .await;
    let ready = env.get("main").await;
    let kept = if is(&ready, "Ready") { Ok(String::new()) } else { Err(format!("{:?}", ready.status)) };
    verdict.that("Ready stays True: the key works", kept);
    let latest = lifted + Duration::from_secs(20);
    verdict
        .within(time_to(latest), "the leaked key is revoked", async || {
            is_revoked_by(&env, &leaked_key, latest)
        })
        .await;
    let latest = rotated + OVERLAP + PROMPT;
    verdict
        .within(time_to(latest), "the old key is revoked after its overlap", async || {
            is_revoked_by(&env, &main_key, latest)
        })
        .await;
    env.delete("doomed").await;
    verdict
        .within(Duration::from_secs(10), "a deleted object is gone", async || {
            match env.objects().get_opt("doomed").await {
                Ok(None) => is_revoked(&env, &doomed_key),
                other => Err(format!("{:?}", other.map(|object| object.and_then(|object| object.status)))),
            }
        })
        .await;
    quiet(&env, &mut verdict, since, &["main", "leaked"], 2).await;

    let wait = if row.touched { PROMPT } else { RECHECK };
    end(&env, row.cause, obstacle).await;
    if row.touched {
        for name in ["main", "leaked"] {
            env.patch(name, row.back.clone()).await;
        }
    }
    for name in ["main", "leaked"] {
        verdict.within(wait, &format!("{name} is well"), async || is_well(&env.get(name).await)).await;
    }
    verdict
        .within(PROMPT, "the Secrets are in shape", async || in_shape(&env, &["main", "leaked"]).await)
        .await;
    verdict
        .within(Duration::from_secs(10), "the right keys live", async || {
            right_keys_live(&env, &["main", "leaked"], &beside).await
        })
        .await;
    verdict.at_most("keys created", 6, env.emulator.count(Operation::Create), "");
    verdict.end();
}

/// The cause stands when this is over.
async fn begin(env: &TestEnv, cause: Cause, names: &[&str]) -> Option<Obstacle> {
    let secrets = ("", "secrets");
    let patch_all = async |patch: Json| {
        for name in names {
            let patch = Patch::Merge(&patch);
            env.secrets().patch(name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    match cause {
        Cause::TheChange => None,
        Cause::Policy(operations, expression, message) => {
            let policy = Obstacle::policy(env, secrets, operations, expression, message).await;
            if operations == ["UPDATE"] {
                until_refused(env, "secrets", names[0], true).await;
            } else {
                forbidden(env, "forbidden").await;
            }
            Some(policy)
        }
        Cause::LabelTakenOff => {
            let mutation = label_taken_off(env).await;
            until_altered(env, "secrets", names[0], |secret| secret["metadata"]["labels"][LABEL].is_null())
                .await;
            Some(mutation)
        }
        Cause::Quota => Some(Obstacle::quota(env).await),
        Cause::Immutable => {
            patch_all(json!({"immutable": true})).await;
            None
        }
        Cause::Crowded => {
            patch_all(json!({"metadata": {"annotations": {"example.org/long": "x".repeat(200 << 10)}}}))
                .await;
            None
        }
        Cause::NoRights => {
            rights_for_secrets(env, &env.namespace, false).await;
            None
        }
    }
}

async fn end(env: &TestEnv, cause: Cause, obstacle: Option<Obstacle>) {
    match (obstacle, cause) {
        (Some(obstacle), Cause::Quota) => obstacle.lift().await,
        (Some(obstacle), Cause::LabelTakenOff) => {
            obstacle.lift().await;
            eventually(PATIENCE, "no label is taken off any more", async || {
                let probe = serde_json::from_value(
                    json!({"metadata": {"name": "probe", "labels": {LABEL: "probe"}}}),
                );
                let parameters = PostParams { dry_run: true, ..PostParams::default() };
                let secrets: Api<Secret> =
                    Api::namespaced(env.control_plane.operator_client().await.unwrap(), &env.namespace);
                let secret =
                    secrets.create(&parameters, &probe.unwrap()).await.map_err(|error| error.to_string())?;
                if secret.labels().contains_key(LABEL) { Ok(()) } else { Err("taken off".to_owned()) }
            })
            .await
            .unwrap();
        }
        (Some(obstacle), _) => {
            obstacle.lift().await;
            until_refused(env, "secrets", "main", false).await;
        }
        (None, Cause::NoRights) => rights_for_secrets(env, &env.namespace, true).await,
        (None, _) => {}
    }
}

async fn label_taken_off(env: &TestEnv) -> Obstacle {
    Obstacle::mutation(
        env,
        ("", "secrets"),
        "has(object.metadata.labels) && 'boltz.bio/owner-uid' in object.metadata.labels",
        r#"[JSONPatch{op: "remove", path: "/metadata/labels/" + jsonpatch.escapeKey("boltz.bio/owner-uid")}]"#,
    )
    .await
}

/// Waits until the operator may not create a Secret with that label.
async fn forbidden(env: &TestEnv, label: &str) {
    let secrets: Api<Secret> =
        Api::namespaced(env.control_plane.operator_client().await.unwrap(), &env.namespace);
    eventually(PATIENCE, "the policy holds", async || {
        let probe =
            serde_json::from_value(json!({"metadata": {"name": "probe", "labels": {label: "yes"}}})).unwrap();
        match secrets.create(&PostParams { dry_run: true, ..PostParams::default() }, &probe).await {
            Ok(_) => Err("not yet"),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
}

/// The way out of an immutable Secret that the message names: it is deleted, and made anew as it should be.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn an_immutable_secret_that_is_deleted_is_made_anew() {
    let mut verdict = Verdict::new("an immutable Secret is deleted");
    let env = TestEnv::settling_fast().await;
    env.create("main", json!({"rotation": {"overlap": "2s"}})).await;
    let old = env.id_of("main").await;
    begin(&env, Cause::Immutable, &["main"]).await;
    env.patch("main", other_key().0).await;
    // A new key cannot be stored either, so the leaked one has to wait for the cure.
    env.annotate("main", "boltz.bio/rotate-now", "1").await;
    verdict
        .within(TOLD, "a condition says what and how to cure it", async || {
            says(&env.get("main").await, "immutable", &["SecretWriteFailed"])
        })
        .await;
    verdict.at_most("keys created", 1, env.emulator.count(Operation::Create), "");
    env.secrets().delete("main", &DeleteParams::default()).await.unwrap();
    verdict.within(PROMPT, "main is well at once", async || is_well(&env.get("main").await)).await;
    verdict.within(PROMPT, "its Secret is in shape", async || in_shape(&env, &["main"]).await).await;
    verdict.within(PROMPT, "the leaked key is revoked", async || is_revoked(&env, &old)).await;
    verdict.end();
}

/// The API server fails, with 500 or by saying nothing, at every write of a Secret in the namespace.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn while_secrets_cannot_be_written_nothing_claims_to_be_ready_that_is_not() {
    let rows = [
        ("a webhook that refuses connections", None, "failed calling webhook"),
        ("a webhook whose Service is gone", Some(0), "failed calling webhook"),
        ("a webhook that is silent for 2 s", Some(2), "failed calling webhook"),
        // The API server itself gives up after 10 s.
        ("a webhook that is silent for 30 s", Some(30), "failed calling webhook"),
    ];
    run_rows(4, rows.into_iter().map(|(name, seconds, words)| (name, failing(name, seconds, words)))).await;
}

async fn failing(row: &'static str, seconds: Option<u8>, words: &str) {
    let mut verdict = Verdict::new(row);
    // A day is 15 s: the key of `old` expires while the webhook is there.
    let settings = Settings { day_milliseconds: 15_000, ..Settings::default() };
    let mut env = TestEnv::with_options(EnvOptions { settings, ..EnvOptions::default() }).await;
    with_neighbour(&mut env).await;
    let expiring = json!({"expiresInDays": 1, "rotation": {"renewBefore": "1s", "overlap": "1s"}});
    env.create("old", expiring).await;
    env.create("going", json!({"rotation": {"overlap": "1s"}})).await;
    let going = env.id_of("going").await;
    let old = env.id_of("old").await;
    let expires_at = env.emulator.key(&old).unwrap().expires_at.unwrap();

    let (_listener, address) = silence().await;
    let backend = match seconds {
        None => Backend::Refuses,
        Some(0) => Backend::Missing,
        Some(seconds) => Backend::Silent(address, seconds),
    };
    let webhook = Obstacle::webhook(&env, &backend, "", "secrets").await;
    // One that is silent for so long is not waited for more often than need be.
    if seconds.unwrap_or_default() < 10 {
        until_refused(&env, "secrets", "old", true).await;
    }
    let since = Timestamp::now();
    env.create("new", json!({})).await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    verdict
        .within(TOLD, "a new object says what stands in its way", async || {
            is_down(&env, "new").await?;
            says(&env.get("new").await, words, &[])
        })
        .await;
    verdict
        .within(
            time_to(expires_at) + Duration::from_secs(10),
            "the one whose key expires turns not Ready",
            async || {
                if Timestamp::now() < expires_at {
                    return Err("not yet expired".to_owned());
                }
                is_down(&env, "old").await
            },
        )
        .await;
    verdict
        .within(TOLD, "and says what stands in its way", async || says(&env.get("old").await, words, &[]))
        .await;
    env.delete("going").await;
    verdict.within(PROMPT, "a deleted object's key is revoked", async || is_revoked(&env, &going)).await;
    quiet(&env, &mut verdict, since, &["new", "old"], 2).await;
    verdict.at_most("keys created", 3, env.emulator.count(Operation::Create), "");

    webhook.lift().await;
    until_refused(&env, "secrets", "old", false).await;
    env.annotate("new", "boltz.bio/retry", "1").await;
    // A call that is still on its way is waited for as long as every other.
    let wait = if seconds.unwrap_or_default() < 10 { PROMPT } else { PROMPT + Duration::from_secs(15) };
    verdict.within(wait, "new is well at once when touched", async || is_well(&env.get("new").await)).await;
    verdict.within(RECHECK, "old is well by itself", async || is_well(&env.get("old").await)).await;
    verdict.within(PROMPT, "the Secrets are in shape", async || in_shape(&env, &["new"]).await).await;
    drop(beside);
    verdict.end();
}

/// A namespace that is being deleted, and is held up by what is not ours.
#[tokio::test]
async fn in_a_namespace_that_is_going_keys_are_revoked_and_nothing_spins() {
    let mut verdict = Verdict::new("a terminating namespace");
    let mut env = TestEnv::settling_fast().await;
    with_neighbour(&mut env).await;
    let hold = ConfigMap {
        metadata: kube::core::ObjectMeta {
            name: Some("hold".to_owned()),
            finalizers: Some(vec!["example.org/hold".to_owned()]),
            ..Default::default()
        },
        ..Default::default()
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    config_maps.create(&PostParams::default(), &hold).await.unwrap();
    for name in ["main", "held", "rotating"] {
        env.create(name, json!({"rotation": {"overlap": "30s"}})).await;
        env.ready(name).await;
    }
    // Held up by somebody else's finalizer too.
    env.patch("held", json!({"metadata": {"finalizers": ["boltz.bio/revoke-keys", "example.org/hold"]}}))
        .await;
    // In the middle of an issuance: its answer comes when the namespace is going.
    env.emulator.inject(boltz_emulator::Fault {
        operation: Some(Operation::Create),
        effect: boltz_emulator::Effect::Before,
        outcome: boltz_emulator::Outcome::Answer,
        latency_milliseconds: 600,
        times: 1,
    });
    env.annotate("rotating", "boltz.bio/rotate", "1").await;
    env.until_active(4).await;
    let since = Timestamp::now();
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.delete(&env.namespace, &DeleteParams::default()).await.unwrap();
    let beside = neighbour_is_served(&env, &mut verdict).await;
    verdict
        .within(Duration::from_secs(30), "all keys are revoked", async || {
            let mut active = env.active_ids();
            active.retain(|id| Some(id) != beside.as_ref());
            if active.is_empty() { Ok(()) } else { Err(format!("{active:?}")) }
        })
        .await;
    quiet(&env, &mut verdict, since, &["main", "held", "rotating"], 3).await;
    verdict
        .within(PROMPT, "our finalizer is gone", async || match env.objects().get_opt("held").await {
            Ok(Some(object)) if object.finalizers() == ["example.org/hold"] => Ok(()),
            other => {
                Err(format!("{:?}", other.map(|object| object.map(|object| object.metadata.finalizers))))
            }
        })
        .await;
    env.patch("held", json!({"metadata": {"finalizers": null}})).await;
    let patch = json!({"metadata": {"finalizers": null}});
    config_maps.patch("hold", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    verdict
        .within(Duration::from_secs(90), "the namespace is gone", async || {
            match namespaces.get_opt(&env.namespace).await {
                Ok(None) => Ok(()),
                other => Err(format!("{:?}", other.map(|namespace| namespace.map(|n| n.status)))),
            }
        })
        .await;
    verdict.end();
}

/// An hour of a standing fault is tried in virtual time; these are its first minutes on a real API server.
#[tokio::test]
#[ignore = "takes 4 minutes: make test-all runs it"]
async fn a_refusal_that_stays_is_looked_at_ever_more_seldom() {
    let mut verdict = Verdict::new("four minutes of a refusal");
    let env = TestEnv::settling_fast().await;
    env.create("main", json!({})).await;
    env.ready("main").await;
    let policy =
        Obstacle::policy(&env, ("", "secrets"), &["CREATE", "UPDATE"], "false", "no Secrets here").await;
    until_refused(&env, "secrets", "main", true).await;
    let since = Timestamp::now();
    env.patch("main", other_key().0).await;
    tokio::time::sleep(Duration::from_secs(240)).await;
    let seen = calls(&env, since, Timestamp::now());
    verdict.at_most("calls in 4 minutes", 16, seen.len(), &kinds(&seen));
    policy.lift().await;
    verdict
        .within(Duration::from_secs(310), "all is well by itself", async || is_well(&env.get("main").await))
        .await;
    verdict.end();
}

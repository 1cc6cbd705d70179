//! What stays when an object goes, and who is served when a name is free again.

use crate::{
    lifecycle::causes::{
        PROMPT, RECHECK, TOLD, Verdict, in_shape, is_revoked, is_revoked_by, is_well, neighbour_is_served,
        quiet, right_keys_live, rights_for_secrets, rights_for_the_rest, says, stored_anew, time_to,
        with_neighbour, with_rights_of_its_own,
    },
    test_env::{EnvOptions, PATIENCE, TestEnv, condition, is, owned, run_rows, value_of},
};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams, PropagationPolicy},
};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// How long a waiting object may take for its key once the Secret in its way is gone.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How an object comes to be retained, and how it is deleted.
struct Retained {
    name: &'static str,
    /// The spec that it is created with.
    spec: Json,
    /// A merge patch, before it is deleted.
    patch: Option<Json>,
    propagation: PropagationPolicy,
    /// The operator is away meanwhile.
    away: bool,
}

#[tokio::test]
async fn retain_survives_every_kind_of_deletion() {
    use PropagationPolicy::{Background, Foreground, Orphan};
    let retain = json!({"deletionPolicy": "Retain"});
    let later = json!({"spec": {"deletionPolicy": "Retain"}});
    let annotated = json!({"metadata": {"annotations": {"boltz.bio/deletion-policy": "Retain"}}});
    let moved = json!({"spec": {"secret": {"name": "moved"}}});
    let rotated = json!({"metadata": {"annotations": {"boltz.bio/rotate": "1"}}});
    let row = |name, spec: &Json, patch: Option<&Json>, propagation, away| {
        let (spec, patch) = (spec.clone(), patch.cloned());
        (name, is_retained(Retained { name, spec, patch, propagation, away }))
    };
    let rows = [
        row("foreground, the operator away", &retain, None, Foreground, true),
        row("foreground", &retain, None, Foreground, false),
        row("background, the operator away", &retain, None, Background, true),
        row("orphan, the operator away", &retain, None, Orphan, true),
        row("said later, foreground, the operator away", &json!({}), Some(&later), Foreground, true),
        row(
            "said by the annotation, foreground, the operator away",
            &json!({}),
            Some(&annotated),
            Foreground,
            true,
        ),
        row("moved, foreground, the operator away", &retain, Some(&moved), Foreground, true),
        row("rotated, foreground, the operator away", &retain, Some(&rotated), Foreground, true),
    ];
    run_rows(4, rows.into_iter()).await;
}

async fn is_retained(row: Retained) {
    let mut verdict = Verdict::new(row.name);
    let mut env = TestEnv::new().await;
    env.create("kept", row.spec).await;
    let first = env.id_of("kept").await;
    if let Some(patch) = row.patch {
        let rotates = patch["metadata"]["annotations"]["boltz.bio/rotate"].is_string();
        let moves = patch["spec"]["secret"].is_object();
        env.patch("kept", patch).await;
        if rotates {
            stored_anew(&env, "kept", &first).await;
        }
        if moves {
            env.until("kept", "moved", |object| {
                object.status.as_ref().is_some_and(|status| status.secret_name.as_deref() == Some("moved"))
            })
            .await;
        }
        env.ready("kept").await;
    }
    let object = env.get("kept").await;
    let name = object.status.unwrap_or_default().secret_name.unwrap_or_default();
    verdict
        .within(PROMPT, "the Secret has no owner from the moment it is retained", async || {
            let owners = env.secret(&name).await.owner_references().to_vec();
            if owners.is_empty() { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await;
    let before = env.secret(&name).await;
    let value = value_of(&before, "BOLTZ_API_KEY");
    if row.away {
        env.operator.kill();
    }
    let parameters =
        DeleteParams { propagation_policy: Some(row.propagation.clone()), ..DeleteParams::default() };
    let _ = env.objects().delete("kept", &parameters).await.unwrap();
    // The garbage collector has done its part when its own finalizer is gone.
    eventually(PATIENCE, "the garbage collector is done", async || {
        match env.objects().get_opt("kept").await {
            Ok(None) => Ok(()),
            Ok(Some(object)) => {
                let theirs = ["foregroundDeletion", "orphan"];
                let left = object.finalizers().iter().any(|finalizer| theirs.contains(&finalizer.as_str()));
                if left { Err(format!("{:?}", object.finalizers())) } else { Ok(()) }
            }
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap();
    if row.away {
        env.operator.restart().unwrap();
    }
    env.gone("kept").await;
    let after = env.secrets().get_opt(&name).await.unwrap();
    let stays = match &after {
        Some(after) if after.uid() == before.uid() && value_of(after, "BOLTZ_API_KEY") == value => {
            Ok(String::new())
        }
        other => Err(format!("{:?}", other.as_ref().map(|secret| &secret.metadata))),
    };
    verdict.that("the Secret stays", stays);
    let lives = env.emulator.authenticate(&value);
    verdict.that("the key lives", lives.ok_or_else(|| "it is refused".to_owned()));
    verdict.that(
        "nothing is revoked",
        if env.revoked_ids().is_empty() {
            Ok(String::new())
        } else {
            Err(format!("{:?}", env.revoked_ids()))
        },
    );
    verdict.end();
}

/// Who gave up `Retain` again has a Secret that goes with the object.
#[tokio::test]
async fn a_secret_has_an_owner_again_when_it_is_not_retained_any_more() {
    let env = TestEnv::new().await;
    let owned = async |wanted: bool| {
        eventually(PATIENCE, "the ownerReference", async || {
            let owners = env.secret("kept").await.owner_references().len();
            if (owners == 1) == wanted { Ok(()) } else { Err(format!("{owners} owners")) }
        })
        .await
        .unwrap();
    };
    env.create("kept", json!({})).await;
    env.ready("kept").await;
    owned(true).await;
    for (policy, is_owned) in [("Retain", false), ("Revoke", true), ("Retain", false), ("Revoke", true)] {
        env.patch("kept", json!({"spec": {"deletionPolicy": policy}})).await;
        owned(is_owned).await;
        env.ready("kept").await;
    }
    assert_eq!(env.emulator.count(Operation::Create), 1);
    env.delete("kept").await;
    env.gone("kept").await;
    eventually(PATIENCE, "the Secret goes", async || match env.secrets().get_opt("kept").await {
        Ok(None) => Ok(()),
        other => Err(format!("{:?}", other.map(|_| "it is there"))),
    })
    .await
    .unwrap();
    assert!(env.active_ids().is_empty());
}

/// What has the name that others wait for, and how it goes.
#[derive(Clone, Copy)]
enum Holder {
    /// Another object, which is deleted.
    Deleted,
    /// Another object, whose Secret moves to another name.
    Moved,
    /// An object that is gone, whose Secret was retained: somebody deletes it.
    Retained,
    /// Nobody of ours: somebody deletes it. The operator does not watch such Secrets.
    Foreign,
    /// The same, and somebody touches the waiting object.
    ForeignAndTouched,
}

#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn who_waits_for_a_name_has_it_as_soon_as_it_is_free() {
    let rows = [
        ("the other object is deleted", Holder::Deleted),
        ("the other object's Secret moves", Holder::Moved),
        ("a retained Secret is deleted", Holder::Retained),
        ("a foreign Secret is deleted", Holder::Foreign),
        ("a foreign Secret is deleted, and the object touched", Holder::ForeignAndTouched),
    ];
    run_rows(5, rows.into_iter().map(|(name, holder)| (name, handed_over(name, holder)))).await;
}

async fn handed_over(row: &'static str, holder: Holder) {
    let mut verdict = Verdict::new(row);
    // Every pass over Boltz's list has all objects looked at. Where the hand-over is timed, none helps; where calls are
    // counted, one comes each second.
    let interval = if matches!(holder, Holder::ForeignAndTouched) { "1s" } else { "10m" };
    let arguments = owned(&["--inventory-interval", interval]);
    let mut env = TestEnv::with_options(EnvOptions { arguments, ..EnvOptions::default() }).await;
    with_neighbour(&mut env).await;
    let shared = |policy: &str| json!({"secret": {"name": "shared"}, "deletionPolicy": policy});
    match holder {
        Holder::Deleted | Holder::Moved => {
            env.create("old", shared("Revoke")).await;
            env.ready("old").await;
        }
        Holder::Retained => {
            env.create("old", shared("Retain")).await;
            env.ready("old").await;
            env.delete("old").await;
            env.gone("old").await;
        }
        Holder::Foreign | Holder::ForeignAndTouched => foreign(&env, "shared").await,
    }
    let uid = env.secret("shared").await.uid();
    let since = Timestamp::now();
    // Three who wait; one of them gets it.
    let waiting = ["new", "second", "third"];
    for name in waiting {
        env.create(name, shared("Revoke")).await;
    }
    for name in waiting {
        let object = env.not_ready(name, "SecretConflict").await;
        verdict.that(
            "a condition names the Secret and a cure",
            says(&object, "shared", &["SecretConflict"]).map(|()| String::new()),
        );
    }
    let created = env.emulator.count(Operation::Create);
    quiet(&env, &mut verdict, since, &waiting, 3).await;
    match holder {
        Holder::Deleted => env.delete("old").await,
        Holder::Moved => drop(env.patch("old", json!({"spec": {"secret": {"name": "elsewhere"}}})).await),
        Holder::Retained | Holder::Foreign | Holder::ForeignAndTouched => {
            env.secrets().delete("shared", &DeleteParams::default()).await.unwrap();
        }
    }
    let free =
        eventually(PATIENCE, "the Secret is gone", async || match env.secrets().get_opt("shared").await {
            Ok(Some(secret)) if secret.uid() == uid => Err("it is there".to_owned()),
            Ok(_) => Ok(Instant::now()),
            Err(error) => Err(error.to_string()),
        })
        .await
        .unwrap();
    if matches!(holder, Holder::ForeignAndTouched) {
        for name in waiting {
            env.annotate(name, "boltz.bio/retry", "1").await;
        }
    }
    let wait = if matches!(holder, Holder::Foreign) { RECHECK } else { HAND_OVER };
    verdict
        .within(wait.saturating_sub(free.elapsed()), "one of them has its key", async || {
            let mut seen = Vec::new();
            for name in waiting {
                let object = env.get(name).await;
                if is_well(&object).is_ok() {
                    return Ok(());
                }
                seen.push(condition(&object, "Ready").map(|condition| condition.reason.clone()));
            }
            Err(format!("{seen:?}"))
        })
        .await;
    env.wait("the winner's key", || {
        let count = env.emulator.count(Operation::Create);
        if count > created { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;
    // A key that was made for one who lost the race is revoked.
    let keys = if matches!(holder, Holder::Moved | Holder::Retained) { 2 } else { 1 };
    verdict
        .within(Duration::from_secs(10), "one key for the one who has it", async || {
            let active = env.active_ids().len();
            if active == keys { Ok(()) } else { Err(format!("{active} keys live")) }
        })
        .await;
    verdict.at_most("keys created", 3, env.emulator.count(Operation::Create) - created, "");
    verdict.end();
}

async fn foreign(env: &TestEnv, name: &str) {
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"theirs": "precious"},
    }))
    .unwrap();
    env.secrets().create(&PostParams::default(), &secret).await.unwrap();
}

/// The object is to use a name that is taken: its key goes on working where it is, and every other duty is done.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn an_object_whose_secret_may_not_move_goes_on() {
    let mut verdict = Verdict::new("a move to a taken name");
    let mut env = TestEnv::new().await;
    with_neighbour(&mut env).await;
    foreign(&env, "taken").await;
    for name in ["main", "doomed"] {
        env.create(name, json!({"rotation": {"overlap": "8s"}})).await;
    }
    let old = env.id_of("main").await;
    let doomed = env.id_of("doomed").await;
    env.annotate("main", "boltz.bio/rotate", "1").await;
    stored_anew(&env, "main", &old).await;
    let rotated = Timestamp::now();
    let since = Timestamp::now();
    for name in ["main", "doomed"] {
        env.patch(name, json!({"spec": {"secret": {"name": "taken"}}})).await;
    }
    let beside = neighbour_is_served(&env, &mut verdict).await;
    verdict
        .within(TOLD, "a condition says what and how to cure it", async || {
            says(&env.get("main").await, "taken", &["SecretConflict"])
        })
        .await;
    let ready = if is(&env.get("main").await, "Ready") { Ok(String::new()) } else { Err(String::new()) };
    verdict.that("Ready stays True: the key works", ready);
    let latest = rotated + Duration::from_secs(8) + PROMPT;
    verdict
        .within(time_to(latest), "the old key is revoked after its overlap", async || {
            is_revoked_by(&env, &old, latest)
        })
        .await;
    env.delete("doomed").await;
    verdict.within(PROMPT, "a deleted object's key is revoked", async || is_revoked(&env, &doomed)).await;
    quiet(&env, &mut verdict, since, &["main", "taken"], 1).await;
    env.patch("main", json!({"spec": {"secret": {"name": "free"}}})).await;
    verdict.within(PROMPT, "it is well under a free name", async || is_well(&env.get("main").await)).await;
    verdict.within(PROMPT, "the Secret is in shape", async || in_shape(&env, &["main"]).await).await;
    verdict
        .within(Duration::from_secs(10), "the right keys live", async || {
            right_keys_live(&env, &["main"], &beside).await
        })
        .await;
    let untouched = env.secret("taken").await.data.unwrap_or_default().contains_key("theirs");
    verdict.that(
        "the other Secret is untouched",
        if untouched { Ok(String::new()) } else { Err(String::new()) },
    );
    verdict.end();
}

/// All rights in one of two namespaces go, and come back.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn a_namespace_that_loses_all_rights_is_served_again_when_it_has_them() {
    let mut verdict = Verdict::new("no rights at all");
    let mut env = TestEnv::new().await;
    with_rights_of_its_own(&mut env).await;
    for name in ["main", "going"] {
        env.create(name, json!({"rotation": {"overlap": "8s"}})).await;
    }
    let old = env.id_of("main").await;
    let going = env.id_of("going").await;
    env.annotate("main", "boltz.bio/rotate", "1").await;
    stored_anew(&env, "main", &old).await;
    rights_for_the_rest(&env, &env.namespace, false).await;
    rights_for_secrets(&env, &env.namespace, false).await;
    let since = Timestamp::now();
    env.create("new", json!({})).await;
    env.annotate("main", "boltz.bio/rotate", "2").await;
    env.delete("going").await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    quiet(&env, &mut verdict, since, &["main", "going", "new"], 1).await;
    verdict.at_most("keys created", 4, env.emulator.count(Operation::Create), "");
    let healthy = env.operator.get("/healthz").await.map(|_| String::new());
    verdict.that("the process is healthy", healthy);
    rights_for_secrets(&env, &env.namespace, true).await;
    rights_for_the_rest(&env, &env.namespace, true).await;
    for name in ["main", "new"] {
        verdict.within(RECHECK, &format!("{name} is well"), async || is_well(&env.get(name).await)).await;
    }
    verdict.within(RECHECK, "the old key is revoked", async || is_revoked(&env, &old)).await;
    verdict
        .within(RECHECK, "the deleted object is gone", async || match env.objects().get_opt("going").await {
            Ok(None) => is_revoked(&env, &going),
            other => Err(format!("{:?}", other.map(|object| object.map(|object| object.status)))),
        })
        .await;
    verdict
        .within(Duration::from_secs(20), "the right keys live", async || {
            right_keys_live(&env, &["main", "new"], &beside).await
        })
        .await;
    verdict.end();
}

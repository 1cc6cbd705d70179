//! What the operator writes is taken, and undone again: by an admission policy, or by somebody who is as fast.

use crate::{
    lifecycle::causes::{
        Obstacle, PROMPT, QUIET_CALLS, RECHECK, TOLD, Verdict, is_well, neighbour_is_served, quiet_but_for,
        right_keys_live, says, until_altered, until_refused, with_neighbour,
    },
    test_env::{TestEnv, condition, is, record_of, run_rows},
};
use boltz_emulator::Operation;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// What is done and undone again, without a word: the operator must not work against it without end.
struct Undone {
    name: &'static str,
    by: Undoer,
    /// The key in the Secret works all the same.
    works: bool,
    /// What the conditions are to mention; empty: nothing that could be seen.
    words: &'static str,
}

#[derive(Clone, Copy)]
enum Undoer {
    /// A mutating policy: resource, when, patches.
    Mutation((&'static str, &'static str), &'static str, &'static str),
    /// Somebody deletes the Secret as fast as it is written.
    Deleter,
    /// Somebody writes another value as fast as it is written.
    Scribbler,
}

fn undone() -> Vec<Undone> {
    let secrets = ("", "secrets");
    let objects = ("boltz.bio", "boltzapikeys");
    vec![
        Undone {
            name: "the record is taken off",
            by: Undoer::Mutation(
                secrets,
                "has(object.metadata.annotations) && 'boltz.bio/record' in object.metadata.annotations",
                r#"[JSONPatch{op: "remove", path: "/metadata/annotations/" + jsonpatch.escapeKey("boltz.bio/record")}]"#,
            ),
            // The dry run shows it, so no key is issued.
            works: true,
            words: "boltz.bio/record",
        },
        Undone {
            name: "the value is changed",
            by: Undoer::Mutation(
                secrets,
                "has(object.data) && 'BOLTZ_API_KEY' in object.data",
                r#"[JSONPatch{op: "replace", path: "/data/BOLTZ_API_KEY", value: "c2VhbGVk"}]"#,
            ),
            // The same.
            works: true,
            words: "value",
        },
        Undone {
            name: "the finalizer is taken off",
            by: Undoer::Mutation(
                objects,
                "has(object.metadata.finalizers)",
                r#"[JSONPatch{op: "remove", path: "/metadata/finalizers"}]"#,
            ),
            works: true,
            words: "finalizer",
        },
        Undone {
            name: "the ledger is taken off",
            by: Undoer::Mutation(
                objects,
                "has(object.metadata.annotations) && 'boltz.bio/attempts' in object.metadata.annotations",
                r#"[JSONPatch{op: "remove", path: "/metadata/annotations/" + jsonpatch.escapeKey("boltz.bio/attempts")}]"#,
            ),
            works: true,
            words: "boltz.bio/attempts",
        },
        Undone {
            name: "the status is changed",
            by: Undoer::Mutation(
                ("boltz.bio", "boltzapikeys/status"),
                "has(object.status) && has(object.status.keyID)",
                r#"[JSONPatch{op: "remove", path: "/status/keyID"}]"#,
            ),
            works: true,
            words: "",
        },
        Undone { name: "the Secret is deleted", by: Undoer::Deleter, works: false, words: "" },
        Undone { name: "the value is overwritten", by: Undoer::Scribbler, works: false, words: "" },
    ]
}

#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn what_is_undone_again_and_again_is_not_done_without_end() {
    run_rows(4, undone().into_iter().map(|row| (row.name, is_undone(row)))).await;
}

async fn is_undone(row: Undone) {
    let mut verdict = Verdict::new(row.name);
    let mut env = TestEnv::judged_by_times().await;
    with_neighbour(&mut env).await;
    env.create("main", json!({"rotation": {"overlap": "2s"}})).await;
    env.id_of("main").await;
    let obstacle = match row.by {
        Undoer::Mutation(on, when, patches) => Some(Obstacle::mutation(&env, on, when, patches).await),
        Undoer::Deleter | Undoer::Scribbler => None,
    };
    if let Undoer::Mutation((_, resource), ..) = row.by {
        let gone = |seen: &Json| match row.name {
            "the record is taken off" => seen["metadata"]["annotations"]["boltz.bio/record"].is_null(),
            "the value is changed" => seen["data"]["BOLTZ_API_KEY"] == "c2VhbGVk",
            "the finalizer is taken off" => seen["metadata"]["finalizers"].is_null(),
            "the ledger is taken off" => seen["metadata"]["annotations"]["boltz.bio/attempts"].is_null(),
            _ => seen["status"]["keyID"].is_null(),
        };
        until_altered(&env, resource, "main", gone).await;
    }
    let vandal = match row.by {
        Undoer::Mutation(..) => None,
        by => Some(tokio::spawn(vandalize(env.secrets(), matches!(by, Undoer::Deleter)))),
    };
    let created = env.emulator.count(Operation::Create);
    let since = Timestamp::now();
    env.annotate("main", "boltz.bio/rotate", "1").await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    if !row.words.is_empty() {
        verdict
            .within(TOLD, "a condition says what and how to cure it", async || {
                says(&env.get("main").await, row.words, &[])
            })
            .await;
    }
    // With waits of 8 and 16 s, up to two new keys come in these 30 s. Each costs a dry run, the ledger, the Secret, two
    // writes of the status, and up to two live reads of two calls.
    let more = if obstacle.is_some() { 0 } else { 2 * 9 - QUIET_CALLS };
    quiet_but_for(&env, &mut verdict, since, &["main"], 1, more).await;
    let object = env.get("main").await;
    let honest = match (row.works, is(&object, "Ready")) {
        (true, true) | (false, false) => Ok(String::new()),
        _ => Err(format!("{:?}", condition(&object, "Ready"))),
    };
    // A Secret that comes and goes may be there when one looks.
    if obstacle.is_some() {
        verdict.that("Ready says whether the key in the Secret works", honest);
    }
    // With waits from 1 s, doubling: 1, 2, 4, 8, 16.
    verdict.at_most("keys created in 40 s", 8, env.emulator.count(Operation::Create) - created, "");
    verdict.at_most("keys alive", 7, env.active_ids().len(), "");

    if let Some(vandal) = vandal {
        vandal.abort();
        let _ = vandal.await;
    }
    if let Some(obstacle) = obstacle {
        obstacle.lift().await;
        if let Undoer::Mutation((_, resource), ..) = row.by {
            // As long as the API server's own cache of policies may be behind.
            until_refused(&env, resource, "main", false).await;
        }
    }
    env.annotate("main", "boltz.bio/retry", "1").await;
    // The API server's own cache of policies may be behind: then the first try is undone once more.
    let wait = if matches!(row.by, Undoer::Mutation(..)) { RECHECK } else { PROMPT };
    verdict.within(wait, "all is well", async || is_well(&env.get("main").await)).await;
    verdict
        .within(wait, "the right keys live", async || right_keys_live(&env, &["main"], &beside).await)
        .await;
    let works = match env.secrets().get_opt("main").await.unwrap() {
        Some(secret) if secret.annotations().contains_key("boltz.bio/record") => {
            let id = env.emulator.authenticate(&env.value("main").await);
            id.filter(|id| *id == record_of(&secret).key_id).ok_or("its value does not authenticate")
        }
        Some(_) => Err("it has no record"),
        None => Err("it is gone"),
    };
    verdict.that("the Secret's value works", works.map_err(str::to_owned));
    verdict.end();
}

/// Deletes the Secret, or writes something else into it, every time it is as the operator wants it.
async fn vandalize(secrets: Api<Secret>, delete: bool) {
    loop {
        if let Ok(Some(secret)) = secrets.get_opt("main").await {
            if delete {
                let _ = secrets.delete("main", &DeleteParams::default()).await;
            } else if secret.data.is_some_and(|data| data["BOLTZ_API_KEY"].0 != b"scribbled") {
                let patch = json!({"data": {"BOLTZ_API_KEY": ByteString(b"scribbled".to_vec())}});
                let _ = secrets.patch("main", &PatchParams::default(), &Patch::Merge(patch)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

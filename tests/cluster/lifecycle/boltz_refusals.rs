//! Boltz refuses, for once or for a while. Somebody cures it there, and nobody tells the operator.

use crate::{
    lifecycle::causes::{
        PROMPT, TOLD, Verdict, is_revoked, is_well, neighbour_is_served, quiet, right_keys_live, says,
        warning_says, with_neighbour,
    },
    test_env::{TestEnv, is, run_rows},
};
use boltz_emulator::{Effect, Fault, Operation, Outcome, StandingFault};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value as Json, json};
use std::time::Duration;

fn refusal(status: u16) -> Outcome {
    let body = json!({"code": "REFUSED", "message": "these are the words of Boltz"});
    Outcome::Status { status, headers: Default::default(), body: Some(body.to_string()) }
}

/// What makes the operator try again what was refused.
#[derive(Clone)]
enum Again {
    /// Time.
    By(Duration),
    /// A merge patch.
    Patch(Json),
    /// A restart, and then time.
    Restart(Duration),
}

#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn a_key_that_was_refused_once_comes() {
    let soon = Again::By(Duration::from_secs(30));
    let annotation = |name: &str| Again::Patch(json!({"metadata": {"annotations": {name: "1"}}}));
    let rows = [
        ("402", 402, soon.clone()),
        ("404", 404, soon.clone()),
        ("410", 410, soon.clone()),
        ("409", 409, soon.clone()),
        ("403", 403, soon.clone()),
        // Kin of these: a gateway's, a firewall's, a lawyer's.
        ("405", 405, soon.clone()),
        ("407", 407, soon.clone()),
        ("413", 413, soon.clone()),
        ("451", 451, soon.clone()),
        ("402 and a restart", 402, Again::Restart(Duration::from_secs(30))),
        ("422 and another spec", 422, Again::Patch(json!({"spec": {"displayName": "another"}}))),
        ("422 and rotate", 422, annotation("boltz.bio/rotate")),
        ("422 and rotate-now", 422, annotation("boltz.bio/rotate-now")),
        ("422 and retry", 422, annotation("boltz.bio/retry")),
        ("400 and another spec", 400, Again::Patch(json!({"spec": {"displayName": "another"}}))),
        ("400 and retry", 400, annotation("boltz.bio/retry")),
        ("404 and retry", 404, annotation("boltz.bio/retry")),
    ];
    run_rows(6, rows.into_iter().map(|(name, status, again)| (name, refused_once(name, status, again))))
        .await;
}

/// Changes of one object that follow each other faster count once (docs/protocol.md, "Faults that stay").
const BETWEEN_CHANGES: Duration = Duration::from_secs(10);

async fn refused_once(row: &'static str, status: u16, again: Again) {
    let mut verdict = Verdict::new(row);
    let mut env = TestEnv::judged_by_times().await;
    env.create("rotating", json!({"rotation": {"overlap": "1s"}})).await;
    let old = env.id_of("rotating").await;
    // One that has a key, and one that has none.
    env.emulator
        .stand("refused", StandingFault::of(Fault::once(Operation::Create, Effect::None, refusal(status))));
    env.create("new", json!({})).await;
    env.annotate("rotating", "boltz.bio/rotate", "first").await;
    env.wait("both were refused", || {
        let count = env.emulator.count(Operation::Create);
        if count >= 3 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;
    verdict
        .within(PROMPT, "a condition says it in Boltz's words, and when it is tried again", async || {
            says(&env.get("new").await, "these are the words of Boltz", &[])
        })
        .await;
    let rotating = env.get("rotating").await;
    verdict.that(
        "a working key stays Ready",
        if is(&rotating, "Ready") { Ok(String::new()) } else { Err(String::new()) },
    );
    verdict.at_most("keys asked for so far", 7, env.emulator.count(Operation::Create), "");
    env.emulator.lift("refused");
    let before = env.emulator.count(Operation::Create);
    if matches!(status, 400 | 422) {
        // Nothing has changed: there is no hurry. Once for each object is well.
        env.passes(3).await;
        verdict.at_most("keys asked for by itself", 2, env.emulator.count(Operation::Create) - before, "");
    }
    let wait = match again {
        Again::By(wait) => wait,
        Again::Patch(patch) => {
            for name in ["new", "rotating"] {
                env.patch(name, patch.clone()).await;
            }
            PROMPT
        }
        Again::Restart(wait) => {
            env.operator.terminate();
            env.operator.restart().unwrap();
            env.operator.wait_ready().await.unwrap();
            wait
        }
    };
    verdict.within(wait, "the first key comes", async || is_well(&env.get("new").await)).await;
    // For that object it is the second change within ten seconds, which counts when these are over.
    let wait = wait + BETWEEN_CHANGES;
    verdict
        .within(wait, "the other key comes", async || {
            let object = env.get("rotating").await;
            is_well(&object)?;
            let key_id = object.status.unwrap_or_default().key_id;
            if key_id.as_ref() == Some(&old) { Err("the old one is still there".to_owned()) } else { Ok(()) }
        })
        .await;
    verdict
        .within(Duration::from_secs(15), "the right keys live", async || {
            right_keys_live(&env, &["new", "rotating"], &None).await
        })
        .await;
    verdict.end();
}

/// One workspace is refused for as long as it takes: few calls, and nobody else waits.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn a_workspace_that_is_refused_for_a_while_costs_few_calls_and_holds_up_nobody() {
    let rows = [("402 for ever", 402), ("403 for ever", 403), ("404 for ever", 404), ("422 for ever", 422)];
    run_rows(4, rows.into_iter().map(|(name, status)| (name, refused_workspace(name, status)))).await;
}

async fn refused_workspace(row: &'static str, status: u16) {
    let mut verdict = Verdict::new(row);
    let mut env = TestEnv::settling_fast().await;
    with_neighbour(&mut env).await;
    let refused = StandingFault::of(Fault::once(Operation::Create, Effect::None, refusal(status)));
    env.emulator.stand("refused", refused.in_workspace("ws_refused"));
    let since = Timestamp::now();
    env.create("new", json!({"workspaceID": "ws_refused"})).await;
    env.until("new", "refused", |object| {
        says(object, "these are the words of Boltz", &[]).is_ok() || is(object, "Stalled")
    })
    .await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    verdict
        .within(TOLD, "a condition says it in Boltz's words, and when it is tried again", async || {
            says(&env.get("new").await, "these are the words of Boltz", &[])
        })
        .await;
    quiet(&env, &mut verdict, since, &["new"], 1).await;
    let asked = env.emulator.requests().into_iter().filter(|request| {
        request.operation == Operation::Create && request.subject.starts_with(&format!("{}/", env.namespace))
    });
    // With waits from 1 s, doubling: 1, 2, 4, 8, 16.
    verdict.at_most("keys asked for in 40 s", 8, asked.count(), "");
    env.emulator.lift("refused");
    env.annotate("new", "boltz.bio/retry", "1").await;
    verdict.within(PROMPT, "all is well at once when touched", async || is_well(&env.get("new").await)).await;
    verdict
        .within(Duration::from_secs(10), "the right keys live", async || {
            right_keys_live(&env, &["new"], &beside).await
        })
        .await;
    verdict.end();
}

/// Revocations are refused for a while, and the list shows the keys as what they are.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn revocations_that_are_refused_for_a_while_are_said_and_done_in_the_end() {
    let rows = [
        ("revocations: 404 of a gateway", refusal(404)),
        (
            "revocations: 404 without a word",
            Outcome::Status { status: 404, headers: Default::default(), body: Some(String::new()) },
        ),
        ("revocations: 403", refusal(403)),
        ("revocations: 409", refusal(409)),
        ("revocations: 400", refusal(400)),
        ("revocations: 410", refusal(410)),
        ("revocations: 500", refusal(500)),
    ];
    run_rows(4, rows.into_iter().map(|(name, outcome)| (name, unrevoked(name, outcome)))).await;
}

async fn unrevoked(row: &'static str, outcome: Outcome) {
    let mut verdict = Verdict::new(row);
    let env = TestEnv::settling_fast().await;
    let mut old = Vec::new();
    for name in ["leaked", "rotated", "going", "gone"] {
        env.create(name, json!({"rotation": {"overlap": "2s"}})).await;
        old.push(env.id_of(name).await);
    }
    env.passes(2).await;
    env.emulator.stand("refused", StandingFault::of(Fault::once(Operation::Revoke, Effect::None, outcome)));
    env.annotate("leaked", "boltz.bio/rotate-now", "1").await;
    env.annotate("rotated", "boltz.bio/rotate", "1").await;
    for name in ["going", "gone"] {
        env.delete(name).await;
    }
    let since = std::time::Instant::now();
    verdict
        .within(Duration::from_secs(10), "every revocation is tried", async || {
            let asked = env.revoked_ids();
            if old.iter().all(|id| asked.contains(id)) {
                Ok(())
            } else {
                Err(format!("{asked:?} of {old:?}"))
            }
        })
        .await;
    verdict
        .within(PROMPT, "a condition names the leaked key, and that it is tried again", async || {
            says(&env.get("leaked").await, &old[0], &[])
        })
        .await;
    verdict
        .within(PROMPT, "so does one of the object that is deleted", async || {
            match env.objects().get_opt("going").await {
                Ok(Some(object)) => says(&object, &old[2], &[]),
                other => Err(format!("{:?}", other.map(|_| "it is gone"))),
            }
        })
        .await;
    verdict
        .within(PROMPT, "a warning among the events says it", async || warning_says(&env, &old[0]).await)
        .await;
    let leaked = env.get("leaked").await;
    verdict.that(
        "the new key is Ready",
        if is(&leaked, "Ready") { Ok(String::new()) } else { Err(String::new()) },
    );
    // As long as the gateway of the report was wrong.
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(since.elapsed())).await;
    for name in ["going", "gone"] {
        let held = match env.objects().get_opt(name).await {
            Ok(Some(object)) if object.finalizers().iter().any(|one| one == "boltz.bio/revoke-keys") => {
                Ok(String::new())
            }
            other => {
                Err(format!("{:?}", other.map(|object| object.map(|object| object.metadata.finalizers))))
            }
        };
        verdict.that(&format!("{name} keeps its finalizer until then"), held);
    }
    let tried = env.emulator.count(Operation::Revoke);
    // 1, 2, 4 and 8 s between them, for each of four.
    verdict.at_most("revocations tried in 12 s", 4 * 8, tried, "");

    env.emulator.lift("refused");
    for id in &old {
        verdict.within(Duration::from_secs(30), &format!("{id} dies"), async || is_revoked(&env, id)).await;
    }
    for name in ["going", "gone"] {
        verdict
            .within(PROMPT, &format!("{name} is gone"), async || match env.objects().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{:?}", other.map(|object| object.map(|object| object.status)))),
            })
            .await;
    }
    verdict
        .within(Duration::from_secs(10), "the right keys live", async || {
            right_keys_live(&env, &["leaked", "rotated"], &None).await
        })
        .await;
    for name in ["leaked", "rotated"] {
        verdict.within(PROMPT, &format!("{name} is well"), async || is_well(&env.get(name).await)).await;
    }
    verdict.end();
}

/// A 404 that is true: the key is gone at Boltz, and the list agrees. Nobody waits for it for ever.
#[tokio::test]
async fn a_key_that_is_gone_at_boltz_holds_nobody() {
    let env = TestEnv::settling_fast().await;
    // A list that lacks every key that it showed is not believed: there is another one.
    env.create("stays", json!({})).await;
    env.ready("stays").await;
    env.create("going", json!({"rotation": {"overlap": "24h"}})).await;
    let old = env.id_of("going").await;
    env.annotate("going", "boltz.bio/rotate", "1").await;
    env.until_active(3).await;
    env.passes(2).await;
    env.emulator.stand("gone", StandingFault::status(Operation::Revoke, 404).about(&old));
    env.emulator.deactivate(&old);
    env.delete("going").await;
    env.gone("going").await;
    env.until_active(1).await;
}

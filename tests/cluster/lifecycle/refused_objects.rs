//! The API server refuses, or fails at, the operator's writes of the objects themselves, or of their status.

use crate::{
    lifecycle::causes::{
        Backend, Obstacle, PROMPT, RECHECK, TOLD, Verdict, is_down, is_revoked, is_revoked_by, is_well,
        neighbour_is_served, quiet, right_keys_live, says, stored_anew, time_to, until_refused,
        with_neighbour,
    },
    test_env::{TestEnv, record_of, run_rows},
};
use boltz_emulator::Operation;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;

/// Writes of the objects themselves, or of their status, that are refused or fail.
#[tokio::test]
#[ignore = "judges by times, so it wants a machine of its own: make test-all runs it"]
async fn while_objects_cannot_be_written_the_rest_goes_on() {
    let objects = ("boltz.bio", "boltzapikeys");
    let status = ("boltz.bio", "boltzapikeys/status");
    let rows = [
        ("status: a webhook that refuses connections", status, None),
        ("status: a policy", status, Some("no status here")),
        ("object: a webhook that refuses connections", objects, None),
        ("object: a policy against our annotations", objects, Some("no annotations of boltz.bio here")),
    ];
    run_rows(4, rows.into_iter().map(|(name, on, denied)| (name, object_refused(name, on, denied)))).await;
}

async fn object_refused(row: &'static str, on: (&'static str, &'static str), denied: Option<&'static str>) {
    let mut verdict = Verdict::new(row);
    let is_status = on.1.ends_with("status");
    let mut env = TestEnv::settling_fast().await;
    with_neighbour(&mut env).await;
    let overlap = json!({"rotation": {"overlap": "8s"}});
    for name in ["main", "doomed"] {
        env.create(name, overlap.clone()).await;
    }
    let old = env.id_of("main").await;
    let doomed = env.id_of("doomed").await;
    env.annotate("main", "boltz.bio/rotate", "1").await;
    stored_anew(&env, "main", &old).await;
    let rotated = Timestamp::now();
    let obstacle = match denied {
        None => Obstacle::webhook(&env, &Backend::Refuses, on.0, on.1).await,
        Some(message) => {
            let expression = match is_status {
                true => "false",
                false => {
                    "!has(object.metadata.annotations) || \
                     !object.metadata.annotations.exists(name, name.startsWith('boltz.bio/attempts'))"
                }
            };
            Obstacle::policy(&env, on, &["CREATE", "UPDATE"], expression, message).await
        }
    };
    until_refused(&env, on.1, "main", true).await;
    let since = Timestamp::now();
    env.create("new", overlap).await;
    env.delete("doomed").await;
    let beside = neighbour_is_served(&env, &mut verdict).await;
    let words = denied.unwrap_or("failed calling webhook");
    verdict.within(PROMPT, "a deleted object's key is revoked", async || is_revoked(&env, &doomed)).await;
    let latest = rotated + Duration::from_secs(8) + PROMPT;
    verdict
        .within(time_to(latest), "the old key is revoked after its overlap", async || {
            is_revoked_by(&env, &old, latest)
        })
        .await;
    if is_status {
        verdict
            .within(PROMPT, "a new object gets its key", async || {
                let secret = env.secrets().get("new").await.map_err(|error| error.to_string())?;
                let id = env.emulator.authenticate(&crate::test_env::value_of(&secret, "BOLTZ_API_KEY"));
                if id == Some(record_of(&secret).key_id) { Ok(()) } else { Err(format!("{id:?}")) }
            })
            .await;
        let line = format!(r#"boltz_apikey_ready{{namespace="{}",name="new"}} 1"#, env.namespace);
        verdict
            .within(PROMPT, "the metrics say so", async || {
                let metrics = env.operator.get("/metrics").await?;
                if metrics.contains(&line) { Ok(()) } else { Err("no such line".to_owned()) }
            })
            .await;
        verdict
            .within(PROMPT, "a deleted object is gone", async || {
                match env.objects().get_opt("doomed").await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
    } else {
        verdict
            .within(TOLD, "a new object says what stands in its way", async || {
                is_down(&env, "new").await?;
                says(&env.get("new").await, words, &[])
            })
            .await;
        verdict
            .within(TOLD, "so does one that is being deleted", async || {
                match env.objects().get_opt("doomed").await {
                    Ok(Some(object)) => says(&object, words, &[]),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        verdict.at_most("keys created", 4, env.emulator.count(Operation::Create), "");
    }
    quiet(&env, &mut verdict, since, &["main", "new", "doomed"], 1).await;
    obstacle.lift().await;
    until_refused(&env, on.1, "main", false).await;
    for name in ["main", "new"] {
        env.annotate(name, "boltz.bio/retry", "1").await;
        verdict.within(PROMPT, &format!("{name} is well"), async || is_well(&env.get(name).await)).await;
    }
    // Nobody touches this one.
    verdict
        .within(RECHECK, "the deleted object is gone", async || match env.objects().get_opt("doomed").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    verdict
        .within(Duration::from_secs(10), "the right keys live", async || {
            right_keys_live(&env, &["main", "new"], &beside).await
        })
        .await;
    verdict.end();
}

//! Verbs that change something.

use super::Plugin;
use crate::test_env::{PATIENCE, TestEnv};
use boltz_emulator::{Operation, StandingFault};
use boltz_harness::eventually;
use serde_json::json;

#[tokio::test]
async fn an_editor_rotates_revokes_suspends_and_releases() {
    let mut env = TestEnv::settling_fast().await;
    env.create("design", json!({"rotation": {"overlap": "1h"}})).await;
    env.create("other", json!({"rotation": {"overlap": "1s"}})).await;
    let (first, other) = (env.id_of("design").await, env.id_of("other").await);
    let editor = Plugin::in_env(&env, "edit").await;

    let said = editor.expect(0, &["rotate", "design", "--dry-run"]);
    assert!(said.out.contains("would be rotated"), "{said:?}");
    let said = editor.expect(0, &["rotate", "--all", "--dry-run", "--output", "name"]);
    assert_eq!(said.out, "boltzapikey.boltz.bio/design\nboltzapikey.boltz.bio/other\n");
    editor.run(&["rotate"]).fails_with(1, "which objects?");
    let rotated = editor.json(&["rotate", "--all", "--wait", "--batch", "1"]);
    let second = env.id_of("design").await;
    assert_eq!(rotated["items"][0]["status"]["keyID"], *second);
    assert_ne!(first, second);
    assert_ne!(env.id_of("other").await, other);
    editor.expect(0, &["rotate", "other", "--wait-until-revoked"]);
    assert!(!env.active_ids().contains(&other));

    // A leaked key, and the one before it.
    editor.run(&["revoke-leaked", "design"]).fails_with(1, "nothing was done");
    assert_eq!(env.id_of("design").await, second);
    let said = editor.expect(0, &["revoke-leaked", "design", "--yes"]);
    let active = env.active_ids();
    assert!(!active.contains(&first) && !active.contains(&second), "{active:?} are active, {said:?}");
    assert!(said.out.contains(&first) && said.out.contains(&second), "{said:?}");
    let replaced = env.id_of("design").await;
    let object = editor.json(&["revoke-leaked", "design", "--yes"]);
    assert_eq!(object["status"]["keyID"], *env.id_of("design").await);
    assert!(!env.active_ids().contains(&replaced));
    env.judge_all(&["design", "other"], &[]).await;

    let said = editor.expect(0, &["suspend", "design", "--output", "name"]);
    assert_eq!(said.out, "boltzapikey.boltz.bio/design\n");
    editor.run(&["rotate", "design"]).fails_with(2, "design is suspended");
    editor.run(&["revoke-leaked", "design", "--yes"]).fails_with(2, "design is suspended");
    // What was done before one that fails is written.
    let said = editor.run(&["suspend", "design", "nobody", "--output", "json"]);
    assert!(said.code == 1 && said.err.contains("BoltzApiKey"), "{said:?}");
    let written: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(written["items"][0]["metadata"]["name"], "design", "{said:?}");
    let resumed = editor.json(&["resume", "design", "other"]);
    assert_eq!(resumed["items"][0]["spec"]["suspend"], false);
    assert_eq!(resumed["items"][1]["metadata"]["name"], "other");

    let kept = env.id_of("other").await;
    editor.run(&["release", "other"]).fails_with(1, "nothing was done");
    let said = editor.run_with_input(&["release", "other"], "other\n");
    assert!(said.code == 0 && said.out.contains(&kept), "{said:?}");
    env.gone("other").await;
    env.create("third", json!({})).await;
    env.ready("third").await;
    let said = editor.expect(0, &["release", "third", "--yes", "--output", "name"]);
    assert_eq!(said.out, "boltzapikey.boltz.bio/third\n");
    env.secret("other").await;
    assert!(env.active_ids().contains(&kept));

    // Nobody does it.
    env.operator.kill();
    let said = editor.run(&["rotate", "design", "--wait", "--timeout", "2s"]);
    said.fails_with(3, "the rotation of design did not happen within 2s");
}

/// That a request was accepted is not yet that the leaked key is dead.
#[tokio::test]
async fn a_leak_is_not_over_before_the_old_key_is_inactive() {
    let env = TestEnv::settling_fast().await;
    env.create("design", json!({})).await;
    let leaked = env.id_of("design").await;
    let editor = Plugin::in_env(&env, "edit").await;
    env.emulator.stand("no revocation", StandingFault::status(Operation::Revoke, 409));
    let said = editor.run(&["revoke-leaked", "design", "--yes", "--timeout", "5s"]);
    said.fails_with(3, "the revocation of the leaked key did not happen within 5s");
    assert!(!said.out.contains("revoked:"), "{said:?}");
    assert!(env.active_ids().contains(&leaked));
    env.emulator.lift("no revocation");
    let said = editor.expect(0, &["revoke-leaked", "design", "--yes"]);
    assert!(said.out.contains("revoked:"), "{said:?}");
    assert!(!env.active_ids().contains(&leaked));
}

#[tokio::test]
async fn a_batch_waits_for_the_one_before_it() {
    let env = TestEnv::new().await;
    let names = ["first", "second", "other"];
    for name in names {
        env.create(name, json!({})).await;
        env.ready(name).await;
    }
    for name in ["first", "second"] {
        let labels = json!({"metadata": {"labels": {"team": "a"}}});
        env.patch(name, labels).await;
    }
    let before = [env.id_of("first").await, env.id_of("second").await, env.id_of("other").await];
    let editor = Plugin::in_env(&env, "edit").await;
    env.emulator.stand("busy", StandingFault::status(Operation::Create, 503));
    let requested = async |name: &str| {
        env.get(name).await.metadata.annotations.unwrap_or_default().contains_key("boltz.bio/rotate")
    };
    let rotation = tokio::task::spawn_blocking(move || {
        editor.run(&["rotate", "--selector", "team=a", "--batch", "1", "--timeout", "2m"])
    });
    eventually(PATIENCE, "one is requested", async || {
        let count = usize::from(requested("first").await) + usize::from(requested("second").await);
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await
    .unwrap();
    // Longer than the plugin waits between two looks.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!(requested("first").await && requested("second").await), "the second did not wait");
    env.emulator.lift("busy");
    let said = rotation.await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(requested("first").await && requested("second").await);
    assert!(!requested("other").await, "it lacks the label");
    let after = [env.id_of("first").await, env.id_of("second").await, env.id_of("other").await];
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "{before:?}, {after:?}");
}

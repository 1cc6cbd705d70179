//! Verbs that change something.

use super::Plugin;
use crate::test_env::TestEnv;
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

//! Watches that lag, break and lie: a cache is a hint, and what is written depends on what is there.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, run_rows};
use boltz_emulator::Operation;
use boltz_harness::{WatchFault, eventually};
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;

const OBJECTS: &[&str] = &["boltzapikeys"];
const SECRETS: &[&str] = &["secrets"];
const BOTH: &[&str] = &["boltzapikeys", "secrets"];
/// Longer than the settle time, and than the window all the more.
const LATE: Duration = Duration::from_secs(9);
/// Cells that run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 8;

/// A name, what is wrong with the watches of which resources, and whether the operator restarts while it is so.
type Row = (&'static str, WatchFault, &'static [&'static str], bool);

const ROWS: &[Row] = &[
    ("no events", WatchFault::Freeze, BOTH, false),
    ("no events of objects", WatchFault::Freeze, OBJECTS, false),
    ("no events of Secrets", WatchFault::Freeze, SECRETS, false),
    ("no events after a restart", WatchFault::Freeze, BOTH, true),
    ("late events", WatchFault::Delay(LATE), BOTH, false),
    ("cuts", WatchFault::Cut, BOTH, false),
    ("lost events", WatchFault::Drop, BOTH, false),
    ("events twice", WatchFault::Duplicate, BOTH, false),
    ("an older list", WatchFault::Replay, BOTH, false),
    ("an older list of objects", WatchFault::Replay, OBJECTS, false),
    ("an older list of Secrets", WatchFault::Replay, SECRETS, false),
    ("an older list after a restart", WatchFault::Replay, BOTH, true),
    ("410 as a status", WatchFault::GoneStatus, BOTH, false),
    ("410 as an event", WatchFault::GoneEvent, BOTH, false),
    ("late echoes", WatchFault::LateEcho(LATE), BOTH, false),
];

#[tokio::test]
async fn whatever_becomes_of_watches_keys_work_and_nothing_is_minted_twice() {
    run_rows(SIDE_BY_SIDE, ROWS.iter().map(|row| (row.0, cell(row)))).await;
}

async fn cell(&(_, fault, resources, restarts): &Row) {
    let mut env = TestEnv::with_options(EnvOptions { proxy: true, ..EnvOptions::default() }).await;
    for name in ["rotated", "inactive", "bare", "ended"] {
        env.create(name, json!({"rotation": {"overlap": "1s"}})).await;
    }
    for name in ["rotated", "inactive", "bare", "ended"] {
        env.ready(name).await;
    }
    // What an older list shows: the first keys. One of them is revoked by now.
    env.operator.kill();
    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    env.annotate("rotated", "boltz.bio/rotate", "1").await;
    rotated(&env, 1).await;

    let proxy = env.proxy.as_ref().unwrap();
    proxy.break_watches(fault, resources);
    let replaced = env.record("inactive").await.key_id;
    env.create("made", json!({"rotation": {"overlap": "1s"}})).await;
    env.annotate("rotated", "boltz.bio/rotate", "2").await;
    env.secrets().delete("bare", &DeleteParams::default()).await.unwrap();
    env.delete("ended").await;
    env.emulator.deactivate(&replaced);
    if restarts {
        env.operator.kill();
        env.operator.restart().unwrap();
        env.operator.wait_ready().await.unwrap();
    }
    // Boltz's list tells of this one, so it is replaced while the watches are as they are. Two passes later everything
    // has been looked at again, own writes of the rotation included that no event has shown.
    eventually(PATIENCE, "the inactive key is replaced", async || {
        let record = env.record("inactive").await;
        if record.key_id == replaced { Err("not yet") } else { Ok(()) }
    })
    .await
    .unwrap();
    env.passes(2).await;
    for name in ["rotated", "inactive"] {
        let works = env.emulator.authenticate(&env.value(name).await);
        assert!(works.is_some(), "{name} does not work\n{}", env.operator.process().last_lines(40));
    }
    let proxy = env.proxy.as_ref().unwrap();
    assert!(proxy.broken_watches() > 0, "the fault has not shown");
    proxy.heal_watches();
    env.gone("ended").await;
    rotated(&env, 2).await;
    env.judge_all(&["made", "rotated", "inactive", "bare"], &[]).await;
    env.passes(2).await;
    env.judge_all(&["made", "rotated", "inactive", "bare"], &[]).await;
    // The first keys of four, two rotations, and one each for what was made, inactive and without a Secret.
    let posts = env.emulator.count(Operation::Create);
    assert_eq!(posts, 9 + env.unanswered(), "{}", env.operator.process().last_lines(80));
}

/// Waits until it has been rotated so often, and the old key's overlap is over.
async fn rotated(env: &TestEnv, times: i64) {
    env.until("rotated", "rotated", |object| {
        object
            .status
            .as_ref()
            .is_some_and(|status| status.rotations == Some(times) && status.previous_keys.is_empty())
    })
    .await;
}

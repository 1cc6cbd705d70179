//! A pass over Boltz's list concerns the objects of which it shows something new.

use crate::test_env::TestEnv;
use serde_json::json;

/// How many reconciliations there were.
async fn reconciliations(env: &TestEnv) -> u64 {
    let metrics = env.operator.get("/metrics").await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("boltz_reconcile_duration_seconds_count "));
    line.unwrap().parse().unwrap()
}

/// Waits until three passes in a row reconcile nothing.
async fn until_quiet(env: &TestEnv) -> u64 {
    for _ in 0..60 {
        let before = reconciliations(env).await;
        env.passes(4).await;
        if reconciliations(env).await == before {
            return before;
        }
    }
    panic!("passes reconcile for ever\n{}", env.operator.process().last_lines(40));
}

#[tokio::test]
async fn a_pass_reconciles_one_object_whose_key_changed_and_leaves_the_others_alone() {
    let env = TestEnv::settling_fast().await;
    for name in ["one", "two", "three", "four"] {
        env.create(name, json!({"expiresInDays": 90})).await;
    }
    for name in ["one", "two", "three", "four"] {
        env.ready(name).await;
    }
    let old = env.id_of("one").await;
    let before = until_quiet(&env).await;
    env.emulator.deactivate(&old);
    env.until("one", "another key", |object| {
        object.status.as_ref().and_then(|status| status.key_id.as_ref()).is_some_and(|id| *id != old)
    })
    .await;
    let after = until_quiet(&env).await;
    // Of the object itself: after the pass, and after each event of its new key.
    assert!(after - before <= 16, "{} reconciliations because one key changed", after - before);
    env.judge_all(&["one", "two", "three", "four"], &[]).await;
}

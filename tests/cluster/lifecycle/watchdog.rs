//! What only a restart cures.

use crate::test_env::TestEnv;
use boltz_harness::{FrozenThreads, eventually};
use serde_json::json;
use std::time::Duration;

/// All threads that reconcile stand still, as in a deadlock. The probes have a thread of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_says_so_and_a_restart_cures_it() {
    let mut env = TestEnv::new().await;
    env.create("before", json!({})).await;
    env.ready("before").await;
    env.operator.get("/healthz").await.unwrap();
    let frozen = match FrozenThreads::of_process(env.operator.process().pid(), |name| name != "prompt") {
        Ok(frozen) => frozen,
        Err(error) => return boltz_harness::skip(&format!("threads cannot be stopped: {error}")),
    };
    env.create("meanwhile", json!({})).await;
    eventually(Duration::from_secs(120), "/healthz fails", async || {
        match env.operator.get("/healthz").await {
            Err(error) if error.contains("503") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    env.operator.wait_for_log("the runtime runs no tasks", Duration::from_secs(5)).await.unwrap();
    env.operator.get("/metrics").await.unwrap();
    // As the kubelet does.
    drop(frozen);
    env.operator.restart().unwrap();
    env.ready("meanwhile").await;
    env.operator.get("/healthz").await.unwrap();
}

//! The API server goes away, and the operator with it.

use crate::test_env::{EnvOptions, TestEnv};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::Component;
use serde_json::json;

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_lost_and_nothing_minted_twice() {
    let env = TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
    env.create("before", json!({})).await;
    env.ready("before").await;
    // It goes between the POST and the write of the Secret.
    env.emulator.inject(Fault {
        operation: Some(Operation::Create),
        effect: Effect::Before,
        outcome: Outcome::Answer,
        latency_milliseconds: 500,
        times: 1,
    });
    env.create("during", json!({})).await;
    env.until_active(2).await;
    env.control_plane.kill(Component::ApiServer);
    env.wait("the operator notices", || {
        let log = env.operator.log();
        if log.contains("Failed to write the Secret") { Ok(()) } else { Err(log) }
    })
    .await;
    env.passes(3).await;
    env.control_plane.launch(Component::ApiServer).unwrap();
    env.control_plane.wait_ready().await.unwrap();
    env.ready("during").await;
    env.until_active(2).await;
    for name in ["before", "during"] {
        let id = env.ready(name).await.status.unwrap().key_id;
        assert_eq!(env.emulator.authenticate(&env.value(name).await), id);
    }
    assert!(
        env.emulator.count(Operation::Create) <= 3,
        "one POST, and one more for the key that was not stored"
    );
}

#[tokio::test]
async fn killed_between_the_post_and_the_secret_it_finds_the_stray() {
    let mut env = TestEnv::new().await;
    env.emulator.inject(Fault {
        operation: Some(Operation::Create),
        effect: Effect::Before,
        outcome: Outcome::Answer,
        latency_milliseconds: 700,
        times: 1,
    });
    env.create("crashed", json!({})).await;
    let [stray] = env.until_active(1).await.try_into().unwrap();
    env.operator.kill();
    env.operator.restart().unwrap();
    env.ready("crashed").await;
    env.wait("the stray is revoked", || {
        if env.active_ids().contains(&stray.id) { Err("it lives".to_owned()) } else { Ok(()) }
    })
    .await;
    env.judge("crashed").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

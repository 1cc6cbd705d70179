//! The API server goes away, and the operator with it.

use crate::test_env::{Bed, Make};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::Component;
use serde_json::json;

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_lost_and_nothing_minted_twice() {
    let bed = Bed::make(Make { own_control_plane: true, ..Make::default() }).await;
    bed.create("before", json!({})).await;
    bed.ready("before").await;
    // It goes between the POST and the write of the Secret.
    bed.emulator.inject(Fault {
        operation: Some(Operation::Create),
        effect: Effect::Before,
        outcome: Outcome::Answer,
        latency_milliseconds: 500,
        times: 1,
    });
    bed.create("during", json!({})).await;
    bed.until_active(2).await;
    bed.control_plane.kill(Component::ApiServer);
    bed.wait("the operator notices", || {
        let log = bed.operator.log();
        if log.contains("Failed to write the Secret") { Ok(()) } else { Err(log) }
    })
    .await;
    bed.passes(3).await;
    bed.control_plane.launch(Component::ApiServer).unwrap();
    bed.control_plane.wait_ready().await.unwrap();
    bed.ready("during").await;
    bed.until_active(2).await;
    for name in ["before", "during"] {
        let id = bed.ready(name).await.status.unwrap().key_id;
        assert_eq!(bed.emulator.authenticate(&bed.value(name).await), id);
    }
    assert!(
        bed.emulator.count(Operation::Create) <= 3,
        "one POST, and one more for the key that was not stored"
    );
}

#[tokio::test]
async fn killed_between_the_post_and_the_secret_it_finds_the_stray() {
    let mut bed = Bed::new().await;
    bed.emulator.inject(Fault {
        operation: Some(Operation::Create),
        effect: Effect::Before,
        outcome: Outcome::Answer,
        latency_milliseconds: 700,
        times: 1,
    });
    bed.create("crashed", json!({})).await;
    let [stray] = bed.until_active(1).await.try_into().unwrap();
    bed.operator.kill();
    bed.operator.restart().unwrap();
    bed.ready("crashed").await;
    bed.wait("the stray is revoked", || {
        if bed.active_ids().contains(&stray.id) { Err("it lives".to_owned()) } else { Ok(()) }
    })
    .await;
    bed.judge("crashed").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2);
}

//! `--label-selector`: an object that leaves it is another installation's.

use crate::test_env::{EnvOptions, TestEnv, owned};
use boltz_emulator::Operation;
use serde_json::json;

#[tokio::test]
async fn an_object_that_leaves_the_selector_has_no_series_and_none_is_issued_when_it_returns() {
    let env = TestEnv::with_options(EnvOptions {
        arguments: owned(&["--label-selector", "shard=a"]),
        ..EnvOptions::default()
    })
    .await;
    let shard = |shard: &str| json!({"metadata": {"labels": {"shard": shard}}});
    for name in ["leaves", "stays"] {
        env.create(name, json!({})).await;
        env.patch(name, shard("a")).await;
        env.ready(name).await;
    }
    let has_series = |metrics: &str, name: &str| metrics.contains(&format!("name=\"{name}\""));
    env.until_metrics("both have series", |metrics| {
        has_series(metrics, "leaves") && has_series(metrics, "stays")
    })
    .await;
    env.patch("leaves", shard("b")).await;
    env.until_metrics("only one has series", |metrics| {
        !has_series(metrics, "leaves") && has_series(metrics, "stays")
    })
    .await;
    let log = env.operator.log();
    assert!(log.contains("does not match --label-selector any more"), "{log}");
    // Nothing is done to it.
    env.annotate("leaves", "boltz.bio/rotate", "1").await;
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
    // Until it comes back.
    env.patch("leaves", shard("a")).await;
    env.until("leaves", "rotated", |object| {
        object.status.as_ref().is_some_and(|status| status.rotations == Some(1))
    })
    .await;
    env.until_metrics("both have series", |metrics| has_series(metrics, "leaves")).await;
    assert_eq!(env.emulator.count(Operation::Create), 3);
}

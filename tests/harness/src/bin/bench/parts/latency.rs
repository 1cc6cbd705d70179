//! One object on an idle cluster: from its creation to its Secret, as a watch sees it; from `rotate-now` to the end of the
//! old key. Operator and bare loop take turns, in blocks.

use super::{NO_BUDGET, PATIENCE, SETTLED, SETTLES_SOON};
use crate::{
    Bench, BenchError,
    cluster::{name_of, namespace_of, until},
    report::{Goal, quantile},
    worker::{Who, Worker},
};
use boltz_emulator::{Emulator, Options};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DynamicObject, WatchEvent, WatchParams},
    core::PartialObjectMeta,
};
use std::time::{Duration, Instant};

const PART: &str = "latency";
/// Objects in a block.
const BLOCK: usize = 40;

#[derive(Default)]
struct Times {
    issue: Vec<f64>,
    rotate_now: Vec<f64>,
}

pub async fn measure(bench: &mut Bench) -> Result<(), BenchError> {
    let (mut operator, mut bare) = (Times::default(), Times::default());
    for round in 0..bench.options.rounds {
        let order = if round % 2 == 0 { [Who::Operator, Who::Bare] } else { [Who::Bare, Who::Operator] };
        for who in order {
            let times = if who == Who::Operator { &mut operator } else { &mut bare };
            block(bench, who, times).await?;
        }
    }
    let report = &mut bench.report;
    for (what, operator, bare, quantiles) in [
        (
            "created -> Secret",
            &operator.issue,
            &bare.issue,
            [(0.5, Goal::AtMost(1.3)), (0.99, Goal::AtMost(1.3))],
        ),
        (
            "rotate-now -> old key dead",
            &operator.rotate_now,
            &bare.rotate_now,
            [(0.5, Goal::AtMost(2.0)), (0.99, Goal::None)],
        ),
    ] {
        for (share, goal) in quantiles {
            let (operator, bare) = (quantile(operator, share), quantile(bare, share));
            let percentile = share * 100.0;
            report.add(PART, format!("{what}, p{percentile}, operator"), operator, "ms", Goal::None);
            report.add(PART, format!("{what}, p{percentile}, bare loop"), bare, "ms", Goal::None);
            report.add(PART, format!("{what}, p{percentile}, ratio"), operator / bare, "", goal);
        }
    }
    Ok(())
}

async fn block(bench: &Bench, who: Who, times: &mut Times) -> Result<(), BenchError> {
    let cluster = &bench.cluster;
    cluster.clean().await?;
    let emulator = Emulator::start(Options::default()).await?;
    let worker = Worker::start(who, &bench.setup, cluster, &emulator, &[NO_BUDGET, SETTLES_SOON])?;
    if let Worker::Operator(operator) = &worker {
        operator.wait_ready().await.map_err(BenchError::Unexpected)?;
    }
    // The first objects find no connections yet, on both sides.
    let unmeasured = 4;
    let mut keys = Vec::new();
    for number in 0..BLOCK + unmeasured {
        worker.quiet(PATIENCE).await?;
        let took = issue(bench, number).await?;
        keys.push(key_of(bench, number).await?);
        if number >= unmeasured {
            times.issue.push(took);
        }
    }
    // Only then may the first rotation revoke its old key at once.
    tokio::time::sleep(SETTLED).await;
    for (number, key) in keys.iter().enumerate() {
        worker.quiet(PATIENCE).await?;
        let begun = Instant::now();
        cluster.annotate(number..number + 1, "boltz.bio/rotate-now", "bench").await?;
        until_each(Duration::from_millis(1), "the old key is dead", || {
            emulator.key(key).is_some_and(|key| key.revoked_at.is_some())
        })
        .await?;
        if number >= unmeasured {
            times.rotate_now.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    worker.stop().await
}

/// Creates the object; after how many milliseconds a watch shows its Secret.
async fn issue(bench: &Bench, number: usize) -> Result<f64, BenchError> {
    let (name, namespace) = (name_of(number), namespace_of(number));
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(bench.cluster.client.clone(), &namespace);
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(secrets.watch_metadata(&only, "0").await?.into_stream());
    let begun = Instant::now();
    bench.cluster.create(number..number + 1).await?;
    while let Ok(Some(event)) = tokio::time::timeout(PATIENCE, events.next()).await {
        if matches!(event?, WatchEvent::Added(_)) {
            return Ok(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Err(BenchError::Unexpected(format!("{namespace}/{name} got no Secret")))
}

/// The id of its key, once the status says it.
async fn key_of(bench: &Bench, number: usize) -> Result<String, BenchError> {
    let objects = bench.cluster.objects(&namespace_of(number));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let object: DynamicObject = objects.get(&name_of(number)).await?;
        if let Some(key) = object.data["status"]["keyID"].as_str() {
            return Ok(key.to_owned());
        }
    }
    until(Duration::ZERO, "the status names the key", || Ok(false)).await?;
    Ok(String::new())
}

async fn until_each(pause: Duration, what: &str, is_so: impl Fn() -> bool) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected(format!("not within {} s: {what}", PATIENCE.as_secs())));
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

//! Four namespaces with all waiting objects are deleted at once; kube-controller-manager deletes what is in them.

use super::{Beside, PATIENCE, beside_waiting, issue};
use crate::{Bench, BenchError, report::Goal, worker::Who};
use boltz_harness::Component;
use std::time::Instant;

const PART: &str = "namespace";

pub async fn measure(bench: &mut Bench) -> Result<(), BenchError> {
    bench.cluster.control_plane.launch(Component::ControllerManager)?;
    let mut ratios = Vec::new();
    let (mut operator, mut bare) = (Vec::new(), Vec::new());
    for round in 0..bench.options.rounds {
        let order = if round % 2 == 0 { [Who::Operator, Who::Bare] } else { [Who::Bare, Who::Operator] };
        for who in order {
            let took = one(bench, who).await?;
            eprintln!("  round {}: {who:?} {took:.2} s", round + 1);
            match who {
                Who::Operator => operator.push(took),
                Who::Bare => bare.push(took),
            }
        }
    }
    ratios.extend(bare.iter().zip(&operator).map(|(bare, operator)| bare / operator));
    let objects = bench.options.waiting;
    let report = &mut bench.report;
    let what = format!("namespaces with {objects} objects deleted, share of the floor");
    report.add_samples(PART, what, &ratios, "", Goal::AtLeast(0.9));
    report.add_samples(PART, "until they are gone, operator", &operator, "s", Goal::None);
    report.add_samples(PART, "until they are gone, bare loop", &bare, "s", Goal::None);
    Ok(())
}

async fn one(bench: &Bench, who: Who) -> Result<f64, BenchError> {
    let count = bench.options.waiting as usize;
    let cluster = &bench.cluster;
    let Beside { emulator, from, worker } = beside_waiting(bench, who, count).await?;
    issue::issued(bench, &emulator, from, count, count).await?;
    worker.quiet(PATIENCE).await?;
    let begun = Instant::now();
    cluster.delete_namespaces(PATIENCE).await?;
    let took = begun.elapsed().as_secs_f64();
    worker.stop().await?;
    cluster.create_namespaces().await?;
    Ok(took)
}

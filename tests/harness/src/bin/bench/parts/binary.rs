//! The file, and how soon it works: from the start of the process to the first call about a waiting object.

use super::{Beside, PATIENCE, beside_waiting};
use crate::{Bench, BenchError, cluster::until, report::Goal, worker::Who};

const PART: &str = "binary";

pub async fn measure(bench: &mut Bench) -> Result<(), BenchError> {
    let size = std::fs::metadata(&bench.setup.binary).map_err(BenchError::io("the operator"))?.len();
    let (mut operator, mut more) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        let took = first_call(bench, Who::Operator).await?;
        more.push(took - first_call(bench, Who::Bare).await?);
        operator.push(took);
    }
    let report = &mut bench.report;
    report.add(PART, "size", size as f64 / 1e6, "MB", Goal::AtMost(12.0));
    report.add_samples(PART, "start -> first call about an object", &operator, "ms", Goal::None);
    report.add_samples(
        PART,
        "the same beyond that of the bare loop, which lists too",
        &more,
        "ms",
        Goal::AtMost(100.0),
    );
    Ok(())
}

/// After how many milliseconds the API server receives the first dry run.
async fn first_call(bench: &Bench, who: Who) -> Result<f64, BenchError> {
    let cluster = &bench.cluster;
    let Beside { emulator: _emulator, from, worker } = beside_waiting(bench, who, 1).await?;
    let mut first = None;
    until(PATIENCE, "the first call", || {
        first = cluster.calls_since(from).into_iter().find(boltz_harness::AuditEvent::is_dry_run);
        Ok(first.is_some())
    })
    .await?;
    worker.stop().await?;
    let received = first.map_or(from, |event| event.received);
    Ok(received.duration_since(from).as_secs_f64() * 1e3)
}

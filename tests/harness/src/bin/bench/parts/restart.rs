//! A restart, against listing the same things once.

use super::filled::Filled;
use crate::{
    Bench, BenchError,
    counts::Counts,
    report::{Goal, quantile},
    worker::Worker,
};
use boltz_emulator::Operation;
use std::time::Instant;

const PART: &str = "restart";

pub async fn measure(bench: &mut Bench, filled: &Filled) -> Result<(), BenchError> {
    let (mut took, mut bare, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let posts = filled.emulator.count(Operation::Create) + filled.emulator.count(Operation::Revoke);
    let from = jiff::Timestamp::now();
    for _ in 0..bench.options.rounds {
        let begun = Instant::now();
        Worker::list(bench, &filled.emulator).await?;
        let listed = begun.elapsed().as_secs_f64();
        let known = filled.operator(bench, &[]).await?;
        cpu.push(known.worker.cpu()?.as_secs_f64() * 1e3);
        known.assert_ready(filled.count).await?;
        known.worker.stop().await?;
        ratios.push(known.took.as_secs_f64() / listed);
        took.push(known.took.as_secs_f64());
        bare.push(listed);
    }
    let counts = Counts::of(&bench.cluster.calls_since(from));
    let posted = filled.emulator.count(Operation::Create) + filled.emulator.count(Operation::Revoke) - posts;
    let report = &mut bench.report;
    let objects = filled.count;
    let what = format!("{objects} objects: all known good / listed by bare calls");
    report.add_samples(PART, what, &ratios, "", Goal::AtMost(1.5));
    report.add_samples(PART, "until all are known good", &took, "s", Goal::None);
    report.add_samples(PART, "bare calls that list objects, Secrets and keys", &bare, "s", Goal::None);
    report.add_samples(PART, "CPU of the operator", &cpu, "ms", Goal::None);
    report.add(PART, "writes of objects and Secrets", counts.writes as f64, "", Goal::Exactly(0.0));
    report.add(PART, "POSTs to Boltz", posted as f64, "", Goal::Exactly(0.0));
    report.note(format!("calls of all restarts and lists: {:?}", counts.by_kind));
    if counts.writes > 0 || posted > 0 {
        let median = quantile(&took, 0.5);
        return Err(BenchError::Unexpected(format!(
            "{} writes and {posted} POSTs over restarts that took {median:.1} s",
            counts.writes
        )));
    }
    Ok(())
}

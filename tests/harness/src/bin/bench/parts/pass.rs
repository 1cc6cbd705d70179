//! A pass over Boltz's list: CPU, and how many objects are looked at when it ends.

use super::{
    FREQUENT_PASSES, PATIENCE, SETTLES_SOON,
    filled::{Filled, metric},
};
use crate::{Bench, BenchError, cluster::until, report::Goal, worker::Worker};
use boltz_emulator::Operation;
use std::time::Duration;

const PART: &str = "pass";
const PASSES: usize = 3;
/// The passes after which every object should be quiet.
const MOST_PASSES: usize = 6;

pub async fn measure(bench: &mut Bench, filled: &Filled) -> Result<(), BenchError> {
    let known = filled.operator(bench, &[FREQUENT_PASSES, SETTLES_SOON]).await?;
    let reconciliations = async || metric(&known.worker, "boltz_reconcile_duration_seconds_count").await;
    // Until two passes have begun after all attempts are settled, a pass may matter to every object.
    let mut before = reconciliations().await?;
    for _ in 0..MOST_PASSES {
        next(&known.worker, filled).await?;
        known.worker.quiet(PATIENCE).await?;
        let now = reconciliations().await?;
        if now <= before {
            break;
        }
        before = now;
    }
    let (mut cpu, mut end) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let used = next(&known.worker, filled).await?;
        let read = known.worker.cpu()?;
        known.worker.quiet(PATIENCE).await?;
        let all = known.worker.cpu()?;
        cpu.push(all.saturating_sub(used).as_secs_f64() * 1e3);
        end.push(all.saturating_sub(read).as_secs_f64() * 1e3);
    }
    let after = reconciliations().await?;
    known.worker.stop().await?;
    let report = &mut bench.report;
    let objects = filled.count;
    let reading = format!("{objects} objects: CPU of a pass, the list of keys included");
    report.add_samples(PART, reading, &cpu, "ms", Goal::None);
    report.add_samples(
        PART,
        format!("{objects} objects: CPU after the last page was asked for"),
        &end,
        "ms",
        Goal::AtMost(20.0),
    );
    let reconciliations = (after - before) / PASSES as f64;
    report.add(
        PART,
        format!("{objects} objects: reconciliations at its end"),
        reconciliations,
        "",
        Goal::AtMost(0.0),
    );
    Ok(())
}

/// Waits for the next pass to be read to its end; the CPU time that was used when it began.
pub async fn next(worker: &Worker, filled: &Filled) -> Result<Duration, BenchError> {
    let pages = filled.emulator.count(Operation::List);
    let mut used = worker.cpu()?;
    until(PATIENCE, "a pass begins", || {
        let begins = filled.emulator.count(Operation::List) > pages;
        if !begins {
            used = worker.cpu()?;
        }
        Ok(begins)
    })
    .await?;
    let wanted = pages + filled.count.div_ceil(1000);
    until(PATIENCE, "the pass ends", || Ok(filled.emulator.count(Operation::List) >= wanted)).await?;
    Ok(used)
}

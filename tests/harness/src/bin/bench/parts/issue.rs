//! Objects wait; a process starts and gives each its key. Then all are deleted. Operator and bare loop take turns.

use super::{Beside, NO_BUDGET, PATIENCE, SETTLES_SOON, beside_waiting};
use crate::{
    Bench, BenchError,
    cluster::until,
    counts::Counts,
    report::Goal,
    worker::{Who, Worker},
};
use boltz_emulator::{Emulator, Operation, Options};
use std::time::Duration;

const PART: &str = "issue";

type Value = fn(&Run) -> f64;
type Part = fn(&Run) -> &Counts;

/// One measurement.
struct Run {
    issue: Counts,
    issue_cpu: Duration,
    delete: Counts,
    delete_cpu: Duration,
}

pub async fn measure(bench: &mut Bench) -> Result<(), BenchError> {
    let count = bench.options.waiting as usize;
    let (mut operator, mut bare) = (Vec::new(), Vec::new());
    for round in 0..bench.options.rounds {
        let order = if round % 2 == 0 { [Who::Operator, Who::Bare] } else { [Who::Bare, Who::Operator] };
        for who in order {
            let run = one(bench, who, count).await?;
            eprintln!(
                "  round {}: {who:?} issues {count} in {:.2} s with {:.2} s of CPU, deletes in {:.2} s with {:.2} s",
                round + 1,
                run.issue.seconds(),
                run.issue_cpu.as_secs_f64(),
                run.delete.seconds(),
                run.delete_cpu.as_secs_f64()
            );
            match who {
                Who::Operator => operator.push(run),
                Who::Bare => bare.push(run),
            }
        }
    }
    report(bench, count as f64, &operator, &bare);
    rotations(bench, count).await
}

async fn one(bench: &Bench, who: Who, count: usize) -> Result<Run, BenchError> {
    let cluster = &bench.cluster;
    let Beside { emulator, from, worker } = beside_waiting(bench, who, count).await?;
    issued(bench, &emulator, from, count, count).await.map_err(|error| worker.explain(&error))?;
    let issue_cpu = worker.cpu()?;
    worker.quiet(PATIENCE).await?;
    let issue = Counts::of(&cluster.calls_since(from));

    let (from, used) = (jiff::Timestamp::now(), worker.cpu()?);
    cluster.delete(0..count).await?;
    until(PATIENCE, "all objects are gone", || {
        Ok(emulator.count(Operation::Revoke) >= count
            && Counts::of(&cluster.calls_since(from)).object_writes >= count)
    })
    .await
    .map_err(|error| worker.explain(&error))?;
    let delete_cpu = worker.cpu()?.saturating_sub(used);
    let delete = Counts::of(&cluster.calls_since(from));
    worker.stop().await?;
    Ok(Run { issue, issue_cpu, delete, delete_cpu })
}

/// Waits until so many keys are issued and reported since then, and so many have been issued at all.
pub async fn issued(
    bench: &Bench,
    emulator: &Emulator,
    from: jiff::Timestamp,
    count: usize,
    in_all: usize,
) -> Result<(), BenchError> {
    // The cheap question first: the other one reads the audit log.
    until(PATIENCE, "all keys are issued", || Ok(emulator.count(Operation::Create) >= in_all)).await?;
    let reported = || Ok(Counts::of(&bench.cluster.calls_since(from)).status_writes >= count);
    until(PATIENCE, "all statuses are written", reported).await
}

fn report(bench: &mut Bench, count: f64, operator: &[Run], bare: &[Run]) {
    let pairs = |value: Value| -> Vec<f64> {
        operator.iter().zip(bare).map(|(operator, bare)| value(operator) / value(bare)).collect()
    };
    let each = |runs: &[Run], value: Value| -> Vec<f64> { runs.iter().map(value).collect() };
    let per_key =
        |runs: &[Run], value: Value| -> Vec<f64> { runs.iter().map(|run| value(run) / count).collect() };
    let speed: Vec<f64> = pairs(|run| run.issue.seconds()).iter().map(|ratio| 1.0 / ratio).collect();
    let deletion: Vec<f64> = pairs(|run| run.delete.seconds()).iter().map(|ratio| 1.0 / ratio).collect();
    let report = &mut bench.report;
    report.add_samples(PART, "issuing waiting objects, share of the floor", &speed, "", Goal::AtLeast(0.92));
    let cpu = pairs(|run| run.issue_cpu.as_secs_f64());
    report.add_samples(PART, "CPU for a key, operator / bare loop", &cpu, "", Goal::AtMost(1.5));
    for (name, runs) in [("operator", operator), ("bare loop", bare)] {
        let speed: Vec<f64> = each(runs, |run| run.issue.seconds()).iter().map(|time| count / time).collect();
        report.add_samples(PART, format!("keys issued a second, {name}"), &speed, "/s", Goal::None);
        let cpu = per_key(runs, |run| run.issue_cpu.as_secs_f64() * 1e3);
        report.add_samples(PART, format!("CPU for a key issued, {name}"), &cpu, "ms", Goal::None);
        let cpu = per_key(runs, |run| run.delete_cpu.as_secs_f64() * 1e3);
        report.add_samples(PART, format!("CPU for an object deleted, {name}"), &cpu, "ms", Goal::None);
    }
    let figures: [(&str, Value, f64); 3] = [
        ("writes for a key issued", |run| run.issue.writes as f64, 3.0),
        ("dry runs for a key issued", |run| run.issue.dry_runs as f64, 1.0),
        ("writes for an object deleted", |run| run.delete.writes as f64, 1.0),
    ];
    for (what, value, goal) in figures {
        report.add_samples(PART, what, &per_key(operator, value), "", Goal::Exactly(goal));
    }
    report.add_samples(PART, "deleting the objects, share of the floor", &deletion, "", Goal::AtLeast(0.9));
    let kinds = |runs: &[Run], counts: Part| runs.last().map(|run| format!("{:?}", counts(run).by_kind));
    for (what, counts) in [("issue", (|run: &Run| &run.issue) as Part), ("deletion", |run: &Run| &run.delete)]
    {
        for (name, runs) in [("operator", operator), ("bare loop", bare)] {
            report.note(format!(
                "calls of the last {what}, {name}: {}",
                kinds(runs, counts).unwrap_or_default()
            ));
        }
    }
}

/// What a rotation with an overlap costs, and one without.
async fn rotations(bench: &mut Bench, count: usize) -> Result<(), BenchError> {
    let cluster = &bench.cluster;
    cluster.clean().await?;
    let emulator = Emulator::start(Options::default()).await?;
    cluster.create(0..count).await?;
    let from = jiff::Timestamp::now();
    let worker = Worker::start(Who::Operator, &bench.setup, cluster, &emulator, &[NO_BUDGET, SETTLES_SOON])?;
    issued(bench, &emulator, from, count, count).await?;
    worker.quiet(PATIENCE).await?;

    let from = jiff::Timestamp::now();
    cluster.annotate(0..count, "boltz.bio/rotate", "bench").await?;
    until(PATIENCE, "all keys are rotated", || Ok(emulator.count(Operation::Create) >= 2 * count)).await?;
    worker.quiet(PATIENCE).await?;
    let rotated = Counts::of(&cluster.calls_since(from));

    let from = jiff::Timestamp::now();
    cluster.annotate(0..count, "boltz.bio/rotate-now", "bench").await?;
    until(PATIENCE, "all old keys are revoked", || Ok(emulator.count(Operation::Revoke) >= count)).await?;
    worker.quiet(PATIENCE).await?;
    let at_once = Counts::of(&cluster.calls_since(from));
    worker.stop().await?;

    let count = count as f64;
    let report = &mut bench.report;
    report.add(PART, "writes for a key rotated", rotated.writes as f64 / count, "", Goal::Exactly(3.0));
    let what = "writes for a key rotated by rotate-now, end of the overlap included";
    report.add(PART, what, at_once.writes as f64 / count, "", Goal::AtMost(4.0));
    report.add(PART, "dry runs for a key rotated", rotated.dry_runs as f64 / count, "", Goal::Exactly(1.0));
    report.note(format!("calls of rotate-now: {:?}", at_once.by_kind));
    Ok(())
}

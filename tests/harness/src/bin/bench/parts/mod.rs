//! What is measured.

mod binary;
mod filled;
mod idle;
mod issue;
mod latency;
mod memory;
mod namespace;
mod pass;
mod rate;
mod restart;

use crate::{
    Bench, BenchError,
    worker::{Who, Worker},
};
use boltz_emulator::{Emulator, Options};
use clap::ValueEnum;
use std::fmt;

/// Longer than anything takes that works.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);
/// Lifts the limit of new keys, which would be measured otherwise.
const NO_BUDGET: &str = "--max-mints-per-minute=1000000";
/// The old key of `rotate-now` is revoked once its own attempt is settled: after one and a half times this, at the earliest.
/// By default keys are old enough for that after 3 min.
const SETTLES_SOON: &str = "--settle-time=10s";
const SETTLED: std::time::Duration = std::time::Duration::from_secs(16);
/// So that there is a pass to look at.
const FREQUENT_PASSES: &str = "--inventory-interval=20s";

/// A process that has just been started beside objects that wait for their keys.
struct Beside {
    emulator: Emulator,
    /// Before its start.
    from: jiff::Timestamp,
    worker: Worker,
}

async fn beside_waiting(bench: &Bench, who: Who, count: usize) -> Result<Beside, BenchError> {
    let cluster = &bench.cluster;
    cluster.clean().await?;
    let emulator = Emulator::start(Options::default()).await?;
    cluster.create(0..count).await?;
    let from = jiff::Timestamp::now();
    let worker = Worker::start(who, &bench.setup, cluster, &emulator, &[NO_BUDGET])?;
    Ok(Beside { emulator, from, worker })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Waiting objects get their keys, and are deleted; what a rotation costs.
    Issue,
    /// Memory at rest, at start and in a pass, with a tenth, a half and all of the objects.
    Memory,
    /// CPU and calls when nothing happens.
    Idle,
    /// From the start to the last object that is known good.
    Restart,
    /// What the end of a pass over Boltz's list costs.
    Pass,
    /// One object on an idle cluster.
    Latency,
    /// Boltz allows 20 requests a second.
    Rate,
    /// Namespaces with many objects are deleted.
    Namespace,
    /// The binary, and its start.
    Binary,
}

impl Part {
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", format!("{self:?}").to_lowercase())
    }
}

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let parts = bench.options.parts.clone();
    let wanted = |part| parts.contains(&part);
    if wanted(Part::Issue) {
        eprintln!("{}", Part::Issue);
        issue::measure(bench).await?;
    }
    if [Part::Memory, Part::Restart, Part::Pass, Part::Idle].into_iter().any(wanted) {
        let mut filled = filled::Filled::start(bench).await?;
        if wanted(Part::Memory) {
            eprintln!("{}", Part::Memory);
            memory::measure(bench, &mut filled).await?;
        }
        filled.fill(bench, bench.options.objects as usize).await?;
        if wanted(Part::Restart) {
            eprintln!("{}", Part::Restart);
            restart::measure(bench, &filled).await?;
        }
        if wanted(Part::Pass) {
            eprintln!("{}", Part::Pass);
            pass::measure(bench, &filled).await?;
        }
        if wanted(Part::Idle) {
            eprintln!("{}", Part::Idle);
            idle::measure(bench, &filled).await?;
        }
    }
    if wanted(Part::Latency) {
        eprintln!("{}", Part::Latency);
        latency::measure(bench).await?;
    }
    if wanted(Part::Rate) {
        eprintln!("{}", Part::Rate);
        rate::measure(bench).await?;
    }
    if wanted(Part::Binary) {
        eprintln!("{}", Part::Binary);
        binary::measure(bench).await?;
    }
    // Last: it adds controllers to the control plane.
    if wanted(Part::Namespace) {
        eprintln!("{}", Part::Namespace);
        namespace::measure(bench).await?;
    }
    Ok(())
}

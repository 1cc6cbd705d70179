//! Nothing happens.

use super::filled::Filled;
use crate::{Bench, BenchError, counts::Counts, report::Goal};
use std::time::{Duration, Instant};

const PART: &str = "idle";

pub async fn measure(bench: &mut Bench, filled: &Filled) -> Result<(), BenchError> {
    let known = filled.operator(bench, &[]).await?;
    let (from, begun, used) = (jiff::Timestamp::now(), Instant::now(), known.worker.cpu()?);
    let asked = filled.emulator.requests().len();
    tokio::time::sleep(Duration::from_secs(u64::from(bench.options.idle))).await;
    let used = known.worker.cpu()?.saturating_sub(used);
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let counts = Counts::of(&bench.cluster.calls_since(from));
    let asked = filled.emulator.requests().len() - asked;
    known.worker.stop().await?;
    let report = &mut bench.report;
    report.add(PART, format!("{} objects: share of a core", filled.count), share, "%", Goal::AtMost(0.2));
    let others: usize =
        counts.by_kind.iter().filter(|(kind, _)| !kind.ends_with("leases")).map(|(_, count)| count).sum();
    report.add(PART, "calls that are not about the lease", others as f64, "", Goal::None);
    report.add(PART, "calls to Boltz", asked as f64, "", Goal::None);
    report.note(format!("calls in {} s at rest: {:?}", bench.options.idle, counts.by_kind));
    Ok(())
}

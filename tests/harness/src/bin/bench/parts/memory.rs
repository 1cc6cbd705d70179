//! Resident memory: right after the start, at rest, in a pass, after a scrape.

use super::{FREQUENT_PASSES, PATIENCE, filled::Filled};
use crate::{
    Bench, BenchError,
    report::{Goal, Growth},
    usage,
};

const PART: &str = "memory";

pub async fn measure(bench: &mut Bench, filled: &mut Filled) -> Result<(), BenchError> {
    let most = bench.options.objects as usize;
    for count in [most / 10, most / 2, most] {
        filled.fill(bench, count).await?;
        one(bench, filled).await?;
    }
    Ok(())
}

async fn one(bench: &mut Bench, filled: &Filled) -> Result<(), BenchError> {
    let known = filled.operator(bench, &[FREQUENT_PASSES]).await?;
    let pid = known.worker.pid();
    let (at_rest, peak_at_start) = (usage::resident(pid)?, usage::peak(pid)?);
    usage::forget_peak(pid)?;
    super::pass::next(&known.worker, filled).await?;
    known.worker.quiet(PATIENCE).await?;
    let (peak_in_a_pass, after_it) = (usage::peak(pid)?, usage::resident(pid)?);
    usage::forget_peak(pid)?;
    known.assert_ready(filled.count).await?;
    let (peak_in_a_scrape, after_a_scrape) = (usage::peak(pid)?, usage::resident(pid)?);
    known.worker.stop().await?;

    let objects = filled.count;
    // The goals are for 10,000 and 50,000 objects.
    let goal = |at_10_000: f64| match objects {
        10_000 => Goal::AtMost(at_10_000),
        50_000 => Goal::AtMost(300.0),
        _ => Goal::None,
    };
    let report = &mut bench.report;
    for (what, value, goal) in [
        ("at rest", at_rest, goal(60.0)),
        ("peak while starting", peak_at_start, goal(80.0)),
        ("peak during a pass", peak_in_a_pass, goal(80.0)),
        ("after the pass", after_it, Goal::None),
        ("peak during a scrape of /metrics", peak_in_a_scrape, Goal::None),
        ("after the scrape", after_a_scrape, Goal::None),
    ] {
        report.add(PART, format!("{objects} ready objects: {what}"), value, "MB", goal);
    }
    report.growth.push(Growth { objects, at_rest, peak_at_start, peak_in_a_pass });
    Ok(())
}

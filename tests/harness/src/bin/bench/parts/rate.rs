//! Boltz allows 20 requests a second and answers all others with 429.

use super::{NO_BUDGET, issue};
use crate::{
    Bench, BenchError,
    report::Goal,
    worker::{Who, Worker},
};
use boltz_emulator::{Emulator, Operation, Options, Settings};

const PART: &str = "rate";
const ALLOWED: u32 = 20;
const OBJECTS: usize = 500;

pub async fn measure(bench: &mut Bench) -> Result<(), BenchError> {
    let cluster = &bench.cluster;
    cluster.clean().await?;
    cluster.create(0..OBJECTS).await?;
    let settings = Settings { requests_per_second: Some(ALLOWED), ..Settings::default() };
    let emulator = Emulator::start(Options { settings, ..Options::default() }).await?;
    let from = jiff::Timestamp::now();
    let worker = Worker::start(Who::Operator, &bench.setup, cluster, &emulator, &[NO_BUDGET])?;
    issue::issued(bench, &emulator, from, OBJECTS, OBJECTS).await?;
    let requests = emulator.requests();
    worker.stop().await?;
    let times = || requests.iter().map(|request| request.at);
    let (first, last) = (times().min().unwrap_or(from), times().max().unwrap_or(from));
    let accepted = requests.iter().filter(|request| request.status != Some(429)).count();
    let creates = requests.iter().filter(|request| request.operation == Operation::Create);
    let tried = creates.count();
    let seconds = last.duration_since(first).as_secs_f64();
    // A second's worth is allowed at once.
    let allowed = f64::from(ALLOWED) * (seconds + 1.0);
    let report = &mut bench.report;
    let what = format!("{OBJECTS} keys at {ALLOWED} requests a second: share of what is allowed");
    report.add(PART, what, accepted as f64 / allowed, "", Goal::AtLeast(0.85));
    report.add(PART, "creates for each key", tried as f64 / OBJECTS as f64, "", Goal::AtMost(1.1));
    let calls = requests.len() as f64 / accepted as f64;
    report.add(PART, "requests for each that is accepted", calls, "", Goal::AtMost(1.1));
    report.add(PART, "all keys after", seconds, "s", Goal::None);
    Ok(())
}

//! A cluster with many objects whose keys are issued. The operator itself has issued them.

use super::{NO_BUDGET, PATIENCE, issue};
use crate::{
    Bench, BenchError,
    cluster::until,
    worker::{Who, Worker},
};
use boltz_emulator::{Emulator, Operation, Options};
use boltz_harness::OperatorProcess;
use std::time::{Duration, Instant};

pub struct Filled {
    pub emulator: Emulator,
    pub count: usize,
}

/// An operator that knows every object to be good.
pub struct Known {
    pub worker: Worker,
    /// From its start.
    pub took: Duration,
}

impl Filled {
    pub async fn start(bench: &Bench) -> Result<Self, BenchError> {
        bench.cluster.clean().await?;
        Ok(Self { emulator: Emulator::start(Options::default()).await?, count: 0 })
    }

    /// Until there are so many.
    pub async fn fill(&mut self, bench: &Bench, count: usize) -> Result<(), BenchError> {
        if self.count >= count {
            return Ok(());
        }
        eprintln!("  filling: {count} objects");
        let from = jiff::Timestamp::now();
        let worker =
            Worker::start(Who::Operator, &bench.setup, &bench.cluster, &self.emulator, &[NO_BUDGET])?;
        bench.cluster.create(self.count..count).await?;
        issue::issued(bench, &self.emulator, from, count - self.count, count).await?;
        worker.quiet(PATIENCE).await?;
        self.count = count;
        worker.stop().await
    }

    /// Starts the operator and waits until it has looked at every object and at Boltz's list, and has nothing to do.
    pub async fn operator(&self, bench: &Bench, instead: &[&str]) -> Result<Known, BenchError> {
        let (begun, pages) = (Instant::now(), self.emulator.count(Operation::List));
        let worker = Worker::start(Who::Operator, &bench.setup, &bench.cluster, &self.emulator, instead)?;
        // A standby is ready, too. Only the leader reads Boltz's list.
        let wanted = pages + self.count.div_ceil(1000);
        until(PATIENCE, "Boltz's list is read", || Ok(self.emulator.count(Operation::List) >= wanted))
            .await?;
        if let Worker::Operator(operator) = &worker {
            ready(operator).await?;
        }
        let since = worker.quiet(PATIENCE).await?;
        Ok(Known { took: since.duration_since(begun), worker })
    }
}

/// Asks whether it is ready, every 10 ms.
async fn ready(operator: &OperatorProcess) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    while operator.get("/readyz").await.is_err() {
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected("the operator does not become ready".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The sum of a metric over its series.
pub async fn metric(worker: &Worker, name: &str) -> Result<f64, BenchError> {
    let Worker::Operator(operator) = worker else {
        return Err(BenchError::Unexpected("the bare loop has no metrics".to_owned()));
    };
    let text = operator.get("/metrics").await.map_err(BenchError::Unexpected)?;
    let values = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

impl Known {
    /// Fails unless every object has a valid key.
    pub async fn assert_ready(&self, count: usize) -> Result<(), BenchError> {
        let ready = metric(&self.worker, "boltz_apikey_ready").await?;
        if (ready - count as f64).abs() < 0.5 {
            return Ok(());
        }
        let error = BenchError::Unexpected(format!("{ready} of {count} objects are ready"));
        Err(self.worker.explain(&error))
    }
}

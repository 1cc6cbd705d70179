//! Every call that the operator makes, crossed with every way in which a call can end, on a real API server.
//!
//! Each cell has its own namespace, emulator, operator and proxy in front of the API server. The matrix is printed as a
//! table, with the count; no cell is left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The beds of the lifecycle's tests; not all of their helpers are of use here.
#[allow(dead_code)]
#[path = "../lifecycle/bed.rs"]
mod bed;
mod cell;
mod outcome;
mod scenario;

use outcome::Outcome;
use scenario::Call;
use std::{sync::Arc, time::Instant};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

/// Cells that run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_crossed_with_every_outcome() {
    LocalSet::new().run_until(matrix()).await;
}

async fn matrix() {
    // `MATRIX=R3` or `MATRIX=R3/lost` runs a part of it.
    let wanted = std::env::var("MATRIX").unwrap_or_default();
    let started = Instant::now();
    let permits = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut cells = JoinSet::new();
    for (row, call) in scenario::CALLS.iter().enumerate() {
        for (column, outcome) in outcome::ALL.iter().enumerate() {
            if !format!("{}/{}", call.name, outcome.name()).starts_with(&wanted) {
                continue;
            }
            let permits = Arc::clone(&permits);
            cells.spawn_local(async move {
                let _permit = permits.acquire().await.unwrap();
                (row, column, cell::run(call, *outcome).await)
            });
        }
    }
    let mut results = vec![vec![None; outcome::ALL.len()]; scenario::CALLS.len()];
    let mut count = 0;
    let mut failures = Vec::new();
    while let Some(done) = cells.join_next().await {
        let (row, column, result) = done.unwrap();
        count += 1;
        if count % 25 == 0 {
            eprintln!("{count} cells after {} s", started.elapsed().as_secs());
        }
        if let Err(why) = &result {
            let (call, outcome) = (&scenario::CALLS[row], outcome::ALL[column]);
            failures.push(format!("{}/{}: {why}", call.name, outcome.name()));
        }
        results[row][column] =
            Some(result.map(|posts| posts.to_string()).unwrap_or_else(|_| "FAIL".to_owned()));
    }
    print_table(&results);
    let verdict = if failures.is_empty() { "all good" } else { "some failed" };
    eprintln!(
        "{count} cells in {} s, {verdict}; each shows the number of POSTs",
        started.elapsed().as_secs()
    );
    assert!(failures.is_empty(), "{} of {count} cells failed:\n{}", failures.len(), failures.join("\n\n"));
    assert!(count > 0, "MATRIX={wanted} names no cell");
}

fn print_table(results: &[Vec<Option<String>>]) {
    let names: Vec<String> = outcome::ALL.iter().map(|outcome: &Outcome| outcome.name().to_owned()).collect();
    eprintln!("{:<28} {}", "", names.iter().map(|name| format!("{name:>17}")).collect::<String>());
    for (call, row) in scenario::CALLS.iter().zip(results) {
        let call: &Call = call;
        let cells: String =
            row.iter().map(|cell| format!("{:>17}", cell.as_deref().unwrap_or("-"))).collect();
        eprintln!("{:<28} {cells}", call.name);
    }
}

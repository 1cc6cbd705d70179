//! Every call that the operator makes, crossed with every way in which a call can end, on a real API server.
//!
//! Each cell has its own namespace, emulator, operator and proxy in front of the API server. It is judged when all is good
//! for the first time, and again when a settle time and two passes are over; a watch of the Secrets judges meanwhile. The
//! matrix is printed as a table of POSTs and writes; a cell whose user found nothing to act on is not counted.

mod cell;
mod delivered;
mod outcome;
mod scenario;
mod user;

use cell::Cost;
use outcome::Outcome;
use scenario::{Call, Scenario};
use std::{collections::HashMap, time::Instant};
use tokio::task::{JoinSet, LocalSet};
use user::{Acted, User};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_crossed_with_every_outcome() {
    let columns = outcome::ALL.map(|outcome| (outcome.name().to_owned(), outcome, User::Waits));
    judge(&LocalSet::new().run_until(matrix(|_| true, &columns)).await);
}

/// What `make test` looks at: each call lost and its process killed, and each outcome of the calls that make a key and
/// store it. The POST of a rotation is decided about like that of the first key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice() {
    let makes_or_stores = ["C2 POST", "C3 Secret", "R3 Secret"];
    let lost = [(Outcome::LostAndKilled.name().to_owned(), Outcome::LostAndKilled, User::Waits)];
    let others = outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::LostAndKilled);
    let others: Vec<_> = others.map(|outcome| (outcome.name().to_owned(), outcome, User::Waits)).collect();
    let is_among = |call: &Call| makes_or_stores.contains(&call.name);
    let (mut failures, more) =
        tokio::join!(async { LocalSet::new().run_until(matrix(|_| true, &lost)).await }, async {
            LocalSet::new().run_until(matrix(is_among, &others)).await
        },);
    failures.extend(more);
    judge(&failures);
}

/// What is crossed with users first: a lost key, and an effect that nobody expects any more, in what happens daily.
const HARDEST: [Outcome; 2] = [Outcome::LostAndKilled, Outcome::Late];

fn is_daily(call: &Call) -> bool {
    matches!(call.scenario, Scenario::Create | Scenario::Rotate | Scenario::EndOfOverlap)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hardest_outcomes_crossed_with_what_users_do_meanwhile() {
    judge(&crossed_with_users(&HARDEST, is_daily).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a quarter of an hour: make test-all runs it"]
async fn everything_else_crossed_with_what_users_do_meanwhile() {
    let others: Vec<Outcome> =
        outcome::ALL.into_iter().filter(|outcome| !HARDEST.contains(outcome)).collect();
    let mut failures = crossed_with_users(&HARDEST, |call| !is_daily(call)).await;
    failures.extend(crossed_with_users(&others, |_| true).await);
    judge(&failures);
}

fn judge(failures: &[String]) {
    assert!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// Answers what failed.
async fn crossed_with_users(outcomes: &[Outcome], rows: impl Fn(&Call) -> bool) -> Vec<String> {
    let mut failures = Vec::new();
    // Who deletes a Secret just adopted makes the key before an orphan: a known limit.
    let rows = |call: &Call| rows(call) && call.scenario != Scenario::Adopt;
    for outcome in outcomes {
        let columns = user::ALL.map(|user| (user.name().to_owned(), *outcome, user));
        eprintln!("{}, and meanwhile the user:", outcome.name());
        failures.extend(LocalSet::new().run_until(matrix(&rows, &columns)).await);
    }
    failures
}

/// Whether a cell of any of the tables begins so. Not every table has it.
fn is_a_cell(wanted: &str) -> bool {
    let columns = || {
        let outcomes = outcome::ALL.into_iter().map(Outcome::name);
        outcomes.chain(user::ALL.into_iter().map(User::name))
    };
    let begins = |call: &Call| columns().any(|column| format!("{}/{column}", call.name).starts_with(wanted));
    !wanted.is_empty() && scenario::CALLS.iter().any(begins)
}

/// Runs the cells side by side, prints the table, and answers what failed.
async fn matrix(rows: impl Fn(&Call) -> bool, columns: &[(String, Outcome, User)]) -> Vec<String> {
    // `MATRIX="R3"` or `MATRIX="R3 Secret/answer lost"` runs a part of it.
    let wanted = std::env::var("MATRIX").unwrap_or_default();
    let rows: Vec<&'static Call> = scenario::CALLS.iter().filter(|call| rows(call)).collect();
    let started = Instant::now();
    let mut cells = JoinSet::new();
    let mut places = HashMap::new();
    for (row, call) in rows.iter().copied().enumerate() {
        for (column, (name, outcome, user)) in columns.iter().enumerate() {
            if !format!("{}/{name}", call.name).starts_with(&wanted) {
                continue;
            }
            let (outcome, user) = (*outcome, *user);
            let task = cells.spawn_local(cell::run(call, outcome, user));
            places.insert(task.id(), (row, column));
        }
    }
    let mut table = vec![vec!["-".to_owned(); columns.len()]; rows.len()];
    let (all, mut count, mut idle, mut late, mut failures) = (cells.len(), 0, 0, 0, Vec::new());
    while let Some(done) = cells.join_next_with_id().await {
        // What panics is a cell that failed, like any other.
        let (task, result) = done.unwrap_or_else(|error| (error.id(), Err(error.to_string())));
        let (row, column) = places[&task];
        table[row][column] = match result {
            Ok(Cost { posts, writes, is_late, acted: Acted::Yes }) => {
                count += 1;
                late += usize::from(is_late);
                format!("{posts}/{writes}{}", if is_late { " late" } else { "" })
            }
            Ok(Cost { acted: Acted::No, .. }) => {
                idle += 1;
                "nothing to do".to_owned()
            }
            Err(why) => {
                failures.push(format!("{}/{}: {why}", rows[row].name, columns[column].0));
                "FAIL".to_owned()
            }
        };
        let done = count + idle + failures.len();
        if done % 25 == 0 {
            eprintln!("{done} of {all} cells after {} s", started.elapsed().as_secs());
        }
    }
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>17}")).collect();
        eprintln!("{name:<28}{cells}");
    };
    line("POSTs/writes", &columns.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>());
    for (call, cells) in rows.iter().zip(&table) {
        line(call.name, cells);
    }
    eprintln!(
        "{count} cells judged twice in {} s, {} failed; {idle} not counted, because the user found nothing to act on; the \
         cost of {late} not judged, because calls were slow",
        started.elapsed().as_secs(),
        failures.len()
    );
    if all == 0 {
        // Another table has it, or none.
        assert!(is_a_cell(&wanted), "no cell is called {wanted:?}");
        boltz_harness::skip(&format!("{wanted:?} is not in this table"));
    }
    failures
}

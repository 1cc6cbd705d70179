//! `make soak`: hundreds of objects, random users, random faults and random restarts, judged all the time.
//!
//! | module | idea |
//! |---|---|
//! | `stage` | what everything happens on: control plane, proxy, emulator, slots for objects, what is not ours |
//! | `users` | random users |
//! | `chaos` | random faults at Boltz and at the API server, random restarts of the operator |
//! | `judge` | what must hold at any time, and what must hold when idle |
//!
//! The judge reads records, markers and status as JSON: it shares no code with the operator that it judges.

mod chaos;
mod judge;
mod stage;
mod users;

use boltz_emulator::EmulatorError;
use boltz_harness::{HarnessError, OperatorProcess, eventually};
use clap::Parser;
use judge::Judge;
use rand::{SeedableRng, rngs::StdRng};
use stage::Stage;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(15);
/// To become idle: the longest lifetime of a key in the run, the waits after failures, and room for a slow machine.
const PATIENCE: Duration = Duration::from_secs(420);
/// For orphans to be revoked once that is asked for.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(120);

/// Runs the operator against a real control plane and an emulator of Boltz, under random users, faults and restarts,
/// and judges it all the time.
///
/// Users rotate, change specs, suspend, delete and recreate objects, delete and edit Secrets, and forge annotations.
/// Calls to Boltz and to the API server are cut, lost, late, refused although done, truncated. The operator is killed
/// and restarted. Days have 20 s, so keys expire and are renewed within the run. Afterwards faults and users stop,
/// everything has to be idle within 7 minutes (it usually takes one), and the books have to balance.
///
/// The exit code is 1 when a promise is broken: the report says which, for which object, and how to replay it. The
/// same seed makes the same choices in the same order; what the machine makes of their timing differs. Everything is
/// on loopback, and ends with the program or with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "soak", max_term_width = 110)]
struct Arguments {
    /// How long users, faults and restarts go on.
    #[arg(long, env = "MINUTES", default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// How many objects there are at most.
    #[arg(long, env = "OBJECTS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    objects: u16,
    /// The seed of every random choice. Default: another one each time; it is printed.
    #[arg(long, env = "SEED")]
    seed: Option<u32>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 =
        text.parse().map_err(|_| "must be a number of minutes, such as 2 or 0.5".to_owned())?;
    if (0.1..=1440.0).contains(&minutes) { Ok(minutes) } else { Err("must be from 0.1 to 1440".to_owned()) }
}

#[derive(Debug, thiserror::Error)]
enum SoakError {
    #[error(transparent)]
    Harness(#[from] HarnessError),
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// The stage itself does not work: nothing is said about the operator.
    #[error("{0}")]
    Stage(String),
    /// A promise is broken.
    #[error("{what}")]
    Broken { what: String, object: Option<String> },
}

impl SoakError {
    fn broken(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Broken { what: what.into(), object: Some(object.into()) }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    // Whatever ends this future drops what it started.
    tokio::select! {
        result = soak(&arguments, seed) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("soak: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nStopping everything.");
            ExitCode::from(130)
        }
    }
}

async fn soak(arguments: &Arguments, seed: u32) -> Result<(), SoakError> {
    let replay = format!("make soak SEED={seed} OBJECTS={} MINUTES={}", arguments.objects, arguments.minutes);
    println!("{replay}");
    let stage = Stage::set(usize::from(arguments.objects), seed).await?;
    let mut operator = stage.start_operator(&[])?;
    let mut judge = Judge::new();
    let result = perform(&stage, &mut operator, &mut judge, arguments, seed).await;
    judge.report(&stage);
    let result = result.and_then(|()| no_panic(&operator));
    if let Err(SoakError::Broken { what, object }) = &result {
        explain(&operator, what, object.as_deref());
        eprintln!("\nReplay: {replay}");
    }
    result
}

async fn perform(
    stage: &Stage,
    operator: &mut OperatorProcess,
    judge: &mut Judge,
    arguments: &Arguments,
    seed: u32,
) -> Result<(), SoakError> {
    operator.wait_ready().await.map_err(SoakError::Stage)?;
    let random = |actor: u64| StdRng::seed_from_u64((u64::from(seed) << 8) | actor);
    let until = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let play = async {
        tokio::try_join!(
            users::act(stage, random(1), until),
            chaos::trouble_boltz(stage, random(2), until),
            chaos::trouble_api_server(stage, random(3), until),
            chaos::restart(stage, operator, random(4), until),
        )
    };
    tokio::select! {
        result = play => drop(result?),
        result = judge.watch(stage) => return result,
        () = tell_progress(stage) => {}
    }

    println!("Faults and users stop; everything has to become idle.");
    stage.calm();
    users::clean_up(stage).await?;
    settle(stage, operator, judge, PATIENCE, false).await?;
    // Knowledge that users destroyed makes orphans, by design. Those are revoked on request, and nothing else is.
    judge.count_orphans(stage);
    operator.terminate();
    // Its log goes with it.
    no_panic(operator)?;
    *operator = stage.start_operator(&["--orphan-policy", "revoke", "--orphan-grace", "2s"])?;
    settle(stage, operator, judge, ORPHAN_PATIENCE, true).await
}

/// Waits until the books balance, and watches meanwhile.
async fn settle(
    stage: &Stage,
    operator: &mut OperatorProcess,
    judge: &mut Judge,
    patience: Duration,
    orphans_too: bool,
) -> Result<(), SoakError> {
    let started = Instant::now();
    let deadline = started + patience;
    let mut told = started;
    loop {
        judge.look(stage).await?;
        still_runs(operator)?;
        let wrong = judge.wrong_at_rest(stage, orphans_too);
        let Some((object, what)) = wrong.first() else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(SoakError::broken(
                object.clone(),
                format!(
                    "after {} s without faults {} things are still wrong, the first: {what}",
                    patience.as_secs(),
                    wrong.len()
                ),
            ));
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let waited = started.elapsed().as_secs();
            println!(
                "after {waited} s without faults, {} things are not settled, the first: {object}: {what}",
                wrong.len()
            );
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn tell_progress(stage: &Stage) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        println!("{}", stage.progress());
    }
}

fn still_runs(operator: &mut OperatorProcess) -> Result<(), SoakError> {
    match operator.wait(Duration::ZERO) {
        Some(code) => Err(SoakError::broken("the operator", format!("it ended by itself, with {code}"))),
        None => Ok(()),
    }
}

fn no_panic(operator: &OperatorProcess) -> Result<(), SoakError> {
    match operator.log().lines().find(|line| line.contains("panicked")) {
        Some(line) => Err(SoakError::broken("the operator", format!("it panicked: {line}"))),
        None => Ok(()),
    }
}

fn explain(operator: &OperatorProcess, what: &str, object: Option<&str>) {
    let log = operator.log();
    let lines: Vec<&str> = log.lines().collect();
    eprintln!("\nA promise is broken: {what}");
    if let Some(object) = object {
        eprintln!("Object: {object}\n\nThe operator's log about it, last lines:");
        let name = object.rsplit('/').next().unwrap_or(object);
        let about: Vec<&&str> = lines.iter().filter(|line| line.contains(name)).collect();
        for line in about.iter().skip(about.len().saturating_sub(15)) {
            eprintln!("  {line}");
        }
    }
    eprintln!("\nThe operator's log, last lines:");
    for line in lines.iter().skip(lines.len().saturating_sub(15)) {
        eprintln!("  {line}");
    }
}

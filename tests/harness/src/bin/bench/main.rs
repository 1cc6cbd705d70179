//! `make bench`: the operator that ships, measured against a bare loop that makes the same calls.
//!
//! | module | idea |
//! |---|---|
//! | `parts` | what is measured, a file for each part |
//! | `bare` | the floor: a loop with the operator's calls and watches, and nothing else; a process of its own |
//! | `worker` | whoever is measured, operator or bare loop, as a process |
//! | `cluster` | the control plane, and what users do on it |
//! | `counts`, `usage` | what the audit log and the kernel say |
//! | `report`, `plot` | the table, the JSON, the growth |

mod bare;
mod cluster;
mod counts;
mod parts;
mod plot;
mod report;
mod usage;
mod worker;

use boltz_emulator::EmulatorError;
use boltz_harness::HarnessError;
use clap::{Parser, Subcommand};
use cluster::Cluster;
use parts::Part;
use report::Report;
use serde_json::json;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use worker::Setup;

/// Measures the operator that ships on a control plane of its own, with an emulator of Boltz, against a bare loop.
///
/// The bare loop makes the same calls in the same order, with as many in flight and with the same watches open, on the
/// same client libraries, and does nothing else. Each measurement of the operator has one of the loop beside it, and they
/// take turns in going first. What counts are the ratios: whatever else the machine does slows both. The figures of a
/// pair are the API server's own, from its audit log: from the first dry run or write to the response to the last.
///
/// The operator is the static binary of the image (release/binaries builds it) with the flags of the chart's defaults.
/// They are changed where a part needs it: the budget of new keys is lifted, memory and passes are measured with a pass
/// every 20 s, and rotate-now with a settle time of 10 s, because the old key is revoked only once its attempt is settled.
///
///     make bench                                        everything, in half an hour or so
///     make bench PARTS=issue ROUNDS=9                   the floor only, in nine pairs
///     make bench PARTS=memory OBJECTS=50000             how memory grows
///     make bench OPERATOR=/tmp/other/boltz-operator     another build
///
/// Peaks of memory are measured through /proc/PID/clear_refs, which needs root. Everything is on loopback, and ends with
/// the program or with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "bench", verbatim_doc_comment, max_term_width = 110, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    bare: Option<Other>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// The bare loop, which the program starts itself.
    #[command(hide = true)]
    Bare {
        task: bare::Task,
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
    },
}

/// What is measured, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The parts, comma-separated.
    #[arg(long, env = "PARTS", value_delimiter = ',', default_values_t = Part::all())]
    parts: Vec<Part>,
    /// Pairs of measurements; the median counts.
    #[arg(long, env = "ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Objects in the parts memory, restart, pass and idle.
    #[arg(long, env = "OBJECTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    objects: u32,
    /// Objects that wait in the parts issue and namespace.
    #[arg(long, env = "WAITING", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    waiting: u32,
    /// Seconds of the part idle.
    #[arg(long, env = "IDLE", default_value_t = 60, value_parser = clap::value_parser!(u16).range(5..=3600))]
    idle: u16,
    /// Minutes after which the run ends unfinished, with what it has.
    #[arg(long, env = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=600))]
    minutes: u16,
    /// The operator.
    #[arg(long, env = "OPERATOR", default_value = "dist/amd64/boltz-operator")]
    operator: PathBuf,
    /// Where the JSON goes.
    #[arg(long, env = "JSON", default_value = "target/bench.json")]
    json: PathBuf,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BenchError {
    #[error(transparent)]
    Harness(#[from] HarnessError),
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    #[error("the API server: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("Boltz: {0}")]
    Boltz(#[from] reqwest::Error),
    #[error("a request: {0}")]
    Request(#[from] http::Error),
    #[error("the system: {0}")]
    System(#[from] nix::Error),
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    #[error("{0}")]
    Unexpected(String),
}

impl BenchError {
    fn io(what: &str) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_owned();
        |error| Self::Io(what, error)
    }
}

/// Everything that a part needs.
pub struct Bench {
    options: Options,
    setup: Setup,
    cluster: Cluster,
    report: Report,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let task = async {
        match arguments.bare {
            Some(Other::Bare { task, concurrency }) => bare::run(task, concurrency).await,
            None => measure(arguments.options).await,
        }
    };
    // Whatever ends this future drops what it started.
    tokio::select! {
        result = task => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nStopping everything.");
            ExitCode::from(130)
        }
    }
}

async fn measure(options: Options) -> Result<(), BenchError> {
    let setup = Setup::new(&options.operator)?;
    let cluster = Cluster::start().await?;
    let about = json!({
        "operator": options.operator,
        "bytes": std::fs::metadata(&options.operator).map_err(BenchError::io("the operator"))?.len(),
        "flags": setup.flags(&[]),
        "rounds": options.rounds,
        "objects": options.objects,
        "waiting": options.waiting,
    });
    let json = options.json.clone();
    let at_most = Duration::from_secs(u64::from(options.minutes) * 60);
    let mut bench = Bench { options, setup, cluster, report: Report::default() };
    let ended = tokio::time::timeout(at_most, parts::run(&mut bench)).await;
    // Also of a run that failed.
    bench.report.print();
    bench.report.write(&json, &about)?;
    eprintln!("written: {}", json.display());
    ended.unwrap_or_else(|_| {
        Err(BenchError::Unexpected(format!("not done after {} minutes", at_most.as_secs() / 60)))
    })
}

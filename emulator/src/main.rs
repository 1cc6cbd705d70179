//! The emulator as a program.

mod workload;

use boltz_emulator::{Emulator, Options, Settings, parse_listen};
use clap::{Parser, Subcommand, builder::NonEmptyStringValueParser};
use jiff::SignedDuration;
use std::{net::SocketAddr, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A stateful emulator of the Boltz admin API.
///
/// Keys live in memory. Faults and the ground truth are under /_emulator, without authentication: GET /_emulator/state
/// shows every key, POST /_emulator/faults makes requests fail, PUT /_emulator/standing-faults/{name} until DELETE of
/// the same, PUT /_emulator/settings changes how it behaves.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,

    /// Where to listen. A port alone, as in :8099, is every address, IPv6 and IPv4. Port 0: a free one.
    #[arg(long, env = "BOLTZ_EMULATOR_LISTEN", default_value = "127.0.0.1:8099", value_parser = parse_listen)]
    listen: SocketAddr,

    /// The admin key that it takes.
    #[arg(
        long,
        env = "BOLTZ_API_KEY",
        hide_env_values = true,
        default_value = "sk_bc_admin_live_emulated",
        value_parser = NonEmptyStringValueParser::new()
    )]
    admin_key: String,

    /// How long a day lasts, for example 10s: a key with expires_in_days 1 then expires after 10 seconds.
    #[arg(long, default_value = "24h", value_name = "DURATION", allow_hyphen_values = true, value_parser = milliseconds)]
    day: u64,
}

/// What the program does instead.
#[derive(Debug, Subcommand)]
enum Other {
    /// Uses a Boltz key as workloads do: authenticates again and again, and says when it is refused.
    Workload(workload::Workload),
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let milliseconds = u64::try_from(duration.as_millis()).ok().filter(|milliseconds| *milliseconds > 0);
    milliseconds.ok_or_else(|| "must be at least 1ms".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("boltz-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let terminate = signal(SignalKind::terminate())?;
    if let Some(Other::Workload(workload)) = arguments.other {
        return tokio::select! {
            result = workload::run(workload) => result,
            () = stop_signal(terminate) => Ok(()),
        };
    }
    let settings = Settings { day_milliseconds: arguments.day, ..Settings::default() };
    let options = Options { listen: arguments.listen, admin_key: arguments.admin_key, settings };
    let emulator = Emulator::start(options).await?;
    println!("listening on {}", emulator.base_url());
    stop_signal(terminate).await;
    Ok(())
}

async fn stop_signal(mut terminate: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

//! The emulator as a program.

use boltz_emulator::{Emulator, Options, Settings};
use clap::Parser;
use jiff::SignedDuration;
use std::{net::SocketAddr, process::ExitCode};

/// A stateful emulator of the Boltz admin API.
///
/// Keys live in memory. Faults and the ground truth are under /_emulator: GET /_emulator/state shows every key,
/// POST /_emulator/faults makes requests fail, PUT /_emulator/settings changes how it behaves.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "BOLTZ_EMULATOR_LISTEN", default_value = "127.0.0.1:8099")]
    listen: SocketAddr,

    /// The admin key that it takes.
    #[arg(long, env = "BOLTZ_API_KEY", hide_env_values = true, default_value = "sk_bc_admin_live_emulated")]
    admin_key: String,

    /// How long a day lasts, for example 10s: a key with expires_in_days 1 then expires after 10 seconds.
    #[arg(long, default_value = "24h")]
    day: SignedDuration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Ok(day_milliseconds) = u64::try_from(arguments.day.as_millis()) else {
        eprintln!("boltz-emulator: --day wants a positive duration such as 10s");
        return ExitCode::from(2);
    };
    let settings = Settings { day_milliseconds, ..Settings::default() };
    let options = Options { listen: arguments.listen, admin_key: arguments.admin_key, settings };
    match Emulator::start(options).await {
        Ok(emulator) => {
            println!("listening on {}", emulator.base_url());
            let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            {
                Ok(terminate) => terminate,
                Err(error) => {
                    eprintln!("boltz-emulator: signals could not be set up: {error}");
                    return ExitCode::FAILURE;
                }
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("boltz-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Entry point. [`boltz_operator::runtime`] does the work.

use boltz_operator::{cli::Config, observability::telemetry, runtime};
use std::process::ExitCode;

fn main() -> ExitCode {
    // First: the memory of this process will contain the admin key and new keys.
    if let Err(error) = runtime::disable_core_dumps() {
        return failed(&error, ExitCode::FAILURE);
    }
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) if error.is_help() => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return failed(&error, ExitCode::from(2)),
    };
    let log_level = telemetry::init(config.log_format);
    match runtime::run(config, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, ExitCode::FAILURE),
    }
}

fn failed(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    eprintln!("boltz-operator: {error}");
    code
}

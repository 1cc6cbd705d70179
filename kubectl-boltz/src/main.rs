//! `kubectl boltz`: sees and acts on the keys that boltz-operator manages.
//!
//! [`pure`] decides what is shown; [`verbs`] make the calls.

mod cli;
mod cluster;
mod complete;
mod failure;
mod output;
mod pure;
mod verbs;
mod words;

use clap::{CommandFactory, Parser};
use cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A shell that asks for completion sets a variable.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "__complete") {
        return finish(output::print(&complete::for_kubectl(arguments.collect())).map(|()| 0));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is there to read it.
            let _ = error.print();
            // clap's own code for an error means "not ready" here.
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failure::Failure::Other(error.to_string()));
    finish(runtime.and_then(|runtime| runtime.block_on(verbs::run(cli))))
}

fn finish(result: Result<u8, failure::Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::tell(&format!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

//! Prints a CustomResourceDefinition: `cargo run --example crdgen boltzapikeys > crds/boltzapikeys.yaml`.

use boltz_operator::api::crd::{account_crd, crd};
use std::process::ExitCode;

fn main() -> ExitCode {
    let crd = match std::env::args().nth(1).as_deref() {
        Some("boltzapikeys") => crd(),
        Some("boltzaccounts") => account_crd(),
        _ => {
            eprintln!("crdgen: give one of boltzapikeys, boltzaccounts");
            return ExitCode::FAILURE;
        }
    };
    match serde_saphyr::to_string(&crd) {
        Ok(yaml) => {
            print!("{yaml}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("crdgen: cannot write the CustomResourceDefinition as YAML: {error}");
            ExitCode::FAILURE
        }
    }
}

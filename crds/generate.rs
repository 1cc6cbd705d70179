//! Prints the CustomResourceDefinition: `cargo run --example crdgen > crds/boltzapikeys.yaml`.

use boltz_operator::api::crd::crd;
use std::process::ExitCode;

fn main() -> ExitCode {
    match serde_saphyr::to_string(&crd()) {
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

//! Starts a real Kubernetes control plane, a node for it, and the operator against it, for tests and for the demo.
//!
//! Everything runs on loopback, or in a network of its own, and ends with its owner, even when that is killed: see [`child_process`].

mod audit;
mod certificates;
pub mod child_process;
mod control_plane;
mod frozen_threads;
mod kubeconfig;
mod node;
mod operator;
pub mod owner;
mod ports;
mod proxy;
mod wait;
mod watch_faults;

use std::io::Write;

pub use audit::AuditEvent;
pub use certificates::{Authority, Credential};
pub use control_plane::{
    Component, ControlPlane, ControlPlaneOptions, HarnessError, OPERATOR_USER, programs,
};
pub use frozen_threads::FrozenThreads;
pub use node::{NODE_ADDRESS, Node, PAUSE_IMAGE, PrivateNetwork};
pub use operator::OperatorProcess;
pub use ports::free_port;
pub use proxy::{ApiCall, ApiFault, ApiProxy};
pub use wait::eventually;
pub use watch_faults::WatchFault;

/// Says that the test which calls this shows nothing here, and why. `tests/run` counts it: it names a file in
/// `SKIPPED_TESTS`, because the output of a test that passes is not shown.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = std::env::var_os("SKIPPED_TESTS") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        if let Err(error) = written {
            eprintln!("skipped, and not counted: {error}");
        }
    }
}

/// Several crates bring TLS and each wants a provider: ours is ring, unless the program has already chosen.
pub fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

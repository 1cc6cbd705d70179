//! Starts a real Kubernetes control plane, a node for it, and the operator against it, for tests and for the demo.
//!
//! Everything runs on loopback, or in a network of its own, and ends with its owner, even when that is killed: see [`process`].

mod audit;
mod certificates;
mod control_plane;
mod kubeconfig;
mod node;
mod operator;
pub mod owner;
mod ports;
pub mod process;
mod proxy;
mod wait;
mod watches;

pub use audit::AuditEvent;
pub use control_plane::{
    Component, ControlPlane, ControlPlaneOptions, HarnessError, OPERATOR_USER, programs,
};
pub use node::{NODE_ADDRESS, Node, PAUSE_IMAGE, PrivateNetwork};
pub use operator::OperatorProcess;
pub use proxy::{ApiCall, ApiFault, ApiProxy};
pub use wait::eventually;
pub use watches::WatchFault;

/// Several crates bring TLS and each wants a provider: ours is ring, unless the program has already chosen.
pub fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

//! Starts a real Kubernetes control plane, and the operator against it, for tests and for the demo.
//!
//! Everything runs on loopback and ends with its owner, even when that is killed: see [`process`].

mod audit;
mod certificates;
mod control_plane;
mod operator;
pub mod process;
mod wait;

pub use audit::AuditEvent;
pub use control_plane::{Component, ControlPlane, ControlPlaneOptions, HarnessError, OPERATOR_USER};
pub use operator::OperatorProcess;
pub use wait::eventually;

//! A stateful emulator of the Boltz admin API, with faults on demand.
//!
//! The same library serves tests, the demo and the `boltz-emulator` binary. What Boltz's public reference does not say
//! is a [`Settings`] field, so that a client can be tried with every behaviour.

mod api;
mod control;
mod fault;
mod server;
mod state;

pub use fault::{Effect, Fault, Operation, Outcome};
pub use server::{Emulator, EmulatorError, Options};
pub use state::{AdminKey, Key, LoggedRequest, Settings};

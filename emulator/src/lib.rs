//! A stateful emulator of the Boltz admin API, with faults on demand.
//!
//! The same library serves tests, the demo and the `boltz-emulator` binary. What Boltz's public reference does not say
//! is a [`Settings`] field, so that a client can be tried with every behaviour.
//!
//! | module | idea |
//! |---|---|
//! | `server` | the emulator as a value in this process: start, look, meddle, stop |
//! | `connection` | the accept loop, and how a connection is cut |
//! | `api` | the routes of Boltz |
//! | `control` | the routes under `/_emulator` |
//! | `answer` | one request from its log entry to its answer, or to a fault |
//! | `clock` | the machine's time, or a simulation's |
//! | `fault`, `lie`, `settings`, `rate`, `key`, `state` | data without I/O |

mod answer;
mod api;
mod clock;
pub mod connection;
mod control;
mod fault;
mod key;
mod lie;
#[path = "../../src/listen.rs"]
mod listen;
mod rate;
mod server;
mod settings;
mod state;

pub use clock::Clock;
pub use fault::{Effect, Fault, Operation, Outcome, StandingFault};
pub use key::{AdminKey, Key};
pub use lie::Lie;
pub use listen::{listen, parse_listen};
pub use server::{Emulator, EmulatorError, Options};
pub use settings::Settings;
pub use state::LoggedRequest;

//! The operator's whole job against a real API server, with the emulator as judge.
//!
//! All tests share one control plane; each has its own namespace, emulator and operator process.

mod bed;
mod issue;

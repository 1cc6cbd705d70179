//! What speaks to Boltz and to the API server, without an operator around it: the client of Boltz's API against the
//! emulator, and inventory and leader election in virtual time. And the operator's port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin_key;
mod boltz_client;
mod hostile_boltz;
mod inventory;
mod lease;
mod listening;

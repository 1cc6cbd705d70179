//! The admin API of Boltz, as far as the operator uses it, and the state of one organization.

pub mod account;
pub mod admin_key;
mod budget;
mod client;
mod error;
pub mod inventory;
pub mod snapshot;
mod types;

pub use client::{BoltzClient, BoltzClientError, BoltzClientOptions, read_answer, read_refusal, retry_after};
pub use error::{BoltzError, BoxError, SendError};
pub use types::{AuthMe, CreateKeyRequest, CreatedKey, KeyDetails, KeyMode, KeyPage, Revocation};

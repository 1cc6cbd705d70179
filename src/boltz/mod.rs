//! Boltz's admin API, as far as the operator uses it.

mod client;
mod error;
mod types;

pub use client::{BoltzClient, BoltzClientError, BoltzClientOptions};
pub use error::{BoltzError, BoltzErrorKind, Effect};
pub use types::{AuthMe, CreateKeyRequest, CreatedKey, KeyDetails, KeyMode, KeyPage, Revocation};

//! Boltz's admin API, as far as the operator uses it.

mod client;
mod error;
mod types;

pub use client::{BoltzClient, BoltzClientError, BoltzClientOptions, read_answer, read_refusal, retry_after};
pub use error::{BoltzError, BoltzErrorKind, BoxError, Effect, SendError};
pub use types::{AuthMe, CreateKeyRequest, CreatedKey, KeyDetails, KeyMode, KeyPage, Revocation};

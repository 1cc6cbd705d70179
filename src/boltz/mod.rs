//! The admin API of Boltz, as far as the operator uses it, and the state of one organization.
//!
//! The client against the emulator:
//!
//! ```
//! use boltz_emulator::{Emulator, Options};
//! use boltz_operator::{
//!     boltz::{BoltzClient, BoltzClientOptions, CreateKeyRequest, KeyMode, Revocation},
//!     observability::metrics::Metrics,
//! };
//! use secrecy::{ExposeSecret, SecretString};
//! use std::{sync::Arc, time::Duration};
//! use tokio::sync::watch;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The program chooses the TLS provider, also for http.
//! let _ = rustls::crypto::ring::default_provider().install_default();
//! let emulator = Emulator::start(Options::default()).await?;
//! let (_changes, admin_key) = watch::channel(Some(SecretString::from(emulator.admin_key())));
//! let timeout = Duration::from_secs(10);
//! let options = BoltzClientOptions {
//!     base_url: emulator.base_url(),
//!     extra_roots_pem: None,
//!     request_timeout: timeout,
//! };
//! let client = BoltzClient::new(options, admin_key, Arc::new(Metrics::new()))?;
//!
//! let request = CreateKeyRequest {
//!     name: "team-a/design".to_owned(),
//!     allowed_ips: Vec::new(),
//!     expires_in_days: Some(90),
//!     mode: KeyMode::Live,
//!     workspace_id: None,
//! };
//! let created = client.create_key(&request, timeout).await?;
//! let id = created.details.id;
//! assert_eq!(emulator.authenticate(created.key.expose_secret()).as_ref(), Some(&id));
//! assert_eq!(client.list_keys(None, None).await?.data[0].id, id);
//!
//! assert!(matches!(client.revoke_key(&id).await?, Revocation::Revoked(_)));
//! assert_eq!(emulator.authenticate(created.key.expose_secret()), None);
//! # Ok(())
//! # }
//! ```

pub mod account;
pub mod account_data;
pub mod accounts;
pub(crate) mod admin_key;
mod breaker;
mod bucket;
pub mod ca_file;
mod client;
pub mod cluster_names;
mod error;
mod fuse;
pub mod inventory;
mod inventory_progress;
pub(crate) mod limiter;
mod list_failure;
pub(crate) mod live_keys;
pub(crate) mod organization;
mod pages;
mod pass;
mod proof;
mod queue;
pub(crate) mod request_id;
mod response;
pub mod snapshot;
mod turns;
mod types;
mod waiters;

pub use breaker::Scope;
pub use client::{BoltzClient, BoltzClientError, BoltzClientOptions};
pub use error::{BoltzError, BoxError, SendError};
pub use queue::MintLimits;
pub use request_id::id as request_id_of;
pub use response::{date, read_answer, read_refusal, retry_after};
pub use types::{AuthMe, CreateKeyRequest, CreatedKey, KeyDetails, KeyMode, KeyPage, Revocation};

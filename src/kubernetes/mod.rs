//! Calls to the API server, with timeouts and without retries.

pub mod client;
pub(crate) mod config_map;
pub(crate) mod error;
pub mod events;
pub mod lease;
pub(crate) mod remembered;
pub(crate) mod secret_body;
pub(crate) mod secret_index;
pub mod secret_metadata;

//! The API server: every call bounded in time, none repeated by itself.

pub mod client;
pub mod error;
pub mod events;
pub mod lease;
pub mod secret_body;
pub mod secret_index;

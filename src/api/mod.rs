//! The `BoltzApiKey` resource. No I/O.

pub mod annotations;
pub mod cached;
pub mod crd;
pub mod status;
pub mod v1alpha1;
pub mod watched;

pub use cached::CachedApiKey;
pub use status::{BoltzApiKeyStatus, PreviousKeyStatus, RotationWindowStatus};
pub use v1alpha1::*;
pub use watched::WatchedApiKey;

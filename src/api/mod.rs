//! The `BoltzApiKey` resource. No I/O.

pub mod annotations;
pub mod crd;
pub mod v1alpha1;
pub mod watched;

pub use v1alpha1::*;
pub use watched::WatchedApiKey;

//! The resources `BoltzApiKey` and `BoltzAccount`. No I/O.

pub mod account;
pub mod annotations;
pub mod cached;
pub mod crd;
pub(crate) mod recorded;
pub mod status;
pub mod v1alpha1;
pub mod watched;
pub mod watched_account;
pub mod workload;

pub use account::*;
pub use cached::CachedApiKey;
pub use status::{BoltzApiKeyStatus, PreviousKeyStatus, RotationWindowStatus};
pub use v1alpha1::*;
pub use watched::WatchedApiKey;
pub use watched_account::WatchedAccount;
pub use workload::{RestartState, RestartStatus, RolloutRestartTarget, WorkloadKind};

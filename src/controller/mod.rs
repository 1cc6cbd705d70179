//! The controller: watches, timers, and the loop that observes, decides and executes.

mod account_orphans;
mod accounts;
mod awaited;
mod choose_account;
mod cleanup;
mod context;
mod debug;
mod execute;
mod object_gone;
mod observe;
pub mod orphan_list;
mod orphan_search;
mod orphans;
mod reconcile;
mod reconcile_after_passes;
mod reconcile_in_time;
mod serve_accounts;
mod step_log;
mod tasks;
mod triggered;
mod watch;
mod watch_secrets;
mod watch_stream;

pub use accounts::AccountSettings;
pub use context::{Context, Limits, ObjectState};
pub(crate) use debug::describe;
pub use observe::object_facts;
pub use orphans::OrphanHandling;
pub use watch::{Scope, run};

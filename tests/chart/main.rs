//! The Helm chart: what it renders and refuses, with both versions of Helm that are in use, against a real API server;
//! and that its Roles hold what the operator needs and nothing more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The beds of the lifecycle's tests; not all of their helpers are of use here.
#[allow(dead_code)]
#[path = "../lifecycle/bed.rs"]
mod bed;
mod gitops;
mod helm;
mod install;
mod policies;
mod rbac;
mod rendering;
mod values;

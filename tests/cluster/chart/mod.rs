//! The Helm chart: what it renders and refuses, with both versions of Helm that are in use, against a real API server;
//! and that its Roles hold what the operator needs and nothing more.

mod alerts;
mod dashboard;
mod gitops;
pub mod helm;
mod install;
mod knobs;
mod kustomize;
mod policies;
pub mod rbac;
mod rendering;
mod umbrella;
mod values;

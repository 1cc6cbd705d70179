//! The real binary on a real API server, with the emulator as judge: the lifecycle, the matrix of crashes, the chart.

// Helpers of tests are tests too, but clippy only knows functions with #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chart;
mod control_plane;
mod core_dumps;
mod crash_matrix;
mod kubectl_boltz;
mod lifecycle;
mod test_env;
mod upgrade;

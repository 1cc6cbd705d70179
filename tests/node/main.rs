//! On a real kubelet: the one-node cluster itself, and the image and chart on it, from `helm install` to a workload with
//! a working key.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod e2e;
mod one_node;

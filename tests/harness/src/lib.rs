//! Starts a real Kubernetes control plane for tests and for the demo.

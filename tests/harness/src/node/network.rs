//! A network that nobody else sees: its own loopback, and a bridge for pods.

use crate::control_plane::{API_SERVER_SERVICE, HarnessError, NODE_PROGRAMS, io_error, programs, run_script};
use nix::sched::{CloneFlags, unshare};
use std::{io, process::Command};

/// Where pods get their addresses from.
pub const PODS: &str = "10.88.0.0/16";
/// The bridge's own address: the node's, as pods see it.
pub const NODE_ADDRESS: &str = "10.88.0.1";
pub const BRIDGE: &str = "pods";

/// The network namespace of the thread that entered it, and of all threads and processes that it starts afterwards.
/// It goes with the last of them.
#[derive(Debug)]
pub struct PrivateNetwork {
    /// The folder of CNI's plugins.
    pub(super) plugins: String,
}

impl PrivateNetwork {
    /// Leaves the machine's network. As root only, and before an asynchronous runtime has started its threads. What a
    /// node needs and is missing is built and installed first, as nothing can be fetched afterwards.
    pub fn enter() -> Result<Self, HarnessError> {
        let plugins = run_script("tools/containerd", &[])?;
        programs(NODE_PROGRAMS)?;
        let enter = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["link", "add", BRIDGE, "type", "bridge"])?;
            ip(&["address", "add", &format!("{NODE_ADDRESS}/16"), "dev", BRIDGE])?;
            ip(&["link", "set", BRIDGE, "up"])?;
            // There is no kube-proxy. The one Service that every pod knows is on this machine anyway.
            ip(&["address", "add", &format!("{API_SERVER_SERVICE}/32"), "dev", "lo"])
        };
        enter().map_err(io_error("enter a network namespace"))?;
        Ok(Self { plugins })
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), said.trim())))
}

//! A one-node cluster: a control plane, kubelet, and Debian's containerd and runc.
//!
//! All of it runs in namespaces of its own. The network is the caller's ([`PrivateNetwork`]). Mounts and processes of the
//! node are in namespaces whose first process is ours: when that ends, the kernel ends every container and takes every
//! mount away. `/run`, `/var/lib` and `/var/log` are empty in there, so that another kubelet or containerd of the machine is
//! neither seen nor disturbed.

mod cgroup;
mod image;
mod network;
mod settings;

pub use image::PAUSE_IMAGE;
pub use network::{NODE_ADDRESS, PrivateNetwork};

use crate::{
    child_process::{OwnedFolder, OwnedProcess},
    control_plane::{ControlPlane, ControlPlaneOptions, HarnessError, io_error},
    ports::free_port,
    wait::eventually,
};
use cgroup::OwnedCgroup;
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The first process of the node's namespaces. It starts containerd and kubelet, whose flags are its arguments, and ends
/// with the latter.
const INIT: &str = r#"
set -e
folder=$1
shift
for empty in /run /var/lib /var/log; do
    mount -t tmpfs tmpfs "$empty"
done
# What the kubelet wants of the kernel it reads here, and it leaves the machine's as they are.
for setting in kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
    kernel/keys/root_maxbytes=25000000 vm/overcommit_memory=1 vm/panic_on_oom=0; do
    file=/run/$(basename "${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
until [ -S "$folder/containerd.sock" ]; do sleep 0.02; done
"$@" >"$folder/kubelet.log" 2>&1 &
wait "$!"
"#;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running one-node cluster. Everything ends when it is dropped, or when its owner dies.
#[derive(Debug)]
pub struct Node {
    process: OwnedProcess,
    // After the processes in it, and the folder after all that writes into it.
    cgroup: OwnedCgroup,
    folder: OwnedFolder,
    control_plane: ControlPlane,
}

impl Node {
    /// The name of the one node.
    pub const NAME: &str = "node";

    /// Starts with these images: each an archive, an OCI layout or what
    /// `docker save` writes, and the name by which pods ask for it.
    pub async fn start(network: &PrivateNetwork, images: &[(PathBuf, String)]) -> Result<Self, HarnessError> {
        let control_plane = ControlPlane::start(ControlPlaneOptions::for_node()).await?;
        let folder = OwnedFolder::create("boltz-node-").map_err(io_error("create a folder"))?;
        let cgroup = OwnedCgroup::create("boltz-node-").map_err(io_error("create a control group"))?;
        let pause = image::pause(&folder.path().join("pause")).map_err(io_error("build the pause image"))?;
        write_settings(&control_plane, folder.path(), &network.plugins, cgroup.path())
            .map_err(io_error("write the node's settings"))?;
        let process = launch(&control_plane, folder.path()).map_err(io_error("start the node"))?;
        let mut node = Self { process, cgroup, folder, control_plane };
        node.import(&pause, PAUSE_IMAGE).await?;
        for (archive, name) in images {
            node.import(archive, name).await?;
        }
        node.wait_ready().await?;
        Ok(node)
    }

    /// To apply manifests and to ask for objects. Its API server listens on the node's network.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Everything that containerd and kubelet write is here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A process that sees the node's mounts, and whose children are in its namespace of processes.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The control group of its pods, as a path in each hierarchy.
    pub fn cgroup(&self) -> &str {
        self.cgroup.path()
    }

    /// The last lines of containerd's and kubelet's logs.
    pub fn last_lines(&self, count: usize) -> String {
        let last = |name: &str| {
            let log = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{name}:\n{}\n", lines[lines.len().saturating_sub(count)..].join("\n"))
        };
        ["node.log", "containerd.log", "kubelet.log"].map(last).concat()
    }

    /// SIGKILL for every process of the pod with that UID but the one that keeps its namespaces.
    pub fn crash_pod(&self, uid: &str) -> Result<(), HarnessError> {
        let crash = || {
            for entry in std::fs::read_dir("/proc")? {
                let folder = entry?.path();
                // A process that ends meanwhile is no error.
                let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
                if read("cgroup").contains(uid) && !read("cmdline").starts_with("/pause") {
                    let pid = folder.file_name().unwrap_or_default();
                    Command::new("sh").args(["-c", r#"kill -s KILL "$1""#, "sh"]).arg(pid).status()?;
                }
            }
            Ok(())
        };
        crash().map_err(io_error(format!("kill the processes of the pod {uid}")))
    }

    async fn import(&mut self, archive: &Path, name: &str) -> Result<(), HarnessError> {
        let address = self.folder.path().join("containerd.sock");
        // containerd answers a little after its socket is there.
        let import = async || {
            if let Some(code) = self.process.try_wait() {
                return Ok(Err(format!("the node ended with {code}")));
            }
            let mut ctr = Command::new("ctr");
            ctr.arg("--address").arg(&address).args(["--namespace", "k8s.io", "images", "import"]);
            let output =
                ctr.args(["--index-name", name]).arg(archive).output().map_err(|error| error.to_string())?;
            if output.status.success() {
                Ok(Ok(()))
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        };
        let imported = eventually(PATIENCE, &format!("import {}", archive.display()), import).await;
        imported.and_then(|result| result).map_err(|seen| self.failed("containerd", seen))
    }

    async fn wait_ready(&mut self) -> Result<(), HarnessError> {
        let ready = eventually(PATIENCE, "the node is ready", async || {
            if let Some(code) = self.process.try_wait() {
                return Ok(Err(format!("it ended with {code}")));
            }
            let arguments =
                ["wait", "--for=condition=Ready", "--timeout=1s", &format!("node/{}", Self::NAME)];
            self.control_plane.kubectl(&arguments).map(|_| Ok(())).map_err(|error| error.to_string())
        });
        ready.await.and_then(|result| result).map_err(|seen| self.failed("kubelet", seen))
    }

    fn failed(&self, component: &'static str, seen: String) -> HarnessError {
        HarnessError::Start { component, seen, log: self.last_lines(20) }
    }
}

fn write_settings(
    control_plane: &ControlPlane,
    folder: &Path,
    plugins: &str,
    cgroup: &str,
) -> io::Result<()> {
    std::fs::write(folder.join("ca.crt"), control_plane.authority_pem())?;
    control_plane.authority().issue_server("kubelet", &[NODE_ADDRESS])?.write(folder, "kubelet")?;
    std::fs::write(folder.join("containerd.toml"), settings::containerd(folder, plugins))?;
    std::fs::create_dir(folder.join("cni"))?;
    std::fs::write(folder.join("cni/pods.conflist"), settings::cni(folder).to_string())?;
    let kubelet = settings::kubelet(folder, &folder.join("ca.crt"), cgroup, free_port()?);
    std::fs::write(folder.join("kubelet.json"), kubelet.to_string())
}

fn launch(control_plane: &ControlPlane, folder: &Path) -> io::Result<OwnedProcess> {
    let kubeconfig = control_plane
        .kubeconfig_for(&format!("system:node:{}", Node::NAME), Some("system:nodes"))
        .map_err(io::Error::other)?;
    let path = |file: &str| folder.join(file).display().to_string();
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "sh"];
    let mut arguments: Vec<String> = namespaces.map(str::to_owned).to_vec();
    arguments.extend([
        folder.display().to_string(),
        control_plane.binaries().join("kubelet").display().to_string(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--config={}", path("kubelet.json")),
        format!("--root-dir={}", path("kubelet")),
        format!("--cert-dir={}", path("kubelet")),
        format!("--hostname-override={}", Node::NAME),
        format!("--node-ip={NODE_ADDRESS}"),
        "--v=2".to_owned(),
    ]);
    OwnedProcess::start(Path::new("unshare"), &arguments, &[], &folder.join("node.log"))
}

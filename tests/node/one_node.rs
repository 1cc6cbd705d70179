//! The one-node cluster itself: it runs pods, and leaves nothing behind.
//!
//! As root on Debian only; elsewhere these tests are skipped, and said to be.

use boltz_harness::{
    ControlPlane, Node, PAUSE_IMAGE, PrivateNetwork, eventually,
    owner::{self, Owner},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Prints the Secret, then waits.
const POD: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: words}
stringData: {word: first}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: reader
      image: IMAGE
      args: [/secret/word]
      volumeMounts: [{name: secret, mountPath: /secret, readOnly: true}]
  volumes:
    - name: secret
      secret: {secretName: words}
";

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    let root = output.stdout == b"0\n";
    if !root {
        boltz_harness::skip("a node of our own needs root");
    }
    root
}

fn in_a_network_of_its_own(test: impl AsyncFnOnce(PrivateNetwork)) {
    let network = PrivateNetwork::enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(network));
}

async fn start(network: &PrivateNetwork) -> Node {
    Node::start(network, &[]).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Starts the pod; what it has printed.
async fn start_pod(control_plane: &ControlPlane) -> String {
    // A pod needs its namespace's ServiceAccount, which a controller makes.
    let account = async || control_plane.kubectl(&["get", "serviceaccount", "default"]);
    eventually(PATIENCE, "the ServiceAccount", account).await.unwrap();
    control_plane.apply(&POD.replace("IMAGE", PAUSE_IMAGE)).unwrap();
    control_plane.kubectl(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]).unwrap();
    control_plane.kubectl(&["logs", "reader"]).unwrap()
}

#[test]
fn a_pod_reads_its_secret_and_sees_it_change() {
    if !is_root() {
        return;
    }
    in_a_network_of_its_own(async |network| {
        let started = Instant::now();
        let node = start(&network).await;
        println!("the cluster is up after {:.1} s", started.elapsed().as_secs_f32());
        let control_plane = node.control_plane();
        assert_eq!(start_pod(control_plane).await, "first\n");
        println!("the pod has read its Secret after {:.1} s", started.elapsed().as_secs_f32());

        control_plane.apply(&POD.replace("IMAGE", PAUSE_IMAGE).replace("first", "second")).unwrap();
        let uid = control_plane.kubectl(&["get", "pod", "reader", "-o", "jsonpath={.metadata.uid}"]).unwrap();
        let mounted = format!("kubelet/pods/{uid}/volumes/kubernetes.io~secret/secret/word");
        // The mount is in the namespace of the node.
        let seen = format!("/proc/{}/root{}", node.pid(), node.folder().join(mounted).display());
        eventually(PATIENCE, "the mounted file changes", async || match std::fs::read_to_string(&seen) {
            Ok(word) if word == "second" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
        println!("the mounted file has changed after {:.1} s", started.elapsed().as_secs_f32());

        let (folder, left) = (node.folder().to_owned(), Left::of(&node));
        drop(node);
        left.until_gone(&folder).await;
        println!("all is down after {:.1} s", started.elapsed().as_secs_f32());
    });
}

/// The owner that the next test kills; by itself it does nothing.
#[test]
fn owner() {
    if !owner::is_asked_for() {
        return;
    }
    in_a_network_of_its_own(async |network| {
        let node = start(&network).await;
        start_pod(node.control_plane()).await;
        let Left { namespace, cgroup } = Left::of(&node);
        owner::owns(&[node.folder().display().to_string(), namespace, cgroup]).await;
    });
}

#[test]
fn nothing_outlives_a_killed_owner() {
    if !is_root() {
        return;
    }
    let owner = Owner::start("one_node::owner");
    let [folder, namespace, cgroup] = owner.owned.clone().try_into().unwrap();
    let (folder, left) = (PathBuf::from(folder), Left { namespace, cgroup });
    assert!(folder.exists() && left.over().len() > 4, "{:?}", left.over());

    drop(owner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(left.until_gone(&folder));
}

/// What a node may leave behind, besides its folder.
struct Left {
    /// The pid namespace of its processes.
    namespace: String,
    /// The name of its control group.
    cgroup: String,
}

impl Left {
    fn of(node: &Node) -> Self {
        let namespace = namespace(&node.pid().to_string(), "pid_for_children").unwrap();
        Self { namespace, cgroup: node.cgroup().trim_start_matches('/').to_owned() }
    }

    async fn until_gone(&self, folder: &Path) {
        let gone = async || match (folder.exists(), self.over()) {
            (false, over) if over.is_empty() => Ok(()),
            (folder, over) => Err(format!("folder: {folder}, {over:?}")),
        };
        eventually(PATIENCE, "everything has ended", gone).await.unwrap();
    }

    /// Processes in the namespace, with their mounts, and control groups.
    fn over(&self) -> Vec<String> {
        let processes = names(Path::new("/proc"))
            .into_iter()
            .filter(|pid| namespace(pid, "pid").is_some_and(|namespace| namespace == self.namespace));
        let root = Path::new("/sys/fs/cgroup");
        let groups =
            names(root).into_iter().chain([String::new()]).map(|name| root.join(name).join(&self.cgroup));
        let groups = groups.filter(|folder| folder.exists()).map(|folder| folder.display().to_string());
        processes.chain(groups).collect()
    }
}

fn namespace(pid: &str, kind: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.display().to_string())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

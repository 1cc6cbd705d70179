//! The cluster under test: the one of a kubeconfig, or a node made on the spot.

use super::{boltz, release, slow_team, team};
use boltz_harness::{
    AuditEvent, NODE_ADDRESS, Node, PrivateNetwork,
    child_process::{OwnedFolder, OwnedProcess, output_with_input},
    eventually,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Long enough for a slow machine; conditions end the wait.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the test makes, and deletes again.
const NAMESPACES: [&str; 5] =
    [release::NAMESPACE, team::NAMESPACE, team::ANOTHER_NAMESPACE, slow_team::NAMESPACE, boltz::NAMESPACE];

/// The programs' images, as pods name them.
pub struct Images {
    pub operator: String,
    pub emulator: String,
}

pub struct Cluster {
    kubeconfig: PathBuf,
    programs: PathBuf,
    pub images: Images,
    /// How long old keys live on: longer than the kubelet takes to refresh a mounted Secret, and a restart takes.
    pub overlap: &'static str,
    node: Option<Node>,
    folder: OwnedFolder,
}

/// The cluster that was asked for, if one was. Only `E2E_KUBECONFIG` counts: nobody's own cluster by accident.
pub fn given() -> Option<PathBuf> {
    std::env::var_os("E2E_KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `kubectl-boltz`, beside the operator.
fn plugin() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_boltz-operator")).with_file_name("kubectl-boltz")
}

pub fn build_plugin() {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bin", "kubectl-boltz"])
        .status();
    assert!(built.unwrap().success());
}

impl Cluster {
    /// The one of the kubeconfig.
    pub fn given(kubeconfig: PathBuf) -> Self {
        let named = |variable: &str| {
            std::env::var(variable).unwrap_or_else(|_| {
                panic!(
                    "{variable}= has to name an image that the cluster of {} can run: push it to a registry of \
                     yours, or build it with `make image` and load dist/*.oci.tar into the cluster's nodes",
                    kubeconfig.display()
                )
            })
        };
        let images = Images { operator: named("IMAGE"), emulator: named("EMULATOR_IMAGE") };
        // A kubelet looks at mounted Secrets once a minute or so.
        let cluster = Self::new(kubeconfig, images, "150s", None);
        println!("cluster: {}", cluster.description());
        let installed = cluster.try_kubectl("get crd boltzapikeys.boltz.bio");
        assert!(installed.is_err(), "this cluster has BoltzApiKeys already; the test wants one without");
        for namespace in NAMESPACES {
            let taken = cluster.try_kubectl(&format!("get namespace {namespace}"));
            assert!(taken.is_err(), "this cluster has a namespace {namespace}, which the test would delete");
        }
        cluster
    }

    /// A node made on the spot, with the images of `make image`.
    pub async fn own(network: &PrivateNetwork) -> Self {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
        let images = Images {
            operator: "localhost/boltz-operator:e2e".to_owned(),
            emulator: "localhost/boltz-emulator:e2e".to_owned(),
        };
        let archives = [("boltz-operator", &images.operator), ("boltz-emulator", &images.emulator)];
        let archives = archives.map(|(name, image)| (dist.join(format!("{name}.oci.tar")), image.clone()));
        for (archive, _) in &archives {
            assert!(archive.exists(), "{} is missing: run `make image`", archive.display());
        }
        println!("cluster: a node of its own, in a network of its own");
        let node = Node::start(network, &archives).await.unwrap_or_else(|error| panic!("{error}"));
        let kubeconfig = node.control_plane().kubeconfig("admin");
        Self::new(kubeconfig, images, "20s", Some(node))
    }

    fn new(kubeconfig: PathBuf, images: Images, overlap: &'static str, node: Option<Node>) -> Self {
        let programs = boltz_harness::programs(&["kubectl", "helm"]).unwrap();
        let folder = OwnedFolder::create("boltz-e2e-").unwrap();
        Self { kubeconfig, programs, images, overlap, node, folder }
    }

    /// Where pods reach this process, on a node of our own.
    pub fn node_address(&self) -> Option<&'static str> {
        self.node.as_ref().map(|_| NODE_ADDRESS)
    }

    /// For people: which cluster this is.
    fn description(&self) -> String {
        let context = self.kubectl("config current-context");
        let server = self.kubectl("config view --minify --output jsonpath={.clusters[0].cluster.server}");
        format!("{server}, context {} of {}", context.trim(), self.kubeconfig.display())
    }

    /// Leaves a cluster that is not ours as it was. After a failure everything stays, to be looked at.
    pub fn clean_up(&self) {
        if self.node.is_none() {
            for namespace in NAMESPACES {
                self.kubectl(&format!("delete namespace {namespace} --ignore-not-found --timeout=120s"));
            }
            self.kubectl("delete crd boltzapikeys.boltz.bio --timeout=60s");
        }
    }

    /// Its words are separated by single spaces.
    pub fn kubectl(&self, words: &str) -> String {
        self.try_kubectl(words).unwrap()
    }

    pub fn try_kubectl(&self, words: &str) -> Result<String, String> {
        self.run("kubectl", words, "")
    }

    pub fn kubectl_with_input(&self, words: &str, input: &str) -> String {
        self.run("kubectl", words, input).unwrap()
    }

    pub fn apply(&self, manifests: &str) {
        self.try_apply(manifests).unwrap();
    }

    pub fn try_apply(&self, manifests: &str) -> Result<(), String> {
        self.run("kubectl", "apply --server-side -f -", manifests).map(drop)
    }

    /// `kubectl boltz`.
    pub fn plugin(&self, words: &str) -> String {
        let said = self.run(plugin().to_str().unwrap(), words, "").unwrap();
        println!("\n$ kubectl boltz {words}\n{said}");
        said
    }

    pub fn helm(&self, words: &str, input: &str) -> String {
        self.run("helm", words, input).unwrap()
    }

    /// A `kubectl port-forward` that goes on until it is dropped, and its end on this machine.
    pub async fn forward(&self, name: &str, words: &str) -> (OwnedProcess, String) {
        let environment =
            self.environment().map(|(name, value)| (name.to_owned(), value.display().to_string()));
        let log = self.folder.path().join(format!("{name}.log"));
        let words: Vec<&str> = words.split(' ').collect();
        let process =
            OwnedProcess::start(&self.programs.join("kubectl"), &words, &environment, &log).unwrap();
        let address = eventually(PATIENCE, "the port is forwarded", async || {
            let log = process.log();
            let line = log.lines().find_map(|line| line.strip_prefix("Forwarding from "));
            let address = line.and_then(|line| line.split_once(" ->"));
            address.map(|(address, _)| format!("http://{address}")).ok_or(log)
        })
        .await
        .unwrap();
        (process, address)
    }

    fn environment(&self) -> [(&'static str, PathBuf); 5] {
        let folder = self.folder.path();
        [
            ("KUBECONFIG", self.kubeconfig.clone()),
            // Not among the user's own files.
            ("KUBECACHEDIR", folder.join("kubectl")),
            ("HELM_CACHE_HOME", folder.join("helm")),
            ("HELM_CONFIG_HOME", folder.join("helm")),
            ("HELM_DATA_HOME", folder.join("helm")),
        ]
    }

    fn run(&self, program: &str, words: &str, input: &str) -> Result<String, String> {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HELM_")) {
            command.env_remove(name);
        }
        command.args(words.split(' ')).envs(self.environment());
        let output = output_with_input(&mut command, input).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{program} {words}: {}{}", text(&output.stdout), text(&output.stderr)))
        }
    }

    /// Kills what runs in the pod, as a crash would. Elsewhere than on a node of our own, the pod goes with it.
    pub fn crash_pod(&self, namespace: &str, pod: &str) {
        match &self.node {
            Some(node) => {
                let uid =
                    self.kubectl(&format!("-n {namespace} get pod {pod} -o jsonpath={{.metadata.uid}}"));
                node.crash_pod(&uid).unwrap();
            }
            None => {
                self.kubectl(&format!("-n {namespace} delete pod {pod} --force --grace-period=0"));
            }
        }
    }

    /// What that user has written to these resources so far; nothing where there is no audit log to read.
    pub fn writes(&self, user: &str, resources: &[&str]) -> Vec<AuditEvent> {
        let events = self.node.as_ref().map(|node| node.control_plane().audit_events()).unwrap_or_default();
        let is_meant = |event: &AuditEvent| {
            event.is_write()
                && event.user.username == user
                && resources.contains(&event.object_ref.resource.as_str())
        };
        events.into_iter().filter(is_meant).collect()
    }

    /// Everything that helps to understand a failure.
    pub fn dump(&self) {
        for words in
            ["get pods -A -o wide", "get events -A --sort-by=.lastTimestamp", "get boltzapikeys -A -o yaml"]
        {
            println!("\n$ kubectl {words}\n{}", self.try_kubectl(words).unwrap_or_else(|error| error));
        }
        let pods =
            "get pods -A -o jsonpath={range.items[*]}{.metadata.namespace}/{.metadata.name}{'\\n'}{end}";
        for (namespace, pod) in
            self.try_kubectl(pods).unwrap_or_default().lines().filter_map(|line| line.split_once('/'))
        {
            let words = format!("-n {namespace} logs {pod} --all-containers --tail=60");
            println!("\n$ kubectl {words}\n{}", self.try_kubectl(&words).unwrap_or_else(|error| error));
        }
        if let Some(node) = &self.node {
            println!("\n{}", node.last_lines(40));
        }
    }
}

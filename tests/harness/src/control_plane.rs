//! etcd, kube-apiserver and kube-controller-manager on loopback.

use crate::{
    audit::{self, AuditEvent},
    certificates::{Authority, write_signing_key},
    operator::free_port,
    process::{OwnedFolder, OwnedProcess},
    wait::eventually,
};
use kube::{Client, config::KubeConfigOptions, config::Kubeconfig};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::OnceCell;

/// The user that has the rights which RBAC manifests give to the operator's ServiceAccount.
pub const OPERATOR_USER: &str = "system:serviceaccount:boltz-system:boltz-operator";
const CERTIFICATES: &str = "certificates";

/// Something about the control plane does not work.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The programs could not be built.
    #[error("the control plane could not be built: see above")]
    Build,
    /// A component did not become ready.
    #[error("{component} did not start: {seen}\n{log}")]
    Start {
        /// Which.
        component: &'static str,
        /// What it answered.
        seen: String,
        /// The end of its log.
        log: String,
    },
    /// kubectl failed.
    #[error("kubectl {arguments}: {output}")]
    Kubectl {
        /// Its arguments.
        arguments: String,
        /// What it said.
        output: String,
    },
    /// The API server cannot be spoken to.
    #[error("no client for the API server: {0}")]
    Client(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> HarnessError {
    |source| HarnessError::Io { what: what.into(), source }
}

/// What a control plane consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Namespace deletion and garbage collection.
    ControllerManager,
}

impl Component {
    fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// How a control plane is started.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Runs kube-controller-manager too, for namespace deletion and garbage collection.
    pub controller_manager: bool,
}

/// A running control plane. Everything ends when it is dropped, or when its owner dies.
#[derive(Debug)]
pub struct ControlPlane {
    binaries: PathBuf,
    ports: Ports,
    processes: Mutex<BTreeMap<Component, OwnedProcess>>,
    // After the processes: they write into it.
    folder: OwnedFolder,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl ControlPlane {
    /// The one of this test process, started when it is first asked for.
    pub async fn shared() -> Result<&'static Self, HarnessError> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(ControlPlaneOptions { controller_manager: true })).await
    }

    /// Builds what is missing, then starts. Known to take about three seconds once built.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self, HarnessError> {
        let binaries = build()?;
        // A second process may take a port between our look and the component's bind: then with others.
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::start_once(binaries.clone(), &options).await {
                Err(HarnessError::Start { log, .. })
                    if attempt < 3 && log.contains("address already in use") => {}
                result => return result,
            }
        }
    }

    async fn start_once(binaries: PathBuf, options: &ControlPlaneOptions) -> Result<Self, HarnessError> {
        // Two crates bring TLS; whoever installs the provider first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = OwnedFolder::create("boltz-control-plane-").map_err(io_error("create a folder"))?;
        let port = || free_port().map_err(io_error("find a free port"));
        let ports = Ports { etcd: port()?, etcd_peer: port()?, api_server: port()? };
        let control_plane = Self { binaries, ports, processes: Mutex::default(), folder };
        control_plane.write_certificates().map_err(io_error("write the certificates"))?;
        control_plane.launch(Component::Etcd)?;
        control_plane.launch(Component::ApiServer)?;
        control_plane.wait_ready().await?;
        if options.controller_manager {
            control_plane.launch(Component::ControllerManager)?;
        }
        Ok(control_plane)
    }

    fn write_certificates(&self) -> io::Result<()> {
        let folder = self.folder.path().join(CERTIFICATES);
        std::fs::create_dir(&folder)?;
        let authority = Authority::create()?;
        std::fs::write(folder.join("ca.crt"), authority.pem())?;
        authority.issue_server()?.write(&folder, "server")?;
        authority.issue_client("admin", "system:masters")?.write(&folder, "admin")?;
        authority.issue_client(OPERATOR_USER, "system:serviceaccounts")?.write(&folder, "operator")?;
        write_signing_key(&folder, "service-account")?;
        for user in ["admin", "operator"] {
            let path = |file: String| folder.join(file).display().to_string();
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: demo\n\
                 clusters: [{{name: demo, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\n\
                 users: [{{name: {user}, user: {{client-certificate: {}, client-key: {}}}}}]\n\
                 contexts: [{{name: demo, context: {{cluster: demo, user: {user}}}}}]\n",
                self.ports.api_server,
                path("ca.crt".to_owned()),
                path(format!("{user}.crt")),
                path(format!("{user}.key")),
            );
            std::fs::write(self.folder.path().join(format!("{user}.kubeconfig")), text)?;
        }
        std::fs::write(self.folder.path().join("audit-policy.yaml"), audit::POLICY)
    }

    fn arguments(&self, component: Component) -> Vec<String> {
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        let certificate = |file: &str| path(&format!("{CERTIFICATES}/{file}"));
        let Ports { etcd, etcd_peer, api_server } = self.ports;
        match component {
            Component::Etcd => vec![
                format!("--data-dir={}", path("etcd")),
                format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
            Component::ApiServer => vec![
                format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={api_server}"),
                format!("--tls-cert-file={}", certificate("server.crt")),
                format!("--tls-private-key-file={}", certificate("server.key")),
                format!("--client-ca-file={}", certificate("ca.crt")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", certificate("service-account.pub")),
                format!("--service-account-signing-key-file={}", certificate("service-account.key")),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                format!("--audit-policy-file={}", path("audit-policy.yaml")),
                format!("--audit-log-path={}", path("audit.log")),
                "--audit-log-mode=blocking".to_owned(),
            ],
            Component::ControllerManager => vec![
                format!("--kubeconfig={}", path("admin.kubeconfig")),
                "--controllers=namespace-controller,garbage-collector-controller,resourcequota-controller"
                    .to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                "--secure-port=0".to_owned(),
                "--leader-elect=false".to_owned(),
            ],
        }
    }

    /// Starts a component, after it has been killed too: on the same ports and data.
    pub fn launch(&self, component: Component) -> Result<(), HarnessError> {
        let program = component.program();
        let log = self.folder.path().join(format!("{program}.log"));
        let process =
            OwnedProcess::start(&self.binaries.join(program), &self.arguments(component), &[], &log)
                .map_err(io_error(format!("start {program}")))?;
        self.processes().insert(component, process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&self, component: Component) {
        self.processes().remove(&component);
    }

    /// Any signal, by its name: `STOP`, `CONT`.
    pub fn signal(&self, component: Component, name: &str) {
        if let Some(process) = self.processes().get(&component) {
            process.signal(name);
        }
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, BTreeMap<Component, OwnedProcess>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the API server is ready.
    pub async fn wait_ready(&self) -> Result<(), HarnessError> {
        let client = self.admin_client().await?;
        let ready = eventually(Duration::from_secs(60), "the API server is ready", async || {
            let request =
                http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
            client.request_text(request).await.map(drop).map_err(|error| error.to_string())
        });
        ready.await.map_err(|seen| {
            let log = |component| {
                self.processes().get(&component).map(|process| process.last_lines(15)).unwrap_or_default()
            };
            let log = format!("{}\n{}", log(Component::Etcd), log(Component::ApiServer));
            HarnessError::Start { component: "kube-apiserver", seen, log }
        })
    }

    /// A kubeconfig file: `admin` may do everything, `operator` what RBAC gives it.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    /// Everything that it writes is here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the programs.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The address of etcd.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    /// A client that may do everything.
    pub async fn admin_client(&self) -> Result<Client, HarnessError> {
        self.client("admin").await
    }

    /// A client with the operator's own rights.
    pub async fn operator_client(&self) -> Result<Client, HarnessError> {
        self.client("operator").await
    }

    async fn client(&self, user: &str) -> Result<Client, HarnessError> {
        let failed = |error: &dyn std::fmt::Display| HarnessError::Client(error.to_string());
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).map_err(|error| failed(&error))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| failed(&error))?;
        Client::try_from(config).map_err(|error| failed(&error))
    }

    /// Runs kubectl as admin; what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, HarnessError> {
        self.kubectl_with_input(arguments, "")
    }

    /// Runs kubectl as admin with that on its standard input; what it printed.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String, HarnessError> {
        let mut child = Command::new(self.binaries.join("kubectl"))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig("admin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error("start kubectl"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // kubectl may end without reading it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(io_error("run kubectl"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(HarnessError::Kubectl { arguments: arguments.join(" "), output: text(&output.stderr) })
        }
    }

    /// Applies manifests, server-side.
    pub fn apply(&self, manifests: &str) -> Result<(), HarnessError> {
        self.kubectl_with_input(&["apply", "--server-side", "-f", "-"], manifests).map(drop)
    }

    /// Every request that has been finished so far.
    pub fn audit_events(&self) -> Vec<AuditEvent> {
        audit::parse(&std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default())
    }
}

/// The folder with the programs, which are built if they are missing.
fn build() -> Result<PathBuf, HarnessError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/build");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(io_error(format!("run {}", script.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().last().filter(|_| output.status.success()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Err(HarnessError::Build),
    }
}

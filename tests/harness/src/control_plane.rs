//! etcd, kube-apiserver and kube-controller-manager on loopback; for a node, kube-scheduler too.

use crate::{
    audit::{self, AuditEvent, AuditLog},
    certificates::{Authority, write_signing_key},
    child_process::{OwnedFolder, OwnedProcess, output_with_input},
    kubeconfig,
    ports::free_port,
    wait::eventually,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

/// The user that has the rights which RBAC manifests give to the operator's ServiceAccount.
pub const OPERATOR_USER: &str = "system:serviceaccount:boltz-system:boltz-operator";
/// The groups that Kubernetes puts every ServiceAccount of that namespace in, besides `system:authenticated`.
const OPERATOR_GROUPS: &str = "system:serviceaccounts,system:serviceaccounts:boltz-system";
/// How many there may be at once besides the shared one: each has an API server and an etcd to itself.
static OTHERS: Semaphore = Semaphore::const_new(3);
const CERTIFICATES: &str = "certificates";
pub(crate) const NODE_PROGRAMS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "kube-scheduler", "kubelet"];
/// Where Services get their addresses from.
const SERVICES: &str = "10.96.0.0/16";
/// The first of them: that of the Service `kubernetes` in the namespace `default`, where pods look for the API server.
pub(crate) const API_SERVER_SERVICE: &str = "10.96.0.1";
/// The port of that Service.
const API_SERVER_PORT: u16 = 443;

/// Something about the control plane does not work.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What the harness was doing, for the message.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Programs could not be built or installed.
    #[error("tests/{0} failed: see above")]
    Script(String),
    /// A component did not become ready.
    #[error("{component} did not start: {seen}\n{log}")]
    Start {
        /// As its program is called.
        component: &'static str,
        /// The last answer to the question whether it is ready, or how it ended.
        seen: String,
        /// The last lines, for the message.
        log: String,
    },
    /// kubectl ended with an error.
    #[error("kubectl {arguments}: {output}")]
    Kubectl {
        /// As they were given, for the message.
        arguments: String,
        /// Both of its streams.
        output: String,
    },
    /// The API server cannot be spoken to.
    #[error("no client for the API server: {0}")]
    Client(String),
    /// The API server refused.
    #[error("{what}: {source}")]
    Api {
        /// What was asked of it.
        what: String,
        /// What the API server answered, or why it did not.
        source: Box<kube::Error>,
    },
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> HarnessError {
    |source| HarnessError::Io { what: what.into(), source }
}

/// What a control plane consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// All data. Backups and clones copy its folder.
    Etcd,
    /// The only one that the operator talks to.
    ApiServer,
    /// Namespace deletion and garbage collection; for a node, all its controllers.
    ControllerManager,
    /// Assigns pods to the node. Only with a node.
    Scheduler,
}

impl Component {
    fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// How a control plane is started.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Runs kube-controller-manager too, for namespace deletion and garbage collection.
    pub controller_manager: bool,
    /// Starts with a copy of this etcd data, as a clone.
    pub etcd_data: Option<PathBuf>,
    /// Serves a node: listens on every address of a network that is the caller's own, runs all controllers and
    /// kube-scheduler, and can call the kubelet.
    pub node: bool,
}

impl ControlPlaneOptions {
    /// With kube-controller-manager, from nothing.
    pub fn whole() -> Self {
        Self { controller_manager: true, ..Self::default() }
    }

    pub(crate) fn for_node() -> Self {
        Self { node: true, ..Self::whole() }
    }
}

/// A running control plane. Everything ends when it is dropped, or when its owner dies.
#[derive(Debug)]
pub struct ControlPlane {
    binaries: PathBuf,
    authority: Authority,
    ports: Ports,
    serves_node: bool,
    processes: Mutex<BTreeMap<Component, OwnedProcess>>,
    // After the processes: they write into it.
    folder: OwnedFolder,
    audit: Mutex<AuditLog>,
    /// Its place among the [`OTHERS`].
    _place: Option<SemaphorePermit<'static>>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl ControlPlane {
    /// The one of this test process, started when it is first asked for.
    pub async fn shared() -> Result<Arc<Self>, HarnessError> {
        static SHARED: OnceCell<Arc<ControlPlane>> = OnceCell::const_new();
        let start = async || Self::start_built(ControlPlaneOptions::whole()).await.map(Arc::new);
        SHARED.get_or_try_init(start).await.cloned()
    }

    /// Builds what is missing, then starts, which takes about three seconds. Waits while there are three already; a clone
    /// does not, because its source waits for it.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self, HarnessError> {
        let place = match options.etcd_data {
            Some(_) => None,
            None => OTHERS.acquire().await.ok(),
        };
        let started = Self::start_built(options).await?;
        Ok(Self { _place: place, ..started })
    }

    async fn start_built(options: ControlPlaneOptions) -> Result<Self, HarnessError> {
        let binaries = programs(if options.node { NODE_PROGRAMS } else { &[] })?;
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
        crate::install_tls_provider();
        let folder = OwnedFolder::create("boltz-control-plane-").map_err(io_error("create a folder"))?;
        let port = || free_port().map_err(io_error("find a free port"));
        let api_server = if options.node { API_SERVER_PORT } else { port()? };
        let ports = Ports { etcd: port()?, etcd_peer: port()?, api_server };
        let authority = Authority::create().map_err(io_error("create a certificate authority"))?;
        let serves_node = options.node;
        let control_plane = Self {
            binaries,
            authority,
            ports,
            serves_node,
            processes: Mutex::default(),
            folder,
            audit: Mutex::default(),
            _place: None,
        };
        control_plane.write_certificates().map_err(io_error("write the certificates"))?;
        if let Some(data) = &options.etcd_data {
            copy_folder(data, &control_plane.etcd_data())?;
        }
        control_plane.launch(Component::Etcd)?;
        control_plane.launch(Component::ApiServer)?;
        control_plane.wait_ready().await?;
        if options.controller_manager {
            control_plane.launch(Component::ControllerManager)?;
        }
        if options.node {
            control_plane.launch(Component::Scheduler)?;
        }
        Ok(control_plane)
    }

    fn write_certificates(&self) -> io::Result<()> {
        let folder = self.folder.path().join(CERTIFICATES);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("ca.crt"), self.authority.pem())?;
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", API_SERVER_SERVICE];
        self.authority.issue_server("kube-apiserver", &names)?.write(&folder, "server")?;
        write_signing_key(&folder, "service-account")?;
        let admin = self.authority.issue_client("admin", Some("system:masters"))?;
        if self.serves_node {
            admin.write(&folder, "admin")?;
        }
        self.write_kubeconfig("admin", &kubeconfig::certificate_user(admin))?;
        // A certificate made by rcgen has room for one group only, hence a token for the operator's two.
        let token = format!("{:032x}", rand::random::<u128>());
        std::fs::write(
            folder.join("tokens.csv"),
            format!("{token},{OPERATOR_USER},boltz-operator,\"{OPERATOR_GROUPS}\"\n"),
        )?;
        self.write_kubeconfig("operator", &kubeconfig::token_user(&token))?;
        std::fs::write(folder.join("operator.token"), token)?;
        std::fs::write(self.folder.path().join("audit-policy.yaml"), audit::POLICY)
    }

    fn write_kubeconfig(&self, name: &str, user: &serde_json::Value) -> io::Result<()> {
        let server = self.api_server_url();
        std::fs::write(self.kubeconfig(name), kubeconfig::render(&server, self.authority.pem(), user))
    }

    fn arguments(&self, component: Component) -> Vec<String> {
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        let certificate = |file: &str| path(&format!("{CERTIFICATES}/{file}"));
        let Ports { etcd, etcd_peer, api_server } = self.ports;
        let mut arguments = match component {
            Component::Etcd => vec![
                format!("--data-dir={}", path("etcd")),
                format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
            Component::ApiServer => vec![
                format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                format!("--bind-address={}", if self.serves_node { "0.0.0.0" } else { "127.0.0.1" }),
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={api_server}"),
                format!("--tls-cert-file={}", certificate("server.crt")),
                format!("--tls-private-key-file={}", certificate("server.key")),
                format!("--client-ca-file={}", certificate("ca.crt")),
                format!("--token-auth-file={}", certificate("tokens.csv")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", certificate("service-account.pub")),
                format!("--service-account-signing-key-file={}", certificate("service-account.key")),
                format!("--service-cluster-ip-range={SERVICES}"),
                format!("--audit-policy-file={}", path("audit-policy.yaml")),
                format!("--audit-log-path={}", path("audit.log")),
                // Nothing is missing from it, and nothing rotated away (the size is in MB).
                "--audit-log-mode=blocking".to_owned(),
                "--audit-log-maxsize=100000".to_owned(),
            ],
            Component::ControllerManager | Component::Scheduler => vec![
                format!("--kubeconfig={}", path("admin.kubeconfig")),
                "--bind-address=127.0.0.1".to_owned(),
                "--secure-port=0".to_owned(),
                "--leader-elect=false".to_owned(),
            ],
        };
        arguments.extend(match (component, self.serves_node) {
            (Component::ApiServer, false) => vec!["--authorization-mode=RBAC".to_owned()],
            (Component::ApiServer, true) => vec![
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                format!("--kubelet-certificate-authority={}", certificate("ca.crt")),
                format!("--kubelet-client-certificate={}", certificate("admin.crt")),
                format!("--kubelet-client-key={}", certificate("admin.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ],
            (Component::ControllerManager, false) => vec![
                "--controllers=namespace-controller,garbage-collector-controller,resourcequota-controller,\
                 clusterrole-aggregation-controller"
                    .to_owned(),
            ],
            (Component::ControllerManager, true) => vec![
                format!("--root-ca-file={}", certificate("ca.crt")),
                format!("--service-account-private-key-file={}", certificate("service-account.key")),
            ],
            (Component::Etcd | Component::Scheduler, _) => Vec::new(),
        });
        arguments
    }

    /// Starts a component on its ports and data, after it has been killed too.
    pub fn launch(&self, component: Component) -> Result<(), HarnessError> {
        self.kill(component);
        let program = component.program();
        let log = self.folder.path().join(format!("{program}.log"));
        let process =
            OwnedProcess::start(&self.binaries.join(program), &self.arguments(component), &[], &log)
                .map_err(io_error(format!("start {program}")))?;
        self.processes().insert(component, process);
        Ok(())
    }

    /// Kills it, starts it again on the same ports and data, and waits until the API server is ready.
    pub async fn restart(&self, component: Component) -> Result<(), HarnessError> {
        self.launch(component)?;
        self.wait_ready().await
    }

    /// SIGKILL, as when its machine fails. Its data stays.
    pub fn kill(&self, component: Component) {
        self.processes().remove(&component);
    }

    /// The pid of a component, if it has been launched.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.processes().get(&component).map(OwnedProcess::pid)
    }

    /// Any signal, by its name: `STOP`, `CONT`.
    pub fn signal(&self, component: Component, name: &str) {
        if let Some(process) = self.processes().get(&component) {
            process.signal(name);
        }
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Component, OwnedProcess>> {
        self.processes.lock()
    }

    /// Waits until the API server is ready. A component that ends meanwhile is an error at once.
    pub async fn wait_ready(&self) -> Result<(), HarnessError> {
        let client = self.admin_client().await?;
        let answer = eventually(Duration::from_secs(60), "the API server is ready", async || {
            if let Some((component, code)) = self.ended() {
                return Ok(Err((component, format!("it ended with {code}"))));
            }
            let request =
                http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
            // It may hang while etcd does.
            match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
                Ok(Ok(_)) => Ok(Ok(())),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            }
        });
        let (component, seen) = match answer.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ended)) => ended,
            Err(seen) => (Component::ApiServer, seen),
        };
        let log = self
            .processes()
            .iter()
            .map(|(component, process)| format!("{}:\n{}\n", component.program(), process.last_lines(15)))
            .collect();
        Err(HarnessError::Start { component: component.program(), seen, log })
    }

    fn ended(&self) -> Option<(Component, i32)> {
        self.processes()
            .iter_mut()
            .find_map(|(component, process)| process.try_wait().map(|code| (*component, code)))
    }

    /// A kubeconfig file: `admin` may do everything, `operator` what RBAC gives it.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    /// Everything that it writes is here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// For kubectl, and other programs that `tests/control-plane/build` makes.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    fn etcd_data(&self) -> PathBuf {
        self.folder.path().join("etcd")
    }

    /// Copies etcd's data as they stand, as a snapshot of its disk would. It does not answer meanwhile.
    pub fn back_up(&self, to: &Path) -> Result<(), HarnessError> {
        self.signal(Component::Etcd, "STOP");
        let copied = copy_folder(&self.etcd_data(), to);
        self.signal(Component::Etcd, "CONT");
        copied
    }

    /// Puts such a copy back, and starts everything that uses it again.
    pub async fn restore(&self, from: &Path) -> Result<(), HarnessError> {
        self.kill(Component::ApiServer);
        self.kill(Component::Etcd);
        copy_folder(from, &self.etcd_data())?;
        self.launch(Component::Etcd)?;
        self.restart(Component::ApiServer).await
    }

    /// For etcdctl, to look at what is stored. Without TLS, on loopback.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    /// A client that may do everything.
    pub async fn admin_client(&self) -> Result<Client, HarnessError> {
        kubeconfig::client(&self.kubeconfig("admin")).await
    }

    /// A client with the operator's own rights.
    pub async fn operator_client(&self) -> Result<Client, HarnessError> {
        kubeconfig::client(&self.kubeconfig("operator")).await
    }

    /// A client with the rights of that user and group.
    pub async fn client_for(&self, user: &str, group: Option<&str>) -> Result<Client, HarnessError> {
        kubeconfig::client(&self.kubeconfig_for(user, group)?).await
    }

    /// A new kubeconfig file for that user and group.
    pub fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<PathBuf, HarnessError> {
        let write = || {
            let credential = self.authority.issue_client(user, group)?;
            let name = format!("{:032x}", rand::random::<u128>());
            self.write_kubeconfig(&name, &kubeconfig::certificate_user(credential))?;
            Ok(self.kubeconfig(&name))
        };
        write().map_err(io_error(format!("write a kubeconfig for {user}")))
    }

    /// A client with the rights of that ServiceAccount, by a token of its own.
    pub async fn client_of_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Client, HarnessError> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace])?;
        let file = format!("{:032x}", rand::random::<u128>());
        self.write_kubeconfig(&file, &kubeconfig::token_user(token.trim()))
            .map_err(io_error(format!("write a kubeconfig for the ServiceAccount {name}")))?;
        kubeconfig::client(&self.kubeconfig(&file)).await
    }

    /// The certificate of the authority that signed the API server's.
    pub(crate) fn authority_pem(&self) -> &str {
        self.authority.pem()
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn api_server_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api_server)
    }

    /// A new kubeconfig file for the operator, to reach the API server through another address.
    pub(crate) fn operator_kubeconfig_at(&self, server: &str) -> Result<PathBuf, HarnessError> {
        let write = || {
            let token =
                std::fs::read_to_string(self.folder.path().join(CERTIFICATES).join("operator.token"))?;
            let file = self.kubeconfig(&format!("{:032x}", rand::random::<u128>()));
            let text = kubeconfig::render(server, self.authority.pem(), &kubeconfig::token_user(&token));
            std::fs::write(&file, text)?;
            Ok(file)
        };
        write().map_err(io_error("write a kubeconfig for the proxy"))
    }

    /// A new namespace, whose name begins with the prefix.
    pub async fn namespace(&self, prefix: &str) -> Result<String, HarnessError> {
        let generate_name = Some(format!("{prefix}-"));
        let namespace =
            Namespace { metadata: ObjectMeta { generate_name, ..Default::default() }, ..Default::default() };
        let created = Api::all(self.admin_client().await?).create(&PostParams::default(), &namespace).await;
        let created = created.map_err(|source| HarnessError::Api {
            what: format!("create a namespace {prefix}-…"),
            source: Box::new(source),
        })?;
        Ok(created.metadata.name.unwrap_or_default())
    }

    /// Runs kubectl as admin; what it printed. Blocks the thread: do not let it wait for an operator whose emulator
    /// runs on the same one.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, HarnessError> {
        self.kubectl_with_input(arguments, "")
    }

    /// Runs kubectl as admin with that on its standard input; what it printed.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String, HarnessError> {
        let mut command = Command::new(self.binaries.join("kubectl"));
        // Not among the user's own files.
        let cache = self.folder.path().join("kubectl-cache");
        command.args(arguments).env("KUBECONFIG", self.kubeconfig("admin")).env("KUBECACHEDIR", cache);
        let output = output_with_input(&mut command, input).map_err(io_error("run kubectl"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(HarnessError::Kubectl { arguments: arguments.join(" "), output: text(&output.stderr) })
        }
    }

    /// Applies manifests, server-side. If there are CRDs among them, waits until all are established.
    pub fn apply(&self, manifests: &str) -> Result<(), HarnessError> {
        self.kubectl_with_input(&["apply", "--server-side", "-f", "-"], manifests)?;
        if manifests.contains("kind: CustomResourceDefinition") {
            self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
        }
        Ok(())
    }

    /// Installs the chart with its default values, as rendered in `deploy/`: the CRD, exactly the operator's own rights,
    /// and a Deployment of which nothing makes pods here.
    pub async fn install_operator(&self) -> Result<(), String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").display().to_string();
        // The namespace may take a moment longer than what lies in it.
        eventually(Duration::from_secs(60), "apply deploy/", async || {
            self.kubectl(&["apply", "--server-side", "-k", &folder])
        })
        .await?;
        let established = ["wait", "--for=condition=Established", "crd/boltzapikeys.boltz.bio"];
        self.kubectl(&established).map(drop).map_err(|error| error.to_string())
    }

    /// Every request that has been finished so far.
    pub fn audit_events(&self) -> Vec<AuditEvent> {
        self.audit_events_where(|_| true)
    }

    /// Those of them for which that is so.
    pub fn audit_events_where(&self, is_wanted: impl Fn(&AuditEvent) -> bool) -> Vec<AuditEvent> {
        let mut audit = self.audit.lock();
        audit.read_on(&self.folder.path().join("audit.log"));
        audit.events().iter().filter(|event| is_wanted(event)).cloned().collect()
    }
}

/// Replaces a folder with a copy of another one.
fn copy_folder(from: &Path, to: &Path) -> Result<(), HarnessError> {
    let copy = || {
        if to.exists() {
            std::fs::remove_dir_all(to)?;
        }
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("cp ended with {status}"))) }
    };
    copy().map_err(io_error(format!("copy {} to {}", from.display(), to.display())))
}

/// The folder with these of the programs that `tests/control-plane/build` knows; what is missing is built. Without names:
/// what every test needs.
pub fn programs(names: &[&str]) -> Result<PathBuf, HarnessError> {
    run_script("control-plane/build", names).map(PathBuf::from)
}

/// Runs a script of `tests/`, whose last line is its answer.
pub(crate) fn run_script(name: &str, arguments: &[&str]) -> Result<String, HarnessError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let output = Command::new(&script)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(io_error(format!("run {}", script.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().last().filter(|_| output.status.success()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(HarnessError::Script(name.to_owned())),
    }
}

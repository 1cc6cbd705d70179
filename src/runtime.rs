//! Starts the operator from its configuration, and shuts it down.

use crate::{
    boltz::{
        BoltzClientError, account_data,
        accounts::{Accounts, ServedAccount},
        cluster_names::ClusterNames,
    },
    cli::Config,
    clock::Clock,
    controller::{self, AccountSettings, Context, Limits, OrphanHandling, Scope, orphan_list},
    flags_account,
    kubernetes::{
        client::Kubernetes,
        events::Events,
        lease::{self, LeaseOptions},
        remembered,
    },
    listen::listen,
    observability::{metrics::Metrics, server, telemetry::LogLevel, watchdog},
    plan::Settings,
    protocol::account_name::AccountName,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PartialObjectMeta};
use rand::RngExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The first wait before a rejected write is retried.
const RECHECK: Duration = Duration::from_secs(60);
/// Maximum time from SIGTERM to exit.
const SHUTDOWN: Duration = Duration::from_secs(9);

/// Why the process cannot start. No response of Boltz is among these.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe the variants")]
pub enum StartError {
    #[error("failed to disable core dumps: {0}")]
    CoreDumps(#[source] std::io::Error),
    #[error("failed to initialize TLS")]
    CryptoProvider,
    #[error("failed to start the async runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("--boltz-ca-file: cannot read the file: {0}")]
    CaFile(#[source] std::io::Error),
    #[error("{0}")]
    BoltzClient(#[from] BoltzClientError),
    #[error("no Kubernetes configuration found, neither in-cluster nor in KUBECONFIG: {0}")]
    KubeConfig(#[source] kube::config::InferConfigError),
    #[error(
        "calls to the API server through a proxy are not supported: unset HTTPS_PROXY, or remove proxy-url from the \
         kubeconfig"
    )]
    ApiServerProxy,
    #[error("failed to create the Kubernetes client: {0}")]
    KubeClient(#[source] kube::Error),
    #[error(
        "--cluster-name: not set, and the default needs permission to get the namespace kube-system: {0}"
    )]
    KubeSystem(#[source] kube::Error),
    #[error("--cluster-name: not set, and the namespace kube-system has no UID")]
    NoKubeSystemUid,
    #[error("--listen: {0}")]
    Listen(#[source] std::io::Error),
    #[error("failed to install signal handlers: {0}")]
    Signals(#[source] std::io::Error),
}

/// Disables core dumps, and debuggers of the same user.
///
/// Only Linux has this switch. The operator runs there; kubectl-boltz, which shares this library, is built for macOS too.
pub fn disable_core_dumps() -> Result<(), StartError> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|error| StartError::CoreDumps(error.into()))?;
    }
    Ok(())
}

/// Runs until SIGTERM or SIGINT, then returns within 10 s. SIGHUP changes the log level.
pub fn run(config: Config, log_level: LogLevel) -> Result<(), StartError> {
    // Two crates use TLS; both use the provider that is installed first.
    rustls::crypto::ring::default_provider().install_default().map_err(|_| StartError::CryptoProvider)?;
    let threads = Threads::start().map_err(StartError::Runtime)?;
    let result = threads.work.block_on(operate(config, log_level, threads.prompt.handle()));
    // Cancels what is still running; every step is safe to cancel.
    threads.work.shutdown_background();
    threads.prompt.shutdown_background();
    result
}

/// The threads of the process.
#[derive(Debug)]
pub struct Threads {
    /// For reconciliations and all that belongs to them.
    pub work: Runtime,
    /// For the lease, probes and metrics: they stay prompt whatever reconciliations compute.
    pub prompt: Runtime,
}

impl Threads {
    /// One thread for each core, and one more.
    pub fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let work = builder.enable_all().build()?;
        let prompt = builder.worker_threads(1).thread_name("prompt").build()?;
        Ok(Self { work, prompt })
    }
}

async fn operate(config: Config, mut log_level: LogLevel, prompt: &Handle) -> Result<(), StartError> {
    // First: for process 1 of a container, the kernel drops signals without a handler.
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let _log_level = AbortOnDropHandle::new(prompt.spawn(async move {
        while hang_up.recv().await.is_some() {
            log_level.switch();
        }
    }));
    let stop_signal = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("received SIGTERM, shutting down"),
            _ = interrupt.recv() => tracing::info!("received SIGINT, shutting down"),
        }
    };
    tokio::pin!(stop_signal);
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new().per_object(config.metrics_per_object));
    let listener = on(prompt, listen(config.listen)).await.map_err(StartError::Listen)?;
    let client = kubernetes_client().await?;
    // Its connections are tasks of the runtime on which it is created.
    let lease_client = on(prompt, kubernetes_client()).await?;
    // Unique for each process: a restarted container keeps its host name.
    let identity = format!("{}_{:016x}", host_name(), rand::rng().random::<u64>());

    let extra_roots_pem = match &config.boltz_ca_file {
        Some(file) => Some(tokio::fs::read(file).await.map_err(StartError::CaFile)?),
        None => None,
    };
    let names = tokio::select! {
        names = cluster_names(&config, &client) => names?,
        () = &mut stop_signal => return Ok(()),
    };
    tracing::info!(
        cluster = %names.current,
        markers = names.begin_of_markers(),
        boltz = config.boltz_base_url,
        identity,
        "starting boltz-operator"
    );

    // Aborted when they are dropped.
    let mut admin_key_tasks = JoinSet::new();
    let of_flags =
        flags_account::start(&config, extra_roots_pem.clone(), &names, &metrics, &mut admin_key_tasks)
            .await?;
    let accounts = flags_account::of_others(&config, extra_roots_pem, names, &client);
    let context = Arc::new(Context::new(
        Kubernetes::new(client.clone()),
        Accounts::of(of_flags),
        Limits {
            settings: Settings { settle_time: config.settle_time, recheck: RECHECK },
            request_timeout: config.request_timeout,
            concurrency: config.concurrency,
        },
        clock,
        metrics,
        Events::new(client.clone(), identity.clone()),
    ));

    Operator { context, config, accounts, identity, listener, lease_client }.run(prompt, stop_signal).await;
    Ok(())
}

/// What there is before the work begins.
pub struct Operator {
    /// The clients, caches and settings that all reconciliations share.
    pub context: Arc<Context>,
    /// The flags with which the process was started.
    pub config: Config,
    /// How `BoltzAccounts` are served. `None`: they are not.
    pub accounts: Option<Arc<AccountSettings>>,
    /// The holder that the Lease names: unique for this process, not for its host.
    pub identity: String,
    /// Serves probes and metrics; created on the runtime for them.
    pub listener: TcpListener,
    /// Renews the Lease. Created on the runtime for probes, too: busy reconciliations must not delay it.
    pub lease_client: Client,
}

impl Operator {
    /// Works until it is stopped. Lease, probes and metrics run on `prompt`.
    pub async fn run(self, prompt: &Handle, stop_signal: impl Future<Output = ()>) {
        let Self { context, config, accounts, identity, listener, lease_client } = self;
        let stop = CancellationToken::new();
        let (ready, is_ready) = watch::channel(false);
        let (stuck, is_stuck) = watch::channel(Vec::new());
        let described = (Arc::clone(&context), identity.clone());
        let state = server::State {
            metrics: Arc::clone(&context.metrics),
            ready: is_ready,
            watches: Arc::clone(&context.watches),
            stuck: is_stuck,
            debug: Arc::new(move |stuck| controller::describe(&described.0, &described.1, stuck)),
        };
        let _server = AbortOnDropHandle::new(prompt.spawn(async move {
            if let Err(error) = server::serve(listener, state).await {
                tracing::error!(%error, "the metrics server stopped");
            }
        }));
        let (activity, metrics) = (Arc::clone(&context.activity), Arc::clone(&context.metrics));
        let (calls, watches) = (context.calls_of_a_step(), Arc::clone(&context.watches));
        let _watchdog = AbortOnDropHandle::new(prompt.spawn(watchdog::run(
            Arc::clone(&activity),
            metrics,
            watches,
            calls,
            stuck,
        )));
        let _beat = AbortOnDropHandle::new(Handle::current().spawn(async move { activity.beat().await }));
        let lead = Lead::new(context, config, accounts, ready, &lease_client);
        let work = work(lead, identity, lease_client, prompt, stop.clone());
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => return,
            () = stop_signal => {}
        }
        stop.cancel();
        if tokio::time::timeout(SHUTDOWN, work).await.is_err() {
            tracing::warn!("shut down before all reconciliations finished; the next process continues them");
        }
    }
}

/// Runs it on that runtime, and ends it when the caller is dropped. A panic in it is a panic here.
async fn on<T: Send + 'static>(runtime: &Handle, task: impl Future<Output = T> + Send + 'static) -> T {
    let ended = AbortOnDropHandle::new(runtime.spawn(task)).await;
    match ended.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Nobody aborts it but the end of the process.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// What this process does while it leads.
struct Lead {
    context: Arc<Context>,
    config: Config,
    scope: Scope,
    ready: watch::Sender<bool>,
    /// Namespace of the Lease, and of the ConfigMaps.
    namespace: String,
}

impl Lead {
    fn new(
        context: Arc<Context>,
        config: Config,
        accounts: Option<Arc<AccountSettings>>,
        ready: watch::Sender<bool>,
        client: &Client,
    ) -> Self {
        let namespace =
            config.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let orphans = OrphanHandling {
            policy: config.orphan_policy,
            grace: config.orphan_grace,
            config_map: Some((namespace.clone(), orphan_list::config_map_name(&config.lease_name))),
            sees_only_some_objects: !config.watch_namespaces.is_empty() || config.label_selector.is_some(),
        };
        let scope = Scope {
            namespaces: config.watch_namespaces.clone(),
            label_selector: config.label_selector.clone(),
            concurrency: config.concurrency,
            orphans,
            accounts,
        };
        Self { context, config, scope, ready, namespace }
    }

    /// Runs the controller until it is stopped.
    async fn run(&self, stop: CancellationToken) {
        // Not ready until the caches are synced.
        self.ready.send_replace(false);
        self.context.metrics.begin_to_lead();
        let control =
            controller::run(Arc::clone(&self.context), self.scope.clone(), self.ready.clone(), stop);
        let Some(served) = self.context.accounts.get(&AccountName::OF_FLAGS) else { return control.await };
        served.account.reread();
        let (listing, interval) = (Arc::clone(&served), self.config.inventory_interval);
        let (clock, metrics) = (self.context.clock, Arc::clone(&self.context.metrics));
        let here = Handle::current();
        let lists = on(&here, async move { listing.read_lists(interval, clock, &metrics).await });
        let control = async {
            // Others must not wait for this account.
            if self.scope.accounts.is_none() {
                served.until_prepared().await;
            }
            control.await;
        };
        let ServedAccount { account, inventory, .. } = served.as_ref();
        let name = account_data::config_map_name(&self.config.lease_name);
        let client = self.context.kubernetes.client().clone();
        tokio::select! {
            () = control => {}
            () = lists => {}
            () = remembered::keep(client, &self.namespace, &name, account, inventory, clock) => {}
        }
    }
}

/// Leads while this process has the lease.
async fn work(lead: Lead, identity: String, lease_client: Client, prompt: &Handle, stop: CancellationToken) {
    let Lead { context, config, ready, namespace, .. } = &lead;
    let metrics = Arc::clone(&context.metrics);
    if !config.leader_elect {
        metrics.set_leader(true);
        return lead.run(stop).await;
    }
    let options = LeaseOptions { name: config.lease_name.clone(), namespace: namespace.clone(), identity };
    let (leading, mut is_leading) = watch::channel(false);
    let release = CancellationToken::new();
    let follow = async {
        loop {
            // A standby is ready to take over.
            ready.send_replace(true);
            tokio::select! {
                changed = is_leading.wait_for(|leading| *leading) => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
            let mut lost = is_leading.clone();
            tokio::select! {
                () = lead.run(stop.clone()) => {}
                _ = lost.wait_for(|leading| !*leading) => {
                    tracing::warn!("lost the lease; cancelled all reconciliations");
                }
            }
            // A standby shows no object. No reconciliation may show one afterwards.
            context.until_idle().await;
            context.watches.end();
            context.metrics.begin_to_lead();
            if stop.is_cancelled() {
                break;
            }
        }
        // Another process may lead only after the controller has stopped.
        release.cancel();
    };
    let hold = on(prompt, lease::hold(lease_client, options, leading, release.clone(), metrics));
    tokio::join!(follow, hold);
}

async fn kubernetes_client() -> Result<Client, StartError> {
    let mut config = kube::Config::infer().await.map_err(StartError::KubeConfig)?;
    // The client's own error would show the URL, and with it a password.
    if config.proxy_url.is_some() {
        return Err(StartError::ApiServerProxy);
    }
    // The plan decides about retries, not the client.
    config.default_retry = false;
    Client::try_from(config).map_err(StartError::KubeClient)
}

async fn cluster_names(config: &Config, client: &Client) -> Result<ClusterNames, StartError> {
    let (former, format) = (config.former_cluster_names.clone(), config.marker_format);
    if let Some(name) = &config.cluster_name {
        return Ok(ClusterNames::named(name.clone(), former, format));
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let kube_system: PartialObjectMeta<Namespace> =
        namespaces.get_metadata("kube-system").await.map_err(StartError::KubeSystem)?;
    let uid = kube_system.metadata.uid.ok_or(StartError::NoKubeSystemUid)?;
    Ok(ClusterNames::derived(&uid, former, format))
}

fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "boltz-operator".to_owned())
}

//! An operator process: one run after the other, each with nothing but what the servers tell it.

use crate::{
    fault_injection::{ProcessRun, lock},
    watch_stream::Line,
    world::{MINUTE, SECOND, World},
};
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, MintLimits,
        account::Account,
        accounts::{Accounts, ServedAccount},
        cluster_names::ClusterNames,
        inventory::Inventory,
    },
    cli::OrphanPolicy,
    clock::Clock,
    controller::{self, Context, Limits, OrphanHandling, Scope},
    kubernetes::{client::Kubernetes, events::Events},
    observability::metrics::Metrics,
    plan::Settings,
    protocol::{account_name::AccountName, marker::MarkerFormat},
};
use parking_lot::Mutex;
use secrecy::SecretString;
use std::sync::{Arc, LazyLock, atomic::Ordering};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// What every run of every process can share; building a client of its own for each would take most of the time.
struct Shared {
    client: BoltzClient,
    metrics: Arc<Metrics>,
    admin_key: watch::Sender<Option<SecretString>>,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    // The first provider that is installed stays, whichever test comes first.
    boltz_harness::install_tls_provider();
    let (admin_key, changes) = watch::channel(Some(SecretString::from("sk_bc_admin_live_emulated")));
    let metrics = Arc::new(Metrics::new());
    let options = BoltzClientOptions {
        base_url: "http://boltz.invalid".to_owned(),
        extra_roots_pem: None,
        request_timeout: 10 * SECOND,
    };
    let client = BoltzClient::new(options, changes, Arc::clone(&metrics)).unwrap();
    Shared { client, metrics, admin_key }
});

/// A process, which is started again whenever it crashes.
pub struct Process {
    world: Arc<World>,
    number: usize,
    line: Arc<Mutex<Line>>,
    task: JoinHandle<()>,
}

impl Process {
    pub fn start(world: &Arc<World>, number: usize) -> Self {
        let line = Arc::default();
        let task = tokio::spawn(live_again_and_again(Arc::clone(world), number, Arc::clone(&line)));
        Self { world: Arc::clone(world), number, line, task }
    }

    /// As if the node went down and the process came up elsewhere.
    pub fn restart(&mut self) {
        self.task.abort();
        let world = Arc::clone(&self.world);
        self.task = tokio::spawn(live_again_and_again(world, self.number, Arc::clone(&self.line)));
    }

    pub fn change_line(&self, change: impl FnOnce(&mut Line)) {
        change(&mut lock(&self.line));
        self.world.shifted.notify_waiters();
    }

    pub fn freeze_watches(&self, until: Instant) {
        self.change_line(|line| line.frozen_until = Some(until));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn live_again_and_again(world: Arc<World>, process: usize, line: Arc<Mutex<Line>>) {
    loop {
        let crash = Arc::new(Notify::new());
        let run = ProcessRun {
            world: Arc::clone(&world),
            process,
            crash: Arc::clone(&crash),
            line: Arc::clone(&line),
        };
        world.tell(format!("process {process} starts"));
        tokio::select! {
            biased;
            () = crash.notified() => world.tell(format!("process {process} has crashed")),
            () = operate(run) => {}
        }
        sleep(SECOND).await;
    }
}

/// As `main` puts it together, without lease, signals and metrics server.
async fn operate(run: ProcessRun) {
    let concurrency = run.world.flags.concurrency;
    let context = context(run);
    let served = context.accounts.get(&AccountName::OF_FLAGS).unwrap();
    let scope = Scope {
        namespaces: Vec::new(),
        label_selector: None,
        concurrency,
        orphans: OrphanHandling {
            policy: OrphanPolicy::Report,
            grace: 10 * MINUTE,
            config_map: None,
            sees_only_some_objects: false,
        },
        accounts: None,
    };
    let (ready, _is_ready) = watch::channel(false);
    tokio::join!(
        served.account.watch_admin_key(SHARED.admin_key.subscribe()),
        served.inventory.run(&served.account, 10 * MINUTE, context.clock, &context.metrics),
        controller::run(Arc::clone(&context), scope, ready, CancellationToken::new()),
    );
}

/// What the reconciliations of that run share.
pub fn context(run: ProcessRun) -> Arc<Context> {
    let clock = Clock::simulated(run.world.now());
    let flags = run.world.flags;
    let run_number = run.world.runs.fetch_add(1, Ordering::Relaxed);
    let for_boltz = run.clone();
    let boltz = SHARED.client.clone();
    let boltz = boltz.through(tower::service_fn(move |request| for_boltz.clone().boltz(request)));
    let service = tower::service_fn(move |request| run.clone().kubernetes(request));
    let client = kube::Client::new(service, "default");
    // Each run writes the other format than the run before it: somebody switches all the time.
    let format = match run_number % 2 {
        0 => MarkerFormat::One,
        _ => MarkerFormat::Two,
    };
    let names = ClusterNames::derived("aaaaaaaa-1111-4222-8333-444444444444", Vec::new(), format);
    let metrics = Arc::clone(&SHARED.metrics);
    let mints = MintLimits {
        per_minute: flags.mints_per_minute,
        per_namespace: flags.mints_per_namespace,
        at_once: usize::from(flags.concurrency / 2),
    };
    let account = Account::new(boltz, mints, Arc::clone(&metrics));
    let limits = Limits {
        settings: Settings { settle_time: 2 * MINUTE, recheck: MINUTE },
        request_timeout: 10 * SECOND,
        concurrency: flags.concurrency,
    };
    let kubernetes = Kubernetes::new(client.clone());
    let events = Events::new(client, "simulation".to_owned());
    let accounts = Accounts::of([ServedAccount::new(account, Inventory::new(names))]);
    Arc::new(Context::new(kubernetes, accounts, limits, clock, metrics, events))
}

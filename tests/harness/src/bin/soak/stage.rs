//! What everything happens on.

use crate::{SoakError, eventually};
use boltz_emulator::{Emulator, Operation, Options, Settings};
use boltz_harness::{ApiProxy, ControlPlane, ControlPlaneOptions, OperatorProcess};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, PostParams},
    core::GroupVersionKind,
};
use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The cluster's name in the markers.
pub const CLUSTER: &str = "soak";
/// Keys live 1 to 3 of these.
pub const DAY: Duration = Duration::from_secs(20);
/// At most so many POSTs are in flight when the operator is killed.
pub const CONCURRENCY: usize = 16;
const NAMESPACES: usize = 4;
/// A Secret of somebody else, in every namespace. Some users want its name.
pub const FOREIGN_SECRET: &str = "database-password";
/// Keys of people, of other clusters, and such whose names only look like ours.
const FOREIGN_KEYS: [&str; 7] = [
    "ana's notebook",
    "ci",
    "bo.",
    "team-0/key-000 bo.other.0123456789abcdef.0123456789ab",
    "team-0/key-000 bo.soak.0123456789abcdef.0123456789ab (copy)",
    "team-0/key-000 bo.soak.0123456789abcdef",
    "team-0/key-000 bo.soak.0123456789abcdef.0123456789ab.x",
];

/// A place for an object: it may be there or not.
#[derive(Clone, Debug)]
pub struct Slot {
    pub namespace: String,
    pub name: String,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// What users did that may cost a key.
    pub asked: AtomicUsize,
    /// What users did at all.
    pub actions: AtomicUsize,
    pub boltz_faults: AtomicUsize,
    pub api_faults: AtomicUsize,
    pub kills: AtomicUsize,
    pub terminations: AtomicUsize,
}

impl Tally {
    pub fn add(counter: &AtomicUsize, count: usize) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub fn restarts(&self) -> usize {
        self.kills.load(Ordering::Relaxed) + self.terminations.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> usize {
        self.boltz_faults.load(Ordering::Relaxed) + self.api_faults.load(Ordering::Relaxed)
    }
}

pub struct Stage {
    pub client: Client,
    pub emulator: Emulator,
    pub proxy: ApiProxy,
    pub slots: Vec<Slot>,
    /// The ids of keys that are not ours.
    pub foreign_keys: Vec<String>,
    /// The Secrets that are not ours, as they were created.
    pub foreign_secrets: Vec<Secret>,
    pub tally: Tally,
    forged: Mutex<HashSet<String>>,
    started: Instant,
    // Last: the others talk to it.
    _control_plane: ControlPlane,
}

impl Stage {
    pub async fn set(objects: usize, seed: u32) -> Result<Self, SoakError> {
        println!("Starting etcd, kube-apiserver and an emulator of Boltz.");
        let control_plane = ControlPlane::start(ControlPlaneOptions::whole()).await?;
        control_plane.install_operator().await.map_err(SoakError::Stage)?;
        let client = control_plane.admin_client().await?;
        let proxy = ApiProxy::start(&control_plane).await?;
        let settings = random_settings(&mut StdRng::seed_from_u64(u64::from(seed) << 8));
        println!("Boltz behaves like this: {}", json!(settings));
        let emulator = Emulator::start(Options { settings, ..Options::default() }).await?;
        let foreign_keys = FOREIGN_KEYS.iter().filter_map(|name| emulator.create_foreign(name)).collect();
        let mut foreign_secrets = Vec::new();
        for number in 0..NAMESPACES {
            let namespace = format!("team-{number}");
            foreign_secrets.push(create_namespace(&client, &namespace).await?);
        }
        let slot = |number| Slot {
            namespace: format!("team-{}", number % NAMESPACES),
            name: format!("key-{number:03}"),
        };
        Ok(Self {
            client,
            emulator,
            proxy,
            slots: (0..objects).map(slot).collect(),
            foreign_keys,
            foreign_secrets,
            tally: Tally::default(),
            forged: Mutex::default(),
            started: Instant::now(),
            _control_plane: control_plane,
        })
    }

    /// The real binary, with the rights that the chart gives it, behind the proxy.
    pub fn start_operator(&self, more: &[&str]) -> Result<OperatorProcess, SoakError> {
        let failed = |error| SoakError::Io("start the operator", error);
        let binary = OperatorProcess::built_binary().map_err(failed)?;
        let base_url = self.emulator.base_url();
        let concurrency = CONCURRENCY.to_string();
        let arguments: Vec<String> = [
            ["--boltz-base-url", &base_url],
            ["--cluster-name", CLUSTER],
            // Longer than everything that comes late, on a busy machine too.
            ["--settle-time", "6s"],
            ["--request-timeout", "1s"],
            ["--inventory-interval", "2s"],
            ["--concurrency", &concurrency],
            ["--max-mints-per-minute", "6000"],
            // The lease of a killed process would have to run out first.
            ["--leader-elect", "false"],
            ["--log-format", "text"],
        ]
        .as_flattened()
        .iter()
        .chain(more)
        .map(|text| (*text).to_owned())
        .collect();
        let environment = [("BOLTZ_API_KEY", self.emulator.admin_key()), ("NO_COLOR", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        OperatorProcess::start(&binary, self.proxy.kubeconfig(), &arguments, &environment).map_err(failed)
    }

    /// No fault any more, and keys that are issued from now on have a long lifetime: nothing has to happen when idle.
    pub fn calm(&self) {
        self.emulator.clear_faults();
        self.emulator.release();
        self.emulator.change(|settings| settings.day_milliseconds = Settings::default().day_milliseconds);
        self.proxy.clear();
    }

    pub fn objects(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }

    pub fn all_objects(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource())
    }

    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The UIDs of objects whose annotations, status or Secret somebody has forged: what the operator wrote there is
    /// lost to it, and a key may become an orphan.
    pub fn forged(&self) -> MutexGuard<'_, HashSet<String>> {
        self.forged.lock()
    }

    /// One line.
    pub fn progress(&self) -> String {
        let keys = self.emulator.keys();
        let revoked = keys.iter().filter(|key| key.revoked_at.is_some()).count();
        let tally = &self.tally;
        format!(
            "{:>4} s: {} things done by users, {} POSTs, {} keys minted, {revoked} revoked, {} faults at Boltz, {} at \
             the API server, {} kills, {} terminations",
            self.started.elapsed().as_secs(),
            tally.actions.load(Ordering::Relaxed),
            self.emulator.count(Operation::Create),
            keys.len() - self.foreign_keys.len(),
            tally.boltz_faults.load(Ordering::Relaxed),
            tally.api_faults.load(Ordering::Relaxed),
            tally.kills.load(Ordering::Relaxed),
            tally.terminations.load(Ordering::Relaxed),
        )
    }
}

/// What is not known of Boltz differs from run to run.
fn random_settings(random: &mut StdRng) -> Settings {
    Settings {
        day_milliseconds: u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX),
        list_inactive: random.random(),
        list_admin_keys: random.random(),
        newest_first: random.random(),
        expiry_deactivates: random.random(),
        list_lag_milliseconds: [0, 500, 1000][random.random_range(0..3)],
        page_size: [1000, 100][random.random_range(0..2)],
        latency_milliseconds: [0, 50][random.random_range(0..2)],
        has_auth_me: random.random(),
        revoking_twice_fails: random.random(),
        ..Settings::default()
    }
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("boltz.bio", "v1alpha1", "BoltzApiKey"),
        "boltzapikeys",
    )
}

/// A namespace, and in it a Secret that is none of the operator's business.
async fn create_namespace(client: &Client, name: &str) -> Result<Secret, SoakError> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    let stage = |error: kube::Error| SoakError::Stage(format!("create the namespace {name}: {error}"));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.map_err(stage)?;
    let mut secret = Secret { metadata: namespace.metadata, ..Default::default() };
    secret.metadata.name = Some(FOREIGN_SECRET.to_owned());
    secret.string_data = Some([("password".to_owned(), "theirs".to_owned())].into());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), name);
    let created = eventually(Duration::from_secs(10), "a Secret of somebody else", async || {
        secrets.create(&PostParams::default(), &secret).await
    });
    created.await.map_err(SoakError::Stage)
}

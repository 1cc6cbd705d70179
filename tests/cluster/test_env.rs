//! What a test stands on: a namespace, an emulator, an operator.

use boltz_emulator::{Emulator, Key, Options, Settings};
use boltz_harness::{ApiProxy, ControlPlane, ControlPlaneOptions, OperatorProcess, eventually};
use boltz_operator::{api::BoltzApiKey, protocol::record::Record};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::{self, Runtime},
    sync::OnceCell,
};

/// Long enough for a slow machine; conditions end the wait.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The emulators and proxies of all tests run here, so that a test which waits for a process or for kubectl does not
/// keep an operator waiting for Boltz.
static SERVERS: LazyLock<Runtime> =
    LazyLock::new(|| runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Half of it is the window in which a key has to be stored: a busy machine needs some seconds.
pub const SETTLE_TIME: &str = "8s";
pub const REQUEST_TIMEOUT: &str = "2s";

pub struct TestEnv {
    pub operator: OperatorProcess,
    pub client: Client,
    pub namespace: String,
    pub emulator: Arc<Emulator>,
    pub arguments: Vec<String>,
    /// Between operator and API server, if it was asked for.
    pub proxy: Option<ApiProxy>,
    admin_key_file: Arc<tempfile::NamedTempFile>,
    /// The last to go: the others use it.
    pub control_plane: Arc<ControlPlane>,
}

/// How an environment differs from the usual one.
#[derive(Default)]
pub struct EnvOptions {
    pub settings: Settings,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Its own control plane, for tests that do something to it.
    pub own_control_plane: bool,
    /// The operator watches all namespaces. Wants its own control plane: others' objects are there too.
    pub all_namespaces: bool,
    /// Puts a proxy between operator and API server.
    pub proxy: bool,
    /// Flags that are left away, with their values.
    pub without: Vec<&'static str>,
    /// The operator is another user: given the namespace, its kubeconfig file.
    pub kubeconfig: Option<UserOf>,
    /// Another program than the operator of this tree.
    pub binary: Option<PathBuf>,
}

/// Makes a user with rights in that namespace, and answers its kubeconfig file.
pub type UserOf = Box<dyn FnOnce(&str) -> PathBuf + Send>;

/// The one that all tests share unless they want their own, with the operator's CRD and rights.
pub async fn control_plane() -> Arc<ControlPlane> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let control_plane = ControlPlane::shared().await.unwrap();
    INSTALLED
        .get_or_init(|| async {
            control_plane.install_operator().await.unwrap();
        })
        .await;
    control_plane
}

/// Another Boltz.
pub async fn emulator(settings: Settings) -> Arc<Emulator> {
    let options = Options { settings, ..Options::default() };
    Arc::new(SERVERS.spawn(Emulator::start(options)).await.unwrap().unwrap())
}

/// The ConfigMap of the usual Lease.
const ACCOUNT_DATA: &str = "boltz-operator-account";

impl TestEnv {
    pub async fn new() -> Self {
        Self::with_options(EnvOptions::default()).await
    }

    /// With a short settle time, for tests that look at how soon a key is revoked.
    pub async fn settling_fast() -> Self {
        let arguments = owned(&["--settle-time", "4s", "--request-timeout", "2s"]);
        Self::with_options(EnvOptions { arguments, ..EnvOptions::default() }).await
    }

    /// With the shortest settle time, for tests that judge by times and have the machine for themselves.
    pub async fn judged_by_times() -> Self {
        let arguments = owned(&["--settle-time", "2s", "--request-timeout", "1s"]);
        Self::with_options(EnvOptions { arguments, ..EnvOptions::default() }).await
    }

    pub async fn with_options(options: EnvOptions) -> Self {
        let control_plane = if options.own_control_plane {
            let own = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
            own.install_operator().await.unwrap();
            Arc::new(own)
        } else {
            control_plane().await
        };
        let client = control_plane.admin_client().await.unwrap();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        create_namespace(&client, &namespace).await;
        let for_emulator = Options { settings: options.settings, ..Options::default() };
        let emulator = SERVERS.spawn(Emulator::start(for_emulator)).await.unwrap();
        let emulator = Arc::new(emulator.unwrap());
        let admin_key_file = Arc::new(tempfile::NamedTempFile::new().unwrap());
        std::fs::write(admin_key_file.path(), emulator.admin_key()).unwrap();
        let mut arguments: Vec<String> = [
            ("--boltz-base-url", emulator.base_url().as_str()),
            ("--admin-key-file", admin_key_file.path().to_str().unwrap()),
            ("--cluster-name", namespace.as_str()),
            ("--watch-namespaces", namespace.as_str()),
            ("--settle-time", SETTLE_TIME),
            ("--request-timeout", REQUEST_TIMEOUT),
            ("--inventory-interval", "1s"),
            ("--leader-elect", "false"),
            ("--lease-namespace", "boltz-system"),
            ("--log-format", "text"),
        ]
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect();
        let all_namespaces = options.all_namespaces.then_some("--watch-namespaces");
        for flag in options.without.into_iter().chain(all_namespaces) {
            let index = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments.drain(index..index + 2);
        }
        arguments = with(&arguments, &options.arguments);
        let proxy = if options.proxy {
            let behind = Arc::clone(&control_plane);
            let proxy = SERVERS.spawn(async move { ApiProxy::start(&behind).await }).await.unwrap();
            Some(proxy.unwrap())
        } else {
            None
        };
        let kubeconfig = match (&proxy, options.kubeconfig) {
            (Some(proxy), _) => proxy.kubeconfig().clone(),
            (None, Some(user_of)) => user_of(&namespace),
            (None, None) => control_plane.kubeconfig("operator"),
        };
        let binary = options.binary.unwrap_or_else(this_operator);
        let operator = start(&binary, &kubeconfig, &arguments, &options.environment).await;
        Self { control_plane, client, namespace, emulator, operator, arguments, proxy, admin_key_file }
    }

    /// Another operator with the same configuration but for these flags, without the proxy.
    pub async fn another(&self, changes: &[&str]) -> OperatorProcess {
        self.another_of(&this_operator(), changes).await
    }

    /// The same with another program.
    pub async fn another_of(&self, binary: &Path, changes: &[&str]) -> OperatorProcess {
        let arguments = with(&self.arguments, &owned(changes));
        start(binary, &self.control_plane.kubeconfig("operator"), &arguments, &[]).await
    }

    /// Starts the operator anew, with these flags and as that user. Does not wait until it is ready.
    pub fn replace_operator(&mut self, kubeconfig: &Path, changes: &[&str]) {
        self.operator.kill();
        self.arguments = with(&self.arguments, &owned(changes));
        let binary = Path::new(env!("CARGO_BIN_EXE_boltz-operator"));
        self.operator = OperatorProcess::start(binary, kubeconfig, &self.arguments, &[]).unwrap();
    }

    /// The same namespace on another control plane, with an operator of its own and the same Boltz.
    pub async fn beside(&self, control_plane: Arc<ControlPlane>, changes: &[&str]) -> Self {
        let arguments = with(&self.arguments, &owned(changes));
        Self {
            client: control_plane.admin_client().await.unwrap(),
            namespace: self.namespace.clone(),
            emulator: Arc::clone(&self.emulator),
            operator: start(&this_operator(), &control_plane.kubeconfig("operator"), &arguments, &[]).await,
            arguments,
            proxy: None,
            admin_key_file: Arc::clone(&self.admin_key_file),
            control_plane,
        }
    }

    pub fn objects(&self) -> Api<BoltzApiKey> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Deployments, StatefulSets or DaemonSets.
    pub fn workloads(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Creates an object.
    pub async fn create(&self, name: &str, spec: Json) -> BoltzApiKey {
        let object = serde_json::from_value(json!({
            "apiVersion": "boltz.bio/v1alpha1",
            "kind": "BoltzApiKey",
            "metadata": {"name": name},
            "spec": spec,
        }))
        .unwrap();
        self.objects().create(&PostParams::default(), &object).await.unwrap()
    }

    /// A merge patch.
    pub async fn patch(&self, name: &str, patch: Json) -> BoltzApiKey {
        self.objects().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        self.patch(name, json!({"metadata": {"annotations": {annotation: value}}})).await;
    }

    pub async fn delete(&self, name: &str) {
        self.objects().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn get(&self, name: &str) -> BoltzApiKey {
        self.objects().get(name).await.unwrap()
    }

    /// Waits until the object is as the question wants it.
    pub async fn until(&self, name: &str, what: &str, is_so: impl Fn(&BoltzApiKey) -> bool) -> BoltzApiKey {
        let seen = eventually(PATIENCE, what, async || match self.objects().get(name).await {
            Ok(object) if is_so(&object) => Ok(object),
            Ok(object) => Err(serde_json::to_string(&object.status).unwrap()),
            Err(error) => Err(error.to_string()),
        });
        match seen.await {
            Ok(object) => object,
            Err(error) => panic!("{error}\n{}", self.operator.process().last_lines(40)),
        }
    }

    pub async fn ready(&self, name: &str) -> BoltzApiKey {
        self.until(name, "Ready", |object| is(object, "Ready") && observed(object)).await
    }

    /// Waits until Ready is False for that reason.
    pub async fn not_ready(&self, name: &str, reason: &str) -> BoltzApiKey {
        self.until(name, reason, |object| {
            condition(object, "Ready")
                .is_some_and(|condition| condition.status == "False" && condition.reason == reason)
        })
        .await
    }

    pub async fn gone(&self, name: &str) {
        let gone =
            eventually(PATIENCE, "the object is gone", async || match self.objects().get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(serde_json::to_string(&object).unwrap()),
                Err(error) => Err(error.to_string()),
            });
        if let Err(error) = gone.await {
            panic!("{error}\n{}", self.operator.process().last_lines(40));
        }
    }

    /// Waits until that is so.
    pub async fn wait(&self, what: &str, is_so: impl Fn() -> Result<(), String>) {
        if let Err(error) = eventually(PATIENCE, what, async || is_so()).await {
            panic!("{error}\n{}", self.operator.process().last_lines(40));
        }
    }

    pub async fn secret(&self, name: &str) -> Secret {
        self.secrets().get(name).await.unwrap()
    }

    /// The value under the default data key.
    pub async fn value(&self, name: &str) -> String {
        value_of(&self.secret(name).await, "BOLTZ_API_KEY")
    }

    pub async fn record(&self, name: &str) -> Record {
        record_of(&self.secret(name).await)
    }

    /// The judge, once everything is at rest: the object is Ready, its Secret's value authenticates as the key that
    /// status names, and the active keys are the current and the previous ones, no others.
    pub async fn judge(&self, name: &str) {
        self.judge_all(&[name], &[]).await;
    }

    /// The same for several objects; `others` are active keys that no object accounts for.
    pub async fn judge_all(&self, names: &[&str], others: &[&str]) {
        let verdict = eventually(PATIENCE, "a good state at rest", async || {
            let mut expected: BTreeSet<String> = others.iter().map(|id| (*id).to_owned()).collect();
            for name in names {
                expected.extend(self.accounted_for(name).await?);
            }
            if self.active_ids() == expected {
                Ok(())
            } else {
                Err(format!("active are {:?}, accounted for are {expected:?}", self.active_ids()))
            }
        });
        if let Err(error) = verdict.await {
            panic!("{error}\n{}", self.operator.process().last_lines(40));
        }
    }

    /// The keys of an object, if its Secret's value authenticates as the one that status names.
    async fn accounted_for(&self, name: &str) -> Result<BTreeSet<String>, String> {
        let object = self.objects().get(name).await.map_err(|error| error.to_string())?;
        if !(is(&object, "Ready") && observed(&object)) {
            return Err(format!("{name} is not Ready"));
        }
        let status = object.status.unwrap_or_default();
        let secret = self.secrets().get(status.secret_name.as_deref().unwrap_or_default()).await;
        let secret = secret.map_err(|error| error.to_string())?;
        let record = record_of(&secret);
        let id = self.emulator.authenticate(&value_of(&secret, &record.secret_key));
        if id.as_ref() != Some(&record.key_id) {
            return Err(format!(
                "the Secret's value authenticates as {id:?}, its record says {}",
                record.key_id
            ));
        }
        if status.key_id != id {
            return Err(format!("status names {:?}, the Secret holds {id:?}", status.key_id));
        }
        let previous = status.previous_keys.iter().map(|previous| previous.key_id.clone());
        Ok(std::iter::once(record.key_id).chain(previous).collect())
    }

    /// The ids of the keys whose revocation was asked for.
    pub fn revoked_ids(&self) -> BTreeSet<String> {
        let requests = self.emulator.requests().into_iter();
        let revocations = requests.filter(|request| request.operation == boltz_emulator::Operation::Revoke);
        revocations.map(|request| request.subject).collect()
    }

    /// How many POSTs the operator had no answer to: a machine that is busy answers late. Each costs one more.
    pub fn unanswered(&self) -> usize {
        self.operator.log().matches("failed to create a key").count()
    }

    /// What the operator remembers under this name for the next process.
    pub async fn remembered(&self, what: &str) -> Result<String, String> {
        let found = self.account_data().get_opt(ACCOUNT_DATA).await.map_err(|error| error.to_string())?;
        let key = self.account_data_key(what);
        found.and_then(|found| found.data?.remove(&key)).ok_or_else(|| format!("{what} is not remembered"))
    }

    /// Somebody edits that. `null` removes it.
    pub async fn edit_remembered(&self, what: &str, value: &Json) {
        let patch = json!({"data": {self.account_data_key(what): value}});
        self.account_data().patch(ACCOUNT_DATA, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    fn account_data(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "boltz-system")
    }

    /// Other tests' operators have keys of their own in the ConfigMap.
    fn account_data_key(&self, what: &str) -> String {
        format!("{}.{what}", self.namespace)
    }

    /// The id of the key that the Secret of an object at rest holds.
    pub async fn id_of(&self, name: &str) -> String {
        self.ready(name).await;
        self.record(name).await.key_id
    }

    /// Waits until so many orphans are reported.
    pub async fn until_orphaned(&self, count: usize) {
        self.until_metric(&format!("boltz_orphaned_keys {count}")).await;
    }

    /// Waits until the metrics have that line.
    pub async fn until_metric(&self, line: &str) {
        self.until_metrics(line, |metrics| metrics.lines().any(|known| known == line)).await;
    }

    /// Waits until the metrics are so.
    pub async fn until_metrics(&self, what: &str, are_so: impl Fn(&str) -> bool) {
        let seen = eventually(PATIENCE, what, async || {
            let metrics = self.operator.get("/metrics").await?;
            if are_so(&metrics) { Ok(()) } else { Err(metrics) }
        });
        if let Err(error) = seen.await {
            panic!("{error}\n{}", self.operator.process().last_lines(40));
        }
    }

    pub fn active_ids(&self) -> BTreeSet<String> {
        self.emulator.active_keys().into_iter().map(|key| key.id).collect()
    }

    /// Waits until exactly these many keys are active.
    pub async fn until_active(&self, count: usize) -> Vec<Key> {
        self.wait(&format!("{count} active keys"), || {
            let active = self.emulator.active_keys();
            if active.len() == count { Ok(()) } else { Err(format!("{} active keys", active.len())) }
        })
        .await;
        self.emulator.active_keys()
    }

    pub fn set_admin_key(&self, key: &str) {
        std::fs::write(self.admin_key_file.path(), key).unwrap();
    }

    /// The operator's writes in this namespace so far, dry runs, leases and events aside.
    pub fn writes(&self) -> Vec<String> {
        self.control_plane
            .audit_events_where(|event| {
                event.is_write()
                    && event.user.username == boltz_harness::OPERATOR_USER
                    && event.object_ref.namespace == self.namespace
                    && !matches!(event.object_ref.resource.as_str(), "events" | "leases")
            })
            .into_iter()
            .map(|event| {
                let object = event.object_ref;
                format!(
                    "{} {} {} -> {}",
                    event.verb, object.resource, object.subresource, event.response_status.code
                )
            })
            .collect()
    }

    /// Waits until Boltz's list has been read so many times more: the operator has then seen what there is to see.
    pub async fn passes(&self, count: usize) {
        let before = self.emulator.count(boltz_emulator::Operation::List);
        self.wait("more passes over the list", || {
            let now = self.emulator.count(boltz_emulator::Operation::List);
            if now >= before + count { Ok(()) } else { Err(format!("{} passes", now - before)) }
        })
        .await;
    }
}

/// Runs the rows of a table, each with its name, so many side by side: they mostly wait. `ROW="an older list"` runs those
/// whose names begin so.
pub async fn run_rows(
    side_by_side: usize,
    rows: impl Iterator<Item = (&'static str, impl Future<Output = ()>)>,
) {
    let wanted = std::env::var("ROW").unwrap_or_default();
    let rows = rows.filter(|(name, _)| name.starts_with(&wanted));
    let rows = rows.map(|(name, row)| async move {
        let started = Instant::now();
        let passed = AssertUnwindSafe(row).catch_unwind().await.is_ok();
        eprintln!("{name}: {} s", started.elapsed().as_secs());
        (name, passed)
    });
    let results: Vec<(&str, bool)> = stream::iter(rows).buffer_unordered(side_by_side).collect().await;
    let failed: Vec<&str> = results.iter().filter(|(_, passed)| !passed).map(|(name, _)| *name).collect();
    assert!(failed.is_empty() && !results.is_empty(), "{failed:?}");
}

/// Flags and values, as a process takes them.
pub fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|text| (*text).to_owned()).collect()
}

/// Flags with others in their place.
fn with(arguments: &[String], changes: &[String]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    for pair in changes.chunks(2) {
        match arguments.iter().position(|known| *known == pair[0]) {
            Some(index) => arguments[index + 1].clone_from(&pair[1]),
            None => arguments.extend_from_slice(pair),
        }
    }
    arguments
}

/// The operator of this tree.
pub fn this_operator() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_boltz-operator"))
}

async fn start(
    binary: &Path,
    kubeconfig: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> OperatorProcess {
    let operator = OperatorProcess::start(binary, kubeconfig, arguments, environment).unwrap();
    operator.wait_ready().await.unwrap();
    operator
}

pub async fn create_namespace(client: &Client, name: &str) {
    let namespace = Namespace {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// A Deployment, StatefulSet or DaemonSet that no node runs.
pub fn workload(kind: &str, name: &str) -> Json {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "x", "image": "x"}]},
            },
        },
    })
}

pub fn condition<'a>(object: &'a BoltzApiKey, kind: &str) -> Option<&'a Condition> {
    object.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

pub fn is(object: &BoltzApiKey, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.status == "True")
}

pub fn observed(object: &BoltzApiKey) -> bool {
    object.status.as_ref().and_then(|status| status.observed_generation) == object.metadata.generation
}

pub fn value_of(secret: &Secret, key: &str) -> String {
    let data = secret.data.as_ref().unwrap();
    String::from_utf8(data[key].0.clone()).unwrap()
}

pub fn record_of(secret: &Secret) -> Record {
    Record::parse(secret.annotations().get("boltz.bio/record").map(String::as_str)).unwrap()
}

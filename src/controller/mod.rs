//! The shell around the plan: watches, timers and the loop that observes, decides and executes.

mod events;
mod execute;
mod kubernetes;
mod observe;
mod orphans;

use crate::{
    account::Account,
    api::{BoltzApiKeyStatus, DELETION_POLICY_ANNOTATION, DeletionPolicy, OWNER_LABEL, WatchedApiKey},
    backoff,
    clock::Clock,
    marker::AttemptId,
    metrics::{Metrics, ObjectGauges},
    plan::{Facts, Memory, Plan, Settings, Step, desired_status, plan},
    record::{Record, value_sha256},
    secrets::{SecretIndex, SecretMetadata, Value},
};
pub use events::Events;
use execute::{Outcome, execute};
use futures::{FutureExt, StreamExt, stream};
use http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config as ControllerConfig},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
pub use kubernetes::{Kubernetes, KubernetesError};
pub use observe::object_facts;
pub use orphans::{OrphanHandling, Orphans};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, watch};

/// Load balancers drop connections that are silent for 240 s and more.
const WATCH_TIMEOUT_SECONDS: u32 = 200;
/// More steps than any sane chain of decisions has; the next reconciliation goes on.
const MAX_STEPS: usize = 64;
/// How many live reads one reconciliation makes before it waits: a write that is refused again and again must not spin.
const MAX_READS: usize = 16;
/// How often what was remembered of objects that are gone is tidied away.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// How long reconciliations may go on after a request to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What every reconciliation shares.
pub struct Context {
    /// The API server.
    pub kubernetes: Kubernetes,
    /// The Boltz organization.
    pub account: Account,
    /// The operator's Secrets.
    pub secrets: SecretIndex,
    /// What the plan needs of the configuration.
    pub settings: Settings,
    request_timeout: Duration,
    /// The clocks.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The events.
    pub events: Events,
    states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>>,
    permits: Semaphore,
}

/// What this process remembers of one object.
#[derive(Default)]
pub struct ObjectState {
    name: String,
    namespace: String,
    memory: Memory,
    /// The values of keys in hand: from the POST's answer to the write of the Secret.
    values: HashMap<AttemptId, SecretString>,
    /// The newest version of the object that a read or an own write showed.
    latest: Option<WatchedApiKey>,
    mint_failures: u32,
    errors: u32,
    revoke_failures: u32,
}

impl ObjectState {
    /// The key is revoked, and its value of no use any more.
    fn forget_value_of(&mut self, key_id: &str) {
        self.memory.revoked(key_id);
        let in_hand: HashSet<&AttemptId> = self.memory.in_hand().map(|(attempt, _)| attempt).collect();
        self.values.retain(|attempt, _| in_hand.contains(attempt));
    }
}

/// The configuration's times and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the plan needs of it.
    pub settings: Settings,
    /// How long one call to Boltz may take.
    pub request_timeout: Duration,
    /// Objects reconciled at once, over all namespaces.
    pub concurrency: u16,
}

/// Which objects are watched, and how many at once are worked on.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Objects reconciled at once.
    pub concurrency: u16,
    /// What is done about orphans.
    pub orphans: OrphanHandling,
}

impl Context {
    /// A context that knows nothing yet.
    pub fn new(
        kubernetes: Kubernetes,
        account: Account,
        limits: Limits,
        clock: Clock,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Self {
        Self {
            kubernetes,
            account,
            secrets: SecretIndex::default(),
            settings: limits.settings,
            request_timeout: limits.request_timeout,
            clock,
            metrics,
            events,
            states: Mutex::default(),
            permits: Semaphore::new(usize::from(limits.concurrency)),
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_of(&self, object: &WatchedApiKey) -> Arc<tokio::sync::Mutex<ObjectState>> {
        let state = || {
            Arc::new(tokio::sync::Mutex::new(ObjectState {
                name: object.name_any(),
                namespace: object.namespace().unwrap_or_default(),
                ..ObjectState::default()
            }))
        };
        Arc::clone(self.states().entry(object.uid().unwrap_or_default()).or_insert_with(state))
    }
}

/// Watches and reconciles until `stop` turns true, then ends gracefully. Dropping the future drops what is in flight.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    ready: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let scopes: Vec<Option<String>> = match scope.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    for namespace in &scopes {
        read_secrets(&context, namespace.as_deref()).await;
    }
    let mut stores: Vec<Store<WatchedApiKey>> = Vec::new();
    let synced = Arc::new(watch::Sender::new(0));
    let mut tasks = Vec::new();
    for namespace in &scopes {
        let (trigger, triggers) = mpsc::unbounded_channel();
        let api: Api<WatchedApiKey> = api_in(&context, namespace.as_deref());
        let mut config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
        config.label_selector = scope.label_selector.clone();
        let (store, writer) = reflector::store();
        let mut is_first = true;
        let count = Arc::clone(&synced);
        // Store::wait_until_ready wakes one waiter only, and the controller is that one.
        let objects = watch_anew(api, config)
            .default_backoff()
            .reflect(writer)
            .inspect(move |event| {
                if matches!(event, Ok(watcher::Event::InitDone)) && std::mem::take(&mut is_first) {
                    count.send_modify(|count| *count += 1);
                }
            })
            .touched_objects();
        let controller = Controller::for_stream(objects, store.clone())
            .with_config(ControllerConfig::default().concurrency(scope.concurrency))
            .reconcile_on(stream::unfold(triggers, |mut triggers| async move {
                let next = triggers.recv().await?;
                Some((next, triggers))
            }))
            .reconcile_all_on(changes(context.account.inventory().completions()))
            .reconcile_all_on(changes(context.account.recoveries()));
        stores.push(store.clone());
        let mut stop = stop.clone();
        let reconciliations = controller
            .graceful_shutdown_on(async move {
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .run(reconcile, error_policy, Arc::clone(&context))
            .for_each(|_| futures::future::ready(()));
        tasks.push(reconciliations.boxed());
        tasks.push(watch_secrets(Arc::clone(&context), namespace.clone(), store, trigger).boxed());
    }
    let all = scopes.len();
    let mut synced = synced.subscribe();
    tasks.push(
        async move {
            if synced.wait_for(|count| *count == all).await.is_ok() {
                ready.send_replace(true);
                tokio::join!(after_passes(&context, &stores, scope.orphans), tidy(&context, &stores));
            }
        }
        .boxed(),
    );
    let all = futures::future::join_all(tasks);
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        _ = all => {}
        () = stopped => {}
    }
}

fn api_in<K>(context: &Context, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    let client = context.kubernetes.client().clone();
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// A watch that begins with a list again when the API server will not resume it, because what it had reached is
/// compacted. The library does so itself when an event says it; when a status says it, it would ask again for ever.
fn watch_anew<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == StatusCode::GONE
        {
            events = begin();
        }
        Some((event, (events, begin)))
    })
}

/// A stream of the receiver's changes.
fn changes(receiver: watch::Receiver<u64>) -> impl futures::Stream<Item = ()> + Send {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

/// The loop: observe, decide, execute, until there is nothing to do now.
async fn reconcile(cached: Arc<WatchedApiKey>, context: Arc<Context>) -> Result<Action, KubernetesError> {
    let started = context.clock.now().monotonic;
    let result = reconcile_object(&cached, &context).await;
    context.metrics.reconciled(context.clock.now().monotonic.since(started), result.is_ok());
    result
}

async fn reconcile_object(cached: &Arc<WatchedApiKey>, context: &Context) -> Result<Action, KubernetesError> {
    let Ok(_permit) = context.permits.acquire().await else { return Ok(Action::await_change()) };
    let _in_progress = context.metrics.reconciling();
    let shared = context.state_of(cached);
    let mut state = shared.lock().await;
    let mut facts = observe::from_caches(context, &mut state, cached).await?;
    let mut reads = 0;
    for _ in 0..MAX_STEPS {
        observe::refresh(context, &mut state, &mut facts);
        let now = context.clock.now();
        let decision = plan(&facts, &context.settings, now);
        let outcome = match decision.step {
            Step::Wait => {
                state.errors = 0;
                return Ok(rest(context, &facts, &decision));
            }
            // Rule 8: only what a live read confirms is revoked.
            Step::Revoke { .. } if !facts.live => Outcome::ReadAgain,
            step => execute(context, &mut state, &mut facts, step).await?,
        };
        match outcome {
            Outcome::Done => {}
            Outcome::ReadAgain if reads == MAX_READS => {
                state.errors = state.errors.saturating_add(1);
                return Ok(Action::requeue(backoff::delay(state.errors, None)));
            }
            Outcome::ReadAgain => match observe::live(context, &mut state, &facts.object).await? {
                Some(read) => {
                    reads += 1;
                    facts = read;
                }
                None => return forsaken(context, &mut state, &facts).await,
            },
            Outcome::Gone => {
                return forsaken(context, &mut state, &facts).await;
            }
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Nothing to do now: shows the object in the metrics and says when to look again.
fn rest(context: &Context, facts: &Facts, decision: &Plan) -> Action {
    let now = context.clock.now();
    if let Some(since) = decision.pass_since {
        context.account.inventory().want_pass_since(since);
    }
    let status = desired_status(facts, &context.settings, now, &decision.findings);
    context.metrics.set_object(&facts.object.namespace, &facts.object.name, &gauges(&status));
    match decision.wake_at {
        Some(at) => Action::requeue(at.since(now.monotonic)),
        None => Action::await_change(),
    }
}

fn gauges(status: &BoltzApiKeyStatus) -> ObjectGauges {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let is_ready = ready.is_some_and(|condition| condition.status == "True");
    // Nobody wants to be woken up because of it.
    let is_on_purpose = !is_ready && ready.is_some_and(|condition| condition.reason == "Suspended");
    ObjectGauges {
        ready: (!is_on_purpose).then_some(is_ready),
        active: status.is_active.unwrap_or_default(),
        expires_at: status.expires_at.as_ref().map(|time| time.0),
        renewal_at: status.renewal_time.as_ref().map(|time| time.0),
        last_used_at: status.last_used_at.as_ref().map(|time| time.0),
        previous_keys: status.previous_keys.len(),
        revocation_blocked: ready.is_some_and(|condition| condition.reason == "RevocationBlocked"),
    }
}

fn forget(context: &Context, facts: &Facts) {
    context.states().remove(&facts.object.uid);
    context.metrics.forget(&facts.object.namespace, &facts.object.name);
}

/// The object is gone.
async fn forsaken(
    context: &Context,
    state: &mut ObjectState,
    facts: &Facts,
) -> Result<Action, KubernetesError> {
    if revoke_left_behind(context, state).await {
        forget(context, facts);
    }
    Ok(Action::await_change())
}

/// Rule 9: the object is gone, so the keys that nobody else knows of are revoked at once. Says whether none is left.
async fn revoke_left_behind(context: &Context, state: &mut ObjectState) -> bool {
    let is_retained = state.latest.as_ref().is_some_and(|object| {
        object.annotations().get(DELETION_POLICY_ANNOTATION).is_some_and(|policy| policy == "Retain")
            || object.spec.as_ref().is_ok_and(|spec| spec.deletion_policy == DeletionPolicy::Retain)
    });
    for key_id in state.memory.left_behind(is_retained) {
        match context.account.client().revoke_key(&key_id).await {
            Ok(_) => {
                tracing::info!(key_id, reason = "NotStored", "a key was revoked: its object is gone");
                context.metrics.revoked("NotStored");
                state.forget_value_of(&key_id);
            }
            Err(error) => {
                context.account.failed(&error, context.clock.now().monotonic);
                tracing::warn!(key_id, error = &error as &dyn std::error::Error, "a key was not revoked");
            }
        }
    }
    state.memory.left_behind(is_retained).is_empty()
}

fn error_policy(object: Arc<WatchedApiKey>, error: &KubernetesError, context: Arc<Context>) -> Action {
    tracing::warn!(
        namespace = object.namespace(),
        name = object.name_any(),
        error = error as &dyn std::error::Error,
        "a reconciliation failed and is tried again"
    );
    let shared = context.state_of(&object);
    let failures = match shared.try_lock() {
        Ok(mut state) => {
            state.errors = state.errors.saturating_add(1);
            state.errors
        }
        Err(_) => 1,
    };
    Action::requeue(backoff::delay(failures, None))
}

/// At start: which values the operator's Secrets hold, from one paged list, hashed and dropped.
async fn read_secrets(context: &Context, namespace: Option<&str>) {
    let mut failures = 0;
    let mut page = None;
    loop {
        match context.kubernetes.list_secrets(namespace, page.clone()).await {
            Ok((secrets, next)) => {
                failures = 0;
                for (metadata, data) in secrets.into_iter().filter_map(kubernetes::SecretWithData::into_parts)
                {
                    let hash = Record::parse(metadata.record.as_deref())
                        .and_then(|record| data.get(&record.secret_key).map(|value| value_sha256(&value.0)));
                    context.secrets.put(metadata, Value::Read(hash));
                }
                page = next;
                if page.is_none() {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                // The token of a page that took too long has expired: from the start.
                page = None;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the operator's Secrets could not be listed"
                );
                tokio::time::sleep(backoff::delay(failures, None)).await;
            }
        }
    }
}

/// Watches the metadata of the operator's Secrets and has their objects looked at.
async fn watch_secrets(
    context: Arc<Context>,
    namespace: Option<String>,
    store: Store<WatchedApiKey>,
    trigger: mpsc::UnboundedSender<ObjectRef<WatchedApiKey>>,
) {
    use watcher::Event;
    let api: Api<PartialObjectMeta<Secret>> = api_in(&context, namespace.as_deref());
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS).labels(OWNER_LABEL);
    let mut events = watch_anew(api, config).default_backoff().boxed();
    let mut relist = 0;
    let look_at = |metadata: &SecretMetadata| {
        if let Some(object) = owner_of(metadata, &store) {
            // The receiver lives as long as the controller; without one there is nobody to tell.
            let _ = trigger.send(object);
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => relist = context.secrets.begin_relist(),
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                let metadata = SecretMetadata::from_object_meta(secret.metadata);
                if let Some(metadata) = metadata.filter(|metadata| context.secrets.observe(metadata.clone()))
                {
                    look_at(&metadata);
                }
            }
            Ok(Event::InitDone) => {
                for metadata in context.secrets.end_relist(relist, namespace.as_deref()) {
                    look_at(&metadata);
                }
            }
            Ok(Event::Delete(secret)) => {
                if let Some(metadata) = SecretMetadata::from_object_meta(secret.metadata) {
                    let version = Some(metadata.resource_version.as_str());
                    context.secrets.remove(&metadata.namespace, &metadata.name, version);
                    look_at(&metadata);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch of the Secrets was interrupted"
                );
            }
        }
    }
}

/// The object that a Secret belongs to: by its ownerReference, else by its label.
fn owner_of(metadata: &SecretMetadata, store: &Store<WatchedApiKey>) -> Option<ObjectRef<WatchedApiKey>> {
    let owner = metadata.owner_references.iter().find(|owner| owner.kind == "BoltzApiKey");
    if let Some(owner) = owner {
        return Some(ObjectRef::new(&owner.name).within(&metadata.namespace));
    }
    let object = store.find(|object| object.metadata.uid == metadata.owner_label)?;
    Some(ObjectRef::from_obj(object.as_ref()))
}

/// After every complete pass over Boltz's list: the orphans.
async fn after_passes(context: &Context, stores: &[Store<WatchedApiKey>], handling: OrphanHandling) {
    let mut orphans = Orphans::default();
    let mut completions = context.account.inventory().completions();
    completions.mark_changed();
    while completions.changed().await.is_ok() {
        let Some(snapshot) = context.account.inventory().snapshots().into_iter().next() else { continue };
        let objects: Vec<Arc<WatchedApiKey>> = stores.iter().flat_map(Store::state).collect();
        orphans.take_in(context, &snapshot, &objects, handling).await;
    }
}

/// Lets go of what was remembered of objects that are gone, once no key of theirs is left behind.
async fn tidy(context: &Context, stores: &[Store<WatchedApiKey>]) {
    loop {
        tokio::time::sleep(TIDY_INTERVAL).await;
        let alive: HashSet<String> =
            stores.iter().flat_map(Store::state).filter_map(|object| object.uid()).collect();
        let gone: Vec<(String, Arc<tokio::sync::Mutex<ObjectState>>)> = context
            .states()
            .iter()
            .filter(|(uid, _)| !alive.contains(*uid))
            .map(|(uid, state)| (uid.clone(), Arc::clone(state)))
            .collect();
        for (uid, shared) in gone {
            let mut state = shared.lock().await;
            let read = context.kubernetes.get_object(&state.namespace, &state.name).await;
            let is_gone = read.is_ok_and(|read| read.and_then(|object| object.uid()).as_ref() != Some(&uid));
            if is_gone && revoke_left_behind(context, &mut state).await {
                context.states().remove(&uid);
                let recreated = stores.iter().flat_map(Store::state).any(|object| {
                    object.name_any() == state.name && object.namespace().as_ref() == Some(&state.namespace)
                });
                if !recreated {
                    context.metrics.forget(&state.namespace, &state.name);
                }
            }
        }
    }
}

//! The watches and timers that start reconciliations.

use super::{
    Context, OrphanHandling, cleanup::cleanup_deleted, orphans::watch_orphans, reconcile::reconcile,
};
use crate::{
    api::{WatchedApiKey, annotations::OWNER_LABEL},
    backoff,
    kubernetes::{
        client::SecretWithData,
        secret_index::{SecretMetadata, Value},
    },
    protocol::record::{Record, value_sha256},
};
use futures::{FutureExt, StreamExt, stream};
use http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{
        Controller, WatchStreamExt,
        controller::Config as ControllerConfig,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Shorter than the 240 s after which some load balancers drop silent connections.
const WATCH_TIMEOUT_SECONDS: u32 = 200;
/// How long running reconciliations may continue after a request to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Which objects are watched, and how many are reconciled at the same time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Maximum number of objects reconciled at the same time.
    pub concurrency: u16,
    /// What to do with orphans.
    pub orphans: OrphanHandling,
}

/// Watches and reconciles until `stop` is cancelled, then ends gracefully. Dropping the future cancels reconciliations.
pub async fn run(context: Arc<Context>, scope: Scope, ready: watch::Sender<bool>, stop: CancellationToken) {
    let scopes: Vec<Option<String>> = match scope.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    for namespace in &scopes {
        read_secrets(&context, namespace.as_deref()).await;
    }
    context.account.lead(context.clock.now().monotonic);
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
        let gone = Arc::clone(&context);
        // Not Store::wait_until_ready: it wakes only one waiter, which is the controller.
        let objects = watch_with_relist(api, config)
            .default_backoff()
            .reflect(writer)
            .inspect(move |event| {
                if matches!(event, Ok(watcher::Event::InitDone)) && std::mem::take(&mut is_first) {
                    count.send_modify(|count| *count += 1);
                }
                if let Ok(watcher::Event::Delete(object)) = event {
                    let uid = object.metadata.uid.as_deref().unwrap_or_default();
                    gone.account.object_gone(uid, gone.clock.now().monotonic);
                }
            })
            .touched_objects();
        let controller = Controller::for_stream(objects, store.clone())
            .with_config(ControllerConfig::default().concurrency(scope.concurrency))
            .reconcile_on(stream::unfold(triggers, |mut triggers| async move {
                let next = triggers.recv().await?;
                Some((next, triggers))
            }))
            .reconcile_all_on(changes(context.inventory.completions()))
            .reconcile_all_on(changes(context.account.recoveries()));
        stores.push(store.clone());
        let reconciliations = controller
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(reconcile, |_, error, _| match *error {}, Arc::clone(&context))
            .for_each(|_| futures::future::ready(()));
        tasks.push(reconciliations.boxed());
        tasks.push(give_turns(Arc::clone(&context), namespace.clone(), trigger.clone()).boxed());
        tasks.push(watch_secrets(Arc::clone(&context), namespace.clone(), store, trigger).boxed());
    }
    let all = scopes.len();
    let mut synced = synced.subscribe();
    tasks.push(
        async move {
            if synced.wait_for(|count| *count == all).await.is_ok() {
                ready.send_replace(true);
                tokio::join!(
                    watch_orphans(&context, &stores, scope.orphans),
                    cleanup_deleted(&context, &stores)
                );
            }
        }
        .boxed(),
    );
    let all = futures::future::join_all(tasks);
    let stopped = async {
        stop.cancelled().await;
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

/// A watch that relists when the API server cannot resume it because the version is compacted (410 Gone). kube-runtime
/// relists when a watch event reports 410, but not when the watch request itself is answered with 410: it would repeat
/// the request without end.
fn watch_with_relist<K>(
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

/// At start: lists the operator's Secrets once and keeps the hashes of their values.
async fn read_secrets(context: &Context, namespace: Option<&str>) {
    let mut failures = 0;
    let mut page = None;
    loop {
        match context.kubernetes.list_secrets(namespace, page.clone()).await {
            Ok((secrets, next)) => {
                failures = 0;
                for (metadata, data) in secrets.into_iter().filter_map(SecretWithData::into_parts) {
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
                // The continue token may have expired: start over.
                page = None;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to list the operator's Secrets"
                );
                tokio::time::sleep(backoff::delay(failures, None)).await;
            }
        }
    }
}

/// Reconciles the objects of this namespace when their turn to get a key has come.
async fn give_turns(
    context: Arc<Context>,
    namespace: Option<String>,
    trigger: mpsc::UnboundedSender<ObjectRef<WatchedApiKey>>,
) {
    let mut changes = context.account.queue_changes();
    let mut told = HashSet::new();
    loop {
        changes.borrow_and_update();
        let now = context.clock.now().monotonic;
        let (news, next_at) = context.account.turns(namespace.as_deref(), now);
        let news: HashSet<(String, String)> = news.into_iter().collect();
        for (namespace, name) in news.difference(&told) {
            // Fails only if the controller has stopped.
            let _ = trigger.send(ObjectRef::new(name).within(namespace));
        }
        told = news;
        let changed = changes.changed();
        // The sender cannot be dropped here.
        let _ = match next_at {
            Some(at) => tokio::time::timeout_at(context.clock.instant(at), changed).await.unwrap_or(Ok(())),
            None => changed.await,
        };
    }
}

/// Watches the metadata of the operator's Secrets and reconciles their objects.
async fn watch_secrets(
    context: Arc<Context>,
    namespace: Option<String>,
    store: Store<WatchedApiKey>,
    trigger: mpsc::UnboundedSender<ObjectRef<WatchedApiKey>>,
) {
    use watcher::Event;
    let api: Api<PartialObjectMeta<Secret>> = api_in(&context, namespace.as_deref());
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS).labels(OWNER_LABEL);
    let mut events = watch_with_relist(api, config).default_backoff().boxed();
    let mut relist = 0;
    let trigger_owner = |metadata: &SecretMetadata| {
        if let Some(object) = owner_of(metadata, &store) {
            // Fails only if the controller has stopped.
            let _ = trigger.send(object);
        }
    };
    // An object that waits for the name of a deleted Secret retries immediately.
    let free_name = |metadata: &SecretMetadata| {
        let waits = |object: &Arc<WatchedApiKey>| {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let wanted = object.spec.as_ref().map_or(name, |spec| spec.secret_name(name));
            object.metadata.namespace.as_ref() == Some(&metadata.namespace) && wanted == metadata.name
        };
        for object in store.state().into_iter().filter(waits) {
            context.mark_freed(object.metadata.uid.clone().unwrap_or_default());
            let _ = trigger.send(ObjectRef::from_obj(object.as_ref()));
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => relist = context.secrets.begin_relist(),
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                let metadata = SecretMetadata::from_object_meta(secret.metadata);
                if let Some(metadata) = metadata.filter(|metadata| context.secrets.observe(metadata.clone()))
                {
                    trigger_owner(&metadata);
                }
            }
            Ok(Event::InitDone) => {
                for metadata in context.secrets.end_relist(relist, namespace.as_deref()) {
                    trigger_owner(&metadata);
                    free_name(&metadata);
                }
            }
            Ok(Event::Delete(secret)) => {
                if let Some(metadata) = SecretMetadata::from_object_meta(secret.metadata) {
                    let version = Some(metadata.resource_version.as_str());
                    context.secrets.remove(&metadata.namespace, &metadata.name, version);
                    trigger_owner(&metadata);
                    free_name(&metadata);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch on Secrets was interrupted"
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

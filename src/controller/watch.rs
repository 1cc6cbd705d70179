//! The watches and timers that start reconciliations.

use super::{
    Context, OrphanHandling,
    accounts::{self, AccountSettings, serve_boltz_accounts},
    cleanup::cleanup_deleted,
    reconcile::reconcile,
    reconcile_in_time::reconcile_in_time,
    serve_accounts::{Watched, serve_accounts},
    tasks::all_end,
    triggered::Triggered,
    watch_secrets::Secrets,
    watch_stream::{api_in, report, watch_with_relist, watcher_config},
};
use crate::{
    api::CachedApiKey,
    observability::watches::{ALL_NAMESPACES, Resource},
};
use futures::{StreamExt, stream};
use kube::{
    Api, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::Config as ControllerConfig,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long running reconciliations may continue after a request to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Which objects are watched, and how many are reconciled at the same time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// `--watch-namespaces`. Empty: all of them.
    pub namespaces: Vec<String>,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Maximum number of objects reconciled at the same time.
    pub concurrency: u16,
    /// What to do with orphans of the flags' account.
    pub orphans: OrphanHandling,
    /// How `BoltzAccounts` are served. `None`: they are not.
    pub accounts: Option<Arc<AccountSettings>>,
}

/// Watches and reconciles until `stop` is cancelled, then ends gracefully. Dropping the future cancels reconciliations.
pub async fn run(context: Arc<Context>, scope: Scope, ready: watch::Sender<bool>, stop: CancellationToken) {
    let namespaces = match scope.namespaces.as_slice() {
        [] => vec![ALL_NAMESPACES.to_owned()],
        namespaces => namespaces.to_vec(),
    };
    let has_selector = scope.label_selector.is_some();
    context.secrets.clear();
    context.awaited.clear();
    context.watches.begin(namespaces.iter().map(String::as_str));
    let (mut controllers, mut others) = (JoinSet::new(), JoinSet::new());
    if scope.accounts.is_some() {
        accounts::begin(&context);
    }
    context.accounts.lead(context.clock.now().monotonic);
    let mut watched: Vec<Watched> = Vec::new();
    for namespace in namespaces {
        let (store, writer) = reflector::store();
        let (trigger, triggers) = mpsc::unbounded_channel();
        let (begin, may_begin) = oneshot::channel();
        let objects = Triggered { store, trigger };
        watched.push(Watched { namespace: namespace.clone(), objects: objects.clone() });
        others.spawn(reconcile_in_time(Arc::clone(&context), objects.clone()));
        let secrets = Secrets { context: Arc::clone(&context), namespace: namespace.clone(), objects };
        others.spawn(secrets.follow(begin));
        let (context, scope, stop) = (Arc::clone(&context), scope.clone(), stop.clone());
        controllers.spawn(async move {
            tokio::select! {
                _ = may_begin => reconcile_all(context, scope, namespace, writer, triggers, stop).await,
                () = stop.cancelled() => {}
            }
        });
    }
    let stores: Vec<Store<CachedApiKey>> =
        watched.iter().map(|watched| watched.objects.store.clone()).collect();
    let orphans = scope.orphans;
    others.spawn(serve_accounts(Arc::clone(&context), watched, orphans));
    if let Some(settings) = scope.accounts {
        others.spawn(serve_boltz_accounts(Arc::clone(&context), settings, stores.clone()));
    }
    others.spawn(cleanup_deleted(Arc::clone(&context), stores, has_selector));
    let watches = Arc::clone(&context.watches);
    others.spawn(async move {
        watches.until_served().await;
        ready.send_replace(true);
        std::future::pending::<()>().await;
    });
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = all_end(&mut controllers) => {}
        () = all_end(&mut others) => {}
        () = stopped => {}
    }
    controllers.shutdown().await;
    others.shutdown().await;
    context.until_idle().await;
}

/// Reconciles the objects of one namespace, or of all. Each reconciliation is a task of its own.
async fn reconcile_all(
    context: Arc<Context>,
    scope: Scope,
    namespace: String,
    writer: reflector::store::Writer<CachedApiKey>,
    mut triggers: mpsc::UnboundedReceiver<ObjectRef<CachedApiKey>>,
    stop: CancellationToken,
) {
    let api: Api<CachedApiKey> = api_in(&context, &namespace);
    let mut config = watcher_config();
    config.label_selector = scope.label_selector;
    let store = writer.as_reader();
    let relisted = Arc::new(watch::Sender::new(0));
    let (relists, watches) = (changes(relisted.subscribe()), Arc::clone(&context));
    let (own, known) = (Arc::clone(&context), store.clone());
    let objects = watch_with_relist(api, config)
        .default_backoff()
        .reflect(writer)
        // After `reflect`: the store shows the event.
        .filter(move |event| {
            let is_echo = match event {
                Ok(watcher::Event::Apply(object)) => {
                    known.get(&ObjectRef::from_obj(object)).is_some_and(|cached| own.is_echo(&cached))
                }
                _ => false,
            };
            std::future::ready(!is_echo)
        })
        .inspect(move |event| match event {
            Ok(watcher::Event::Init) => watches.relist_begins(&namespace),
            Ok(watcher::Event::InitDone) => {
                watches.relist_is_done(&namespace);
                watches.watches.mark_synced(&namespace, Resource::ApiKeys);
                relisted.send_modify(|count| *count += 1);
            }
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => queue(&watches, object),
            Ok(watcher::Event::Delete(object)) => {
                dequeue(&watches, object);
                let uid = object.metadata.uid.as_deref().unwrap_or_default();
                watches.accounts.object_gone(uid, watches.clock.now().monotonic);
            }
            Err(error) => report(&watches, &namespace, Resource::ApiKeys, error),
        })
        .touched_objects()
        // An error would delay everything else that starts reconciliations.
        .filter(|event| std::future::ready(event.is_ok()));
    let (waiting, known) = (Arc::clone(&context), store.clone());
    let triggers = stream::poll_fn(move |context| triggers.poll_recv(context)).inspect(move |reference| {
        if let Some(object) = known.get(reference) {
            queue(&waiting, &object);
        }
    });
    let (waiting, reader) = (Arc::clone(&context), store.clone());
    // The events of a relist come before the store shows them.
    let relists = relists.inspect(move |()| reader.state().iter().for_each(|object| queue(&waiting, object)));
    Controller::for_stream(objects, store)
        .with_config(ControllerConfig::default().concurrency(scope.concurrency))
        .reconcile_on(triggers)
        .reconcile_all_on(relists)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, error, _| match *error {}, context)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Counts the object among those that will be reconciled.
fn queue(context: &Context, object: &CachedApiKey) {
    context.metrics.add_to_queue(&object.namespace().unwrap_or_default(), &object.name_any());
}

fn dequeue(context: &Context, object: &CachedApiKey) {
    context.metrics.remove_from_queue(&object.namespace().unwrap_or_default(), &object.name_any());
}

/// A stream of the receiver's changes.
fn changes(receiver: watch::Receiver<u64>) -> impl futures::Stream<Item = ()> + Send {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

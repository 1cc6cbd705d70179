//! What runs for each account while it is served: turns to get a key, reconciliations after passes and recoveries, orphans.

use super::{
    Context, OrphanHandling,
    orphans::watch_orphans,
    reconcile_after_passes::reconcile_after_passes,
    tasks::{all_end, pass_panic_on},
    triggered::Triggered,
    watch_stream::one_namespace,
};
use crate::{
    api::CachedApiKey,
    boltz::accounts::ServedAccount,
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use kube::runtime::reflector::{ObjectRef, Store};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use tokio::task::{AbortHandle, JoinSet};

/// The objects of one watched namespace, or of all.
#[derive(Clone)]
pub(super) struct Watched {
    pub namespace: String,
    pub objects: Triggered,
}

/// Runs what belongs to each account, from when it is served until it is not any more. Does not end.
pub(super) async fn serve_accounts(context: Arc<Context>, watched: Vec<Watched>, handling: OrphanHandling) {
    let mut changes = context.accounts.changes();
    let mut defaults = context.accounts.default_changes();
    let mut labels = context.accounts.label_changes();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<AccountName, (Arc<ServedAccount>, AbortHandle)> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let accounts = context.accounts.all();
        running.retain(|_, (known, task)| {
            let is_served = accounts.iter().any(|served| Arc::ptr_eq(served, known));
            if !is_served {
                task.abort();
            }
            is_served
        });
        for served in accounts {
            running.entry(served.name().clone()).or_insert_with(|| {
                let handling = handling.clone();
                let work = serve(Arc::clone(&context), Arc::clone(&served), watched.clone(), handling);
                let task = tasks.spawn(work);
                (served, task)
            });
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // Those of accounts that are served are reconciled when their account begins, and new ones in any case.
                let is_unserved = |mark: &ObjectMark| {
                    context.awaited.was_decided(mark)
                        && context.accounts.get(&context.awaited.account_of(mark)).is_none()
                };
                watched.iter().for_each(|watched| watched.objects.reconcile_where(is_unserved));
            }
            // Any object may be one that names no account.
            Ok(()) = defaults.changed() => watched.iter().for_each(|watched| watched.objects.reconcile_where(|_| true)),
            // Who may use an account may have changed there.
            Ok(()) = labels.changed() => {
                let namespaces = context.accounts.take_relabelled();
                watched.iter().for_each(|watched| watched.objects.reconcile_in(&namespaces));
            }
            Some(ended) = tasks.join_next() => pass_panic_on(ended),
        }
    }
}

async fn serve(
    context: Arc<Context>,
    served: Arc<ServedAccount>,
    watched: Vec<Watched>,
    handling: OrphanHandling,
) {
    let mut tasks = JoinSet::new();
    let stores: Vec<Store<CachedApiKey>> =
        watched.iter().map(|watched| watched.objects.store.clone()).collect();
    for Watched { namespace, objects } in watched {
        tasks.spawn(give_turns(Arc::clone(&context), Arc::clone(&served), namespace, objects.clone()));
        tasks.spawn(reconcile_recovered(Arc::clone(&context), Arc::clone(&served), objects.clone()));
        tasks.spawn(reconcile_after_passes(Arc::clone(&context), Arc::clone(&served), objects));
    }
    tasks.spawn(watch_orphans(context, served, stores, handling));
    all_end(&mut tasks).await;
}

/// Reconciles the objects of the account whenever its admin key can be used again.
async fn reconcile_recovered(context: Arc<Context>, served: Arc<ServedAccount>, objects: Triggered) {
    let mut recoveries = served.account.recoveries();
    loop {
        // Those that were there before their account.
        if !served.name().is_of_flags() || recoveries.has_changed().unwrap_or_default() {
            recoveries.borrow_and_update();
            objects.reconcile_where(|mark| context.awaited.uses(mark, served.name()));
        }
        if recoveries.changed().await.is_err() {
            return;
        }
    }
}

/// Reconciles the objects of this namespace, or of all, when their turn to get a key has come.
async fn give_turns(
    context: Arc<Context>,
    served: Arc<ServedAccount>,
    namespace: String,
    objects: Triggered,
) {
    let namespace = one_namespace(&namespace);
    let mut changes = served.account.queue_changes();
    let mut told = HashSet::new();
    loop {
        changes.borrow_and_update();
        let now = context.clock.now().monotonic;
        let (news, next_at) = served.account.turns(namespace, now);
        let news: HashSet<(String, String)> = news.into_iter().collect();
        for (namespace, name) in news.difference(&told) {
            objects.reconcile(ObjectRef::new(name).within(namespace));
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

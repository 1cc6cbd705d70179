//! Removes the state of objects that the caches do not show any more.

use super::{
    Context, ObjectState,
    context::Latest,
    object_gone::{forget_needs, revoke_unreported_keys},
    observe,
    reconcile::reconcile_object,
};
use crate::{
    api::CachedApiKey,
    observability::watches::Resource,
    plan::{Answer, ObjectFacts, Slot, Step},
};
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the state of deleted objects is cleaned up.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(10);

fn forget_uid(context: &Context, uid: &str) {
    context.states().remove(uid);
    forget_needs(context, uid);
}

/// Removes the state of objects that the caches do not show any more: of deleted ones once all their keys are revoked, of
/// ones that do not match the label selector any more once nothing depends on this process.
pub(super) async fn cleanup_deleted(
    context: Arc<Context>,
    stores: Vec<Store<CachedApiKey>>,
    has_selector: bool,
) {
    loop {
        tokio::time::sleep(CLEANUP_INTERVAL).await;
        context.watches.forget_old_failures(Instant::now());
        let alive: HashSet<String> =
            stores.iter().flat_map(Store::state).filter_map(|object| object.uid()).collect();
        let exists = |namespace: &str, name: &str| {
            let reference = ObjectRef::new(name).within(namespace);
            stores.iter().any(|store| store.get(&reference).is_some())
        };
        context.metrics.keep_queued(exists);
        let unseen: Vec<(String, Arc<tokio::sync::Mutex<ObjectState>>)> = context
            .states()
            .iter()
            .filter(|(uid, _)| !alive.contains(*uid))
            .map(|(uid, state)| (uid.clone(), Arc::clone(state)))
            .collect();
        for (uid, shared) in unseen {
            let mut state = shared.lock().await;
            if state.is_forgettable() {
                context.states().remove(&uid);
                continue;
            }
            let Some(latest) = state.latest.as_ref().map(Latest::open) else { continue };
            let latest = observe::object_facts(&latest);
            let (namespace, name) = (latest.namespace.clone(), latest.name.clone());
            // A namespace whose objects could not be listed yet says nothing about them.
            if !context.watches.has_synced(&namespace, Resource::ApiKeys) {
                continue;
            }
            let mut facts = observe::from_latest(&context, latest);
            observe::refresh(&context, &mut state, &mut facts);
            let now = context.clock.now().monotonic;
            let waits = |slot| state.memory.trouble(&slot, now).is_some();
            let unreported_keys = state.memory.unreported_keys(!facts.object.owns_its_secret());
            let all_wait =
                !unreported_keys.is_empty() && unreported_keys.into_iter().map(Slot::Revoke).all(waits);
            if all_wait || waits(Slot::Read) {
                continue;
            }
            let step = Step::ReadLive;
            let read = context.kubernetes.get_object(&namespace, &name).await;
            let (answer, left) = match read {
                Ok(Some(read)) if read.uid().as_ref() == Some(&uid) => (Answer::Stale, Some(read)),
                Ok(_) => (Answer::Gone, None),
                Err(error) => (Answer::ApiFailed(error.failure()), None),
            };
            let effects = state.apply(&step, answer, &facts, &context);
            if let Some(left) = left.filter(|_| has_selector) {
                // No key is lost whose value only this process has.
                if state.memory.unreported_keys(false).is_empty() {
                    leave(&context, &uid, &shared, &facts.object);
                } else {
                    drop(state);
                    // It is stored, or revoked after its window.
                    reconcile_object(&Arc::new(left.into()), &context).await;
                }
                continue;
            }
            if !effects.is_gone {
                continue;
            }
            if revoke_unreported_keys(&context, &mut state, &facts).await {
                forget_uid(&context, &uid);
                let recreated = stores.iter().flat_map(Store::state).any(|object| {
                    object.name_any() == name && object.namespace().as_ref() == Some(&namespace)
                });
                if !recreated {
                    context.metrics.forget(&namespace, &name);
                }
            }
        }
    }
}

/// An object left the label selector: another installation may serve it.
fn leave(context: &Context, uid: &str, shared: &Arc<tokio::sync::Mutex<ObjectState>>, object: &ObjectFacts) {
    let mut states = context.states();
    // One is in the map, one is ours: no reconciliation waits for it, because the object has come back.
    if Arc::strong_count(shared) > 2 {
        return;
    }
    states.remove(uid);
    drop(states);
    forget_needs(context, uid);
    context.metrics.forget(&object.namespace, &object.name);
    tracing::info!(
        namespace = object.namespace,
        name = object.name,
        "the object does not match --label-selector any more; this operator does not serve it"
    );
}

//! Cleanup after deleted objects: keys that only this process knows, process memory, metrics.

use super::{Context, ObjectState, execute::revoke_key, observe};
use crate::{
    api::WatchedApiKey,
    plan::{Answer, Effects, Facts, RevokeReason, Slot, Step},
};
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::Store},
};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// How often the state of deleted objects is cleaned up.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(10);

fn forget(context: &Context, facts: &Facts) {
    context.states().remove(&facts.object.uid);
    context.account.object_gone(&facts.object.uid, context.clock.now().monotonic);
    context.metrics.forget(&facts.object.namespace, &facts.object.name);
}

/// Handles a deleted object.
pub(super) async fn on_object_gone(context: &Context, state: &mut ObjectState, facts: &Facts) -> Action {
    if revoke_unreported_keys(context, state, facts).await {
        forget(context, facts);
    }
    Action::await_change()
}

/// Rule 9: revokes keys of a deleted object that only this process knows. Returns whether all are revoked.
async fn revoke_unreported_keys(context: &Context, state: &mut ObjectState, facts: &Facts) -> bool {
    let mut facts = facts.clone();
    observe::refresh(context, state, &mut facts);
    let is_retained = !facts.object.owns_its_secret();
    let now = context.clock.now().monotonic;
    let is_blocked = context.account.calls_blocked(now).is_some();
    for key_id in state.memory.unreported_keys(is_retained) {
        if is_blocked || state.memory.trouble(&Slot::Revoke(key_id.clone()), now).is_some() {
            continue;
        }
        let answer = revoke_key(context, &key_id, RevokeReason::NotStored).await;
        let step = Step::Revoke { key_id, reason: RevokeReason::NotStored };
        let effects = state.apply(&step, answer, &facts, context);
        // An event about a deleted object is of no use.
        context.publish(&facts.object, &Effects { events: Vec::new(), ..effects });
        context.inventory.request_pass_since(now);
    }
    state.memory.unreported_keys(is_retained).is_empty()
}

/// Removes the state of deleted objects, once all their keys are revoked.
pub(super) async fn cleanup_deleted(context: &Context, stores: &[Store<WatchedApiKey>]) {
    loop {
        tokio::time::sleep(CLEANUP_INTERVAL).await;
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
            let Some(latest) = state.latest.clone().map(Arc::new) else { continue };
            let facts = observe::from_caches(context, &mut state, &latest);
            let now = context.clock.now().monotonic;
            let waits = |slot| state.memory.trouble(&slot, now).is_some();
            let unreported_keys = state.memory.unreported_keys(!facts.object.owns_its_secret());
            let all_wait =
                !unreported_keys.is_empty() && unreported_keys.into_iter().map(Slot::Revoke).all(waits);
            if all_wait || waits(Slot::Read) {
                continue;
            }
            let step = Step::ReadLive;
            let answer = match context.kubernetes.get_object(&state.namespace, &state.name).await {
                Ok(read) if read.as_ref().and_then(ResourceExt::uid).as_ref() == Some(&uid) => Answer::Stale,
                Ok(_) => Answer::Gone,
                Err(error) => Answer::ApiFailed(error.failure()),
            };
            let effects = state.apply(&step, answer, &facts, context);
            if !effects.is_gone {
                continue;
            }
            if revoke_unreported_keys(context, &mut state, &facts).await {
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

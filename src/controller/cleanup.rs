//! What is left of objects that are gone: keys that nobody else knows of, memory, metrics.

use super::{Context, ObjectState};
use crate::{
    api::{DeletionPolicy, WatchedApiKey, annotations::DELETION_POLICY_ANNOTATION},
    kubernetes::error::KubernetesError,
    plan::Facts,
};
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::Store},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
/// How often what was remembered of objects that are gone is tidied away.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(10);

fn forget(context: &Context, facts: &Facts) {
    context.states().remove(&facts.object.uid);
    context.metrics.forget(&facts.object.namespace, &facts.object.name);
}

/// The object is gone.
pub(super) async fn on_object_gone(
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

/// Lets go of what was remembered of objects that are gone, once no key of theirs is left behind.
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

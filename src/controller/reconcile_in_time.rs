//! Wake-ups that are far away.
//!
//! kube's scheduler holds two references to an object for each wake-up, with their texts. Most objects wait for weeks. Here,
//! a far wake-up is one number, and is given to the scheduler shortly before its time.

use super::Context;
use crate::{api::CachedApiKey, plan::Monotonic, protocol::marker::ObjectMark};
use kube::{
    ResourceExt,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// How often the far wake-ups are looked at.
const INTERVAL: Duration = Duration::from_secs(60);
/// A wake-up is far if it is more than this away: two looks come before it.
const FAR: Duration = Duration::from_secs(150);

/// Requeues the object at that time.
pub(super) fn requeue_at(context: &Context, object: ObjectMark, wake_at: Option<Monotonic>) -> Action {
    let wait = wake_at.map(|at| at.since(context.clock.now().monotonic));
    context.set_far_wake_up(object, wake_at.filter(|_| wait > Some(FAR)));
    match wait {
        Some(wait) if wait <= FAR => Action::requeue(wait),
        _ => Action::await_change(),
    }
}

/// Reconciles the objects of one store whose wake-up is not far any more. Their next decision sets the timer.
pub(super) async fn reconcile_in_time(
    context: Arc<Context>,
    store: Store<CachedApiKey>,
    trigger: mpsc::UnboundedSender<ObjectRef<CachedApiKey>>,
) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let near = context.clock.now().monotonic.plus(FAR);
        for object in store.state() {
            let mark = ObjectMark::from_uid(&object.uid().unwrap_or_default());
            if context.far_wake_up(&mark).is_some_and(|at| at <= near) {
                // Fails only if the controller has stopped.
                let _ = trigger.send(ObjectRef::from_obj(object.as_ref()));
            }
        }
    }
}

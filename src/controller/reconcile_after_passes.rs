//! Which objects are reconciled after a pass over Boltz's list: those to which it may matter.

use super::Context;
use crate::{api::CachedApiKey, boltz::snapshot::Snapshot, protocol::marker::ObjectMark};
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reconciles the objects of one store after each pass: all that are not quiet, and those of which the pass shows something
/// new.
pub(super) async fn reconcile_after_passes(
    context: Arc<Context>,
    store: Store<CachedApiKey>,
    trigger: mpsc::UnboundedSender<ObjectRef<CachedApiKey>>,
) {
    let mut completions = context.inventory.completions();
    let mut last: Option<Arc<Snapshot>> = None;
    // The sender lives as long as the context.
    while completions.changed().await.is_ok() {
        let Some(newest) = context.inventory.snapshots().into_iter().next() else { continue };
        let changed = last.as_ref().and_then(|last| newest.changes_since(last));
        for object in store.state() {
            let mark = ObjectMark::from_uid(&object.uid().unwrap_or_default());
            let shows_nothing_new = changed.as_ref().is_some_and(|changed| !changed.contains(&mark));
            if !(shows_nothing_new && context.is_quiet(&mark)) {
                // Fails only if the controller has stopped.
                let _ = trigger.send(ObjectRef::from_obj(object.as_ref()));
            }
        }
        last = Some(newest);
    }
}

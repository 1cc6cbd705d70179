//! Which objects are reconciled after a pass over Boltz's list: those to which it may matter.

use super::{Context, triggered::Triggered};
use crate::boltz::snapshot::Snapshot;
use std::sync::Arc;

/// Reconciles the objects of one store after each pass: all that are not quiet, and those of which the pass shows something
/// new.
pub(super) async fn reconcile_after_passes(context: Arc<Context>, objects: Triggered) {
    let mut completions = context.inventory.completions();
    let mut last: Option<Arc<Snapshot>> = None;
    // The sender lives as long as the context.
    while completions.changed().await.is_ok() {
        let Some(newest) = context.inventory.snapshots().into_iter().next() else { continue };
        let changed = last.as_ref().and_then(|last| newest.changes_since(last));
        objects.reconcile_where(|mark| {
            let shows_nothing_new = changed.as_ref().is_some_and(|changed| !changed.contains(mark));
            !(shows_nothing_new && context.awaited.is_quiet(mark))
        });
        last = Some(newest);
    }
}

//! Which objects are reconciled after a pass over Boltz's list: those to which it may matter.

use super::{Context, triggered::Triggered};
use crate::boltz::snapshot::Snapshot;
use std::sync::Arc;

/// Reconciles the objects of one store after each pass: all that are not quiet, and those of which the pass shows something
/// new. Those that wait for a list that cannot be read are reconciled to say so.
pub(super) async fn reconcile_after_passes(context: Arc<Context>, objects: Triggered) {
    let mut completions = context.inventory.completions();
    let mut failing = context.inventory.list_failing_changes();
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        // The senders live as long as the context.
        tokio::select! {
            Ok(()) = completions.changed() => {}
            Ok(()) = failing.changed() => {
                objects.reconcile_where(|mark| !context.awaited.is_quiet(mark));
                continue;
            }
            else => return,
        }
        let Some(newest) = context.inventory.snapshots().into_iter().next() else { continue };
        let changed = last.as_ref().and_then(|last| newest.changes_since(last));
        objects.reconcile_where(|mark| {
            let shows_nothing_new = changed.as_ref().is_some_and(|changed| !changed.contains(mark));
            !(shows_nothing_new && context.awaited.is_quiet(mark))
        });
        last = Some(newest);
    }
}

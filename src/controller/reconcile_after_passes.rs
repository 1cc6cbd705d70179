//! Which objects are reconciled after a pass over Boltz's list: those to which it may matter.

use super::{Context, triggered::Triggered};
use crate::{
    boltz::{accounts::ServedAccount, snapshot::Snapshot},
    protocol::marker::ObjectMark,
};
use std::sync::Arc;

/// Reconciles the objects of one store that use this account after each of its passes: all that are not quiet, and those of
/// which the pass shows something new. Those that wait for a list that cannot be read are reconciled to say so.
pub(super) async fn reconcile_after_passes(
    context: Arc<Context>,
    served: Arc<ServedAccount>,
    objects: Triggered,
) {
    let inventory = &served.inventory;
    let is_awaited =
        |mark: &ObjectMark| context.awaited.uses(mark, served.name()) && !context.awaited.is_quiet(mark);
    let mut completions = inventory.completions();
    let mut failing = inventory.list_failing_changes();
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        // The senders live as long as the context.
        tokio::select! {
            Ok(()) = completions.changed() => {}
            Ok(()) = failing.changed() => {
                objects.reconcile_where(is_awaited);
                continue;
            }
            else => return,
        }
        let Some(newest) = inventory.snapshots().into_iter().next() else { continue };
        let changed = last.as_ref().and_then(|last| newest.changes_since(last));
        objects.reconcile_where(|mark| {
            let shows_nothing_new = changed.as_ref().is_some_and(|changed| !changed.contains(mark));
            context.awaited.uses(mark, served.name())
                && !(shows_nothing_new && context.awaited.is_quiet(mark))
        });
        last = Some(newest);
    }
}

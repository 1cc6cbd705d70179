//! What follows when an object is gone: keys that only this process knows are revoked, and it waits for nothing any more.

use super::{
    Context, ObjectState,
    execute::revoke_key,
    observe,
    step_log::{ExecutedStep, next_reconcile_id},
};
use crate::{
    boltz::request_id,
    plan::{Effects, Facts, RevokeReason, Slot, Step},
    protocol::marker::ObjectMark,
};
use kube::runtime::controller::Action;

/// It needs no key and refers to none.
pub(super) fn forget_needs(context: &Context, uid: &str) {
    let mark = ObjectMark::from_uid(uid);
    context.accounts.object_gone(uid, context.clock.now().monotonic);
    context.accounts.all().iter().for_each(|served| served.forget(&mark));
    context.awaited.forget(mark);
}

/// Handles a deleted object. Its state stays until the caches do not show it any more: a reconciliation that was asked for
/// before would take it for a new object.
pub(super) async fn on_object_gone(context: &Context, state: &mut ObjectState, facts: &Facts) -> Action {
    if revoke_unreported_keys(context, state, facts).await {
        state.set_gone(context.relists(&facts.object.namespace), context.clock.now().monotonic);
        forget_needs(context, &facts.object.uid);
        context.metrics.forget(&facts.object.namespace, &facts.object.name);
    }
    Action::await_change()
}

/// Rule 9: revokes keys of a deleted object that only this process knows. Returns whether all are revoked.
pub(super) async fn revoke_unreported_keys(
    context: &Context,
    state: &mut ObjectState,
    facts: &Facts,
) -> bool {
    let mut facts = facts.clone();
    observe::refresh(context, state, &mut facts);
    let is_retained = !facts.object.owns_its_secret();
    let now = context.clock.now().monotonic;
    let served = context.account_of(&facts);
    let served = served.filter(|served| served.account.calls_blocked(now).is_none());
    for key_id in state.memory.unreported_keys(is_retained) {
        let Some(served) = &served else { break };
        if state.memory.trouble(&Slot::Revoke(key_id.clone()), now).is_some() {
            continue;
        }
        context.activity.enter(&facts.object.uid, "Revoke");
        let began = context.clock.now().monotonic;
        let revoking = revoke_key(context, served, &key_id, RevokeReason::NotStored);
        let (answer, request_id) = request_id::recorded(revoking).await;
        let took = context.clock.now().monotonic.since(began);
        let step = Step::Revoke { key_id, reason: RevokeReason::NotStored };
        let executed = ExecutedStep::new(&facts, next_reconcile_id(), &step, &answer, took, request_id);
        let effects = state.apply(&step, answer, &facts, context);
        // An event about a deleted object is of no use.
        context.publish(&executed, &Effects { events: Vec::new(), ..effects });
        served.inventory.request_pass_since(now);
    }
    state.memory.unreported_keys(is_retained).is_empty()
}

//! The loop: observe, decide, execute, until there is nothing left to do.

use super::{
    Context, ObjectState,
    execute::execute,
    object_gone::on_object_gone,
    observe,
    reconcile_in_time::requeue_at,
    step_log::{ExecutedStep, next_reconcile_id},
};
use crate::{
    api::{BoltzApiKeyStatus, CachedApiKey, DeletionPolicy},
    boltz::{accounts::ServedAccount, request_id},
    observability::{metrics::ObjectGauges, watches::Resource},
    plan::{AccountFacts, Facts, Plan, Reason, RotationSchedule, Step, desired_status, plan},
    protocol::marker::ObjectMark,
};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};
use std::{convert::Infallible, sync::Arc, time::Duration};

/// Maximum number of steps per reconciliation; the next one continues.
const MAX_STEPS: usize = 64;

/// After this time the next reconciliation continues: it sees what users changed meanwhile, and others have their turn.
const LONGEST: Duration = Duration::from_secs(10);

/// One reconciliation. It does not fail: only steps fail, and the plan retries them.
pub(super) async fn reconcile(
    cached: Arc<CachedApiKey>,
    context: Arc<Context>,
) -> Result<Action, Infallible> {
    let started = context.clock.now().monotonic;
    let action = reconcile_object(&cached, &context).await;
    context.metrics.observe_reconcile(context.clock.now().monotonic.since(started));
    Ok(action)
}

pub(super) async fn reconcile_object(cached: &Arc<CachedApiKey>, context: &Context) -> Action {
    let Ok(_permit) = context.permits.acquire().await else { return Action::await_change() };
    let namespace = cached.namespace().unwrap_or_default();
    let name = cached.name_any();
    context.metrics.remove_from_queue(&namespace, &name);
    let _in_progress = context.metrics.begin_reconcile();
    let shared = context.state_of(cached);
    let mut state = shared.lock().await;
    if state.is_gone(cached, context.relists(&namespace), context.clock.now().monotonic) {
        return Action::await_change();
    }
    let uid = cached.uid().unwrap_or_default();
    let _in_flight = context.activity.begin(&uid, &namespace, &name);
    if cached.metadata.uid.as_deref().is_some_and(|uid| context.take_freed(uid)) {
        state.memory.lift_secret_troubles();
    }
    // Its Secrets could not be listed yet: what the cache lacks may be there.
    state.memory.must_read |= !context.watches.has_synced(&namespace, Resource::Secrets);
    (state.is_decided, state.has_other_status) = (false, false);
    // A pass that completes from now on is not missed.
    let mark = ObjectMark::from_uid(&uid);
    context.awaited.set_quiet(mark, false);
    let started = context.clock.now().monotonic;
    let mut facts = observe::from_caches(context, &mut state, cached);
    let reconcile_id = next_reconcile_id();
    for _ in 0..MAX_STEPS {
        observe::refresh(context, &mut state, &mut facts);
        let mut decision = plan(&facts, &context.settings, context.clock.now());
        let now = context.clock.now().monotonic;
        let wants = decision.findings.wants_turn;
        // An object that wants no key now may want one after its next step.
        let is_settled = wants.is_some() || decision.step == Step::Wait;
        let served = context.account_of(&facts);
        if is_settled
            && let Some(ServedAccount { account, .. }) = served.as_deref()
            && account.wants_key(&facts.object, wants, now)
        {
            let AccountFacts { stays, policy, .. } = std::mem::take(&mut facts.account);
            facts.account = AccountFacts { stays, policy, ..account.facts(&facts.object, now) };
            decision = plan(&facts, &context.settings, context.clock.now());
            // A turn that is of no use now is for others.
            if decision.step == Step::Wait && decision.findings.wants_turn.is_none() {
                account.wants_key(&facts.object, None, now);
            }
        }
        if decision.step == Step::Wait {
            state.is_decided = !state.has_other_status;
            set_gauges(context, &state, &facts, &decision);
            return requeue(context, &facts, &decision);
        }
        if matches!(decision.step, Step::WriteStatus(_)) {
            // All duties are decided on. Those that fail may leave no time to wait.
            set_gauges(context, &state, &facts, &decision);
        }
        if context.clock.now().monotonic.since(started) >= LONGEST && begins_anew(&decision.step) {
            return Action::requeue(Duration::ZERO);
        }
        context.activity.enter(&uid, (&decision.step).into());
        let began = context.clock.now().monotonic;
        let executing = execute(context, &mut state, &facts, &decision.step);
        let ((answer, shown), request_id) = request_id::recorded(executing).await;
        let took = context.clock.now().monotonic.since(began);
        let executed = ExecutedStep::new(&facts, reconcile_id, &decision.step, &answer, took, request_id);
        let effects = state.apply(&decision.step, answer, &facts, context);
        context.publish(&executed, &effects);
        context.activity.enter(&uid, "Plan");
        if effects.is_gone {
            return on_object_gone(context, &mut state, &facts).await;
        }
        observe::absorb(context, &mut state, &mut facts, &decision.step, shown);
    }
    tracing::warn!(
        namespace = facts.object.namespace,
        name = facts.object.name,
        "the reconciliation had too many steps; it will be continued"
    );
    Action::requeue(Duration::from_secs(10))
}

/// Whether the step does not depend on what the steps before it found out for this reconciliation: another one may begin
/// with it.
fn begins_anew(step: &Step) -> bool {
    !matches!(
        step,
        Step::WriteStatus(_)
            | Step::WriteAttempt { .. }
            | Step::Mint(_)
            | Step::Store { .. }
            | Step::Revoke { .. }
    )
}

/// Nothing to do now: requeues.
fn requeue(context: &Context, facts: &Facts, decision: &Plan) -> Action {
    if let (Some(since), Some(served)) = (decision.pass_since, context.account_of(facts)) {
        served.inventory.request_pass_since(since);
    }
    let mark = ObjectMark::from_uid(&facts.object.uid);
    context.awaited.set_quiet(mark, facts.is_quiet(&context.settings, decision));
    requeue_at(context, mark, decision.wake_at)
}

fn set_gauges(context: &Context, state: &ObjectState, facts: &Facts, decision: &Plan) {
    let latest = state.latest.as_ref();
    let metadata = latest.map(|object| object.metadata());
    let deleted_at = metadata.and_then(|metadata| metadata.deletion_timestamp.as_ref());
    let created_at = metadata.and_then(|metadata| metadata.creation_timestamp.as_ref());
    let status = desired_status(facts, &context.settings, context.clock.now(), &decision.findings);
    let mut gauges = gauges(facts, decision, &status, deleted_at.map(|time| time.0));
    // A key that replaced others may be new: then the object's age says how long none was used.
    let first_key_at = if status.rotations.unwrap_or_default() == 0 { gauges.created_at } else { None };
    gauges.in_use_since = gauges.last_used_at.max(first_key_at.or(created_at.map(|time| time.0)));
    context.metrics.set_object(&facts.object.namespace, &facts.object.name, gauges);
}

fn gauges(
    facts: &Facts,
    decision: &Plan,
    status: &BoltzApiKeyStatus,
    deleted_at: Option<Timestamp>,
) -> ObjectGauges {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let is_ready = status.is_ready();
    // On purpose: must not raise an alert.
    let on_purpose = [Reason::Suspended, Reason::Paused].map(Reason::as_str);
    let is_on_purpose =
        !is_ready && ready.is_some_and(|condition| on_purpose.contains(&condition.reason.as_str()));
    let reported = status.last_used_at.as_ref().map(|time| time.0);
    let has_key = status.key_id.is_some();
    let schedule = facts.object.spec.as_ref().ok().and_then(|spec| RotationSchedule::read(spec).ok());
    // Also while it is suspended.
    let renewal_at = schedule
        .zip(facts.record())
        // The first time since it was due: a window that passed does not make it punctual.
        .and_then(|(schedule, record)| Some(schedule.renewal(record, Timestamp::MIN)?.at));
    // A rotation that has to wait for the end of an overlap is not late.
    let postponed = decision.findings.postponed.map(|(_, until)| until);
    // Without our finalizer, others hold the object.
    let keys_go =
        facts.object.has_finalizer && facts.object.effective_deletion_policy() == Ok(DeletionPolicy::Revoke);
    let overdue = decision.findings.overdue.iter().filter_map(|key| key.since);
    ObjectGauges {
        ready: (!is_on_purpose).then_some(is_ready),
        reason: ready.map(|condition| condition.reason.clone()).unwrap_or_default(),
        active: status.is_active.unwrap_or_default(),
        created_at: status.created_at.as_ref().map(|time| time.0),
        expires_at: status.expires_at.as_ref().map(|time| time.0),
        renewal_at: renewal_at.map(|at| postponed.map_or(at, |until| at.max(until))),
        last_used_at: facts.newest_use().max(reported).filter(|_| has_key),
        in_use_since: None,
        previous_keys: status.previous_keys.len(),
        is_previous_key_used: !decision.findings.still_used.is_empty(),
        // A pause is meant, and nothing of a deleted object is of use.
        restarts_unfinished: match facts.object.is_paused || facts.object.deleting {
            true => 0,
            false => facts.unfinished_restarts().len(),
        },
        is_paused: facts.object.is_paused && !facts.object.deleting,
        overdue_since: overdue.chain(deleted_at.filter(|_| keys_go)).min(),
    }
}

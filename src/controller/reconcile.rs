//! The loop: observe, decide, execute, until there is nothing to do now.

use super::{
    Context,
    cleanup::on_object_gone,
    execute::{Outcome, execute},
    observe,
};
use crate::{
    api::{BoltzApiKeyStatus, WatchedApiKey},
    backoff,
    kubernetes::error::KubernetesError,
    observability::metrics::ObjectGauges,
    plan::{Facts, Plan, Step, desired_status, plan},
};
use kube::{ResourceExt, runtime::controller::Action};
use std::{sync::Arc, time::Duration};
/// More steps than any sane chain of decisions has; the next reconciliation goes on.
const MAX_STEPS: usize = 64;
/// How many live reads one reconciliation makes before it waits: a write that is refused again and again must not spin.
const MAX_READS: usize = 16;

/// The loop: observe, decide, execute, until there is nothing to do now.
pub(super) async fn reconcile(
    cached: Arc<WatchedApiKey>,
    context: Arc<Context>,
) -> Result<Action, KubernetesError> {
    let started = context.clock.now().monotonic;
    let result = reconcile_object(&cached, &context).await;
    context.metrics.reconciled(context.clock.now().monotonic.since(started), result.is_ok());
    result
}

async fn reconcile_object(cached: &Arc<WatchedApiKey>, context: &Context) -> Result<Action, KubernetesError> {
    let Ok(_permit) = context.permits.acquire().await else { return Ok(Action::await_change()) };
    let _in_progress = context.metrics.reconciling();
    let shared = context.state_of(cached);
    let mut state = shared.lock().await;
    let mut facts = observe::from_caches(context, &mut state, cached).await?;
    let mut reads = 0;
    for _ in 0..MAX_STEPS {
        observe::refresh(context, &mut state, &mut facts);
        let now = context.clock.now();
        let decision = plan(&facts, &context.settings, now);
        let outcome = match decision.step {
            Step::Wait => {
                state.errors = 0;
                return Ok(requeue(context, &facts, &decision));
            }
            // Rule 8: only what a live read confirms is revoked.
            Step::Revoke { .. } if !facts.live => Outcome::ReadAgain,
            step => execute(context, &mut state, &mut facts, step).await?,
        };
        match outcome {
            Outcome::Done => {}
            Outcome::ReadAgain if reads == MAX_READS => {
                state.errors = state.errors.saturating_add(1);
                return Ok(Action::requeue(backoff::delay(state.errors, None)));
            }
            Outcome::ReadAgain => match observe::live(context, &mut state, &facts.object).await? {
                Some(read) => {
                    reads += 1;
                    facts = read;
                }
                None => return on_object_gone(context, &mut state, &facts).await,
            },
            Outcome::Gone => {
                return on_object_gone(context, &mut state, &facts).await;
            }
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Nothing to do now: shows the object in the metrics and says when to look again.
fn requeue(context: &Context, facts: &Facts, decision: &Plan) -> Action {
    let now = context.clock.now();
    if let Some(since) = decision.pass_since {
        context.inventory.want_pass_since(since);
    }
    let status = desired_status(facts, &context.settings, now, &decision.findings);
    context.metrics.set_object(&facts.object.namespace, &facts.object.name, &gauges(&status));
    match decision.wake_at {
        Some(at) => Action::requeue(at.since(now.monotonic)),
        None => Action::await_change(),
    }
}

fn gauges(status: &BoltzApiKeyStatus) -> ObjectGauges {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let is_ready = ready.is_some_and(|condition| condition.status == "True");
    // Nobody wants to be woken up because of it.
    let is_on_purpose = !is_ready && ready.is_some_and(|condition| condition.reason == "Suspended");
    ObjectGauges {
        ready: (!is_on_purpose).then_some(is_ready),
        active: status.is_active.unwrap_or_default(),
        expires_at: status.expires_at.as_ref().map(|time| time.0),
        renewal_at: status.renewal_time.as_ref().map(|time| time.0),
        last_used_at: status.last_used_at.as_ref().map(|time| time.0),
        previous_keys: status.previous_keys.len(),
        revocation_blocked: ready.is_some_and(|condition| condition.reason == "RevocationBlocked"),
    }
}

pub(super) fn error_policy(
    object: Arc<WatchedApiKey>,
    error: &KubernetesError,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(
        namespace = object.namespace(),
        name = object.name_any(),
        error = error as &dyn std::error::Error,
        "a reconciliation failed and is tried again"
    );
    let shared = context.state_of(&object);
    let failures = match shared.try_lock() {
        Ok(mut state) => {
            state.errors = state.errors.saturating_add(1);
            state.errors
        }
        Err(_) => 1,
    };
    Action::requeue(backoff::delay(failures, None))
}

//! Permission for each call to Boltz, and what its result pauses.

use super::{
    Account,
    share::{Slot, Slots},
    workspace,
};
use crate::{
    boltz::{
        BoltzError,
        breaker::Scope,
        limiter::{LIMITED, LONGEST_WAIT, rate_limit_block},
    },
    clock::Clock,
    plan::{Block, BoltzErrorKind, Effect, Monotonic, Reason, backoff::MAX_RETRY_AFTER},
    retry_delay,
};
use std::time::Duration;

/// A call that is allowed. Report its result with `Account::succeeded` or `Account::failed`.
#[derive(Debug)]
pub struct Call {
    scope: Scope,
    began: Monotonic,
    /// The object whose turn it uses.
    uid: Option<String>,
    _revocation: Option<Slot>,
}

impl Account {
    /// The object's turn is used for a call that creates a key. `None`: it is not its turn.
    pub(crate) fn create_call(&self, uid: &str, now: Monotonic) -> Option<Call> {
        let mut state = self.lock();
        // Facts are older than the call.
        let is_unknown = self.organization.lock().mints_blocked().is_some();
        if is_unknown || self.is_admin_key_new() || !state.has_turn(uid, now) {
            return None;
        }
        let scope = workspace(&state.queue.begin(uid)?.waiter);
        Some(Call { scope, began: now, uid: Some(uid.to_owned()), _revocation: None })
    }

    /// Allows a revocation, or a check of a key, after at most a second. The error says until when it has to wait.
    pub(crate) async fn short_call(&self, clock: Clock) -> Result<Call, Block> {
        // Those that hang must leave room for other work.
        let permit = Slots::take(&self.revocations);
        let permit = permit.ok_or_else(|| rate_limit_block(clock.now().monotonic.plus(LONGEST_WAIT)))?;
        let call = self.call(Scope::Revocations, clock, LONGEST_WAIT).await?;
        Ok(Call { _revocation: Some(permit), ..call })
    }

    /// Allows one call of the list, when all others may be made as well. Waits for it.
    pub(crate) async fn list_call(&self, clock: Clock) -> Call {
        let mut recoveries = self.recovered.subscribe();
        let since = clock.now().monotonic;
        loop {
            // Page after page, a list would otherwise take every call that a limit allows.
            let has_waited = clock.now().monotonic.since(since) >= LONGEST_WAIT;
            let longest = if has_waited { Duration::MAX } else { Duration::ZERO };
            let block = match self.call(Scope::List, clock, longest).await {
                Ok(call) => return call,
                Err(block) => block,
            };
            let recovered = recoveries.changed();
            match block.until {
                Some(until) => {
                    let _ = tokio::time::timeout_at(clock.instant(until), recovered).await;
                }
                None => {
                    let _ = recovered.await;
                }
            }
        }
    }

    async fn call(&self, scope: Scope, clock: Clock, longest: Duration) -> Result<Call, Block> {
        let now = clock.now().monotonic;
        let at = {
            let mut state = self.lock();
            if let Some(block) = state.calls_blocked(now) {
                return Err(block);
            }
            let next_at = state.limiter.next_at();
            if next_at.since(now) > longest {
                return Err(rate_limit_block(next_at));
            }
            let at = state.limiter.take(now);
            state.breaker.enter(&scope, at);
            at
        };
        tokio::time::sleep_until(clock.instant(at)).await;
        let state = self.lock();
        if state.breaker.is_paused_since(&scope, at, at) {
            return Err(state.calls_blocked(at).unwrap_or_else(|| rate_limit_block(at)));
        }
        Ok(Call { scope, began: at, uid: None, _revocation: None })
    }

    /// Call after a successful call.
    pub(crate) fn record_success(&self, call: &Call, now: Monotonic) {
        let mut state = self.lock();
        state.breaker.record_success(&call.scope, call.began, now);
        if let Some(uid) = &call.uid {
            state.queue.end(uid, true);
        }
        self.queue_changed(state, now);
    }

    /// Call after a failed call. What it pauses depends on the failure; otherwise every object would repeat it.
    pub fn record_failure(&self, call: &Call, error: &BoltzError, now: Monotonic) {
        let mut state = self.lock();
        if let Some(uid) = &call.uid {
            state.queue.end(uid, error.effect() != Effect::None);
        }
        match error.kind() {
            // Boltz answers.
            BoltzErrorKind::Invalid | BoltzErrorKind::Refused => {
                state.breaker.record_success(&call.scope, call.began, now);
            }
            // It may concern one workspace only. The check of the admin key decides.
            BoltzErrorKind::Unauthorized if !error.is_invalid_key() => {
                state.breaker.record_success(&call.scope, call.began, now);
                self.check.notify_one();
            }
            kind @ (BoltzErrorKind::RateLimited
            | BoltzErrorKind::Unavailable
            | BoltzErrorKind::Unauthorized) => {
                let (reason, message, scope) = match (kind, error) {
                    (BoltzErrorKind::RateLimited, _) => {
                        let wait = error.retry_after().unwrap_or(LONGEST_WAIT).min(MAX_RETRY_AFTER);
                        state.limiter.record_rate_limit(call.began, now.plus(wait));
                        (Reason::RateLimited, LIMITED.to_owned(), &Scope::Account)
                    }
                    // Any call may be answered so. Whether the admin key is valid, its check shows.
                    (BoltzErrorKind::Unauthorized, _) => {
                        self.check.notify_one();
                        let message = format!("Boltz rejects calls with the operator's admin key: {error}.");
                        (Reason::BoltzUnauthorized, message, &call.scope)
                    }
                    // Nothing was sent, so no workspace is the cause.
                    (_, BoltzError::Connect(_)) => (Reason::BoltzUnavailable, fails(error), &Scope::Account),
                    _ => (Reason::BoltzUnavailable, fails(error), &call.scope),
                };
                let block = Block { reason, message, until: None };
                let wait = |failures| retry_delay::delay(failures, error.retry_after());
                let was_reported = state.breaker.reported_block(scope).is_some();
                state.breaker.record_failure(scope, call.began, now, &block, wait);
                if !was_reported && state.breaker.reported_block(scope).is_some() {
                    state.queue.remind();
                }
            }
        }
        self.queue_changed(state, now);
    }
}

fn fails(error: &BoltzError) -> String {
    format!("Calls to Boltz fail: {error}. The operator will retry.")
}

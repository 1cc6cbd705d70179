//! The state of the Boltz organization: client, validity of the admin key, pauses, limits, and whose turn it is to get a
//! new key.

use super::{
    breaker::{Breaker, Scope},
    limiter::Limiter,
    organization::{Organization, Remembered},
    queue::MintQueue,
    waiters::Waiter,
};
use crate::{
    api::Mode,
    backoff,
    boltz::{AuthMe, BoltzClient, BoltzError},
    clock::Clock,
    observability::metrics::Metrics,
    plan::{
        AccountFacts, Block, BoltzErrorKind, Effect, Monotonic, ObjectFacts, Reason, backoff::MAX_RETRY_AFTER,
    },
    protocol::record::IssueReason,
};
use parking_lot::{Mutex, MutexGuard};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// A call may wait this long for the limit of calls, and hold up its object. Before a longer wait, the object does other
/// things.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The limits of new keys per minute.
#[derive(Clone, Copy, Debug)]
pub struct MintLimits {
    /// For all objects together.
    pub per_minute: u32,
    /// For each namespace; `None`: no limit.
    pub per_namespace: Option<u32>,
    /// How many objects of one namespace, or of one workspace, may be about to get a key at the same time; and how many
    /// revocations.
    pub at_once: usize,
}

/// One Boltz organization.
#[derive(Debug)]
pub struct Account {
    client: BoltzClient,
    limits: MintLimits,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Whose keys these are.
    organization: Mutex<Organization>,
    /// Changes when something is to be remembered.
    remembered: watch::Sender<u64>,
    /// Whether the admin key was checked at least once, and whether what is remembered was read.
    prepared: watch::Sender<(bool, bool)>,
    /// Changes with the admin key. Waiting objects are then reconciled.
    recovered: watch::Sender<u64>,
    /// Changes with the queue.
    queued: watch::Sender<u64>,
    revocations: Arc<Semaphore>,
    /// Requests a check of the admin key.
    check: Notify,
}

#[derive(Debug)]
struct State {
    admin_key: AdminKey,
    /// The server has no `auth/me`.
    lacks_auth_me: bool,
    limiter: Limiter,
    breaker: Breaker,
    queue: MintQueue,
}

/// What is known about the admin key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AdminKey {
    /// Valid, or not checked yet.
    Usable,
    /// Can create test-mode keys only.
    TestMode,
    /// Rejected by Boltz, or not an admin key.
    Refused(String),
}

/// It is not known whether the admin key belongs to the remembered organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not known whether the admin key belongs to the remembered organization")]
pub(crate) struct UnknownOrganization;

/// A call that is allowed. Report its result with `Account::succeeded` or `Account::failed`.
#[derive(Debug)]
pub struct Call {
    scope: Scope,
    began: Monotonic,
    /// The object whose turn it uses.
    uid: Option<String>,
    _revocation: Option<OwnedSemaphorePermit>,
}

impl State {
    /// Why Boltz must not be called at all.
    fn calls_blocked(&self, now: Monotonic) -> Option<Block> {
        match &self.admin_key {
            AdminKey::Refused(message) => {
                Some(Block { reason: Reason::BoltzUnauthorized, message: message.clone(), until: None })
            }
            AdminKey::Usable | AdminKey::TestMode => self.breaker.closed(&Scope::Account, now),
        }
    }

    /// Gives turns, as many as there may be now.
    fn advance(&mut self, now: Monotonic) {
        for turn in self.queue.lost(now) {
            self.breaker.withdraw(&workspace(&turn.waiter), turn.began);
        }
        while self.calls_blocked(now).is_none() && self.limiter.next_at() <= now {
            let Self { breaker, queue, .. } = self;
            let is_open = |workspace: Option<&str>| {
                breaker.closed(&Scope::Workspace(workspace.map(str::to_owned)), now).is_none()
            };
            let Some(waiter) = queue.grant(now, is_open) else { return };
            breaker.enter(&workspace(waiter), now);
            self.limiter.take(now);
        }
    }

    /// Whether it is the object's turn. A turn is postponed when calls are paused after it was given.
    fn has_turn(&mut self, uid: &str, now: Monotonic) -> bool {
        let is_refused = matches!(self.admin_key, AdminKey::Refused(_));
        let Some(turn) = self.queue.turn(uid, now) else { return false };
        let is_closed = is_refused || self.breaker.closed_since(&workspace(&turn.waiter), turn.began, now);
        if is_closed {
            self.queue.postpone(uid);
        }
        !is_closed
    }

    fn leave(&mut self, uid: &str) {
        if let Some(turn) = self.queue.leave(uid) {
            self.breaker.withdraw(&workspace(&turn.waiter), turn.began);
        }
    }
}

fn workspace(waiter: &Waiter) -> Scope {
    Scope::Workspace(waiter.workspace.clone())
}

fn workspace_of(object: &ObjectFacts) -> Option<String> {
    object.spec.as_ref().ok()?.workspace_id.clone().filter(|id| !id.is_empty())
}

impl Account {
    /// An account whose admin key has not been checked yet.
    pub fn new(client: BoltzClient, limits: MintLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            limits,
            metrics,
            state: Mutex::new(State {
                admin_key: AdminKey::Usable,
                lacks_auth_me: false,
                limiter: Limiter::default(),
                breaker: Breaker::default(),
                queue: MintQueue::new(limits, Monotonic::default()),
            }),
            organization: Mutex::default(),
            remembered: watch::Sender::new(0),
            prepared: watch::Sender::new((false, true)),
            recovered: watch::Sender::new(0),
            queued: watch::Sender::new(0),
            revocations: Arc::new(Semaphore::new(limits.at_once)),
            check: Notify::new(),
        }
    }

    /// The client.
    pub fn client(&self) -> &BoltzClient {
        &self.client
    }

    /// A new leader begins with an empty queue and a tenth of the tokens.
    pub(crate) fn lead(&self, now: Monotonic) {
        self.lock().queue = MintQueue::new(self.limits, now);
    }

    /// Changes with the admin key.
    pub(crate) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// Why Boltz must not be called at all.
    pub(crate) fn calls_blocked(&self, now: Monotonic) -> Option<Block> {
        self.lock().calls_blocked(now)
    }

    /// The facts for this object.
    pub fn facts(&self, object: &ObjectFacts, now: Monotonic) -> AccountFacts {
        let mut state = self.lock();
        let has_turn = state.has_turn(&object.uid, now);
        let mode = object.spec.as_ref().map_or(Mode::default(), |spec| spec.mode);
        let organization = self.organization.lock();
        let names_altered = organization.remembered().and_then(|remembered| remembered.names_altered.clone());
        let names_altered =
            names_altered.map(|message| Block { reason: Reason::NamesAltered, message, until: None });
        let mints_blocked = (state.admin_key == AdminKey::TestMode && mode == Mode::Live).then(|| Block {
            reason: Reason::BoltzUnauthorized,
            message: "The operator's admin key is a test-mode key. It cannot create live keys.".to_owned(),
            until: None,
        });
        let busy_until = Some(state.limiter.next_at()).filter(|at| at.since(now) > LONGEST_WAIT);
        let calls_blocked = state.calls_blocked(now);
        let turn_blocked = (!has_turn).then(|| {
            let refused = calls_blocked.clone().filter(|block| block.until.is_none());
            let paused = state.breaker.reported(&Scope::Workspace(workspace_of(object))).cloned();
            let is_paused = state.breaker.closed(&Scope::Workspace(workspace_of(object)), now).is_some();
            let is_short =
                !is_paused && state.limiter.next_at() <= now && state.queue.is_short(&object.namespace, now);
            refused.or(paused).unwrap_or_else(|| if is_short { being_issued() } else { wait_for_turn() })
        });
        // A turn includes the permission to call.
        let calls_blocked = calls_blocked.or_else(|| busy_until.map(limited)).filter(|_| !has_turn);
        AccountFacts {
            calls_blocked,
            mints_blocked: mints_blocked.or(names_altered),
            lacks_auth_me: state.lacks_auth_me,
            organization: organization.current().cloned(),
            turn_blocked,
        }
    }

    /// Boltz gave a new key another name than requested: no more keys are created.
    pub(crate) fn mark_names_altered(&self, requested: &str, name: &str) {
        let message = format!(
            "Boltz changes the names of keys: it named a key \"{name}\" instead of \"{requested}\". Without the name, a \
             key whose response is lost could not be found again. No keys are issued. When Boltz keeps names, restart the \
             operator with --retry-altered-names."
        );
        tracing::error!("{message}");
        self.organization.lock().set_names_altered(Some(message));
        self.remembered.send_modify(|count| *count += 1);
    }

    /// What the operator remembers has to be read before it is known whether the admin key belongs to the organization.
    #[must_use]
    pub(crate) fn unread(self, accepted_organization: Option<String>, retry_altered_names: bool) -> Self {
        let organization = Organization::unread(accepted_organization, retry_altered_names);
        Self { organization: Mutex::new(organization), ..self }
    }

    /// What the operator remembers was read.
    pub(crate) fn remember(&self, remembered: Remembered) {
        if self.organization.lock().remember(remembered) {
            self.remembered.send_modify(|count| *count += 1);
        }
        self.compare_organization();
        self.prepared.send_modify(|(_, is_read)| *is_read = true);
    }

    /// What is to be remembered, once it was read.
    pub(crate) fn remembered(&self) -> Option<Remembered> {
        self.organization.lock().remembered().cloned()
    }

    /// Changes when something is to be remembered.
    pub(crate) fn remembered_changes(&self) -> watch::Receiver<u64> {
        self.remembered.subscribe()
    }

    /// The number of active keys in the newest pass that was believed.
    pub(crate) fn set_active_keys(&self, count: usize) {
        if self.organization.lock().set_active_keys(count) {
            self.remembered.send_modify(|count| *count += 1);
        }
    }

    /// The organization whose list a pass shows; `None` if Boltz never said it.
    pub(crate) fn organization(&self) -> Result<Option<String>, UnknownOrganization> {
        let organization = self.organization.lock();
        if organization.is_unclear() { Err(UnknownOrganization) } else { Ok(organization.current().cloned()) }
    }

    /// Another leader may have written what is remembered: it has to be read again.
    pub(crate) fn reread(&self) {
        self.organization.lock().reread();
        self.prepared.send_modify(|(_, is_read)| *is_read = false);
    }

    /// Waits until the admin key was checked once, with whatever result, and until what is remembered was read.
    pub(crate) async fn until_prepared(&self) {
        // The sender lives as long as the account.
        let _ = self.prepared.subscribe().wait_for(|(is_checked, is_read)| *is_checked && *is_read).await;
    }

    /// The admin key of another organization must not be used.
    fn compare_organization(&self) {
        let result = self.organization.lock().compare();
        match result {
            Ok(true) => self.remembered.send_modify(|count| *count += 1),
            Ok(false) => {}
            Err(message) => self.set_admin_key(AdminKey::Refused(message)),
        }
    }

    /// The object wants a key for this reason, or no key. Returns whether its turn has come just now.
    pub fn wants_key(&self, object: &ObjectFacts, reason: Option<IssueReason>, now: Monotonic) -> bool {
        let mut state = self.lock();
        let Some(reason) = reason else {
            state.leave(&object.uid);
            self.queue_changed(state, now);
            return false;
        };
        if state.has_turn(&object.uid, now) {
            return false;
        }
        state.queue.join(Waiter {
            uid: object.uid.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            workspace: workspace_of(object),
            class: reason.into(),
        });
        state.advance(now);
        let has_turn = state.has_turn(&object.uid, now);
        self.queue_changed(state, now);
        has_turn
    }

    /// The object with this UID is gone.
    pub(crate) fn object_gone(&self, uid: &str, now: Monotonic) {
        let mut state = self.lock();
        state.leave(uid);
        self.queue_changed(state, now);
    }

    /// The names of the objects in this namespace, or in all, who have news; and when
    /// to look again.
    pub(crate) fn turns(
        &self,
        namespace: Option<&str>,
        now: Monotonic,
    ) -> (Vec<(String, String)>, Option<Monotonic>) {
        let mut state = self.lock();
        state.advance(now);
        let news = state.queue.with_news().filter(|waiter| namespace.is_none_or(|it| it == waiter.namespace));
        let news = news.map(|waiter| (waiter.namespace.clone(), waiter.name.clone())).collect();
        let limiter = Some(state.limiter.next_at()).filter(|at| *at > now);
        let times = [state.queue.next_at(now), state.breaker.next_at(now), limiter];
        (news, times.into_iter().flatten().min().filter(|_| state.queue.len() > 0))
    }

    /// Changes with the queue.
    pub(crate) fn queue_changes(&self) -> watch::Receiver<u64> {
        self.queued.subscribe()
    }

    fn queue_changed(&self, mut state: MutexGuard<'_, State>, now: Monotonic) {
        state.advance(now);
        self.metrics.set_waiting(state.queue.len());
        let has_news = state.queue.len() > 0 || state.queue.with_news().next().is_some();
        drop(state);
        if has_news {
            self.queued.send_modify(|count| *count += 1);
        }
    }

    /// The object's turn is used for a call that creates a key. `None`: it is not its turn.
    pub(crate) fn create_call(&self, uid: &str, now: Monotonic) -> Option<Call> {
        let mut state = self.lock();
        if !state.has_turn(uid, now) {
            return None;
        }
        let scope = workspace(&state.queue.begin(uid)?.waiter);
        Some(Call { scope, began: now, uid: Some(uid.to_owned()), _revocation: None })
    }

    /// Allows a revocation, or a check of a key, after at most a second. The error says until when it has to wait.
    pub(crate) async fn short_call(&self, clock: Clock) -> Result<Call, Block> {
        // Those that hang must leave room for other work.
        let permit = Arc::clone(&self.revocations).try_acquire_owned();
        let permit = permit.map_err(|_| limited(clock.now().monotonic.plus(LONGEST_WAIT)))?;
        let call = self.call(Scope::Revocations, clock, LONGEST_WAIT).await?;
        Ok(Call { _revocation: Some(permit), ..call })
    }

    /// Allows one call of the list, when all others may be made as well. Waits for it.
    pub(crate) async fn list_call(&self, clock: Clock) -> Call {
        let mut recoveries = self.recovered.subscribe();
        loop {
            let block = match self.call(Scope::List, clock, Duration::MAX).await {
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
                return Err(limited(next_at));
            }
            let at = state.limiter.take(now);
            state.breaker.enter(&scope, at);
            at
        };
        tokio::time::sleep_until(clock.instant(at)).await;
        let state = self.lock();
        if state.breaker.closed_since(&scope, at, at) {
            return Err(state.calls_blocked(at).unwrap_or_else(|| limited(at)));
        }
        Ok(Call { scope, began: at, uid: None, _revocation: None })
    }

    /// Call after a successful call.
    pub(crate) fn succeeded(&self, call: &Call, now: Monotonic) {
        let mut state = self.lock();
        state.breaker.succeeded(&call.scope, call.began, now);
        if let Some(uid) = &call.uid {
            state.queue.end(uid, true);
        }
        self.queue_changed(state, now);
    }

    /// Call after a failed call. What it pauses depends on the failure; otherwise every object would repeat it.
    pub fn failed(&self, call: &Call, error: &BoltzError, now: Monotonic) {
        let mut state = self.lock();
        if let Some(uid) = &call.uid {
            state.queue.end(uid, error.effect() != Effect::None);
        }
        match error.kind() {
            // Boltz answers.
            BoltzErrorKind::Invalid | BoltzErrorKind::Refused => {
                state.breaker.succeeded(&call.scope, call.began, now);
            }
            BoltzErrorKind::Unauthorized => {
                // A 403 may concern one workspace only. The check of the admin key decides.
                if error.status() == Some(401) {
                    state.admin_key =
                        AdminKey::Refused(format!("Boltz rejected the operator's admin key: {error}."));
                    self.metrics.set_admin_key_valid(false);
                }
                self.check.notify_one();
                state.breaker.succeeded(&call.scope, call.began, now);
            }
            kind @ (BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable) => {
                let (reason, message, scope) = match (kind, error) {
                    (BoltzErrorKind::RateLimited, _) => {
                        let wait = error.retry_after().unwrap_or(LONGEST_WAIT).min(MAX_RETRY_AFTER);
                        state.limiter.limited(call.began, now.plus(wait));
                        (Reason::RateLimited, LIMITED.to_owned(), &Scope::Account)
                    }
                    // Nothing was sent, so it is nobody's fault.
                    (_, BoltzError::Connect(_)) => (Reason::BoltzUnavailable, fails(error), &Scope::Account),
                    _ => (Reason::BoltzUnavailable, fails(error), &call.scope),
                };
                let block = Block { reason, message, until: None };
                let wait = |failures| backoff::delay(failures, error.retry_after());
                let was_reported = state.breaker.reported(scope).is_some();
                state.breaker.failed(scope, call.began, now, &block, wait);
                if !was_reported && state.breaker.reported(scope).is_some() {
                    state.queue.remind();
                }
            }
        }
        self.queue_changed(state, now);
    }

    /// Checks the admin key at start, whenever it changes, and while Boltz refuses it.
    pub async fn watch_admin_key(&self, mut key: watch::Receiver<Option<SecretString>>) {
        let mut refusals = 0;
        loop {
            let present = key.borrow_and_update().is_some();
            let verdict = if present {
                self.check_admin_key().await
            } else {
                Ok(AdminKey::Refused(
                    "The operator has no admin key: the file of --admin-key-file is missing or empty."
                        .to_owned(),
                ))
            };
            self.prepared.send_modify(|(is_checked, _)| *is_checked = true);
            let retry = match verdict {
                Ok(admin_key) => {
                    refusals = if matches!(admin_key, AdminKey::Refused(_)) { refusals + 1 } else { 0 };
                    self.set_admin_key(admin_key);
                    (refusals > 0).then(|| backoff::delay(refusals, None))
                }
                // Not known whether the key is valid. Other calls will show it.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "failed to check the admin key");
                    Some(backoff::delay(5, error.retry_after()))
                }
            };
            let again = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => {
                        self.check.notified().await;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            tokio::select! {
                () = again => {}
                changed = key.changed() => if changed.is_err() { return },
            }
        }
    }

    /// `Err`: the check failed, so the result is unknown.
    async fn check_admin_key(&self) -> Result<AdminKey, BoltzError> {
        let answer = match self.client.auth_me().await {
            Ok(Some(me)) => {
                self.lock().lacks_auth_me = false;
                let verdict = judge(&me);
                let mut organization = self.organization.lock();
                organization.said(me.organization_id);
                return Ok(match organization.compare() {
                    Err(message) => AdminKey::Refused(message),
                    Ok(is_new) => {
                        if is_new {
                            self.remembered.send_modify(|count| *count += 1);
                        }
                        verdict
                    }
                });
            }
            // A server without auth/me: only an admin key may list the keys.
            Ok(None) => {
                self.lock().lacks_auth_me = true;
                self.organization.lock().said(None);
                self.client.list_keys(None, None).await.map(|_| AdminKey::Usable)
            }
            Err(error) => Err(error),
        };
        match answer {
            Err(error) if error.kind() == BoltzErrorKind::Unauthorized => {
                Ok(AdminKey::Refused(format!("Boltz rejected the operator's admin key: {error}.")))
            }
            other => other,
        }
    }

    fn set_admin_key(&self, admin_key: AdminKey) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.admin_key, admin_key.clone());
        drop(state);
        self.metrics.set_admin_key_valid(admin_key == AdminKey::Usable);
        if before == admin_key {
            return;
        }
        match &admin_key {
            AdminKey::Usable => tracing::info!("Boltz accepted the admin key"),
            AdminKey::TestMode => {
                tracing::warn!("the admin key is a test-mode key; no live keys can be created");
            }
            AdminKey::Refused(message) => {
                tracing::error!(
                    "{message} No keys are issued or revoked until a valid admin key is provided."
                )
            }
        }
        self.recovered.send_modify(|count| *count += 1);
        self.queued.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

const LIMITED: &str = "Boltz limits the request rate. The operator will retry.";

fn limited(until: Monotonic) -> Block {
    Block { reason: Reason::RateLimited, message: LIMITED.to_owned(), until: Some(until) }
}

fn fails(error: &BoltzError) -> String {
    format!("Calls to Boltz fail: {error}. The operator will retry.")
}

fn being_issued() -> Block {
    Block { reason: Reason::Pending, message: "A key is being issued.".to_owned(), until: None }
}

fn wait_for_turn() -> Block {
    Block {
        reason: Reason::MintBudgetExceeded,
        message: "Other objects are first. The number of new keys per minute is limited \
                  (--max-mints-per-minute, --max-mints-per-namespace)."
            .to_owned(),
        until: None,
    }
}

fn judge(me: &AuthMe) -> AdminKey {
    if me.key_type != "admin" {
        AdminKey::Refused(format!(
            "The operator's admin key is a key of type {}. Only a key of type admin can create and revoke keys.",
            me.key_type
        ))
    } else if me.mode.as_deref() == Some("test") {
        AdminKey::TestMode
    } else {
        AdminKey::Usable
    }
}

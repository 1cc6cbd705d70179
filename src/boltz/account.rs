//! The state of the Boltz organization: client, validity of the admin key, pauses, budget.

use super::{
    budget::Budget,
    organization::{Organization, Remembered},
};
use crate::{
    api::Mode,
    backoff,
    boltz::{AuthMe, BoltzClient, BoltzError},
    clock::Clock,
    observability::metrics::Metrics,
    plan::{AccountFacts, Block, BoltzErrorKind, Monotonic, Reason},
};
use parking_lot::{Mutex, MutexGuard};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

/// One Boltz organization.
#[derive(Debug)]
pub struct Account {
    client: BoltzClient,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Whose keys these are.
    organization: Mutex<Organization>,
    /// Changes when something is to be remembered.
    remembered: watch::Sender<u64>,
    /// Whether the admin key was checked at least once, and whether what is remembered was read.
    prepared: watch::Sender<(bool, bool)>,
    /// Changes when calls are possible again. Waiting objects are then reconciled.
    recovered: watch::Sender<u64>,
    /// Requests a check of the admin key.
    check: Notify,
}

#[derive(Debug)]
struct State {
    admin_key: AdminKey,
    /// The server has no `auth/me`.
    lacks_auth_me: bool,
    failures: u32,
    paused: Option<Block>,
    budget: Budget,
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

impl Account {
    /// An account whose admin key has not been checked yet.
    pub fn new(client: BoltzClient, mints_per_minute: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            state: Mutex::new(State {
                admin_key: AdminKey::Usable,
                lacks_auth_me: false,
                failures: 0,
                paused: None,
                budget: Budget::new(mints_per_minute),
            }),
            organization: Mutex::default(),
            remembered: watch::Sender::new(0),
            prepared: watch::Sender::new((false, true)),
            recovered: watch::Sender::new(0),
            check: Notify::new(),
        }
    }

    /// The client.
    pub fn client(&self) -> &BoltzClient {
        &self.client
    }

    /// Changes when calls are possible again.
    pub(crate) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// The facts for an object with keys of this mode.
    pub fn facts(&self, mode: Mode) -> AccountFacts {
        let state = self.lock();
        let calls_blocked = match &state.admin_key {
            AdminKey::Refused(message) => {
                Some(Block { reason: Reason::BoltzUnauthorized, message: message.clone(), until: None })
            }
            AdminKey::Usable | AdminKey::TestMode => state.paused.clone(),
        };
        let organization = self.organization.lock();
        let names_altered = organization.remembered().and_then(|remembered| remembered.names_altered.clone());
        let names_altered =
            names_altered.map(|message| Block { reason: Reason::NamesAltered, message, until: None });
        let mints_blocked = (state.admin_key == AdminKey::TestMode && mode == Mode::Live).then(|| Block {
            reason: Reason::BoltzUnauthorized,
            message: "The operator's admin key is a test-mode key. It cannot create live keys.".to_owned(),
            until: None,
        });
        AccountFacts {
            calls_blocked,
            mints_blocked: mints_blocked.or(names_altered),
            lacks_auth_me: state.lacks_auth_me,
            organization: organization.current().cloned(),
        }
    }

    /// Takes one key from the budget. The error says when the next one is available.
    pub(crate) fn take_mint(&self, now: Monotonic) -> Result<(), Block> {
        self.lock().budget.take(now).map_err(|until| Block {
            reason: Reason::MintBudgetExceeded,
            message: "The limit of new keys per minute (--max-mints-per-minute) is reached.".to_owned(),
            until: Some(until),
        })
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

    /// The organization whose list a pass shows. The error: it is not known whether it is the right one.
    pub(crate) fn organization(&self) -> Result<Option<String>, ()> {
        let organization = self.organization.lock();
        if organization.is_unclear() { Err(()) } else { Ok(organization.current().cloned()) }
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

    /// Call after a successful call.
    pub(crate) fn succeeded(&self) {
        let mut state = self.lock();
        state.failures = 0;
        if state.paused.take().is_some() {
            drop(state);
            self.recovered.send_modify(|count| *count += 1);
        }
    }

    /// Call after a failed call. Failures that affect all calls pause all calls; otherwise every object would repeat the
    /// failure.
    pub fn failed(&self, error: &BoltzError, now: Monotonic) {
        let mut state = self.lock();
        match error.kind() {
            BoltzErrorKind::Invalid | BoltzErrorKind::Refused => {}
            BoltzErrorKind::Unauthorized => {
                // A 403 may concern one workspace only. The check of the admin key decides.
                if error.status() == Some(401) {
                    state.admin_key =
                        AdminKey::Refused(format!("Boltz rejected the operator's admin key: {error}."));
                    self.metrics.set_admin_key_valid(false);
                }
                drop(state);
                self.check.notify_one();
            }
            kind @ (BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable) => {
                state.failures = state.failures.saturating_add(1);
                let until = now.plus(backoff::delay(state.failures, error.retry_after()));
                let (reason, message) = match kind {
                    BoltzErrorKind::RateLimited => {
                        (Reason::RateLimited, "Boltz limits the request rate".to_owned())
                    }
                    _ => (Reason::BoltzUnavailable, format!("Calls to Boltz fail: {error}")),
                };
                let message = format!("{message}. The operator will retry.");
                state.paused = Some(Block { reason, message, until: Some(until) });
            }
        }
    }

    pub(crate) async fn until_callable(&self, clock: Clock) {
        let mut recoveries = self.recovered.subscribe();
        loop {
            let Some(block) = self.facts(Mode::Test).calls_blocked else { return };
            let recovered = recoveries.changed();
            match block.until {
                Some(until) if until <= clock.now().monotonic => return,
                Some(until) => {
                    let _ = tokio::time::timeout_at(clock.instant(until), recovered).await;
                }
                None => {
                    let _ = recovered.await;
                }
            }
        }
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
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
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

//! Everything that belongs to one Boltz organization: client, inventory, health of the admin key, pauses, budget.

use crate::{
    api::Mode,
    backoff,
    boltz::{AuthMe, BoltzClient, BoltzError, BoltzErrorKind},
    clock::Clock,
    inventory::Inventory,
    metrics::Metrics,
    plan::{AccountFacts, Block, Monotonic, Reason},
};
use secrecy::SecretString;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// One Boltz organization.
#[derive(Debug)]
pub struct Account {
    client: BoltzClient,
    inventory: Inventory,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Changes when calls become possible again: everything that waits is then worth another look.
    recovered: watch::Sender<u64>,
    /// Asks for the admin key to be checked now.
    check: Notify,
}

#[derive(Debug)]
struct State {
    admin_key: AdminKey,
    failures: u32,
    paused: Option<Block>,
    budget: Budget,
}

/// What is known about the admin key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AdminKey {
    /// Not checked yet, or nothing against it.
    Usable,
    /// It can make test keys only.
    TestMode,
    /// Boltz does not take it for what it is needed for.
    Refused(String),
}

impl Account {
    /// An account whose admin key has not been checked yet.
    pub fn new(
        client: BoltzClient,
        inventory: Inventory,
        mints_per_minute: u32,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            inventory,
            metrics,
            state: Mutex::new(State {
                admin_key: AdminKey::Usable,
                failures: 0,
                paused: None,
                budget: Budget::new(mints_per_minute),
            }),
            recovered: watch::Sender::new(0),
            check: Notify::new(),
        }
    }

    /// The client.
    pub fn client(&self) -> &BoltzClient {
        &self.client
    }

    /// The shared snapshot of Boltz's list.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Changes when calls become possible again.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// What an object that wants keys of this mode has to know.
    pub fn facts(&self, mode: Mode) -> AccountFacts {
        let state = self.lock();
        let calls_blocked = match &state.admin_key {
            AdminKey::Refused(message) => {
                Some(Block { reason: Reason::BoltzUnauthorized, message: message.clone(), until: None })
            }
            AdminKey::Usable | AdminKey::TestMode => state.paused.clone(),
        };
        let mints_blocked = (state.admin_key == AdminKey::TestMode && mode == Mode::Live).then(|| Block {
            reason: Reason::BoltzUnauthorized,
            message: "The operator's admin key is in test mode; live keys need a live one.".to_owned(),
            until: None,
        });
        AccountFacts { calls_blocked, mints_blocked }
    }

    /// Takes one mint from the budget, or says when there is one.
    pub fn take_mint(&self, now: Monotonic) -> Result<(), Block> {
        self.lock().budget.take(now).map_err(|until| Block {
            reason: Reason::MintBudgetExceeded,
            message: "The operator's limit of new keys per minute (--max-mints-per-minute) is reached."
                .to_owned(),
            until: Some(until),
        })
    }

    /// A call was answered as it should be.
    pub fn succeeded(&self) {
        let mut state = self.lock();
        state.failures = 0;
        if state.paused.take().is_some() {
            drop(state);
            self.recovered.send_modify(|count| *count += 1);
        }
    }

    /// A call failed. What concerns every call pauses them all: one object after the other finding out would hammer.
    pub fn failed(&self, error: &BoltzError, now: Monotonic) {
        let mut state = self.lock();
        match error.kind() {
            BoltzErrorKind::Rejected => {}
            BoltzErrorKind::Unauthorized => {
                // A 403 may concern one object's workspace only: the check of the key itself tells.
                if error.status() == Some(401) {
                    state.admin_key =
                        AdminKey::Refused(format!("Boltz refuses the operator's admin key: {error}."));
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
                        (Reason::RateLimited, "Boltz asks to slow down".to_owned())
                    }
                    _ => (Reason::BoltzUnavailable, format!("Boltz does not answer as it should: {error}")),
                };
                let message = format!("{message}. The operator tries again.");
                state.paused = Some(Block { reason, message, until: Some(until) });
            }
        }
    }

    /// Waits until calls are possible.
    pub async fn until_callable(&self, clock: Clock) {
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
                    "The operator has no admin key: its file is missing or empty.".to_owned(),
                ))
            };
            let retry = match verdict {
                Ok(admin_key) => {
                    refusals = if matches!(admin_key, AdminKey::Refused(_)) { refusals + 1 } else { 0 };
                    self.set_admin_key(admin_key);
                    (refusals > 0).then(|| backoff::delay(refusals, None))
                }
                // Whether the key is good is not known; the calls themselves will tell.
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the admin key could not be checked"
                    );
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

    /// `Err`: it could not be found out.
    async fn check_admin_key(&self) -> Result<AdminKey, BoltzError> {
        let answer = match self.client.auth_me().await {
            Ok(Some(me)) => return Ok(judge(&me)),
            // A server without auth/me: the list, which only an admin key may read, tells as much.
            Ok(None) => self.client.list_keys(None).await.map(|_| AdminKey::Usable),
            Err(error) => Err(error),
        };
        match answer {
            Err(error) if error.kind() == BoltzErrorKind::Unauthorized => {
                Ok(AdminKey::Refused(format!("Boltz refuses the operator's admin key: {error}.")))
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
            AdminKey::Usable => tracing::info!("Boltz takes the admin key"),
            AdminKey::TestMode => {
                tracing::warn!("the admin key is in test mode: objects that ask for live keys get none");
            }
            AdminKey::Refused(message) => {
                tracing::error!("{message} Nothing is issued or revoked until it is mended.")
            }
        }
        self.recovered.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(me: &AuthMe) -> AdminKey {
    if me.key_type != "admin" {
        AdminKey::Refused(format!(
            "The operator's key is a {} key of Boltz; it needs an admin key, which alone can create and revoke keys.",
            me.key_type
        ))
    } else if me.mode.as_deref() == Some("test") {
        AdminKey::TestMode
    } else {
        AdminKey::Usable
    }
}

/// The global limit on new keys: a token bucket that holds a tenth of a minute's worth, at least one.
#[derive(Debug)]
struct Budget {
    spacing: Duration,
    /// When the bucket will be full again (the generic cell rate algorithm's theoretical arrival time).
    full_at: Monotonic,
    burst: Duration,
}

impl Budget {
    fn new(per_minute: u32) -> Self {
        let spacing = Duration::from_secs(60) / per_minute.max(1);
        Self { spacing, full_at: Monotonic::default(), burst: spacing * (per_minute / 10).max(1) }
    }

    /// Takes one, or says when there will be one.
    fn take(&mut self, now: Monotonic) -> Result<(), Monotonic> {
        let full_at = self.full_at.max(now).plus(self.spacing);
        if full_at.since(now) > self.burst {
            return Err(full_at.minus(self.burst));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_lets_a_burst_and_then_the_rate_pass() {
        let mut budget = Budget::new(600);
        let now = Monotonic(Duration::from_secs(5));
        assert_eq!((0..100).filter(|_| budget.take(now).is_ok()).count(), 60);
        let again = budget.take(now).unwrap_err();
        assert_eq!(again.since(now), Duration::from_millis(100));
        assert!(budget.take(again).is_ok());
        assert!(budget.take(again).is_err());
    }

    #[test]
    fn the_smallest_budget_lets_one_pass() {
        let mut budget = Budget::new(1);
        assert!(budget.take(Monotonic::default()).is_ok());
        assert_eq!(budget.take(Monotonic::default()), Err(Monotonic(Duration::from_secs(60))));
    }
}

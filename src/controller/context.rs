//! What reconciliations share, and what this process remembers of each object.

use crate::{
    api::WatchedApiKey,
    boltz::{account::Account, inventory::Inventory},
    clock::Clock,
    kubernetes::{client::Kubernetes, events::Events, secret_index::SecretIndex},
    observability::metrics::Metrics,
    plan::{Memory, Settings},
    protocol::marker::AttemptId,
};
use kube::ResourceExt;
use secrecy::SecretString;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;
/// What every reconciliation shares.
pub struct Context {
    /// The API server.
    pub kubernetes: Kubernetes,
    /// The Boltz organization.
    pub account: Account,
    /// The shared snapshots of Boltz's list.
    pub inventory: Inventory,
    /// The operator's Secrets.
    pub secrets: SecretIndex,
    /// What the plan needs of the configuration.
    pub settings: Settings,
    pub(super) request_timeout: Duration,
    /// The clocks.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The events.
    pub events: Events,
    states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>>,
    pub(super) permits: Semaphore,
}

/// What this process remembers of one object.
#[derive(Default)]
pub struct ObjectState {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) memory: Memory,
    /// The values of keys in hand: from the POST's answer to the write of the Secret.
    pub(super) values: HashMap<AttemptId, SecretString>,
    /// The newest version of the object that a read or an own write showed.
    pub(super) latest: Option<WatchedApiKey>,
    pub(super) mint_failures: u32,
    pub(super) errors: u32,
    pub(super) revoke_failures: u32,
}

impl ObjectState {
    /// The key is revoked, and its value of no use any more.
    pub(super) fn forget_value_of(&mut self, key_id: &str) {
        self.memory.revoked(key_id);
        let in_hand: HashSet<&AttemptId> = self.memory.in_hand().map(|(attempt, _)| attempt).collect();
        self.values.retain(|attempt, _| in_hand.contains(attempt));
    }
}

/// The configuration's times and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the plan needs of it.
    pub settings: Settings,
    /// How long one call to Boltz may take.
    pub request_timeout: Duration,
    /// Objects reconciled at once, over all namespaces.
    pub concurrency: u16,
}

impl Context {
    /// A context that knows nothing yet.
    pub fn new(
        kubernetes: Kubernetes,
        account: Account,
        inventory: Inventory,
        limits: Limits,
        clock: Clock,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Self {
        Self {
            kubernetes,
            account,
            inventory,
            secrets: SecretIndex::default(),
            settings: limits.settings,
            request_timeout: limits.request_timeout,
            clock,
            metrics,
            events,
            states: Mutex::default(),
            permits: Semaphore::new(usize::from(limits.concurrency)),
        }
    }

    pub(super) fn states(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_of(&self, object: &WatchedApiKey) -> Arc<tokio::sync::Mutex<ObjectState>> {
        let state = || {
            Arc::new(tokio::sync::Mutex::new(ObjectState {
                name: object.name_any(),
                namespace: object.namespace().unwrap_or_default(),
                ..ObjectState::default()
            }))
        };
        Arc::clone(self.states().entry(object.uid().unwrap_or_default()).or_insert_with(state))
    }
}

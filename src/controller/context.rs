//! What reconciliations share, and what this process remembers of each object.

use crate::{
    api::WatchedApiKey,
    boltz::{account::Account, inventory::Inventory},
    clock::Clock,
    kubernetes::{client::Kubernetes, events::Events, secret_index::SecretIndex},
    observability::metrics::Metrics,
    plan::{Answer, Count, Effects, EventKind, Facts, ObjectFacts, ProcessMemory, Settings, Step},
    protocol::marker::AttemptId,
};
use kube::ResourceExt;
use rand::RngExt;
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
    /// The UIDs of objects whose Secret's name may have become free.
    freed: Mutex<HashSet<String>>,
    states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>>,
    pub(super) permits: Semaphore,
}

/// What this process remembers of one object.
#[derive(Default)]
pub struct ObjectState {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) memory: ProcessMemory,
    /// The values of keys in hand: from the POST's answer to the write of the Secret.
    pub(super) values: HashMap<AttemptId, SecretString>,
    /// The newest version of the object that a read or an own write showed.
    pub(super) latest: Option<WatchedApiKey>,
}

impl ObjectState {
    /// Takes in an answer, keeps only the values of keys in hand, and says what is to be told.
    pub(super) fn apply(&mut self, step: &Step, answer: Answer, facts: &Facts, context: &Context) -> Effects {
        let jitter = rand::rng().random();
        let effects = self.memory.apply(step, answer, facts, context.clock.now(), &context.settings, jitter);
        let in_hand: HashSet<&AttemptId> = self.memory.in_hand().map(|(attempt, _)| attempt).collect();
        self.values.retain(|attempt, _| in_hand.contains(attempt));
        effects
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
            freed: Mutex::default(),
            states: Mutex::default(),
            permits: Semaphore::new(usize::from(limits.concurrency)),
        }
    }

    /// Passes on what an answer is worth telling.
    pub(super) fn tell(&self, object: &ObjectFacts, effects: &Effects) {
        for count in &effects.counts {
            match *count {
                Count::Issued(reason) => self.metrics.issued(reason),
                Count::Revoked(reason) => self.metrics.revoked(reason),
                Count::StrayRevoked => self.metrics.stray_revoked(),
                Count::IssueFailed(reason) => self.metrics.issue_failed(reason),
                Count::StepFailed => self.metrics.step_failed(),
            }
        }
        for line in &effects.log {
            let (namespace, name, key_id) = (&object.namespace, &object.name, line.key_id.as_deref());
            let (message, detail) = (line.message, &line.detail);
            match line.kind {
                EventKind::Normal => tracing::info!(namespace, name, key_id, detail, "{message}"),
                EventKind::Warning => tracing::warn!(namespace, name, key_id, detail, "{message}"),
            }
        }
        for event in &effects.events {
            self.events.publish(object, event.clone());
        }
    }

    /// The Secret that may stand in the object's way is gone.
    pub(super) fn mark_freed(&self, uid: String) {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
    }

    /// Whether that was said of the object since it was last asked.
    pub(super) fn take_freed(&self, uid: &str) -> bool {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
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

//! What all reconciliations share, and the state of this process for each object.

use super::{awaited::Awaited, step_log::ExecutedStep};
use crate::{
    api::{CachedApiKey, WatchedApiKey},
    boltz::{accounts::Accounts, accounts::ServedAccount, limiter::LONGEST_WAIT},
    clock::Clock,
    kubernetes::{
        client::Kubernetes,
        error::TIMEOUT,
        events::Events,
        secret_index::{SecretIndex, is_newer},
    },
    observability::{
        activity::Activity,
        metrics::Metrics,
        watches::{ALL_NAMESPACES, Watches},
    },
    plan::{Answer, Count, Effects, Facts, Monotonic, ProcessMemory, Settings, Step},
    protocol::marker::AttemptId,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use litemap::LiteMap;
use parking_lot::{Mutex, MutexGuard};
use rand::RngExt;
use secrecy::SecretString;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;

/// The clients, caches and settings that all reconciliations share.
pub struct Context {
    /// All reads and writes of objects, Secrets and workloads.
    pub kubernetes: Kubernetes,
    /// The accounts that are served: all that is known of Boltz, and all calls to it.
    pub accounts: Accounts,
    /// The metadata of all Secrets with our label, by the watch.
    pub(crate) secrets: SecretIndex,
    /// The flags that decisions depend on.
    pub settings: Settings,
    pub(super) request_timeout: Duration,
    /// The wall clock and the monotonic one.
    pub clock: Clock,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The states of the watches.
    pub watches: Arc<Watches>,
    /// Which reconciliations are in progress: for the watchdog.
    pub activity: Arc<Activity>,
    /// Publishes events of objects; repeated ones become a series.
    pub events: Events,
    /// The UIDs of objects whose Secret's name may be free now.
    freed: Mutex<HashSet<String>>,
    pub(super) awaited: Awaited,
    states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>>,
    /// The relists of the watched namespaces' objects.
    relists: Mutex<HashMap<String, Relists>>,
    concurrency: u16,
    pub(super) permits: Semaphore,
}

/// For so long a cache may show an object that is gone.
pub(super) const CACHE_MAY_LAG: Duration = Duration::from_secs(10);

fn version(metadata: &ObjectMeta) -> &str {
    metadata.resource_version.as_deref().unwrap_or_default()
}

/// The relists of one watch on objects, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relists {
    begun: u64,
    done: u64,
}

/// State of this process for one object.
#[derive(Default)]
pub struct ObjectState {
    pub(super) memory: ProcessMemory,
    /// The values of keys in hand, from the response to the POST until the Secret is written.
    pub(super) values: LiteMap<AttemptId, SecretString>,
    /// The newest version of the object.
    pub(super) latest: Option<Latest>,
    /// The last reconciliation has looked at that version, and ended with a decision to wait.
    pub(super) is_decided: bool,
    /// The API server returned another status than the one that was written.
    pub(super) has_other_status: bool,
    /// The object is gone, and every key of it is accounted for: when, and how many relists had begun then. The cache may
    /// still show it for a moment.
    gone: Option<(Monotonic, u64)>,
}

/// The newest version of an object, and where it is from.
#[derive(Clone, Debug)]
pub(super) enum Latest {
    /// The cache has it. If a read or an own write had returned it before: how many relists had begun then; else 0.
    Cached(Arc<CachedApiKey>, u64),
    /// A read or an own write returned it when so many relists had begun. The cache is behind.
    Returned(Box<WatchedApiKey>, u64),
}

impl Latest {
    pub(super) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Cached(object, _) => &object.metadata,
            Self::Returned(object, _) => &object.metadata,
        }
    }

    pub(super) fn open(&self) -> Cow<'_, WatchedApiKey> {
        match self {
            Self::Cached(object, _) => Cow::Owned(object.open()),
            Self::Returned(object, _) => Cow::Borrowed(object),
        }
    }

    fn relists_before(&self) -> u64 {
        match self {
            Self::Cached(_, relists) | Self::Returned(_, relists) => *relists,
        }
    }
}

impl ObjectState {
    /// Takes the object from the cache, unless a read or an own write returned a newer version. A relist wins over what
    /// was returned before it began: if etcd was restored from a backup, versions have become lower.
    /// Returns the newest version.
    pub(super) fn take_cached(&mut self, cached: &Arc<CachedApiKey>, relists: Relists) -> &Latest {
        let is_newer = |known: &Latest| {
            known.metadata().uid == cached.metadata.uid
                && is_newer(version(known.metadata()), version(&cached.metadata))
                && known.relists_before() >= relists.done
        };
        let known = self.latest.take().filter(is_newer);
        self.latest.insert(known.unwrap_or_else(|| Latest::Cached(Arc::clone(cached), 0)))
    }

    /// The object is gone, and every key of it is accounted for.
    pub(super) fn set_gone(&mut self, relists: Relists, now: Monotonic) {
        self.gone = Some((now, relists.begun));
    }

    /// Whether the object is gone, whatever the cache still shows of it. A newer version, a relist that began later and shows
    /// it, or a cache that shows it for long prove that it is not: a gateway may have answered 404.
    pub(super) fn is_gone(&mut self, cached: &CachedApiKey, relists: Relists, now: Monotonic) -> bool {
        let is_known = |known: &Latest| !is_newer(version(&cached.metadata), version(known.metadata()));
        self.gone = self.gone.filter(|(since, begun)| {
            *begun >= relists.done
                && now.since(*since) < CACHE_MAY_LAG
                && self.latest.as_ref().is_some_and(is_known)
        });
        self.gone.is_some()
    }

    /// Whether nothing has to be done for it any more.
    pub(super) fn is_forgettable(&self) -> bool {
        self.gone.is_some()
    }

    /// Takes the object from the cache if it is the version that an own write returned, and nothing was left to do. Returns
    /// whether it was.
    fn take_echo(&mut self, cached: &Arc<CachedApiKey>) -> bool {
        match &self.latest {
            Some(Latest::Returned(known, relists_before))
                if self.is_decided && known.metadata.resource_version == cached.metadata.resource_version =>
            {
                self.latest = Some(Latest::Cached(Arc::clone(cached), *relists_before));
                true
            }
            _ => false,
        }
    }

    /// Takes the object as a read or an own write returned it.
    pub(super) fn take_returned(&mut self, object: WatchedApiKey, relists: Relists) {
        self.latest = Some(Latest::Returned(Box::new(object), relists.begun));
    }

    /// Applies a result to process memory and drops the values of keys that are no longer in hand. Returns the effects.
    pub(super) fn apply(&mut self, step: &Step, answer: Answer, facts: &Facts, context: &Context) -> Effects {
        let jitter = rand::rng().random();
        let effects = self.memory.apply(step, answer, facts, context.clock.now(), &context.settings, jitter);
        let in_hand: HashSet<&AttemptId> = self.memory.in_hand().map(|(attempt, _)| attempt).collect();
        self.values.retain(|attempt, _| in_hand.contains(attempt));
        effects
    }
}

/// Times and numbers from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The flags that decisions depend on.
    pub settings: Settings,
    /// Timeout of one call to Boltz.
    pub request_timeout: Duration,
    /// Maximum number of objects reconciled at the same time, over all namespaces.
    pub concurrency: u16,
}

impl Context {
    /// A context with empty caches.
    pub fn new(
        kubernetes: Kubernetes,
        accounts: Accounts,
        limits: Limits,
        clock: Clock,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Self {
        Self {
            kubernetes,
            accounts,
            secrets: SecretIndex::default(),
            settings: limits.settings,
            request_timeout: limits.request_timeout,
            clock,
            watches: Arc::new(Watches::new(Arc::clone(&metrics))),
            activity: Arc::default(),
            metrics,
            events,
            freed: Mutex::default(),
            awaited: Awaited::default(),
            states: Mutex::default(),
            relists: Mutex::default(),
            concurrency: limits.concurrency,
            permits: Semaphore::new(usize::from(limits.concurrency)),
        }
    }

    /// The account that the object uses, if it is served.
    pub(super) fn account_of(&self, facts: &Facts) -> Option<Arc<ServedAccount>> {
        self.accounts.get(&facts.account.name)
    }

    /// Publishes counters, log lines and events.
    pub(super) fn publish(&self, executed: &ExecutedStep<'_>, effects: &Effects) {
        for count in &effects.counts {
            match *count {
                Count::Issued(reason) => self.metrics.count_issued(reason),
                Count::Revoked(reason) => self.metrics.count_revoked(reason),
                Count::StrayRevoked => self.metrics.count_stray_revoked(),
                Count::IssueFailed(reason) => self.metrics.count_issue_failed(reason),
                Count::RevokeFailed(reason) => self.metrics.count_revoke_failed(reason),
                Count::StepFailed => self.metrics.count_step_failed(),
            }
        }
        executed.log(&effects.log);
        for event in &effects.events {
            self.events.publish(executed.object, executed.account, event.clone());
        }
    }

    /// A relist of the objects begins.
    pub(super) fn relist_begins(&self, namespace: &str) {
        self.relists.lock().entry(namespace.to_owned()).or_default().begun += 1;
    }

    /// The relist is complete, and the cache shows it.
    pub(super) fn relist_is_done(&self, namespace: &str) {
        let mut relists = self.relists.lock();
        let known = relists.entry(namespace.to_owned()).or_default();
        known.done = known.begun;
    }

    /// The relists of the watch that covers this namespace.
    pub(super) fn relists(&self, namespace: &str) -> Relists {
        let relists = self.relists.lock();
        relists.get(namespace).or_else(|| relists.get(ALL_NAMESPACES)).copied().unwrap_or_default()
    }

    /// Waits until no reconciliation runs: an aborted one ends where it waits next.
    pub async fn until_idle(&self) {
        // The semaphore is never closed.
        let _ = self.permits.acquire_many(u32::from(self.concurrency)).await;
    }

    /// The sum of the timeouts of the calls of any step: two to the API server, one to Boltz after a wait for the limiter.
    pub(crate) fn calls_of_a_step(&self) -> Duration {
        TIMEOUT * 2 + LONGEST_WAIT + self.request_timeout
    }

    /// Marks that the name of the object's Secret may be free now.
    pub(super) fn mark_freed(&self, uid: String) {
        self.freed.lock().insert(uid);
    }

    /// Returns and removes the mark.
    pub(super) fn take_freed(&self, uid: &str) -> bool {
        self.freed.lock().remove(uid)
    }

    /// Whether a watch event is the echo of an own write, after which there was nothing left to do.
    pub(super) fn is_echo(&self, cached: &Arc<CachedApiKey>) -> bool {
        let uid = cached.metadata.uid.as_deref().unwrap_or_default();
        let Some(state) = self.states().get(uid).cloned() else { return false };
        // In use: its reconciliation may have begun before the event.
        state.try_lock().is_ok_and(|mut state| state.take_echo(cached))
    }

    pub(super) fn states(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<ObjectState>>>> {
        self.states.lock()
    }

    pub(super) fn state_of(&self, object: &CachedApiKey) -> Arc<tokio::sync::Mutex<ObjectState>> {
        Arc::clone(self.states().entry(object.uid().unwrap_or_default()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(version: &str) -> WatchedApiKey {
        let metadata = json!({"name": "key", "uid": "uid", "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata, "spec": {}})).unwrap()
    }

    fn cached(version: &str) -> Arc<CachedApiKey> {
        Arc::new(object(version).into())
    }

    fn latest(state: &ObjectState) -> Option<&str> {
        state.latest.as_ref()?.metadata().resource_version.as_deref()
    }

    #[test]
    fn the_cache_wins_after_a_relist_and_an_own_write_before_it() {
        let mut state = ObjectState::default();
        state.take_returned(object("1000"), Relists { begun: 1, done: 1 });
        state.take_cached(&cached("999"), Relists { begun: 1, done: 1 });
        assert_eq!(latest(&state), Some("1000"), "the cache lags behind an own write");
        state.take_cached(&cached("999"), Relists { begun: 2, done: 1 });
        assert_eq!(latest(&state), Some("1000"), "the relist is not complete");
        state.take_cached(&cached("500"), Relists { begun: 2, done: 2 });
        assert_eq!(latest(&state), Some("500"), "etcd was restored");
    }

    #[test]
    fn an_own_write_during_a_relist_wins_over_it() {
        let mut state = ObjectState::default();
        state.take_cached(&cached("10"), Relists { begun: 1, done: 1 });
        state.take_returned(object("12"), Relists { begun: 2, done: 1 });
        state.take_cached(&cached("11"), Relists { begun: 2, done: 2 });
        assert_eq!(latest(&state), Some("12"));
    }

    #[test]
    fn an_event_is_an_echo_if_the_decision_was_about_that_version() {
        let mut state = ObjectState::default();
        state.take_returned(object("10"), Relists::default());
        assert!(!state.take_echo(&cached("10")), "the reconciliation did not end");
        state.is_decided = true;
        assert!(!state.take_echo(&cached("9")), "the cache is behind");
        assert!(!state.take_echo(&cached("11")), "somebody has changed it since");
        assert!(state.take_echo(&cached("10")));
        assert!(matches!(state.latest, Some(Latest::Cached(..))), "it is held once");
        // A reconciliation that has begun just before holds an older version from the cache.
        state.take_cached(&cached("9"), Relists::default());
        assert_eq!(latest(&state), Some("10"));
        assert!(!state.take_echo(&cached("10")), "what the cache shows again is no echo");
    }

    #[test]
    fn a_cache_that_lags_behind_does_not_bring_a_deleted_object_back() {
        let once = Relists { begun: 1, done: 1 };
        let start = Monotonic::default();
        let gone = || {
            let mut state = ObjectState::default();
            state.take_returned(object("10"), once);
            assert!(!state.is_gone(&cached("10"), once, start));
            state.set_gone(once, start);
            state
        };
        assert!(gone().is_gone(&cached("9"), once, start) && gone().is_gone(&cached("10"), once, start));
        assert!(!gone().is_gone(&cached("11"), once, start), "the answer was wrong");
        assert!(
            gone().is_gone(&cached("9"), Relists { begun: 2, done: 1 }, start),
            "the relist is not complete"
        );
        assert!(!gone().is_gone(&cached("9"), Relists { begun: 2, done: 2 }, start), "etcd was restored");
        assert!(!gone().is_gone(&cached("10"), once, start.plus(CACHE_MAY_LAG)), "it was a wrong 404");
    }

    /// A reconciliation may begin just before the cache shows the relist.
    #[test]
    fn what_came_from_the_cache_never_wins_over_it() {
        let mut state = ObjectState::default();
        state.take_cached(&cached("1000"), Relists { begun: 2, done: 2 });
        state.take_cached(&cached("500"), Relists { begun: 2, done: 2 });
        assert_eq!(latest(&state), Some("500"));
    }
}

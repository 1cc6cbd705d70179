//! The metrics, with the prefix `boltz_`. No label contains a message or a key id.

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    namespace: String,
    resource: &'static str,
}

type Durations<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ObjectGauges {
    /// The Secret contains a valid key. None: suspended before the first key.
    pub ready: Option<bool>,
    /// Boltz accepts the key.
    pub active: bool,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When it is replaced.
    pub renewal_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// The number of previous keys that are still valid.
    pub previous_keys: usize,
    /// A previous key is still in use after the end of its overlap.
    pub revocation_blocked: bool,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ready: Family<ObjectLabels, Gauge>,
    active: Family<ObjectLabels, Gauge>,
    expiration: Family<ObjectLabels, Gauge>,
    renewal: Family<ObjectLabels, Gauge>,
    last_used: Family<ObjectLabels, Gauge>,
    previous_keys: Family<ObjectLabels, Gauge>,
    revocation_blocked: Family<ObjectLabels, Gauge>,
    watch_healthy: Family<WatchLabels, Gauge>,
    issued: Family<ReasonLabels, Counter>,
    revoked: Family<ReasonLabels, Counter>,
    issue_failures: Family<ReasonLabels, Counter>,
    strays_revoked: Counter,
    orphaned_keys: Gauge,
    inventory_keys: Gauge,
    inventory_age: Gauge,
    inventory_at: AtomicI64,
    clock_skew: Gauge,
    inventory_failures: Counter,
    inventory_doubtful: Gauge,
    inventory_missing_keys: Gauge,
    requests: Family<CallLabels, Counter>,
    request_duration: Durations<OperationLabels>,
    mint_queue_length: Gauge,
    admin_key_valid: Gauge,
    leader: Gauge,
    reconcile_duration: Histogram,
    reconcile_errors: Counter,
    reconciles_in_progress: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        fn durations() -> Histogram {
            Histogram::new(exponential_buckets(0.005, 2.0, 14))
        }
        let request_duration: Durations<OperationLabels> = Family::new_with_constructor(durations);
        let mut metrics = Self {
            registry: Registry::with_prefix("boltz"),
            ready: Family::default(),
            active: Family::default(),
            expiration: Family::default(),
            renewal: Family::default(),
            last_used: Family::default(),
            previous_keys: Family::default(),
            revocation_blocked: Family::default(),
            watch_healthy: Family::default(),
            issued: Family::default(),
            revoked: Family::default(),
            issue_failures: Family::default(),
            strays_revoked: Counter::default(),
            orphaned_keys: Gauge::default(),
            inventory_keys: Gauge::default(),
            inventory_age: Gauge::default(),
            // Before the first pass, the age is counted from the start of the process.
            inventory_at: AtomicI64::new(Timestamp::now().as_second()),
            clock_skew: Gauge::default(),
            inventory_failures: Counter::default(),
            inventory_doubtful: Gauge::default(),
            inventory_missing_keys: Gauge::default(),
            requests: Family::default(),
            request_duration,
            mint_queue_length: Gauge::default(),
            admin_key_valid: Gauge::default(),
            leader: Gauge::default(),
            reconcile_duration: durations(),
            reconcile_errors: Counter::default(),
            reconciles_in_progress: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "apikey_ready",
            "Whether the Secret contains a valid key; absent if the object was suspended before its first key",
            self.ready.clone(),
        );
        registry.register("apikey_active", "Whether Boltz accepts the current key", self.active.clone());
        registry.register(
            "apikey_expiration_timestamp_seconds",
            "Expiry of the current key, in seconds since 1970; absent if it never expires",
            self.expiration.clone(),
        );
        registry.register(
            "apikey_renewal_timestamp_seconds",
            "Planned replacement of the current key, in seconds since 1970; absent if none is planned",
            self.renewal.clone(),
        );
        registry.register(
            "apikey_last_used_timestamp_seconds",
            "Last use of the current key, in seconds since 1970, updated at most once a day; absent if never used",
            self.last_used.clone(),
        );
        registry.register(
            "apikey_previous_keys",
            "Previous keys that are still valid",
            self.previous_keys.clone(),
        );
        registry.register(
            "apikey_revocation_blocked",
            "Whether a previous key is still in use after the end of its overlap",
            self.revocation_blocked.clone(),
        );
        registry.register("apikey_issued", "Keys issued and stored", self.issued.clone());
        registry.register("apikey_revoked", "Keys revoked", self.revoked.clone());
        registry.register(
            "apikey_issue_failures",
            "Failed attempts to issue or store a key",
            self.issue_failures.clone(),
        );
        registry.register(
            "strays_revoked",
            "Keys revoked because their value was lost before it was stored",
            self.strays_revoked.clone(),
        );
        registry.register(
            "orphaned_keys",
            "Active keys with this cluster's marker that no BoltzApiKey and no Secret refers to",
            self.orphaned_keys.clone(),
        );
        registry.register(
            "inventory_keys",
            "Keys in Boltz's list, including keys that the operator does not manage",
            self.inventory_keys.clone(),
        );
        registry.register(
            "inventory_age_seconds",
            "Age of the newest complete read of Boltz's list of keys",
            self.inventory_age.clone(),
        );
        registry.register(
            "clock_skew_seconds",
            "How far the clock of the operator is ahead of the clock in Boltz's newest response",
            self.clock_skew.clone(),
        );
        registry.register(
            "inventory_failures",
            "Failed reads of Boltz's list of keys, including lists that contradict themselves",
            self.inventory_failures.clone(),
        );
        registry.register(
            "inventory_doubtful",
            "Whether the newest read of Boltz's list lacks so many keys that their absence is not believed",
            self.inventory_doubtful.clone(),
        );
        registry.register(
            "inventory_missing_keys",
            "Keys that the newest read of Boltz's list lacks although earlier reads showed them as active",
            self.inventory_missing_keys.clone(),
        );
        registry.register("api_requests", "Calls to Boltz", self.requests.clone());
        registry.register(
            "api_request_duration_seconds",
            "Duration of calls to Boltz",
            self.request_duration.clone(),
        );
        registry.register(
            "mint_queue_length",
            "Objects that wait for their turn to get a new key",
            self.mint_queue_length.clone(),
        );
        registry.register(
            "admin_key_valid",
            "Whether Boltz accepts the operator's admin key for live keys",
            self.admin_key_valid.clone(),
        );
        registry.register(
            "watch_healthy",
            "Whether the operator can watch the resource in the namespace; absent on a standby",
            self.watch_healthy.clone(),
        );
        registry.register("leader", "Whether this process is the leader", self.leader.clone());
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciliations",
            self.reconcile_duration.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed calls to the API server in reconciliations, including conflicts",
            self.reconcile_errors.clone(),
        );
        registry.register(
            "reconciles_in_progress",
            "Reconciliations in progress; at most --concurrency",
            self.reconciles_in_progress.clone(),
        );
    }

    /// All metrics, as OpenMetrics text.
    pub fn to_text(&self) -> String {
        let at = self.inventory_at.load(Ordering::Relaxed);
        self.inventory_age.set((Timestamp::now().as_second() - at).max(0));
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn set_object(&self, namespace: &str, name: &str, gauges: &ObjectGauges) {
        let labels = object(namespace, name);
        self.active.get_or_create(&labels).set(gauges.active.into());
        self.previous_keys
            .get_or_create(&labels)
            .set(i64::try_from(gauges.previous_keys).unwrap_or(i64::MAX));
        self.revocation_blocked.get_or_create(&labels).set(gauges.revocation_blocked.into());
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        for (family, value) in [
            (&self.ready, gauges.ready.map(i64::from)),
            (&self.expiration, seconds(gauges.expires_at)),
            (&self.renewal, seconds(gauges.renewal_at)),
            (&self.last_used, seconds(gauges.last_used_at)),
        ] {
            match value {
                Some(value) => {
                    family.get_or_create(&labels).set(value);
                }
                None => {
                    family.remove(&labels);
                }
            }
        }
    }

    pub(crate) fn set_waiting(&self, count: usize) {
        self.mint_queue_length.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Removes the metrics of a deleted object.
    pub fn forget(&self, namespace: &str, name: &str) {
        let labels = object(namespace, name);
        for family in self.of_objects() {
            family.remove(&labels);
        }
    }

    /// Removes the metrics of all objects: another process leads.
    pub fn forget_objects(&self) {
        for family in self.of_objects() {
            family.clear();
        }
        self.orphaned_keys.set(0);
    }

    fn of_objects(&self) -> [&Family<ObjectLabels, Gauge>; 7] {
        [
            &self.ready,
            &self.active,
            &self.expiration,
            &self.renewal,
            &self.last_used,
            &self.previous_keys,
            &self.revocation_blocked,
        ]
    }

    pub(crate) fn set_watch_healthy(&self, namespace: &str, resource: &'static str, is_healthy: bool) {
        let labels = WatchLabels { namespace: namespace.to_owned(), resource };
        self.watch_healthy.get_or_create(&labels).set(is_healthy.into());
    }

    pub(crate) fn forget_watches(&self) {
        self.watch_healthy.clear();
    }

    /// A key was issued and stored.
    pub fn issued(&self, reason: &'static str) {
        self.issued.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A key was revoked.
    pub fn revoked(&self, reason: &'static str) {
        self.revoked.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn issue_failed(&self, reason: &'static str) {
        self.issue_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn stray_revoked(&self) {
        self.strays_revoked.inc();
    }

    pub(crate) fn set_orphaned_keys(&self, count: usize) {
        self.orphaned_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_inventory(&self, keys: usize, doubtful: bool, missing: usize, started_at: Timestamp) {
        self.inventory_keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.inventory_doubtful.set(i64::from(doubtful));
        self.inventory_missing_keys.set(i64::try_from(missing).unwrap_or(i64::MAX));
        self.inventory_at.store(started_at.as_second(), Ordering::Relaxed);
    }

    pub(crate) fn set_clock_skew(&self, seconds: i64) {
        self.clock_skew.set(seconds);
    }

    pub(crate) fn pass_failed(&self) {
        self.inventory_failures.inc();
    }

    pub(crate) fn boltz_call(&self, operation: &'static str, code: &str, took: Duration) {
        self.requests.get_or_create(&CallLabels { operation, code: code.to_owned() }).inc();
        self.request_duration.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    pub(crate) fn set_admin_key_valid(&self, valid: bool) {
        self.admin_key_valid.set(valid.into());
    }

    pub(crate) fn set_leader(&self, leader: bool) {
        self.leader.set(leader.into());
    }

    /// Counts a running reconciliation until the returned guard is dropped.
    pub(crate) fn reconciling(&self) -> InProgress<'_> {
        self.reconciles_in_progress.inc();
        InProgress(&self.reconciles_in_progress)
    }

    pub(crate) fn reconciled(&self, took: Duration) {
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A call to the API server failed in a reconciliation.
    pub(crate) fn step_failed(&self) {
        self.reconcile_errors.inc();
    }
}

/// Counts one running reconciliation until it is dropped.
pub(crate) struct InProgress<'a>(&'a Gauge);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn object(namespace: &str, name: &str) -> ObjectLabels {
    ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_gone_is_not_shown() {
        let metrics = Metrics::new();
        let show =
            |ready| metrics.set_object("team", "key", &ObjectGauges { ready, ..ObjectGauges::default() });
        show(Some(true));
        assert!(metrics.to_text().contains(r#"boltz_apikey_ready{namespace="team",name="key"} 1"#));
        show(None);
        assert!(!metrics.to_text().contains("boltz_apikey_ready{"));
        metrics.forget("team", "key");
        assert!(!metrics.to_text().contains("team"));
        show(Some(true));
        metrics.forget_objects();
        assert!(!metrics.to_text().contains("team"));
    }

    #[test]
    fn counters_end_in_total() {
        let metrics = Metrics::new();
        metrics.issued("Initial");
        metrics.stray_revoked();
        metrics.boltz_call("create", "200", Duration::from_millis(3));
        let text = metrics.to_text();
        for line in [
            r#"boltz_apikey_issued_total{reason="Initial"} 1"#,
            "boltz_strays_revoked_total 1",
            r#"boltz_api_requests_total{operation="create",code="200"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

//! The metrics. No label contains a message or a key id.
//! What describes objects, Boltz's list and the queue is shown by the leader only: a standby knows none of it.

mod accounts;
mod boltz;
mod catalog;
mod objects;
mod process;
mod text;

pub use text::Format;

pub(crate) use boltz::{AdminKeyState, PassGauges, QueueLengths};
pub(crate) use objects::ObjectGauges;

use crate::{
    plan::{Reason, RevokeReason},
    protocol::record::IssueReason,
};
use boltz::{BOLTZ_METRICS, Organization, Organizations, RESPONSE_METRICS, Responses, of_all_accounts};
use catalog::Catalog;
use jiff::Timestamp;
use objects::{OBJECT_METRICS, Objects};
use parking_lot::Mutex;
use process::{PROCESS_METRICS, Process};
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::{fmt, sync::Arc, time::Duration};
use strum::VariantArray;
use text::Classic;

/// The calls to Boltz.
const OPERATIONS: [&str; 4] = ["auth_me", "create", "list", "revoke"];
/// Their results: statuses that Boltz documents, and what there is instead of a status.
const CODES: [&str; 19] = [
    "200", "400", "401", "402", "403", "404", "408", "409", "410", "422", "425", "429", "500", "502", "503",
    "504", "connect", "timeout", "error",
];

type Label = (&'static str, &'static str);
/// A counter for each value of one label.
type Counters = Family<[Label; 1], Counter>;
type Durations = Family<[Label; 1], Histogram, fn() -> Histogram>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    process: Catalog,
    own: Catalog,
    leaders: Catalog,
    shows_objects: bool,
    objects: Arc<Mutex<Objects>>,
    organizations: Arc<Mutex<Organizations>>,
    responses: Arc<Mutex<Responses>>,
    watch_healthy: Family<[(&'static str, String); 2], Gauge>,
    issued: Counters,
    revoked: Counters,
    issue_failures: Counters,
    revoke_failures: Counters,
    strays_revoked: Counter,
    inventory_failures: Counter,
    requests: Family<[(&'static str, String); 2], Counter>,
    request_duration: Durations,
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

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

/// A counter for each reason. All are there from the start: `increase()` in Prometheus does not see the first value.
fn by_reason(reasons: impl IntoIterator<Item = &'static str>) -> Counters {
    let counters = Counters::default();
    reasons.into_iter().for_each(|reason| drop(counters.get_or_create(&[("reason", reason)])));
    counters
}

fn request_counters() -> Family<[(&'static str, String); 2], Counter> {
    let counters = Family::default();
    for operation in OPERATIONS {
        for code in CODES {
            drop(counters.get_or_create(&request(operation, code)));
        }
    }
    counters
}

fn request(operation: &'static str, code: &str) -> [(&'static str, String); 2] {
    [("operation", operation.to_owned()), ("code", code.to_owned())]
}

fn request_durations() -> Durations {
    let durations = Durations::new_with_constructor(durations);
    OPERATIONS.iter().for_each(|operation| drop(durations.get_or_create(&[("operation", operation)])));
    durations
}

fn build_info() -> Family<[Label; 1], Gauge> {
    let info: Family<[Label; 1], Gauge> = Family::default();
    info.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    info
}

impl Metrics {
    /// Counters with known labels begin at zero, so that `increase()` sees their first change.
    pub fn new() -> Self {
        let (objects, organizations, responses) = (Arc::default(), Arc::default(), Arc::default());
        let mut process = Catalog::new("process");
        let started = Process { started_at: Timestamp::now() };
        process.compute(Arc::new(Mutex::new(started)), PROCESS_METRICS);
        let mut leaders = Catalog::new("boltz");
        leaders.compute(Arc::clone(&objects), OBJECT_METRICS);
        leaders.compute_all(Arc::clone(&organizations), BOLTZ_METRICS, of_all_accounts);
        let mut own = Catalog::new("boltz");
        own.compute(Arc::clone(&responses), RESPONSE_METRICS);
        own.add("build_info", "1; the label says which version it is", build_info());
        let issued = by_reason(IssueReason::VARIANTS.iter().map(|reason| reason.as_str()));
        let revoked = by_reason(RevokeReason::VARIANTS.iter().map(|reason| reason.as_str()));
        let issue_failures = by_reason(Reason::OF_ISSUING.map(Reason::as_str));
        let revoke_failures = by_reason(Reason::OF_BOLTZ.map(Reason::as_str));
        Self {
            shows_objects: true,
            watch_healthy: leaders.add(
                "watch_healthy",
                "Whether the operator can watch the resource in the namespace",
                Family::default(),
            ),
            issued: own.add("apikey_issued", "Keys issued and stored", issued),
            revoked: own.add("apikey_revoked", "Keys revoked", revoked),
            issue_failures: own.add(
                "apikey_issue_failures",
                "Failed attempts to issue or store a key",
                issue_failures,
            ),
            revoke_failures: own.add(
                "apikey_revoke_failures",
                "Failed attempts to revoke a key",
                revoke_failures,
            ),
            strays_revoked: own.add(
                "strays_revoked",
                "Keys revoked because their value was lost before it was stored",
                Counter::default(),
            ),
            inventory_failures: own.add(
                "inventory_failures",
                "Failed reads of Boltz's list of keys, including lists that contradict themselves",
                Counter::default(),
            ),
            requests: own.add("api_requests", "Calls to Boltz", request_counters()),
            request_duration: own.add(
                "api_request_duration_seconds",
                "Duration of calls to Boltz",
                request_durations(),
            ),
            leader: own.add("leader", "Whether this process is the leader", Gauge::default()),
            reconcile_duration: own.add(
                "reconcile_duration_seconds",
                "Duration of reconciliations",
                durations(),
            ),
            reconcile_errors: own.add(
                "reconcile_errors",
                "Failed calls to the API server in reconciliations, including conflicts",
                Counter::default(),
            ),
            reconciles_in_progress: own.add(
                "reconciles_in_progress",
                "Reconciliations in progress; at most --concurrency",
                Gauge::default(),
            ),
            process,
            own,
            leaders,
            objects,
            organizations,
            responses,
        }
    }

    /// Whether there are series for each object.
    #[must_use]
    pub fn per_object(self, shows_objects: bool) -> Self {
        Self { shows_objects, ..self }
    }

    /// The names of all metrics.
    pub fn names(&self) -> Vec<String> {
        let of = |prefix: &str, catalog: &Catalog| -> Vec<String> {
            catalog.names().map(|name| format!("{prefix}_{name}")).collect()
        };
        [of("boltz", &self.leaders), of("boltz", &self.own), of("process", &self.process)].concat()
    }

    /// Writes all metrics in that format. Fails only if the writer does.
    pub fn write(&self, format: Format, to: &mut impl fmt::Write) -> fmt::Result {
        match format {
            Format::OpenMetrics => self.write_open_metrics(to),
            Format::Classic => self.write_open_metrics(&mut Classic::new(to)),
        }
    }

    fn write_open_metrics(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let leaders = self.leads().then_some(&self.leaders);
        for catalog in leaders.into_iter().chain([&self.own, &self.process]) {
            encode_registry(to, catalog.registry())?;
        }
        encode_eof(to)
    }

    /// All metrics, as OpenMetrics text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = self.write(Format::OpenMetrics, &mut text);
        text
    }

    pub(crate) fn set_object(&self, namespace: &str, name: &str, gauges: ObjectGauges) {
        if self.shows_objects {
            self.objects.lock().shown.insert((namespace.to_owned(), name.to_owned()), gauges);
        }
    }

    /// Something may have changed for this object: it will be reconciled.
    pub(crate) fn add_to_queue(&self, namespace: &str, name: &str) {
        self.objects.lock().queued.insert((namespace.to_owned(), name.to_owned()));
    }

    /// The reconciliation of this object has begun.
    pub(crate) fn remove_from_queue(&self, namespace: &str, name: &str) {
        self.objects.lock().queued.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Objects that do not exist any more are not reconciled.
    pub(crate) fn keep_queued(&self, exists: impl Fn(&str, &str) -> bool) {
        self.objects.lock().queued.retain(|(namespace, name)| exists(namespace, name));
    }

    /// How many objects wait for a reconciliation, and the first of them by name.
    pub(crate) fn queue(&self, most: usize) -> (usize, Vec<(String, String)>) {
        let mut queued: Vec<(String, String)> = self.objects.lock().queued.iter().cloned().collect();
        let length = queued.len();
        queued.sort_unstable();
        queued.truncate(most);
        (length, queued)
    }

    /// Whether objects wait for a reconciliation.
    pub(crate) fn has_queue(&self) -> bool {
        !self.objects.lock().queued.is_empty()
    }

    /// Removes the metrics of a deleted object.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut objects = self.objects.lock();
        let object = (namespace.to_owned(), name.to_owned());
        objects.queued.remove(&object);
        objects.shown.remove(&object);
    }

    /// This process begins to lead: what it knew before is old.
    pub fn begin_to_lead(&self) {
        *self.objects.lock() = Objects::default();
        let leading_since = Some(Timestamp::now());
        for organization in self.organizations.lock().values_mut() {
            // These do not depend on who leads.
            let Organization { admin_key, is_new_admin_key_unproved, inventory_interval, .. } = *organization;
            *organization = Organization {
                admin_key,
                is_new_admin_key_unproved,
                inventory_interval,
                leading_since,
                ..Organization::default()
            };
        }
    }

    pub(crate) fn set_watch_healthy(&self, namespace: &str, resource: &str, is_healthy: bool) {
        let labels = [("namespace", namespace.to_owned()), ("resource", resource.to_owned())];
        self.watch_healthy.get_or_create(&labels).set(is_healthy.into());
    }

    pub(crate) fn forget_watches(&self) {
        self.watch_healthy.clear();
    }

    /// Call when the key is in its Secret. `reason` is an [`IssueReason`].
    pub fn count_issued(&self, reason: &'static str) {
        self.issued.get_or_create(&[("reason", reason)]).inc();
    }

    /// Call when Boltz has accepted the revocation, or says that the key was revoked before.
    pub fn count_revoked(&self, reason: &'static str) {
        self.revoked.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn count_issue_failed(&self, reason: &'static str) {
        self.issue_failures.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn count_revoke_failed(&self, reason: &'static str) {
        self.revoke_failures.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn count_stray_revoked(&self) {
        self.strays_revoked.inc();
    }

    pub(crate) fn set_clock_skew(&self, seconds: i64) {
        self.responses.lock().clock_skew = Some(seconds);
    }

    pub(crate) fn clock_skew(&self) -> Option<i64> {
        self.responses.lock().clock_skew
    }

    /// Boltz asks to be left alone for so long.
    pub(crate) fn set_retry_after(&self, wait: Duration) {
        self.responses.lock().retry_at = Timestamp::now().checked_add(wait).ok();
    }

    pub(crate) fn pass_failed(&self) {
        self.inventory_failures.inc();
    }

    pub(crate) fn boltz_call(&self, operation: &'static str, code: &str, took: Duration) {
        self.requests.get_or_create(&request(operation, code)).inc();
        self.request_duration.get_or_create(&[("operation", operation)]).observe(took.as_secs_f64());
    }

    /// Call when this process gets the Lease and when it loses it.
    pub fn set_leader(&self, leader: bool) {
        self.leader.set(leader.into());
    }

    pub(crate) fn leads(&self) -> bool {
        self.leader.get() == 1
    }

    /// Counts a running reconciliation until the returned guard is dropped.
    pub(crate) fn begin_reconcile(&self) -> InProgress<'_> {
        self.reconciles_in_progress.inc();
        InProgress(&self.reconciles_in_progress)
    }

    pub(crate) fn observe_reconcile(&self, took: Duration) {
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A call to the API server failed in a reconciliation.
    pub(crate) fn count_step_failed(&self) {
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

#[cfg(test)]
mod tests;

//! The metrics of objects.

use super::catalog::{Computed, Series};
use jiff::Timestamp;
use prometheus_client::metrics::MetricType::Gauge;
use std::collections::{BTreeMap, HashSet};

/// What the metrics show of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ObjectGauges {
    /// The Secret contains a valid key. None: suspended or paused before the first key.
    pub ready: Option<bool>,
    /// The reason of the condition Ready.
    pub reason: String,
    pub active: bool,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When it is replaced or, while the object is suspended or paused, when it would be.
    pub renewal_at: Option<Timestamp>,
    /// Of any of its keys.
    pub last_used_at: Option<Timestamp>,
    /// The last use or, if there was none, since when there has been a key.
    pub in_use_since: Option<Timestamp>,
    /// The number of previous keys that are still valid.
    pub previous_keys: usize,
    /// A previous key is still in use after the end of its overlap.
    pub is_previous_key_used: bool,
    /// The number of workloads that may still run with an old key.
    pub restarts_unfinished: usize,
    /// The annotation `boltz.bio/paused` stops the operator.
    pub is_paused: bool,
    /// Since when its oldest key should be revoked.
    pub overdue_since: Option<Timestamp>,
}

/// All objects, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub shown: BTreeMap<(String, String), ObjectGauges>,
    /// Those whose reconciliation has not begun although something may have changed.
    pub queued: HashSet<(String, String)>,
}

const fn of_object(
    name: &'static str,
    help: &'static str,
    series: fn(&Objects) -> Vec<Series>,
) -> Computed<Objects> {
    Computed { name, help, kind: Gauge, series }
}

/// One line for each metric.
pub(super) const OBJECT_METRICS: &[Computed<Objects>] = &[
    of_object(
        "apikey_ready",
        "Whether the Secret contains a valid key; absent if the object was suspended or paused before its first key",
        |objects| objects.each(|object| object.ready.map(f64::from)),
    ),
    of_object("apikey_status", "1 for the present reason of the condition Ready", |objects| {
        let each = objects.shown.iter().filter(|(_, object)| !object.reason.is_empty());
        each.map(|(name, object)| (labels(name, Some(("reason", &object.reason))), 1.0)).collect()
    }),
    of_object("apikey_active", "Whether Boltz accepts the current key", |objects| {
        objects.each(|object| Some(object.active.into()))
    }),
    of_object(
        "apikey_creation_timestamp_seconds",
        "Creation of the current key, in seconds since 1970",
        |objects| objects.each(|object| seconds(object.created_at)),
    ),
    of_object(
        "apikey_expiration_timestamp_seconds",
        "Expiry of the current key, in seconds since 1970; absent if it never expires",
        |objects| objects.each(|object| seconds(object.expires_at)),
    ),
    of_object(
        "apikey_renewal_timestamp_seconds",
        "Planned replacement of the current key, in seconds since 1970, also while the object is suspended or paused; absent if \
         none is planned",
        |objects| objects.each(|object| seconds(object.renewal_at)),
    ),
    of_object(
        "apikey_last_used_timestamp_seconds",
        "Last use of a key of the object, the current one or one before it, in seconds since 1970; absent if never used",
        |objects| objects.each(|object| seconds(object.last_used_at)),
    ),
    of_object(
        "apikey_unused_seconds",
        "Time since a key of the object was last used or, if none was, since it got its first key; after a rotation, since the \
         object was created",
        |objects| objects.each(|object| since(object.in_use_since)),
    ),
    of_object("apikey_previous_keys", "Previous keys that are still valid", |objects| {
        #[allow(clippy::cast_precision_loss, reason = "they are few")]
        objects.each(|object| Some(object.previous_keys as f64))
    }),
    of_object(
        "apikey_previous_key_still_used",
        "Whether a previous key is not revoked because it is still in use after the end of its overlap",
        |objects| objects.each(|object| Some(object.is_previous_key_used.into())),
    ),
    of_object(
        "apikey_restarts_unfinished",
        "Workloads of spec.rolloutRestartTargets that were not restarted for the current key, or whose rollout has not ended",
        #[allow(clippy::cast_precision_loss, reason = "they are few")]
        |objects| objects.each(|object| Some(object.restarts_unfinished as f64)),
    ),
    of_object("apikey_paused", "Whether the annotation boltz.bio/paused stops the operator", |objects| {
        objects.each(|object| Some(object.is_paused.into()))
    }),
    of_object(
        "apikey_revocation_overdue_seconds",
        "How long the oldest key that should be revoked is overdue; 0 if there is none",
        |objects| objects.each(|object| since(object.overdue_since).or(Some(0.0))),
    ),
    of_object(
        "reconcile_queue_depth",
        "Objects for which something may have changed, and whose reconciliation has not begun",
        #[allow(clippy::cast_precision_loss, reason = "there are not so many")]
        |objects| vec![(Vec::new(), objects.queued.len() as f64)],
    ),
];

impl Objects {
    fn each(&self, value: impl Fn(&ObjectGauges) -> Option<f64>) -> Vec<Series> {
        let each = self.shown.iter();
        each.filter_map(|(name, object)| Some((labels(name, None), value(object)?))).collect()
    }
}

fn labels(
    (namespace, name): &(String, String),
    more: Option<(&'static str, &String)>,
) -> Vec<(&'static str, String)> {
    let own = [("namespace", namespace), ("name", name)];
    own.into_iter().chain(more).map(|(label, value)| (label, value.clone())).collect()
}

#[allow(clippy::cast_precision_loss, reason = "these times are exact for millions of years")]
pub(super) fn seconds(time: Option<Timestamp>) -> Option<f64> {
    time.map(|time| time.as_second() as f64)
}

/// The seconds since then, at least 0.
pub(super) fn since(time: Option<Timestamp>) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "as above")]
    time.map(|time| (Timestamp::now().as_second() - time.as_second()).max(0) as f64)
}

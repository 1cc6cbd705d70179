//! The inventory: the newest passes over Boltz's list of keys, shared by all objects.
//!
//! One paginated pass serves all objects that request a pass not older than a given time.

use super::snapshot::{ClusterNames, Snapshot};
use crate::{
    backoff,
    boltz::{BoltzClient, BoltzError, KeyDetails, account::Account},
    clock::Clock,
    observability::metrics::Metrics,
    plan::Monotonic,
};
use parking_lot::Mutex;
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Minimum time between passes, so that requests by many objects are served by one pass.
const MIN_SPACING: Duration = Duration::from_millis(500);

/// The two newest complete passes, and the request for a newer one.
#[derive(Debug)]
pub struct Inventory {
    names: ClusterNames,
    snapshots: Mutex<VecDeque<Arc<Snapshot>>>,
    requested: watch::Sender<Monotonic>,
    completed: watch::Sender<u64>,
}

impl Inventory {
    /// An inventory without any pass yet.
    pub fn new(names: ClusterNames) -> Self {
        Self {
            names,
            snapshots: Mutex::default(),
            requested: watch::Sender::new(Monotonic::default()),
            completed: watch::Sender::new(0),
        }
    }

    /// The cluster names of our keys.
    pub fn names(&self) -> &ClusterNames {
        &self.names
    }

    /// The newest complete passes, newest first; at most two.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        self.snapshots.lock().iter().cloned().collect()
    }

    /// Requests a pass that begins at this time or later. Does not wait for it: see [`Inventory::completions`].
    pub fn request_pass_since(&self, since: Monotonic) {
        self.requested.send_if_modified(|requested| {
            let newer = since > *requested;
            *requested = (*requested).max(since);
            newer
        });
    }

    /// Changes with every completed pass.
    pub fn completions(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    /// Makes passes: one immediately, then one per interval, and one for each request. Does not end.
    pub async fn run(&self, account: &Account, interval: Duration, clock: Clock, metrics: &Metrics) {
        let mut requested = self.requested.subscribe();
        let mut failures = 0;
        loop {
            let call = account.list_call(clock).await;
            let now = clock.now();
            match list_all(account.client()).await {
                Ok(keys) => {
                    failures = 0;
                    account.succeeded(&call, clock.now().monotonic);
                    metrics.set_inventory(keys.len(), now.wall);
                    let snapshot = Arc::new(Snapshot::new(now.monotonic, now.wall, keys, &self.names));
                    self.push(snapshot);
                }
                Err(error) => {
                    failures += 1;
                    account.failed(&call, &error, clock.now().monotonic);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to list the keys at Boltz"
                    );
                    tokio::time::sleep(backoff::delay(failures, None)).await;
                    continue;
                }
            }
            tokio::time::sleep(MIN_SPACING).await;
            let next = clock.instant(now.monotonic.plus(interval));
            let newer_requested = requested.wait_for(|since| *since > now.monotonic);
            // The sender cannot be dropped here: the wait ends with a request or at the deadline.
            let _ = tokio::time::timeout_at(next, newer_requested).await;
        }
    }

    fn push(&self, snapshot: Arc<Snapshot>) {
        {
            let mut snapshots = self.snapshots.lock();
            snapshots.push_front(snapshot);
            snapshots.truncate(2);
        }
        self.completed.send_modify(|count| *count += 1);
    }
}

/// One complete pass. Rows may shift between pages, so each id counts once. A page without new ids ends the pass.
async fn list_all(client: &BoltzClient) -> Result<Vec<KeyDetails>, BoltzError> {
    let mut keys: Vec<KeyDetails> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.list_keys(after.as_deref()).await?;
        let before = keys.len();
        keys.extend(page.data.into_iter().filter(|key| seen.insert(key.id.clone())));
        match page.last_id {
            Some(last) if page.has_more && keys.len() > before => after = Some(last),
            _ => return Ok(keys),
        }
    }
}

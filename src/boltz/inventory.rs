//! The inventory: one shared snapshot of Boltz's list of keys.
//!
//! One paginated pass serves every object that needs a view "not older than t", whatever their number.

use super::snapshot::{ClusterNames, Snapshot};
use crate::{
    backoff,
    boltz::{BoltzClient, BoltzError, KeyDetails, account::Account},
    clock::Clock,
    observability::metrics::Metrics,
    plan::Monotonic,
};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Passes asked for by many objects at nearly the same time become one.
const LEAST_SPACING: Duration = Duration::from_millis(500);

/// The two newest complete passes, and the wish for a newer one.
#[derive(Debug)]
pub struct Inventory {
    names: ClusterNames,
    snapshots: Mutex<VecDeque<Arc<Snapshot>>>,
    wanted: watch::Sender<Monotonic>,
    completed: watch::Sender<u64>,
}

impl Inventory {
    /// An inventory without any pass yet.
    pub fn new(names: ClusterNames) -> Self {
        Self {
            names,
            snapshots: Mutex::default(),
            wanted: watch::Sender::new(Monotonic::default()),
            completed: watch::Sender::new(0),
        }
    }

    /// The names under which keys are ours.
    pub fn names(&self) -> &ClusterNames {
        &self.names
    }

    /// The newest complete passes, newest first; at most two.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Asks for a pass begun at that time or later. It need not be waited for: see [`Inventory::completions`].
    pub fn want_pass_since(&self, since: Monotonic) {
        self.wanted.send_if_modified(|wanted| {
            let newer = since > *wanted;
            *wanted = (*wanted).max(since);
            newer
        });
    }

    /// Changes with every completed pass.
    pub fn completions(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    /// Makes passes for ever: one at once, then one per interval and one whenever a newer view is wanted.
    pub async fn run(&self, account: &Account, interval: Duration, clock: Clock, metrics: &Metrics) {
        let mut wanted = self.wanted.subscribe();
        let mut failures = 0;
        loop {
            account.until_callable(clock).await;
            let now = clock.now();
            match list_all(account.client()).await {
                Ok(keys) => {
                    failures = 0;
                    account.succeeded();
                    metrics.set_inventory(keys.len(), now.wall);
                    let snapshot = Arc::new(Snapshot::new(now.monotonic, now.wall, keys, &self.names));
                    self.push(snapshot);
                }
                Err(error) => {
                    failures += 1;
                    account.failed(&error, clock.now().monotonic);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to list the keys at Boltz"
                    );
                    tokio::time::sleep(backoff::delay(failures, None)).await;
                    continue;
                }
            }
            tokio::time::sleep(LEAST_SPACING).await;
            let next = clock.instant(now.monotonic.plus(interval));
            let newer_wanted = wanted.wait_for(|since| *since > now.monotonic);
            // The sender lives as long as this borrow of it, so only a wish or the time ends the wait.
            let _ = tokio::time::timeout_at(next, newer_wanted).await;
        }
    }

    fn push(&self, snapshot: Arc<Snapshot>) {
        {
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            snapshots.push_front(snapshot);
            snapshots.truncate(2);
        }
        self.completed.send_modify(|count| *count += 1);
    }
}

/// One complete pass. Rows may shift between pages, so an id counts once; a page that brings nothing new ends it.
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

//! What the process does now: the steps in progress, for the watchdog and `/debug`.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often the runtime of the reconciliations says that it runs tasks.
const BEAT: Duration = Duration::from_secs(1);

/// Which reconciliations are in progress, for the watchdog and for `/debug`.
#[derive(Debug, Default)]
pub struct Activity {
    /// How often the runtime said that it runs tasks.
    beats: AtomicU64,
    /// How many steps were begun.
    changes: AtomicU64,
    in_flight: Mutex<HashMap<String, InFlight>>,
}

/// A reconciliation in progress.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The step, as in the log; `Plan`: between two steps.
    pub step: &'static str,
    /// When the step, or its last call, began.
    pub since: Instant,
    /// Differs for each step and call.
    pub change: u64,
}

impl Activity {
    /// A reconciliation of the object with this UID begins. It ends when the guard is dropped.
    pub(crate) fn begin<'a>(&'a self, uid: &'a str, namespace: &str, name: &str) -> Guard<'a> {
        let (since, change) = (Instant::now(), self.next_change());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.in_flight
            .lock()
            .insert(uid.to_owned(), InFlight { namespace, name, step: "Plan", since, change });
        Guard { activity: self, uid }
    }

    /// The reconciliation of the object makes another step.
    pub(crate) fn enter(&self, uid: &str, step: &'static str) {
        self.change(uid, |known| known.step = step);
    }

    /// The step has several calls, and another one begins.
    pub(crate) fn goes_on(&self, uid: &str) {
        self.change(uid, |_| {});
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut InFlight)) {
        if let Some(known) = self.in_flight.lock().get_mut(uid) {
            (known.since, known.change) = (Instant::now(), self.next_change());
            change(known);
        }
    }

    fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many steps were begun.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// How often the runtime said that it runs tasks.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The reconciliations in progress, the longest step first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut in_flight = Vec::from_iter(self.in_flight.lock().values().cloned());
        in_flight.sort_by_key(|known| known.change);
        in_flight
    }

    /// Says from time to time that the runtime runs tasks. Does not end.
    pub(crate) async fn beat(&self) {
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            sleep(BEAT).await;
        }
    }
}

/// A reconciliation in progress, until it is dropped.
pub(crate) struct Guard<'a> {
    activity: &'a Activity,
    uid: &'a str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.activity.in_flight.lock().remove(self.uid);
    }
}

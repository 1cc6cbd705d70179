//! Since when Boltz's list of keys cannot be read, and why: objects that wait for it say so.

use crate::plan::{Block, Monotonic, Reason};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// A failure is told when it has lasted for so long.
const TOLD_AFTER: Duration = Duration::from_secs(10);
/// Failures that are further apart than this are not one.
const APART: Duration = Duration::from_secs(120);

/// Whether the list can be read.
#[derive(Debug, Default)]
pub(super) struct ListFailure {
    last: Mutex<Option<Failed>>,
    told: watch::Sender<bool>,
}

#[derive(Debug)]
struct Failed {
    since: Monotonic,
    at: Monotonic,
    error: String,
}

impl ListFailure {
    /// A page, or a whole pass, failed.
    pub fn record_failure(&self, error: String, now: Monotonic) {
        let mut last = self.last.lock();
        let since = last.as_ref().filter(|last| now.since(last.at) < APART).map_or(now, |last| last.since);
        *last = Some(Failed { since, at: now, error });
        drop(last);
        let is_long = now.since(since) >= TOLD_AFTER;
        self.told.send_if_modified(|told| is_long && !std::mem::replace(told, true));
    }

    /// A pass is complete.
    pub fn record_success(&self) {
        *self.last.lock() = None;
        self.told.send_if_modified(std::mem::take);
    }

    /// What objects that wait for the list say.
    pub fn block(&self) -> Option<Block> {
        let last = self.last.lock();
        let failed = last.as_ref().filter(|_| *self.told.borrow())?;
        let message = format!(
            "Failed to read Boltz's list of keys: {}. It is not known which keys exist. The operator will retry.",
            failed.error
        );
        Some(Block { reason: Reason::BoltzUnavailable, message, until: None })
    }

    /// Changes when objects have something else to say.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_lasts() {
        let failure = ListFailure::default();
        let at = |seconds: u64| Monotonic(Duration::from_secs(seconds));
        let mut changes = failure.changes();
        for (seconds, is_told) in [(1, false), (10, false), (11, true), (12, true)] {
            failure.record_failure("down".to_owned(), at(seconds));
            assert_eq!(failure.block().is_some(), is_told, "{seconds}");
        }
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        failure.record_success();
        assert!(failure.block().is_none() && changes.has_changed().unwrap());
        for seconds in [100, 300, 500] {
            failure.record_failure("one page".to_owned(), at(seconds));
            assert!(failure.block().is_none(), "they are far apart");
        }
    }
}

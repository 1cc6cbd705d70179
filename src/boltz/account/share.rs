//! How many calls of an account may be in progress: those that hang must leave room for other work, and for other accounts.

use super::{Account, MintLimits};
use crate::plan::Monotonic;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Places for calls that can be repeated, and how many turns to get a key there may be.
#[derive(Debug)]
pub(super) struct Slots {
    /// Without other accounts.
    all: usize,
    most: AtomicUsize,
    used: AtomicUsize,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slots {
    pub fn new(all: usize) -> Self {
        Self { all, most: AtomicUsize::new(all), used: AtomicUsize::new(0) }
    }

    /// A place, if one is free.
    pub fn take(slots: &Arc<Self>) -> Option<Slot> {
        let most = slots.most.load(Ordering::Relaxed);
        let taken = slots
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < most).then_some(used + 1));
        taken.is_ok().then(|| Slot(Arc::clone(slots)))
    }

    /// How many turns there may be. An account that is alone has no limit but those of its namespaces and workspaces.
    pub fn share(&self) -> usize {
        let most = self.most.load(Ordering::Relaxed);
        if most == self.all { usize::MAX } else { most }
    }
}

impl Account {
    /// So many accounts share what may be in progress.
    pub(crate) fn share_with(&self, accounts: usize) {
        let slots = &self.revocations;
        slots.most.store((slots.all / accounts.max(1)).max(1), Ordering::Relaxed);
        self.lock().queue.set_most_turns(slots.share());
    }

    /// Limits new keys per minute from now on.
    pub(crate) fn set_limits(&self, limits: MintLimits, now: Monotonic) {
        let before = std::mem::replace(&mut *self.limits.lock(), limits);
        if before != limits {
            let mut state = self.lock();
            state.queue.set_limits(limits, now);
            self.queue_changed(state, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_call_is_over() {
        let slots = Arc::new(Slots::new(4));
        assert_eq!(slots.share(), usize::MAX);
        slots.most.store(2, Ordering::Relaxed);
        assert_eq!(slots.share(), 2);
        let (one, two) = (Slots::take(&slots), Slots::take(&slots));
        assert!(one.is_some() && two.is_some() && Slots::take(&slots).is_none());
        drop(one);
        assert!(Slots::take(&slots).is_some());
    }
}

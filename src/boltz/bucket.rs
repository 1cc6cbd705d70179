//! A limit of new keys per minute. Pure.

use crate::plan::Monotonic;
use std::time::Duration;

const BURST: Duration = Duration::from_secs(60);

/// A token bucket that holds a minute's worth (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    spacing: Duration,
    full_at: Monotonic,
}

impl Bucket {
    /// A bucket with a tenth of its tokens, at least one.
    pub fn new(per_minute: u32, now: Monotonic) -> Self {
        let spacing = BURST / per_minute.max(1);
        Self { spacing, full_at: now.plus(BURST.saturating_sub(spacing.max(BURST / 10))) }
    }

    /// When the next token is there.
    pub fn next_at(&self, now: Monotonic) -> Monotonic {
        self.full_at.max(now).plus(self.spacing).minus(BURST).max(now)
    }

    pub fn count(&self, now: Monotonic) -> usize {
        let left = BURST.saturating_sub(self.full_at.since(now));
        usize::try_from(left.as_nanos() / self.spacing.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    pub fn is_full(&self, now: Monotonic) -> bool {
        self.full_at <= now
    }

    pub fn take(&mut self, now: Monotonic) {
        self.full_at = self.full_at.max(now).plus(self.spacing);
    }

    pub fn give_back(&mut self) {
        self.full_at = self.full_at.minus(self.spacing);
    }
}

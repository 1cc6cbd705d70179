//! The operator's limit of new keys.

use crate::plan::Monotonic;
use std::time::Duration;

/// The limit of new keys: a token bucket with room for 6 seconds of the rate, at least one.
#[derive(Debug)]
pub(super) struct Budget {
    spacing: Duration,
    /// When the bucket will be full again (the generic cell rate algorithm's theoretical arrival time).
    full_at: Monotonic,
    burst: Duration,
}

impl Budget {
    pub(super) fn new(per_minute: u32) -> Self {
        let spacing = Duration::from_secs(60) / per_minute.max(1);
        Self { spacing, full_at: Monotonic::default(), burst: spacing * (per_minute / 10).max(1) }
    }

    /// Takes one token. The error says when the next one is available.
    pub(super) fn take(&mut self, now: Monotonic) -> Result<(), Monotonic> {
        let full_at = self.full_at.max(now).plus(self.spacing);
        if full_at.since(now) > self.burst {
            return Err(full_at.minus(self.burst));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_lets_a_burst_and_then_the_rate_pass() {
        let mut budget = Budget::new(600);
        let now = Monotonic(Duration::from_secs(5));
        assert_eq!((0..100).filter(|_| budget.take(now).is_ok()).count(), 60);
        let again = budget.take(now).unwrap_err();
        assert_eq!(again.since(now), Duration::from_millis(100));
        assert!(budget.take(again).is_ok());
        assert!(budget.take(again).is_err());
    }

    #[test]
    fn the_smallest_budget_lets_one_pass() {
        let mut budget = Budget::new(1);
        assert!(budget.take(Monotonic::default()).is_ok());
        assert_eq!(budget.take(Monotonic::default()), Err(Monotonic(Duration::from_secs(60))));
    }
}

//! Waits after consecutive failures.

use std::time::Duration;

/// `Retry-After` is obeyed up to this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Waits that double from a first one to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// Waits that double from so many seconds to so many.
    pub const fn from_secs(first: u64, longest: u64) -> Self {
        Self { first: Duration::from_secs(first), longest: Duration::from_secs(longest) }
    }

    /// The wait after the nth consecutive failure; the first is 1.
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The same, shortened by up to 20% so that retries spread out; `jitter` is from 0 to 1. At least `Retry-After`, up to
    /// [`MAX_RETRY_AFTER`].
    pub(crate) fn jittered(self, failures: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let wait = self.after(failures).mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0));
        wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_the_longest_wait_and_obeys_the_server() {
        let backoff = Backoff::from_secs(1, 60);
        for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (4, 8), (6, 32), (7, 60), (u32::MAX, 60)] {
            assert_eq!(backoff.after(failures), Duration::from_secs(seconds));
            let shortest = backoff.jittered(failures, 1.0, None);
            assert!(shortest < backoff.after(failures) && shortest >= backoff.after(failures).mul_f64(0.79));
        }
        let asked = |seconds| backoff.jittered(1, 0.5, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(120), Duration::from_secs(120));
        assert_eq!(asked(86_400), MAX_RETRY_AFTER);
    }
}

//! Finds the rate of calls that Boltz allows: it halves after a 429 and then grows by a twentieth of the old rate each
//! second. Without a 429 there is no limit. Pure.

use crate::plan::Monotonic;
use std::{collections::VecDeque, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
/// The lowest rate, in calls per second.
const LOWEST: f64 = 0.1;

/// A limit of calls, evenly spaced.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// When calls are possible again after the last 429, and the rate from then on.
    limited: Option<(Monotonic, f64)>,
    next_at: Monotonic,
    /// The calls of the last second.
    recent: VecDeque<Monotonic>,
}

impl Limiter {
    /// When the next call may be made.
    pub fn next_at(&self) -> Monotonic {
        self.next_at
    }

    /// A call is made when the limit allows it: at the time that is returned.
    pub fn take(&mut self, now: Monotonic) -> Monotonic {
        let at = self.next_at.max(now);
        if let Some(rate) = self.rate(at) {
            self.next_at = at.plus(Duration::from_secs_f64(1.0 / rate));
        }
        self.forget(now);
        self.recent.push_back(at);
        at
    }

    /// Calls per second, if there is a limit.
    pub fn rate(&self, now: Monotonic) -> Option<f64> {
        let (at, rate) = self.limited?;
        Some(rate + rate / 10.0 * now.since(at).as_secs_f64())
    }

    /// A call that began then was answered with 429: no other is made until `again_at`. Calls that were in flight
    /// together count once.
    pub fn limited(&mut self, began: Monotonic, again_at: Monotonic) {
        if self.limited.is_some_and(|(at, _)| began < at) {
            return;
        }
        self.forget(began);
        let made = f64::from(u32::try_from(self.recent.len()).unwrap_or(u32::MAX)).max(1.0);
        let rate = self.rate(began).map_or(made, |rate| rate.min(made));
        let rate = (rate / 2.0).max(LOWEST);
        self.limited = Some((again_at, rate));
        self.next_at = again_at;
    }

    fn forget(&mut self, now: Monotonic) {
        while self.recent.front().is_some_and(|at| now.since(*at) >= SECOND) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Monotonic {
        Monotonic(Duration::from_millis(milliseconds))
    }

    #[test]
    fn without_a_429_there_is_no_limit() {
        let mut limiter = Limiter::default();
        for _ in 0..1000 {
            assert_eq!(limiter.take(at(7)), at(7));
        }
    }

    #[test]
    fn a_429_halves_the_rate_once_for_all_that_were_in_flight() {
        let mut limiter = Limiter::default();
        for call in 0..40 {
            limiter.take(at(1000 + call * 25));
        }
        for answered in 2000..2040 {
            limiter.limited(at(1990), at(answered));
        }
        assert_eq!(limiter.rate(at(2000)), Some(20.0));
        assert_eq!(limiter.rate(at(2500)), Some(21.0), "it grows");
        assert_eq!(limiter.take(at(1990)), at(2000));
        assert_eq!(limiter.take(at(1990)), at(2050), "evenly spaced");
        limiter.limited(at(2050), at(3000));
        assert!(limiter.rate(at(3000)).unwrap() < 10.2, "the next 429 halves it again");
        assert_eq!(limiter.next_at(), at(3000));
    }

    #[test]
    fn the_rate_settles_around_what_is_allowed_and_never_ends() {
        // Boltz allows 5 calls a second, and has room for 5.
        let (mut limiter, mut now, mut tokens, mut seen) = (Limiter::default(), at(0), 5.0_f64, at(0));
        let (mut made, mut refused) = (0, 0);
        while now < at(600_000) {
            now = limiter.take(now);
            tokens = (tokens + now.since(seen).as_secs_f64() * 5.0).min(5.0);
            seen = now;
            made += 1;
            if tokens >= 1.0 {
                tokens -= 1.0;
            } else {
                refused += 1;
                limiter.limited(now, now.plus(SECOND));
            }
        }
        assert!(refused * 20 < made && made - refused > 2000, "{refused} of {made}");
        for _ in 0..100 {
            now = limiter.take(now);
            limiter.limited(now, now.plus(SECOND));
        }
        assert!(limiter.next_at().since(now) <= SECOND * 10);
    }
}

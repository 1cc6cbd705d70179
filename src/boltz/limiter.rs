//! Finds the rate of calls that Boltz allows, as CUBIC finds the rate of a network (RFC 9438): after a 429 it falls to 70 %,
//! is back after eight seconds, stays near for a while, and then looks for more. Without a 429 there is no limit. Pure.

use crate::plan::{Block, Monotonic, Reason};
use std::{collections::VecDeque, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
/// The lowest rate, in calls per second.
const LOWEST: f64 = 0.1;
/// The share of the rate that is left after a 429. CUBIC's.
const LEFT: f64 = 0.7;
/// The seconds after which the rate is what it was.
const RECOVERY: f64 = 8.0;

/// A call waits at most this long for the rate limit: its object can do nothing else meanwhile. If the wait would be
/// longer, the object does other things first.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the status of an object says that waits for it.
pub(super) const LIMITED: &str = "Boltz limits the request rate. The operator will retry.";

pub(super) fn rate_limit_block(until: Monotonic) -> Block {
    Block { reason: Reason::RateLimited, message: LIMITED.to_owned(), until: Some(until) }
}

/// A limit of calls, evenly spaced.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// When calls are possible again after the last 429, and the rate that was too high.
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
        let (at, too_high) = self.limited?;
        let progress = (now.since(at).as_secs_f64() - RECOVERY) / RECOVERY;
        Some((too_high * (1.0 + (1.0 - LEFT) * progress.powi(3))).max(LOWEST))
    }

    /// A call that began then was answered with 429: no other is made until `again_at`. Calls that were in flight
    /// together count once.
    pub fn record_rate_limit(&mut self, began: Monotonic, again_at: Monotonic) {
        if self.limited.is_some_and(|(at, _)| began < at) {
            return;
        }
        self.forget(began);
        let made = f64::from(u32::try_from(self.recent.len()).unwrap_or(u32::MAX)).max(1.0);
        let too_high = match self.limited.zip(self.rate(began)) {
            None => made,
            // The first guess was much too high.
            Some(((at, _), rate)) if began.since(at) < SECOND => rate / 2.0,
            Some(((_, before), rate)) => {
                // While calls were few, the rate has grown without being tried.
                let tried = rate.min(made);
                // Less is allowed than before: others call too (RFC 9438, 4.7).
                if tried < before { tried * (1.0 + LEFT) / 2.0 } else { tried }
            }
        };
        self.limited = Some((again_at, too_high.max(LOWEST)));
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
    fn a_429_lowers_the_rate_once_for_all_that_were_in_flight() {
        let mut limiter = Limiter::default();
        for call in 0..40 {
            limiter.take(at(1000 + call * 25));
        }
        for answered in 2000..2040 {
            limiter.record_rate_limit(at(1990), at(answered));
        }
        assert_eq!(limiter.rate(at(2000)), Some(28.0));
        assert_eq!(limiter.rate(at(10_000)), Some(40.0), "it grows");
        assert_eq!(limiter.rate(at(18_000)), Some(52.0), "and looks for more");
        assert_eq!(limiter.take(at(1990)), at(2000));
        assert_eq!(limiter.take(at(1990)).since(at(2000)).as_millis(), 35, "evenly spaced");
        limiter.record_rate_limit(at(2050), at(3000));
        assert!(limiter.rate(at(3000)).unwrap() < 10.2, "another 429 at once: the guess was wrong");
        assert_eq!(limiter.next_at(), at(3000));
        while limiter.take(limiter.next_at()) < at(9000) {}
        limiter.record_rate_limit(at(9000), at(10_000));
        assert!((11.0..13.0).contains(&limiter.limited.unwrap().1), "less is allowed than before");
    }

    #[test]
    fn a_rate_that_was_not_tried_is_not_believed() {
        let mut limiter = Limiter::default();
        limiter.take(at(1000));
        limiter.record_rate_limit(at(1000), at(2000));
        // An hour of silence, and then a burst.
        for call in 0..40 {
            limiter.take(at(3_600_000 + call * 10));
        }
        limiter.record_rate_limit(at(3_600_400), at(3_601_000));
        assert_eq!(limiter.limited.unwrap().1, 40.0);
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
                limiter.record_rate_limit(now, now.plus(SECOND));
            }
        }
        assert!(refused * 25 < made && made - refused > 2800, "{refused} of {made}");
        for _ in 0..100 {
            now = limiter.take(now);
            limiter.record_rate_limit(now, now.plus(SECOND));
        }
        assert!(limiter.next_at().since(now) <= SECOND * 10);
    }
}

//! The rate limit.

use jiff::Timestamp;

/// A token bucket that holds one second's worth of requests.
#[derive(Debug, Default)]
pub struct TokenBucket {
    last: Option<(Timestamp, f64)>,
}

impl TokenBucket {
    /// Takes a token, or says in how many whole seconds there will be one.
    pub fn take(&mut self, per_second: u32, now: Timestamp) -> Result<(), u64> {
        let rate = f64::from(per_second);
        let tokens = match self.last {
            Some((at, tokens)) => (tokens + now.duration_since(at).as_secs_f64().max(0.0) * rate).min(rate),
            None => rate,
        };
        let taken = tokens >= 1.0;
        self.last = Some((now, if taken { tokens - 1.0 } else { tokens }));
        if taken { Ok(()) } else { Err(((1.0 - tokens) / rate.max(0.001)).ceil().max(1.0) as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_second_brings_as_many_tokens_as_were_asked_for_and_no_more() {
        let mut bucket = TokenBucket::default();
        let mut now = Timestamp::UNIX_EPOCH;
        assert_eq!([0; 3].map(|_| bucket.take(2, now)), [Ok(()), Ok(()), Err(1)]);
        now += SignedDuration::from_millis(499);
        assert_eq!(bucket.take(2, now), Err(1));
        now += SignedDuration::from_millis(2);
        assert_eq!([0; 2].map(|_| bucket.take(2, now)), [Ok(()), Err(1)]);
        now += SignedDuration::from_secs(60);
        assert_eq!([0; 3].map(|_| bucket.take(2, now)), [Ok(()), Ok(()), Err(1)]);
    }

    #[test]
    fn no_tokens_at_all_is_possible() {
        assert_eq!(TokenBucket::default().take(0, Timestamp::UNIX_EPOCH), Err(1000));
    }
}

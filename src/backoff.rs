//! How long to wait after failures.

use rand::RngExt;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// `Retry-After` is obeyed up to this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The wait after the nth failure in a row: doubling from a second to a minute, with half of it at random, and not
/// less than the server asked for.
pub fn delay(failures: u32, retry_after: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let delay = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let delay = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
    delay.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_a_minute_and_obeys_the_server() {
        for (failures, longest) in [(0, 1), (1, 1), (2, 2), (4, 8), (7, 60), (u32::MAX, 60)] {
            let delay = delay(failures, None);
            assert!(delay <= Duration::from_secs(longest) && delay >= Duration::from_secs(longest) / 2);
        }
        assert_eq!(delay(1, Some(Duration::from_secs(120))), Duration::from_secs(120));
        assert_eq!(delay(1, Some(Duration::from_secs(86_400))), LONGEST_RETRY_AFTER);
    }
}

//! How long Boltz, or whatever answers in its place, may make the operator wait.
//!
//! Input: a first line for the header `retry-after-ms`, the rest for `retry-after`; an empty one is not sent.

use boltz_operator::{boltz::retry_after, plan::backoff::MAX_RETRY_AFTER, retry_delay::delay};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

/// Holds for every input, or panics.
pub fn check(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ["retry-after-ms", "retry-after"] {
        let text = parts.next().unwrap_or_default();
        if let Some(value) = HeaderValue::from_bytes(text).ok().filter(|value| !value.is_empty()) {
            headers.insert(name, value);
        }
    }
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let asked = retry_after(&headers, now);
        for failures in [0, 1, u32::MAX] {
            let wait = delay(failures, asked);
            assert!(wait <= MAX_RETRY_AFTER, "{asked:?} makes it wait for {wait:?}");
            assert!(wait >= asked.unwrap_or_default().min(MAX_RETRY_AFTER), "{wait:?} is before {asked:?}");
        }
    }
}

//! The headers of Boltz's responses, or of whatever answers in its place: the date, how long to wait, the id of the request.
//!
//! Input: lines; the headers `date`, `retry-after-ms`, and the rest `retry-after`. An empty one is not sent.

use boltz_operator::{
    boltz::{date, request_id_of, retry_after},
    plan::backoff::MAX_RETRY_AFTER,
    retry_delay::delay,
};
use http::{HeaderMap, HeaderValue, header::DATE};
use jiff::Timestamp;

/// Holds for every input, or panics.
pub fn check(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ["date", "retry-after-ms", "retry-after"] {
        let text = lines.next().unwrap_or_default();
        if let Some(value) = HeaderValue::from_bytes(text).ok().filter(|value| !value.is_empty()) {
            headers.insert(name, value.clone());
            headers.insert("x-request-id", value);
        }
    }
    let now = date(&headers);
    assert!(now.is_none() || headers.contains_key(DATE));
    // As the client does it: a difference of clocks, and a wait by the clock of the response.
    for own in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let _ = own.as_second() - now.unwrap_or(own).as_second();
        let wait = delay(1, retry_after(&headers, now.unwrap_or(own)));
        assert!(wait <= MAX_RETRY_AFTER, "{headers:?} makes it wait for {wait:?}");
    }
    for secrets in [&[][..], &["sk_bc_secret"]] {
        let id = request_id_of(&headers, secrets).unwrap_or_default();
        assert!(id.len() <= 64 && id.chars().all(|character| character.is_ascii_graphic()), "{id:?}");
        assert!(secrets.iter().all(|secret| !id.contains(secret)), "{id:?}");
    }
}

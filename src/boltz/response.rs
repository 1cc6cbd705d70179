//! What Boltz's responses say.

use super::error::BoltzError;
use crate::scrub::scrub;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

/// Maximum length of Boltz's error message in our errors.
const MAX_MESSAGE_LENGTH: usize = 256;

/// Parses the body of a 2xx response.
pub fn read_answer<T: DeserializeOwned>(body: &[u8]) -> Result<T, BoltzError> {
    // The errors of serde_json quote values, so they are dropped.
    serde_json::from_slice(body).map_err(|_| BoltzError::Unreadable)
}

/// Whether a refused revocation says that the key is revoked.
pub(super) fn says_already(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace('_', " ");
    text.contains("already revoked") || text.contains("already been revoked")
}

/// Converts a response that is not 2xx. The body may come from a proxy, and may repeat the secrets of the request.
pub fn read_refusal(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
    secrets: &[&str],
) -> BoltzError {
    let error = serde_json::from_slice::<ErrorBody>(body).unwrap_or_default();
    let [code, message] = [error.code, error.message].map(|value| printable(&value, secrets));
    BoltzError::Status { status, code, message, retry_after }
}

/// The body of an error. Each field may be missing.
#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: serde_json::Value,
}

/// Only scalar values: an object or array may contain a key.
fn printable(value: &serde_json::Value, secrets: &[&str]) -> String {
    use serde_json::Value;
    let text = match value {
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    scrub(&text, secrets).chars().take(MAX_MESSAGE_LENGTH).collect()
}

/// When the response was sent, by the clock of Boltz or of a gateway in front of it.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(http::header::DATE)?.to_str().ok()?)
}

/// In each of the three forms of RFC 9110, section 5.6.7.
fn http_date(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}

/// `retry-after-ms`, or `retry-after` in seconds or as an HTTP date, as Boltz's SDKs read them (`docs/boltz-api.md`). `now`
/// is what the server's clock says.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number =
        |text: &str| text.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    if let Some(wait) = text("retry-after-ms").and_then(number) {
        return Some(wait / 1000);
    }
    let text = text("retry-after")?;
    number(text).or_else(|| {
        let at = http_date(text)?;
        Some(crate::plan::elapsed(now, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boltz::CreatedKey;
    use http::HeaderValue;

    #[test]
    fn retry_after_in_all_its_forms() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let wait = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            retry_after(&headers, now)
        };
        for (name, value, milliseconds) in [
            ("retry-after-ms", "1500", Some(1500)),
            ("retry-after", "2", Some(2000)),
            ("retry-after", "0.5", Some(500)),
            ("retry-after", "Tue, 24 Nov 2026 10:00:30 GMT", Some(30_000)),
            ("retry-after", "Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("retry-after", "Tuesday, 24-Nov-26 10:00:30 GMT", Some(30_000)),
            ("retry-after", "Tue Nov 24 10:00:30 2026", Some(30_000)),
            ("retry-after", "-1", None),
            ("retry-after", "soon", None),
            ("retry-after", "1e300", None),
            ("retry-after", "NaN", None),
        ] {
            assert_eq!(wait(name, value), milliseconds.map(Duration::from_millis), "{name}: {value}");
        }
    }

    #[test]
    fn a_create_answer_needs_key_and_details() {
        let details = r#"{"id":"k1","created_at":"2026-11-24T10:00:00Z","is_active":true,"later_field":{}}"#;
        assert!(
            serde_json::from_str::<CreatedKey>(&format!(r#"{{"key":"sk","key_details":{details}}}"#)).is_ok()
        );
        for bad in [r#"{"key":"sk"}"#.to_owned(), format!(r#"{{"key_details":{details}}}"#), "[]".to_owned()]
        {
            assert!(serde_json::from_str::<CreatedKey>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_repeats_words_and_no_fields() {
        let told = |body: &str| {
            read_refusal(StatusCode::INTERNAL_SERVER_ERROR, None, body.as_bytes(), &["odd-secret"])
                .to_string()
        };
        let long = format!(r#"{{"message":"{}odd-secret"}}"#, "x".repeat(MAX_MESSAGE_LENGTH - 2));
        assert!(!told(&long).contains("xo"), "a secret across the end is cut after it is replaced");
        let answered = "Boltz responded with 500";
        for (body, words) in [
            (r#"{"code":"INTERNAL","message":"Try\nagain"}"#, " (INTERNAL: Tryagain)"),
            (r#"{"code":17,"message":true,"key":"sk"}"#, " (17: true)"),
            (r#"{"code":{"key":"sk"},"message":[{"key":"sk"}]}"#, ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(told(body), format!("{answered}{words}"), "{body}");
        }
    }

    #[test]
    fn other_words_for_revoked_count() {
        assert!(says_already("This key is already revoked."));
        assert!(says_already("KEY_ALREADY_REVOKED"));
        assert!(says_already("The key has already been revoked"));
        assert!(!says_already("The organization is not active."));
        assert!(!says_already("VALIDATION_ERROR"));
    }
}

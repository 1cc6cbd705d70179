//! The id that a response gives to its request, for the log: whoever asks Boltz about a call has to name it.
//!
//! Boltz documents none (`docs/boltz-api.md`). It, or a gateway in front of it, may send one all the same.

use crate::scrub::scrub;
use http::HeaderMap;
use std::cell::RefCell;

/// In this order.
const HEADERS: [&str; 4] = ["x-request-id", "request-id", "x-amzn-requestid", "cf-ray"];
/// Longer ones are cut.
const MAX_LENGTH: usize = 64;

tokio::task_local! {
    static LAST: RefCell<Option<String>>;
}

/// Does the work, and returns also the id of the last response that came meanwhile.
pub(crate) async fn recorded<T>(work: impl Future<Output = T>) -> (T, Option<String>) {
    let work = async {
        let done = work.await;
        (done, LAST.with(RefCell::take))
    };
    LAST.scope(RefCell::default(), work).await
}

/// Notes the id of this response, if somebody records.
pub(super) fn note(headers: &HeaderMap, secrets: &[&str]) {
    // Outside of a step nobody records.
    let _ = LAST.try_with(|last| *last.borrow_mut() = id(headers, secrets));
}

/// The id in these headers. Scrubbed, because a server may repeat the request; and only what an id consists of.
pub fn id(headers: &HeaderMap, secrets: &[&str]) -> Option<String> {
    let text = HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok())?;
    let is_part = |character: &char| character.is_ascii_alphanumeric() || "-_.:=+/*".contains(*character);
    // What is left out first cannot hide a secret.
    let text: String = text.chars().filter(is_part).collect();
    let id: String = scrub(&text, secrets).chars().filter(is_part).take(MAX_LENGTH).collect();
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[tokio::test]
    async fn the_id_of_the_last_response_is_noted_without_secrets() {
        let secret = "sk_bc_admin_live_1";
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
        };
        for (headers, expected) in [
            (HeaderMap::new(), None),
            (headers("x-request-id", "req_0123-ab"), Some("req_0123-ab")),
            (headers("cf-ray", "8f1-FRA"), Some("8f1-FRA")),
            (headers("x-request-id", " "), None),
        ] {
            let ((), id) = recorded(async { note(&headers, &[secret]) }).await;
            assert_eq!(id.as_deref(), expected, "{headers:?}");
        }
        let long = headers("x-request-id", &"a".repeat(1000));
        assert_eq!(recorded(async { note(&long, &[]) }).await.1.map(|id| id.len()), Some(MAX_LENGTH));
        let ((), id) = recorded(async { note(&headers("x-request-id", secret), &[secret]) }).await;
        assert!(!id.unwrap_or_default().contains(secret));
        let cut = headers("x-request-id", "sk_bc_a\"dmin_l\"ive_1");
        let ((), id) = recorded(async { note(&cut, &[secret]) }).await;
        assert!(!id.unwrap_or_default().contains(secret), "with quotes in it");
        // Nobody records.
        note(&headers("x-request-id", "a"), &[]);
    }
}

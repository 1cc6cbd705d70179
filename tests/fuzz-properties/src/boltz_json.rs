//! Boltz's answers, byte by byte: no body is too strange to be read or refused, and no error tells a key.

use boltz_operator::boltz::{AuthMe, BoltzError, CreatedKey, KeyDetails, KeyPage, read_answer, read_refusal};
use http::StatusCode;
use serde_json::Value;
use std::{error::Error, fmt::Debug};

/// Stands in every field `key` of the body.
const SECRET: &str = "sk_secret_value";

/// Holds for every input, or panics.
pub fn check(body: &[u8]) {
    read_every_way(body);
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return };
    // Where the body holds the value elsewhere too, it is Boltz who says it.
    if value.to_string().contains(SECRET) {
        return;
    }
    plant(&mut value);
    for told in read_every_way(value.to_string().as_bytes()) {
        assert!(!told.contains(SECRET), "a key is told: {told}");
    }
}

/// Everything that a log could show of what the body was read as.
fn read_every_way(body: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |answer: Result<String, BoltzError>| match answer {
        Ok(text) => told.push(text),
        Err(error) => told.extend(words(&error)),
    };
    tell(read_answer::<KeyPage>(body).inspect(bounded_page).map(debug));
    tell(read_answer::<KeyDetails>(body).inspect(bounded).map(debug));
    tell(read_answer::<AuthMe>(body).map(debug));
    tell(read_answer::<CreatedKey>(body).map(|created| {
        let CreatedKey { key, details } = created;
        bounded(&details);
        format!("{key:?} {details:?}")
    }));
    for status in [200, 302, 400, 401, 429, 503] {
        tell(Err(read_refusal(StatusCode::from_u16(status).unwrap(), None, body, &[])));
    }
    told
}

fn bounded_page(page: &KeyPage) {
    assert!(page.data.len() <= 10_000);
    page.data.iter().for_each(bounded);
    assert!(page.last_id.as_ref().is_none_or(|id| id.len() <= 256 && !id.is_empty()));
}

/// What is stored or repeated is short and printable.
fn bounded(details: &KeyDetails) {
    let workspace = details.workspace_id.as_deref().unwrap_or_default();
    for (text, most) in [(details.id.as_str(), 256), (workspace, 128), (&details.key_prefix, 12)] {
        assert!(text.chars().count() <= most && !text.contains(char::is_control), "{text:?}");
    }
}

fn debug(answer: impl Debug) -> String {
    format!("{answer:?}")
}

/// The error and its causes, both ways.
fn words(error: &BoltzError) -> Vec<String> {
    let mut words = Vec::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        words.extend([error.to_string(), format!("{error:?}")]);
        next = error.source();
    }
    words
}

/// Puts the secret wherever a key's value could stand.
fn plant(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "key" {
                    *field = Value::String(SECRET.to_owned());
                } else {
                    plant(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plant),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

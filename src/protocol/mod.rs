//! What is stored outside the process: the marker in a key's name, the ledger on the object, the record on the Secret.
//! `docs/protocol.md` describes the three formats and how they may change.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub mod account_name;
pub(crate) mod digits;
mod display_name;
pub mod ledger;
pub mod marker;
pub mod record;
pub mod secret_data;

/// A longer text is no id. Boltz's ids have about 30 characters.
const MAX_ID_LENGTH: usize = 256;

/// Whether the text can be the id of a key.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_LENGTH
}

/// Fields that this release does not know. A later release wrote them, so they survive a rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OtherFields(BTreeMap<String, Value>);

impl OtherFields {
    /// Drops what no release writes, because users can edit annotations: all of them if they are longer than this, and
    /// those with fractions, which may not be the same after they are read and written again.
    pub(crate) fn bound(&mut self, bytes: usize) {
        if serde_json::to_string(&self.0).map_or(true, |text| text.len() > bytes) {
            self.0.clear();
        }
        self.0.retain(|_, value| !has_fraction(value));
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

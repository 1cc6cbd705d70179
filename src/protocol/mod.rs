//! What is stored outside the process: the marker in a key's name, the ledger on the object, the record on the Secret.
//! `docs/protocol.md` describes the three formats and how they may change.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod ledger;
pub mod marker;
pub mod record;

/// A longer text is no id. Boltz's ids have about 30 characters.
const MAX_ID_LENGTH: usize = 256;

/// Whether the text can be the id of a key.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_LENGTH
}

/// Fields that this release does not know. A later release wrote them, so they survive a rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OtherFields(BTreeMap<String, serde_json::Value>);

impl OtherFields {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// None if they are longer than any release writes: users can edit annotations.
    pub(crate) fn drop_if_longer_than(&mut self, bytes: usize) {
        if !self.is_empty() && serde_json::to_string(&self.0).map_or(true, |text| text.len() > bytes) {
            self.0.clear();
        }
    }
}

//! The ledger: the annotation on the object that lists the attempts that may still have an active key.

use crate::protocol::marker::AttemptId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Maximum number of entries. No key is issued while the ledger is full.
pub const MAX_ENTRIES: usize = 16;

/// One attempt, with the time at which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// The attempt's id.
    pub attempt: AttemptId,
    /// When it was written, by the wall clock of the process that wrote it.
    pub written_at: Timestamp,
}

/// The attempts that may still have an active key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    /// Oldest first.
    pub entries: Vec<LedgerEntry>,
}

impl Ledger {
    /// Reads the annotation. An invalid annotation counts as an empty ledger. Users can edit it, which affects only their
    /// own object.
    pub fn parse(annotation: Option<&str>) -> Self {
        let Some(text) = annotation else { return Self::default() };
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The annotation's text.
    pub fn to_annotation(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the attempt is listed.
    pub fn contains(&self, attempt: &AttemptId) -> bool {
        self.position(attempt).is_some()
    }

    /// The attempt's index. Later attempts have a higher index.
    pub fn position(&self, attempt: &AttemptId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.attempt == *attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let entry = |bits, second| LedgerEntry {
            attempt: AttemptId::from_random(bits),
            written_at: Timestamp::from_second(second).unwrap(),
        };
        let ledger = Ledger { entries: vec![entry(1, 1_800_000_000), entry(2, 1_800_000_060)] };
        assert_eq!(Ledger::parse(Some(&ledger.to_annotation())), ledger);
        assert_eq!(ledger.position(&AttemptId::from_random(2)), Some(1));
        assert!(!ledger.contains(&AttemptId::from_random(3)));
    }

    #[test]
    fn what_cannot_be_read_is_no_ledger() {
        for text in
            ["", "{}", "null", "[{\"attempt\":\"short\",\"writtenAt\":\"2026-01-01T00:00:00Z\"}]", "[[["]
        {
            assert_eq!(Ledger::parse(Some(text)), Ledger::default(), "{text}");
        }
        assert_eq!(Ledger::parse(None), Ledger::default());
    }
}

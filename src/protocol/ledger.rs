//! The ledger: the annotation on the object that lists the attempts that may still have an active key.

use super::OtherFields;
use crate::protocol::{account_name::AccountName, marker::AttemptId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Maximum number of entries. No key is issued while the ledger is full.
pub const MAX_ENTRIES: usize = 16;
/// No process writes more than [`MAX_ENTRIES`]. The limit for reading leaves room for a release that writes more.
const MAX_ENTRIES_READ: usize = 4 * MAX_ENTRIES;
/// Maximum length of the annotation, more than [`MAX_ENTRIES_READ`] entries have.
const MAX_LENGTH: usize = 64 * 1024;
/// Maximum length of the unknown fields of an entry.
const MAX_OTHER_LENGTH: usize = 512;

/// One attempt, with the time at which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Also in the name of the attempt's key, as the last part of its marker.
    pub attempt: AttemptId,
    /// When it was written, by the wall clock of the process that wrote it.
    pub written_at: Timestamp,
    /// The organization whose list shows the key, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The account that it was written for. Absent: that of the flags.
    #[serde(default, skip_serializing_if = "AccountName::is_of_flags")]
    pub account: AccountName,
    /// What later releases wrote into this entry: it survives a rewrite.
    #[serde(flatten)]
    pub other: OtherFields,
}

impl LedgerEntry {
    /// An entry of this release.
    pub fn new(attempt: AttemptId, written_at: Timestamp, organization: Option<String>) -> Self {
        let (account, other) = (AccountName::OF_FLAGS, OtherFields::default());
        Self { attempt, written_at, organization, account, other }
    }

    /// The same for another account.
    #[must_use]
    pub fn of_account(self, account: &AccountName) -> Self {
        Self { account: account.clone(), ..self }
    }
}

/// Why an annotation is no ledger that an operator wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// It is no JSON list of attempts.
    Unreadable,
    /// It is longer than an operator writes.
    TooLong,
}

/// The attempts that may still have an active key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Oldest first: new attempts are added at the end.
    pub entries: Vec<LedgerEntry>,
    /// The annotation was forged, so what it listed is lost: any attempt may have been in it. The plan then takes the
    /// attempts from process memory and Boltz's list, and writes the ledger anew.
    pub forgery: Option<Forgery>,
}

impl Ledger {
    /// A ledger with these entries.
    pub fn new(entries: Vec<LedgerEntry>) -> Self {
        Self { entries, forgery: None }
    }

    /// Reads the annotation. Users can edit it: what cannot be read, or is too long, is not an empty ledger.
    pub fn parse(annotation: Option<&str>) -> Self {
        let Some(text) = annotation else { return Self::default() };
        let forged = |forgery| Self { entries: Vec::new(), forgery: Some(forgery) };
        if text.len() > MAX_LENGTH {
            return forged(Forgery::TooLong);
        }
        let Ok(mut entries) = serde_json::from_str::<Vec<LedgerEntry>>(text) else {
            return forged(Forgery::Unreadable);
        };
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(entry.attempt.clone()));
        if entries.len() > MAX_ENTRIES_READ {
            return forged(Forgery::TooLong);
        }
        for entry in &mut entries {
            entry.other.bound(MAX_OTHER_LENGTH);
        }
        Self::new(entries)
    }

    /// JSON, as release 0.1.0 reads it.
    pub fn to_annotation(&self) -> String {
        serde_json::to_string(&self.entries).unwrap_or_default()
    }

    /// Whether the attempt is listed.
    pub fn contains(&self, attempt: &AttemptId) -> bool {
        self.position(attempt).is_some()
    }

    /// Whether the attempt is listed, or may have been before somebody forged the ledger.
    pub fn may_contain(&self, attempt: &AttemptId) -> bool {
        self.forgery.is_some() || self.contains(attempt)
    }

    /// The attempt's index. Later attempts have a higher index.
    pub fn position(&self, attempt: &AttemptId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.attempt == *attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bits: u64, second: i64) -> LedgerEntry {
        LedgerEntry::new(AttemptId::from_random(bits), Timestamp::from_second(second).unwrap(), None)
    }

    fn text(entries: impl Iterator<Item = LedgerEntry>) -> String {
        Ledger::new(entries.collect()).to_annotation()
    }

    #[test]
    fn round_trip() {
        let ledger = Ledger::new(vec![entry(1, 1_800_000_000), entry(2, 1_800_000_060)]);
        assert_eq!(Ledger::parse(Some(&ledger.to_annotation())), ledger);
        assert_eq!(ledger.position(&AttemptId::from_random(2)), Some(1));
        assert!(!ledger.contains(&AttemptId::from_random(3)));
    }

    #[test]
    fn what_cannot_be_read_is_a_forgery_and_not_an_empty_ledger() {
        for text in [
            "",
            "{}",
            "null",
            "[{\"attempt\":\"short\",\"writtenAt\":\"2026-01-01T00:00:00Z\"}]",
            "[{\"attempt\":\"000000000000\",\"writtenAt\":\"yesterday\"}]",
            "[{\"attempt\":\"000000000000\"}]",
            "[[[",
        ] {
            let ledger = Ledger::parse(Some(text));
            assert_eq!((ledger.entries.len(), ledger.forgery), (0, Some(Forgery::Unreadable)), "{text}");
            assert!(ledger.may_contain(&AttemptId::from_random(7)));
        }
        for absent in [None, Some("[]")] {
            assert_eq!(Ledger::parse(absent), Ledger::default());
        }
    }

    #[test]
    fn what_is_longer_than_operators_write_is_a_forgery() {
        let ledger = |count| Ledger::parse(Some(&text((0..count).map(|bits| entry(bits, 0)))));
        assert_eq!(ledger(64).entries.len(), 64);
        for count in [65, 4000] {
            let forged = ledger(count);
            assert_eq!((forged.entries.len(), forged.forgery), (0, Some(Forgery::TooLong)), "{count}");
        }
        let spaces = " ".repeat(MAX_LENGTH);
        assert_eq!(Ledger::parse(Some(&format!("[]{spaces}"))).forgery, Some(Forgery::TooLong));
    }

    #[test]
    fn an_attempt_that_is_listed_again_counts_once() {
        let ledger = Ledger::parse(Some(&text((0..600).map(|second| entry(second as u64 % 2, second)))));
        assert_eq!(ledger, Ledger::new(vec![entry(0, 0), entry(1, 1)]));
    }
}

//! Which entries the ledger keeps, when a forged one is written anew, and the backoff that follows from the entries.

use super::{
    Decision,
    backoff::Backoff,
    block::{Block, Reason},
    step::Step,
    time::elapsed,
};
use crate::{
    api::annotations::LEDGER_ANNOTATION,
    protocol::ledger::{Forgery, LedgerEntry, MAX_ENTRIES},
};

/// The waits between failed attempts.
const BETWEEN_ATTEMPTS: Backoff = Backoff::from_secs(1, 600);
/// Number of consecutive failures after which the wait no longer grows.
const MAX_COUNTED_FAILURES: usize = 10;

impl Decision<'_> {
    /// Rule 3: keeps entries that may have an active key and, if there is room, entries that only the backoff needs.
    pub(super) fn entries_to_keep(&self) -> Vec<LedgerEntry> {
        let entries = &self.facts.object.ledger.entries;
        let is_open: Vec<bool> = entries
            .iter()
            .map(|entry| !self.facts.is_over(self.settings, self.now, &entry.attempt))
            .collect();
        let open = is_open.iter().filter(|is_open| **is_open).count();
        let room = (MAX_ENTRIES - 1).saturating_sub(open);
        let counted = self.failures().min(MAX_COUNTED_FAILURES).min(room);
        let first_counted = entries.len() - counted;
        entries
            .iter()
            .zip(is_open)
            .enumerate()
            .filter(|(index, (_, is_open))| *is_open || *index >= first_counted)
            .map(|(_, (entry, _))| entry.clone())
            .collect()
    }

    /// Rule 3: a forged ledger is written anew when Boltz's list shows which attempts it has to have.
    pub(super) fn rewrite_ledger(&mut self) -> Option<Step> {
        self.facts.object.ledger.forgery?;
        if let Some(block) = self.lost_attempts() {
            if self.findings.blocked.as_ref() != Some(&block) {
                self.findings.also.push(block);
            }
            return None;
        }
        let entries = self.entries_to_keep();
        // With more, their strays are revoked first.
        if entries.len() > MAX_ENTRIES {
            return None;
        }
        self.attempt(Step::WriteLedger(entries))
    }

    /// Why no key is issued after the ledger was forged, until Boltz's list shows every key of an attempt in it.
    pub(super) fn lost_attempts(&mut self) -> Option<Block> {
        let forgery = self.facts.object.ledger.forgery?;
        let settles_at = self.facts.forgery_settles_at(self.settings, self.now)?;
        self.waits.request_pass(self.facts, settles_at);
        if self.facts.pass_after_forgery(self.settings, self.now).is_some() {
            return None;
        }
        let what = match forgery {
            Forgery::Unreadable => "cannot be read",
            Forgery::TooLong => "is longer than the operator writes it",
        };
        Some(Block {
            reason: Reason::Pending,
            message: format!(
                "The annotation {LEDGER_ANNOTATION} {what}. The operator needs it to find every key that it requested, so \
                 no key is issued until Boltz's list shows which keys this object has. The operator then writes the annotation anew."
            ),
            until: None,
        })
    }

    /// The number of attempts in the ledger since the last successful one. An attempt is successful if the Secret still
    /// contains its key as it was stored, and the key is valid. A key that something alters, deletes or revokes again and
    /// again is no success.
    fn failures(&self) -> usize {
        let facts = self.facts;
        let current = facts.record().filter(|record| facts.value_is_intact() && !self.is_dead(record));
        let current = current.map(|record| &record.attempt);
        let entries = &facts.object.ledger.entries;
        entries.iter().rev().take_while(|entry| current != Some(&entry.attempt)).count()
    }

    /// Rule 11: at most one attempt per backoff step. The backoff is derived from the ledger, so that it survives
    /// restarts.
    pub(super) fn ledger_backoff(&self) -> Option<Block> {
        let facts = self.facts;
        let entries = &facts.object.ledger.entries;
        let failures = self.failures();
        let last = entries.last().filter(|_| failures > 0)?;
        if self.reusable_attempt().is_some() {
            return None;
        }
        let wait = BETWEEN_ATTEMPTS.after(u32::try_from(failures).unwrap_or(u32::MAX));
        let seen = self.first_seen(last.attempt.as_str());
        // A user may have removed the cause.
        let requested_at = facts.memory.requested_at.filter(|at| *at > seen);
        if requested_at.is_some_and(|at| at <= self.now.monotonic) {
            return None;
        }
        // The larger of both clocks: the wall clock may have stepped back.
        let waited = elapsed(last.written_at, self.now.wall).max(self.now.monotonic.since(seen));
        let until = self.now.monotonic.plus(wait.saturating_sub(waited));
        (waited < wait).then(|| Block {
            reason: Reason::Pending,
            message: "An earlier request for a key failed. Waiting before the next request.".to_owned(),
            until: Some(requested_at.map_or(until, |at| at.min(until))),
        })
    }
}

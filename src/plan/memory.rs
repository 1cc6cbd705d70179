//! What this process knows of its own calls, and how their answers change it.

use super::{
    facts::{Block, Facts},
    status::without_transition_times,
    time::Monotonic,
};
use crate::{
    api::{BoltzApiKeySpec, BoltzApiKeyStatus},
    protocol::{marker::AttemptId, record::IssueReason},
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What this process knows of its own calls for one object. It is lost with the process, and nothing may depend on it
/// that the ledger, the record and Boltz's list cannot restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The generation of the spec that the blocks below speak of.
    pub generation: Option<i64>,
    /// When this process first saw an attempt, or a key's id that something names.
    pub first_seen: BTreeMap<String, Monotonic>,
    /// The attempts that this process wrote.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    /// The keys that this process revoked, or learned to be gone when it tried to.
    pub revoked: BTreeSet<String>,
    /// Why minting waits, after a failure.
    pub mint_blocked: Option<Block>,
    /// The generation whose parameters Boltz refused, with its message: no retry until the spec changes.
    pub rejected: Option<(Option<i64>, String)>,
    /// Why storing waits: the Secret's write or its dry run was refused.
    pub store_blocked: Option<Block>,
    /// Why revoking waits, after a failure.
    pub revoke_blocked: Option<Block>,
    /// The key for which workloads were restarted.
    pub restarted_for: Option<String>,
    /// The status that this process last wrote, without the times of its conditions, and when.
    pub reported: Option<(BoltzApiKeyStatus, Monotonic)>,
}

/// An attempt that this process wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Before its writing was sent.
    pub written: Monotonic,
    /// What was asked when it was written.
    pub intent: Intent,
    /// How far it got.
    pub progress: Progress,
}

/// What was asked when an attempt was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Why a key is issued.
    pub reason: IssueReason,
    /// The spec.
    pub spec: BoltzApiKeySpec,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The value of the rotate-now annotation.
    pub rotate_now: Option<String>,
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It may be POSTed, once, inside the window. What surely had no effect returns here.
    Written,
    /// It was POSTed, and the answer is not known. Its key, if there is one, is lost.
    Sent,
    /// Its key is in this process's hands.
    InHand {
        /// What Boltz answered.
        key: MintedKey,
        /// A write of the Secret was sent and may still take effect.
        store_in_doubt: bool,
        /// The write of the Secret was definitely refused.
        refused: bool,
    },
    /// Its key was stored.
    Stored {
        /// What Boltz answered.
        key: MintedKey,
        /// Status has named it.
        reported: bool,
    },
    /// It ended without a key, or with one that was revoked.
    Ended,
}

/// A key as answered on creation, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct MintedKey {
    /// Its id.
    pub id: String,
    /// Its first characters.
    pub prefix: String,
    /// The SHA-256 of its value, hexadecimal.
    pub value_sha256: String,
    /// When it was received.
    pub received_at: Timestamp,
    /// When Boltz created it.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// False in test mode.
    pub livemode: bool,
    /// Its workspace.
    pub workspace_id: Option<String>,
}

impl Memory {
    /// The key that this process minted under the id, and its attempt.
    pub fn minted(&self, id: &str) -> Option<(&AttemptId, &MintedKey)> {
        self.attempts.iter().find_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } | Progress::Stored { key, .. } if key.id == id => {
                Some((attempt, key))
            }
            _ => None,
        })
    }

    /// C1 is about to be sent. Until its answer is there, the attempt counts as one that is never POSTed: it may land,
    /// and is then harmless.
    pub fn writing(&mut self, attempt: AttemptId, intent: Intent, now: Monotonic) {
        self.attempts.insert(attempt, Attempt { written: now, intent, progress: Progress::Ended });
    }

    /// C1 was answered: the attempt may be POSTed.
    pub fn written(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::Written;
            self.first_seen.insert(attempt.to_string(), known.written);
        }
    }

    /// C2 is about to be sent: whatever ends the call, the attempt is not POSTed again.
    pub fn posting(&mut self, attempt: &AttemptId) -> Option<&Attempt> {
        let known = self.attempts.get_mut(attempt)?;
        known.progress = Progress::Sent;
        Some(known)
    }

    /// C2 surely had no effect: the attempt may be POSTed after all.
    pub fn not_posted(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::Written;
        }
    }

    /// C2 was answered with a key.
    pub fn answered(&mut self, attempt: &AttemptId, key: MintedKey) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.progress = Progress::InHand { key, store_in_doubt: false, refused: false };
        }
        self.mint_blocked = None;
        self.rejected = None;
    }

    /// C3 is about to be sent. Says whether an earlier one may still take effect.
    pub fn storing(&mut self, attempt: &AttemptId) -> bool {
        match self.attempts.get_mut(attempt).map(|known| &mut known.progress) {
            Some(Progress::InHand { store_in_doubt, .. }) => std::mem::replace(store_in_doubt, true),
            _ => false,
        }
    }

    /// C3 was answered: the key is stored.
    pub fn stored(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.get_mut(attempt)
            && let Progress::InHand { key, .. } = &known.progress
        {
            known.progress = Progress::Stored { key: key.clone(), reported: false };
        }
    }

    /// C3 failed. `in_doubt`: it, or an earlier one, may still take effect.
    pub fn not_stored(&mut self, attempt: &AttemptId, in_doubt: bool, is_refused: bool) {
        if let Some(Progress::InHand { store_in_doubt, refused, .. }) =
            self.attempts.get_mut(attempt).map(|known| &mut known.progress)
        {
            *store_in_doubt = in_doubt;
            *refused |= is_refused;
        }
    }

    /// C4 was answered: the status is written.
    pub fn reported(&mut self, status: &BoltzApiKeyStatus, now: Monotonic) {
        self.reported = Some((without_transition_times(status), now));
    }

    /// The key is revoked, or known to be gone.
    pub fn revoked(&mut self, key_id: &str) {
        self.revoked.insert(key_id.to_owned());
        self.revoke_blocked = None;
        for known in self.attempts.values_mut() {
            if matches!(&known.progress, Progress::InHand { key, .. } if key.id == key_id) {
                known.progress = Progress::Ended;
            }
        }
    }

    /// The keys in hand: their values are nowhere else.
    pub fn in_hand(&self) -> impl Iterator<Item = (&AttemptId, &MintedKey)> {
        self.attempts.iter().filter_map(|(attempt, known)| match &known.progress {
            Progress::InHand { key, .. } => Some((attempt, key)),
            _ => None,
        })
    }

    /// The keys that nobody else knows of when their object is gone: those in hand, and those that were stored while
    /// it went, so that no status ever named them. A retained object leaves the latter to its Secret.
    pub fn left_behind(&self, is_retained: bool) -> Vec<String> {
        let ids = self.attempts.values().filter_map(|known| match &known.progress {
            Progress::InHand { key, .. } => Some(&key.id),
            Progress::Stored { key, reported: false } if !is_retained => Some(&key.id),
            _ => None,
        });
        ids.filter(|id| !self.revoked.contains(*id)).cloned().collect()
    }

    /// Keeps what something still names or shows, so that a long life does not fill the memory.
    fn forget_what_is_over(&mut self, facts: &Facts) {
        let Self { attempts, revoked, first_seen, .. } = self;
        attempts.retain(|attempt, known| {
            facts.object.ledger.contains(attempt)
                || match &known.progress {
                    Progress::InHand { .. } => true,
                    Progress::Stored { key, .. } => !revoked.contains(&key.id),
                    Progress::Written | Progress::Sent | Progress::Ended => false,
                }
        });
        let named: BTreeSet<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
        let shown = |id: &String| {
            facts.passes.iter().flat_map(|pass| &pass.keys).any(|key| key.id == *id && key.is_active)
        };
        revoked.retain(|id| named.contains(id) || shown(id));
        let to_remember = facts.ids_and_attempts();
        first_seen.retain(|name, _| to_remember.contains(name));
    }

    /// Takes in what the facts show: a key in hand that record or status names has been stored (rule 9), a new
    /// generation of the spec lifts what was held against the old one, and what is seen for the first time is seen now.
    pub fn learn(&mut self, facts: &Facts, now: Monotonic) {
        self.forget_what_is_over(facts);
        for name in facts.ids_and_attempts() {
            self.first_seen.entry(name).or_insert(now);
        }
        if self.generation != facts.object.generation {
            self.generation = facts.object.generation;
            self.store_blocked = None;
            self.mint_blocked = None;
        }
        let status = &facts.object.status;
        let records = facts
            .record()
            .into_iter()
            .chain(facts.other_secrets.iter().filter_map(|secret| secret.record.as_ref()));
        let recorded = |id: &str| records.clone().any(|record| record.names(id));
        for known in self.attempts.values_mut() {
            let (Progress::InHand { key, .. } | Progress::Stored { key, .. }) = &known.progress else {
                continue;
            };
            let reported =
                status.names(&key.id) || matches!(known.progress, Progress::Stored { reported: true, .. });
            if reported || recorded(&key.id) {
                known.progress = Progress::Stored { key: key.clone(), reported };
            }
        }
    }
}

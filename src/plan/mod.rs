//! The pure core: decides everything and does nothing.
//!
//! [`plan`] takes what is known about one object ([`Facts`]) and the present ([`Now`]), and answers one next step. It
//! has no client, no clock and no randomness. The rules are those of `docs/protocol.md`; where a line is there because
//! of one of them, it says so.

mod delete;
mod facts;
mod issue;
mod keys;
mod memory;
mod revoke;
mod schedule;
mod secret;
mod status;
mod time;

use crate::{
    api::BoltzApiKeyStatus,
    protocol::{ledger::LedgerEntry, marker::AttemptId, record::Record},
};
pub use facts::{AccountFacts, Block, Facts, ListedKey, ObjectFacts, OwnSecret, Pass, SecretFacts, Settings};
pub use keys::{KeyState, NamedKey, with_finalizer};
pub use memory::{Attempt, Intent, Memory, MintedKey, Progress};
pub use schedule::Rotation;
use status::without_transition_times;
pub use status::{Findings, Reason, desired_status};
pub use time::{Monotonic, Now, elapsed, later};

/// One next step. Everything that it needs and the facts do not hold stands in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// C0, R0: the Secret's write as a server-side dry run.
    Preflight,
    /// C1, R1: the ledger with these entries and a new attempt, and the finalizer, in one write.
    WriteAttempt {
        /// The entries that stay.
        keep: Vec<LedgerEntry>,
        /// What is asked now.
        intent: Box<Intent>,
    },
    /// C2, R2: the POST.
    Mint(AttemptId),
    /// C3, R3: the key in hand into the Secret, with the record.
    Store {
        /// The attempt whose key it is.
        attempt: AttemptId,
        /// What the Secret then accounts for.
        record: Box<Record>,
    },
    /// C4, R4, R6: the status.
    WriteStatus(Box<BoltzApiKeyStatus>),
    /// R5, D1, strays, compensation: revoke a key. Only ever on live facts.
    Revoke {
        /// Its id.
        key_id: String,
        /// Why.
        reason: RevokeReason,
    },
    /// The finalizer goes back on a live object that has keys.
    AddFinalizer,
    /// The record, around the same value: it then names keys that only status or memory named.
    WriteRecord(Box<Record>),
    /// The Secret of that name is copied to the wanted name.
    MoveSecret {
        /// Where it is now.
        from: String,
    },
    /// A Secret that another one has replaced goes.
    DeleteSecret {
        /// Its name.
        name: String,
        /// Its UID: no other is deleted.
        uid: String,
    },
    /// The Secret gets the wanted data key, template, label and ownerReference around the same value.
    Reshape,
    /// Workloads that read the key from their environment are restarted.
    RestartWorkloads,
    /// Retain: the Secret loses its ownerReference, so that it outlives the object.
    ReleaseSecret {
        /// Its name.
        name: String,
    },
    /// D2: the object may go. Says which key ids stay behind (`deletionPolicy: Retain`).
    DropFinalizer {
        /// Live keys that nobody will revoke.
        staying: Vec<String>,
    },
}

/// Why a key is revoked. The words stand in events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevokeReason {
    /// Its overlap is over.
    OverlapOver,
    /// The annotation `boltz.bio/rotate-now` ended it: it may have leaked.
    RotateNow,
    /// Its overlap was cut short: the record has no room, and a rotation cannot wait.
    OverlapCut,
    /// The object is being deleted.
    Deleted,
    /// Its secret is lost: the answer or the writer was.
    Stray,
    /// It could not be stored.
    NotStored,
}

impl RevokeReason {
    /// One word, in camel case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverlapOver => "OverlapOver",
            Self::RotateNow => "RotateNow",
            Self::OverlapCut => "OverlapCut",
            Self::Deleted => "Deleted",
            Self::Stray => "Stray",
            Self::NotStored => "NotStored",
        }
    }
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub step: Step,
    /// When to decide again if nothing happens.
    pub wake_at: Option<Monotonic>,
    /// A complete pass over Boltz's list, begun at this time or later, would tell more.
    pub pass_since: Option<Monotonic>,
    /// What the decision found.
    pub findings: Findings,
}

/// What a decision waits for, gathered while it is taken.
#[derive(Clone, Debug)]
struct Waits {
    now: Monotonic,
    wake_at: Option<Monotonic>,
    pass_since: Option<Monotonic>,
}

impl Waits {
    /// A time that has passed wakes nobody: the decision would be the same, again and again.
    fn wake_at(&mut self, at: Monotonic) {
        if at <= self.now {
            return;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// A pass begun at `since` or later is wanted: now, or once it can be had.
    fn pass_since(&mut self, facts: &Facts, since: Monotonic) {
        if since > self.now {
            self.wake_at(since);
        } else if facts.passes.first().is_none_or(|pass| pass.started < since) {
            self.pass_since = Some(self.pass_since.map_or(since, |known| known.max(since)));
        }
    }

    fn blocked(&mut self, block: &Block) {
        if let Some(until) = block.until {
            self.wake_at(until);
        }
    }
}

/// Decides the next step for one object.
pub fn plan(facts: &Facts, settings: &Settings, now: Now) -> Plan {
    let waits = Waits { now: now.monotonic, wake_at: None, pass_since: None };
    let mut decision = Decision { facts, settings, now, waits, findings: Findings::default() };
    let step = if facts.object.deleting { decision.deletion() } else { decision.life() };
    let Decision { waits, findings, .. } = decision;
    Plan { step, wake_at: waits.wake_at, pass_since: waits.pass_since, findings }
}

/// A decision while it is taken. Its methods stand beside this file, one subject each.
struct Decision<'a> {
    facts: &'a Facts,
    settings: &'a Settings,
    now: Now,
    waits: Waits,
    findings: Findings,
}

impl Decision<'_> {
    /// The steps of an object that is wanted, most pressing first.
    fn life(&mut self) -> Step {
        if !self.facts.object.has_finalizer && self.facts.has_something_to_revoke() {
            return Step::AddFinalizer;
        }
        if let Some(step) = self.keys_in_hand() {
            return step;
        }
        match self.facts.object.spec.as_ref().map_err(Clone::clone).and_then(Rotation::read) {
            Ok(rotation) => {
                if let Some(step) = self.issue(&rotation).or_else(|| self.secret(&rotation)) {
                    return step;
                }
            }
            Err(message) => {
                self.findings.blocked = Some(Block { reason: Reason::InvalidSpec, message, until: None });
            }
        }
        self.restart_workloads()
            .or_else(|| self.revocations())
            .or_else(|| self.status())
            .unwrap_or(Step::Wait)
    }

    /// Restarts come before the status that reports the rotation: until then they are known to be owed.
    fn restart_workloads(&self) -> Option<Step> {
        let record = self.facts.trusted_record(self.settings, self.now)?;
        let reported = self.facts.object.status.key_id.as_ref()?;
        let spec = self.facts.object.spec.as_ref().ok()?;
        let owed = *reported != record.key_id
            && !spec.rollout_restart_targets.is_empty()
            && self.facts.memory.restarted_for.as_ref() != Some(&record.key_id);
        owed.then_some(Step::RestartWorkloads)
    }

    /// The status, unless it is as it should be. What somebody else has overwritten is not said again at once: two
    /// leaders that know different things would write against each other for ever.
    fn status(&mut self) -> Option<Step> {
        let desired = desired_status(self.facts, self.settings, self.now, &self.findings);
        if desired == self.facts.object.status {
            return None;
        }
        if let Some((said, at)) = &self.facts.memory.reported {
            let again = at.plus(self.settings.recheck);
            if self.now.monotonic < again && *said == without_transition_times(&desired) {
                self.waits.wake_at(again);
                return None;
            }
        }
        Some(Step::WriteStatus(Box::new(desired)))
    }

    /// Whether a block still holds.
    fn holds(&self, block: Option<&Block>) -> bool {
        block.is_some_and(|block| block.until.is_none_or(|until| self.now.monotonic < until))
    }
}

//! The decision core: pure functions without I/O.
//!
//! [`plan`] takes what is known about one object ([`Facts`]) and the current time ([`Now`]), and returns the next step.
//! It has no client, no clock and no randomness. Comments name the rule of `docs/protocol.md` that a line implements.
//!
//! The first steps of a new object:
//!
//! ```
//! use boltz_operator::plan::{
//!     AccountFacts, Facts, Monotonic, Now, ObjectFacts, ProcessMemory, SecretFacts, Settings, Step, plan,
//! };
//! use std::time::Duration;
//!
//! let object = ObjectFacts {
//!     namespace: "team-a".to_owned(),
//!     name: "design".to_owned(),
//!     uid: "550e8400-e29b-41d4-a716-446655440000".to_owned(),
//!     resource_version: "1".to_owned(),
//!     generation: Some(1),
//!     deleting: false,
//!     has_finalizer: false,
//!     finalizers: Vec::new(),
//!     spec: Ok(serde_json::from_str(r#"{"expiresInDays": 90}"#)?),
//!     ledger: Default::default(),
//!     rotate: None,
//!     rotates_outside_window: false,
//!     retry: None,
//!     rotate_now: None,
//!     is_paused: false,
//!     deletion_policy: None,
//!     retain_is_forbidden: false,
//!     status: Default::default(),
//! };
//! let mut facts = Facts {
//!     object,
//!     secret: SecretFacts::Absent,
//!     other_secrets: Vec::new(),
//!     live: false,
//!     preflight_passed: false,
//!     passes: Vec::new(),
//!     memory: ProcessMemory::default(),
//!     account: AccountFacts::default(),
//! };
//! let settings = Settings { settle_time: Duration::from_secs(120), recheck: Duration::from_secs(60) };
//! let now = Now { wall: jiff::Timestamp::now(), monotonic: Monotonic::default() };
//!
//! // C0: a dry run shows whether the Secret can be created.
//! assert_eq!(plan(&facts, &settings, now).step, Step::Preflight);
//!
//! // C1: one write adds the finalizer and a new attempt. Only then is a key requested from Boltz.
//! facts.preflight_passed = true;
//! assert!(matches!(plan(&facts, &settings, now).step, Step::WriteAttempt { .. }));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod account;
mod account_status;
mod adopt;
mod answer;
mod apply;
mod attempt;
pub mod backoff;
mod block;
mod check;
mod delete;
mod effects;
mod facts;
mod failing;
mod issue;
mod keys;
mod learn;
mod ledger_entries;
mod memory;
mod quiet;
mod received;
mod response;
mod restart;
mod retry;
mod revoke;
mod rollout;
mod schedule;
mod secret;
mod settings;
mod settled;
mod status;
mod step;
mod time;
mod undone;
mod window;

pub use account::{AccountPolicy, ChosenAccount, DefaultAccount, LiveKeys, outlasts_limit};
pub use account_status::{AccountState, AdminKeyReport, PassReport};
pub use adopt::Adoptable;
pub use answer::{
    Answer, ApiFailure, BoltzErrorKind, BoltzFailure, Effect, KeyCheck, Requested, Unusable, Verdict,
};
pub use attempt::{Attempt, Intent, MintedKey, Ownership, Progress};
pub use block::{Block, Reason};
pub use effects::{Count, Effects, EventKind, EventNote, LogLine};
pub use facts::{AccountFacts, Doubt, Facts, ListedKey, ObjectFacts, OwnSecret, Pass, SecretFacts};
pub use keys::{KeyState, NamedKey, with_finalizer};
pub use memory::{CheckedKey, ProcessMemory, Proof, Trouble};
pub use response::{Found, Shown};
pub use rollout::{Rollout, Workload};
pub use schedule::RotationSchedule;
pub use settings::Settings;
pub use status::{Findings, NO_KEY_OVERDUE, OverdueKey, desired_status};
pub use step::{RevokeReason, Slot, Step};
pub use time::{Monotonic, Now, elapsed, later};
pub use window::{Opening, Window};

use crate::api::BoltzApiKeyStatus;
use memory::TOLD_AFTER;
use retry::{Failure, retry_backoff};

/// The decision for one object: one step, and until when it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// At most one call that changes something.
    pub step: Step,
    /// When to reconcile again if no event arrives.
    pub wake_at: Option<Monotonic>,
    /// Request for a pass over Boltz's list that begins at this time or later.
    pub pass_since: Option<Monotonic>,
    /// What the status reports of the decision.
    pub findings: Findings,
}

/// What a decision waits for, collected while it is made.
#[derive(Clone, Debug)]
struct Waits {
    now: Monotonic,
    wake_at: Option<Monotonic>,
    pass_since: Option<Monotonic>,
}

impl Waits {
    /// Ignores times in the past; otherwise the object would be requeued immediately, without end.
    fn request_wake_up(&mut self, at: Monotonic) {
        if at <= self.now {
            return;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Requests a pass that begins at `since` or later. Before that time, only a wake-up.
    fn request_pass(&mut self, facts: &Facts, since: Monotonic) {
        if since > self.now {
            self.request_wake_up(since);
        } else if facts.passes.first().is_none_or(|pass| pass.started < since) {
            self.pass_since = Some(self.pass_since.map_or(since, |known| known.max(since)));
        }
    }

    fn wait_for(&mut self, block: &Block) {
        if let Some(until) = block.until {
            self.request_wake_up(until);
        }
    }
}

/// Decides the next step for one object.
pub fn plan(facts: &Facts, settings: &Settings, now: Now) -> Plan {
    let first = decide(facts, settings, now, &[]);
    // What failed may hang. So first come all other duties and the status, then calls of a kind of which one hangs.
    for alike in [true, false] {
        let comes_last = |slot: &Slot| {
            // A key in hand has to be stored within its window, and the status tells the rest. Of the calls that issue a
            // key only one at a time can hang.
            !matches!(slot, Slot::Preflight | Slot::Ledger | Slot::Mint | Slot::Store | Slot::Status)
                && (facts.memory.has_failed(slot, now.monotonic)
                    || (alike && facts.memory.hangs_like(slot, now.monotonic)))
        };
        let mut next = first.clone();
        let mut held_back: Vec<Slot> = Vec::new();
        while let Some(slot) = next.step.slot().filter(comes_last)
            && !held_back.contains(&slot)
        {
            held_back.push(slot);
            next = decide(facts, settings, now, &held_back);
        }
        if next.step != Step::Wait {
            return next;
        }
    }
    first
}

/// The decision if the calls of these slots have to wait although nothing blocks them any more.
fn decide(facts: &Facts, settings: &Settings, now: Now, held_back: &[Slot]) -> Plan {
    let mut waits = Waits { now: now.monotonic, wake_at: None, pass_since: None };
    if let Some(at) = facts.memory.retries_at() {
        waits.request_wake_up(at);
    }
    let findings = Findings::default();
    let mut decision = Decision {
        facts,
        settings,
        now,
        held_back,
        waits,
        findings,
        key_in_hand_waits: false,
        ledger_is_full: false,
    };
    let step = decision.next_step();
    let Decision { waits, findings, .. } = decision;
    Plan { step, wake_at: waits.wake_at, pass_since: waits.pass_since, findings }
}

/// A decision while it is made. Its methods are in the files of this folder, one subject each.
struct Decision<'a> {
    facts: &'a Facts,
    settings: &'a Settings,
    now: Now,
    held_back: &'a [Slot],
    waits: Waits,
    findings: Findings,
    /// The Secret of a key in hand cannot be written now: no other key is issued.
    key_in_hand_waits: bool,
    /// No key can be issued before attempts leave the ledger. Their strays may have to be revoked first.
    ledger_is_full: bool,
}

impl Decision<'_> {
    fn next_step(&mut self) -> Step {
        if self.facts.has_unread_value()
            && let Some(step) = self.attempt(Step::ReadLive)
        {
            return step;
        }
        if self.facts.object.deleting { self.deletion() } else { self.maintenance() }
    }

    /// The next step of an object that is not being deleted, in order of priority. A step that has to wait does not
    /// delay the others.
    fn maintenance(&mut self) -> Step {
        if !self.facts.object.has_finalizer
            && self.facts.has_something_to_revoke()
            && let Some(step) = self.attempt(Step::AddFinalizer)
        {
            return step;
        }
        if let Some(step) = self.keys_in_hand() {
            return step;
        }
        if let Some(step) = self.release_secret() {
            return step;
        }
        let spec = self.facts.object.spec.as_ref().map_err(Clone::clone);
        let checked =
            spec.and_then(|spec| spec.secret.check_type().and_then(|()| RotationSchedule::read(spec)));
        match checked {
            Ok(rotation) => {
                // What can be done without these parts is done.
                let data_error =
                    self.facts.object.spec.as_ref().ok().and_then(|spec| spec.secret.data_error());
                let errors = rotation.window_error.clone().into_iter().chain(data_error);
                let invalid = |message| Block { reason: Reason::InvalidSpec, message, until: None };
                self.findings.also.extend(errors.map(invalid));
                let issue = if self.key_in_hand_waits { None } else { self.issue(&rotation) };
                if let Some(step) = issue.or_else(|| self.secret(&rotation)) {
                    return step;
                }
            }
            Err(message) => {
                self.findings.blocked = Some(Block { reason: Reason::InvalidSpec, message, until: None });
            }
        }
        self.report_account();
        self.revocations()
            .or_else(|| self.rewrite_ledger())
            .or_else(|| self.restart_workloads())
            .or_else(|| self.read_rollouts())
            .or_else(|| self.status())
            .unwrap_or(Step::Wait)
    }

    /// The one place that checks whether a step may run now: not while its slot is blocked, and not shortly after it
    /// was done and something undid it. If the facts are known to be stale, and before every revocation (rule 8), the
    /// live read comes first.
    fn attempt(&mut self, step: Step) -> Option<Step> {
        let Some(slot) = step.slot() else { return Some(step) };
        if let Some(trouble) = self.trouble(&slot) {
            let trouble = trouble.clone();
            self.waits.wait_for(&trouble.block);
            if matches!(slot, Slot::Rollout(_)) {
                // `status.restarts` says it.
                return None;
            }
            if !trouble.is_told(self.now.monotonic) {
                self.waits.request_wake_up(trouble.since.plus(TOLD_AFTER));
            } else if !self.findings.also.contains(&trouble.block) {
                self.findings.also.push(trouble.block);
            }
            return None;
        }
        if self.held_back.contains(&slot) {
            return None;
        }
        if let Some(again_at) = self.undone_until(&step, &slot) {
            self.waits.request_wake_up(again_at);
            // Once may be a user. A status that is undone cannot report anything.
            let repeats = self.facts.memory.done.get(&slot).map_or(0, |last| last.repeats);
            if repeats > 0 && slot != Slot::Status {
                self.findings.also.push(Block {
                    reason: slot.failure_reason(),
                    message: format!(
                        "{} again and again: something undoes the change. Check admission webhooks, policies and other \
                         controllers. The operator will retry.",
                        slot.failure()
                    ),
                    until: Some(again_at),
                });
            }
            return None;
        }
        let wants_read = self.facts.memory.must_read || matches!(step, Step::Revoke { .. });
        if step == Step::ReadLive || self.facts.live || !wants_read {
            return Some(step);
        }
        // The status is written without the read: it reports that the read fails.
        let read = self.attempt(Step::ReadLive);
        read.or_else(|| matches!(step, Step::WriteStatus(_)).then_some(step))
    }

    /// The failure that blocks the slot now, or because of which its call comes last.
    fn trouble(&self, slot: &Slot) -> Option<&Trouble> {
        let memory = &self.facts.memory;
        let last = || memory.troubles.get(slot).filter(|_| self.held_back.contains(slot));
        memory.trouble(slot, self.now.monotonic).or_else(last)
    }

    /// Until when a step waits because it was done before and something undid it.
    fn undone_until(&self, step: &Step, slot: &Slot) -> Option<Monotonic> {
        let last = self.facts.memory.done.get(slot)?;
        if step.fingerprint(self.facts) != Some(last.fingerprint) {
            return None;
        }
        let backoff = retry_backoff(slot, Failure::Undone, self.settings);
        let again_at = last.at.plus(backoff.after(last.repeats.saturating_add(1)));
        (self.now.monotonic < again_at).then_some(again_at)
    }

    /// The turn to issue a key is about to come. The status that follows then is enough, if until then `Ready` stays as it is.
    fn is_about_to_issue(&self, desired: &BoltzApiKeyStatus) -> bool {
        let waits_shortly =
            self.findings.blocked.as_ref().is_some_and(|block| block.reason == Reason::Pending);
        let stays = self.facts.object.status.is_ready() == desired.is_ready();
        self.findings.wants_turn.is_some() && waits_shortly && stays
    }

    /// Writes the status if it differs.
    fn status(&mut self) -> Option<Step> {
        let desired = desired_status(self.facts, self.settings, self.now, &self.findings);
        if desired == self.facts.object.status || self.is_about_to_issue(&desired) {
            return None;
        }
        self.attempt(Step::WriteStatus(Box::new(desired)))
    }
}

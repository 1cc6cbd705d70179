//! Restarts of workloads that read the key from an environment variable, and how far their rollouts are.

use super::{
    Decision,
    answer::ApiFailure,
    backoff::Backoff,
    effects::{Effects, EventKind},
    facts::{Doubt, Facts},
    keys::NamedKey,
    memory::ProcessMemory,
    revoke::IDLE,
    rollout::Rollout,
    schedule::RotationSchedule,
    step::{Slot, Step},
    time::{Monotonic, Now, later},
};
use crate::{
    api::{OverlapPolicy, RestartState, RestartStatus, RolloutRestartTarget},
    protocol::record::Record,
};
use std::time::Duration;

/// A rollout that has not ended is read after this time, and then ever less often.
const FIRST_READ: Duration = Duration::from_secs(2);
/// At least so often while a previous key is valid.
const LONGEST_BETWEEN_READS: Duration = Duration::from_secs(600);
/// At least so often when none is.
const LONGEST_AFTER_OVERLAP: Duration = Duration::from_secs(3600);

/// What this process knows of a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// The key that the workload has to load.
    pub(super) key_id: String,
    /// How far the rollout is.
    pub(super) rollout: Rollout,
    /// When that was seen last.
    at: Monotonic,
    /// How often it was read.
    pub(super) reads: u32,
}

impl Facts {
    /// Workloads that still use an older key, and the key that they have to load: all targets as long as the status names
    /// the older key or, of a first key that replaced another value, none; then those that the status lists as pending.
    pub fn pending_restarts(&self) -> Vec<(RolloutRestartTarget, String)> {
        let Some(record) = self.record() else { return Vec::new() };
        let reported = self.object.status.key_id.as_ref();
        // Without a key before, workloads wait for the Secret, unless they had another value.
        let is_new = reported.map_or(record.replaced_value, |reported| *reported != record.key_id);
        self.targets()
            .filter(|target| is_new || self.object.status.pending_restarts.contains(target))
            .filter(|target| self.known_restart(target, record).is_none())
            .map(|target| (target.clone(), record.key_id.clone()))
            .collect()
    }

    fn targets(&self) -> impl Iterator<Item = &RolloutRestartTarget> {
        self.object.spec.iter().flat_map(|spec| &spec.rollout_restart_targets)
    }

    /// What this process knows of the restart for the current key.
    fn known_restart(&self, target: &RolloutRestartTarget, record: &Record) -> Option<&Restart> {
        let known = self.memory.restarts.get(&target.to_string());
        known.filter(|known| known.key_id == record.key_id)
    }

    /// What the status says of it.
    fn reported_restart(&self, target: &RolloutRestartTarget, record: &Record) -> Option<&RestartStatus> {
        self.object.status.restarts.iter().find(|restart| restart.is_of(target, &record.key_id))
    }

    /// What the status says of the restarts for the current key.
    pub(super) fn desired_restarts(&self) -> Vec<RestartStatus> {
        if self.memory.lacks_value_sha256 {
            // An older CRD has neither field.
            return Vec::new();
        }
        // They have to wait until there is a Secret and a spec.
        let (Some(record), Ok(_)) = (self.record(), &self.object.spec) else {
            return self.object.status.restarts.clone();
        };
        let restart = |target| {
            let Some(known) = self.known_restart(target, record) else {
                return self.reported_restart(target, record).cloned();
            };
            let ((state, message), key_id) = (known.rollout.told(), known.key_id.clone());
            Some(RestartStatus { kind: target.kind, name: target.name.clone(), key_id, state, message })
        };
        self.targets().filter_map(restart).collect()
    }

    /// Workloads that may still have pods with an older key, because their restart has not ended. Not those that the operator
    /// may not restart or may not read: whoever withheld the permission restarts them, and only Boltz's list shows when.
    pub(crate) fn unfinished_restarts(&self) -> Vec<String> {
        let Some(record) = self.record() else { return Vec::new() };
        let pending = self.pending_restarts();
        let is_forbidden = |target: &RolloutRestartTarget| {
            let slots = [Slot::Restart(target.to_string()), Slot::Rollout(target.to_string())];
            slots
                .iter()
                .any(|slot| self.memory.troubles.get(slot).is_some_and(|trouble| trouble.is_forbidden))
        };
        let is_unfinished = |target: &&RolloutRestartTarget| match self.known_restart(target, record) {
            Some(known) => !known.rollout.is_final(),
            // Until this process has read it, what another one saw counts.
            None => {
                let reported = self.reported_restart(target, record);
                pending.iter().any(|(pending, _)| pending == *target)
                    || reported.is_some_and(|reported| reported.state != RestartState::Done)
            }
        };
        let watched = self.targets().filter(|target| !is_forbidden(target));
        watched.filter(is_unfinished).map(ToString::to_string).collect()
    }

    /// When the rollout of that target is to be read. `None`: there is no need.
    fn rollout_read_at(&self, target: &RolloutRestartTarget, record: &Record) -> Option<Monotonic> {
        let Some(known) = self.known_restart(target, record) else {
            let reported = self.reported_restart(target, record);
            let may_end_early = || self.ends_early() && !self.object.status.previous_keys.is_empty();
            let is_wanted =
                reported.is_some_and(|known| known.state != RestartState::Done) || may_end_early();
            return is_wanted.then_some(Monotonic::default());
        };
        if known.rollout.is_final() {
            return None;
        }
        let longest = match self.object.status.previous_keys.is_empty() {
            true => LONGEST_AFTER_OVERLAP,
            false => LONGEST_BETWEEN_READS,
        };
        // Many workloads together are not read more often than one.
        let open = self.memory.restarts.values().filter(|restart| !restart.rollout.is_final()).count();
        let longest = longest.saturating_mul(u32::try_from(open).unwrap_or(u32::MAX));
        Some(known.at.plus(Backoff { first: FIRST_READ, longest }.after(known.reads.saturating_add(1))))
    }

    /// `UntilRolledOut`: whether an overlap may end before its time.
    pub(super) fn ends_early(&self) -> bool {
        let spec = self.object.spec.as_ref();
        spec.is_ok_and(|spec| spec.rotation.overlap_policy == OverlapPolicy::UntilRolledOut)
    }

    /// If all targets have pods of the current key only: from when on a pass shows every use of an older one. Only what
    /// this process saw itself counts: users can edit the status.
    fn rolled_out_from(&self, settle_time: Duration) -> Option<Monotonic> {
        let record = self.record()?;
        let from = |target| match self.known_restart(target, record)? {
            Restart { rollout: Rollout::Done(grace), at, .. } => Some(at.plus(settle_time.max(*grace))),
            _ => None,
        };
        let all: Option<Vec<Monotonic>> = self.targets().map(from).collect();
        all?.into_iter().max()
    }
}

impl Decision<'_> {
    /// One restart. A workload that cannot be restarted now stays in the status and does not delay anything else.
    pub(super) fn restart_workloads(&mut self) -> Option<Step> {
        self.facts.trusted_record(self.settings, self.now)?;
        if self.facts.object.is_paused {
            return None;
        }
        let pending = self.facts.pending_restarts();
        pending
            .into_iter()
            .find_map(|(target, key_id)| self.attempt(Step::RestartWorkload { target, key_id }))
    }

    /// Reads one rollout that has not ended yet, if it is time.
    pub(super) fn read_rollouts(&mut self) -> Option<Step> {
        let facts = self.facts;
        let record = facts.record()?;
        let pending = facts.pending_restarts();
        for target in facts.targets() {
            if pending.iter().any(|(pending, _)| pending == target) {
                continue;
            }
            let Some(at) = facts.rollout_read_at(target, record) else { continue };
            if at > self.now.monotonic {
                self.waits.request_wake_up(at);
                continue;
            }
            let (target, key_id) = (target.clone(), record.key_id.clone());
            if let Some(step) = self.attempt(Step::ReadRollout { target, key_id }) {
                return Some(step);
            }
        }
        None
    }

    /// Rule 8, `UntilRolledOut`: whether the overlap of the key may end before its time. Every target has completed the
    /// rollout of the current key, both attempts are settled, and a pass that began afterwards shows the key idle.
    pub(super) fn is_rolled_out(&mut self, key: &NamedKey) -> bool {
        let facts = self.facts;
        let (Some(record), Ok(spec)) = (facts.trusted_record(self.settings, self.now), &facts.object.spec)
        else {
            return false;
        };
        let (Some(from), Ok(rotation)) =
            (facts.rolled_out_from(self.settings.settle_time), RotationSchedule::read(spec))
        else {
            return false;
        };
        if !facts.ends_early()
            || facts.may_be_in_a_secret(&key.id)
            || self.in_effect(&facts.account.calls_blocked).is_some()
        {
            return false;
        }
        let settled_at = facts.settled_at(self.settings, self.now, &record.attempt);
        let from = from.max(settled_at).max(self.key_settles_at(key));
        let Some(listed) = facts.listed(&key.id) else {
            self.waits.request_pass(facts, from);
            return false;
        };
        let idle_from = listed.last_used_at.map(|time| later(time, IDLE.min(rotation.overlap)));
        let shows_idle = facts.passes.first().is_some_and(|pass| {
            pass.doubt == Doubt::None
                && pass.started >= from
                && idle_from.is_none_or(|idle_from| idle_from <= pass.started_at)
        });
        if !shows_idle {
            let idle_from = idle_from.map_or(from, |idle_from| self.now.monotonic_at(idle_from).max(from));
            self.waits.request_pass(facts, idle_from);
        }
        shows_idle
    }
}

impl ProcessMemory {
    /// The workload was restarted, or a read has shown how far it is.
    pub(super) fn saw_rollout(
        &mut self,
        target: &RolloutRestartTarget,
        key_id: &str,
        rollout: Rollout,
        now: Now,
    ) {
        let name = target.to_string();
        let before = self.restarts.get(&name).filter(|before| before.key_id == key_id);
        // The step of a restart comes first, and is not counted.
        let reads = before.map_or(0, |before| before.reads.saturating_add(1));
        let at = now.monotonic;
        self.restarts.insert(name, Restart { key_id: key_id.to_owned(), rollout, at, reads });
    }

    /// The same, and says so if that is news.
    pub(super) fn read_rollout(
        &mut self,
        target: &RolloutRestartTarget,
        key_id: &str,
        rollout: Rollout,
        facts: &Facts,
        now: Now,
        effects: &mut Effects,
    ) {
        let reported = facts.object.status.restarts.iter().find(|restart| restart.is_of(target, key_id));
        let known = self.restarts.get(&target.to_string()).filter(|known| known.key_id == key_id);
        let before = known.map(|known| known.rollout.told());
        let before = before.or_else(|| reported.map(|known| (known.state, known.message.clone())));
        let (state, message) = rollout.told();
        if before != Some((state, message.clone())) {
            match (state, message) {
                (RestartState::Done, _) => {
                    let note = format!("All pods of {target} have key {key_id}.");
                    effects.event(EventKind::Normal, "RolledOut", note);
                }
                (_, Some(message)) => {
                    let note = format!("The restart of {target} for key {key_id} has not ended. {message}");
                    effects.event(EventKind::Warning, "NotRolledOut", note);
                }
                _ => {}
            }
        }
        self.saw_rollout(target, key_id, rollout, now);
    }

    /// A read failed, and not only for a moment.
    pub(super) fn cannot_read_rollout(
        &mut self,
        step: &Step,
        failure: &ApiFailure,
        facts: &Facts,
        now: Now,
        effects: &mut Effects,
    ) {
        if let Step::ReadRollout { target, key_id } = step {
            let why = failure.message.trim_end_matches('.').to_owned();
            self.read_rollout(target, key_id, Rollout::Unreadable(why), facts, now, effects);
        }
    }
}

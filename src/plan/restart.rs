//! Restarts of workloads that read the key from an environment variable.

use super::{Decision, facts::Facts, step::Step};
use crate::api::RolloutRestartTarget;

impl Facts {
    /// Workloads that still use an older key, and the key that they have to load: all targets as long as the status names
    /// the older key, then those that the status lists as pending.
    pub fn pending_restarts(&self) -> Vec<(RolloutRestartTarget, String)> {
        let (Some(record), Some(reported), Ok(spec)) =
            (self.record(), &self.object.status.key_id, &self.object.spec)
        else {
            return Vec::new();
        };
        let is_new = *reported != record.key_id;
        let targets = spec.rollout_restart_targets.iter();
        targets
            .filter(|target| is_new || self.object.status.pending_restarts.contains(target))
            .filter(|target| self.memory.restarted.get(&target.to_string()) != Some(&record.key_id))
            .map(|target| (target.clone(), record.key_id.clone()))
            .collect()
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
}

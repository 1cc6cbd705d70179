//! Whether the next pass over Boltz's list can matter to an object.

use super::{
    Plan, Step,
    attempt::Progress,
    facts::{Doubt, Facts, Pass},
    settings::Settings,
    status::Findings,
};

impl Facts {
    /// Whether the object is quiet after this decision: a new pass that shows the same keys of it changes nothing, so it
    /// need not be reconciled. The times of passes are compared only with moments that this process remembers. Once both
    /// passes began after all of these, every such comparison has its last result.
    pub fn is_quiet(&self, settings: &Settings, decision: &Plan) -> bool {
        let ([_, before], Some(record)) = (self.passes.as_slice(), self.record()) else { return false };
        let (object, memory) = (&self.object, &self.memory);
        let has_only_the_current_key = |pass: &Pass| {
            let active = pass.keys.iter().filter(|key| key.is_active).map(|key| &key.id);
            pass.doubt == Doubt::None && pass.under_other_names.is_empty() && active.eq([&record.key_id])
        };
        let is_settled = |progress: &Progress| matches!(progress, Progress::Stored { .. } | Progress::Ended);
        let written = memory.attempts.values().map(|known| known.written);
        let last_moment = memory.first_seen.values().copied().chain(written).max().unwrap_or_default();
        decision.step == Step::Wait
            && decision.pass_since.is_none()
            && decision.findings == Findings::default()
            && !object.deleting
            && object.ledger.forgery.is_none()
            && object.status.key_id.as_ref() == Some(&record.key_id)
            && object.status.previous_keys.is_empty()
            && record.previous.is_empty()
            && self.other_secrets.is_empty()
            && memory.revoked_ids.is_empty()
            && memory.perhaps_revoked.is_empty()
            && memory.check_of(&record.key_id).is_none()
            && memory.attempts.values().all(|known| is_settled(&known.progress))
            && self.passes.iter().all(has_only_the_current_key)
            && last_moment.plus(settings.settling()) <= before.started
    }
}

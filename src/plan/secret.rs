//! The Secret's shape: its name, data key, template and ties, and keys that its record must name.

use super::{Block, Decision, KeyState, NamedKey, Reason, Rotation, SecretFacts, Step, time::later};
use crate::protocol::record::{Record, template_hash};

impl Decision<'_> {
    /// Brings the Secret into the wanted shape, without a new key.
    pub(super) fn secret(&mut self, rotation: &Rotation) -> Option<Step> {
        let facts = self.facts;
        let spec = facts.object.spec.as_ref().ok()?;
        let record = facts.trusted_record(self.settings, self.now)?;
        let own = match &facts.secret {
            SecretFacts::Ours(own) => own,
            SecretFacts::Absent | SecretFacts::Foreign(_) => {
                let block = match (&facts.secret, &facts.memory.store_blocked) {
                    (SecretFacts::Foreign(whose), _) => Some(Block {
                        reason: Reason::SecretConflict,
                        message: whose.clone(),
                        until: Some(self.now.monotonic.plus(self.settings.recheck)),
                    }),
                    (_, block) => block.clone().filter(|block| self.holds(Some(block))),
                };
                if let Some(block) = block {
                    self.waits.blocked(&block);
                    self.findings.blocked = Some(block);
                    return None;
                }
                return facts
                    .other_secrets
                    .first()
                    .map(|other| Step::MoveSecret { from: other.name.clone() });
            }
        };
        // Rule 2: before status forgets a key that only it, memory or a replaced Secret names, the record names it.
        // Of status's previous keys those that Boltz is known to take: of the others one hears with the next pass.
        let end = later(self.now.wall, rotation.overlap);
        let living: Vec<NamedKey> = facts
            .named_keys()
            .into_iter()
            .filter(|key| key.id != record.key_id && facts.may_live(self.settings, self.now, key))
            .filter(|key| {
                record.names(&key.id)
                    || key.revoke_after.is_none()
                    || facts.key_state(self.settings, self.now, &key.id, key.attempt.as_ref())
                        == KeyState::Active
            })
            .collect();
        if living.iter().any(|key| !record.names(&key.id)) {
            let previous = living.into_iter().map(|key| key.into_previous(end)).collect();
            return Some(Step::WriteRecord(Box::new(Record { previous, ..record.clone() })));
        }
        if !own.tied || record.secret_key != spec.secret.key || record.template_hash != template_hash(spec) {
            return Some(Step::Reshape);
        }
        facts
            .other_secrets
            .first()
            .map(|other| Step::DeleteSecret { name: other.name.clone(), uid: other.uid.clone() })
    }
}

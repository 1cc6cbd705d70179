//! When a step that was done is needed again: something undoes it.

use super::{facts::Facts, step::Step};
use crate::api::recorded::{data_hash, template_hash};
use std::hash::{DefaultHasher, Hash, Hasher};

impl Step {
    /// Equal for equal calls: if a call with the same fingerprint is needed again soon, something undoes it. `None`:
    /// another rule limits its repetition.
    pub fn fingerprint(&self, facts: &Facts) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        self.as_text(facts)?.hash(&mut hasher);
        Some(hasher.finish())
    }

    fn as_text(&self, facts: &Facts) -> Option<String> {
        match self {
            Self::Wait
            | Self::ReadLive
            | Self::Preflight
            | Self::WriteAttempt { .. }
            | Self::Mint(_)
            | Self::CheckKey { .. }
            | Self::Store { .. }
            | Self::ReadRollout { .. }
            | Self::Revoke { .. } => None,
            Self::WriteStatus(status) => serde_json::to_string(&status.without_transition_times()).ok(),
            // Its times are not the same at every decision.
            Self::WriteLedger(_) => Some("anew".to_owned()),
            Self::AddFinalizer => Some("add".to_owned()),
            Self::RemoveFinalizer { .. } => Some("remove".to_owned()),
            Self::WriteRecord(record) => Some(record.to_annotation()),
            Self::MoveSecret { from } => Some(format!("{from}>{}", facts.object.secret_name())),
            Self::Reshape => facts.object.spec.as_ref().ok().map(|spec| {
                format!(
                    "{}/{}/{:?}/{}",
                    spec.secret.key,
                    template_hash(spec),
                    data_hash(spec, &facts.account.base_url),
                    facts.object.owns_its_secret()
                )
            }),
            Self::DeleteSecret { uid, .. } => Some(uid.clone()),
            Self::RestartWorkload { key_id, .. } => Some(key_id.clone()),
            Self::ReleaseSecret { name } => Some(name.clone()),
        }
    }
}

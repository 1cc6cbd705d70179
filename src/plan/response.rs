//! What responses of the API server and of Boltz mean: an answer, and facts. Pure, so that the executor and the world of the
//! tests share it.

use super::{
    adopt::Adoptable,
    answer::{Answer, ApiFailure, Requested, Unusable, Verdict},
    attempt::{Intent, MintedKey},
    facts::{AccountFacts, Facts, ObjectFacts, OwnSecret, SecretFacts},
    memory::ProcessMemory,
    rollout::{Rollout, Workload},
    step::Step,
    time::Now,
};
use crate::{
    api::annotations::{FINALIZER, LEDGER_ANNOTATION, OWNER_LABEL, RECORD_ANNOTATION},
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::AttemptId,
        record::{Record, value_sha256},
    },
};
use jiff::Timestamp;

/// What a call showed of the cluster. It becomes a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// The answer has no content.
    Nothing,
    /// The object and its Secrets, read from the API server.
    Everything(Box<Facts>),
    /// The object.
    Object(Box<ObjectFacts>),
    /// The Secret with the name in the spec.
    Secret(Box<OwnSecret>),
    /// The Secret with this name does not exist any more.
    NoSecret(String),
    /// The dry run passed.
    Preflight,
}

/// A Secret that was found: the object's, or somebody else's, and whose.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It belongs to the object.
    Ours(Box<OwnSecret>),
    /// It belongs to another owner. Contains the message for the condition.
    Foreign(String),
    /// It belongs to nobody, and consents to belong to the object.
    Adoptable(Box<Adoptable>),
}

impl Facts {
    /// From the object and the Secrets that were found, by name; what does not depend on the API server is still empty.
    pub fn assemble(object: ObjectFacts, secrets: Vec<(String, Found)>, live: bool) -> Self {
        let mut secret = SecretFacts::Absent;
        let mut other_secrets: Vec<OwnSecret> = Vec::new();
        for (name, found) in secrets {
            if name == object.secret_name() {
                secret = match found {
                    // A Secret that is being deleted still occupies the name.
                    Found::Ours(own) => SecretFacts::Ours(own),
                    Found::Foreign(whose) => SecretFacts::Foreign(whose),
                    Found::Adoptable(found) => SecretFacts::Adoptable(found),
                };
            } else if let Found::Ours(own) = found {
                // Only a Secret with a record and our ownerReference was certainly written by this operator. A retained
                // one has no ownerReference, but the status has its name.
                let is_reported = own.labelled
                    && !object.owns_its_secret()
                    && object.status.secret_name.as_ref() == Some(&own.name);
                if (own.owned || is_reported) && own.record.is_some() {
                    other_secrets.push(*own);
                }
            }
        }
        if let (SecretFacts::Adoptable(found), Some(own)) = (&secret, other_secrets.first()) {
            // A move would leave two keys that are current.
            secret = SecretFacts::Foreign(format!(
                "Secret {} already exists, and this object has its key in Secret {}. Only an object without a Secret adopts \
                 one. Delete Secret {0}, or set spec.secret.name to another name.",
                found.secret.name, own.name
            ));
        }
        Self {
            object,
            secret,
            other_secrets,
            live,
            preflight_passed: false,
            passes: Vec::new(),
            memory: ProcessMemory::default(),
            account: AccountFacts::default(),
        }
    }

    /// After a step whose answer was applied. `must_read`: the answer may have shown that the facts are stale.
    pub fn absorb(&mut self, step: &Step, must_read: bool, shown: Shown) {
        // The next revocation needs a live read of its own (rule 8).
        self.live &= !must_read && !matches!(step, Step::Revoke { .. });
        match shown {
            Shown::Nothing => {}
            Shown::Everything(read) => *self = *read,
            Shown::Object(object) => self.object = *object,
            Shown::Secret(own) => {
                self.secret = SecretFacts::Ours(own);
                self.preflight_passed = false;
            }
            Shown::NoSecret(name) => self.other_secrets.retain(|secret| secret.name != name),
            Shown::Preflight => self.preflight_passed = true,
        }
    }
}

impl ProcessMemory {
    /// Call before C1, which writes the ledger that this returns.
    pub fn begin_attempt(
        &mut self,
        attempt: &AttemptId,
        keep: &[LedgerEntry],
        intent: &Intent,
        now: Now,
        account: &AccountFacts,
    ) -> Ledger {
        self.mark_writing(attempt.clone(), intent.clone(), now.monotonic);
        let mut ledger = Ledger::new(keep.to_vec());
        let entry = LedgerEntry::new(attempt.clone(), now.wall, account.organization.clone());
        ledger.entries.push(entry.of_account(&account.name));
        ledger
    }

    /// C1: the attempt may be sent only if the object, as the response shows it, has both ledger and finalizer.
    pub fn attempt_written(&mut self, attempt: &AttemptId, shown: &ObjectFacts) -> Answer {
        if !shown.ledger.contains(attempt) {
            return Answer::Undone(format!(
                "the new attempt is missing in the annotation {LEDGER_ANNOTATION}"
            ));
        }
        // Not before: an attempt that was refused is none.
        let entry = shown.ledger.entries.iter().find(|entry| entry.attempt == *attempt);
        self.account = entry.map(|entry| entry.account.clone());
        if !shown.has_finalizer {
            return finalizer_is_missing();
        }
        self.mark_written(attempt);
        Answer::Done
    }
}

impl Answer {
    /// The ledger was written in place of a forged one.
    pub fn ledger_written(shown: &ObjectFacts) -> Self {
        match &shown.ledger.forgery {
            None => Self::Done,
            Some(_) => Self::Undone(format!("the annotation {LEDGER_ANNOTATION} is not as it was written")),
        }
    }

    /// Whether the object that the API server returned has the finalizer: a webhook may have removed it.
    pub fn finalizer_added(shown: &ObjectFacts) -> Self {
        if shown.has_finalizer { Self::Done } else { finalizer_is_missing() }
    }

    /// D2: the finalizer was removed.
    pub fn finalizer_removed(response: Result<&ObjectFacts, ApiFailure>) -> Self {
        match response {
            Ok(shown) if shown.has_finalizer => {
                Self::Undone(format!("the finalizer {FINALIZER} was not removed"))
            }
            Ok(_) | Err(ApiFailure { verdict: Verdict::NotFound, .. }) => Self::Gone,
            Err(failure) => Self::ApiFailed(failure),
        }
    }

    /// A write of the Secret with that record. An admission webhook may have removed the record; then nothing shows whose
    /// key the Secret contains.
    pub fn record_written(shown: Option<&Record>, record: &Record) -> Self {
        if shown == Some(record) {
            Self::Done
        } else {
            Self::Undone(format!("the annotation {RECORD_ANNOTATION} is missing on the Secret"))
        }
    }

    /// C3, R3. The response has no values: without its record, the key must count as one that workloads use.
    pub fn key_stored(shown: Option<&Record>, record: &Record) -> Self {
        match Self::record_written(shown, record) {
            Self::Undone(_) => Self::Unrecorded,
            other => other,
        }
    }

    /// Whether the Secret that the API server returned has the record and the label.
    pub fn reshaped(shown: Option<&Record>, record: &Record, is_labelled: bool) -> Self {
        match Self::record_written(shown, record) {
            Self::Done if !is_labelled => {
                Self::Undone(format!("the label {OWNER_LABEL} is missing on the Secret"))
            }
            other => other,
        }
    }

    /// C0, C3 and their like failed. A Secret that was deleted meanwhile is a conflict: the key is then stored in a new
    /// Secret. A missing namespace is a rejection.
    pub fn secret_not_written(failure: ApiFailure, secret: &SecretFacts) -> Self {
        Self::ApiFailed(match (failure.verdict, secret) {
            (Verdict::NotFound, SecretFacts::Ours(_)) => ApiFailure { verdict: Verdict::Conflict, ..failure },
            (Verdict::NotFound, SecretFacts::Adoptable(_)) => {
                ApiFailure { verdict: Verdict::Conflict, ..failure }
            }
            _ => failure,
        })
    }

    /// The deletion of an old Secret failed. A Secret that is gone, or another one, is as good.
    pub fn secret_not_deleted(failure: ApiFailure) -> Self {
        match failure.verdict {
            Verdict::NotFound | Verdict::Conflict => Self::Done,
            Verdict::Refused | Verdict::Unknown => Self::ApiFailed(failure),
        }
    }

    /// A restarted workload was read. One that does not exist is an answer, too.
    pub fn rollout(read: Result<&Workload, ApiFailure>, key_id: &str) -> Self {
        match read {
            Ok(workload) => Self::RolloutRead(workload.rollout(key_id)),
            Err(ApiFailure { verdict: Verdict::NotFound, .. }) => Self::RolloutRead(Rollout::Missing),
            Err(failure) => Self::ApiFailed(failure),
        }
    }

    /// C2, R2: Boltz created a key. `name` is what Boltz calls it.
    pub fn key_created(
        requested: Requested,
        name: &str,
        is_active: bool,
        key: MintedKey,
        now: Timestamp,
    ) -> Self {
        match Unusable::find(requested, name, is_active, &key, now) {
            None => Self::Minted(Box::new(key)),
            Some(unusable) => Self::MintedUnusable(Box::new(key), unusable),
        }
    }
}

fn finalizer_is_missing() -> Answer {
    Answer::Undone(format!("the finalizer {FINALIZER} is missing"))
}

impl OwnSecret {
    /// Whether a Secret that was read is the one that the facts know, with the value that its record speaks of: only then
    /// is it written anew around that value.
    pub fn is_as_known(&self, resource_version: &str, record: &Record, value: &[u8]) -> bool {
        self.resource_version == resource_version && value_sha256(value) == record.value_sha256
    }
}

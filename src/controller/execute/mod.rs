//! Executes steps: all writes, one call per step. It decides nothing: it returns the result of the call as [`Answer`], and
//! what the call showed of the cluster as [`Shown`].

mod boltz;
mod secret;

pub use boltz::revoke_key;

use super::{
    Context, ObjectState,
    context::Latest,
    observe::{self, Shown},
};
use crate::{
    api::{
        BoltzApiKeyStatus, RolloutRestartTarget, WatchedApiKey,
        annotations::{FINALIZER, LEDGER_ANNOTATION, RESTARTED_FOR_ANNOTATION},
    },
    plan::{Answer, ApiFailure, Facts, Intent, Step, Verdict, with_finalizer},
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::AttemptId,
    },
};
use rand::RngExt;
use serde_json::{Value as Json, json};

/// Executes one step.
pub async fn execute(
    context: &Context,
    state: &mut ObjectState,
    facts: &Facts,
    step: &Step,
) -> (Answer, Shown) {
    let mut execution = Execution { context, state, facts };
    match step {
        Step::Wait => (Answer::Done, Shown::Nothing),
        Step::ReadLive => execution.read_live().await,
        Step::Preflight => execution.preflight().await,
        Step::WriteAttempt { keep, intent } => execution.write_attempt(keep.clone(), intent).await,
        Step::WriteLedger(entries) => execution.write_ledger(entries.clone()).await,
        Step::Mint(attempt) => (execution.mint(attempt).await, Shown::Nothing),
        Step::CheckKey { secret, key_id } => execution.check_key(secret, key_id).await,
        Step::Store { attempt, record } => execution.store(attempt, record).await,
        Step::WriteStatus(status) => execution.write_status(status).await,
        Step::Revoke { key_id, reason } => (revoke_key(context, key_id, *reason).await, Shown::Nothing),
        Step::AddFinalizer => execution.add_finalizer().await,
        Step::WriteRecord(record) => execution.write_record(record).await,
        Step::MoveSecret { from } => execution.move_secret(from).await,
        Step::DeleteSecret { name, uid } => execution.delete_secret(name, uid).await,
        Step::Reshape => execution.reshape().await,
        Step::RestartWorkload { target, key_id } => {
            (execution.restart_workload(target, key_id).await, Shown::Nothing)
        }
        Step::ReleaseSecret { name } => execution.release_secret(name).await,
        Step::RemoveFinalizer { .. } => (execution.remove_finalizer().await, Shown::Nothing),
    }
}

struct Execution<'a> {
    context: &'a Context,
    state: &'a mut ObjectState,
    facts: &'a Facts,
}

impl Execution<'_> {
    async fn read_live(&mut self) -> (Answer, Shown) {
        match observe::live(self.context, self.state, &self.facts.object).await {
            Ok(Some(facts)) => (Answer::Done, Shown::Everything(Box::new(facts))),
            Ok(None) => (Answer::Gone, Shown::Nothing),
            // If only the Secret could not be read, the newest version of the object is known.
            Err(error) => {
                let shown = match &self.state.latest {
                    Some(Latest::Returned(object, _)) => Shown::Object(object.clone()),
                    _ => Shown::Nothing,
                };
                (Answer::ApiFailed(error.failure()), shown)
            }
        }
    }

    /// C1, R1: writes the finalizer and the new attempt, in one write, before the POST.
    async fn write_attempt(&mut self, keep: Vec<LedgerEntry>, intent: &Intent) -> (Answer, Shown) {
        let now = self.context.clock.now();
        let attempt = AttemptId::from_random(rand::rng().random());
        let mut ledger = Ledger::new(keep);
        ledger.entries.push(LedgerEntry::new(
            attempt.clone(),
            now.wall,
            self.facts.account.organization.clone(),
        ));
        self.state.memory.mark_writing(attempt.clone(), intent.clone(), now.monotonic);
        let finalizers = with_finalizer(&self.facts.object.finalizers);
        let metadata = json!({
            "finalizers": finalizers,
            "annotations": {LEDGER_ANNOTATION: ledger.to_annotation()},
        });
        let (answer, object) = self.patch_object(metadata).await;
        let Some(object) = object else { return (answer, Shown::Nothing) };
        let shown = observe::object_facts(&object);
        let answer = if !shown.ledger.contains(&attempt) {
            Answer::Undone(format!("the new attempt is missing in the annotation {LEDGER_ANNOTATION}"))
        } else if !shown.has_finalizer {
            Answer::Undone(format!("the finalizer {FINALIZER} is missing"))
        } else {
            self.state.memory.mark_written(&attempt);
            answer
        };
        (answer, Shown::Object(object))
    }

    /// Writes the ledger in place of a forged one.
    async fn write_ledger(&mut self, entries: Vec<LedgerEntry>) -> (Answer, Shown) {
        let annotations = json!({LEDGER_ANNOTATION: Ledger::new(entries).to_annotation()});
        let (answer, object) = self.patch_object(json!({"annotations": annotations})).await;
        let Some(object) = object else { return (answer, Shown::Nothing) };
        let answer = if observe::object_facts(&object).ledger.forgery.is_none() {
            answer
        } else {
            Answer::Undone(format!("the annotation {LEDGER_ANNOTATION} is not as it was written"))
        };
        (answer, Shown::Object(object))
    }

    async fn write_status(&mut self, status: &BoltzApiKeyStatus) -> (Answer, Shown) {
        let object = &self.facts.object;
        let (old, new) = (json!(object.status), json!(status));
        let mut fields = new.as_object().cloned().unwrap_or_default();
        for name in old.as_object().into_iter().flat_map(serde_json::Map::keys) {
            fields.entry(name.clone()).or_insert(Json::Null);
        }
        let patch = json!({"metadata": self.guard(), "status": fields});
        match self.context.kubernetes.patch_status(&object.namespace, &object.name, &patch).await {
            Ok(read) => (Answer::Done, Shown::Reported(Box::new(read), Box::new(status.clone()))),
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }

    async fn add_finalizer(&mut self) -> (Answer, Shown) {
        let finalizers = with_finalizer(&self.facts.object.finalizers);
        let (answer, object) = self.patch_object(json!({"finalizers": finalizers})).await;
        let Some(object) = object else { return (answer, Shown::Nothing) };
        let answer = if observe::object_facts(&object).has_finalizer {
            answer
        } else {
            Answer::Undone(format!("the finalizer {FINALIZER} is missing"))
        };
        (answer, Shown::Object(object))
    }

    async fn restart_workload(&mut self, target: &RolloutRestartTarget, key_id: &str) -> Answer {
        let annotations = json!({RESTARTED_FOR_ANNOTATION: key_id});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let namespace = &self.facts.object.namespace;
        match self.context.kubernetes.patch_workload(namespace, target.kind, &target.name, &patch).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::ApiFailed(error.failure()),
        }
    }

    /// D2: removes the finalizer.
    async fn remove_finalizer(&mut self) -> Answer {
        let left: Vec<&String> =
            self.facts.object.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        match self.patch_object(json!({"finalizers": left})).await {
            (_, Some(object)) if observe::object_facts(&object).has_finalizer => {
                Answer::Undone(format!("the finalizer {FINALIZER} was not removed"))
            }
            (_, Some(_)) => Answer::Gone,
            (Answer::ApiFailed(ApiFailure { verdict: Verdict::NotFound, .. }), None) => Answer::Gone,
            (answer, None) => answer,
        }
    }

    async fn patch_object(&self, metadata: Json) -> (Answer, Option<Box<WatchedApiKey>>) {
        let object = &self.facts.object;
        let mut guarded = self.guard();
        if let (Json::Object(guarded), Json::Object(metadata)) = (&mut guarded, metadata) {
            guarded.extend(metadata);
        }
        let patch = json!({"metadata": guarded});
        match self.context.kubernetes.patch_object(&object.namespace, &object.name, &patch).await {
            Ok(read) => (Answer::Done, Some(Box::new(read))),
            Err(error) => (Answer::ApiFailed(error.failure()), None),
        }
    }

    /// The preconditions of a write of the object.
    fn guard(&self) -> Json {
        json!({"uid": self.facts.object.uid, "resourceVersion": self.facts.object.resource_version})
    }
}

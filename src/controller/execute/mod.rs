//! Executes steps: all writes, one call per step. It decides nothing: it returns the result of the call as [`Answer`], and
//! what the call showed of the cluster as [`Shown`]. What a response means, the pure `plan::response` says.

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
    kubernetes::error::KubernetesError,
    plan::{Answer, ApiFailure, Facts, Intent, ObjectFacts, Step, with_finalizer},
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::AttemptId,
    },
};
use rand::RngExt;
use serde_json::{Value as Json, json};

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
        Step::WriteAttempt { keep, intent } => execution.write_attempt(keep, intent).await,
        Step::WriteLedger(entries) => execution.write_ledger(entries.clone()).await,
        Step::Mint(attempt) => (execution.mint(attempt).await, Shown::Nothing),
        Step::CheckKey { secret, key_id } => execution.check_key(secret, key_id).await,
        Step::Store { attempt, record } => execution.store(attempt, record).await,
        Step::WriteStatus(status) => execution.write_status(status).await,
        Step::Revoke { key_id, reason } => (execution.revoke(key_id, *reason).await, Shown::Nothing),
        Step::AddFinalizer => execution.add_finalizer().await,
        Step::WriteRecord(record) => execution.write_record(record).await,
        Step::MoveSecret { from } => execution.move_secret(from).await,
        Step::DeleteSecret { name, uid } => execution.delete_secret(name, uid).await,
        Step::Reshape => execution.reshape().await,
        Step::RestartWorkload { target, key_id } => {
            (execution.restart_workload(target, key_id).await, Shown::Nothing)
        }
        Step::ReadRollout { target, key_id } => {
            (execution.read_rollout(target, key_id).await, Shown::Nothing)
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
    async fn write_attempt(&mut self, keep: &[LedgerEntry], intent: &Intent) -> (Answer, Shown) {
        let now = self.context.clock.now();
        let attempt = AttemptId::from_random(rand::rng().random());
        let account = &self.facts.account;
        let ledger = self.state.memory.begin_attempt(&attempt, keep, intent, now, account);
        let finalizers = with_finalizer(&self.facts.object.finalizers);
        let metadata = json!({
            "finalizers": finalizers,
            "annotations": {LEDGER_ANNOTATION: ledger.to_annotation()},
        });
        let response = self.patch_object(metadata).await;
        written(response, |shown| self.state.memory.attempt_written(&attempt, shown))
    }

    /// Writes the ledger in place of a forged one.
    async fn write_ledger(&mut self, entries: Vec<LedgerEntry>) -> (Answer, Shown) {
        let annotations = json!({LEDGER_ANNOTATION: Ledger::new(entries).to_annotation()});
        let response = self.patch_object(json!({"annotations": annotations})).await;
        written(response, Answer::ledger_written)
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
        let response = self.patch_object(json!({"finalizers": finalizers})).await;
        written(response, Answer::finalizer_added)
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

    async fn read_rollout(&mut self, target: &RolloutRestartTarget, key_id: &str) -> Answer {
        let namespace = &self.facts.object.namespace;
        let read = self.context.kubernetes.get_workload(namespace, target.kind, &target.name).await;
        Answer::rollout(read.as_ref().map_err(KubernetesError::failure), key_id)
    }

    async fn remove_finalizer(&mut self) -> Answer {
        let left: Vec<&String> =
            self.facts.object.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let response = self.patch_object(json!({"finalizers": left})).await;
        let shown = response.as_deref().map(observe::object_facts).map_err(KubernetesError::failure);
        Answer::finalizer_removed(shown.as_ref().map_err(ApiFailure::clone))
    }

    async fn patch_object(&self, metadata: Json) -> Result<Box<WatchedApiKey>, KubernetesError> {
        let object = &self.facts.object;
        let mut guarded = self.guard();
        if let (Json::Object(guarded), Json::Object(metadata)) = (&mut guarded, metadata) {
            guarded.extend(metadata);
        }
        let patch = json!({"metadata": guarded});
        self.context.kubernetes.patch_object(&object.namespace, &object.name, &patch).await.map(Box::new)
    }

    /// The preconditions of a write of the object.
    fn guard(&self) -> Json {
        json!({"uid": self.facts.object.uid, "resourceVersion": self.facts.object.resource_version})
    }
}

/// The response to a write of the object, and what it means.
fn written(
    response: Result<Box<WatchedApiKey>, KubernetesError>,
    means: impl FnOnce(&ObjectFacts) -> Answer,
) -> (Answer, Shown) {
    match response {
        Ok(object) => (means(&observe::object_facts(&object)), Shown::Object(object)),
        Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
    }
}

//! The only writer: one arm per step. An answer feeds the next observation.

use super::{Context, ObjectState, observe};
use crate::{
    api::{
        BoltzApiKeySpec, BoltzApiKeyStatus, Mode, WorkloadKind,
        annotations::{FINALIZER, LEDGER_ANNOTATION, RESTARTED_FOR_ANNOTATION},
    },
    backoff,
    boltz::{BoltzError, BoltzErrorKind, CreateKeyRequest, Effect, KeyMode, Revocation},
    kubernetes::secret_index::{SecretMetadata, Value},
    kubernetes::{
        client::SecretWithData,
        error::{KubernetesError, Verdict},
        events,
        secret_body::{encode, new_secret, secret_patch},
    },
    plan::{
        Block, Facts, Intent, MintedKey, OwnSecret, Reason, RevokeReason, SecretFacts, Step, with_finalizer,
    },
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::{AttemptId, Marker, ObjectMark},
        record::{PreviousKey, Record, value_sha256},
    },
};
use k8s_openapi::ByteString;
use rand::RngExt;
use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The facts hold its answer: decide again.
    Done,
    /// The facts were not up to date, or the fate of a write is not known: read, then decide again.
    ReadAgain,
    /// The object is let go.
    Gone,
}

/// Carries out one step.
pub async fn execute(
    context: &Context,
    state: &mut ObjectState,
    facts: &mut Facts,
    step: Step,
) -> Result<Outcome, KubernetesError> {
    let mut execution = Execution { context, state, facts };
    match step {
        Step::Wait => Ok(Outcome::Done),
        Step::Preflight => execution.preflight().await,
        Step::WriteAttempt { keep, intent } => execution.write_attempt(keep, *intent).await,
        Step::Mint(attempt) => {
            execution.mint(attempt).await;
            Ok(Outcome::Done)
        }
        Step::Store { attempt, record } => execution.store(attempt, *record).await,
        Step::WriteStatus(status) => execution.write_status(*status).await,
        Step::Revoke { key_id, reason } => {
            execution.revoke(key_id, reason).await;
            Ok(Outcome::Done)
        }
        Step::AddFinalizer => {
            let finalizers = with_finalizer(&execution.facts.object.finalizers);
            execution.patch_object("add the finalizer", json!({"finalizers": finalizers})).await
        }
        Step::WriteRecord(record) => execution.write_record(*record).await,
        Step::MoveSecret { from } => execution.move_secret(&from).await,
        Step::DeleteSecret { name, uid } => {
            let namespace = &execution.facts.object.namespace;
            context.kubernetes.delete_secret(namespace, &name, &uid).await?;
            context.secrets.remove(namespace, &name, None);
            execution.facts.other_secrets.retain(|secret| secret.name != name);
            Ok(Outcome::Done)
        }
        Step::Reshape => execution.reshape().await,
        Step::RestartWorkloads => execution.restart_workloads().await,
        Step::ReleaseSecret { name } => execution.release_secret(&name).await,
        Step::DropFinalizer { staying } => execution.drop_finalizer(staying).await,
    }
}

struct Execution<'a> {
    context: &'a Context,
    state: &'a mut ObjectState,
    facts: &'a mut Facts,
}

impl Execution<'_> {
    /// C0, R0: catches a taken name, missing rights, quota, policies and a terminating namespace before a key is
    /// minted that could not be stored.
    async fn preflight(&mut self) -> Result<Outcome, KubernetesError> {
        let mut placeholder = Record::placeholder(&self.facts.object.uid);
        if let Ok(spec) = &self.facts.object.spec {
            placeholder.take_shape(spec);
        }
        let value = json!(ByteString(b"preflight".to_vec()));
        match self.write_secret(&placeholder, value, true).await {
            Ok(_) => {
                self.facts.preflight_passed = true;
                Ok(Outcome::Done)
            }
            Err(error) if error.is_lack_of_dry_run() => {
                // A webhook that cannot take part in dry runs must not block for ever: a live read stands in.
                let name = self.facts.object.secret_name().to_owned();
                let found = observe::read_secret(self.context, &self.facts.object.namespace, &name).await?;
                let as_known = match (&found, &self.facts.secret) {
                    (None, SecretFacts::Absent) => true,
                    (Some((read, _)), SecretFacts::Ours(own)) => {
                        read.resource_version == own.resource_version
                    }
                    _ => false,
                };
                self.facts.preflight_passed = as_known;
                Ok(if as_known { Outcome::Done } else { Outcome::ReadAgain })
            }
            Err(error) => match self.verdict_on_secret(&error) {
                Verdict::Conflict => Ok(Outcome::ReadAgain),
                Verdict::Refused | Verdict::NotFound => {
                    self.block_storing(&error);
                    Ok(Outcome::Done)
                }
                Verdict::Unknown => Err(error),
            },
        }
    }

    /// A Secret that was there and is gone is a conflict like another version of it: a key in hand goes to a new one. A
    /// namespace that is gone refuses.
    fn verdict_on_secret(&self, error: &KubernetesError) -> Verdict {
        match (error.verdict(), &self.facts.secret) {
            (Verdict::NotFound, SecretFacts::Ours(_)) => Verdict::Conflict,
            (verdict, _) => verdict,
        }
    }

    fn block_storing(&mut self, error: &KubernetesError) {
        let reason = if error.is_policy() { Reason::PolicyDenied } else { Reason::SecretWriteFailed };
        let until = self.context.clock.now().monotonic.plus(self.context.settings.recheck);
        let message = format!("The Secret cannot be written: {}", error.message());
        self.state.memory.store_blocked = Some(Block { reason, message, until: Some(until) });
        self.context.metrics.issue_failed(reason.as_str());
    }

    /// C1, R1: finalizer and new attempt, in one write, before the POST.
    async fn write_attempt(
        &mut self,
        keep: Vec<LedgerEntry>,
        intent: Intent,
    ) -> Result<Outcome, KubernetesError> {
        let now = self.context.clock.now();
        if let Err(block) = self.context.account.take_mint(now.monotonic) {
            self.state.memory.mint_blocked = Some(block);
            return Ok(Outcome::Done);
        }
        let attempt = AttemptId::from_random(rand::rng().random());
        let mut ledger = Ledger { entries: keep };
        ledger.entries.push(LedgerEntry { attempt: attempt.clone(), written_at: now.wall });
        self.state.memory.writing(attempt.clone(), intent, now.monotonic);
        let metadata = json!({
            "finalizers": with_finalizer(&self.facts.object.finalizers),
            "annotations": {LEDGER_ANNOTATION: ledger.to_annotation()},
        });
        let outcome = self.patch_object("write the attempt", metadata).await;
        if self.facts.object.ledger.contains(&attempt) {
            self.state.memory.written(&attempt);
        }
        outcome
    }

    /// C2, R2: the one POST of the attempt.
    async fn mint(&mut self, attempt: AttemptId) {
        let Some(known) = self.state.memory.posting(&attempt) else { return };
        let now = self.context.clock.now().monotonic;
        let left = known.written.plus(self.context.settings.window()).since(now);
        let timeout = self.context.request_timeout.min(left);
        let request = create_request(self.context, self.facts, &known.intent.spec, &attempt);
        match self.context.account.client().create_key(&request, timeout).await {
            Ok(created) => {
                self.context.account.succeeded();
                let details = created.details;
                let received_at = self.context.clock.now().wall;
                let key = MintedKey {
                    id: details.id,
                    prefix: details.key_prefix,
                    value_sha256: value_sha256(created.key.expose_secret().as_bytes()),
                    received_at,
                    created_at: details.created_at.unwrap_or(received_at),
                    expires_at: details.expires_at,
                    livemode: details.livemode,
                    workspace_id: details.workspace_id,
                };
                self.state.memory.answered(&attempt, key);
                self.state.values.insert(attempt, created.key);
                self.state.mint_failures = 0;
            }
            Err(error) => {
                if error.effect() == Effect::None {
                    self.state.memory.not_posted(&attempt);
                }
                self.mint_failed(&error);
            }
        }
    }

    fn mint_failed(&mut self, error: &BoltzError) {
        let now = self.context.clock.now().monotonic;
        self.context.account.failed(error, now);
        self.state.mint_failures = self.state.mint_failures.saturating_add(1);
        let reason = match error.kind() {
            BoltzErrorKind::Rejected => {
                self.state.memory.rejected = Some((self.facts.object.generation, rejection(error)));
                Reason::BoltzRejected
            }
            BoltzErrorKind::Unauthorized => Reason::BoltzUnauthorized,
            BoltzErrorKind::RateLimited => Reason::RateLimited,
            BoltzErrorKind::Unavailable => Reason::BoltzUnavailable,
        };
        if reason != Reason::BoltzRejected {
            let until = now.plus(backoff::delay(self.state.mint_failures, error.retry_after()));
            let message = format!("Boltz did not issue a key: {error}. The operator tries again.");
            self.state.memory.mint_blocked = Some(Block { reason, message, until: Some(until) });
        }
        self.context.metrics.issue_failed(reason.as_str());
        tracing::warn!(
            error = error as &dyn std::error::Error,
            reason = reason.as_str(),
            "no key was issued"
        );
    }

    /// C3, R3: the key and its record, in one write.
    async fn store(&mut self, attempt: AttemptId, record: Record) -> Result<Outcome, KubernetesError> {
        let Some(value) = self.state.values.get(&attempt).map(encode) else { return Ok(Outcome::Done) };
        let was_in_doubt = self.state.memory.storing(&attempt);
        let replaced = self.facts.record().map(|record| record.key_id.clone());
        match self.write_secret(&record, value, false).await {
            Ok(metadata) => {
                self.take_secret(metadata, Some(record.value_sha256));
                self.state.memory.stored(&attempt);
                self.state.values.remove(&attempt);
                let (key_id, reason) = (record.key_id, record.reason.as_str());
                self.context.metrics.issued(reason);
                tracing::info!(key_id, reason, "a key was issued and stored");
                if record.rotations > 0 {
                    let replaced = record.previous.iter().find(|key| replaced.as_ref() == Some(&key.key_id));
                    self.event(events::Kind::Normal, "Rotated", rotation_note(&key_id, reason, replaced));
                }
                Ok(Outcome::Done)
            }
            Err(error) => {
                let verdict = self.verdict_on_secret(&error);
                self.state.memory.not_stored(
                    &attempt,
                    was_in_doubt || verdict == Verdict::Unknown,
                    matches!(verdict, Verdict::Refused | Verdict::NotFound),
                );
                match verdict {
                    Verdict::Refused | Verdict::NotFound => self.block_storing(&error),
                    Verdict::Unknown => {
                        let until = self.context.clock.now().monotonic.plus(Duration::from_secs(1));
                        let message =
                            format!("The Secret could not be written: {error}. The operator tries again.");
                        self.state.memory.store_blocked =
                            Some(Block { reason: Reason::SecretWriteFailed, message, until: Some(until) });
                    }
                    Verdict::Conflict => {}
                }
                tracing::warn!(error = &error as &dyn std::error::Error, "a key was not stored");
                Ok(Outcome::ReadAgain)
            }
        }
    }

    /// Creates the wanted Secret, or updates it under its UID and resourceVersion.
    async fn write_secret(
        &self,
        record: &Record,
        value: Json,
        dry_run: bool,
    ) -> Result<SecretMetadata, KubernetesError> {
        let object = &self.facts.object;
        match &self.facts.secret {
            SecretFacts::Ours(own) => {
                let patch = secret_patch(self.facts, own, record, Some(value));
                self.context.kubernetes.patch_secret(&object.namespace, &own.name, &patch, dry_run).await
            }
            SecretFacts::Absent | SecretFacts::Foreign(_) => {
                let body = new_secret(self.facts, record, value);
                self.context.kubernetes.create_secret(&object.namespace, body, dry_run).await
            }
        }
    }

    /// The answer to a write of the wanted Secret becomes a fact.
    fn take_secret(&mut self, metadata: SecretMetadata, value_sha256: Option<String>) {
        let own = metadata.as_own(&self.facts.object.uid, value_sha256.clone());
        self.facts.secret = SecretFacts::Ours(Box::new(own));
        self.facts.preflight_passed = false;
        self.context.secrets.put(metadata, Value::Read(value_sha256));
    }

    async fn write_status(&mut self, status: BoltzApiKeyStatus) -> Result<Outcome, KubernetesError> {
        let object = &self.facts.object;
        let (old, new) = (json!(object.status), json!(status));
        let mut fields = new.as_object().cloned().unwrap_or_default();
        for name in old.as_object().into_iter().flat_map(serde_json::Map::keys) {
            fields.entry(name.clone()).or_insert(Json::Null);
        }
        let patch = json!({"metadata": self.guard(), "status": fields});
        match self.context.kubernetes.patch_status(&object.namespace, &object.name, &patch).await {
            Ok(read) => {
                let before = std::mem::take(&mut self.facts.object.status);
                observe::absorb_object(self.state, self.facts, read);
                // What was written is what stands, whatever the API server made of its form.
                self.facts.object.status = status;
                let now = self.context.clock.now().monotonic;
                self.state.memory.reported(&self.facts.object.status, now);
                for (kind, reason, note) in events::transitions(&before, &self.facts.object.status) {
                    match kind {
                        events::Kind::Normal => tracing::info!(reason, "{note}"),
                        events::Kind::Warning => tracing::warn!(reason, "{note}"),
                    }
                    self.event(kind, reason, note);
                }
                Ok(Outcome::Done)
            }
            Err(error) => read_again_after_conflict(error),
        }
    }

    /// R5, D1, strays, compensation. The live read that has to come before it is behind these facts.
    async fn revoke(&mut self, key_id: String, reason: RevokeReason) {
        self.facts.live = false;
        let answer = self.context.account.client().revoke_key(&key_id).await;
        let now = self.context.clock.now().monotonic;
        match answer {
            Ok(revocation) => {
                self.context.account.succeeded();
                self.state.forget_value_of(&key_id);
                self.state.revoke_failures = 0;
                if matches!(revocation, Revocation::Revoked(_)) {
                    self.context.metrics.revoked(reason.as_str());
                    if reason == RevokeReason::Stray {
                        self.context.metrics.stray_revoked();
                    }
                }
                tracing::info!(key_id, reason = reason.as_str(), "a key was revoked");
                let (was_in_use, note) = self.revocation_note(&key_id, reason);
                let kind = match reason {
                    RevokeReason::OverlapOver | RevokeReason::RotateNow if was_in_use => {
                        events::Kind::Warning
                    }
                    RevokeReason::OverlapOver | RevokeReason::RotateNow | RevokeReason::Deleted => {
                        events::Kind::Normal
                    }
                    RevokeReason::OverlapCut | RevokeReason::Stray | RevokeReason::NotStored => {
                        events::Kind::Warning
                    }
                };
                self.event(kind, "Revoked", note);
            }
            Err(error) => {
                self.context.account.failed(&error, now);
                self.state.revoke_failures = self.state.revoke_failures.saturating_add(1);
                let delay = backoff::delay(self.state.revoke_failures, error.retry_after());
                let reason = match error.kind() {
                    BoltzErrorKind::Unauthorized => Reason::BoltzUnauthorized,
                    BoltzErrorKind::RateLimited => Reason::RateLimited,
                    BoltzErrorKind::Rejected => Reason::BoltzRejected,
                    BoltzErrorKind::Unavailable => Reason::BoltzUnavailable,
                };
                let message = format!("The key {key_id} could not be revoked: {error}.");
                self.state.memory.revoke_blocked =
                    Some(Block { reason, message, until: Some(now.plus(delay)) });
                tracing::warn!(
                    key_id,
                    error = &error as &dyn std::error::Error,
                    "a key could not be revoked"
                );
            }
        }
    }

    /// Whether Boltz saw the key used after its successor was issued, and what the event says: some workload may not
    /// have picked up the new key.
    fn revocation_note(&self, key_id: &str, reason: RevokeReason) -> (bool, String) {
        let note = format!("Revoked the key {key_id} ({}).", reason.as_str());
        let was_replaced =
            matches!(reason, RevokeReason::OverlapOver | RevokeReason::RotateNow | RevokeReason::OverlapCut);
        let replaced_at = self.facts.record().filter(|_| was_replaced).map(|record| record.issued_at);
        let last_used_at = self.facts.listed(key_id).and_then(|listed| listed.last_used_at);
        match (last_used_at, replaced_at) {
            (Some(used), Some(replaced)) if used > replaced => {
                (true, format!("{note} It was used after its successor was issued, last at {used:.0}."))
            }
            _ => (false, note),
        }
    }

    async fn write_record(&mut self, record: Record) -> Result<Outcome, KubernetesError> {
        let SecretFacts::Ours(own) = &self.facts.secret else { return Ok(Outcome::ReadAgain) };
        let patch = secret_patch(self.facts, own, &record, None);
        self.patch_own_secret(OwnSecret::clone(own), patch).await
    }

    /// A Secret's change that leaves its value alone.
    async fn patch_own_secret(&mut self, own: OwnSecret, patch: Json) -> Result<Outcome, KubernetesError> {
        let namespace = &self.facts.object.namespace;
        match self.context.kubernetes.patch_secret(namespace, &own.name, &patch, false).await {
            Ok(metadata) => {
                self.take_secret(metadata, own.value_sha256);
                Ok(Outcome::Done)
            }
            Err(error) => self.shape_failed(error),
        }
    }

    fn shape_failed(&mut self, error: KubernetesError) -> Result<Outcome, KubernetesError> {
        match error.verdict() {
            Verdict::Conflict | Verdict::NotFound => Ok(Outcome::ReadAgain),
            Verdict::Refused => {
                self.block_storing(&error);
                Ok(Outcome::Done)
            }
            Verdict::Unknown => Err(error),
        }
    }

    /// The same key under another name: the new Secret is written, then the plan has the old one deleted.
    async fn move_secret(&mut self, from: &str) -> Result<Outcome, KubernetesError> {
        let Some(own) = self.facts.other_secrets.iter().find(|secret| secret.name == from).cloned() else {
            return Ok(Outcome::ReadAgain);
        };
        let Some((mut record, value)) = self.read_value(&own).await? else { return Ok(Outcome::ReadAgain) };
        let Ok(spec) = &self.facts.object.spec else { return Ok(Outcome::Done) };
        record.take_shape(spec);
        let body = new_secret(self.facts, &record, json!(value));
        match self.context.kubernetes.create_secret(&self.facts.object.namespace, body, false).await {
            Ok(metadata) => {
                self.take_secret(metadata, own.value_sha256);
                Ok(Outcome::Done)
            }
            Err(error) => self.shape_failed(error),
        }
    }

    /// The same key in another shape.
    async fn reshape(&mut self) -> Result<Outcome, KubernetesError> {
        let SecretFacts::Ours(own) = self.facts.secret.clone() else { return Ok(Outcome::ReadAgain) };
        let Some((mut record, value)) = self.read_value(&own).await? else { return Ok(Outcome::ReadAgain) };
        let Ok(spec) = &self.facts.object.spec else { return Ok(Outcome::Done) };
        record.take_shape(spec);
        let patch = secret_patch(self.facts, &own, &record, Some(json!(value)));
        self.patch_own_secret(*own, patch).await
    }

    /// The record and value of a Secret, if they are still those of the facts.
    async fn read_value(&self, own: &OwnSecret) -> Result<Option<(Record, ByteString)>, KubernetesError> {
        let read = self.context.kubernetes.get_secret(&self.facts.object.namespace, &own.name).await?;
        Ok(read.and_then(SecretWithData::into_parts).and_then(|(metadata, mut data)| {
            let record = Record::parse(metadata.record.as_deref())?;
            let value = data.remove(&record.secret_key)?;
            let intact = metadata.resource_version == own.resource_version
                && value_sha256(&value.0) == record.value_sha256;
            intact.then_some((record, value))
        }))
    }

    async fn restart_workloads(&mut self) -> Result<Outcome, KubernetesError> {
        let Some(key_id) = self.facts.record().map(|record| record.key_id.clone()) else {
            return Ok(Outcome::Done);
        };
        let targets = match &self.facts.object.spec {
            Ok(spec) => spec.rollout_restart_targets.clone(),
            Err(_) => Vec::new(),
        };
        let annotations = json!({RESTARTED_FOR_ANNOTATION: key_id});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        for target in targets {
            let kind = match target.kind {
                WorkloadKind::Deployment => "Deployment",
                WorkloadKind::StatefulSet => "StatefulSet",
                WorkloadKind::DaemonSet => "DaemonSet",
            };
            let namespace = &self.facts.object.namespace;
            match self.context.kubernetes.patch_workload(namespace, target.kind, &target.name, &patch).await {
                Ok(()) => {
                    let note = format!("Restarted the {kind} {} for the key {key_id}.", target.name);
                    self.event(events::Kind::Normal, "Restarted", note);
                }
                Err(error) if matches!(error.verdict(), Verdict::Refused | Verdict::NotFound) => {
                    let note =
                        format!("The {kind} {} could not be restarted: {}", target.name, error.message());
                    self.event(events::Kind::Warning, "RestartFailed", note);
                }
                Err(error) => return Err(error),
            }
        }
        self.state.memory.restarted_for = Some(key_id);
        Ok(Outcome::Done)
    }

    async fn release_secret(&mut self, name: &str) -> Result<Outcome, KubernetesError> {
        let object = &self.facts.object;
        let Some((read, hash)) = observe::read_secret(self.context, &object.namespace, name).await? else {
            return Ok(Outcome::ReadAgain);
        };
        let others: Vec<_> = read.owner_references.iter().filter(|owner| owner.uid != object.uid).collect();
        let patch = json!({"metadata": {
            "uid": read.uid,
            "resourceVersion": read.resource_version,
            "ownerReferences": others,
        }});
        match self.context.kubernetes.patch_secret(&object.namespace, name, &patch, false).await {
            Ok(metadata) => {
                self.context.secrets.put(metadata, Value::Read(hash));
                Ok(Outcome::ReadAgain)
            }
            Err(error) => read_again_after_conflict(error),
        }
    }

    /// D2.
    async fn drop_finalizer(&mut self, staying: Vec<String>) -> Result<Outcome, KubernetesError> {
        let left: Vec<&String> =
            self.facts.object.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({"metadata": merge(self.guard(), json!({"finalizers": left}))});
        let object = &self.facts.object;
        let patched = self
            .context
            .kubernetes
            .patch_object("drop the finalizer", &object.namespace, &object.name, &patch)
            .await;
        match patched {
            Ok(_) => {}
            Err(error) if error.verdict() == Verdict::NotFound => {}
            Err(error) => return read_again_after_conflict(error),
        }
        if !staying.is_empty() {
            tracing::warn!(
                key_ids = staying.join(", "),
                "the object is released; these keys stay alive at Boltz"
            );
            let note =
                format!("The object is released. These keys stay alive at Boltz: {}.", staying.join(", "));
            self.event(events::Kind::Warning, "KeysRetained", note);
        }
        Ok(Outcome::Gone)
    }

    async fn patch_object(
        &mut self,
        operation: &'static str,
        metadata: Json,
    ) -> Result<Outcome, KubernetesError> {
        let object = &self.facts.object;
        let patch = json!({"metadata": merge(self.guard(), metadata)});
        match self.context.kubernetes.patch_object(operation, &object.namespace, &object.name, &patch).await {
            Ok(read) => {
                observe::absorb_object(self.state, self.facts, read);
                Ok(Outcome::Done)
            }
            Err(error) if error.is_policy() => {
                let until = self.context.clock.now().monotonic.plus(self.context.settings.recheck);
                let message = format!("A policy refuses the operator's write: {}", error.message());
                self.state.memory.store_blocked =
                    Some(Block { reason: Reason::PolicyDenied, message, until: Some(until) });
                Ok(Outcome::Done)
            }
            Err(error) => read_again_after_conflict(error),
        }
    }

    /// The version that a write of the object depends on.
    fn guard(&self) -> Json {
        json!({"uid": self.facts.object.uid, "resourceVersion": self.facts.object.resource_version})
    }

    fn event(&self, kind: events::Kind, reason: &'static str, note: String) {
        self.context.events.publish(&self.facts.object, kind, reason, note);
    }
}

/// A conflict, or an object that is gone, is read again; a new finalizer on a deleting object is a 422.
fn read_again_after_conflict(error: KubernetesError) -> Result<Outcome, KubernetesError> {
    match error {
        KubernetesError::Refused { code: 404 | 409 | 422, .. } => Ok(Outcome::ReadAgain),
        other => Err(other),
    }
}

fn rejection(error: &BoltzError) -> String {
    format!("Boltz refuses the parameters of the key: {error}. Nothing is tried until the spec changes.")
}

fn create_request(
    context: &Context,
    facts: &Facts,
    spec: &BoltzApiKeySpec,
    attempt: &AttemptId,
) -> CreateKeyRequest {
    let object = &facts.object;
    let marker = Marker {
        cluster: context.inventory.names().current.clone(),
        object: ObjectMark::from_uid(&object.uid),
        attempt: attempt.clone(),
    };
    let default_name = format!("{}/{}", object.namespace, object.name);
    let display_name = spec.display_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&default_name);
    CreateKeyRequest {
        name: marker.name_with(display_name),
        allowed_ips: spec.allowed_ips.clone(),
        expires_in_days: spec.expires_in_days,
        mode: match spec.mode {
            Mode::Live => KeyMode::Live,
            Mode::Test => KeyMode::Test,
        },
        workspace_id: spec.workspace_id.clone().filter(|id| !id.is_empty()),
    }
}

/// What the event of a rotation says. A key that is revoked at once needs no word about until when it works.
fn rotation_note(key_id: &str, reason: &str, replaced: Option<&PreviousKey>) -> String {
    let note = format!("Issued the key {key_id} ({reason}).");
    match replaced.filter(|key| !key.even_if_used) {
        Some(PreviousKey { key_id, revoke_after, .. }) => {
            format!("{note} {key_id} works until {revoke_after:.0}, so that workloads can change over.")
        }
        None => note,
    }
}

fn merge(mut left: Json, right: Json) -> Json {
    if let (Json::Object(left), Json::Object(right)) = (&mut left, right) {
        left.extend(right);
    }
    left
}

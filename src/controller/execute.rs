//! Executes steps: all writes, one call per step. It decides nothing: it returns the result of the call as [`Answer`], and
//! what the call showed of the cluster as [`Shown`].

use super::{
    Context, ObjectState,
    observe::{self, Shown},
};
use crate::{
    api::{
        BoltzApiKeySpec, BoltzApiKeyStatus, Mode, RolloutRestartTarget, WatchedApiKey,
        annotations::{FINALIZER, LEDGER_ANNOTATION, RECORD_ANNOTATION, RESTARTED_FOR_ANNOTATION},
    },
    boltz::{CreateKeyRequest, KeyMode, Revocation},
    kubernetes::{
        client::SecretWithData,
        error::KubernetesError,
        secret_body::{encode, new_secret, owner_references, secret_patch},
        secret_index::{SecretMetadata, Value},
    },
    plan::{
        Answer, ApiFailure, BoltzErrorKind, Facts, Intent, KeyCheck, MintedKey, ObjectFacts, OwnSecret,
        RevokeReason, SecretFacts, Step, Unusable, Verdict, with_finalizer,
    },
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::{AttemptId, Marker, ObjectMark},
        record::{Record, value_sha256},
    },
};
use k8s_openapi::ByteString;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};

/// The value in a dry run. No workload ever sees it.
const DRY_RUN_VALUE: &[u8] = b"preflight";

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

/// Revokes a key. The only place that does so. Callers must have decided on live facts (rule 8).
pub async fn revoke_key(context: &Context, key_id: &str, reason: RevokeReason) -> Answer {
    tracing::debug!(key_id, reason = reason.as_str(), "revoking a key");
    let call = match context.account.short_call(context.clock).await {
        Ok(call) => call,
        Err(block) => return Answer::Postponed(block),
    };
    match context.account.client().revoke_key(key_id).await {
        Ok(revocation) => {
            context.account.succeeded(&call, context.clock.now().monotonic);
            if !matches!(revocation, Revocation::NotFound) {
                context.account.set_active_keys(context.inventory.mark_revoked(key_id));
            }
            match revocation {
                Revocation::Revoked(_) => Answer::Done,
                Revocation::AlreadyRevoked => Answer::AlreadyRevoked,
                Revocation::NotFound => Answer::KeyNotFound,
            }
        }
        Err(error) => {
            context.account.failed(&call, &error, context.clock.now().monotonic);
            Answer::BoltzFailed(error.failure())
        }
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
                let object = self.state.latest.clone().map(Box::new);
                (Answer::ApiFailed(error.failure()), object.map_or(Shown::Nothing, Shown::Object))
            }
        }
    }

    /// C0, R0: finds a name that is taken, missing permissions, quotas, policies and a terminating namespace before a key
    /// exists that could not be stored.
    async fn preflight(&mut self) -> (Answer, Shown) {
        let mut placeholder = Record::placeholder(&self.facts.object.uid);
        if let Ok(spec) = &self.facts.object.spec {
            placeholder.take_shape(spec);
        }
        // Users choose their length.
        placeholder.rotate = self.facts.object.rotate.clone();
        placeholder.rotate_now = self.facts.object.rotate_now.clone();
        let value = json!(ByteString(DRY_RUN_VALUE.to_vec()));
        match self.write_secret(&placeholder, value, true).await {
            Ok(metadata) if metadata.record.as_ref() != Some(&placeholder) => (
                Answer::Undone(format!("the annotation {RECORD_ANNOTATION} is missing on the Secret")),
                Shown::Nothing,
            ),
            Ok(_) => (Answer::Done, Shown::Preflight),
            Err(error) if error.is_lack_of_dry_run() => {
                // A webhook without dry-run support must not block issuing forever; a live read replaces the dry run.
                let name = self.facts.object.secret_name();
                match observe::read_secret(self.context, &self.facts.object.namespace, name).await {
                    Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
                    Ok(found) => {
                        let as_known = match (&found, &self.facts.secret) {
                            (None, SecretFacts::Absent) => true,
                            (Some((read, _)), SecretFacts::Ours(own)) => {
                                read.resource_version == own.resource_version
                            }
                            _ => false,
                        };
                        if as_known {
                            (Answer::Done, Shown::Preflight)
                        } else {
                            (Answer::Stale, Shown::Nothing)
                        }
                    }
                }
            }
            Err(error) => (Answer::ApiFailed(self.failure_of_secret(&error)), Shown::Nothing),
        }
    }

    /// A Secret that was deleted meanwhile is a conflict: the key is then stored in a new Secret. A missing namespace is a
    /// rejection.
    fn failure_of_secret(&self, error: &KubernetesError) -> ApiFailure {
        let failure = error.failure();
        match (failure.verdict, &self.facts.secret) {
            (Verdict::NotFound, SecretFacts::Ours(_)) => ApiFailure { verdict: Verdict::Conflict, ..failure },
            _ => failure,
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

    /// C2, R2: sends the POST of the attempt.
    async fn mint(&mut self, attempt: &AttemptId) -> Answer {
        let now = self.context.clock.now().monotonic;
        let Some(call) = self.context.account.create_call(&self.facts.object.uid, now) else {
            return Answer::Stale;
        };
        let Some(known) = self.state.memory.mark_posting(attempt) else { return Answer::Stale };
        let left = known.written.plus(self.context.settings.window()).since(now);
        let timeout = self.context.request_timeout.min(left);
        let marker = Marker {
            cluster: self.context.inventory.names().current.clone(),
            object: ObjectMark::from_uid(&self.facts.object.uid),
            attempt: attempt.clone(),
        };
        let request = create_request(&self.facts.object, &known.intent.spec, &marker);
        match self.context.account.client().create_key(&request, timeout).await {
            Ok(created) => {
                self.context.account.succeeded(&call, self.context.clock.now().monotonic);
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
                    organization: self.facts.account.organization.clone(),
                };
                self.state.values.insert(attempt.clone(), created.key);
                match Unusable::find(&marker, &details.name, key.expires_at, received_at) {
                    None => Answer::Minted(Box::new(key)),
                    Some(unusable) => {
                        if let Unusable::OtherName(name) = &unusable {
                            self.context.account.mark_names_altered(&request.name, name);
                        }
                        Answer::MintedUnusable(Box::new(key), unusable)
                    }
                }
            }
            Err(error) => {
                self.context.account.failed(&call, &error, self.context.clock.now().monotonic);
                Answer::BoltzFailed(error.failure())
            }
        }
    }

    /// Reads the Secret and asks Boltz with its value. The only use of a stored value (rule 12).
    async fn check_key(&mut self, secret: &str, key_id: &str) -> (Answer, Shown) {
        let read = match self.context.kubernetes.get_secret(&self.facts.object.namespace, secret).await {
            Ok(read) => read.and_then(SecretWithData::into_parts),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let value = read.and_then(|(metadata, mut data)| {
            let record = metadata.record.filter(|record| record.key_id == key_id)?;
            let value = data.remove(&record.secret_key)?;
            let is_intact = value_sha256(&value.0) == record.value_sha256;
            String::from_utf8(value.0).ok().filter(|_| is_intact).map(SecretString::from)
        });
        let Some(value) = value else { return (Answer::Stale, Shown::Nothing) };
        let account = &self.context.account;
        let call = match account.short_call(self.context.clock).await {
            Ok(call) => call,
            Err(block) => return (Answer::Postponed(block), Shown::Nothing),
        };
        let answer = account.client().auth_me_with(&value).await;
        let now = self.context.clock.now().monotonic;
        match &answer {
            // A 401 or 403 is about this key, not about the admin key.
            Err(error) if error.kind() != BoltzErrorKind::Unauthorized => account.failed(&call, error, now),
            _ => account.succeeded(&call, now),
        }
        let check = match answer {
            Ok(Some(me)) if me.api_key_id.as_deref() == Some(key_id) => KeyCheck::Valid,
            Ok(Some(_)) => KeyCheck::Unclear("Boltz responded with another key's id".to_owned()),
            Ok(None) => KeyCheck::Unclear("Boltz responded with 404".to_owned()),
            Err(error) if error.status() == Some(401) => KeyCheck::Invalid,
            Err(error) => KeyCheck::Unclear(error.to_string()),
        };
        (Answer::Checked(check), Shown::Nothing)
    }

    /// C3, R3: writes the key and its record, in one write.
    async fn store(&mut self, attempt: &AttemptId, record: &Record) -> (Answer, Shown) {
        let Some(value) = self.state.values.get(attempt).map(encode) else {
            return (Answer::Stale, Shown::Nothing);
        };
        self.state.memory.mark_storing(attempt);
        match self.write_secret(record, value, false).await {
            Ok(metadata) => written(metadata, record, Some(record.value_sha256.clone())),
            Err(error) => (Answer::ApiFailed(self.failure_of_secret(&error)), Shown::Nothing),
        }
    }

    /// Creates the Secret, or updates it with UID and resourceVersion as preconditions.
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

    async fn write_record(&mut self, record: &Record) -> (Answer, Shown) {
        let SecretFacts::Ours(own) = &self.facts.secret else { return (Answer::Stale, Shown::Nothing) };
        let patch = secret_patch(self.facts, own, record, None);
        self.patch_own_secret(own, record, &patch).await
    }

    /// Updates a Secret without changing its value.
    async fn patch_own_secret(&self, own: &OwnSecret, record: &Record, patch: &Json) -> (Answer, Shown) {
        let namespace = &self.facts.object.namespace;
        match self.context.kubernetes.patch_secret(namespace, &own.name, patch, false).await {
            Ok(metadata) => written(metadata, record, own.value_sha256.clone()),
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }

    /// Creates a Secret with the same key and the new name. The plan then deletes the old one.
    async fn move_secret(&mut self, from: &str) -> (Answer, Shown) {
        let Some(own) = self.facts.other_secrets.iter().find(|secret| secret.name == from) else {
            return (Answer::Stale, Shown::Nothing);
        };
        let (record, value, _) = match self.read_value(own).await {
            Ok(Some(read)) => read,
            Ok(None) => return (Answer::Stale, Shown::Nothing),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let body = new_secret(self.facts, &record, json!(value));
        match self.context.kubernetes.create_secret(&self.facts.object.namespace, body, false).await {
            Ok(metadata) => written(metadata, &record, own.value_sha256.clone()),
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }

    /// Updates the shape of the Secret around the same value.
    async fn reshape(&mut self) -> (Answer, Shown) {
        let SecretFacts::Ours(own) = &self.facts.secret else { return (Answer::Stale, Shown::Nothing) };
        let (record, value, metadata) = match self.read_value(own).await {
            Ok(Some(read)) => read,
            Ok(None) => return (Answer::Stale, Shown::Nothing),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let mut patch = secret_patch(self.facts, own, &record, Some(json!(value)));
        patch["metadata"]["ownerReferences"] = owner_references(self.facts, &metadata.owner_references);
        self.patch_own_secret(own, &record, &patch).await
    }

    /// The record with the new shape, the value and the metadata of a Secret, if the Secret still matches the facts.
    async fn read_value(
        &self,
        own: &OwnSecret,
    ) -> Result<Option<(Record, ByteString, SecretMetadata)>, KubernetesError> {
        let read = self.context.kubernetes.get_secret(&self.facts.object.namespace, &own.name).await?;
        let parts = read.and_then(SecretWithData::into_parts);
        Ok(parts.and_then(|(metadata, mut data)| {
            let mut record = metadata.record.clone()?;
            let value = data.remove(&record.secret_key)?;
            let intact = metadata.resource_version == own.resource_version
                && value_sha256(&value.0) == record.value_sha256;
            record.take_shape(self.facts.object.spec.as_ref().ok()?);
            intact.then_some((record, value, metadata))
        }))
    }

    async fn delete_secret(&mut self, name: &str, uid: &str) -> (Answer, Shown) {
        match self.context.kubernetes.delete_secret(&self.facts.object.namespace, name, uid).await {
            Ok(()) => (Answer::Done, Shown::NoSecret(name.to_owned())),
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
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

    async fn release_secret(&mut self, name: &str) -> (Answer, Shown) {
        let object = &self.facts.object;
        let (read, hash) = match observe::read_secret(self.context, &object.namespace, name).await {
            Ok(Some(read)) => read,
            Ok(None) => return (Answer::Stale, Shown::Nothing),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let patch = json!({"metadata": {
            "uid": read.uid,
            "resourceVersion": read.resource_version,
            "ownerReferences": owner_references(self.facts, &read.owner_references),
        }});
        match self.context.kubernetes.patch_secret(&object.namespace, name, &patch, false).await {
            Ok(metadata) => {
                self.context.secrets.put(metadata, Value::Read(hash));
                (Answer::Done, Shown::Nothing)
            }
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
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

/// The result of a write of the Secret. An admission webhook may have removed the record; then nothing shows whose key the
/// Secret contains.
fn written(metadata: SecretMetadata, record: &Record, value_sha256: Option<String>) -> (Answer, Shown) {
    let is_recorded = metadata.record.as_ref() == Some(record);
    let answer = if is_recorded {
        Answer::Done
    } else {
        Answer::Undone(format!("the annotation {RECORD_ANNOTATION} is missing on the Secret"))
    };
    (answer, Shown::Secret(Box::new(metadata), value_sha256))
}

fn create_request(object: &ObjectFacts, spec: &BoltzApiKeySpec, marker: &Marker) -> CreateKeyRequest {
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

//! Reads and writes of the Secret.

use super::Execution;
use crate::{
    controller::observe::{self, Shown},
    kubernetes::{
        client::{Data, SecretWithData},
        error::KubernetesError,
        secret_body::{adopting_patch, fields, new_secret, owner_references, secret_patch},
        secret_metadata::{SecretMetadata, Value},
    },
    plan::{Answer, OwnSecret, SecretFacts},
    protocol::{marker::AttemptId, record::Record},
};
use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};

/// The value in a dry run, longer than any key: `spec.secret.data` may repeat it. No workload ever sees it.
const DRY_RUN_VALUE: &[u8] = &[b'-'; 256];

impl Execution<'_> {
    /// C0, R0: finds a name that is taken, missing permissions, quotas, policies and a terminating namespace before a key
    /// exists that could not be stored.
    pub(super) async fn preflight(&mut self) -> (Answer, Shown) {
        let mut placeholder = Record::placeholder(&self.facts.object.uid);
        if let Ok(spec) = &self.facts.object.spec {
            placeholder.take_shape(spec, &self.facts.account.base_url);
        }
        // Users choose their length.
        placeholder.rotate = self.facts.object.rotate.clone();
        placeholder.rotate_now = self.facts.object.rotate_now.clone();
        let (placeholder, data) = fields(self.facts, &placeholder, DRY_RUN_VALUE);
        match self.write_secret(&placeholder, &data, true).await {
            Ok((metadata, _)) if metadata.record.as_ref() != Some(&placeholder) => {
                (Answer::record_written(metadata.record.as_ref(), &placeholder), Shown::Nothing)
            }
            Ok((_, read))
                if let Some((name, _)) = data.iter().find(|(name, value)| read.get(*name) != Some(value)) =>
            {
                (Answer::Undone(format!("the value of {name} in the Secret was changed")), Shown::Nothing)
            }
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
                            (Some((read, _)), SecretFacts::Adoptable(found)) => {
                                read.resource_version == found.secret.resource_version
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
            Err(error) => (Answer::secret_not_written(error.failure(), &self.facts.secret), Shown::Nothing),
        }
    }

    /// C3, R3: writes the key and its record, in one write.
    pub(super) async fn store(&mut self, attempt: &AttemptId, record: &Record) -> (Answer, Shown) {
        let Some(value) = self.state.values.get(attempt) else {
            return (Answer::Stale, Shown::Nothing);
        };
        let (record, data) = fields(self.facts, record, value.expose_secret().as_bytes());
        self.state.memory.mark_storing(attempt);
        match self.write_secret(&record, &data, false).await {
            Ok((metadata, _)) => {
                let answer = Answer::key_stored(metadata.record.as_ref(), &record);
                (answer, Shown::Secret(Box::new(metadata), Some(record.value_sha256.clone())))
            }
            Err(error) => (Answer::secret_not_written(error.failure(), &self.facts.secret), Shown::Nothing),
        }
    }

    /// Creates the Secret, or updates it with UID and resourceVersion as preconditions.
    pub(super) async fn write_secret(
        &self,
        record: &Record,
        data: &Data,
        dry_run: bool,
    ) -> Result<(SecretMetadata, Data), KubernetesError> {
        let object = &self.facts.object;
        match &self.facts.secret {
            SecretFacts::Ours(own) => {
                let patch = secret_patch(self.facts, own, record, Some(data));
                self.context.kubernetes.patch_secret(&object.namespace, &own.name, &patch, dry_run).await
            }
            SecretFacts::Adoptable(found) => {
                let patch = adopting_patch(self.facts, found, record, data);
                self.context
                    .kubernetes
                    .patch_secret(&object.namespace, &found.secret.name, &patch, dry_run)
                    .await
            }
            SecretFacts::Absent | SecretFacts::Foreign(_) => {
                let body = new_secret(self.facts, record, data);
                self.context.kubernetes.create_secret(&object.namespace, body, dry_run).await
            }
        }
    }

    pub(super) async fn write_record(&mut self, record: &Record) -> (Answer, Shown) {
        let SecretFacts::Ours(own) = &self.facts.secret else { return (Answer::Stale, Shown::Nothing) };
        let patch = secret_patch(self.facts, own, record, None);
        self.patch_own_secret(own, &patch, |metadata| {
            Answer::record_written(metadata.record.as_ref(), record)
        })
        .await
    }

    /// Updates a Secret without changing its value.
    pub(super) async fn patch_own_secret(
        &self,
        own: &OwnSecret,
        patch: &Json,
        means: impl FnOnce(&SecretMetadata) -> Answer,
    ) -> (Answer, Shown) {
        let namespace = &self.facts.object.namespace;
        match self.context.kubernetes.patch_secret(namespace, &own.name, patch, false).await {
            Ok((metadata, _)) => {
                (means(&metadata), Shown::Secret(Box::new(metadata), own.value_sha256.clone()))
            }
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }

    /// Creates a Secret with the same key and the new name. The plan then deletes the old one.
    pub(super) async fn move_secret(&mut self, from: &str) -> (Answer, Shown) {
        let Some(own) = self.facts.other_secrets.iter().find(|secret| secret.name == from) else {
            return (Answer::Stale, Shown::Nothing);
        };
        let read = match self.read_value(own).await {
            Ok(Some(read)) => read,
            Ok(None) => return (Answer::Stale, Shown::Nothing),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let (record, mut data) = fields(self.facts, &read.record, &read.value);
        // The old Secret is deleted, and with it what others added.
        for (name, value) in read.of_others {
            data.entry(name).or_insert(value);
        }
        let body = new_secret(self.facts, &record, &data);
        match self.context.kubernetes.create_secret(&self.facts.object.namespace, body, false).await {
            Ok((metadata, _)) => {
                let answer = Answer::record_written(metadata.record.as_ref(), &record);
                (answer, Shown::Secret(Box::new(metadata), own.value_sha256.clone()))
            }
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }

    /// Updates the shape of the Secret around the same value.
    pub(super) async fn reshape(&mut self) -> (Answer, Shown) {
        let SecretFacts::Ours(own) = &self.facts.secret else { return (Answer::Stale, Shown::Nothing) };
        let read = match self.read_value(own).await {
            Ok(Some(read)) => read,
            Ok(None) => return (Answer::Stale, Shown::Nothing),
            Err(error) => return (Answer::ApiFailed(error.failure()), Shown::Nothing),
        };
        let (record, data) = fields(self.facts, &read.record, &read.value);
        let mut patch = secret_patch(self.facts, own, &record, Some(&data));
        patch["metadata"]["ownerReferences"] = owner_references(self.facts, &read.metadata.owner_references);
        self.patch_own_secret(own, &patch, |metadata| {
            let is_labelled = metadata.owner_label.as_deref() == Some(self.facts.object.uid.as_str());
            Answer::reshaped(metadata.record.as_ref(), &record, is_labelled)
        })
        .await
    }

    /// A Secret with its value, if it still matches the facts.
    async fn read_value(&self, own: &OwnSecret) -> Result<Option<ReadValue>, KubernetesError> {
        let read = self.context.kubernetes.get_secret(&self.facts.object.namespace, &own.name).await?;
        let parts = read.and_then(SecretWithData::into_parts);
        Ok(parts.and_then(|(metadata, mut data)| {
            let mut record = metadata.record.clone()?;
            let value = data.remove(&record.secret_key)?.0;
            let intact = own.is_as_known(&metadata.resource_version, &record, &value);
            for name in record.data.iter().flat_map(|known| &known.names) {
                data.remove(name);
            }
            record.take_shape(self.facts.object.spec.as_ref().ok()?, &self.facts.account.base_url);
            intact.then_some(ReadValue { record, value, of_others: data, metadata })
        }))
    }

    pub(super) async fn delete_secret(&mut self, name: &str, uid: &str) -> (Answer, Shown) {
        match self.context.kubernetes.delete_secret(&self.facts.object.namespace, name, uid).await {
            Ok(()) => (Answer::Done, Shown::NoSecret(name.to_owned())),
            Err(error) => match Answer::secret_not_deleted(error.failure()) {
                Answer::Done => (Answer::Done, Shown::NoSecret(name.to_owned())),
                answer => (answer, Shown::Nothing),
            },
        }
    }

    pub(super) async fn release_secret(&mut self, name: &str) -> (Answer, Shown) {
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
            Ok((metadata, _)) => {
                self.context.secrets.put(metadata, Value::Read(hash));
                (Answer::Done, Shown::Nothing)
            }
            Err(error) => (Answer::ApiFailed(error.failure()), Shown::Nothing),
        }
    }
}

/// A Secret that was read to be written with the same value. Deliberately without `Debug`.
struct ReadValue {
    /// With the new shape.
    record: Record,
    value: Vec<u8>,
    /// The fields that the operator did not write.
    of_others: Data,
    metadata: SecretMetadata,
}

//! What the operator reads of a Secret: its metadata and the SHA-256 of its value, never the value.

use crate::{
    api::{
        DEFAULT_SECRET_TYPE,
        annotations::{ADOPTABLE_BY_ANNOTATION, OWNER_LABEL, RECORD_ANNOTATION},
        is_reserved_type,
    },
    plan::{Adoptable, ObjectFacts, OwnSecret},
    protocol::record::Record,
};
use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of our objects.
const KIND: &str = "BoltzApiKey";

/// A Secret's metadata, as far as the operator needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMetadata {
    /// By which the object is found whose spec asks for it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from an earlier Secret of the same name.
    pub uid: String,
    /// Its resourceVersion, by which the newest wins.
    pub resource_version: String,
    /// The value of our label.
    pub owner_label: Option<String>,
    /// The record, if our annotation is one.
    pub record: Option<Record>,
    /// One of them is the object, unless others removed it or `Retain` is set.
    pub owner_references: Vec<OwnerReference>,
    /// It has a deletionTimestamp: a finalizer of others keeps it.
    pub deleting: bool,
    /// The name of the object that may adopt it, as its annotation says. No cache has this or what follows.
    pub adoptable_by: Option<String>,
    /// Its type, if it was read with its values.
    pub kind: Option<String>,
    /// Nobody can change its values.
    pub immutable: bool,
}

impl SecretMetadata {
    /// From a response of the API server; `None` if it lacks a name, namespace, UID or version.
    pub(crate) fn from_object_meta(meta: ObjectMeta) -> Option<Self> {
        let take = |map: Option<BTreeMap<String, String>>, key: &str| map.and_then(|mut map| map.remove(key));
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|map| map.get(key));
        Some(Self {
            adoptable_by: annotation(ADOPTABLE_BY_ANNOTATION).cloned(),
            record: Record::parse(annotation(RECORD_ANNOTATION).map(String::as_str)),
            namespace: meta.namespace?,
            name: meta.name?,
            uid: meta.uid?,
            resource_version: meta.resource_version?,
            owner_label: take(meta.labels, OWNER_LABEL),
            owner_references: meta.owner_references.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            kind: None,
            immutable: false,
        })
    }

    /// The SHA-256 of the value under the record's data key, hexadecimal; `None` if there is no such value, or another
    /// field that the operator wrote was altered.
    pub(crate) fn hash_of_key(&self, data: &BTreeMap<String, ByteString>) -> Option<String> {
        self.record.as_ref()?.hash_of(|name| data.get(name).map(|value| value.0.as_slice()))
    }

    /// Whether it was written by an operator: it has a record, or an object as owner. Others may use our label.
    pub(crate) fn is_of_an_operator(&self) -> bool {
        self.owner_references.iter().any(|owner| owner.kind == KIND) || self.record.is_some()
    }

    /// Whether the Secret belongs to the object with this UID.
    pub fn ownership(&self, object_uid: &str) -> Ownership {
        let record = self.record.as_ref();
        let owned = self.owner_references.iter().any(|owner| owner.uid == object_uid);
        let labelled = self.owner_label.as_deref() == Some(object_uid);
        match record {
            Some(record) if record.owner_uid == object_uid => Ownership::Ours,
            _ if owned => Ownership::Ours,
            // It has our label and no owner: restored from a backup, or left by `kubectl delete --cascade=orphan`.
            Some(_) | None if labelled && self.owner_references.is_empty() => Ownership::Ours,
            Some(record) if self.owner_references.is_empty() => Ownership::Foreign(format!(
                "Secret {} contains a key of another BoltzApiKey (UID {}) that was deleted or has deletionPolicy \
                 Retain. Delete the Secret, or set spec.secret.name to another name.",
                self.name, record.owner_uid
            )),
            _ => Ownership::Foreign(format!(
                "Secret {} already exists and does not belong to this BoltzApiKey. Delete the Secret, or set \
                 spec.secret.name to another name.",
                self.name
            )),
        }
    }

    /// Whether an object that wants to adopt this Secret of somebody else may do so, as far as the Secret itself says. The
    /// error is the message for the condition.
    pub fn consents_to(&self, object: &ObjectFacts) -> Result<(), String> {
        let Self { name, kind, .. } = self;
        let wanted = object.spec.as_ref().ok().and_then(|spec| spec.secret.type_.as_deref());
        let wanted = wanted.filter(|kind| !kind.is_empty()).unwrap_or(DEFAULT_SECRET_TYPE);
        let or = "or set spec.secret.name to another name";
        Err(match kind.as_deref() {
            _ if !self.owner_references.is_empty() => format!(
                "Secret {name} has an owner, so it cannot be adopted: its owner would write or delete it. Remove its \
                 ownerReferences, {or}."
            ),
            _ if self.deleting => format!("Secret {name} is being deleted, so it cannot be adopted."),
            _ if self.adoptable_by.as_ref() != Some(&object.name) => format!(
                "Secret {name} already exists and does not consent to be adopted. Add the annotation \
                 {ADOPTABLE_BY_ANNOTATION}: {} to it, {or}.",
                object.name
            ),
            Some(kind) if is_reserved_type(kind) => format!(
                "Secret {name} has type {kind}. Secrets of such types are not adopted. Delete the Secret, {or}."
            ),
            Some(kind) if kind != wanted => format!(
                "Secret {name} has type {kind}, and spec.secret.type is {wanted}. The type of a Secret cannot be changed. \
                 Create the object with spec.secret.type: {kind}, {or}."
            ),
            _ if self.immutable => {
                format!("Secret {name} is immutable, so it cannot be adopted. Delete the Secret, {or}.")
            }
            None => format!("The type of Secret {name} is not known."),
            Some(_) => return Ok(()),
        })
    }

    /// Converts to the input of the plan, after it consented. `is_owner_gone`: no object is alive that its record may speak of.
    pub fn as_adoptable(&self, object_uid: &str, hash: Option<String>, is_owner_gone: bool) -> Adoptable {
        Adoptable {
            secret: self.as_own(object_uid, Value::Read(hash)),
            record: self.record.clone(),
            is_owner_gone,
            listed: None,
            proof: None,
        }
    }

    /// Converts to the input of the plan.
    pub fn as_own(&self, object_uid: &str, value: Value) -> OwnSecret {
        let (value_sha256, is_unread) = match value {
            Value::Unread => (None, true),
            Value::Read(hash) => (hash, false),
        };
        let owned = self.owner_references.iter().any(|owner| owner.uid == object_uid);
        OwnSecret {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            record: self.record.clone().filter(|record| record.owner_uid == object_uid),
            value_sha256,
            is_unread,
            labelled: self.owner_label.as_deref() == Some(object_uid),
            owned,
        }
    }
}

/// Whether a Secret belongs to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It belongs to the object.
    Ours,
    /// It belongs to another owner. Contains the message for the condition.
    Foreign(String),
}

/// What is known about the value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// It was not read since the last change.
    Unread,
    /// The SHA-256 of the value under the record's data key; `None` if there is no value, or a field was altered.
    Read(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::WatchedApiKey, controller::object_facts};
    use serde_json::json;

    fn secret(change: impl FnOnce(&mut SecretMetadata)) -> SecretMetadata {
        let meta = json!({
            "namespace": "team", "name": "shared", "uid": "secret", "resourceVersion": "1",
            "annotations": {ADOPTABLE_BY_ANNOTATION: "new"},
        });
        let mut metadata = SecretMetadata::from_object_meta(serde_json::from_value(meta).unwrap()).unwrap();
        metadata.kind = Some("Opaque".to_owned());
        change(&mut metadata);
        metadata
    }

    #[test]
    fn a_secret_is_adopted_only_if_all_allows_it() {
        let object = |spec: serde_json::Value| {
            let metadata = json!({"namespace": "team", "name": "new", "uid": "uid"});
            let object: WatchedApiKey =
                serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            object_facts(&object)
        };
        let plain = object(json!({"secret": {"adopt": true}}));
        let typed = object(json!({"secret": {"adopt": true, "type": "example.com/key"}}));
        let kind = |kind: &'static str| secret(move |secret| secret.kind = Some(kind.to_owned()));
        assert_eq!(secret(|_| {}).consents_to(&plain), Ok(()));
        assert_eq!(kind("example.com/key").consents_to(&typed), Ok(()));
        for (found, object, words) in [
            (secret(|secret| secret.adoptable_by = None), &plain, "boltz.bio/adoptable-by: new"),
            (
                secret(|secret| secret.adoptable_by = Some("other".to_owned())),
                &plain,
                "boltz.bio/adoptable-by: new",
            ),
            (secret(|secret| secret.immutable = true), &plain, "immutable"),
            (secret(|secret| secret.deleting = true), &plain, "being deleted"),
            (
                secret(|secret| secret.owner_references = vec![OwnerReference::default()]),
                &plain,
                "has an owner",
            ),
            (kind("kubernetes.io/tls"), &plain, "not adopted"),
            (kind("bootstrap.kubernetes.io/token"), &plain, "not adopted"),
            (kind("helm.sh/release.v1"), &plain, "not adopted"),
            (kind("example.com/key"), &plain, "spec.secret.type is Opaque"),
            (kind("Opaque"), &typed, "spec.secret.type is example.com/key"),
            (secret(|secret| secret.kind = None), &plain, "not known"),
        ] {
            let why = found.consents_to(object).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}

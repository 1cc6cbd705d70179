//! The bodies and patches with which the operator writes Secrets. Pure.

use crate::{
    api::annotations::{OWNER_LABEL, RECORD_ANNOTATION},
    kubernetes::client::api_version,
    plan::{Facts, OwnSecret},
    protocol::record::Record,
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};

/// A value as in the `data` of a Secret.
pub fn encode(value: &SecretString) -> Json {
    json!(ByteString(value.expose_secret().as_bytes().to_vec()))
}

/// The ownerReferences of a Secret: keeps those of others, and adds the object's unless the Secret is retained.
pub fn owner_references(facts: &Facts, present: &[OwnerReference]) -> Json {
    let object = &facts.object;
    let mut references: Vec<Json> =
        present.iter().filter(|owner| owner.uid != object.uid).map(|owner| json!(owner)).collect();
    if object.owns_its_secret() {
        references.push(json!({
            "apiVersion": api_version(),
            "kind": "BoltzApiKey",
            "name": object.name,
            "uid": object.uid,
            "controller": !present.iter().any(|owner| owner.uid != object.uid && owner.controller == Some(true)),
            // The object may be deleted before its Secret: the operator still has to read the record.
            "blockOwnerDeletion": false,
        }));
    }
    Json::Array(references)
}

/// The labels or annotations of the template, and ours.
fn with_own(
    template: impl Iterator<Item = (String, String)>,
    own: (&str, &str),
) -> serde_json::Map<String, Json> {
    let own = (own.0.to_owned(), own.1.to_owned());
    template.chain(std::iter::once(own)).map(|(name, value)| (name, Json::String(value))).collect()
}

/// The body of a new Secret with this record and value.
pub fn new_secret(facts: &Facts, record: &Record, value: Json) -> Vec<u8> {
    let template = facts.object.spec.as_ref().map(|spec| spec.secret.template.clone()).unwrap_or_default();
    let labels = with_own(template.labels.into_iter(), (OWNER_LABEL, &facts.object.uid));
    let annotations =
        with_own(template.annotations.into_iter(), (RECORD_ANNOTATION, &record.to_annotation()));
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": facts.object.secret_name(),
            "namespace": facts.object.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owner_references(facts, &[]),
        },
        "data": {&record.secret_key: value},
    })
    .to_string()
    .into_bytes()
}

/// The merge patch that sets the record and, if given, the value. Removes labels and annotations that the operator set
/// earlier and no longer sets; keeps those of others.
pub fn secret_patch(facts: &Facts, own: &OwnSecret, record: &Record, value: Option<Json>) -> Json {
    let template = facts.object.spec.as_ref().map(|spec| spec.secret.template.clone()).unwrap_or_default();
    let mut labels = with_own(template.labels.into_iter(), (OWNER_LABEL, &facts.object.uid));
    let mut annotations =
        with_own(template.annotations.into_iter(), (RECORD_ANNOTATION, &record.to_annotation()));
    let mut metadata = json!({"uid": own.uid, "resourceVersion": own.resource_version});
    let mut patch = json!({});
    if let Some(value) = value {
        let mut data = json!({&record.secret_key: value});
        if let Some(old) = &own.record {
            for name in &old.template_labels {
                labels.entry(name.clone()).or_insert(Json::Null);
            }
            for name in &old.template_annotations {
                annotations.entry(name.clone()).or_insert(Json::Null);
            }
            if old.secret_key != record.secret_key {
                data[&old.secret_key] = Json::Null;
            }
        }
        patch["data"] = data;
        metadata["labels"] = Json::Object(labels);
        if !own.owned && facts.object.owns_its_secret() {
            metadata["ownerReferences"] = owner_references(facts, &[]);
        }
    } else {
        annotations.retain(|name, _| name == RECORD_ANNOTATION);
    }
    metadata["annotations"] = Json::Object(annotations);
    patch["metadata"] = metadata;
    patch
}

//! The bodies and patches with which the operator writes Secrets. Pure.

use crate::{
    api::{
        DEFAULT_SECRET_TYPE,
        annotations::{ADOPTABLE_BY_ANNOTATION, OWNER_LABEL, RECORD_ANNOTATION},
    },
    kubernetes::client::{Data, api_version},
    plan::{Adoptable, Facts, OwnSecret},
    protocol::{record::Record, secret_data::expand},
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use serde_json::{Value as Json, json};

/// The fields of a Secret with this value, and the record with their hash.
pub fn fields(facts: &Facts, record: &Record, value: &[u8]) -> (Record, Data) {
    let mut record = record.clone();
    let mut data = Data::from([(record.secret_key.clone(), ByteString(value.to_vec()))]);
    // A Secret without them is reshaped when the spec can be read again.
    let Ok(spec) = &facts.object.spec else {
        record.data = None;
        return (record, data);
    };
    let key = String::from_utf8_lossy(value);
    let expires_at = record.expires_at.map(|at| format!("{at:.0}")).unwrap_or_default();
    let value_of = |name: &str| match name {
        "key" => Some(key.as_ref()),
        "keyID" => Some(record.key_id.as_str()),
        "workspaceID" => Some(record.workspace_id.as_deref().unwrap_or_default()),
        "baseURL" => Some(facts.account.base_url.as_str()),
        "expiresAt" => Some(expires_at.as_str()),
        "mode" => Some(if record.livemode { "live" } else { "test" }),
        _ => None,
    };
    for (name, text) in spec.secret.usable_data() {
        data.entry(name.to_owned()).or_insert_with(|| ByteString(expand(text, value_of).into_bytes()));
    }
    record.seal(|name| data.get(name).map(|value| value.0.as_slice()));
    (record, data)
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

/// The body of a new Secret with this record and these fields.
pub fn new_secret(facts: &Facts, record: &Record, data: &Data) -> Vec<u8> {
    let spec = facts.object.spec.as_ref().map(|spec| spec.secret.clone()).unwrap_or_default();
    let template = spec.template;
    let labels = with_own(template.labels.into_iter(), (OWNER_LABEL, &facts.object.uid));
    let annotations =
        with_own(template.annotations.into_iter(), (RECORD_ANNOTATION, &record.to_annotation()));
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": spec.type_.as_deref().unwrap_or(DEFAULT_SECRET_TYPE),
        "metadata": {
            "name": facts.object.secret_name(),
            "namespace": facts.object.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owner_references(facts, &[]),
        },
        "data": data,
    })
    .to_string()
    .into_bytes()
}

/// The merge patch with which a Secret is adopted. What its record says that the operator set, and no longer sets, goes; and
/// so does the consent, which was for this once.
pub fn adopting_patch(facts: &Facts, found: &Adoptable, record: &Record, data: &Data) -> Json {
    let own = OwnSecret { record: found.record.clone(), ..found.secret.clone() };
    let mut patch = secret_patch(facts, &own, record, Some(data));
    patch["metadata"]["annotations"][ADOPTABLE_BY_ANNOTATION] = Json::Null;
    patch
}

/// The merge patch that sets the record and, if given, the fields. Removes labels, annotations and fields that the operator
/// set earlier and no longer sets; keeps those of others.
pub fn secret_patch(facts: &Facts, own: &OwnSecret, record: &Record, data: Option<&Data>) -> Json {
    let template = facts.object.spec.as_ref().map(|spec| spec.secret.template.clone()).unwrap_or_default();
    let mut labels = with_own(template.labels.into_iter(), (OWNER_LABEL, &facts.object.uid));
    let mut annotations =
        with_own(template.annotations.into_iter(), (RECORD_ANNOTATION, &record.to_annotation()));
    let mut metadata = json!({"uid": own.uid, "resourceVersion": own.resource_version});
    let mut patch = json!({});
    if let Some(data) = data {
        let mut fields = json!(data);
        if let Some(old) = &own.record {
            for name in &old.template_labels {
                labels.entry(name.clone()).or_insert(Json::Null);
            }
            for name in &old.template_annotations {
                annotations.entry(name.clone()).or_insert(Json::Null);
            }
            let names = old.data.iter().flat_map(|old| &old.names).chain([&old.secret_key]);
            for name in names.filter(|name| !data.contains_key(*name)) {
                fields[name] = Json::Null;
            }
        }
        patch["data"] = fields;
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

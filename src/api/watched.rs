//! A `BoltzApiKey` as the operator watches it: small, and tolerant of invalid objects.

use super::annotations::PREFIX;
use super::{
    status::BoltzApiKeyStatus,
    v1alpha1::{BoltzApiKey, BoltzApiKeySpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A `BoltzApiKey` as the operator watches it.
///
/// It differs from the derived root in two ways. `managedFields`, labels and annotations of others are skipped while
/// deserializing: they are most of the memory of a large cache. And a spec or status that does not fit the types is kept as an error, because one object
/// that cannot be deserialized would fail the whole list.
#[derive(Resource, Clone, Debug, PartialEq, Deserialize)]
#[resource(inherit = BoltzApiKey)]
pub struct WatchedApiKey {
    /// Without `managedFields`, labels and annotations of others.
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// The spec, or why it is invalid.
    #[serde(deserialize_with = "lenient")]
    pub spec: Result<BoltzApiKeySpec, String>,
    /// Absent if it is invalid: it can be rebuilt.
    #[serde(default, deserialize_with = "lenient_status")]
    pub status: Option<BoltzApiKeyStatus>,
}

fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    /// The fields of ObjectMeta that the operator reads; the others are skipped without being built.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        annotations: Option<BTreeMap<String, String>>,
        finalizers: Option<Vec<String>>,
    }
    let slim = Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        // Others' are not needed, and may be large.
        annotations: slim.annotations.map(|mut annotations| {
            annotations.retain(|name, _| name.starts_with(PREFIX));
            annotations
        }),
        finalizers: slim.finalizers,
        ..ObjectMeta::default()
    })
}

pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Result<T, String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).map_err(|error| error.to_string()))
}

fn lenient_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BoltzApiKeyStatus>, D::Error> {
    let status = lenient::<D, Option<BoltzApiKeyStatus>>(deserializer)?;
    Ok(status.ok().flatten().map(BoltzApiKeyStatus::bounded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_of_others_is_not_kept() {
        let object: WatchedApiKey = serde_json::from_value(json!({
            "metadata": {
                "name": "key",
                "annotations": {"boltz.bio/rotate": "1", "theirs/large": "x".repeat(200_000)},
                "labels": {"theirs": "x"},
                "managedFields": [{"manager": "theirs"}],
            },
            "spec": {},
        }))
        .unwrap();
        let names: Vec<String> = object.metadata.annotations.unwrap().into_keys().collect();
        assert_eq!(names, ["boltz.bio/rotate"]);
        assert_eq!((object.metadata.labels, object.metadata.managed_fields), (None, None));
    }
}

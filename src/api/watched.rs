//! A `BoltzApiKey` as the operator watches it: small, and tolerant of invalid objects.

use super::v1alpha1::{BoltzApiKey, BoltzApiKeySpec, BoltzApiKeyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A `BoltzApiKey` as the operator watches it.
///
/// It differs from the derived root in two ways. `managedFields` are skipped while deserializing: they are most of the
/// memory of a large cache. And a spec or status that does not fit the types is kept as an error, because one object
/// that cannot be deserialized would fail the whole list.
#[derive(Resource, Clone, Debug, PartialEq, Deserialize)]
#[resource(inherit = BoltzApiKey)]
pub struct WatchedApiKey {
    /// Without `managedFields`.
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
        labels: Option<BTreeMap<String, String>>,
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
        // kubectl's copy of the whole manifest is large and not needed.
        annotations: slim.annotations.map(|mut annotations| {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            annotations
        }),
        labels: slim.labels,
        finalizers: slim.finalizers,
        ..ObjectMeta::default()
    })
}

fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Result<T, String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).map_err(|error| error.to_string()))
}

fn lenient_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BoltzApiKeyStatus>, D::Error> {
    let status = lenient::<D, Option<BoltzApiKeyStatus>>(deserializer)?;
    Ok(status.ok().flatten().map(BoltzApiKeyStatus::bounded))
}

//! A ConfigMap of the operator: read whole, written key by key.

use super::{client::bounded, error::KubernetesError};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::collections::BTreeMap;

/// The ConfigMap. It is created with the first write.
pub(crate) struct ConfigMapStore {
    api: Api<ConfigMap>,
    name: String,
}

impl ConfigMapStore {
    pub(crate) fn new(client: Client, namespace: &str, name: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The data; empty if the ConfigMap does not exist.
    pub(crate) async fn read(&self) -> Result<BTreeMap<String, String>, KubernetesError> {
        let found = bounded(self.api.get_opt(&self.name)).await?;
        Ok(found.and_then(|found| found.data).unwrap_or_default())
    }

    /// Adds these to the data.
    pub(crate) async fn write(&self, data: BTreeMap<String, String>) -> Result<(), KubernetesError> {
        let patch = Patch::Merge(json!({"data": data}));
        let write = async {
            match self.api.patch(&self.name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {
                    let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                    let new = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                    self.api.create(&PostParams::default(), &new).await.map(drop)
                }
                other => other.map(drop),
            }
        };
        bounded(write).await
    }

    /// Removes these keys from the data.
    pub(crate) async fn remove(&self, keys: impl IntoIterator<Item = String>) -> Result<(), KubernetesError> {
        let data: BTreeMap<String, Option<String>> = keys.into_iter().map(|key| (key, None)).collect();
        let patch = Patch::Merge(json!({"data": data}));
        let write = async {
            match self.api.patch(&self.name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(drop),
            }
        };
        bounded(write).await
    }
}

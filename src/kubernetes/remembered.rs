//! The ConfigMap in which the operator remembers what it knows about its Boltz organization.

use crate::{
    backoff,
    boltz::{account::Account, organization::Remembered, snapshot::ClusterNames},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::collections::BTreeMap;

/// Reads the ConfigMap, and writes it whenever the account remembers something else. Does not end.
pub(crate) async fn keep(
    client: Client,
    namespace: &str,
    name: &str,
    account: &Account,
    names: &ClusterNames,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let mut changes = account.remembered_changes();
    let mut failures = 0;
    loop {
        match api.get_opt(name).await {
            Ok(found) => {
                let data = found.and_then(|found| found.data).unwrap_or_default();
                account.remember(Remembered::from_data(&data, names));
                break;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    configmap = name,
                    "failed to read what the operator remembers; until then, no key counts as absent from Boltz's list"
                );
                tokio::time::sleep(backoff::delay(failures, None)).await;
            }
        }
    }
    failures = 0;
    loop {
        if failures == 0 && changes.changed().await.is_err() {
            return;
        }
        changes.mark_unchanged();
        let Some(remembered) = account.remembered() else { continue };
        match write(&api, name, remembered.to_data(names)).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    configmap = name,
                    "failed to write what the operator remembers; it will be retried"
                );
                tokio::time::sleep(backoff::delay(failures, None)).await;
            }
        }
    }
}

async fn write(api: &Api<ConfigMap>, name: &str, data: BTreeMap<String, String>) -> kube::Result<()> {
    let patch = Patch::Merge(json!({"data": data}));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let new = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            api.create(&PostParams::default(), &new).await.map(drop)
        }
        other => other.map(drop),
    }
}

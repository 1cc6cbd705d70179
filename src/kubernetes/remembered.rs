//! The ConfigMap in which the operator remembers what it knows about its Boltz organization.

use super::config_map::ConfigMapStore;
use crate::{
    backoff,
    boltz::{account::Account, organization::Remembered, snapshot::ClusterNames},
};
use kube::Client;

/// Reads the ConfigMap, and writes it whenever the account remembers something else. Does not end.
pub(crate) async fn keep(
    client: Client,
    namespace: &str,
    name: &str,
    account: &Account,
    names: &ClusterNames,
) {
    let store = ConfigMapStore::new(client, namespace, name.to_owned());
    let mut changes = account.remembered_changes();
    let mut failures = 0;
    loop {
        match store.read().await {
            Ok(data) => {
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
        match store.write(remembered.to_data(names)).await {
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

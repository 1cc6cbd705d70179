//! The ConfigMap in which the operator remembers what it knows about its Boltz organization.

use super::config_map::ConfigMapStore;
use crate::{
    backoff,
    boltz::{account::Account, organization::Remembered, snapshot::ClusterNames},
};
use kube::Client;
use tokio::sync::watch;

/// Reads the ConfigMap, and writes it whenever the account remembers something else. After each pass over Boltz's list it is
/// read again: if somebody deleted or edited it, the next process would not know whose keys these are. What this process
/// remembers counts; `--accept-organization` and `--retry-altered-names` change it. Does not end.
pub(crate) async fn keep(
    client: Client,
    namespace: &str,
    name: &str,
    account: &Account,
    names: &ClusterNames,
    mut passes: watch::Receiver<u64>,
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
        // In this order: what a pass changes is not somebody else's change.
        let is_over = tokio::select! {
            biased;
            () = std::future::ready(()), if failures > 0 => false,
            changed = changes.changed() => changed.is_err(),
            passed = passes.changed() => match (passed, account.remembered()) {
                (Err(_), _) => true,
                (Ok(()), Some(remembered)) if is_altered(&store, &remembered, names).await => false,
                (Ok(()), _) => continue,
            },
        };
        if is_over {
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

/// Whether somebody else changed the ConfigMap. If it cannot be read, the next pass asks again.
async fn is_altered(store: &ConfigMapStore, remembered: &Remembered, names: &ClusterNames) -> bool {
    let is_altered = store.read().await.is_ok_and(|data| Remembered::from_data(&data, names) != *remembered);
    if is_altered {
        tracing::warn!(
            configmap = store.name(),
            "somebody changed or deleted what the operator remembers; it is written again"
        );
    }
    is_altered
}

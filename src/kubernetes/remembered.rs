//! The ConfigMap in which the operator remembers what it knows about its Boltz organization.

use super::{config_map::ConfigMapStore, error::KubernetesError};
use crate::{
    boltz::{
        account::Account,
        account_data::{Remembered, read_for, written_for},
        cluster_names::ClusterNames,
        inventory::Inventory,
    },
    clock::Clock,
    protocol::account_name::AccountName,
    retry_delay,
};
use kube::Client;
use std::time::Duration;

/// How often the ConfigMap is read while a pass is doubtful: somebody may confirm that keys are gone.
const CONFIRMATION_INTERVAL: Duration = Duration::from_secs(10);

/// Reads the ConfigMap, and writes it whenever the account remembers something else. After each pass over Boltz's list it is
/// read again: if somebody deleted or edited it, the next process would not know whose keys these are. What this process
/// remembers counts; `--accept-organization` and `--retry-altered-names` change it. Only how many missing keys are confirmed
/// is for others to say. Does not end.
pub(crate) async fn keep(
    client: Client,
    namespace: &str,
    name: &str,
    account: &Account,
    inventory: &Inventory,
    clock: Clock,
) {
    let names = inventory.names();
    let store = ConfigMapStore::new(client, namespace, name.to_owned());
    let mut changes = account.remembered_changes();
    let mut passes = inventory.completions();
    let mut failures = 0;
    loop {
        match store.read().await {
            Ok(data) => {
                account.remember(Remembered::from_data(&read_for(account.name(), &data), names));
                break;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    configmap = name,
                    "failed to read what the operator remembers; until then, no key counts as absent from Boltz's list"
                );
                tokio::time::sleep(retry_delay::delay(failures, None)).await;
            }
        }
    }
    failures = 0;
    // What others confirmed, as the ConfigMap contained it last: an edit of it is told from what was not written yet.
    let mut confirmed = account.remembered().map_or(0, |remembered| remembered.confirmed_missing_keys);
    loop {
        // In this order: what a pass changes is not somebody else's change.
        let is_new = tokio::select! {
            biased;
            () = std::future::ready(()), if failures > 0 => true,
            changed = changes.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            passed = passes.changed() => match passed {
                Ok(()) => false,
                Err(_) => return,
            },
            () = tokio::time::sleep(CONFIRMATION_INTERVAL), if inventory.is_in_doubt() => false,
        };
        account.publish_clock_skew();
        // A write would replace what somebody has confirmed meanwhile.
        let read = read_confirmation(&store, account, inventory, clock, &mut confirmed).await;
        // What is still to be written is no change by somebody else.
        let is_written = !is_new && !changes.has_changed().unwrap_or(true);
        let is_altered = is_written && read.is_some_and(|read| is_altered(&store, &read, account));
        if !is_new && !is_altered {
            continue;
        }
        changes.mark_unchanged();
        let Some(remembered) = account.remembered() else { continue };
        match store.write(written_for(account.name(), remembered.to_data(names))).await {
            Ok(()) => (failures, confirmed) = (0, remembered.confirmed_missing_keys),
            Err(error) => {
                failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    configmap = name,
                    "failed to write what the operator remembers; it will be retried"
                );
                tokio::time::sleep(retry_delay::delay(failures, None)).await;
            }
        }
    }
}

/// Reads what is remembered of an account.
pub(crate) async fn read(
    client: Client,
    namespace: &str,
    name: &str,
    account: &AccountName,
    names: &ClusterNames,
) -> Result<Remembered, KubernetesError> {
    let data = ConfigMapStore::new(client, namespace, name.to_owned()).read().await?;
    Ok(Remembered::from_data(&read_for(account, &data), names))
}

/// Forgets what is remembered of an account that goes: another one of its name may be of another organization.
pub(crate) async fn forget(
    client: Client,
    namespace: &str,
    name: &str,
    account: &AccountName,
    names: &ClusterNames,
) -> Result<(), KubernetesError> {
    let store = ConfigMapStore::new(client, namespace, name.to_owned());
    store.write(written_for(account, Remembered::default().to_data(names))).await
}

/// Reads the ConfigMap, and takes from it how many missing keys somebody has confirmed. If it cannot be read, the next pass asks
/// again.
async fn read_confirmation(
    store: &ConfigMapStore,
    account: &Account,
    inventory: &Inventory,
    clock: Clock,
    confirmed: &mut usize,
) -> Option<Remembered> {
    let data = read_for(account.name(), &store.read().await.ok()?);
    let read = Remembered::from_data(&data, inventory.names());
    if read.confirmed_missing_keys != *confirmed {
        *confirmed = read.confirmed_missing_keys;
        tracing::info!(
            configmap = store.name(),
            keys = read.confirmed_missing_keys,
            "somebody confirmed that so many keys are gone; the next pass that lacks no more of them is believed"
        );
        account.confirm_missing_keys(read.confirmed_missing_keys);
        inventory.request_pass_since(clock.now().monotonic);
    }
    Some(read)
}

/// Whether somebody else changed the ConfigMap, other than to confirm that keys are gone.
fn is_altered(store: &ConfigMapStore, read: &Remembered, account: &Account) -> bool {
    let is_altered = account.remembered().is_some_and(|known| *read != known);
    if is_altered {
        tracing::warn!(
            configmap = store.name(),
            "somebody changed or deleted what the operator remembers; it is written again"
        );
    }
    is_altered
}

//! The account of `--admin-key-file`, and what the flags say of all others.

use crate::{
    boltz::{
        BoltzClient, BoltzClientError, BoltzClientOptions, MintLimits, account::Account, account_data,
        accounts::ServedAccount, admin_key::AdminKeySource, ca_file, cluster_names::ClusterNames,
        inventory::Inventory,
    },
    cli::Config,
    controller::{AccountSettings, orphan_list},
    observability::metrics::Metrics,
    protocol::account_name::AccountName,
};
use kube::Client;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet};

/// The account of the flags, whose admin key is read and checked from now on. `None`: the flags name no admin key.
pub(crate) async fn start(
    config: &Config,
    extra_roots_pem: Option<Vec<u8>>,
    names: &ClusterNames,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<ServedAccount>>, BoltzClientError> {
    let source = config.admin_key_file.clone().map_or(AdminKeySource::Environment, AdminKeySource::File);
    if !config.has_admin_key() {
        return Ok(None);
    }
    let (offered, offers) = watch::channel(source.read().await);
    let (admin_key, changes) = watch::channel(offers.borrow().clone());
    let options = BoltzClientOptions {
        base_url: config.boltz_base_url.clone(),
        extra_roots_pem: extra_roots_pem.clone(),
        request_timeout: config.request_timeout,
    };
    let client = BoltzClient::new(options, changes.clone(), Arc::clone(metrics))?;
    let account = Account::new(client, limits(config), Arc::clone(metrics))
        .unread(config.accept_organization.clone(), config.retry_altered_names);
    let served = ServedAccount::new(account, Inventory::new(names.clone()));
    metrics.set_inventory_interval(&AccountName::OF_FLAGS, config.inventory_interval);
    tasks.spawn(source.publish(offered));
    let (checked, proved) = (Arc::clone(&served), Arc::clone(&served));
    tasks.spawn(async move { proved.account.take_new_admin_keys(offers, admin_key).await });
    if let Some((file, known)) = config.boltz_ca_file.clone().zip(extra_roots_pem) {
        tasks.spawn(ca_file::follow(file, known, served.account.client().clone()));
    }
    tasks.spawn(async move { checked.account.watch_admin_key(changes).await });
    Ok(Some(served))
}

/// What `BoltzAccounts` have in common. `None`: they are not served.
pub(crate) fn of_others(
    config: &Config,
    extra_roots_pem: Option<Vec<u8>>,
    names: ClusterNames,
    client: &Client,
) -> Option<Arc<AccountSettings>> {
    let namespace = client.default_namespace().to_owned();
    let remembered_in = config.lease_namespace.clone().unwrap_or_else(|| namespace.clone());
    let settings = AccountSettings {
        allowed_urls: std::iter::once(&config.boltz_base_url)
            .chain(&config.allowed_boltz_urls)
            .cloned()
            .collect(),
        extra_roots_pem,
        ca_file: config.boltz_ca_file.clone(),
        request_timeout: config.request_timeout,
        limits: limits(config),
        names,
        remembered: (remembered_in, account_data::config_map_name(&config.lease_name)),
        orphans: orphan_list::config_map_name(&config.lease_name),
        retry_altered_names: config.retry_altered_names,
        namespace,
    };
    config.boltz_accounts.then(|| Arc::new(settings))
}

fn limits(config: &Config) -> MintLimits {
    MintLimits {
        per_minute: config.max_mints_per_minute,
        per_namespace: config.max_mints_per_namespace,
        at_once: usize::from(config.concurrency / 2).max(1),
    }
}

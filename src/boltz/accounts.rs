//! The accounts that this process serves.

use super::{account::Account, inventory::Inventory};
use crate::{plan::Monotonic, protocol::account_name::AccountName};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// One account that is served. It shares nothing with the others that a broken one could use up.
#[derive(Debug)]
pub struct ServedAccount {
    /// All calls to Boltz, and what limits them.
    pub account: Account,
    /// The newest passes over Boltz's list.
    pub inventory: Inventory,
}

impl ServedAccount {
    /// An account without any pass yet.
    pub fn new(account: Account, inventory: Inventory) -> Arc<Self> {
        Arc::new(Self { account, inventory })
    }

    /// The name of the account.
    pub fn name(&self) -> &AccountName {
        self.account.name()
    }
}

/// All accounts that are served, by name.
#[derive(Debug, Default)]
pub struct Accounts {
    served: RwLock<BTreeMap<AccountName, Arc<ServedAccount>>>,
    changed: watch::Sender<u64>,
}

impl Accounts {
    /// These accounts.
    pub fn of(accounts: impl IntoIterator<Item = Arc<ServedAccount>>) -> Self {
        let served = accounts.into_iter().map(|served| (served.name().clone(), served)).collect();
        Self { served: RwLock::new(served), ..Self::default() }
    }

    /// The account of this name, if it is served.
    pub fn get(&self, name: &AccountName) -> Option<Arc<ServedAccount>> {
        self.served.read().get(name).cloned()
    }

    /// All that are served.
    pub fn all(&self) -> Vec<Arc<ServedAccount>> {
        self.served.read().values().cloned().collect()
    }

    /// Changes when an account is added or removed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A new leader begins with empty queues.
    pub(crate) fn lead(&self, now: Monotonic) {
        self.all().iter().for_each(|served| served.account.lead(now));
    }

    /// The object with this UID is gone: it waits for no key of any account.
    pub(crate) fn object_gone(&self, uid: &str, now: Monotonic) {
        self.all().iter().for_each(|served| served.account.object_gone(uid, now));
    }
}

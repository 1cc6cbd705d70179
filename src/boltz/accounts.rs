//! The accounts that this process serves.

use super::{account::Account, inventory::Inventory, live_keys::LiveKeyCounts};
use crate::{
    api::{AccountOrphan, AccountOrphanPolicy},
    clock::Clock,
    observability::metrics::Metrics,
    plan::{AccountPolicy, DefaultAccount, Monotonic, Reason},
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use kube::core::{Selector, SelectorExt};
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How long a new leader waits for what is remembered, and for the first check of the admin key. Without them, it works, but
/// no key counts as absent.
const PREPARATION: Duration = Duration::from_secs(10);

/// What a `BoltzAccount` says: who may use it for what, and what becomes of orphans.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountRules {
    /// The namespaces that may use it. `None`: none.
    pub namespaces: Option<Selector>,
    /// What it allows them, but for the keys that there are.
    pub policy: AccountPolicy,
    /// How many live keys the objects of a namespace may have.
    pub max_per_namespace: Option<u32>,
    /// What to do with orphans, and after how long.
    pub orphans: (AccountOrphanPolicy, Duration),
}

/// The orphans of an account, as its status shows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedOrphans {
    /// How many there are.
    pub count: usize,
    /// The oldest of them.
    pub oldest: Vec<AccountOrphan>,
}

/// One account that is served. It shares nothing with the others that a broken one could use up.
#[derive(Debug)]
pub struct ServedAccount {
    /// All calls to Boltz, and what limits them.
    pub account: Account,
    /// The newest passes over Boltz's list.
    pub inventory: Inventory,
    /// `None`: the account of the flags, which allows everything.
    rules: RwLock<Option<Arc<AccountRules>>>,
    orphans: watch::Sender<Option<ReportedOrphans>>,
    /// How many live keys the objects of each namespace have.
    pub(crate) live_keys: LiveKeyCounts,
}

impl ServedAccount {
    /// An account without any pass yet.
    pub fn new(account: Account, inventory: Inventory) -> Arc<Self> {
        Arc::new(Self {
            account,
            inventory,
            rules: RwLock::default(),
            orphans: watch::Sender::default(),
            live_keys: LiveKeyCounts::default(),
        })
    }

    /// The name of the account.
    pub fn name(&self) -> &AccountName {
        self.account.name()
    }

    /// Waits for what is remembered, and for the first check of the admin key, but not for long.
    pub(crate) async fn until_prepared(&self) {
        let _ = tokio::time::timeout(PREPARATION, self.account.until_prepared()).await;
    }

    /// Reads the list again and again. Before the first time, it waits until the account is prepared.
    pub(crate) async fn read_lists(&self, interval: Duration, clock: Clock, metrics: &Metrics) {
        self.until_prepared().await;
        self.inventory.run(&self.account, interval, clock, metrics).await;
    }

    /// What its `BoltzAccount` says.
    pub fn rules(&self) -> Option<Arc<AccountRules>> {
        self.rules.read().clone()
    }

    /// Its `BoltzAccount` says this now. Objects that use it are reconciled if it is something else.
    pub fn set_rules(&self, rules: AccountRules) {
        let new = Some(Arc::new(rules));
        let before = std::mem::replace(&mut *self.rules.write(), new.clone());
        if before != new {
            self.account.wake_waiting();
        }
    }

    fn counts_keys(&self) -> bool {
        self.rules.read().as_ref().is_some_and(|rules| rules.max_per_namespace.is_some())
    }

    /// A key of the account was revoked.
    pub(crate) fn key_revoked(&self, id: &str, now: Monotonic) {
        if self.counts_keys() {
            self.live_keys.set_revoked(id, now);
        }
    }

    /// The object with this mark does not use the account any more.
    pub(crate) fn forget(&self, object: &ObjectMark) {
        self.inventory.forget(object);
        self.live_keys.remove_user(object, self.counts_keys());
    }

    /// The orphans that its status shows. `None`: they are not known yet.
    pub fn orphans(&self) -> Option<ReportedOrphans> {
        self.orphans.borrow().clone()
    }

    pub(crate) fn set_orphans(&self, orphans: Option<ReportedOrphans>) {
        self.orphans.send_if_modified(|known| {
            let is_new = *known != orphans;
            *known = orphans;
            is_new
        });
    }

    /// Changes with the orphans that its status shows.
    pub(crate) fn orphan_changes(&self) -> watch::Receiver<Option<ReportedOrphans>> {
        self.orphans.subscribe()
    }
}

/// All accounts that are served, by name.
#[derive(Debug, Default)]
pub struct Accounts {
    served: RwLock<BTreeMap<AccountName, Arc<ServedAccount>>>,
    /// The accounts that exist and cannot be served, and why. `None`: they will be in a moment.
    unserved: RwLock<BTreeMap<AccountName, Option<String>>>,
    /// Why the `BoltzAccounts` or the namespaces cannot be read.
    unread: RwLock<Option<String>>,
    default: RwLock<DefaultAccount>,
    /// The labels of namespaces. `None`: they are not read, because there are no `BoltzAccounts` to use.
    namespaces: RwLock<Option<HashMap<String, BTreeMap<String, String>>>>,
    changed: watch::Sender<u64>,
    default_changed: watch::Sender<u64>,
    /// The namespaces whose labels have changed, until somebody takes them.
    relabelled: watch::Sender<HashSet<String>>,
}

impl Accounts {
    /// These accounts. That of the flags is the default.
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

    /// The others whose list is the same.
    pub(crate) fn of_same_organization(&self, served: &ServedAccount) -> Vec<Arc<ServedAccount>> {
        let organization = |served: &ServedAccount| {
            served.account.organization_id().map(|id| (id, served.account.client().base_url().to_owned()))
        };
        let Some(its) = organization(served) else { return Vec::new() };
        let mut all = self.all();
        all.retain(|other| other.name() != served.name() && organization(other).as_ref() == Some(&its));
        all
    }

    /// The account is served from now on.
    pub(crate) fn add(&self, served: Arc<ServedAccount>) {
        self.unserved.write().remove(served.name());
        self.served.write().insert(served.name().clone(), served);
        self.share();
        self.changed.send_modify(|count| *count += 1);
    }

    /// The account exists, and is served in a moment.
    pub(crate) fn expect(&self, name: &AccountName) {
        if self.get(name).is_none() {
            self.unserved.write().entry(name.clone()).or_default();
        }
    }

    /// The account is not served any more; `why`, if it exists.
    pub(crate) fn remove(&self, name: &AccountName, why: Option<String>) {
        let was_served = self.served.write().remove(name).is_some();
        let after = why.map(Some);
        let before = match &after {
            Some(why) => self.unserved.write().insert(name.clone(), why.clone()),
            None => self.unserved.write().remove(name),
        };
        if was_served || before != after {
            self.share();
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Calls that hang must leave room for those of other accounts.
    fn share(&self) {
        let served = self.served.read();
        let count = served.len();
        served.values().for_each(|served| served.account.share_with(count));
    }

    /// Which accounts exist that are not served is not known any more.
    pub(crate) fn forget_unserved(&self) {
        self.unserved.write().clear();
    }

    /// Whether there is a `BoltzAccount` of this name that is not served.
    pub(crate) fn exists(&self, name: &AccountName) -> bool {
        self.unserved.read().contains_key(name)
    }

    /// Why no account of this name is served.
    pub(crate) fn why_unserved(&self, name: &AccountName) -> (Reason, String) {
        let why = match self.unserved.read().get(name) {
            Some(None) => return (Reason::Pending, format!("The operator begins to use {name}.")),
            Some(Some(why)) => format!("{name} cannot be used: {why}"),
            None if name.is_of_flags() => {
                "The operator has no admin key of its own: it was started without --admin-key-file."
                    .to_owned()
            }
            None if self.reads_accounts() => format!("{name} does not exist."),
            None => format!("{name} is not served: the operator was started without --boltz-accounts."),
        };
        (Reason::PolicyDenied, why)
    }

    /// Why the default account is not known yet.
    pub(crate) fn why_unread(&self) -> String {
        let why = self.unread.read().as_ref().map(|why| format!(" {why}")).unwrap_or_default();
        format!("The operator has not read the BoltzAccounts yet.{why}")
    }

    /// The `BoltzAccounts` or the namespaces cannot be read, and why.
    pub(crate) fn set_unread(&self, why: Option<String>) {
        let before = std::mem::replace(&mut *self.unread.write(), why.clone());
        // Later, nobody is told why: what was read goes on to count.
        if before != why && self.default_account() == DefaultAccount::Unknown {
            self.default_changed.send_modify(|count| *count += 1);
        }
    }

    /// Changes when an account is added or removed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The account of objects that name none.
    pub(crate) fn default_account(&self) -> DefaultAccount {
        self.default.read().clone()
    }

    /// Objects that name none use this account from now on, if they use none yet.
    pub(crate) fn set_default(&self, default: DefaultAccount) {
        let before = std::mem::replace(&mut *self.default.write(), default.clone());
        if before != default {
            self.default_changed.send_modify(|count| *count += 1);
        }
    }

    /// Changes with the default account.
    pub(crate) fn default_changes(&self) -> watch::Receiver<u64> {
        self.default_changed.subscribe()
    }

    /// Whether `BoltzAccounts` and the labels of namespaces are read.
    pub(crate) fn reads_accounts(&self) -> bool {
        self.namespaces.read().is_some()
    }

    /// The labels of all namespaces.
    pub(crate) fn set_namespaces(&self, namespaces: HashMap<String, BTreeMap<String, String>>) {
        // Before the first time no account is served, and its objects are reconciled when it is.
        let Some(before) = self.namespaces.write().replace(namespaces.clone()) else { return };
        let is_new = |(name, labels): &(String, BTreeMap<String, String>)| before.get(name) != Some(labels);
        self.announce_labels(namespaces.into_iter().filter(is_new).map(|(name, _)| name));
    }

    /// The labels of one namespace; `None`: it is gone.
    pub(crate) fn set_namespace(&self, namespace: &str, labels: Option<BTreeMap<String, String>>) {
        let mut namespaces = self.namespaces.write();
        let known = namespaces.get_or_insert_default();
        let before = known.get(namespace).cloned();
        match labels.clone() {
            Some(labels) => known.insert(namespace.to_owned(), labels),
            None => known.remove(namespace),
        };
        drop(namespaces);
        if before != labels && labels.is_some() {
            self.announce_labels([namespace.to_owned()]);
        }
    }

    fn announce_labels(&self, namespaces: impl IntoIterator<Item = String>) {
        let namespaces: Vec<String> = namespaces.into_iter().collect();
        if !namespaces.is_empty() {
            self.relabelled.send_modify(|known| known.extend(namespaces));
        }
    }

    /// Changes with the labels of namespaces.
    pub(crate) fn label_changes(&self) -> watch::Receiver<HashSet<String>> {
        self.relabelled.subscribe()
    }

    /// The namespaces whose labels have changed since this was called last.
    pub(crate) fn take_relabelled(&self) -> HashSet<String> {
        let mut taken = HashSet::new();
        // Nobody is to be told that it is empty again.
        self.relabelled.send_if_modified(|known| {
            taken = std::mem::take(known);
            false
        });
        taken
    }

    /// Whether the account may be used in that namespace; the error says why not.
    pub(crate) fn admits(
        &self,
        rules: &AccountRules,
        account: &AccountName,
        namespace: &str,
    ) -> Result<(), String> {
        let namespaces = self.namespaces.read();
        let labels = namespaces.as_ref().and_then(|known| known.get(namespace));
        let selector = rules.namespaces.as_ref();
        let is_admitted = selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels));
        let refusal = || {
            format!("Namespace {namespace} may not use {account}: its namespaceSelector does not select it.")
        };
        is_admitted.then_some(()).ok_or_else(refusal)
    }

    /// A new leader begins with empty queues.
    pub(crate) fn lead(&self, now: Monotonic) {
        self.all().iter().for_each(|served| served.account.lead(now));
    }

    /// The object with this UID is gone: it waits for no key of any account.
    pub(crate) fn object_gone(&self, uid: &str, now: Monotonic) {
        for served in self.all() {
            served.account.object_gone(uid, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use serde_json::json;

    fn labels(of: serde_json::Value) -> BTreeMap<String, String> {
        serde_json::from_value(of).unwrap()
    }

    #[test]
    fn nobody_uses_an_account_but_whom_its_selector_selects() {
        let accounts = Accounts::default();
        accounts.set_namespaces(HashMap::from([
            ("dev".to_owned(), labels(json!({"stage": "dev"}))),
            ("bare".to_owned(), labels(json!({}))),
        ]));
        let admits = |selector: Option<serde_json::Value>, namespace: &str| {
            let selector = selector.map(|of| serde_json::from_value::<LabelSelector>(of).unwrap());
            let rules = AccountRules {
                namespaces: selector.map(|of| of.try_into().unwrap()),
                policy: AccountPolicy::default(),
                max_per_namespace: None,
                orphans: (AccountOrphanPolicy::Report, Duration::ZERO),
            };
            accounts.admits(&rules, &AccountName::named("a"), namespace).is_ok()
        };
        let dev = || Some(json!({"matchLabels": {"stage": "dev"}}));
        let not_dev = json!({"matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["dev"]}]});
        for (selector, namespace, is_admitted) in [
            (None, "dev", false),
            (Some(json!({})), "dev", true),
            (Some(json!({})), "bare", true),
            (Some(json!({})), "unknown", false),
            (dev(), "dev", true),
            (dev(), "bare", false),
            (Some(not_dev.clone()), "dev", false),
            (Some(not_dev), "bare", true),
        ] {
            assert_eq!(admits(selector.clone(), namespace), is_admitted, "{selector:?} {namespace}");
        }
    }
}

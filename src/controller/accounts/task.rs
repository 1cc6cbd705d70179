//! The task of one `BoltzAccount`: it serves the account, writes its status, and lets it go when no key of it is left.

use super::{
    AccountSettings,
    admin_key::{self, AdminKeyError},
};
use crate::{
    api::{BoltzAccountSpec, CachedApiKey, WatchedAccount, annotations::ACCOUNT_FINALIZER},
    boltz::{
        BoltzClient, BoltzClientOptions, MintLimits,
        account::Account,
        accounts::{AccountRules, ReportedOrphans, ServedAccount},
        ca_file,
        inventory::Inventory,
    },
    controller::{Context, orphan_list, tasks::pass_panic_on},
    kubernetes::{config_map::ConfigMapStore, error::KubernetesError, remembered},
    plan::{AccountPolicy, Monotonic},
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use kube::{ResourceExt, core::Selector, runtime::reflector::Store};
use secrecy::SecretString;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// How often the admin key is read, and the status is looked at, if nothing happens.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct AccountTask {
    pub(super) context: Arc<Context>,
    pub(super) settings: Arc<AccountSettings>,
    pub(super) stores: Vec<Store<CachedApiKey>>,
    pub(super) name: AccountName,
    /// What is served now.
    pub(super) serving: Option<Serving>,
    /// When this process saw first that the account is being deleted.
    pub(super) deleting_since: Option<Monotonic>,
    /// The writes of the status that followed each other without a long pause, and the last of them.
    pub(super) status_writes: (u32, Option<Monotonic>),
}

/// What runs while the account is served. All of it ends when this is dropped.
pub(super) struct Serving {
    pub served: Arc<ServedAccount>,
    key: watch::Sender<Option<SecretString>>,
    base_url: String,
    interval: Duration,
    tasks: JoinSet<()>,
    listing: AbortHandle,
    orphans: watch::Receiver<Option<ReportedOrphans>>,
    /// Passes, changes of the admin key, and of what is remembered.
    counts: [watch::Receiver<u64>; 3],
}

impl Serving {
    /// Waits until the status may have something new to say.
    async fn next(&mut self) {
        let [passes, recoveries, remembered] = &mut self.counts;
        tokio::select! {
            _ = self.orphans.changed() => {}
            _ = passes.changed() => {}
            _ = recoveries.changed() => {}
            _ = remembered.changed() => {}
            Some(ended) = self.tasks.join_next() => pass_panic_on(ended),
        }
    }
}

/// Why an account is not served: the reason and the message of its condition.
pub(super) type Unserved = (&'static str, String);

impl AccountTask {
    pub fn new(
        context: &Arc<Context>,
        settings: &Arc<AccountSettings>,
        stores: &[Store<CachedApiKey>],
        name: &str,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            settings: Arc::clone(settings),
            stores: stores.to_vec(),
            name: AccountName::named(name),
            serving: None,
            deleting_since: None,
            status_writes: (0, None),
        }
    }

    /// Does not end: it is aborted when the account is gone.
    pub async fn run(mut self, mut object: watch::Receiver<Arc<WatchedAccount>>) {
        loop {
            let account = Arc::clone(&object.borrow_and_update());
            self.look(&account).await;
            let interval = self.interval();
            let next = async {
                match &mut self.serving {
                    Some(serving) => serving.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = object.changed() => if changed.is_err() { return },
                () = next => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Objects wait while it is not known how many keys there are.
    fn interval(&self) -> Duration {
        let waits = self.serving.as_ref().is_some_and(|serving| serving.served.live_keys.lacks_objects());
        if waits { INTERVAL / 10 } else { INTERVAL }
    }

    async fn look(&mut self, account: &WatchedAccount) {
        if account.is_deleting() {
            let now = self.context.clock.now().monotonic;
            self.deleting_since.get_or_insert(now);
            if !account.has_finalizer() {
                let why = "It is being deleted.".to_owned();
                return self.context.accounts.remove(&self.name, Some(why));
            }
        } else if !account.has_finalizer() {
            let is_new = self.serving.is_none()
                && account.status.as_ref().is_none_or(|status| status.organization_id.is_none());
            // What is remembered is of another one of its name.
            if is_new && let Err(error) = self.forget().await {
                let error = &error as &dyn std::error::Error;
                return tracing::warn!(
                    account = account.name_any(),
                    error,
                    "failed to forget an earlier BoltzAccount"
                );
            }
            // Nothing is served before it is kept. The watch shows the write.
            return self.set_finalizers(account, with_finalizer(account)).await;
        }
        let (mut unserved, mut prefix) = (None, None);
        match self.serve(account).await {
            Ok((Ok(key), problem)) => {
                prefix = admin_key::prefix(&key);
                unserved = problem.map(|problem| ("InvalidSpec", problem));
            }
            // The one that was read before is used.
            Ok((Err(AdminKeyError::Unreadable { .. }), _)) if self.has_admin_key() => {
                prefix = account.status.as_ref().and_then(|status| status.admin_key_prefix.clone());
            }
            // Its keys are known.
            Ok((Err(error), _)) => unserved = Some(("AdminKeyMissing", error.to_string())),
            Err((reason, message)) => {
                self.serving = None;
                self.context.accounts.remove(&self.name, Some(message.clone()));
                unserved = Some((reason, message));
            }
        }
        self.count_live_keys().await;
        let mut state = self.state(account, unserved).await;
        state.admin_key_prefix = prefix;
        if state.is_deleting && self.are_objects_known().await && state.may_go().is_ok() {
            return self.let_go(account).await;
        }
        self.write_status(account, &state).await;
    }

    /// Once all objects of the account are known, so are the keys that they have.
    async fn count_live_keys(&self) {
        let Some(Serving { served, .. }) = &self.serving else { return };
        if !served.live_keys.lacks_objects() || !self.are_objects_known().await {
            return;
        }
        let uses = |mark: &ObjectMark| self.context.awaited.uses(mark, &self.name);
        let mut marks = self.stores.iter().flat_map(Store::state).map(|object| object.mark());
        if marks.all(|mark| !uses(&mark) || served.live_keys.has_user(&mark)) {
            served.live_keys.set_complete();
            served.account.wake_waiting();
        }
    }

    fn has_admin_key(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.key.borrow().is_some())
    }

    /// Serves the account as its spec says. The outer error: it cannot be served; the inner one: it has no admin key now.
    /// With what is wrong in the spec, and does not prevent it.
    async fn serve(
        &mut self,
        account: &WatchedAccount,
    ) -> Result<(Result<SecretString, AdminKeyError>, Option<String>), Unserved> {
        let spec = account.spec.as_ref().map_err(|error| ("InvalidSpec", error.clone()))?;
        let base_url = spec.base_url.trim_end_matches('/');
        let is_allowed = |url: &String| url.trim_end_matches('/') == base_url;
        if !self.settings.allowed_urls.iter().any(is_allowed) {
            let message =
                format!("baseURL {base_url} is not among those of the operator's --allowed-boltz-urls.");
            return Err(("BaseURLNotAllowed", message));
        }
        let (rules, problem) = self.rules(spec, account.is_deleting());
        let key = admin_key::read(&self.context, &self.settings.namespace, &spec.admin_key_secret_ref).await;
        if self.serving.as_ref().is_none_or(|serving| serving.base_url != base_url) {
            self.serving = None;
            let first = key.as_ref().ok().cloned();
            self.serving = Some(self.start(spec, base_url, rules.clone(), first)?);
        }
        let (limits, interval) = (self.limits(spec), spec.inventory_interval());
        if let Some(serving) = &mut self.serving {
            // A Secret that cannot be read for a moment does not take the key away.
            if !matches!(key, Err(AdminKeyError::Unreadable { .. }))
                && admin_key::publish(&serving.key, key.as_ref().ok())
            {
                tracing::info!(account = account.name_any(), "the admin key of a BoltzAccount has changed");
            }
            serving.served.set_rules(rules);
            serving.served.account.set_limits(limits, self.context.clock.now().monotonic);
            if serving.interval != interval {
                serving.listing.abort();
                serving.interval = interval;
                serving.listing = list(&self.context, &mut serving.tasks, &serving.served, interval);
            }
        }
        Ok((key, problem))
    }

    fn start(
        &self,
        spec: &BoltzAccountSpec,
        base_url: &str,
        rules: AccountRules,
        key: Option<SecretString>,
    ) -> Result<Serving, Unserved> {
        let (context, settings) = (&self.context, &self.settings);
        let (key, offers) = watch::channel(key);
        let (used, changes) = watch::channel(offers.borrow().clone());
        let options = BoltzClientOptions {
            base_url: base_url.to_owned(),
            extra_roots_pem: settings.extra_roots_pem.clone(),
            request_timeout: settings.request_timeout,
        };
        let client = BoltzClient::new(options, changes.clone(), Arc::clone(&context.metrics))
            .map_err(|error| ("InvalidSpec", error.to_string()))?;
        let account = Account::new(client, self.limits(spec), Arc::clone(&context.metrics))
            .named(self.name.clone())
            .unread(None, settings.retry_altered_names);
        let served = ServedAccount::new(account, Inventory::new(settings.names.clone()));
        served.account.lead(context.clock.now().monotonic);
        served.set_rules(rules);
        let mut tasks = JoinSet::new();
        let (checked, proved) = (Arc::clone(&served), Arc::clone(&served));
        tasks.spawn(async move { proved.account.take_new_admin_keys(offers, used).await });
        if let Some((file, known)) = settings.ca_file.clone().zip(settings.extra_roots_pem.clone()) {
            tasks.spawn(ca_file::follow(file, known, served.account.client().clone()));
        }
        tasks.spawn(async move { checked.account.watch_admin_key(changes).await });
        let (kept, client, clock) = (Arc::clone(&served), context.kubernetes.client().clone(), context.clock);
        let (namespace, name) = settings.remembered.clone();
        tasks.spawn(async move {
            let ServedAccount { account, inventory, .. } = kept.as_ref();
            remembered::keep(client, &namespace, &name, account, inventory, clock).await;
        });
        let interval = spec.inventory_interval();
        let listing = list(context, &mut tasks, &served, interval);
        context.accounts.add(Arc::clone(&served));
        let counts = [
            served.inventory.completions(),
            served.account.recoveries(),
            served.account.remembered_changes(),
        ];
        let (orphans, base_url) = (served.orphan_changes(), base_url.to_owned());
        Ok(Serving { served, key, base_url, interval, tasks, listing, orphans, counts })
    }

    fn limits(&self, spec: &BoltzAccountSpec) -> MintLimits {
        let of_flags = self.settings.limits;
        MintLimits { per_minute: spec.keys.max_mints_per_minute.unwrap_or(of_flags.per_minute), ..of_flags }
    }

    /// A selector that cannot be read selects nobody. The keys that there are still have to be managed.
    fn rules(&self, spec: &BoltzAccountSpec, is_deleting: bool) -> (AccountRules, Option<String>) {
        let selector = spec.namespace_selector.clone().map(Selector::try_from).transpose();
        let (namespaces, problem) = match selector {
            Ok(selector) => (selector, None),
            Err(error) => {
                (None, Some(format!("namespaceSelector: {error}. No namespace may use the account.")))
            }
        };
        let rules = AccountRules {
            namespaces,
            policy: AccountPolicy {
                is_ending: is_deleting,
                workspaces: spec.workspaces.allowed.clone(),
                default_workspace: spec.workspaces.default.clone(),
                modes: spec.modes.clone(),
                max_expires_in_days: spec.keys.max_expires_in_days,
                require_expiry: spec.keys.require_expiry,
                forbids_retain: !spec.allows_retain(),
                ..AccountPolicy::default()
            },
            max_per_namespace: spec.keys.max_per_namespace,
            orphans: (spec.orphan_policy, spec.orphan_grace()),
        };
        (rules, problem)
    }

    /// Nothing of the account is left. What is remembered of it goes with it.
    async fn let_go(&mut self, account: &WatchedAccount) {
        self.serving = None;
        self.context.accounts.remove(&self.name, Some("It is being deleted.".to_owned()));
        if let Err(error) = self.forget().await {
            let error = &error as &dyn std::error::Error;
            return tracing::warn!(account = account.name_any(), error, "failed to forget a BoltzAccount");
        }
        let left = account.finalizers().iter().filter(|finalizer| *finalizer != ACCOUNT_FINALIZER);
        self.set_finalizers(account, left.cloned().collect()).await;
    }

    /// Removes what the ConfigMaps say of the account.
    async fn forget(&self) -> Result<(), KubernetesError> {
        let AccountSettings { remembered: (namespace, name), orphans, names, .. } = self.settings.as_ref();
        let client = self.context.kubernetes.client().clone();
        let published = ConfigMapStore::new(client.clone(), namespace, orphans.clone());
        let keys = [orphan_list::list_key, orphan_list::request_key, orphan_list::response_key];
        published.remove(keys.map(|key| key(&names.current, &self.name))).await?;
        remembered::forget(client, namespace, name, &self.name, names).await
    }

    /// Whether all objects were listed, so that it is known which of them use the account.
    async fn are_objects_known(&self) -> bool {
        let known = self.context.watches.until_all_synced();
        let are_listed = tokio::time::timeout(Duration::from_millis(10), known).await.is_ok();
        let mut objects = self.stores.iter().flat_map(Store::state);
        are_listed
            && !self.stores.is_empty()
            && objects.all(|object| self.context.awaited.was_decided(&object.mark()))
    }

    async fn set_finalizers(&self, account: &WatchedAccount, finalizers: Vec<String>) {
        let metadata = json!({
            "uid": account.metadata.uid,
            "resourceVersion": account.metadata.resource_version,
            "finalizers": finalizers,
        });
        let patch = json!({"metadata": metadata});
        if let Err(error) = self.context.kubernetes.patch_account(&account.name_any(), &patch).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                account = account.name_any(),
                error,
                "failed to write the finalizer of a BoltzAccount"
            );
        }
    }
}

fn with_finalizer(account: &WatchedAccount) -> Vec<String> {
    account.finalizers().iter().cloned().chain([ACCOUNT_FINALIZER.to_owned()]).collect()
}

/// Reads the list of the account again and again.
fn list(
    context: &Context,
    tasks: &mut JoinSet<()>,
    served: &Arc<ServedAccount>,
    interval: Duration,
) -> AbortHandle {
    context.metrics.set_inventory_interval(served.name(), interval);
    let (served, clock, metrics) = (Arc::clone(served), context.clock, Arc::clone(&context.metrics));
    tasks.spawn(async move { served.read_lists(interval, clock, &metrics).await })
}

//! The `BoltzAccounts`: which there are, which is the default, and a task for each.

mod admin_key;
mod status;
mod task;

use super::{
    Context,
    tasks::pass_panic_on,
    watch_stream::{watch_with_relist, watcher_config},
};
use crate::{
    api::{CachedApiKey, WatchedAccount},
    boltz::{MintLimits, cluster_names::ClusterNames},
    plan::DefaultAccount,
    protocol::account_name::AccountName,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::Store,
        watcher::{self, Event},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, JoinSet},
};

/// What all `BoltzAccounts` have in common: the operator's flags.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// The operator's namespace, in which their Secrets are.
    pub namespace: String,
    /// The addresses that they may have.
    pub allowed_urls: Vec<String>,
    /// Root certificates to trust, in PEM format.
    pub extra_roots_pem: Option<Vec<u8>>,
    /// The file that they are from. It is read again when it changes.
    pub ca_file: Option<PathBuf>,
    /// Timeout of one call to Boltz.
    pub request_timeout: Duration,
    /// The limits of an account that names none.
    pub limits: MintLimits,
    /// Which keys are ours.
    pub names: ClusterNames,
    /// Namespace and name of the ConfigMap in which the operator remembers organizations.
    pub remembered: (String, String),
    /// The name of the ConfigMap in which it publishes orphans, in the same namespace.
    pub orphans: String,
    /// `--retry-altered-names`.
    pub retry_altered_names: bool,
}

/// One account that exists.
struct Known {
    uid: Option<String>,
    object: watch::Sender<Arc<WatchedAccount>>,
    task: AbortHandle,
}

/// Call before any object is reconciled: which account is the default one is not known yet. Accounts from when this process led
/// before have no tasks any more.
pub(super) fn begin(context: &Context) {
    let named = context.accounts.all().into_iter().filter(|served| !served.name().is_of_flags());
    named.for_each(|served| forget(context, served.name()));
    context.accounts.forget_unserved();
    context.accounts.set_default(DefaultAccount::Unknown);
}

/// No account of this name exists any more.
fn forget(context: &Context, name: &AccountName) {
    context.accounts.remove(name, None);
    context.metrics.forget_account(name);
}

/// Ends the task of an account. When this returns, it serves nothing any more.
async fn end(known: Known) {
    known.task.abort();
    while !known.task.is_finished() {
        tokio::task::yield_now().await;
    }
}

/// Watches `BoltzAccounts` and the labels of namespaces, and runs a task for each account. Does not end.
pub(super) async fn serve_boltz_accounts(
    context: Arc<Context>,
    settings: Arc<AccountSettings>,
    stores: Vec<Store<CachedApiKey>>,
) {
    let mut tasks = JoinSet::new();
    let (listed_namespaces, are_listed) = oneshot::channel();
    tasks.spawn(watch_namespaces(Arc::clone(&context), listed_namespaces));
    // Before that, nobody could use an account.
    tokio::select! {
        _ = are_listed => {}
        Some(ended) = tasks.join_next() => pass_panic_on(ended),
    }
    let api: Api<WatchedAccount> = Api::all(context.kubernetes.client().clone());
    let mut events = watch_with_relist(api, watcher_config()).default_backoff().boxed();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    let mut is_listed = false;
    loop {
        let event = tokio::select! {
            Some(ended) = tasks.join_next() => {
                pass_panic_on(ended);
                continue;
            }
            event = events.next() => event,
        };
        let gone = match event {
            Some(Ok(Event::Init)) => {
                listed.clear();
                Vec::new()
            }
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                let name = object.name_any();
                listed.insert(name.clone());
                let object = Arc::new(object);
                // One of the same name may have taken its place.
                let is_other = known.get(&name).is_some_and(|known| known.uid != object.metadata.uid);
                if is_other && let Some(other) = known.remove(&name) {
                    end(other).await;
                    forget(&context, &AccountName::named(&name));
                }
                context.accounts.expect(&AccountName::named(&name));
                let entry = known.entry(name).or_insert_with_key(|name| {
                    let (sender, receiver) = watch::channel(Arc::clone(&object));
                    let work = task::AccountTask::new(&context, &settings, &stores, name);
                    let task = tasks.spawn(work.run(receiver));
                    Known { uid: object.metadata.uid.clone(), object: sender, task }
                });
                entry.object.send_replace(object);
                Vec::new()
            }
            Some(Ok(Event::InitDone)) => {
                is_listed = true;
                context.accounts.set_unread(None);
                known.keys().filter(|name| !listed.contains(*name)).cloned().collect()
            }
            Some(Ok(Event::Delete(object))) => vec![object.name_any()],
            Some(Err(error)) => {
                report(&context, "boltzaccounts", &error);
                Vec::new()
            }
            None => return,
        };
        for name in gone {
            if let Some(gone) = known.remove(&name) {
                end(gone).await;
            }
            forget(&context, &AccountName::named(&name));
        }
        if is_listed {
            let objects = known.values().map(|known| known.object.borrow().clone());
            let has_flags = context.accounts.get(&AccountName::OF_FLAGS).is_some();
            context.accounts.set_default(default_account(objects, has_flags));
        }
    }
}

/// The account of objects that name none: the annotated one, else that of the flags.
fn default_account(accounts: impl Iterator<Item = Arc<WatchedAccount>>, has_flags: bool) -> DefaultAccount {
    let annotated: Vec<String> =
        accounts.filter(|account| account.is_default()).map(|account| account.name_any()).collect();
    match annotated.as_slice() {
        [name] => DefaultAccount::Is(AccountName::named(name)),
        [] if has_flags => DefaultAccount::Is(AccountName::OF_FLAGS),
        [] => DefaultAccount::None(
            "The object names no account, and there is no default one. Set spec.accountRef.name.".to_owned(),
        ),
        several => DefaultAccount::None(format!(
            "The object names no account, and several BoltzAccounts are annotated as the default one: {}. Set \
             spec.accountRef.name, or annotate only one.",
            several.join(", ")
        )),
    }
}

/// Keeps the labels of all namespaces, by which accounts select who may use them.
async fn watch_namespaces(context: Arc<Context>, are_listed: oneshot::Sender<()>) {
    let mut are_listed = Some(are_listed);
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(context.kubernetes.client().clone());
    let mut events = watch_with_relist(api, watcher_config()).default_backoff().boxed();
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(namespace)) => {
                listed.insert(namespace.name_any(), namespace.labels().clone());
            }
            Ok(Event::InitDone) => {
                context.accounts.set_namespaces(std::mem::take(&mut listed));
                // Fails only if nobody waits any more.
                are_listed.take().map(|sender| sender.send(()));
            }
            Ok(Event::Apply(namespace)) => {
                context.accounts.set_namespace(&namespace.name_any(), Some(namespace.labels().clone()));
            }
            Ok(Event::Delete(namespace)) => context.accounts.set_namespace(&namespace.name_any(), None),
            Err(error) => report(&context, "namespaces", &error),
        }
    }
}

fn report(context: &Context, resource: &str, error: &watcher::Error) {
    match error {
        watcher::Error::InitialListFailed(_) | watcher::Error::WatchStartFailed(_) => {
            context.accounts.set_unread(Some(format!("It cannot list {resource}: {error}")));
            tracing::warn!(
                resource,
                error = error as &dyn std::error::Error,
                "failed to watch; it will be retried"
            );
        }
        error => {
            tracing::info!(resource, error = error as &dyn std::error::Error, "a watch was interrupted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_annotated_account_is_the_default() {
        let account = |name: &str, value: Option<&str>| -> Arc<WatchedAccount> {
            let annotations = value.map(|value| json!({"boltz.bio/is-default-account": value}));
            let metadata = json!({"name": name, "annotations": annotations.unwrap_or_default()});
            let spec = json!({"adminKeySecretRef": {"name": "key"}});
            Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        let (a, b) = (account("a", Some("true")), account("b", Some("true")));
        let others = [account("c", None), account("d", Some("false"))];
        let of = |accounts: &[&Arc<WatchedAccount>], has_flags| {
            let accounts = accounts.iter().map(|account| Arc::clone(account));
            default_account(accounts.chain(others.clone()), has_flags)
        };
        let is_a = DefaultAccount::Is(AccountName::named("a"));
        assert_eq!(of(&[&a], false), is_a);
        assert_eq!(of(&[&a], true), is_a, "the annotation says more than the flag");
        assert_eq!(of(&[], true), DefaultAccount::Is(AccountName::OF_FLAGS));
        assert!(matches!(of(&[], false), DefaultAccount::None(_)));
        assert!(matches!(of(&[&a, &b], true), DefaultAccount::None(_)), "it is not guessed");
    }
}

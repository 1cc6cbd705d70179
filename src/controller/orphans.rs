//! Orphans: active keys with our cluster's marker that no object and no Secret refers to (rule 6). They are reported, and
//! revoked only with `--orphan-policy=revoke` after `--orphan-grace`, or on request, and after a live read of all objects
//! and Secrets.

use super::{
    Context,
    account_orphans::{handling_of, reported},
    execute::revoke_key,
    orphan_list::{
        MAX_ORPHANS, OrphanList, PublishedOrphan, RevocationRequest, RevocationResponse, RevocationResult,
        is_younger, list_key, request_key, response_key,
    },
    orphan_search::{Found, LiveRead, find, retain_unreferenced},
};
use crate::{
    api::CachedApiKey,
    boltz::{accounts::ServedAccount, snapshot::Snapshot},
    cli::OrphanPolicy,
    kubernetes::{config_map::ConfigMapStore, error::KubernetesError},
    plan::{Answer, Monotonic, RevokeReason, backoff::Backoff},
    protocol::{account_name::AccountName, marker::ClusterName},
};
use jiff::{Timestamp, tz::TimeZone};
use kube::runtime::reflector::Store;
use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// How often the ConfigMap is read for requests while there are orphans. Without orphans it is read after each pass.
/// After failures, ever less often.
const REQUEST_INTERVAL: Backoff = Backoff::from_secs(5, 640);

/// Looks for orphans after each pass, and publishes them.
pub(super) async fn watch_orphans(
    context: Arc<Context>,
    served: Arc<ServedAccount>,
    stores: Vec<Store<CachedApiKey>>,
    handling: OrphanHandling,
) {
    let mut orphans = Orphans::default();
    let mut completions = served.inventory.completions();
    completions.mark_changed();
    let store = handling.config_map.as_ref().map(|(namespace, name)| {
        ConfigMapStore::new(context.kubernetes.client().clone(), namespace, name.clone())
    });
    let mut failures = 0;
    // Which keys a namespace refers to is unknown until its lists are complete.
    context.watches.until_all_synced().await;
    loop {
        let may_be_asked = store.is_some() && orphans.confirmed().next().is_some();
        let is_pass = tokio::select! {
            Ok(()) = completions.changed() => true,
            () = tokio::time::sleep(REQUEST_INTERVAL.after(failures + 1)), if may_be_asked => false,
            else => return,
        };
        // As the account says now, not as it said when the wait began.
        let handling = handling_of(&served, &handling);
        let work = Work { context: &context, served: &served, handling: &handling };
        if is_pass {
            let Some(snapshot) = served.inventory.snapshots().into_iter().next() else { continue };
            let objects: Vec<Arc<CachedApiKey>> = stores.iter().flat_map(Store::state).collect();
            orphans.record_pass(&work, &snapshot, &objects).await;
            if served.rules().is_some() {
                let is_known = !orphans.are_unknown && orphans.passes >= 2;
                served
                    .set_orphans(is_known.then(|| reported(orphans.list(served.name()), &served, &snapshot)));
            }
        }
        let Some(store) = &store else { continue };
        match orphans.exchange(&work, store).await {
            Ok(()) => failures = 0,
            Err(error) if failures > 0 => {
                failures += 1;
                tracing::debug!(error = &error as &dyn std::error::Error, "failed to publish orphaned keys");
            }
            Err(error) => {
                failures = 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to publish orphaned keys, or to read which of them are to be revoked; it will be retried"
                );
            }
        }
    }
}

/// What to do with orphans.
#[derive(Clone, Debug)]
pub struct OrphanHandling {
    /// `--orphan-policy`.
    pub policy: OrphanPolicy,
    /// How long a key must be orphaned before it is revoked.
    pub grace: Duration,
    /// Namespace and name of the ConfigMap in which they are published.
    pub config_map: Option<(String, String)>,
    /// The operator watches only some objects: to it, the keys of other installations may look orphaned.
    pub sees_only_some_objects: bool,
}

/// What the orphans of one account are handled with.
#[derive(Clone, Copy)]
struct Work<'a> {
    context: &'a Context,
    served: &'a Arc<ServedAccount>,
    handling: &'a OrphanHandling,
}

/// The orphans of one account, by id.
#[derive(Debug, Default)]
struct Orphans {
    known: HashMap<String, Orphan>,
    /// It cannot be told which keys are orphans.
    are_unknown: bool,
    /// How many passes were processed, up to two.
    passes: u32,
    /// What an earlier process has published was read.
    has_read: bool,
    /// The response to the newest request.
    response: Option<RevocationResponse>,
}

#[derive(Debug)]
struct Orphan {
    /// Since when this process has known it.
    since: Monotonic,
    /// The same by the wall clock, over all processes.
    since_at: Timestamp,
    passes: u32,
    found: Found,
}

impl Orphans {
    /// Processes one pass: updates the metric, logs new orphans and, with the policy `Revoke`, revokes them.
    async fn record_pass(&mut self, work: &Work<'_>, snapshot: &Snapshot, objects: &[Arc<CachedApiKey>]) {
        let Work { context, served, handling } = *work;
        let now = context.clock.now();
        let recorded = context.secrets.recorded_key_ids();
        // Most keys are in records: few objects are opened.
        let by_mark = LazyCell::new(|| {
            HashMap::<_, _>::from_iter(objects.iter().map(|object| (object.mark(), object)))
        });
        let mut found =
            find(snapshot, |mark| by_mark.get(mark).map(|object| object.open()), &recorded, now.wall);
        if handling.sees_only_some_objects && !found.is_empty() {
            // The objects of other installations may name them, if these have the same cluster name.
            match retain_unreferenced(context, snapshot, &mut found).await {
                Ok(()) => self.are_unknown = false,
                Err(error) => return self.cannot_tell(work, &error),
            }
        }
        self.passes = (self.passes + 1).min(2);
        self.known.retain(|id, _| found.contains_key(id));
        for (id, found) in found {
            let orphan = self.known.entry(id.clone()).or_insert_with(|| Orphan {
                since: now.monotonic,
                since_at: now.wall,
                passes: 0,
                found: found.clone(),
            });
            orphan.passes += 1;
            orphan.found = found;
            // One pass alone may be caused by a stale cache.
            if orphan.passes == 2 {
                tracing::warn!(
                    key_id = id,
                    "found an orphaned key: its name has this cluster's marker, but no BoltzApiKey and no Secret refers to it"
                );
            }
        }
        context.metrics.set_orphaned_keys(served.name(), Some(self.confirmed().count()));
        let due: Vec<String> = self
            .confirmed()
            .filter(|(_, orphan)| now.monotonic.since(orphan.since) >= handling.grace)
            .map(|(id, _)| id.clone())
            .collect();
        if handling.policy == OrphanPolicy::Revoke && !handling.sees_only_some_objects {
            let mut read = LiveRead::of(Arc::clone(work.served));
            for id in due {
                if let Err(error) = self.revoke(work, &id, &mut read).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to read the objects and Secrets; no orphaned keys were revoked"
                    );
                    break;
                }
            }
        }
    }

    /// Without the right to list all objects, no key is an orphan.
    fn cannot_tell(&mut self, work: &Work<'_>, error: &KubernetesError) {
        if !self.are_unknown {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "failed to list the objects of all namespaces, so orphaned keys are unknown"
            );
        }
        *self = Self { are_unknown: true, response: self.response.take(), ..Self::default() };
        work.context.metrics.set_orphaned_keys(work.served.name(), None);
    }

    /// The orphans that at least two passes show.
    fn confirmed(&self) -> impl Iterator<Item = (&String, &Orphan)> {
        self.known.iter().filter(|(_, orphan)| orphan.passes >= 2)
    }

    /// Rule 8: before the revocation, reads everything again and repeats the decision.
    async fn revoke(
        &mut self,
        work: &Work<'_>,
        id: &str,
        read: &mut LiveRead,
    ) -> Result<RevocationResult, KubernetesError> {
        let context = work.context;
        if !read.is_orphan(context, id).await? {
            return Ok(RevocationResult::not_revoked("not an orphan"));
        }
        // Retried after the next pass, if the key is still active.
        Ok(match revoke_key(context, work.served, id, RevokeReason::Orphan).await {
            Answer::Done | Answer::AlreadyRevoked => {
                self.known.remove(id);
                context.metrics.count_revoked(RevokeReason::Orphan.as_str());
                tracing::warn!(key_id = id, "revoked an orphaned key");
                RevocationResult::revoked()
            }
            Answer::BoltzFailed(failure) => {
                tracing::warn!(key_id = id, error = failure.message, "failed to revoke an orphaned key");
                RevocationResult::not_revoked(failure.message)
            }
            Answer::Postponed(block) => {
                tracing::debug!(
                    key_id = id,
                    "calls to Boltz are paused or limited; no orphaned key was revoked"
                );
                RevocationResult::not_revoked(block.message)
            }
            _ => {
                let message = "Boltz lists it, but responded with 404";
                tracing::warn!(key_id = id, "failed to revoke an orphaned key: {message}");
                RevocationResult::not_revoked(message)
            }
        })
    }

    /// Publishes the orphans, if they changed, and does what a new request asks for.
    async fn exchange(&mut self, work: &Work<'_>, store: &ConfigMapStore) -> Result<(), KubernetesError> {
        // Until then, an orphan that is published may seem to be none.
        if self.passes < 2 {
            return Ok(());
        }
        let (cluster, account) = (&work.served.inventory.names().current, work.served.name());
        let before = store.read().await?;
        if !self.has_read {
            let published = before.get(&list_key(cluster, account)).map(String::as_str).unwrap_or_default();
            self.remember(&serde_json::from_str(published).unwrap_or_default());
            self.has_read = true;
        }
        let mut changes = BTreeMap::new();
        if let Some((request, older_than)) = self.request(&before, cluster, account) {
            // If the response could not be written, only that is repeated.
            if self.response.as_ref().is_none_or(|response| response.request != request.id) {
                self.response = Some(self.answer(work, &request, older_than).await);
            }
            changes.extend(
                self.response.as_ref().map(|response| (response_key(cluster, account), to_json(response))),
            );
        }
        changes.insert(list_key(cluster, account), to_json(&self.list(account)));
        changes.retain(|key, text| before.get(key) != Some(text));
        if changes.is_empty() { Ok(()) } else { store.write(changes).await }
    }

    /// Takes over since when a key has been an orphan. A forged time is of no use: who can write it can also ask for
    /// younger orphans.
    fn remember(&mut self, published: &OrphanList) {
        for earlier in &published.orphans {
            if let Some(orphan) = self.known.get_mut(&earlier.key_id) {
                orphan.since_at = orphan.since_at.min(earlier.orphaned_since);
            }
        }
    }

    /// A request that was not responded to yet.
    fn request(
        &self,
        data: &BTreeMap<String, String>,
        cluster: &ClusterName,
        account: &AccountName,
    ) -> Option<(RevocationRequest, Duration)> {
        let request = RevocationRequest::parse(data.get(&request_key(cluster, account))?)?;
        let response = data.get(&response_key(cluster, account)).map(String::as_str).unwrap_or_default();
        let answered: RevocationResponse = serde_json::from_str(response).unwrap_or_default();
        (answered.request != request.0.id).then_some(request)
    }

    async fn answer(
        &mut self,
        work: &Work<'_>,
        request: &RevocationRequest,
        older_than: Duration,
    ) -> RevocationResponse {
        let Work { context, handling, .. } = *work;
        tracing::info!(request = request.id, keys = request.key_ids.len(), "asked to revoke orphaned keys");
        let mut results = BTreeMap::new();
        let (mut read, mut unreadable) = (LiveRead::of(Arc::clone(work.served)), None);
        for id in &request.key_ids {
            let now = context.clock.now().wall;
            let since_at =
                self.confirmed().find(|(known, _)| *known == id).map(|(_, orphan)| orphan.since_at);
            let result = match since_at {
                _ if handling.sees_only_some_objects => RevocationResult::not_revoked(
                    "the operator watches only some namespaces or objects, so the keys of other installations may look \
                     orphaned",
                ),
                None => RevocationResult::not_revoked("not an orphan"),
                Some(since_at) if is_younger(since_at, now, older_than) => RevocationResult::not_revoked(
                    format!("an orphan only since {}", since_at.strftime("%FT%TZ")),
                ),
                Some(_) => match &unreadable {
                    // Not once more for each key.
                    Some(message) => RevocationResult::not_revoked(message),
                    None => self.revoke(work, id, &mut read).await.unwrap_or_else(|error| {
                        let message = format!("the operator could not read all objects and Secrets: {error}");
                        RevocationResult::not_revoked(unreadable.insert(message).as_str())
                    }),
                },
            };
            results.insert(id.clone(), result);
        }
        RevocationResponse { request: request.id.clone(), results }
    }

    fn list(&self, account: &AccountName) -> OrphanList {
        let mut orphans: Vec<PublishedOrphan> = self
            .confirmed()
            .map(|(id, Orphan { since_at, found: Found { object, key }, .. })| PublishedOrphan {
                key_id: id.clone(),
                key_prefix: key.prefix.clone(),
                account: account.clone(),
                object: object.to_string(),
                attempt: key.attempt.as_str().to_owned(),
                orphaned_since: *since_at,
                expires_at: key.expires_at,
                last_used_on: key.last_used_at.map(|at| at.to_zoned(TimeZone::UTC).date()),
            })
            .collect();
        orphans.sort_by(|one, other| {
            (one.orphaned_since, &one.key_id).cmp(&(other.orphaned_since, &other.key_id))
        });
        let count = orphans.len();
        orphans.truncate(MAX_ORPHANS);
        OrphanList { count, orphans }
    }
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::ListedKey, protocol::marker::ObjectMark};

    #[test]
    fn the_oldest_hundred_are_published_and_their_times_survive_a_restart() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let key = |id: String| ListedKey {
            id,
            attempt: crate::protocol::marker::AttemptId::from_random(1),
            prefix: "sk_bc_work_l".to_owned(),
            is_active: true,
            expires_at: None,
            last_used_at: Some(at(86_400 + 5)),
        };
        let orphan = |id: String, second: i64, passes: u32| {
            let found = Found { object: ObjectMark::from_uid("uid"), key: key(id) };
            Orphan { since: Monotonic::default(), since_at: at(second), passes, found }
        };
        let mut orphans = Orphans::default();
        for index in 0..150_u32 {
            let id = format!("key-{index:03}");
            orphans.known.insert(id.clone(), orphan(id, i64::from(index), 2));
        }
        orphans.known.insert("seen-once".to_owned(), orphan("seen-once".to_owned(), 0, 1));
        let list = orphans.list(&AccountName::OF_FLAGS);
        assert_eq!((list.count, list.orphans.len()), (150, MAX_ORPHANS));
        let ids = [&list.orphans[0], &list.orphans[99]].map(|orphan| orphan.key_id.as_str());
        assert_eq!(ids, ["key-000", "key-099"]);
        assert_eq!(list.orphans[0].last_used_on.unwrap().to_string(), "1970-01-02");

        let mut restarted = Orphans::default();
        for (id, second) in [("key-000", 1000), ("key-120", 1000)] {
            restarted.known.insert(id.to_owned(), orphan(id.to_owned(), second, 2));
        }
        restarted.remember(&serde_json::from_str(&to_json(&list)).unwrap());
        assert_eq!(restarted.known["key-000"].since_at, at(0));
        assert_eq!(restarted.known["key-120"].since_at, at(1000));
    }
}

//! Orphans: active keys with our cluster's marker that no object and no Secret refers to (rule 6). They are reported, and
//! revoked only with `--orphan-policy=revoke`, after `--orphan-grace` and a live read of all objects and Secrets.

use super::{Context, execute::revoke_key};
use crate::{
    api::{WatchedApiKey, annotations::LEDGER_ANNOTATION},
    boltz::snapshot::Snapshot,
    cli::OrphanPolicy,
    kubernetes::{client::SecretWithData, error::KubernetesError},
    plan::{Answer, Monotonic, RevokeReason},
    protocol::{ledger::Ledger, marker::ObjectMark},
};
use kube::{ResourceExt, runtime::reflector::Store};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Looks for orphans after each pass.
pub(super) async fn watch_orphans(
    context: Arc<Context>,
    stores: Vec<Store<WatchedApiKey>>,
    handling: OrphanHandling,
) {
    let mut orphans = Orphans::default();
    let mut completions = context.inventory.completions();
    completions.mark_changed();
    // Which keys a namespace refers to is unknown until its lists are complete.
    context.watches.until_all_synced().await;
    while completions.changed().await.is_ok() {
        let Some(snapshot) = context.inventory.snapshots().into_iter().next() else { continue };
        let objects: Vec<Arc<WatchedApiKey>> = stores.iter().flat_map(Store::state).collect();
        orphans.record_pass(&context, &snapshot, &objects, handling).await;
    }
}

/// What to do with orphans.
#[derive(Clone, Copy, Debug)]
pub struct OrphanHandling {
    /// Report or revoke.
    pub policy: OrphanPolicy,
    /// How long a key must be orphaned before it is revoked.
    pub grace: Duration,
}

/// The orphans, since when, and in how many passes.
#[derive(Debug, Default)]
pub struct Orphans {
    since: HashMap<String, (Monotonic, u32)>,
}

impl Orphans {
    /// Processes one pass: updates the metric, logs new orphans and, with the policy `Revoke`, revokes them.
    pub(crate) async fn record_pass(
        &mut self,
        context: &Context,
        snapshot: &Snapshot,
        objects: &[Arc<WatchedApiKey>],
        handling: OrphanHandling,
    ) {
        let now = context.clock.now();
        let recorded = context.secrets.recorded_key_ids();
        let found = find(snapshot, objects.iter().map(AsRef::as_ref), &recorded, now.wall);
        self.since.retain(|id, _| found.contains(id));
        for id in found {
            let (_, passes) = self.since.entry(id.clone()).or_insert((now.monotonic, 0));
            *passes += 1;
            // One pass alone may be caused by a stale cache.
            if *passes == 2 {
                tracing::warn!(
                    key_id = id,
                    "found an orphaned key: its name has this cluster's marker, but no BoltzApiKey and no Secret refers to it"
                );
            }
        }
        let confirmed = self.since.values().filter(|(_, passes)| *passes >= 2).count();
        context.metrics.set_orphaned_keys(confirmed);
        let due: Vec<String> = self
            .since
            .iter()
            .filter(|(_, (since, passes))| *passes >= 2 && now.monotonic.since(*since) >= handling.grace)
            .map(|(id, _)| id.clone())
            .collect();
        if handling.policy == OrphanPolicy::Revoke && !due.is_empty() {
            match self.revoke(context, snapshot, due).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to read the objects and Secrets; no orphaned keys were revoked"
                    );
                }
            }
        }
    }

    /// Rule 8: before each revocation, reads everything again and repeats the decision.
    async fn revoke(
        &mut self,
        context: &Context,
        snapshot: &Snapshot,
        due: Vec<String>,
    ) -> Result<(), KubernetesError> {
        for id in due {
            let objects = context.kubernetes.list_objects().await?;
            let mut recorded = HashSet::new();
            let mut page = None;
            loop {
                let (secrets, next) = context.kubernetes.list_secrets(None, page).await?;
                for (metadata, _) in secrets.into_iter().filter_map(SecretWithData::into_parts) {
                    let Some(record) = metadata.record else { continue };
                    recorded.extend(record.key_ids().cloned());
                }
                page = next;
                if page.is_none() {
                    break;
                }
            }
            if !find(snapshot, objects.iter(), &recorded, context.clock.now().wall).contains(&id) {
                continue;
            }
            // Retried after the next pass, if the key is still active.
            match revoke_key(context, &id, RevokeReason::Orphan).await {
                Answer::Done | Answer::AlreadyRevoked => {
                    self.since.remove(&id);
                    context.metrics.revoked(RevokeReason::Orphan.as_str());
                    tracing::warn!(key_id = id, "revoked an orphaned key");
                }
                Answer::BoltzFailed(failure) => {
                    tracing::warn!(key_id = id, error = failure.message, "failed to revoke an orphaned key");
                }
                Answer::Postponed(_) => {
                    tracing::debug!(
                        key_id = id,
                        "calls to Boltz are paused or limited; no orphaned key was revoked"
                    );
                }
                _ => tracing::warn!(
                    key_id = id,
                    "failed to revoke an orphaned key: Boltz lists it, but responded with 404"
                ),
            }
        }
        Ok(())
    }
}

/// The ids of the active keys with our marker that no ledger, no status and no record refers to.
fn find<'a>(
    snapshot: &Snapshot,
    objects: impl Iterator<Item = &'a WatchedApiKey>,
    recorded: &HashSet<String>,
    now: jiff::Timestamp,
) -> HashSet<String> {
    let by_mark: HashMap<ObjectMark, &WatchedApiKey> =
        objects.map(|object| (ObjectMark::from_uid(&object.uid().unwrap_or_default()), object)).collect();
    let mut orphans = HashSet::new();
    for (mark, keys) in &snapshot.ours {
        let object = by_mark.get(mark);
        let ledger = object
            .map(|object| Ledger::parse(object.annotations().get(LEDGER_ANNOTATION).map(String::as_str)))
            .unwrap_or_default();
        let status = object.and_then(|object| object.status.as_ref());
        for key in keys.iter().filter(|key| key.is_active_at(now)) {
            let reported = status.is_some_and(|status| status.names(&key.id));
            if !ledger.may_contain(&key.attempt) && !reported && !recorded.contains(&key.id) {
                orphans.insert(key.id.clone());
            }
        }
    }
    orphans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boltz::{KeyDetails, snapshot::ClusterNames},
        plan::Now,
    };
    use serde_json::json;

    #[test]
    fn a_forged_ledger_may_have_listed_any_attempt_of_its_object() {
        let uid = "550e8400-e29b-41d4-a716-446655440000";
        let key = |mark: &str| -> KeyDetails {
            let name = format!("bo.prod.{mark}.0123456789ab");
            serde_json::from_value(json!({"id": mark, "name": name, "is_active": true})).unwrap()
        };
        let names = ClusterNames { current: "prod".parse().unwrap(), former: Vec::new() };
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let mut snapshot = Snapshot::empty(Now { wall: now, monotonic: Monotonic::default() });
        for mark in ["550e8400e29b41d4", "0000000000000000"] {
            snapshot.add(key(mark), &names, &HashSet::new());
        }
        let orphans = |ledger: Option<&str>| {
            let object: WatchedApiKey = serde_json::from_value(json!({
                "metadata": {"uid": uid, "annotations": {LEDGER_ANNOTATION: ledger.unwrap_or("[]")}},
                "spec": {},
            }))
            .unwrap();
            let mut found = Vec::from_iter(find(&snapshot, std::iter::once(&object), &HashSet::new(), now));
            found.sort();
            found
        };
        assert_eq!(orphans(None), ["0000000000000000", "550e8400e29b41d4"]);
        assert_eq!(orphans(Some("no ledger")), ["0000000000000000"]);
    }
}

//! Which keys are orphans, in one pass and the objects and Secrets of the cluster.

use super::Context;
use crate::{
    api::{WatchedApiKey, annotations::LEDGER_ANNOTATION},
    boltz::{accounts::ServedAccount, snapshot::Snapshot},
    kubernetes::{client::SecretWithData, error::KubernetesError},
    plan::{ListedKey, Monotonic},
    protocol::{ledger::Ledger, marker::ObjectMark},
};
use jiff::Timestamp;
use kube::ResourceExt;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// An orphan as one pass shows it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub object: ObjectMark,
    pub key: ListedKey,
}

/// A live read is repeated when a revocation begins later than this after it.
const READ_LASTS: Duration = Duration::from_secs(30);

/// A live read of all objects and Secrets. It serves several revocations of one account that follow each other.
pub(super) struct LiveRead {
    served: Arc<ServedAccount>,
    /// When it began, and the ids of all orphans.
    orphans: Option<(Monotonic, HashSet<String>)>,
}

impl LiveRead {
    /// Nothing is read yet.
    pub fn of(served: Arc<ServedAccount>) -> Self {
        Self { served, orphans: None }
    }

    /// Whether no object and no Secret refers to the key.
    pub async fn is_orphan(&mut self, context: &Context, id: &str) -> Result<bool, KubernetesError> {
        let now = context.clock.now().monotonic;
        self.orphans.take_if(|(at, _)| now.since(*at) >= READ_LASTS);
        if self.orphans.is_none() {
            self.orphans = Some((now, read_orphans(context, &self.served).await?));
        }
        Ok(self.orphans.as_ref().is_some_and(|(_, orphans)| orphans.contains(id)))
    }
}

/// The ids of all orphans of the account.
async fn read_orphans(context: &Context, served: &ServedAccount) -> Result<HashSet<String>, KubernetesError> {
    let Some(snapshot) = served.inventory.snapshots().into_iter().next() else { return Ok(HashSet::new()) };
    let objects = context.kubernetes.list_objects(None, |_| true).await?;
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
    let objects = by_mark(objects);
    let now = context.clock.now().wall;
    Ok(find(&snapshot, |mark| objects.get(mark).cloned(), &recorded, now).into_keys().collect())
}

/// Removes the keys that an object of the cluster refers to, whether or not this operator serves it.
pub(super) async fn retain_unreferenced(
    context: &Context,
    snapshot: &Snapshot,
    found: &mut HashMap<String, Found>,
) -> Result<(), KubernetesError> {
    let marks: HashSet<ObjectMark> = found.values().map(|found| found.object).collect();
    let is_wanted = |object: &WatchedApiKey| marks.contains(&mark_of(object));
    let objects = by_mark(context.kubernetes.list_objects(None, is_wanted).await?);
    let now = context.clock.now().wall;
    let still = find(snapshot, |mark| objects.get(mark).cloned(), &HashSet::new(), now);
    found.retain(|id, _| still.contains_key(id));
    Ok(())
}

fn mark_of(object: &WatchedApiKey) -> ObjectMark {
    ObjectMark::from_uid(&object.uid().unwrap_or_default())
}

fn by_mark(objects: Vec<WatchedApiKey>) -> HashMap<ObjectMark, WatchedApiKey> {
    objects.into_iter().map(|object| (mark_of(&object), object)).collect()
}

/// The active keys with our marker that no ledger, no status and no record refers to, by id.
pub(super) fn find(
    snapshot: &Snapshot,
    object_of: impl Fn(&ObjectMark) -> Option<WatchedApiKey>,
    recorded: &HashSet<String>,
    now: Timestamp,
) -> HashMap<String, Found> {
    let mut orphans = HashMap::new();
    for (mark, keys) in snapshot.by_object() {
        let unrecorded = |key: &&ListedKey| key.is_active_at(now) && !recorded.contains(&key.id);
        let unrecorded: Vec<&ListedKey> = keys.filter(unrecorded).collect();
        if unrecorded.is_empty() {
            continue;
        }
        let object = object_of(&mark);
        let ledger = object
            .as_ref()
            .map(|object| Ledger::parse(object.annotations().get(LEDGER_ANNOTATION).map(String::as_str)))
            .unwrap_or_default();
        let status = object.as_ref().and_then(|object| object.status.as_ref());
        for key in unrecorded {
            let reported = status.is_some_and(|status| status.names(&key.id));
            if !ledger.may_contain(&key.attempt) && !reported {
                orphans.insert(key.id.clone(), Found { object: mark, key: key.clone() });
            }
        }
    }
    orphans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boltz::{KeyDetails, cluster_names::ClusterNames},
        plan::Now,
        protocol::marker::MarkerFormat,
    };
    use serde_json::json;

    #[test]
    fn a_forged_ledger_may_have_listed_any_attempt_of_its_object() {
        let uid = "550e8400-e29b-41d4-a716-446655440000";
        let key = |mark: &str| -> KeyDetails {
            let name = format!("bo.prod.{mark}.0123456789ab");
            serde_json::from_value(json!({"id": mark, "name": name, "is_active": true})).unwrap()
        };
        let names = ClusterNames::named("prod".parse().unwrap(), Vec::new(), MarkerFormat::One);
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let started = Now { wall: now, monotonic: Monotonic::default() };
        let rows = ["550e8400e29b41d4", "0000000000000000"].map(key);
        let snapshot = Snapshot::of(started, rows, &names, HashSet::new());
        let orphans = |ledger: Option<&str>| {
            let object: WatchedApiKey = serde_json::from_value(json!({
                "metadata": {"uid": uid, "annotations": {LEDGER_ANNOTATION: ledger.unwrap_or("[]")}},
                "spec": {},
            }))
            .unwrap();
            let objects = by_mark(vec![object]);
            let found = find(&snapshot, |mark| objects.get(mark).cloned(), &HashSet::new(), now);
            let mut found = Vec::from_iter(found.into_keys());
            found.sort();
            found
        };
        assert_eq!(orphans(None), ["0000000000000000", "550e8400e29b41d4"]);
        assert_eq!(orphans(Some("no ledger")), ["0000000000000000"]);
    }
}

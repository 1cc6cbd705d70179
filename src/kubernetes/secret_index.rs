//! An index of the Secrets with our label: their metadata and the SHA-256 of their value, never the value.
//!
//! It is updated by a watch of the metadata and by the responses to the operator's own writes. The newer version wins, so
//! the operator does not wait for the watch to show its own writes. A relist wins over what was known before it began,
//! because versions may become lower: etcd may have been restored from a backup.

use crate::{
    api::annotations::{OWNER_LABEL, RECORD_ANNOTATION},
    plan::OwnSecret,
    protocol::record::{Record, value_sha256},
};
use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The kind of our objects.
const KIND: &str = "BoltzApiKey";

/// A Secret's metadata, as far as the operator needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMetadata {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// The value of our label.
    pub owner_label: Option<String>,
    /// The record, if our annotation is one.
    pub record: Option<Record>,
    /// Its owners.
    pub owner_references: Vec<OwnerReference>,
    /// It is being deleted.
    pub deleting: bool,
}

impl SecretMetadata {
    /// From a response of the API server; `None` if it lacks a name, namespace, UID or version.
    pub(crate) fn from_object_meta(meta: ObjectMeta) -> Option<Self> {
        let take = |map: Option<BTreeMap<String, String>>, key: &str| map.and_then(|mut map| map.remove(key));
        Some(Self {
            namespace: meta.namespace?,
            name: meta.name?,
            uid: meta.uid?,
            resource_version: meta.resource_version?,
            owner_label: take(meta.labels, OWNER_LABEL),
            record: Record::parse(take(meta.annotations, RECORD_ANNOTATION).as_deref()),
            owner_references: meta.owner_references.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }

    /// The SHA-256 of the value under the record's data key, hexadecimal; `None` if there is no such value.
    pub(crate) fn hash_of_key(&self, data: &BTreeMap<String, ByteString>) -> Option<String> {
        let record = self.record.as_ref()?;
        data.get(&record.secret_key).map(|value| value_sha256(&value.0))
    }

    /// Whether it was written by an operator: it has a record, or an object as owner. Others may use our label.
    pub(crate) fn is_of_an_operator(&self) -> bool {
        self.owner_references.iter().any(|owner| owner.kind == KIND) || self.record.is_some()
    }

    /// Whether the Secret belongs to the object with this UID.
    pub fn ownership(&self, object_uid: &str) -> Ownership {
        let record = self.record.as_ref();
        let owned = self.owner_references.iter().any(|owner| owner.uid == object_uid);
        let labelled = self.owner_label.as_deref() == Some(object_uid);
        match record {
            Some(record) if record.owner_uid == object_uid => Ownership::Ours,
            _ if owned => Ownership::Ours,
            // It has our label and no owner: restored from a backup, or left by `kubectl delete --cascade=orphan`.
            Some(_) | None if labelled && self.owner_references.is_empty() => Ownership::Ours,
            Some(record) if self.owner_references.is_empty() => Ownership::Foreign(format!(
                "Secret {} contains a key of another BoltzApiKey (UID {}) that was deleted or has deletionPolicy \
                 Retain. Delete the Secret, or set spec.secret.name to another name.",
                self.name, record.owner_uid
            )),
            _ => Ownership::Foreign(format!(
                "Secret {} already exists and does not belong to this BoltzApiKey. Delete the Secret, or set \
                 spec.secret.name to another name.",
                self.name
            )),
        }
    }

    /// Converts to the input of the plan.
    pub fn as_own(&self, object_uid: &str, value: Value) -> OwnSecret {
        let (value_sha256, is_unread) = match value {
            Value::Unread => (None, true),
            Value::Read(hash) => (hash, false),
        };
        let owned = self.owner_references.iter().any(|owner| owner.uid == object_uid);
        OwnSecret {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            record: self.record.clone().filter(|record| record.owner_uid == object_uid),
            value_sha256,
            is_unread,
            labelled: self.owner_label.as_deref() == Some(object_uid),
            owned,
        }
    }
}

/// Whether a Secret belongs to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It belongs to the object.
    Ours,
    /// It belongs to another owner. Contains the message for the condition.
    Foreign(String),
}

/// What is known about the value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It was not read since the last change.
    Unread,
    /// The SHA-256 of the value under the record's data key; `None` if there is no value.
    Read(Option<String>),
}

#[derive(Debug)]
struct Entry {
    metadata: SecretMetadata,
    value: Value,
    /// The number of the newest relist that was running, or the last one, when the entry was written or shown.
    relisting: u64,
}

type Key = (String, String);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    by_owner: HashMap<String, HashSet<Key>>,
    relisting: u64,
}

/// The operator's Secrets.
#[derive(Debug, Default)]
pub(crate) struct SecretIndex {
    inner: Mutex<Inner>,
}

impl SecretIndex {
    /// Stores the result of an own write or a live read, unless a newer version is known.
    pub fn put(&self, metadata: SecretMetadata, value: Value) {
        self.lock().put(metadata, value);
    }

    /// Stores a watch event. `true`: it is new, so its object has to be reconciled.
    pub fn observe(&self, metadata: SecretMetadata) -> bool {
        self.lock().put_if_ours(metadata, Value::Unread)
    }

    /// Stores what the relist with this number shows. It replaces any other version that was known before the relist
    /// began. `true`: it is new.
    pub(crate) fn observe_relisted(&self, metadata: SecretMetadata, value: Value, number: u64) -> bool {
        let mut inner = self.lock();
        let key = (metadata.namespace.clone(), metadata.name.clone());
        if inner.entries.get(&key).is_some_and(|entry| {
            entry.relisting < number && entry.metadata.resource_version != metadata.resource_version
        }) {
            inner.remove(&key);
            return inner.put(metadata, value);
        }
        inner.put_if_ours(metadata, value)
    }

    /// Removes a deleted Secret: at this version or, after a 404, at any version.
    pub fn remove(&self, namespace: &str, name: &str, resource_version: Option<&str>) {
        let mut inner = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let is_older = inner.entries.get(&key).is_some_and(|entry| {
            resource_version.is_none_or(|version| !is_newer(&entry.metadata.resource_version, version))
        });
        if is_older {
            inner.remove(&key);
        }
    }

    /// Begins a relist: entries that it does not show are removed, unless they were added meanwhile. Returns its number.
    pub(crate) fn begin_relist(&self) -> u64 {
        let mut inner = self.lock();
        inner.relisting += 1;
        inner.relisting
    }

    /// Ends the relist with this number, for one namespace or for all. Returns the Secrets that were removed.
    pub(crate) fn end_relist(&self, number: u64, namespace: Option<&str>) -> Vec<SecretMetadata> {
        let mut inner = self.lock();
        let listed = |key: &Key| namespace.is_none_or(|namespace| key.0 == namespace);
        let gone: Vec<Key> = inner
            .entries
            .iter()
            .filter(|(key, entry)| entry.relisting < number && listed(key))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| inner.remove(key)).map(|entry| entry.metadata).collect()
    }

    /// The Secret with this name, and what is known about its value.
    pub fn get(&self, namespace: &str, name: &str) -> Option<(SecretMetadata, Value)> {
        let inner = self.lock();
        let entry = inner.entries.get(&(namespace.to_owned(), name.to_owned()))?;
        Some((entry.metadata.clone(), entry.value.clone()))
    }

    /// The names of the Secrets with the object's label or ownerReference.
    pub(crate) fn names_of(&self, object_uid: &str, namespace: &str) -> BTreeSet<String> {
        let inner = self.lock();
        let keys = inner.by_owner.get(object_uid).into_iter().flatten();
        keys.filter(|key| key.0 == namespace).map(|key| key.1.clone()).collect()
    }

    /// The ids of all keys in the records of all Secrets.
    pub(crate) fn recorded_key_ids(&self) -> HashSet<String> {
        let inner = self.lock();
        let records = inner.entries.values().filter_map(|entry| entry.metadata.record.as_ref());
        records.flat_map(Record::key_ids).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Inner {
    /// Secrets of others leave nothing behind, also if they have our label.
    fn put_if_ours(&mut self, metadata: SecretMetadata, value: Value) -> bool {
        let key = (metadata.namespace.clone(), metadata.name.clone());
        if !self.entries.contains_key(&key) && !metadata.is_of_an_operator() {
            return false;
        }
        self.put(metadata, value)
    }

    /// Returns whether it was new.
    fn put(&mut self, metadata: SecretMetadata, value: Value) -> bool {
        let key = (metadata.namespace.clone(), metadata.name.clone());
        let relisting = self.relisting;
        if let Some(entry) = self.entries.get_mut(&key)
            && !is_newer(&metadata.resource_version, &entry.metadata.resource_version)
        {
            if entry.metadata.resource_version == metadata.resource_version {
                entry.relisting = relisting;
            }
            // A read knows better than the write that it reads back: an admission webhook may have changed the value.
            if entry.metadata.resource_version == metadata.resource_version && value != Value::Unread {
                entry.value = value;
            }
            return false;
        }
        self.remove(&key);
        for owner in owners(&metadata) {
            self.by_owner.entry(owner).or_default().insert(key.clone());
        }
        self.entries.insert(key, Entry { metadata, value, relisting });
        true
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        for owner in owners(&entry.metadata) {
            if let Some(keys) = self.by_owner.get_mut(&owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
        }
        Some(entry)
    }
}

fn owners(metadata: &SecretMetadata) -> BTreeSet<String> {
    let references = metadata.owner_references.iter().map(|owner| owner.uid.clone());
    metadata.owner_label.iter().cloned().chain(references).collect()
}

/// Whether a resourceVersion is newer than another. Kubernetes declares them comparable as numbers since 1.35 (KEP-5504);
/// they were numbers before. A version that is not a number counts as newer, so that a cache entry is always replaced.
pub fn is_newer(this: &str, than: &str) -> bool {
    match (this.parse::<u64>(), than.parse::<u64>()) {
        (Ok(this), Ok(than)) => this > than,
        _ => this != than,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, version: &str) -> SecretMetadata {
        SecretMetadata {
            namespace: "team".to_owned(),
            name: name.to_owned(),
            uid: "secret-uid".to_owned(),
            resource_version: version.to_owned(),
            owner_label: Some("object-uid".to_owned()),
            record: None,
            owner_references: vec![OwnerReference {
                kind: KIND.to_owned(),
                uid: "object-uid".to_owned(),
                ..OwnerReference::default()
            }],
            deleting: false,
        }
    }

    #[test]
    fn the_newer_of_write_and_watch_stays() {
        let index = SecretIndex::default();
        index.put(secret("a", "10"), Value::Read(Some("hash".to_owned())));
        assert!(!index.observe(secret("a", "10")), "the echo of an own write is nothing new");
        assert!(!index.observe(secret("a", "9")), "neither is an older event");
        assert_eq!(index.get("team", "a").unwrap().1, Value::Read(Some("hash".to_owned())));
        assert!(index.observe(secret("a", "11")));
        assert_eq!(index.get("team", "a").unwrap().1, Value::Unread);
    }

    #[test]
    fn a_deletion_older_than_the_entry_does_not_remove_it() {
        let index = SecretIndex::default();
        index.put(secret("a", "10"), Value::Unread);
        index.remove("team", "a", Some("9"));
        assert!(index.get("team", "a").is_some());
        index.remove("team", "a", Some("11"));
        assert!(index.get("team", "a").is_none());
        assert!(index.names_of("object-uid", "team").is_empty());
    }

    #[test]
    fn a_relist_removes_what_it_does_not_show_but_not_what_came_meanwhile() {
        let index = SecretIndex::default();
        index.observe(secret("shown", "1"));
        index.observe(secret("gone", "2"));
        let number = index.begin_relist();
        index.observe(secret("shown", "1"));
        index.put(secret("meanwhile", "3"), Value::Unread);
        let gone: Vec<String> =
            index.end_relist(number, Some("team")).into_iter().map(|metadata| metadata.name).collect();
        assert_eq!(gone, ["gone"]);
        assert_eq!(
            index.names_of("object-uid", "team").into_iter().collect::<Vec<_>>(),
            ["meanwhile", "shown"]
        );
    }

    fn relist(index: &SecretIndex, secrets: &[(&str, &str)]) -> Vec<bool> {
        let number = index.begin_relist();
        let shown = |(name, version): &(&str, &str)| {
            index.observe_relisted(secret(name, version), Value::Unread, number)
        };
        let new = secrets.iter().map(shown).collect();
        index.end_relist(number, None);
        new
    }

    #[test]
    fn a_relist_wins_over_higher_versions_from_before_it() {
        let index = SecretIndex::default();
        index.put(secret("a", "1000"), Value::Read(Some("new".to_owned())));
        index.put(secret("same", "7"), Value::Read(Some("same".to_owned())));
        assert_eq!(relist(&index, &[("a", "500"), ("same", "7")]), [true, false]);
        let (metadata, value) = index.get("team", "a").unwrap();
        assert_eq!((metadata.resource_version.as_str(), value), ("500", Value::Unread));
        assert_eq!(index.get("team", "same").unwrap().1, Value::Read(Some("same".to_owned())));
        // And from there on the newer of write and watch.
        index.put(secret("a", "501"), Value::Read(None));
        assert!(!index.observe(secret("a", "500")));
    }

    #[test]
    fn an_own_write_after_the_relist_began_wins_over_it() {
        let index = SecretIndex::default();
        index.put(secret("a", "10"), Value::Unread);
        let number = index.begin_relist();
        index.put(secret("a", "12"), Value::Read(Some("mine".to_owned())));
        assert!(!index.observe_relisted(secret("a", "11"), Value::Unread, number));
        index.end_relist(number, None);
        let (metadata, value) = index.get("team", "a").unwrap();
        assert_eq!((metadata.resource_version.as_str(), value), ("12", Value::Read(Some("mine".to_owned()))));
    }

    /// A live read shows the lower version first, and the relist a moment later.
    #[test]
    fn a_read_of_a_lower_version_does_not_keep_the_higher_one() {
        let index = SecretIndex::default();
        index.put(secret("a", "1000"), Value::Unread);
        let number = index.begin_relist();
        index.put(secret("a", "500"), Value::Read(None));
        assert!(index.observe_relisted(secret("a", "500"), Value::Unread, number));
        assert_eq!(index.get("team", "a").unwrap().0.resource_version, "500");
    }

    #[test]
    fn a_secret_of_others_with_our_label_leaves_nothing_behind() {
        let index = SecretIndex::default();
        let other = SecretMetadata { owner_references: Vec::new(), ..secret("other", "1") };
        assert!(!index.observe(other.clone()));
        let number = index.begin_relist();
        assert!(!index.observe_relisted(other.clone(), Value::Read(None), number));
        assert!(index.get("team", "other").is_none());
        // One that was ours is followed, whatever becomes of it.
        index.observe(secret("other", "1"));
        assert!(index.observe(SecretMetadata { resource_version: "2".to_owned(), ..other }));
    }
}

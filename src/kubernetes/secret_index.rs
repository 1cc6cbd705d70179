//! An index of the Secrets with our label: their metadata and the SHA-256 of their value, never the value.
//!
//! It is updated by a watch of the metadata and by the responses to the operator's own writes. The newer version wins, so
//! the operator does not wait for the watch to show its own writes. A relist wins over what was known before it began,
//! because versions may become lower: etcd may have been restored from a backup.

use super::secret_metadata::{SecretMetadata, Value};
use crate::{
    at_rest::{AtRest, Dictionary},
    protocol::record::Record,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

static DICTIONARY: Dictionary = Dictionary::new();

/// A Secret: what is compared often, and the rest compressed.
#[derive(Debug)]
struct Entry {
    resource_version: Box<str>,
    /// The ids of the keys in its record.
    key_ids: Box<[Box<str>]>,
    rest: AtRest<Rest>,
    /// The number of the newest relist that was running, or the last one, when the entry was written or shown.
    relisting: u64,
}

#[derive(Serialize, Deserialize)]
struct Rest {
    uid: String,
    owner_label: Option<String>,
    /// The text of the record.
    record: Option<String>,
    is_cut: bool,
    owner_references: Vec<OwnerReference>,
    deleting: bool,
    value: Value,
}

impl Entry {
    fn new(metadata: SecretMetadata, value: Value, relisting: u64) -> Self {
        let record = metadata.record.as_ref();
        let key_ids = record.map(|record| record.key_ids().map(|id| id.as_str().into()).collect());
        let rest = Rest {
            uid: metadata.uid,
            owner_label: metadata.owner_label,
            record: record.map(Record::to_annotation),
            is_cut: record.is_some_and(|record| record.is_cut),
            owner_references: metadata.owner_references,
            deleting: metadata.deleting,
            value,
        };
        Self {
            resource_version: metadata.resource_version.into(),
            key_ids: key_ids.unwrap_or_default(),
            rest: AtRest::new(&rest, &DICTIONARY),
            relisting,
        }
    }

    fn open(&self, key: &Key) -> (SecretMetadata, Value) {
        let (namespace, name) = key.clone();
        let resource_version = self.resource_version.to_string();
        // What cannot be read here is read from the API server.
        let rest = self.rest.open(&DICTIONARY).unwrap_or_else(|| Rest {
            uid: String::new(),
            owner_label: None,
            record: None,
            is_cut: false,
            owner_references: Vec::new(),
            deleting: false,
            value: Value::Unread,
        });
        let record = Record::parse(rest.record.as_deref());
        let metadata = SecretMetadata {
            namespace,
            name,
            uid: rest.uid,
            resource_version,
            owner_label: rest.owner_label,
            record: record.map(|record| Record { is_cut: record.is_cut || rest.is_cut, ..record }),
            owner_references: rest.owner_references,
            deleting: rest.deleting,
            adoptable_by: None,
            kind: None,
            immutable: false,
        };
        (metadata, rest.value)
    }
}

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Arc<Key>, Entry>,
    by_owner: HashMap<Box<str>, Vec<Arc<Key>>>,
    relisting: u64,
}

#[derive(Debug, Default)]
pub(crate) struct SecretIndex {
    inner: Mutex<Inner>,
}

impl SecretIndex {
    /// Forgets all: another process may have written them since.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        *inner = Inner { relisting: inner.relisting, ..Inner::default() };
    }

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
            entry.relisting < number && *entry.resource_version != *metadata.resource_version
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
            resource_version.is_none_or(|version| !is_newer(&entry.resource_version, version))
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
        let gone: Vec<Arc<Key>> = inner
            .entries
            .iter()
            .filter(|(key, entry)| entry.relisting < number && listed(key))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        gone.iter().filter_map(|key| inner.remove(key)).collect()
    }

    /// The Secret with this name, and what is known about its value.
    pub fn get(&self, namespace: &str, name: &str) -> Option<(SecretMetadata, Value)> {
        let inner = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        inner.entries.get(&key).map(|entry| entry.open(&key))
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
        inner.entries.values().flat_map(|entry| &entry.key_ids).map(|id| id.to_string()).collect()
    }

    /// The ids of the keys that are in Secrets now.
    pub(crate) fn current_key_ids(&self) -> HashSet<String> {
        let inner = self.lock();
        inner.entries.values().filter_map(|entry| entry.key_ids.first()).map(|id| id.to_string()).collect()
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
            && !is_newer(&metadata.resource_version, &entry.resource_version)
        {
            if *entry.resource_version == *metadata.resource_version {
                entry.relisting = relisting;
                // A read knows better than the write that it reads back: an admission webhook may have changed the value.
                if value != Value::Unread {
                    let (known, _) = entry.open(&key);
                    *entry = Entry::new(known, value, relisting);
                }
            }
            return false;
        }
        self.remove(&key);
        let key = Arc::new(key);
        for owner in owners(&metadata) {
            self.by_owner.entry(owner.into()).or_default().push(Arc::clone(&key));
        }
        self.entries.insert(key, Entry::new(metadata, value, relisting));
        true
    }

    fn remove(&mut self, key: &Key) -> Option<SecretMetadata> {
        let (metadata, _) = self.entries.remove(key)?.open(key);
        for owner in owners(&metadata) {
            if let Some(keys) = self.by_owner.get_mut(owner.as_str()) {
                keys.retain(|known| **known != *key);
                if keys.is_empty() {
                    self.by_owner.remove(owner.as_str());
                }
            }
        }
        Some(metadata)
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn secret(name: &str, version: &str) -> SecretMetadata {
        SecretMetadata {
            namespace: "team".to_owned(),
            name: name.to_owned(),
            uid: "secret-uid".to_owned(),
            resource_version: version.to_owned(),
            owner_label: Some("object-uid".to_owned()),
            record: None,
            owner_references: vec![OwnerReference {
                kind: "BoltzApiKey".to_owned(),
                uid: "object-uid".to_owned(),
                ..OwnerReference::default()
            }],
            deleting: false,
            adoptable_by: None,
            kind: None,
            immutable: false,
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

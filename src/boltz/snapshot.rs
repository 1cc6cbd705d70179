//! One complete pass over Boltz's list, grouped by the objects in the markers.

use super::types::KeyDetails;
use crate::{
    plan::{ListedKey, Monotonic, Pass},
    protocol::marker::{ClusterName, Marker, ObjectMark},
};
use jiff::Timestamp;
use std::collections::HashMap;

/// The cluster names of this installation.
#[derive(Clone, Debug)]
pub struct ClusterNames {
    /// The name in new keys.
    pub current: ClusterName,
    /// Earlier names. Keys with these names are also managed.
    pub former: Vec<ClusterName>,
}

impl ClusterNames {
    /// Whether the name is one of ours.
    pub fn include(&self, cluster: &ClusterName) -> bool {
        self.current == *cluster || self.former.contains(cluster)
    }
}

/// One complete pass over the list.
#[derive(Debug)]
pub struct Snapshot {
    /// When the pass began.
    pub started: Monotonic,
    /// The same by the wall clock.
    pub started_at: Timestamp,
    /// The keys with our marker, by object.
    pub ours: HashMap<ObjectMark, Vec<ListedKey>>,
    /// Every listed id, with the object in its marker if it is ours.
    owners: HashMap<String, Option<ObjectMark>>,
}

impl Snapshot {
    /// A pass that returned these keys.
    pub fn new(
        started: Monotonic,
        started_at: Timestamp,
        keys: Vec<KeyDetails>,
        names: &ClusterNames,
    ) -> Self {
        let mut ours: HashMap<ObjectMark, Vec<ListedKey>> = HashMap::new();
        let mut owners = HashMap::with_capacity(keys.len());
        for key in keys {
            let marker = Marker::parse(&key.name).filter(|marker| names.include(&marker.cluster));
            owners.insert(key.id.clone(), marker.as_ref().map(|marker| marker.object.clone()));
            if let Some(marker) = marker {
                ours.entry(marker.object).or_default().push(ListedKey {
                    id: key.id,
                    attempt: marker.attempt,
                    prefix: key.key_prefix,
                    is_active: key.is_active,
                    expires_at: key.expires_at,
                    last_used_at: key.last_used_at,
                });
            }
        }
        Self { started, started_at, ours, owners }
    }

    /// The pass reduced to one object and its named key ids.
    pub fn view<'a>(&self, object: &ObjectMark, named: impl Iterator<Item = &'a str>) -> Pass {
        Pass {
            started: self.started,
            started_at: self.started_at,
            keys: self.ours.get(object).cloned().unwrap_or_default(),
            under_other_names: named
                .filter(|id| self.owners.get(*id).is_some_and(|owner| owner.as_ref() != Some(object)))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The number of listed keys, ours or not.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether the list was empty.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

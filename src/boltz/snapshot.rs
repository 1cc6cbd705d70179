//! One complete pass over Boltz's list, grouped by the objects in the markers.

use super::types::KeyDetails;
use crate::{
    plan::{Doubt, ListedKey, Monotonic, Now, Pass},
    protocol::marker::{ClusterName, Marker, ObjectMark},
};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};

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
    /// The object in the marker of our keys, by id; `None` for ids that our objects refer to and that have no such marker.
    owners: HashMap<String, Option<ObjectMark>>,
    /// The number of listed rows, ours or not.
    pub rows: usize,
    /// What the pass does not prove.
    pub doubt: Doubt,
    /// The organization whose list this is, if known.
    pub organization: Option<String>,
}

impl Snapshot {
    /// A pass that began now and has no rows yet.
    pub fn empty(now: Now) -> Self {
        Self {
            started: now.monotonic,
            started_at: now.wall,
            ours: HashMap::new(),
            owners: HashMap::new(),
            rows: 0,
            doubt: Doubt::None,
            organization: None,
        }
    }

    /// Adds a row. Of rows that are not ours, only those with an id in `named` are remembered. Rows may shift between
    /// pages, so each id counts once. A row without a name says nothing.
    pub fn add(&mut self, row: KeyDetails, names: &ClusterNames, named: &HashSet<String>) {
        self.rows += 1;
        // A row without a name does not say whose key it is.
        if row.name.is_empty() {
            return;
        }
        let marker = Marker::parse(&row.name).filter(|marker| names.include(&marker.cluster));
        if (marker.is_none() && !named.contains(&row.id)) || self.owners.contains_key(&row.id) {
            return;
        }
        self.owners.insert(row.id.clone(), marker.as_ref().map(|marker| marker.object.clone()));
        if let Some(marker) = marker {
            self.ours.entry(marker.object).or_default().push(ListedKey {
                id: row.id,
                attempt: marker.attempt,
                prefix: row.key_prefix,
                is_active: row.is_active,
                expires_at: row.expires_at,
                last_used_at: row.last_used_at,
            });
        }
    }

    /// Whether this may be the list of that organization.
    pub fn is_of(&self, organization: Option<&String>) -> bool {
        self.organization.is_none() || organization.is_none() || self.organization.as_ref() == organization
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
            doubt: self.doubt,
        }
    }

    /// Our keys that the pass shows as active.
    pub fn active_keys(&self, now: Timestamp) -> impl Iterator<Item = &ListedKey> {
        self.ours.values().flatten().filter(move |key| key.is_active_at(now))
    }

    /// The number of ids in memory.
    #[cfg(test)]
    pub(super) fn remembered_ids(&self) -> usize {
        self.owners.len()
    }
}

//! One complete pass over Boltz's list, grouped by the objects in the markers.

use super::{cluster_names::ClusterNames, types::KeyDetails};
use crate::{
    plan::{Doubt, ListedKey, Monotonic, Now, Pass},
    protocol::marker::{AttemptId, Marker, ObjectMark},
};
use jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// So many keys may be repeated before they are looked at.
const MIN_COMPACTED: usize = 4096;

/// One complete pass over the list.
#[derive(Debug)]
pub struct Snapshot {
    /// When the first page was requested: what happened later may be missing.
    pub started: Monotonic,
    /// The same by the wall clock.
    pub started_at: Timestamp,
    /// The keys with our marker, sorted by object and id.
    keys: Box<[Arc<KeyOfObject>]>,
    /// Positions in `keys`, sorted by id.
    by_id: Box<[u32]>,
    /// Ids that our objects refer to, and that are listed without our marker.
    unmarked: HashSet<String>,
    /// The number of listed rows, ours or not.
    pub rows: usize,
    /// The number of active keys without our marker.
    pub foreign: usize,
    /// The objects of rows whose ids cannot be read: which keys these have is not shown.
    unreadable: HashSet<ObjectMark>,
    /// What the pass does not prove.
    pub doubt: Doubt,
    /// The organization whose list this is, if known.
    pub organization: Option<String>,
}

/// A key with our marker. Most are the same in two passes, and shared by them.
#[derive(Debug, PartialEq)]
struct KeyOfObject {
    object: ObjectMark,
    key: ListedKey,
    created_at: Option<Timestamp>,
}

impl KeyOfObject {
    fn new(object: ObjectMark, attempt: AttemptId, row: KeyDetails) -> Self {
        let key = ListedKey {
            id: row.id,
            attempt,
            prefix: row.key_prefix,
            is_active: row.is_active,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        };
        Self { object, key, created_at: row.created_at }
    }

    fn place(&self) -> (ObjectMark, &str) {
        (self.object, &self.key.id)
    }
}

impl Snapshot {
    /// A pass that began at that time and listed these rows.
    pub fn of(
        started: Now,
        rows: impl IntoIterator<Item = KeyDetails>,
        names: &ClusterNames,
        named: HashSet<String>,
    ) -> Self {
        let mut listed = ListedRows::new(named);
        for row in rows {
            listed.add(row, names);
        }
        listed.complete(started, None)
    }

    /// Whether this may be the list of that organization.
    pub fn is_of(&self, organization: Option<&String>) -> bool {
        self.organization.is_none() || organization.is_none() || self.organization.as_ref() == organization
    }

    /// The pass reduced to one object and its named key ids. Keys that it has adopted keep the name of another object.
    pub fn view<'a>(
        &self,
        object: &ObjectMark,
        named: impl Iterator<Item = &'a str>,
        adopted: &[String],
    ) -> Pass {
        let adopted = adopted.iter().filter_map(|id| self.find(id)).filter(|key| key.object != *object);
        let keys: Vec<&Arc<KeyOfObject>> = self.keys_of(object).iter().chain(adopted).collect();
        let is_under_other_name = |id: &&str| {
            let is_ours = keys.iter().any(|own| own.key.id == *id);
            !is_ours && (self.unmarked.contains(*id) || self.find(id).is_some())
        };
        Pass {
            started: self.started,
            started_at: self.started_at,
            keys: keys.iter().map(|own| own.key.clone()).collect(),
            under_other_names: named.filter(is_under_other_name).map(str::to_owned).collect(),
            doubt: if self.unreadable.contains(object) { Doubt::All } else { self.doubt },
        }
    }

    /// The number of objects that have a key whose id cannot be read.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// The keys whose names have the mark of that object.
    pub(crate) fn keys_with_mark(&self, object: &ObjectMark) -> impl Iterator<Item = &ListedKey> {
        self.keys_of(object).iter().map(|own| &own.key)
    }

    fn keys_of(&self, object: &ObjectMark) -> &[Arc<KeyOfObject>] {
        let begin = self.keys.partition_point(|key| key.object < *object);
        let count = self.keys[begin..].partition_point(|key| key.object == *object);
        &self.keys[begin..begin + count]
    }

    fn find(&self, id: &str) -> Option<&Arc<KeyOfObject>> {
        let key_at = |position: &u32| &self.keys[*position as usize];
        let found = self.by_id.binary_search_by(|position| key_at(position).key.id.as_str().cmp(id)).ok()?;
        Some(key_at(&self.by_id[found]))
    }

    /// The key with this id, if it carries the marker of that object.
    pub(crate) fn key_of(&self, object: &ObjectMark, id: &str) -> Option<&ListedKey> {
        self.find(id).filter(|own| own.object == *object).map(|own| &own.key)
    }

    /// When Boltz created this key.
    pub(crate) fn created_at(&self, id: &str) -> Option<Timestamp> {
        self.find(id)?.created_at
    }

    /// Whether it shows a key with this id that is ours, or that one of our objects refers to.
    pub(crate) fn lists(&self, id: &str) -> bool {
        self.find(id).is_some() || self.unmarked.contains(id)
    }

    /// Our keys, by object.
    pub(crate) fn by_object(&self) -> impl Iterator<Item = (ObjectMark, impl Iterator<Item = &ListedKey>)> {
        let same_object = |one: &Arc<KeyOfObject>, other: &Arc<KeyOfObject>| one.object == other.object;
        self.keys.chunk_by(same_object).map(|keys| (keys[0].object, keys.iter().map(|own| &own.key)))
    }

    /// The objects of which it shows something else than an earlier pass. `None`: that may be any.
    pub(crate) fn changes_since(&self, before: &Self) -> Option<HashSet<ObjectMark>> {
        let is_doubtful = self.doubt != Doubt::None || before.doubt != Doubt::None;
        if is_doubtful || self.organization != before.organization || self.unmarked != before.unmarked {
            return None;
        }
        let mut changed: HashSet<ObjectMark> = self.unreadable.union(&before.unreadable).copied().collect();
        let (mut old, mut new) = (before.keys.iter().peekable(), self.keys.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return Some(changed),
                (Some(one), Some(other)) if one == other => {
                    old.next();
                    new.next();
                }
                (Some(one), other) if other.is_none_or(|other| one.place() < other.place()) => {
                    changed.insert(one.object);
                    old.next();
                }
                (_, Some(other)) => {
                    changed.insert(other.object);
                    new.next();
                }
                // The guard is true without another.
                (Some(_), None) => return Some(changed),
            }
        }
    }

    /// The keys with this cluster's marker, under its present and former names.
    pub fn keys(&self) -> impl Iterator<Item = &ListedKey> {
        self.keys.iter().map(|own| &own.key)
    }

    /// Our keys that the pass shows as active.
    pub fn active_keys(&self, now: Timestamp) -> impl Iterator<Item = &ListedKey> {
        self.keys().filter(move |key| key.is_active_at(now))
    }
}

/// What is kept of the rows while the list is read.
#[derive(Debug)]
pub(super) struct ListedRows {
    keys: Vec<KeyOfObject>,
    /// The number of keys at which repeated ones are removed next.
    compact_at: usize,
    /// Rows without our marker, of ids that our objects refer to.
    unmarked: HashMap<String, KeyDetails>,
    /// Ids that our objects refer to: whether Boltz lists them under another name is of interest.
    named: HashSet<String>,
    rows: usize,
    foreign: usize,
    unreadable: HashSet<ObjectMark>,
}

impl ListedRows {
    pub(super) fn new(named: HashSet<String>) -> Self {
        Self {
            keys: Vec::new(),
            compact_at: MIN_COMPACTED,
            unmarked: HashMap::new(),
            named,
            rows: 0,
            foreign: 0,
            unreadable: HashSet::new(),
        }
    }

    /// Adds a row. Of rows that are not ours, only those with an id in `named` are remembered. Rows may shift
    /// between pages, so each id counts once. If a row of ours has no id that can be read, the pass cannot say which keys its
    /// object has.
    pub(super) fn add(&mut self, row: KeyDetails, names: &ClusterNames) {
        self.rows += 1;
        match Marker::parse(&row.name).filter(|marker| names.include(&marker.cluster)) {
            Some(marker) if row.id.is_empty() => drop(self.unreadable.insert(marker.object)),
            Some(marker) => self.keys.push(KeyOfObject::new(marker.object, marker.attempt, row)),
            None if row.is_active && !self.named.contains(&row.id) => self.foreign += 1,
            None if self.named.contains(&row.id) => drop(self.unmarked.insert(row.id.clone(), row)),
            None => {}
        }
        if self.keys.len() >= self.compact_at {
            self.compact();
            self.compact_at = MIN_COMPACTED.max(2 * self.keys.len());
        }
    }

    /// The number of rows of ours in memory.
    pub(super) fn count(&self) -> usize {
        self.keys.len() + self.unreadable.len()
    }

    /// Keeps one row of each id: a list without end must not fill the memory. What shows a key as active is believed, so the
    /// row that says so for the longest time counts; of equal ones the first.
    fn compact(&mut self) {
        // Without an expiry a key lives longest.
        let rank = |key: &ListedKey| {
            (
                key.is_active,
                key.is_active && key.expires_at.is_none(),
                key.expires_at.filter(|_| key.is_active),
            )
        };
        self.keys.sort_by(|one, other| {
            one.key.id.cmp(&other.key.id).then_with(|| rank(&other.key).cmp(&rank(&one.key)))
        });
        self.keys.dedup_by(|later, first| later.key.id == first.key.id);
    }

    /// The pass, after its last row. A key that the pass before showed as one of an object stays one of that object, whatever
    /// name it has now: only its id never changes. A row without a name says nothing else.
    pub(super) fn complete(mut self, started: Now, before: Option<&Snapshot>) -> Snapshot {
        let known = |id: &str| before.and_then(|before| before.find(id));
        for own in &mut self.keys {
            if let Some(known) = known(&own.key.id) {
                (own.object, own.key.attempt) = (known.object, known.key.attempt.clone());
            }
        }
        let mut unmarked = HashSet::new();
        for (id, row) in self.unmarked.drain() {
            match known(&id) {
                Some(known) => {
                    self.keys.push(KeyOfObject::new(known.object, known.key.attempt.clone(), row));
                }
                None if row.name.is_empty() => {}
                None => drop(unmarked.insert(id)),
            }
        }
        self.compact();
        self.keys.sort_by_key(|own| own.object);
        let shared = |own: KeyOfObject| match known(&own.key.id) {
            Some(known) if **known == own => Arc::clone(known),
            _ => Arc::new(own),
        };
        let keys: Box<[Arc<KeyOfObject>]> = self.keys.into_iter().map(shared).collect();
        let mut by_id: Box<[u32]> = (0_u32..).take(keys.len()).collect();
        by_id.sort_unstable_by_key(|position| &keys[*position as usize].key.id);
        Snapshot {
            started: started.monotonic,
            started_at: started.wall,
            keys,
            by_id,
            unmarked,
            rows: self.rows,
            foreign: self.foreign,
            unreadable: self.unreadable,
            doubt: Doubt::None,
            organization: None,
        }
    }
}

#[cfg(test)]
impl Snapshot {
    /// The number of ids in memory.
    pub(super) fn remembered_ids(&self) -> usize {
        self.keys.len() + self.unmarked.len()
    }
}

#[cfg(test)]
mod tests;

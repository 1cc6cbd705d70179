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
            doubt: self.doubt,
        }
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
        let mut changed = HashSet::new();
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
        }
    }

    /// Adds a row. Of rows that are not ours, only those with an id in `named` are remembered. Rows may shift
    /// between pages, so each id counts once. Returns false if a row of ours has no id that can be read: the pass cannot say
    /// which keys there are.
    pub(super) fn add(&mut self, row: KeyDetails, names: &ClusterNames) -> bool {
        self.rows += 1;
        match Marker::parse(&row.name).filter(|marker| names.include(&marker.cluster)) {
            Some(_) if row.id.is_empty() => return false,
            Some(marker) => self.keys.push(KeyOfObject::new(marker.object, marker.attempt, row)),
            None if row.is_active && !self.named.contains(&row.id) => self.foreign += 1,
            None if self.named.contains(&row.id) => drop(self.unmarked.insert(row.id.clone(), row)),
            None => {}
        }
        if self.keys.len() >= self.compact_at {
            self.compact();
            self.compact_at = MIN_COMPACTED.max(2 * self.keys.len());
        }
        true
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
mod tests {
    use super::*;
    use crate::protocol::marker::MarkerFormat;
    use serde_json::json;

    fn names() -> ClusterNames {
        ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    fn row(id: &str, object: &str, is_active: bool) -> KeyDetails {
        let marker = names().marker(ObjectMark::from_uid(object), AttemptId::from_random(1));
        let name = if object.is_empty() { "of others".to_owned() } else { marker.name_with("") };
        serde_json::from_value(json!({"id": id, "name": name, "is_active": is_active})).unwrap()
    }

    fn pass(rows: &[(&str, &str, bool)]) -> Snapshot {
        let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
        let rows = rows.iter().map(|(id, object, is_active)| row(id, object, *is_active));
        Snapshot::of(now, rows, &names(), HashSet::from(["named".to_owned()]))
    }

    #[test]
    fn each_object_sees_its_keys_and_which_of_its_ids_have_other_names() {
        let pass = pass(&[
            ("b", "one", false),
            ("a", "one", true),
            ("b", "one", true),
            ("b", "one", false),
            ("c", "two", true),
            ("named", "", true),
            ("not named", "", true),
        ]);
        let named = ["a", "c", "named", "not named", "absent"];
        let view = pass.view(&ObjectMark::from_uid("one"), named.into_iter(), &[]);
        let keys: Vec<(&str, bool)> = view.keys.iter().map(|key| (key.id.as_str(), key.is_active)).collect();
        assert_eq!(keys, [("a", true), ("b", true)], "what shows a key as active is believed");
        assert_eq!(Vec::from_iter(view.under_other_names), ["c", "named"]);
        assert_eq!((pass.rows, pass.by_object().count()), (7, 2));
        assert!(pass.view(&ObjectMark::from_uid("three"), std::iter::empty(), &[]).keys.is_empty());
    }

    #[test]
    fn keys_of_both_formats_and_of_both_forms_of_a_derived_name_are_ours() {
        let uid = "550e8400-e29b-41d4-a716-446655440000";
        let formats = [MarkerFormat::One, MarkerFormat::Two];
        let operators = formats.map(|format| ClusterNames::derived(uid, Vec::new(), format));
        let object = ObjectMark::from_uid(uid);
        let rows = operators.iter().enumerate().map(|(number, names)| KeyDetails {
            name: names.marker(object, AttemptId::from_random(number as u64)).name_of("team", "key"),
            ..row(&format!("key-{number}"), "", true)
        });
        let rows: Vec<KeyDetails> = rows.collect();
        for names in &operators {
            let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
            let pass = Snapshot::of(now, rows.clone(), names, HashSet::new());
            let view = pass.view(&object, ["key-0", "key-1"].into_iter(), &[]);
            assert_eq!(
                (view.keys.len(), view.under_other_names.len()),
                (2, 0),
                "{}",
                names.begin_of_markers()
            );
        }
    }

    #[test]
    fn a_key_that_gets_another_name_stays_one_of_its_object() {
        let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
        let mut before = pass(&[("named", "one", true), ("two", "two", true)]);
        for (name, is_active) in [("of others", true), ("", true), ("of others", false)] {
            let mut renamed = row("named", "", is_active);
            renamed.name = name.to_owned();
            let mut listed = ListedRows::new(HashSet::from(["named".to_owned()]));
            [renamed, row("two", "one", true)].into_iter().for_each(|row| assert!(listed.add(row, &names())));
            before = listed.complete(now, Some(&before));
            let of = |object| {
                Vec::from_iter(before.view(&ObjectMark::from_uid(object), ["named"].into_iter(), &[]).keys)
            };
            let one = of("one");
            assert_eq!((one.len(), one[0].id.as_str(), one[0].is_active), (1, "named", is_active), "{name}");
            assert_eq!(of("two").len(), 1, "the marker of another object does not take it away");
        }
    }

    #[test]
    fn the_changes_name_the_objects_whose_keys_are_not_the_same() {
        let before = [("a", "one", true), ("b", "two", true), ("c", "three", true)];
        for (after, changed) in [
            (vec![("a", "one", true), ("b", "two", true), ("c", "three", true)], vec![]),
            (vec![("a", "one", true), ("b", "two", false), ("c", "three", true)], vec!["two"]),
            (
                vec![("c", "three", true), ("b", "two", true), ("a", "one", true), ("d", "one", true)],
                vec!["one"],
            ),
            (vec![("b", "two", true), ("d", "four", true)], vec!["one", "three", "four"]),
            (vec![], vec!["one", "two", "three"]),
        ] {
            let changed: HashSet<ObjectMark> = changed.into_iter().map(ObjectMark::from_uid).collect();
            assert_eq!(pass(&after).changes_since(&pass(&before)), Some(changed), "{after:?}");
        }
        assert_eq!(pass(&[("named", "", true)]).changes_since(&pass(&before)), None);
        let doubtful = Snapshot { doubt: Doubt::Many, ..pass(&before) };
        assert_eq!(pass(&before).changes_since(&doubtful), None);
    }

    #[test]
    fn a_list_that_repeats_itself_does_not_fill_the_memory() {
        let mut listed = ListedRows::new(HashSet::new());
        for number in 0..100_000 {
            listed.add(row(&format!("key_{}", number % 10), "one", true), &names());
            assert!(listed.keys.len() <= MIN_COMPACTED);
        }
    }
}

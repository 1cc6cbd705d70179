//! One pass over Boltz's list, while its pages arrive: what is kept of them, and whether they are consistent. No calls.

use super::{
    cluster_names::ClusterNames,
    snapshot::{ListedRows, Snapshot},
    types::KeyPage,
};
use crate::plan::Now;
use std::collections::HashSet;

/// A list with more keys of ours than this proves nothing: it would fill the memory.
const MAX_KEYS: usize = 1_000_000;

/// A pass that is not complete yet. Rows of others leave nothing behind, so that its memory is bounded by our own keys.
#[derive(Debug)]
pub struct PassInProgress<'a> {
    names: &'a ClusterNames,
    started: Now,
    listed: ListedRows,
    cursors: Cycle<String>,
    pages: Cycle<HashSet<String>>,
    previous_page: HashSet<String>,
}

/// The list contradicts itself: the pass proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentList {
    /// `has_more` is true, and there is no cursor for the next page.
    #[error("Boltz's list of keys says that it has more pages, but has no cursor for the next one")]
    NoCursor,
    /// `has_more` is true, and the page shows nothing that an earlier page did not show.
    #[error("Boltz's list of keys says that it has more pages, but its pages show nothing new")]
    NothingNew,
    /// There are more keys of ours than an operator can serve.
    #[error("Boltz's list of keys shows more than {MAX_KEYS} keys of this operator")]
    TooMany,
    /// A cursor came twice: the pages form a circle.
    #[error("Boltz's list of keys returned the same cursor twice, so it has no end")]
    RepeatedCursor,
}

/// What comes after a page.
#[derive(Debug)]
pub enum AfterPage {
    /// The page after this cursor.
    Next(String),
    /// Nothing: this was the last page.
    Complete,
}

impl<'a> PassInProgress<'a> {
    /// A pass that begins now.
    pub fn begin(now: Now, names: &'a ClusterNames, named: HashSet<String>) -> Self {
        Self {
            names,
            started: now,
            listed: ListedRows::new(named),
            cursors: Cycle::default(),
            pages: Cycle::default(),
            previous_page: HashSet::new(),
        }
    }

    pub fn add(&mut self, page: KeyPage) -> Result<AfterPage, InconsistentList> {
        let ids: HashSet<String> = page.data.iter().map(|row| row.id.clone()).collect();
        let shows_something_new =
            !ids.is_subset(&self.previous_page) && !self.pages.is_repeated(&ids, HashSet::is_subset);
        for row in page.data {
            self.listed.add(row, self.names);
        }
        if self.listed.count() > MAX_KEYS {
            return Err(InconsistentList::TooMany);
        }
        if !page.has_more {
            return Ok(AfterPage::Complete);
        }
        if !shows_something_new {
            return Err(InconsistentList::NothingNew);
        }
        let cursor = page.last_id.filter(|id| !id.is_empty()).ok_or(InconsistentList::NoCursor)?;
        if self.cursors.is_repeated(&cursor, String::eq) {
            return Err(InconsistentList::RepeatedCursor);
        }
        self.previous_page = ids;
        Ok(AfterPage::Next(cursor))
    }

    /// The pass, after its last page. It shares memory with the one before.
    pub fn complete(self, before: Option<&Snapshot>) -> Snapshot {
        self.listed.complete(self.started, before)
    }
}

/// Finds a circle, and remembers one of its members (Brent's algorithm, BIT 20, 1980).
#[derive(Debug)]
struct Cycle<T> {
    remembered: Option<T>,
    steps: u64,
    limit: u64,
}

impl<T> Default for Cycle<T> {
    fn default() -> Self {
        Self { remembered: None, steps: 0, limit: 0 }
    }
}

impl<T: Clone> Cycle<T> {
    /// Whether the next member was there before.
    fn is_repeated(&mut self, next: &T, is_same: impl Fn(&T, &T) -> bool) -> bool {
        if self.remembered.as_ref().is_some_and(|remembered| is_same(next, remembered)) {
            return true;
        }
        self.steps += 1;
        if self.steps > self.limit {
            self.limit = (2 * self.limit).max(1);
            self.steps = 0;
            self.remembered = Some(next.clone());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::marker::MarkerFormat;
    use serde_json::{Value as Json, json};

    fn names() -> ClusterNames {
        ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    fn now() -> Now {
        Now { wall: jiff::Timestamp::UNIX_EPOCH, monotonic: Default::default() }
    }

    /// Ids of the rows, whether there is more, and the cursor.
    fn page(ids: &[&str], has_more: bool, cursor: Option<&str>) -> KeyPage {
        let rows: Vec<Json> = ids.iter().map(|id| json!({"id": id, "name": "of others"})).collect();
        serde_json::from_value(json!({"data": rows, "has_more": has_more, "last_id": cursor})).unwrap()
    }

    /// The number of pages that were taken, and how it ended.
    fn walk(pages: Vec<KeyPage>) -> (usize, Option<InconsistentList>) {
        let names = names();
        let mut pass = PassInProgress::begin(now(), &names, HashSet::new());
        for (index, page) in pages.into_iter().enumerate() {
            match pass.add(page) {
                Ok(AfterPage::Next(_)) => {}
                Ok(AfterPage::Complete) => return (index + 1, None),
                Err(error) => return (index + 1, Some(error)),
            }
        }
        panic!("the pages do not end");
    }

    #[test]
    fn only_a_consistent_list_is_a_pass() {
        use InconsistentList::{NoCursor, NothingNew, RepeatedCursor};
        let cursors = ["a", "b", "c", "d"].into_iter().cycle().take(20);
        let circle = cursors.enumerate();
        let circle = circle.map(|(row, cursor)| page(&[&row.to_string()], true, Some(cursor))).collect();
        // The same rows in turn, each time with a new cursor.
        let turns =
            (0..20).map(|number| page(&[["a", "b", "c"][number % 3]], true, Some(&number.to_string())));
        let turns = turns.collect();
        let of_ours = |id: &str| {
            let name = "bo.mine.550e8400e29b41d4.0a9876543210";
            let row = json!({"id": id, "name": name});
            serde_json::from_value(json!({"data": [row], "has_more": false})).unwrap()
        };
        for (pages, expected) in [
            (vec![page(&[], false, None)], (1, None)),
            (vec![page(&["a"], true, Some("a")), page(&["b"], false, Some("b"))], (2, None)),
            // Rows shift while keys come and go.
            (vec![page(&["a", "b"], true, Some("b")), page(&["b", "c"], false, Some("c"))], (2, None)),
            (vec![page(&["a"], true, Some("a")), page(&[], false, None)], (2, None)),
            (vec![page(&["a"], true, None)], (1, Some(NoCursor))),
            (vec![page(&["a"], true, Some(""))], (1, Some(NoCursor))),
            (vec![page(&[], true, Some("a"))], (1, Some(NothingNew))),
            (vec![page(&["a"], true, Some("a")), page(&["a"], true, Some("b"))], (2, Some(NothingNew))),
            (vec![page(&["a"], true, Some("a")), page(&["b"], true, Some("a"))], (2, Some(RepeatedCursor))),
            (circle, (10, Some(RepeatedCursor))),
            (turns, (6, Some(NothingNew))),
            (vec![page(&[""], false, None)], (1, None)),
            (vec![of_ours("")], (1, None)),
            (vec![of_ours("key_1")], (1, None)),
        ] {
            assert_eq!(walk(pages), expected);
        }
    }

    /// Each page shows other keys of ours.
    #[test]
    fn a_list_of_endlessly_many_keys_ends() {
        let names = names();
        let row: crate::boltz::KeyDetails =
            serde_json::from_value(json!({"name": "bo.mine.550e8400e29b41d4.0a9876543210"})).unwrap();
        let mut pass = PassInProgress::begin(now(), &names, HashSet::new());
        let ended = (0..1000).find_map(|number: usize| {
            let id = |row: usize| (number * 5000 + row).to_string();
            let rows = (0..5000).map(|index| crate::boltz::KeyDetails { id: id(index), ..row.clone() });
            let page = KeyPage { data: rows.collect(), has_more: true, last_id: Some(id(0)) };
            pass.add(page).err().map(|error| (number, error))
        });
        assert_eq!(ended, Some((MAX_KEYS / 5000, InconsistentList::TooMany)));
    }

    #[test]
    fn rows_of_others_leave_nothing_behind() {
        let names = names();
        let mut pass = PassInProgress::begin(now(), &names, HashSet::from(["named".to_owned()]));
        for number in 0..1000 {
            let ids: Vec<String> = (0..100).map(|row| format!("{number}-{row}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).chain(["named"]).collect();
            pass.add(page(&ids, true, Some(ids[0]))).unwrap();
        }
        assert_eq!(pass.previous_page.len(), 101);
        let snapshot = pass.complete(None);
        assert_eq!((snapshot.rows, snapshot.remembered_ids()), (101_000, 1));
    }
}

//! The turns that were given, and are not over yet. Pure.

use super::waiters::Waiter;
use crate::plan::Monotonic;
use std::{collections::HashMap, time::Duration};

/// How long a turn lasts that its object does not know of: the object may be gone.
const UNTOLD: Duration = Duration::from_secs(5);
/// How long a turn lasts from when its object last asked: longer than any call to the API server.
const TOLD: Duration = Duration::from_secs(60);

/// A turn: a token that is set aside for one object.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub waiter: Waiter,
    pub began: Monotonic,
    pub joined: u64,
    ends: Monotonic,
    is_told: bool,
    /// The key is requested: the token is used up, unless the answer says otherwise.
    pub is_used: bool,
}

/// Whose turns are counted: calls that hang must leave room for those of others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum One {
    Namespace(String),
    Workspace(Option<String>),
}

fn both(waiter: &Waiter) -> [One; 2] {
    [One::Namespace(waiter.namespace.clone()), One::Workspace(waiter.workspace.clone())]
}

/// The turns, by the object's UID.
#[derive(Debug)]
pub(super) struct Turns {
    turns: HashMap<String, Turn>,
    /// How many turns each namespace, and each workspace, has now, and may have.
    of_one: HashMap<One, usize>,
    most_of_one: usize,
    most_of_all: usize,
}

impl Turns {
    pub fn new(most_of_one: usize) -> Self {
        Self { turns: HashMap::new(), of_one: HashMap::new(), most_of_one, most_of_all: usize::MAX }
    }

    /// How many there may be, whatever their namespaces and workspaces are.
    pub fn set_most_of_all(&mut self, most: usize) {
        self.most_of_all = most;
    }

    pub fn has_room_at_all(&self) -> bool {
        self.turns.len() < self.most_of_all
    }

    /// A namespace has at most half of the turns that a workspace may have: all namespaces may share one.
    pub fn has_room_in(&self, namespace: &str) -> bool {
        self.has_room(&One::Namespace(namespace.to_owned()), self.most_of_one.div_ceil(2))
    }

    pub fn has_room_of(&self, workspace: Option<&str>) -> bool {
        self.has_room(&One::Workspace(workspace.map(str::to_owned)), self.most_of_one)
    }

    fn has_room(&self, one: &One, most: usize) -> bool {
        self.of_one.get(one).is_none_or(|count| *count < most)
    }

    pub fn give(&mut self, waiter: Waiter, joined: u64, now: Monotonic) -> &Waiter {
        for one in both(&waiter) {
            *self.of_one.entry(one).or_default() += 1;
        }
        let (uid, ends) = (waiter.uid.clone(), now.plus(UNTOLD));
        let turn = Turn { waiter, began: now, joined, ends, is_told: false, is_used: false };
        &self.turns.entry(uid).insert_entry(turn).into_mut().waiter
    }

    /// The object knows of its turn, and has time for it from now on.
    pub fn tell(&mut self, uid: &str, now: Monotonic) -> Option<&Turn> {
        let turn = self.turns.get_mut(uid)?;
        turn.is_told = true;
        turn.ends = now.plus(TOLD);
        Some(turn)
    }

    pub fn begin(&mut self, uid: &str) -> Option<&Turn> {
        let turn = self.turns.get_mut(uid)?;
        turn.is_used = true;
        Some(turn)
    }

    pub fn is_used(&self, uid: &str) -> Option<bool> {
        self.turns.get(uid).map(|turn| turn.is_used)
    }

    pub fn end(&mut self, uid: &str) -> Option<Turn> {
        let turn = self.turns.remove(uid)?;
        for one in both(&turn.waiter) {
            match self.of_one.get_mut(&one) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.of_one.remove(&one)),
            }
        }
        Some(turn)
    }

    /// The objects that did not use their turn in time.
    pub fn lost(&self, now: Monotonic) -> Vec<String> {
        self.turns.iter().filter(|(_, turn)| turn.ends <= now).map(|(uid, _)| uid.clone()).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Turn> {
        self.turns.values()
    }

    pub fn untold(&self) -> impl Iterator<Item = &Waiter> {
        self.turns.values().filter(|turn| !turn.is_told).map(|turn| &turn.waiter)
    }

    pub fn ends(&self) -> impl Iterator<Item = Monotonic> {
        self.turns.values().map(|turn| turn.ends)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.of_one.is_empty()
    }
}

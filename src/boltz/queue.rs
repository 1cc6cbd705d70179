//! The queue of objects that wait for a new key. Pure: it says whose turn has come. A turn is one token of the budget of
//! new keys, for one object and for a short time.

use super::{
    bucket::Bucket,
    turns::{Turn, Turns},
    waiters::{Class, Namespaces, Waiter},
};
use crate::{observability::metrics::QueueLengths, plan::Monotonic};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The limits of new keys per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MintLimits {
    /// For all objects together.
    pub per_minute: u32,
    /// For each namespace; `None`: no limit.
    pub per_namespace: Option<u32>,
    /// How many objects of one namespace, or of one workspace, may be about to get a key at the same time; and how many
    /// revocations.
    pub at_once: usize,
}

/// Who waits, and whose turn it is.
#[derive(Debug)]
pub(super) struct MintQueue {
    tokens: Bucket,
    /// The bucket of a namespace that no key was made for yet, if there is a limit.
    of_namespace: Option<Bucket>,
    of_namespaces: HashMap<String, Bucket>,
    waiters: HashMap<String, (u64, Waiter)>,
    lengths: BTreeMap<Class, usize>,
    turns: Turns,
    all: Namespaces,
    leaks: Namespaces,
    reminded: BTreeSet<String>,
    joined: u64,
    granted: u64,
}

impl MintQueue {
    /// An empty queue, with a tenth of the tokens.
    pub fn new(limits: MintLimits, now: Monotonic) -> Self {
        Self {
            tokens: Bucket::new(limits.per_minute, now),
            of_namespace: limits.per_namespace.map(|limit| Bucket::new(limit, now)),
            of_namespaces: HashMap::new(),
            waiters: HashMap::new(),
            lengths: BTreeMap::new(),
            turns: Turns::new(limits.at_once),
            all: Namespaces::default(),
            leaks: Namespaces::default(),
            reminded: BTreeSet::new(),
            joined: 0,
            granted: 0,
        }
    }

    /// How many turns there may be at the same time.
    pub fn set_most_turns(&mut self, most: usize) {
        self.turns.set_most_of_all(most);
    }

    /// Other limits of new keys per minute. They begin with a tenth of the tokens.
    pub fn set_limits(&mut self, limits: MintLimits, now: Monotonic) {
        self.tokens = Bucket::new(limits.per_minute, now);
        self.of_namespace = limits.per_namespace.map(|limit| Bucket::new(limit, now));
        self.of_namespaces.clear();
    }

    /// The number of those that wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// The number of those that wait, by class.
    pub fn lengths(&self) -> QueueLengths {
        let length = |class: &Class| self.lengths.get(class).copied().unwrap_or_default();
        [Class::RotateNow, Class::Renewal, Class::Rotation, Class::First]
            .map(|class| (class.into(), length(&class)))
    }

    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values().map(|(_, waiter)| waiter)
    }

    /// The turns that were given, and are not over.
    pub fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.all()
    }

    /// Whether there are tokens for all that wait: only those at work now are in the way.
    pub fn is_short(&self, namespace: &str, now: Monotonic) -> bool {
        let bucket = self.bucket(namespace);
        [Some(self.tokens), bucket].into_iter().flatten().all(|bucket| bucket.count(now) > self.waiters.len())
    }

    /// The object waits, from when it first said so.
    pub fn join(&mut self, waiter: Waiter) {
        self.reminded.remove(&waiter.uid);
        let joined = match self.waiters.get(&waiter.uid) {
            Some((_, known)) if *known == waiter => return,
            Some((joined, _)) => *joined,
            None => {
                self.joined += 1;
                self.joined
            }
        };
        self.remove(&waiter.uid);
        self.insert(waiter, joined);
    }

    fn insert(&mut self, waiter: Waiter, joined: u64) {
        self.all.join(&waiter, joined);
        if waiter.class == Class::RotateNow {
            self.leaks.join(&waiter, joined);
        }
        *self.lengths.entry(waiter.class).or_default() += 1;
        self.waiters.insert(waiter.uid.clone(), (joined, waiter));
    }

    fn remove(&mut self, uid: &str) -> Option<(u64, Waiter)> {
        let (joined, waiter) = self.waiters.remove(uid)?;
        let length = self.lengths.entry(waiter.class).or_default();
        *length = length.saturating_sub(1);
        self.all.leave(&waiter, joined);
        self.leaks.leave(&waiter, joined);
        Some((joined, waiter))
    }

    /// The object wants no key. A turn that it had is returned, and its token is given back.
    pub fn leave(&mut self, uid: &str) -> Option<Turn> {
        self.remove(uid);
        if self.turns.is_used(uid)? { None } else { self.end(uid, false) }
    }

    /// The object must not use its turn now. It waits again, where it waited.
    pub fn postpone(&mut self, uid: &str) {
        if let Some(turn) = self.leave(uid) {
            self.insert(turn.waiter, turn.joined);
        }
    }

    /// The POST is about to be sent: the turn is used up.
    pub fn begin(&mut self, uid: &str) -> Option<&Turn> {
        self.turns.begin(uid)
    }

    /// The turn is over. If certainly no key was made, the token is given back.
    pub fn end(&mut self, uid: &str, is_minted: bool) -> Option<Turn> {
        let turn = self.turns.end(uid)?;
        if !is_minted {
            self.tokens.give_back();
            if let Some(bucket) = self.of_namespaces.get_mut(&turn.waiter.namespace) {
                bucket.give_back();
            }
        }
        Some(turn)
    }

    /// The turn of the object, which knows of it from now on.
    pub fn turn(&mut self, uid: &str, now: Monotonic) -> Option<&Turn> {
        self.turns.tell(uid, now)
    }

    /// Gives the next turn, if there is a token and somebody whose workspace is open.
    pub fn grant(&mut self, now: Monotonic, is_open: impl Fn(Option<&str>) -> bool) -> Option<&Waiter> {
        if self.tokens.next_at(now) > now || !self.turns.has_room_at_all() {
            return None;
        }
        let has_token =
            |namespace: &str| self.bucket(namespace).is_none_or(|bucket| bucket.next_at(now) <= now);
        let serves = |namespace: &str| self.turns.has_room_in(namespace) && has_token(namespace);
        let is_open = |workspace: Option<&str>| self.turns.has_room_of(workspace) && is_open(workspace);
        let leak = (self.granted % 2 == 1).then(|| self.leaks.first(serves, is_open)).flatten();
        let is_leak = leak.is_some();
        let uid = leak.or_else(|| self.all.first(serves, is_open))?.2.clone();
        let (joined, waiter) = self.remove(&uid)?;
        let taken_from = if is_leak { &mut self.leaks } else { &mut self.all };
        taken_from.mark_served(&waiter.namespace);
        self.granted += 1;
        self.tokens.take(now);
        if let Some(mut bucket) = self.bucket(&waiter.namespace) {
            bucket.take(now);
            self.of_namespaces.retain(|_, bucket| !bucket.is_full(now));
            self.of_namespaces.insert(waiter.namespace.clone(), bucket);
        }
        Some(self.turns.give(waiter, joined, now))
    }

    fn bucket(&self, namespace: &str) -> Option<Bucket> {
        self.of_namespaces.get(namespace).copied().or(self.of_namespace)
    }

    /// The turns that nobody used in time; their tokens are given back.
    pub fn lost(&mut self, now: Monotonic) -> Vec<Turn> {
        let lost = self.turns.lost(now);
        lost.iter().filter_map(|uid| self.end(uid, self.turns.is_used(uid)?)).collect()
    }

    /// All that wait shall ask again: why they wait has changed.
    pub fn remind(&mut self) {
        self.reminded = self.waiters.keys().cloned().collect();
    }

    /// Those that have to ask again, or do not know yet that their turn has come.
    pub fn with_news(&self) -> impl Iterator<Item = &Waiter> {
        self.turns
            .untold()
            .chain(self.reminded.iter().filter_map(|uid| self.waiters.get(uid)).map(|(_, waiter)| waiter))
    }

    /// When something may change for those that wait: a token, or the end of a turn.
    pub fn next_at(&self, now: Monotonic) -> Option<Monotonic> {
        let tokens = self.of_namespaces.values().chain([&self.tokens]).map(|bucket| bucket.next_at(now));
        tokens.chain(self.turns.ends()).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;

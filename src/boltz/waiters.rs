//! Those that wait for a new key, in the order in which their turn comes. Pure.

use crate::protocol::record::IssueReason;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a key is for; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Class {
    RotateNow,
    Renewal,
    Rotation,
    First,
}

impl From<IssueReason> for Class {
    fn from(reason: IssueReason) -> Self {
        match reason {
            IssueReason::RotateNow => Self::RotateNow,
            IssueReason::Renewal => Self::Renewal,
            IssueReason::Initial => Self::First,
            _ => Self::Rotation,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiter {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// The workspace of the key; `None`: the default one.
    pub workspace: Option<String>,
    pub class: Class,
}

/// The order within a namespace: by class, then first come.
pub(super) type Place = (Class, u64, String);

/// Those of one namespace, by workspace.
type Lines = BTreeMap<Option<String>, BTreeSet<Place>>;

/// Their order: who was served waits until all others were.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    next: u64,
    pub(super) order: BTreeMap<u64, String>,
    /// The number in the order, and who waits.
    waiting: HashMap<String, (u64, Lines)>,
    /// How many wait for a key of each workspace.
    workspaces: BTreeMap<Option<String>, usize>,
}

impl Namespaces {
    pub fn join(&mut self, waiter: &Waiter, joined: u64) {
        *self.workspaces.entry(waiter.workspace.clone()).or_default() += 1;
        if !self.waiting.contains_key(&waiter.namespace) {
            self.move_to_back(&waiter.namespace);
        }
        if let Some((_, lines)) = self.waiting.get_mut(&waiter.namespace) {
            let place = (waiter.class, joined, waiter.uid.clone());
            lines.entry(waiter.workspace.clone()).or_default().insert(place);
        }
    }

    pub fn leave(&mut self, waiter: &Waiter, joined: u64) {
        let Some((number, lines)) = self.waiting.get_mut(&waiter.namespace) else { return };
        if let Some(line) = lines.get_mut(&waiter.workspace) {
            if line.remove(&(waiter.class, joined, waiter.uid.clone()))
                && let Some(count) = self.workspaces.get_mut(&waiter.workspace)
            {
                *count -= 1;
                if *count == 0 {
                    self.workspaces.remove(&waiter.workspace);
                }
            }
            if line.is_empty() {
                lines.remove(&waiter.workspace);
            }
        }
        if lines.is_empty() {
            self.order.remove(number);
            self.waiting.remove(&waiter.namespace);
        }
    }

    /// A namespace that had its turn goes to the back.
    pub fn mark_served(&mut self, namespace: &str) {
        if self.waiting.contains_key(namespace) {
            self.move_to_back(namespace);
        }
    }

    fn move_to_back(&mut self, namespace: &str) {
        let (number, _) = self.waiting.entry(namespace.to_owned()).or_default();
        self.order.remove(number);
        self.next += 1;
        *number = self.next;
        self.order.insert(self.next, namespace.to_owned());
    }

    /// The first in the first namespace that has one who may go. Asks once for each workspace: there may be many objects.
    pub fn first(
        &self,
        serves: impl Fn(&str) -> bool,
        is_open: impl Fn(Option<&str>) -> bool,
    ) -> Option<&Place> {
        let open: BTreeSet<_> =
            self.workspaces.keys().filter(|workspace| is_open(workspace.as_deref())).collect();
        if open.is_empty() {
            return None;
        }
        self.order.values().filter(|namespace| serves(namespace)).find_map(|namespace| {
            let (_, lines) = self.waiting.get(namespace)?;
            let lines = lines.iter().filter(|(workspace, _)| open.contains(workspace));
            lines.filter_map(|(_, line)| line.first()).min()
        })
    }
}

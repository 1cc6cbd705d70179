//! What objects wait for, as far as it is not in kube's scheduler.

use crate::{
    plan::Monotonic,
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

#[derive(Debug, Default)]
pub(super) struct Awaited(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    /// The objects to which a pass that shows nothing new of them does not matter.
    quiet: HashSet<ObjectMark>,
    far_wake_ups: HashMap<ObjectMark, Monotonic>,
    /// The accounts that objects use, other than that of the flags.
    accounts: HashMap<ObjectMark, AccountName>,
}

impl Awaited {
    /// Whether a pass that shows nothing new of the object does not matter to it.
    pub(super) fn is_quiet(&self, object: &ObjectMark) -> bool {
        self.0.lock().quiet.contains(object)
    }

    pub(super) fn set_quiet(&self, object: ObjectMark, is_quiet: bool) {
        let mut awaited = self.0.lock();
        match is_quiet {
            true => awaited.quiet.insert(object),
            false => awaited.quiet.remove(&object),
        };
    }

    /// When to reconcile the object, if that is far away.
    pub(super) fn far_wake_up(&self, object: &ObjectMark) -> Option<Monotonic> {
        self.0.lock().far_wake_ups.get(object).copied()
    }

    pub(super) fn set_far_wake_up(&self, object: ObjectMark, at: Option<Monotonic>) {
        let mut awaited = self.0.lock();
        match at {
            Some(at) => awaited.far_wake_ups.insert(object, at),
            None => awaited.far_wake_ups.remove(&object),
        };
    }

    /// Whether the object uses this account, as far as its last decision knew.
    pub(super) fn uses(&self, object: &ObjectMark, account: &AccountName) -> bool {
        self.0.lock().accounts.get(object).unwrap_or(&AccountName::OF_FLAGS) == account
    }

    /// How many objects use this account.
    pub(super) fn users_of(&self, account: &AccountName) -> usize {
        self.0.lock().accounts.values().filter(|used| *used == account).count()
    }

    /// The account that the object uses. Returns the one that it used before, if that was another.
    pub(super) fn set_account(&self, object: ObjectMark, account: &AccountName) -> Option<AccountName> {
        let accounts = &mut self.0.lock().accounts;
        let before = match account.is_of_flags() {
            true => accounts.remove(&object),
            false => accounts.insert(object, account.clone()),
        };
        Some(before.unwrap_or_default()).filter(|before| before != account)
    }

    /// The object does not exist any more.
    pub(super) fn forget(&self, object: ObjectMark) {
        self.0.lock().accounts.remove(&object);
        self.set_quiet(object, false);
        self.set_far_wake_up(object, None);
    }

    /// Every object is reconciled, and says then what it waits for.
    pub(super) fn clear(&self) {
        *self.0.lock() = Waits::default();
    }
}

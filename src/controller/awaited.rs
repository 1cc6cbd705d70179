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
    /// The objects that were decided on.
    decided: HashSet<ObjectMark>,
    /// The accounts that they use, other than that of the flags.
    accounts: HashMap<ObjectMark, Use>,
}

/// The account that an object uses.
#[derive(Debug)]
struct Use {
    account: AccountName,
    /// It has made an attempt with it, so that it may have keys there.
    is_pinned: bool,
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

    /// The account that the object uses, as far as its last decision knew.
    pub(super) fn account_of(&self, object: &ObjectMark) -> AccountName {
        let awaited = self.0.lock();
        awaited.accounts.get(object).map(|used| used.account.clone()).unwrap_or_default()
    }

    /// Whether the object uses this account, as far as its last decision knew.
    pub(super) fn uses(&self, object: &ObjectMark, account: &AccountName) -> bool {
        let awaited = self.0.lock();
        awaited.accounts.get(object).map_or(account.is_of_flags(), |used| used.account == *account)
    }

    /// Whether the object is known to use another account.
    pub(super) fn uses_another(&self, object: &ObjectMark, account: &AccountName) -> bool {
        self.was_decided(object) && !self.uses(object, account)
    }

    /// Whether there was a decision on the object.
    pub(super) fn was_decided(&self, object: &ObjectMark) -> bool {
        self.0.lock().decided.contains(object)
    }

    /// How many objects have made an attempt with this account.
    pub(super) fn users_of(&self, account: &AccountName) -> usize {
        let awaited = self.0.lock();
        awaited.accounts.values().filter(|used| used.is_pinned && used.account == *account).count()
    }

    /// The account that the object uses. Returns the one that it used before, if that was another.
    pub(super) fn set_account(
        &self,
        object: ObjectMark,
        account: &AccountName,
        is_pinned: bool,
    ) -> Option<AccountName> {
        let mut awaited = self.0.lock();
        let was_decided = !awaited.decided.insert(object);
        let before = match account.is_of_flags() {
            true => awaited.accounts.remove(&object),
            false => awaited.accounts.insert(object, Use { account: account.clone(), is_pinned }),
        };
        let before = before.map(|used| used.account).unwrap_or_default();
        Some(before).filter(|before| was_decided && before != account)
    }

    /// The object does not exist any more.
    pub(super) fn forget(&self, object: ObjectMark) {
        let mut awaited = self.0.lock();
        awaited.accounts.remove(&object);
        awaited.decided.remove(&object);
        drop(awaited);
        self.set_quiet(object, false);
        self.set_far_wake_up(object, None);
    }

    /// Every object is reconciled, and says then what it waits for.
    pub(super) fn clear(&self) {
        *self.0.lock() = Waits::default();
    }
}

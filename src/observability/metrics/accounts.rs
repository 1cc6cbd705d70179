//! What the leader shows of each account.

use super::{AdminKeyState, Metrics, PassGauges, QueueLengths, boltz::Organization};
use crate::protocol::account_name::AccountName;
use jiff::Timestamp;
use std::time::Duration;

impl Metrics {
    /// How often the list of this account is to be read.
    pub(crate) fn set_inventory_interval(&self, account: &AccountName, interval: Duration) {
        self.of_account(account, |known| {
            known.inventory_interval = interval;
            // An account that is new has been served from now on.
            known.leading_since = known.leading_since.or(Some(Timestamp::now()));
        });
    }

    fn of_account(&self, account: &AccountName, change: impl FnOnce(&mut Organization)) {
        change(self.organizations.lock().entry(account.clone()).or_default());
    }

    pub(crate) fn set_waiting(&self, account: &AccountName, lengths: QueueLengths) {
        self.of_account(account, |known| known.waiting = Some(lengths));
    }

    /// None: it cannot be told.
    pub(crate) fn set_orphaned_keys(&self, account: &AccountName, count: Option<usize>) {
        self.of_account(account, |known| known.orphaned_keys = count);
    }

    pub(crate) fn set_inventory(&self, account: &AccountName, pass: PassGauges) {
        self.of_account(account, |known| known.pass = Some(pass));
    }

    pub(crate) fn set_admin_key(&self, account: &AccountName, state: AdminKeyState) {
        self.of_account(account, |known| known.admin_key = Some(state));
    }

    /// Whether there is a new admin key that is not used yet.
    pub(crate) fn set_new_admin_key_unproved(&self, account: &AccountName, is_unproved: bool) {
        self.of_account(account, |known| known.is_new_admin_key_unproved = is_unproved);
    }

    pub(crate) fn set_admin_key_expiry(&self, account: &AccountName, expires_at: Option<Timestamp>) {
        self.of_account(account, |known| known.admin_key_expires_at = expires_at);
    }

    /// The account is not served any more.
    pub(crate) fn forget_account(&self, account: &AccountName) {
        self.organizations.lock().remove(account);
    }
}

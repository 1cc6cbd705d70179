//! What the account remembers of its organization, and whether the admin key belongs to it.

use super::{Account, AdminKey};
use crate::{
    boltz::{
        account_data::Remembered,
        organization::{Organization, Said},
    },
    observability::metrics::AdminKeyState,
    protocol::marker::MAX_NAME_LENGTH,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// It is not known whether the admin key belongs to the remembered organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not known whether the admin key belongs to the remembered organization")]
pub(crate) struct UnknownOrganization;

impl Account {
    /// Boltz gave a new key another name than requested: no more keys are created.
    pub(crate) fn mark_names_altered(&self, requested: &str, name: &str) {
        let name: String = name.chars().take(MAX_NAME_LENGTH).collect();
        let message = format!(
            "Boltz changes the names of keys: it named a key \"{name}\" instead of \"{requested}\". Without the name, a \
             key whose response is lost could not be found again. No keys are issued. When Boltz no longer changes names, \
             restart the operator with --retry-altered-names."
        );
        tracing::error!("{message}");
        self.organization.lock().set_names_altered(message);
        self.announce_remembered();
    }

    /// What the operator remembers has to be read before it is known whether the admin key belongs to the organization.
    #[must_use]
    pub(crate) fn unread(self, accepted_organization: Option<String>, retry_altered_names: bool) -> Self {
        let organization = Organization::unread(accepted_organization, retry_altered_names);
        Self { organization: Mutex::new(organization), prepared: watch::Sender::new((false, false)), ..self }
    }

    /// What the operator remembers was read.
    pub(crate) fn remember(&self, remembered: Remembered) {
        let is_new = self.learn(|organization| organization.remember(remembered));
        if is_new {
            self.announce_remembered();
        }
        if let Err(message) = self.compare_organization() {
            self.set_admin_key(AdminKey::WrongOrganization(message));
        }
        // What another leader remembers may end a refusal.
        self.check.notify_one();
        self.prepared.send_modify(|(_, is_read)| *is_read = true);
    }

    /// What `auth/me` says about the current admin key.
    pub(super) fn record_answer(&self, said: Said) {
        self.learn(|organization| organization.record_answer(said));
    }

    /// Wakes the objects that waited until it was known whose keys these are.
    fn learn<T>(&self, change: impl FnOnce(&mut Organization) -> T) -> T {
        let mut organization = self.organization.lock();
        let was_blocked = organization.mints_blocked().is_some();
        let changed = change(&mut organization);
        let is_blocked = organization.mints_blocked().is_some();
        drop(organization);
        if was_blocked && !is_blocked {
            self.wake_waiting();
        }
        changed
    }

    /// What is to be remembered, once it was read.
    pub(crate) fn remembered(&self) -> Option<Remembered> {
        self.organization.lock().remembered().cloned()
    }

    /// Changes when something is to be remembered.
    pub(crate) fn remembered_changes(&self) -> watch::Receiver<u64> {
        self.remembered.subscribe()
    }

    /// The number of active keys in the newest pass that was believed.
    pub(crate) fn set_active_keys(&self, count: usize) {
        if self.organization.lock().set_active_keys(count) {
            self.announce_remembered();
        }
    }

    /// For people: what is known of the admin key now.
    pub(super) fn publish_admin_key(&self, state: AdminKeyState) {
        self.metrics.set_admin_key(&self.name, state);
        if self.organization.lock().set_admin_key(state.into()) {
            self.announce_remembered();
        }
    }

    /// For people: how far the clock is ahead of Boltz's, as its newest response says.
    pub(crate) fn publish_clock_skew(&self) {
        let skew = self.metrics.clock_skew();
        if skew.is_some_and(|seconds| self.organization.lock().set_clock_skew(seconds)) {
            self.announce_remembered();
        }
    }

    /// A person confirmed that so many keys are gone.
    pub(crate) fn confirm_missing_keys(&self, count: usize) {
        self.organization.lock().confirm_missing_keys(count);
    }

    /// A pass was believed: what was confirmed does not count for later ones.
    pub(crate) fn end_confirmation(&self) {
        if self.organization.lock().end_confirmation() {
            self.announce_remembered();
        }
    }

    /// The organization whose list a pass shows; `None` if Boltz never said it.
    pub(crate) fn organization(&self) -> Result<Option<String>, UnknownOrganization> {
        let organization = self.organization.lock();
        if organization.is_unclear() { Err(UnknownOrganization) } else { Ok(organization.current().cloned()) }
    }

    /// Another leader may have written what is remembered: it has to be read again.
    pub(crate) fn reread(&self) {
        self.organization.lock().reread();
        self.prepared.send_modify(|(_, is_read)| *is_read = false);
    }

    /// Waits until the admin key was checked once, with whatever result, and until what is remembered was read.
    pub(crate) async fn until_prepared(&self) {
        // The sender lives as long as the account.
        let _ = self.prepared.subscribe().wait_for(|(is_checked, is_read)| *is_checked && *is_read).await;
    }

    /// The admin key of another organization must not be used: the error says why.
    pub(super) fn compare_organization(&self) -> Result<(), String> {
        if self.organization.lock().compare(&self.name)? {
            self.announce_remembered();
        }
        Ok(())
    }

    fn announce_remembered(&self) {
        self.remembered.send_modify(|count| *count += 1);
    }
}

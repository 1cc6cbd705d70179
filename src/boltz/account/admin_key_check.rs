//! Checks of the admin key.

use super::{Account, AdminKey};
use crate::{
    boltz::{AuthMe, BoltzError, organization::Said},
    observability::metrics::AdminKeyState,
    plan::BoltzErrorKind,
    retry_delay,
};
use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::watch;

/// How often the admin key is checked while Boltz does not say its organization.
const UNCLEAR: Duration = Duration::from_secs(60);
/// How often it is checked whether Boltz has `auth/me`.
const LACKING: Duration = Duration::from_secs(300);

impl Account {
    /// Checks the admin key at start, whenever it changes, and while Boltz refuses it.
    pub async fn watch_admin_key(&self, mut key: watch::Receiver<Option<SecretString>>) {
        let mut refusals = 0;
        let mut is_new = false;
        loop {
            // A new key is not used until it is known whose it is. At the start, the leader waits for the first check.
            self.set_unchecked(is_new);
            let present = key.borrow_and_update().is_some();
            let checked = key.clone();
            let verdict = if present {
                self.check_admin_key().await
            } else {
                Ok(AdminKey::Refused(match self.name.name() {
                    None => {
                        "The operator has no admin key: the file of --admin-key-file is missing or empty."
                            .to_owned()
                    }
                    Some(name) => format!(
                        "BoltzAccount {name} has no admin key: the Secret of its adminKeySecretRef cannot be read, or \
                         lacks it."
                    ),
                }))
            };
            *self.checked_key.lock() = Some(checked);
            self.prepared.send_modify(|(is_checked, _)| *is_checked = true);
            let retry = match verdict {
                Ok(admin_key) => {
                    refusals = if admin_key.refusal().is_some() { refusals + 1 } else { 0 };
                    self.set_admin_key(admin_key);
                    self.set_unchecked(false);
                    let refused = (refusals > 0).then(|| retry_delay::delay(refusals, None));
                    // It may have been a gateway that did not know the path for a moment.
                    let lacks_auth_me = self.lock().lacks_auth_me;
                    refused
                        .or_else(|| self.is_organization_unclear().then_some(UNCLEAR))
                        .or_else(|| lacks_auth_me.then_some(LACKING))
                }
                // Not known whether the key is valid. Other calls will show it.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "failed to check the admin key");
                    if self.lock().admin_key.refusal().is_none() {
                        self.publish_admin_key(AdminKeyState::Unreachable);
                    }
                    if is_new {
                        self.record_answer(Said::Nothing);
                    }
                    self.set_unchecked(false);
                    Some(retry_delay::delay(5, error.retry_after()))
                }
            };
            let again = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => {
                        self.check.notified().await;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            is_new = tokio::select! {
                () = again => false,
                changed = key.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
        }
    }

    /// The admin key has changed since it was checked last.
    pub(super) fn is_admin_key_new(&self) -> bool {
        self.checked_key.lock().as_ref().is_some_and(|key| key.has_changed().unwrap_or_default())
    }

    fn set_unchecked(&self, is_unchecked: bool) {
        let was_unchecked = std::mem::replace(&mut self.lock().is_unchecked, is_unchecked);
        if was_unchecked && !is_unchecked {
            self.wake_waiting();
        }
    }

    /// Whether it would help to ask again whose key it is.
    fn is_organization_unclear(&self) -> bool {
        self.organization.lock().is_unclear()
    }

    pub(crate) fn wake_waiting(&self) {
        self.recovered.send_modify(|count| *count += 1);
        self.queued.send_modify(|count| *count += 1);
    }

    /// `Err`: the check failed, so the result is unknown.
    async fn check_admin_key(&self) -> Result<AdminKey, BoltzError> {
        let answer = match self.client.auth_me().await {
            Ok(Some(me)) => return Ok(self.hear(me)),
            // A server without auth/me: only an admin key may list the keys.
            Ok(None) => {
                self.lock().lacks_auth_me = true;
                self.record_answer(Said::NoOrganization);
                self.client.list_keys(None, None).await.map(|_| AdminKey::Usable)
            }
            Err(error) => Err(error),
        };
        match answer {
            Err(error) if error.kind() == BoltzErrorKind::Unauthorized => {
                Ok(AdminKey::Refused(format!("Boltz rejected the operator's admin key: {error}.")))
            }
            other => other,
        }
    }

    /// What `auth/me` says about the admin key.
    fn hear(&self, me: AuthMe) -> AdminKey {
        self.lock().lacks_auth_me = false;
        let verdict = judge(&me);
        self.note_admin_key_id(me.api_key_id);
        self.record_answer(me.organization_id.into());
        match self.compare_organization() {
            Err(message) => AdminKey::WrongOrganization(message),
            Ok(()) => verdict,
        }
    }

    /// Asks whose the admin key is: its organization may change. A failure changes nothing.
    pub(crate) async fn ask_organization(&self) {
        if self.lock().lacks_auth_me {
            return;
        }
        let key = self.client.admin_key_changes();
        match self.client.auth_me().await {
            // A new key is checked by itself.
            Ok(Some(me)) if !key.has_changed().unwrap_or_default() => {
                let verdict = self.hear(me);
                let is_refused = verdict.refusal().is_some();
                self.set_admin_key(verdict);
                if is_refused {
                    // No other call follows that could show that it is over.
                    self.check.notify_one();
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "failed to ask for the organization"
                );
            }
        }
    }

    pub(super) fn set_admin_key(&self, admin_key: AdminKey) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.admin_key, admin_key.clone());
        drop(state);
        self.publish_admin_key(admin_key.state());
        if before == admin_key {
            return;
        }
        match &admin_key {
            AdminKey::Usable => tracing::info!("Boltz accepted the admin key"),
            AdminKey::TestMode => {
                tracing::warn!("the admin key is a test-mode key; no live keys can be created");
            }
            AdminKey::Refused(message) | AdminKey::WrongOrganization(message) => {
                tracing::error!(
                    "{message} No keys are issued or revoked until a valid admin key is provided."
                )
            }
        }
        self.wake_waiting();
    }
}

pub(super) fn judge(me: &AuthMe) -> AdminKey {
    // A type that this release does not know may be one that can create keys: then creates show it.
    if me.key_type == "workspace" {
        AdminKey::Refused(format!(
            "The operator's admin key is a key of type {}. Only a key of type admin can create and revoke keys.",
            me.key_type
        ))
    } else if me.mode.as_deref() == Some("test") {
        AdminKey::TestMode
    } else {
        AdminKey::Usable
    }
}

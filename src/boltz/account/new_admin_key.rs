//! A new admin key: it is used once Boltz says that it belongs to the same organization. Until then the one before stays.

use super::{Account, AdminKey, admin_key_check::judge};
use crate::{
    boltz::{AuthMe, admin_key::is_same},
    plan::BoltzErrorKind,
    retry_delay,
};
use secrecy::SecretString;
use tokio::sync::watch;

/// Failures after which the wait before another try is the longest.
const SELDOM: u32 = 7;

impl Account {
    /// Uses the keys that the file offers, each once it is proved. Does not end.
    pub async fn take_new_admin_keys(
        &self,
        mut offered: watch::Receiver<Option<SecretString>>,
        used: watch::Sender<Option<SecretString>>,
    ) {
        let (mut recovered, mut prepared) = (self.recovered.subscribe(), self.prepared.subscribe());
        let mut told = None;
        let mut failures = 0;
        loop {
            recovered.mark_unchanged();
            prepared.mark_unchanged();
            let key = offered.borrow_and_update().clone();
            let is_known = is_same(key.as_ref(), used.borrow().as_ref());
            let doubt = if is_known { Ok(()) } else { self.doubt(key.as_ref()).await };
            let is_waiting = match doubt {
                Ok(()) => {
                    if !is_known {
                        tracing::info!(is_missing = key.is_none(), "took the admin key of the file");
                        used.send_replace(key);
                    }
                    (told, failures) = (None, 0);
                    false
                }
                Err(doubt) => {
                    if let Some(doubt) = doubt.filter(|doubt| told.as_ref() != Some(doubt)) {
                        tracing::error!(
                            "the new admin key is not used, because {doubt}; the operator goes on with the key before"
                        );
                        told = Some(doubt);
                    }
                    failures = (failures + 1).min(SELDOM);
                    true
                }
            };
            self.metrics.set_new_admin_key_unproved(self.name(), told.is_some());
            let again = async {
                if is_waiting {
                    tokio::time::sleep(retry_delay::delay(failures, None)).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = again => {}
                // The key before is refused now, or what is remembered was read.
                _ = recovered.changed() => {}
                _ = prepared.changed() => {}
                changed = offered.changed() => match changed {
                    Ok(()) => failures = 0,
                    Err(_) => return,
                },
            }
        }
    }

    /// Why the key must not replace the one in use. `None`: this process does not lead, so it does not know yet.
    async fn doubt(&self, key: Option<&SecretString>) -> Result<(), Option<String>> {
        // A key that was taken away is not used any more, and one that Boltz refuses is not worth keeping.
        let Some(key) = key.filter(|_| self.lock().admin_key.refusal().is_none()) else { return Ok(()) };
        if self.client().has_no_admin_key() {
            return Ok(());
        }
        if self.remembered().is_none() {
            return Err(None);
        }
        match self.client().auth_me_with(key).await {
            Ok(me) => self.doubt_of(me.as_ref()).map_err(Some),
            Err(error) if error.kind() == BoltzErrorKind::Unauthorized => {
                Err(Some(format!("Boltz rejects it: {error}")))
            }
            Err(error) => Err(Some(format!("it could not be checked: {error}"))),
        }
    }

    /// The same, from what Boltz says of the key. `None`: Boltz has no `auth/me`.
    fn doubt_of(&self, me: Option<&AuthMe>) -> Result<(), String> {
        if let Some(AdminKey::Refused(_)) = me.map(judge) {
            return Err("it is not an admin key".to_owned());
        }
        self.organization.lock().takes(me.and_then(|me| me.organization_id.as_ref()))
    }
}

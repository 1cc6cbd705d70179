//! When the admin key expires. Boltz says it in its list only: `auth/me` gives the id of the key, and the list its expiry.

use super::Account;
use crate::boltz::KeyDetails;
use jiff::{SignedDuration, Timestamp};

/// So long before, the log begins to warn. The alert fires a week before.
const EARLY: SignedDuration = SignedDuration::from_hours(14 * 24);
/// The log warns once in this time.
const SELDOM: SignedDuration = SignedDuration::from_hours(24);

/// What is known of the expiry of the admin key.
#[derive(Debug, Default)]
pub(super) struct AdminKeyExpiry {
    /// The id of the key, if Boltz says it.
    id: Option<String>,
    expires_at: Option<Timestamp>,
    warned_at: Option<Timestamp>,
}

impl AdminKeyExpiry {
    /// Whether the log is to warn now.
    fn warns(&mut self, expires_at: Timestamp, now: Timestamp) -> bool {
        let is_near = expires_at.duration_since(now) < EARLY;
        let is_told = self.warned_at.is_some_and(|at| now.duration_since(at).abs() < SELDOM);
        if is_near && !is_told {
            self.warned_at = Some(now);
        }
        is_near && !is_told
    }
}

impl Account {
    /// When the admin key expires, if Boltz's list says it.
    pub(super) fn admin_key_expires_at(&self) -> Option<Timestamp> {
        self.admin_key_expiry.lock().expires_at
    }

    /// What `auth/me` says of the admin key in use.
    pub(super) fn note_admin_key_id(&self, id: Option<String>) {
        let mut known = self.admin_key_expiry.lock();
        if known.id != id {
            *known = AdminKeyExpiry { id, ..AdminKeyExpiry::default() };
            self.metrics.set_admin_key_expiry(self.name(), None);
        }
    }

    /// The admin key may be among these rows of Boltz's list.
    pub(crate) fn look_for_admin_key(&self, rows: &[KeyDetails], now: Timestamp) {
        let mut known = self.admin_key_expiry.lock();
        let Some(row) = rows.iter().find(|row| known.id.as_ref() == Some(&row.id)) else { return };
        self.metrics.set_admin_key_expiry(self.name(), row.expires_at);
        known.expires_at = row.expires_at;
        let Some(expires_at) = row.expires_at.filter(|expires_at| known.warns(*expires_at, now)) else {
            return;
        };
        tracing::warn!(
            key_id = row.id,
            %expires_at,
            "the admin key expires soon; put a new one of the same organization into its place"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_warns_once_a_day_when_the_expiry_is_near_or_past() {
        let mut known = AdminKeyExpiry::default();
        let at = |hours: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let expiry = at(15 * 24);
        for (hours, warns) in [(0, false), (23, false), (25, true), (48, false), (50, true), (400, true)] {
            assert_eq!(known.warns(expiry, at(hours)), warns, "{hours}");
        }
    }
}

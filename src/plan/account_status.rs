//! What the status of a `BoltzAccount` says, and when it may go. Pure.

use super::{facts::Doubt, status::whole_seconds};
use crate::api::{AccountKeyCounts, AccountOrphan, BoltzAccountStatus, MAX_LISTED_ORPHANS};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;

/// The list is old when it is older than two intervals and this.
const LATE: Duration = Duration::from_secs(60);

/// What is known of an admin key.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AdminKeyReport {
    /// It was not checked yet.
    #[default]
    Unchecked,
    /// Boltz accepts it.
    Valid,
    /// It can create keys in test mode only.
    TestMode,
    /// Boltz does not answer when it is to be checked.
    Unreachable,
    /// It cannot be used, and why.
    Refused(String),
    /// It is one of another organization.
    OtherOrganization(String),
}

/// The newest pass over the list of an account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassReport {
    /// How long ago it began.
    pub age: Duration,
    /// What it does not prove.
    pub doubt: Doubt,
    /// How many active keys of this cluster it shows.
    pub active: usize,
    /// It began so late that it shows every key that was requested before the deletion of the account began.
    pub shows_all: bool,
}

/// Everything that is known of a `BoltzAccount`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountState {
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// It has a deletionTimestamp.
    pub is_deleting: bool,
    /// Why it is not served: reason and message.
    pub unserved: Option<(&'static str, String)>,
    /// What Boltz says of the admin key.
    pub admin_key: AdminKeyReport,
    /// The first characters of the admin key.
    pub admin_key_prefix: Option<String>,
    /// When it expires, if Boltz says it.
    pub admin_key_expires_at: Option<Timestamp>,
    /// The organization of the admin key.
    pub organization: Option<String>,
    /// The newest pass.
    pub pass: Option<PassReport>,
    /// How often there is to be one.
    pub interval: Duration,
    /// Why there is none.
    pub list_failing: Option<String>,
    /// Boltz changes the names of keys.
    pub names_altered: Option<String>,
    /// The active keys.
    pub keys: Option<AccountKeyCounts>,
    /// The oldest orphans. `None`: they are not known yet.
    pub orphans: Option<Vec<AccountOrphan>>,
    /// How many objects use it.
    pub objects: usize,
    /// The other accounts of the same organization.
    pub same_organization: Vec<String>,
    /// It may have keys: Boltz accepted its admin key at some time, or that is not known.
    pub may_have_keys: bool,
}

impl AccountState {
    /// Whether the account may go; the error says what it waits for. Its keys could not be revoked after that.
    pub fn may_go(&self) -> Result<(), String> {
        if self.objects > 0 {
            return Err(format!("{} BoltzApiKeys use this account. Delete them first.", self.objects));
        }
        if !self.may_have_keys {
            return Ok(());
        }
        match self.pass {
            Some(pass) if pass.shows_all && pass.doubt == Doubt::None && pass.active == 0 => Ok(()),
            Some(pass) if pass.active > 0 => Err(format!(
                "Boltz lists {} active keys with this cluster's name that no object of another account refers to. If they \
                 are not needed, revoke them: kubectl boltz orphans.",
                pass.active
            )),
            _ => Err("Boltz's list has to show that no key of this account is left.".to_owned()),
        }
    }

    /// The status that this asks for.
    pub fn status(&self, old: &BoltzAccountStatus, now: Timestamp) -> BoltzAccountStatus {
        let condition = |kind: &str, (status, reason, message): (&str, &str, String)| {
            let before = old.conditions.iter().find(|known| known.type_ == kind && known.status == status);
            let since = before.map_or(whole_seconds(now), |known| known.last_transition_time.0);
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: self.generation,
                last_transition_time: Time(since),
            }
        };
        let mut orphans = self.orphans.clone().unwrap_or_else(|| old.orphans.clone());
        orphans.truncate(MAX_LISTED_ORPHANS);
        let orphans = orphans.into_iter().map(in_whole_seconds).collect();
        BoltzAccountStatus {
            observed_generation: self.generation,
            conditions: vec![
                condition("Ready", self.ready()),
                condition("AdminKeyValid", self.admin_key_valid()),
                condition("InventoryCurrent", self.inventory_current()),
                condition("Suspect", self.suspect()),
            ],
            organization_id: self.organization.clone().or_else(|| old.organization_id.clone()),
            admin_key_prefix: self.admin_key_prefix.clone(),
            admin_key_expires_at: self.admin_key_expires_at.map(|at| Time(whole_seconds(at))),
            keys: self.keys.map(|keys| self.with_known_orphans(keys, old)).or(old.keys),
            orphans,
        }
    }

    /// Until the orphans are known, it is as many as before.
    fn with_known_orphans(&self, keys: AccountKeyCounts, old: &BoltzAccountStatus) -> AccountKeyCounts {
        let before = old.keys.filter(|_| self.orphans.is_none());
        let orphaned = before.map_or(keys.orphaned, |before| before.orphaned);
        AccountKeyCounts { orphaned, ..keys }
    }

    fn ready(&self) -> (&'static str, &'static str, String) {
        if self.is_deleting {
            let message = self.may_go().err().unwrap_or_default();
            return ("False", "Deleting", format!("No key is issued. {message}"));
        }
        if let Some((reason, message)) = &self.unserved {
            return ("False", reason, message.clone());
        }
        match &self.admin_key {
            AdminKeyReport::Unchecked => ("False", "Pending", "The admin key is being checked.".to_owned()),
            AdminKeyReport::Refused(message) => ("False", "AdminKeyRefused", message.clone()),
            AdminKeyReport::OtherOrganization(message) => ("False", "OtherOrganization", message.clone()),
            AdminKeyReport::Unreachable => (
                "False",
                "BoltzUnavailable",
                "Boltz does not answer when the admin key is checked.".to_owned(),
            ),
            AdminKeyReport::Valid | AdminKeyReport::TestMode => {
                match (&self.names_altered, self.inventory_current()) {
                    (Some(message), _) => ("False", "NamesAltered", message.clone()),
                    (None, ("True", ..)) => ("True", "Ready", self.ready_message()),
                    (None, (_, reason, message)) => ("False", reason, message),
                }
            }
        }
    }

    fn ready_message(&self) -> String {
        let usual = "Keys can be issued and revoked.";
        match self.same_organization.as_slice() {
            [] => usual.to_owned(),
            others => format!(
                "{usual} Of the same Boltz organization: {}. Each of them lists the keys of all, and its limits are its own. \
                 One account is enough for an organization.",
                others.join(", ")
            ),
        }
    }

    fn admin_key_valid(&self) -> (&'static str, &'static str, String) {
        match &self.admin_key {
            AdminKeyReport::Unchecked => {
                ("Unknown", "Pending", "The admin key was not checked yet.".to_owned())
            }
            AdminKeyReport::Valid => ("True", "Valid", "Boltz accepts the admin key.".to_owned()),
            AdminKeyReport::TestMode => {
                ("True", "TestMode", "The admin key can create keys in test mode only.".to_owned())
            }
            AdminKeyReport::Unreachable => (
                "Unknown",
                "BoltzUnavailable",
                "Boltz does not answer when the admin key is checked.".to_owned(),
            ),
            AdminKeyReport::Refused(message) => ("False", "AdminKeyRefused", message.clone()),
            AdminKeyReport::OtherOrganization(message) => ("False", "OtherOrganization", message.clone()),
        }
    }

    fn inventory_current(&self) -> (&'static str, &'static str, String) {
        let is_current = |pass: PassReport| pass.age <= 2 * self.interval + LATE;
        match (self.pass, &self.list_failing) {
            (_, Some(message)) => ("False", "ListFailing", message.clone()),
            (Some(pass), None) if is_current(pass) => {
                ("True", "Read", "Boltz's list of keys was read.".to_owned())
            }
            (Some(_), None) => ("False", "Old", "Boltz's list of keys was not read for long.".to_owned()),
            (None, None) => ("Unknown", "Pending", "Boltz's list of keys was not read yet.".to_owned()),
        }
    }

    fn suspect(&self) -> (&'static str, &'static str, String) {
        match (&self.names_altered, self.pass.map(|pass| pass.doubt)) {
            (Some(message), _) => ("True", "NamesAltered", message.clone()),
            (None, Some(Doubt::All | Doubt::Many)) => (
                "True",
                "KeysMissing",
                "Boltz's list lacks keys that it showed before. Their absence is not believed.".to_owned(),
            ),
            (None, Some(Doubt::None)) => ("False", "Consistent", String::new()),
            (None, None) => ("Unknown", "Pending", "Boltz's list of keys was not read yet.".to_owned()),
        }
    }
}

/// As Kubernetes writes times. Others would differ from what was written whenever they are compared.
fn in_whole_seconds(mut orphan: AccountOrphan) -> AccountOrphan {
    let times = [Some(&mut orphan.orphaned_since), orphan.created_at.as_mut(), orphan.last_used_at.as_mut()];
    times.into_iter().flatten().for_each(|time| time.0 = whole_seconds(time.0));
    orphan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(active: usize, doubt: Doubt, shows_all: bool) -> Option<PassReport> {
        Some(PassReport { age: Duration::ZERO, doubt, active, shows_all })
    }

    #[test]
    fn an_account_goes_only_when_no_key_of_it_is_left() {
        let state = |objects, may_have_keys, pass| AccountState {
            objects,
            may_have_keys,
            pass,
            ..AccountState::default()
        };
        for (state, may_go) in [
            (state(0, false, None), true),
            (state(1, false, None), false),
            (state(0, true, None), false),
            (state(0, true, pass(0, Doubt::None, true)), true),
            (state(0, true, pass(0, Doubt::None, false)), false),
            (state(0, true, pass(0, Doubt::Many, true)), false),
            (state(0, true, pass(0, Doubt::All, true)), false),
            (state(0, true, pass(1, Doubt::None, true)), false),
            (state(1, true, pass(0, Doubt::None, true)), false),
        ] {
            assert_eq!(state.may_go().is_ok(), may_go, "{state:?}");
        }
    }

    #[test]
    fn ready_says_the_first_thing_that_is_in_the_way() {
        let interval = Duration::from_secs(600);
        let good = AccountState {
            admin_key: AdminKeyReport::Valid,
            pass: pass(3, Doubt::None, true),
            interval,
            ..AccountState::default()
        };
        let old = PassReport { age: 3 * interval, ..good.pass.unwrap() };
        let refused = AdminKeyReport::Refused("why".to_owned());
        for (state, status, reason) in [
            (good.clone(), "True", "Ready"),
            (AccountState { is_deleting: true, ..good.clone() }, "False", "Deleting"),
            (
                AccountState { unserved: Some(("InvalidSpec", "why".to_owned())), ..good.clone() },
                "False",
                "InvalidSpec",
            ),
            (AccountState { admin_key: AdminKeyReport::Unchecked, ..good.clone() }, "False", "Pending"),
            (AccountState { admin_key: refused, ..good.clone() }, "False", "AdminKeyRefused"),
            (AccountState { pass: None, ..good.clone() }, "False", "Pending"),
            (AccountState { pass: Some(old), ..good.clone() }, "False", "Old"),
            (AccountState { names_altered: Some("why".to_owned()), ..good.clone() }, "False", "NamesAltered"),
            (AccountState { list_failing: Some("why".to_owned()), ..good.clone() }, "False", "ListFailing"),
            (AccountState { pass: pass(3, Doubt::Many, true), ..good }, "True", "Ready"),
        ] {
            let status_of = state.status(&BoltzAccountStatus::default(), Timestamp::UNIX_EPOCH);
            let ready = &status_of.conditions[0];
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), (status, reason), "{state:?}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let state = AccountState { interval: Duration::from_secs(1), ..AccountState::default() };
        let first = state.status(&BoltzAccountStatus::default(), Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(90).unwrap();
        assert_eq!(state.status(&first, later), first);
        let valid = AccountState { admin_key: AdminKeyReport::Valid, ..state };
        let times = valid.status(&first, later).conditions;
        let times: Vec<i64> = times.iter().map(|it| it.last_transition_time.0.as_second()).collect();
        assert_eq!(times, [0, 90, 0, 0]);
    }
}

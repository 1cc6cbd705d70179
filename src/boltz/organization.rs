//! Whether the admin key belongs to the organization that the operator remembers.

use super::account_data::Remembered;
use crate::protocol::account_name::AccountName;

/// The number of active keys is written again when it differs by more than this share.
const COARSENESS: usize = 20;

/// A difference of clocks is written again when it differs by more seconds.
const CLOCK_COARSENESS: u64 = 60;

/// The organization, as remembered and as Boltz says it.
#[derive(Debug)]
pub(super) struct Organization {
    /// `None`: not read yet.
    remembered: Option<Remembered>,
    /// `--accept-organization`.
    accepted: Option<String>,
    /// `--retry-altered-names`.
    retry_altered_names: bool,
    /// Boltz altered a name before what is remembered was read.
    names_altered: Option<String>,
    /// What is known of the admin key, for people.
    admin_key: Option<&'static str>,
    /// What `auth/me` said last about the current admin key.
    said: Said,
}

/// What is known of the organization of the admin key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Said {
    /// `auth/me` did not answer yet.
    #[default]
    Nothing,
    /// Its answer names no organization, or Boltz has no `auth/me`.
    NoOrganization,
    /// Boltz named it.
    Organization(String),
}

impl From<Option<String>> for Said {
    fn from(organization: Option<String>) -> Self {
        organization.map_or(Self::NoOrganization, Self::Organization)
    }
}

impl Default for Organization {
    /// Remembers nothing, and does not wait for anything.
    fn default() -> Self {
        Self { remembered: Some(Remembered::default()), ..Self::unread(None, false) }
    }
}

impl Organization {
    /// What is remembered has to be read first: see [`Organization::remember`].
    pub(super) fn unread(accepted: Option<String>, retry_altered_names: bool) -> Self {
        Self {
            remembered: None,
            accepted,
            retry_altered_names,
            names_altered: None,
            admin_key: None,
            said: Said::Nothing,
        }
    }

    /// What is remembered was read. Returns whether something is to be written.
    pub(super) fn remember(&mut self, mut remembered: Remembered) -> bool {
        let mut is_new = remembered.names_altered.take_if(|_| self.retry_altered_names).is_some();
        if let Some(message) = self.names_altered.take() {
            remembered.names_altered = Some(message);
            is_new = true;
        }
        self.remembered = Some(remembered);
        is_new | self.admin_key.is_some_and(|state| self.set_admin_key(state))
    }

    /// It is to be read again.
    pub(super) fn reread(&mut self) {
        self.remembered = None;
    }

    pub(super) fn remembered(&self) -> Option<&Remembered> {
        self.remembered.as_ref()
    }

    /// Call with each answer to `auth/me`, and when a new admin key could not be checked.
    pub(super) fn record_answer(&mut self, said: Said) {
        self.said = said;
    }

    /// The organization of the admin key, if Boltz says it.
    pub(super) fn current(&self) -> Option<&String> {
        match &self.said {
            Said::Organization(organization) => Some(organization),
            Said::Nothing | Said::NoOrganization => None,
        }
    }

    /// Whether somebody accepted the organization of the admin key in place of another one. Otherwise it is the first one
    /// that is remembered: objects whose records name another one are not moved to it.
    pub(super) fn is_accepted(&self) -> bool {
        let remembered = self.remembered.as_ref().and_then(|remembered| remembered.accepted.as_ref());
        let current = self.current();
        current.is_some() && (current == self.accepted.as_ref() || current == remembered)
    }

    /// Why no key may be created: it could land in an organization that is not that of the other keys.
    pub(super) fn mints_blocked(&self) -> Option<&'static str> {
        match &self.remembered {
            None => Some(
                "The operator cannot read the ConfigMap in which it remembers its Boltz organization (<lease \
                 name>-account). No keys are issued until it can, because they could belong to another organization. The \
                 log says why. The operator needs the permissions get, create and patch on this ConfigMap.",
            ),
            Some(remembered) if remembered.organization.is_some() && self.said == Said::Nothing => Some(
                "Boltz did not say which organization the operator's admin key belongs to: its auth/me fails. No keys are \
                 issued until it answers, because they could belong to another organization.",
            ),
            Some(_) => None,
        }
    }

    /// Compares the organization of the admin key with the remembered one, and remembers the first one. The error is the
    /// message for conditions. Returns whether something is to be written.
    pub(super) fn compare(&mut self, account: &AccountName) -> Result<bool, String> {
        let (Some(remembered), Said::Organization(said)) = (&mut self.remembered, &self.said) else {
            return Ok(false);
        };
        let is_accepted = self.accepted.as_ref() == Some(said);
        let is_accepted_anew = is_accepted && remembered.accepted.as_ref() != Some(said);
        if is_accepted_anew {
            remembered.accepted = Some(said.clone());
        }
        match &remembered.organization {
            Some(expected) if expected == said => Ok(is_accepted_anew),
            Some(expected) if !is_accepted => {
                let whose = if account.is_of_flags() { "this operator" } else { "this account" };
                let way = account.way_to(said);
                Err(format!(
                    "The operator's admin key belongs to the Boltz organization {said}. The keys of {whose} belong to \
                     {expected}. No keys are issued or revoked. Provide an admin key of {expected}. {way}"
                ))
            }
            _ => {
                remembered.organization = Some(said.clone());
                // The list of another organization lacks all keys of this one.
                remembered.active_keys = 0;
                Ok(true)
            }
        }
    }

    /// Whether an admin key of this organization may replace the one in use. The error says why not.
    pub(super) fn takes(&self, said: Option<&String>) -> Result<(), String> {
        let Some(remembered) = &self.remembered else {
            return Err("it is not known yet to which organization the keys belong".to_owned());
        };
        match (&remembered.organization, said) {
            (None, _) => Ok(()),
            (Some(expected), Some(said)) if said == expected || self.accepted.as_ref() == Some(said) => {
                Ok(())
            }
            (Some(expected), Some(said)) => {
                Err(format!("it belongs to the Boltz organization {said}, and the keys belong to {expected}"))
            }
            (Some(expected), None) => {
                Err(format!("Boltz does not say whether it belongs to the organization {expected}"))
            }
        }
    }

    /// Whether it is unknown if Boltz's list is the list of this organization: then it proves no absence.
    pub(super) fn is_unclear(&self) -> bool {
        self.remembered
            .as_ref()
            .is_none_or(|remembered| remembered.organization.is_some() && self.current().is_none())
    }

    /// Remembers how many active keys there are. Returns whether the difference is worth a write.
    pub(super) fn set_active_keys(&mut self, count: usize) -> bool {
        let Some(remembered) = &mut self.remembered else { return false };
        let before = remembered.active_keys;
        let is_new = before.abs_diff(count) > before / COARSENESS;
        if is_new {
            remembered.active_keys = count;
        }
        is_new
    }

    /// What is known of the admin key now. Returns whether something is to be written.
    pub(super) fn set_admin_key(&mut self, state: &'static str) -> bool {
        self.admin_key = Some(state);
        let known = self.remembered.as_mut().map(|remembered| &mut remembered.admin_key);
        known.is_some_and(|known| known.replace(state.to_owned()).as_deref() != Some(state))
    }

    /// Returns whether the difference is worth a write.
    pub(super) fn set_clock_skew(&mut self, seconds: i64) -> bool {
        let Some(remembered) = &mut self.remembered else { return false };
        let is_new = remembered.clock_skew_seconds.abs_diff(seconds) > CLOCK_COARSENESS;
        if is_new {
            remembered.clock_skew_seconds = seconds;
        }
        is_new
    }

    /// A person confirmed that so many keys are gone.
    pub(super) fn confirm_missing_keys(&mut self, count: usize) {
        if let Some(remembered) = &mut self.remembered {
            remembered.confirmed_missing_keys = count;
        }
    }

    /// A pass was believed: what was confirmed does not count for later ones. Returns whether something is to be written.
    pub(super) fn end_confirmation(&mut self) -> bool {
        let confirmed = self.remembered.as_mut().map(|remembered| &mut remembered.confirmed_missing_keys);
        confirmed.is_some_and(|count| std::mem::take(count) > 0)
    }

    /// Boltz alters names. Contains the message for conditions.
    pub(super) fn set_names_altered(&mut self, message: String) {
        match &mut self.remembered {
            Some(remembered) => remembered.names_altered = Some(message),
            None => self.names_altered = Some(message),
        }
    }

    /// Why no key may be created, if Boltz alters names.
    pub(super) fn names_altered(&self) -> Option<&String> {
        let remembered = self.remembered.as_ref().and_then(|remembered| remembered.names_altered.as_ref());
        remembered.or(self.names_altered.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{boltz::cluster_names::ClusterNames, protocol::marker::MarkerFormat};
    use std::collections::BTreeMap;

    fn organization(remembered: Option<&str>, accepted: Option<&str>, said: Option<&str>) -> Organization {
        let mut organization = Organization::unread(accepted.map(str::to_owned), false);
        organization
            .remember(Remembered { organization: remembered.map(str::to_owned), ..Remembered::default() });
        organization.record_answer(said.map(str::to_owned).into());
        organization
    }

    #[test]
    fn what_is_written_for_people_is_written_when_it_changes() {
        let mut unread = Organization::unread(None, false);
        assert!(!unread.set_admin_key("refused"), "what is remembered has to be read first");
        assert!(!unread.set_clock_skew(100));
        assert!(unread.remember(Remembered::default()));
        assert_eq!(unread.remembered().unwrap().admin_key.as_deref(), Some("refused"));
        for (state, is_new) in [("refused", false), ("valid", true), ("valid", false)] {
            assert_eq!(unread.set_admin_key(state), is_new, "{state}");
        }
        for (seconds, is_new) in [(60, false), (61, true), (121, false), (0, true), (-60, false), (-61, true)]
        {
            assert_eq!(unread.set_clock_skew(seconds), is_new, "{seconds}");
        }
    }

    #[test]
    fn no_key_is_created_in_an_organization_that_nobody_knows() {
        let said = |name: &str| Said::Organization(name.to_owned());
        for (remembered, says, is_blocked) in [
            (None, Said::Nothing, true),
            (None, Said::NoOrganization, true),
            (None, said("b"), true),
            (Some(None), Said::Nothing, false),
            (Some(None), Said::NoOrganization, false),
            (Some(None), said("b"), false),
            (Some(Some("a")), Said::Nothing, true),
            (Some(Some("a")), Said::NoOrganization, false),
            (Some(Some("a")), said("a"), false),
        ] {
            let mut organization = Organization::unread(None, false);
            if let Some(remembered) = remembered {
                let remembered: Option<&str> = remembered;
                organization.remember(Remembered {
                    organization: remembered.map(str::to_owned),
                    ..Remembered::default()
                });
            }
            organization.record_answer(says.clone());
            assert_eq!(organization.mints_blocked().is_some(), is_blocked, "{remembered:?}, {says:?}");
        }
    }

    /// If the ConfigMap is deleted, the first organization is trusted. That moves no object to it, also later.
    #[test]
    fn only_an_accepted_organization_takes_over_the_objects_of_another() {
        let some = |name: &str| Some(name.to_owned());
        for (remembered, flag, said, is_accepted) in [
            ((None, None), None, "b", false),
            ((some("b"), None), None, "b", false),
            ((some("b"), some("b")), None, "b", true),
            ((some("a"), some("a")), Some("b"), "b", true),
            ((some("a"), None), Some("b"), "b", true),
            ((None, None), Some("b"), "b", true),
            ((some("b"), some("a")), None, "b", false),
        ] {
            let mut organization = Organization::unread(flag.map(str::to_owned), false);
            let (name, accepted) = remembered.clone();
            organization.remember(Remembered { organization: name, accepted, ..Remembered::default() });
            organization.record_answer(Said::Organization(said.to_owned()));
            organization.compare(&AccountName::OF_FLAGS).unwrap();
            assert_eq!(organization.is_accepted(), is_accepted, "{remembered:?}, {flag:?}, {said}");
            // The same after a restart without the flag.
            let data = organization.remembered().unwrap().to_data(&names());
            let mut next = Organization::unread(None, false);
            next.remember(Remembered::from_data(&data, &names()));
            next.record_answer(Said::Organization(said.to_owned()));
            assert_eq!(next.compare(&AccountName::OF_FLAGS), Ok(false));
            assert_eq!(next.is_accepted(), is_accepted, "{remembered:?}, {flag:?}, {said}, after a restart");
        }
        let of_an_earlier_release = BTreeMap::from([("a.organization".to_owned(), "b".to_owned())]);
        assert_eq!(Remembered::from_data(&of_an_earlier_release, &names()).accepted, some("b"));
    }

    fn names() -> ClusterNames {
        ClusterNames::named("a".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    #[test]
    fn only_an_accepted_organization_replaces_another() {
        for (remembered, accepted, said, changes, then) in [
            (None, None, Some("a"), Ok(true), Some("a")),
            (Some("a"), None, Some("a"), Ok(false), Some("a")),
            (Some("a"), None, Some("b"), Err(()), Some("a")),
            (Some("a"), Some("c"), Some("b"), Err(()), Some("a")),
            (Some("a"), Some("b"), Some("b"), Ok(true), Some("b")),
            (Some("a"), Some("b"), Some("a"), Ok(false), Some("a")),
            (Some("a"), None, None, Ok(false), Some("a")),
            (None, None, None, Ok(false), None),
        ] {
            let mut organization = organization(remembered, accepted, said);
            let what = format!("{remembered:?}, {accepted:?}, {said:?}");
            assert_eq!(organization.compare(&AccountName::OF_FLAGS).map_err(|_| ()), changes, "{what}");
            assert_eq!(organization.remembered().unwrap().organization.as_deref(), then, "{what}");
        }
        for (account, way) in [
            (AccountName::OF_FLAGS, "--accept-organization=b"),
            (AccountName::named("x"), "create another BoltzAccount"),
        ] {
            let message = organization(Some("a"), None, Some("b")).compare(&account).unwrap_err();
            assert!(message.contains(way), "{message}");
        }
    }

    #[test]
    fn only_an_admin_key_of_the_same_organization_replaces_another() {
        let takes = |remembered, accepted, said: Option<&str>| {
            let said = said.map(str::to_owned);
            organization(remembered, accepted, None).takes(said.as_ref()).is_ok()
        };
        assert!(takes(None, None, Some("b")) && takes(None, None, None));
        assert!(takes(Some("a"), None, Some("a")) && takes(Some("a"), Some("b"), Some("b")));
        assert!(!takes(Some("a"), None, Some("b")) && !takes(Some("a"), None, None));
        assert!(Organization::unread(None, false).takes(None).is_err());
    }

    #[test]
    fn without_knowledge_nothing_is_absent() {
        assert!(Organization::unread(None, false).is_unclear());
        assert!(!Organization::default().is_unclear());
        for (remembered, said, unclear) in [
            (None, None, false),
            (None, Some("a"), false),
            (Some("a"), None, true),
            (Some("a"), Some("a"), false),
        ] {
            assert_eq!(
                organization(remembered, None, said).is_unclear(),
                unclear,
                "{remembered:?}, {said:?}"
            );
        }
    }

    #[test]
    fn small_differences_are_not_written() {
        let mut organization = Organization::default();
        for (count, is_written) in
            [(0, false), (1, true), (2, true), (100, true), (104, false), (95, false), (90, true)]
        {
            assert_eq!(organization.set_active_keys(count), is_written, "{count}");
        }
        assert!(organization.set_active_keys(0));
    }

    #[test]
    fn altered_names_are_remembered_until_a_retry() {
        let remembered = || Remembered { names_altered: Some("why".to_owned()), ..Remembered::default() };
        for (retry, forgets) in [(false, false), (true, true)] {
            let mut organization = Organization::unread(None, retry);
            assert_eq!(organization.remember(remembered()), forgets);
            assert_eq!(organization.remembered().unwrap().names_altered.is_none(), forgets);
        }
    }
}

//! What the operator remembers about its Boltz organization, also after a restart: the data of the ConfigMap `<lease
//! name>-account`.

use super::cluster_names::ClusterNames;
use crate::protocol::{account_name::AccountName, marker::ClusterName};
use std::collections::BTreeMap;

// Keys of the ConfigMap, after the name of the cluster: several installations may share it.

/// Its value is the id of the organization.
pub const ORGANIZATION: &str = "organization";
const ACCEPTED_ORGANIZATION: &str = "acceptedOrganization";
const ACTIVE_KEYS: &str = "activeKeys";
/// Its value is the message for people; empty: Boltz does not change names.
pub const NAMES_ALTERED: &str = "namesAltered";
/// Its value is a state of the metric `boltz_admin_key_state`; empty: not known yet.
pub const ADMIN_KEY: &str = "adminKey";
/// Its value is how many seconds the operator's clock is ahead of Boltz's.
pub const CLOCK_SKEW: &str = "clockSkewSeconds";
const CONFIRM_MISSING_KEYS: &str = "confirmMissingKeys";

/// The name of the ConfigMap.
pub fn config_map_name(lease_name: &str) -> String {
    format!("{lease_name}-account")
}

/// The key of the data under which another account than that of the flags has what this key is of the flags' account.
pub(crate) fn of_account(account: &AccountName, key: &str) -> String {
    match (account.name(), key.split_once('.')) {
        (Some(account), Some((cluster, key))) => format!("{cluster}.{account}.{key}"),
        _ => key.to_owned(),
    }
}

/// The data of the ConfigMap as it is for an account: under the same keys for each of them.
pub(crate) fn read_for(account: &AccountName, data: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(name) = account.name() else { return data.clone() };
    let mine = data.iter().filter_map(|(key, value)| {
        let (cluster, key) = key.split_once('.')?;
        let key = key.strip_prefix(name)?.strip_prefix('.')?;
        Some((format!("{cluster}.{key}"), value.clone()))
    });
    mine.collect()
}

/// The data of an account as the ConfigMap has it.
pub(crate) fn written_for(account: &AccountName, data: BTreeMap<String, String>) -> BTreeMap<String, String> {
    data.into_iter().map(|(key, value)| (of_account(account, &key), value)).collect()
}

/// What is remembered. Never derived from objects, which users can edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The id of the organization.
    pub organization: Option<String>,
    /// The organization that somebody accepted with `--accept-organization` in place of another one.
    pub accepted: Option<String>,
    /// How many active keys Boltz's list showed last.
    pub active_keys: usize,
    /// Boltz gave a new key another name than requested. Contains the message for the condition.
    pub names_altered: Option<String>,
    /// For people: what the leader knows of its admin key.
    pub admin_key: Option<String>,
    /// For people: how far its clock is ahead of Boltz's, coarsely.
    pub clock_skew_seconds: i64,
    /// A person confirmed that so many keys are gone. Counts until a pass is believed.
    pub confirmed_missing_keys: usize,
}

impl Remembered {
    /// Whether the account has been used: Boltz accepted its admin key at some time.
    pub(crate) fn has_been_used(&self) -> bool {
        self.organization.is_some() || self.active_keys > 0
    }

    /// Reads the data of the ConfigMap: what was remembered under the current name of the cluster or, without that, under
    /// a former one. Values that cannot be read count as absent.
    pub fn from_data(data: &BTreeMap<String, String>, names: &ClusterNames) -> Self {
        let found = |key: &str| {
            let of = |name: &ClusterName| data.get(&format!("{name}.{key}"));
            std::iter::once(&names.current).chain(&names.former).find_map(of)
        };
        let text = |key: &str| found(key).filter(|text| !text.is_empty()).cloned();
        let count = |key: &str| text(key).and_then(|text| text.parse().ok()).unwrap_or_default();
        let organization = text(ORGANIZATION);
        // A release that did not write this key trusted the organization that it remembered.
        Self {
            accepted: match found(ACCEPTED_ORGANIZATION) {
                Some(_) => text(ACCEPTED_ORGANIZATION),
                None => organization.clone(),
            },
            organization,
            active_keys: count(ACTIVE_KEYS),
            names_altered: text(NAMES_ALTERED),
            admin_key: text(ADMIN_KEY),
            clock_skew_seconds: text(CLOCK_SKEW).and_then(|text| text.parse().ok()).unwrap_or_default(),
            confirmed_missing_keys: count(CONFIRM_MISSING_KEYS),
        }
    }

    /// The data of the ConfigMap for this cluster. Empty values replace older ones.
    pub fn to_data(&self, names: &ClusterNames) -> BTreeMap<String, String> {
        let entry = |key: &str, value: String| (format!("{}.{key}", names.current), value);
        BTreeMap::from([
            entry(ORGANIZATION, self.organization.clone().unwrap_or_default()),
            entry(ACCEPTED_ORGANIZATION, self.accepted.clone().unwrap_or_default()),
            entry(ACTIVE_KEYS, self.active_keys.to_string()),
            entry(NAMES_ALTERED, self.names_altered.clone().unwrap_or_default()),
            entry(ADMIN_KEY, self.admin_key.clone().unwrap_or_default()),
            entry(CLOCK_SKEW, self.clock_skew_seconds.to_string()),
            entry(
                CONFIRM_MISSING_KEYS,
                match self.confirmed_missing_keys {
                    0 => String::new(),
                    count => count.to_string(),
                },
            ),
        ])
    }

    /// The key of the data with which a person confirms that so many keys are gone.
    pub(crate) fn confirmation_key(names: &ClusterNames, account: &AccountName) -> String {
        of_account(account, &format!("{}.{CONFIRM_MISSING_KEYS}", names.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::marker::MarkerFormat;

    #[test]
    fn accounts_share_a_config_map_and_nothing_in_it() {
        let names = ClusterNames::named("c".parse().unwrap(), Vec::new(), MarkerFormat::One);
        let of = |organization: &str| Remembered {
            organization: Some(organization.to_owned()),
            accepted: Some(organization.to_owned()),
            ..Remembered::default()
        };
        let accounts = [AccountName::OF_FLAGS, AccountName::named("a"), AccountName::named("a.b")];
        let organizations = ["of-flags", "of-a", "of-a.b"];
        let mut data = BTreeMap::new();
        for (account, organization) in accounts.iter().zip(organizations) {
            data.extend(written_for(account, of(organization).to_data(&names)));
        }
        assert!(data.keys().all(|key| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')));
        for (account, organization) in accounts.iter().zip(organizations) {
            let read = Remembered::from_data(&read_for(account, &data), &names);
            assert_eq!(read, of(organization), "{account}");
        }
        let other = read_for(&AccountName::named("b"), &data);
        assert_eq!(Remembered::from_data(&other, &names), Remembered::default());
        assert_eq!(Remembered::confirmation_key(&names, &accounts[1]), "c.a.confirmMissingKeys");
    }

    #[test]
    fn data_round_trip() {
        let remembered = Remembered {
            organization: Some("org".to_owned()),
            accepted: Some("org".to_owned()),
            active_keys: 12,
            names_altered: Some("why".to_owned()),
            admin_key: Some("refused".to_owned()),
            clock_skew_seconds: -90,
            confirmed_missing_keys: 3,
        };
        let names = |current: &str, former: &[&str]| {
            let former = former.iter().map(|name| name.parse().unwrap()).collect();
            ClusterNames::named(current.parse().unwrap(), former, MarkerFormat::One)
        };
        let data = remembered.to_data(&names("a", &[]));
        assert_eq!(Remembered::from_data(&data, &names("a", &[])), remembered);
        assert_eq!(Remembered::from_data(&data, &names("b", &["a"])), remembered, "a former name");
        assert_eq!(Remembered::from_data(&data, &names("b", &[])), Remembered::default(), "another cluster");
        let none = Remembered::default();
        assert_eq!(Remembered::from_data(&none.to_data(&names("a", &[])), &names("a", &[])), none);
        let odd = BTreeMap::from([("a.activeKeys".to_owned(), "many".to_owned())]);
        assert_eq!(Remembered::from_data(&odd, &names("a", &[])), none);
    }
}

//! How many live keys the Secrets of each namespace name, by account.

use super::secret_metadata::SecretMetadata;
use crate::protocol::account_name::AccountName;
use std::collections::HashMap;

/// The keys in records of Secrets that belong to an object that exists. Only those of `BoltzAccounts` are counted: the account
/// of the flags has no limit.
#[derive(Debug, Default)]
pub(super) struct LiveKeyCounts(HashMap<(String, AccountName), usize>);

impl LiveKeyCounts {
    pub fn add(&mut self, metadata: &SecretMetadata) {
        if let Some((place, keys)) = counted(metadata) {
            *self.0.entry(place).or_default() += keys;
        }
    }

    pub fn remove(&mut self, metadata: &SecretMetadata) {
        let Some((place, keys)) = counted(metadata) else { return };
        let left = self.0.get(&place).map_or(0, |count| count.saturating_sub(keys));
        match left {
            0 => drop(self.0.remove(&place)),
            left => drop(self.0.insert(place, left)),
        }
    }

    pub fn count(&self, namespace: &str, account: &AccountName) -> usize {
        self.0.get(&(namespace.to_owned(), account.clone())).copied().unwrap_or_default()
    }
}

/// A Secret without an owner is retained: nothing revokes its keys, so the account has to forbid it.
fn counted(metadata: &SecretMetadata) -> Option<((String, AccountName), usize)> {
    let record = metadata.record.as_ref().filter(|record| !record.account.is_of_flags())?;
    let is_owned = metadata.owner_references.iter().any(|owner| owner.uid == record.owner_uid);
    is_owned.then(|| ((metadata.namespace.clone(), record.account.clone()), record.key_ids().count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record::Record;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn secret(namespace: &str, account: &AccountName, owner: Option<&str>) -> SecretMetadata {
        let owner = owner.map(|uid| OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() });
        SecretMetadata {
            namespace: namespace.to_owned(),
            name: "secret".to_owned(),
            uid: "secret-uid".to_owned(),
            resource_version: "1".to_owned(),
            owner_label: Some("uid".to_owned()),
            record: Some(Record { account: account.clone(), ..Record::placeholder("uid") }),
            owner_references: owner.into_iter().collect(),
            deleting: false,
            adoptable_by: None,
            kind: None,
            immutable: false,
        }
    }

    #[test]
    fn only_keys_of_objects_that_exist_count() {
        let mut counts = LiveKeyCounts::default();
        let account = AccountName::named("a");
        let owned = secret("team", &account, Some("uid"));
        for other in [
            secret("team", &account, None),
            secret("team", &account, Some("of others")),
            secret("other", &account, Some("uid")),
            secret("team", &AccountName::named("b"), Some("uid")),
            secret("team", &AccountName::OF_FLAGS, Some("uid")),
        ] {
            counts.add(&other);
        }
        counts.add(&owned);
        counts.add(&owned);
        assert_eq!(counts.count("team", &account), 2);
        assert_eq!(counts.count("team", &AccountName::OF_FLAGS), 0);
        counts.remove(&owned);
        counts.remove(&owned);
        counts.remove(&owned);
        assert_eq!(counts.count("team", &account), 0);
    }
}

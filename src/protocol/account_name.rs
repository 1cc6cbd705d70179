//! The name of an account, as ledger and record keep it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Names of `BoltzAccount` objects are no longer.
pub const MAX_ACCOUNT_NAME: usize = 63;
/// What no `BoltzAccount` can be called.
const UNREADABLE: &str = "?";

/// Which account keys belong to: the one of the operator's flags, or the `BoltzAccount` of this name.
///
/// The account of the flags has no name, so what is stored of it looks as it did before there were others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "Option<String>")]
pub struct AccountName(Option<String>);

impl AccountName {
    /// The account of `--admin-key-file`.
    pub const OF_FLAGS: Self = Self(None);

    /// The `BoltzAccount` of this name. Users can write the name: one that no `BoltzAccount` can have is never that of the
    /// flags.
    pub fn named(name: &str) -> Self {
        let is_name = (1..=MAX_ACCOUNT_NAME).contains(&name.len())
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        Self(Some(if is_name { name } else { UNREADABLE }.to_owned()))
    }

    /// Whether it is the account of the flags.
    pub fn is_of_flags(&self) -> bool {
        self.0.is_none()
    }

    /// The `BoltzAccount`, for people. `None`: it is the account of the flags, or there is none.
    pub fn boltz_account(&self) -> Option<&str> {
        self.name().filter(|name| *name != UNREADABLE)
    }

    /// For people: how keys of this organization can be had, if those of this account are of another one.
    pub(crate) fn way_to(&self, organization: &str) -> String {
        match self.is_of_flags() {
            true => {
                format!(
                    "To move to {organization}, start the operator with --accept-organization={organization}."
                )
            }
            false => format!("To use {organization}, create another BoltzAccount and new objects."),
        }
    }

    /// The name of the `BoltzAccount`.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl From<Option<String>> for AccountName {
    fn from(name: Option<String>) -> Self {
        name.map_or(Self::OF_FLAGS, |name| Self::named(&name))
    }
}

impl From<AccountName> for Option<String> {
    fn from(account: AccountName) -> Self {
        account.0
    }
}

/// As messages name it.
impl fmt::Display for AccountName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(formatter, "BoltzAccount {name}"),
            None => formatter.write_str("the account of --admin-key-file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_name_is_never_that_of_the_flags() {
        let long = "a".repeat(64);
        for (text, expected) in [
            ("null", AccountName::OF_FLAGS),
            ("\"prod\"", AccountName::named("prod")),
            ("\"\"", AccountName::named("?")),
            ("\"Prod\"", AccountName::named("?")),
            ("\"a\\nb\"", AccountName::named("?")),
            (&format!("\"{long}\""), AccountName::named("?")),
        ] {
            assert_eq!(serde_json::from_str::<AccountName>(text).unwrap(), expected, "{text}");
            assert_eq!(expected.is_of_flags(), text == "null");
        }
        assert_eq!(serde_json::to_string(&AccountName::named("prod")).unwrap(), "\"prod\"");
    }
}

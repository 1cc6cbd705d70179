//! A `BoltzAccount` as the API server may show it, with a CRD of whatever release.
//!
//! Input: the object as JSON.

use boltz_operator::{
    api::{MAX_LISTED_ORPHANS, WatchedAccount},
    plan::AccountState,
    protocol::account_name::AccountName,
};
use jiff::Timestamp;
use kube::{ResourceExt, core::Selector};

/// Holds for every input, or panics.
pub fn check(input: &[u8]) {
    let Ok(account) = serde_json::from_slice::<WatchedAccount>(input) else { return };
    let name = AccountName::named(&account.name_any());
    assert!(!name.is_of_flags() && !name.to_string().contains(char::is_control), "{name}");
    assert!(name.boltz_account().is_none_or(|known| known == account.name_any()), "{name}");
    if let Ok(spec) = &account.spec {
        let is_limited = spec.keys.max_per_namespace.is_some();
        assert!(!(is_limited && spec.allows_retain()), "retained keys would not count");
        let _ = spec.orphan_grace();
        assert!(!spec.inventory_interval().is_zero(), "the list would be read without end");
        // One that cannot be read selects nobody.
        let _ = spec.namespace_selector.clone().map(Selector::try_from);
    }
    let old = account.status.clone().unwrap_or_default();
    let now = Timestamp::UNIX_EPOCH;
    let status = AccountState::default().status(&old, now);
    assert!(status.orphans.len() <= MAX_LISTED_ORPHANS);
    // Without news nothing is written again.
    let read = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    assert_eq!(AccountState::default().status(&read, now), read);
}

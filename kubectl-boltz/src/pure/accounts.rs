//! The `BoltzAccounts` as a table.

use crate::words::{BAD, GOOD, or_dash, plain, styled, table};
use boltz_operator::api::{BoltzAccountStatus, WatchedAccount};
use kube::ResourceExt;

/// A row for each account; below it, why one is not ready.
pub fn render(accounts: &[WatchedAccount]) -> String {
    let rows: Vec<Vec<String>> = accounts.iter().map(row).collect();
    let header = ["NAME", "READY", "ORGANIZATION", "CURRENT", "PREVIOUS", "ORPHANED", "FOREIGN", "SECRET"];
    let mut text = table(&header, &rows);
    for account in accounts.iter().filter(|account| !is_ready(account)) {
        let (_, message) = ready(account);
        text += &format!("{}: {}\n", plain(&account.name_any()), plain(&message));
    }
    text
}

/// Whether the account can be used.
pub fn is_ready(account: &WatchedAccount) -> bool {
    let conditions = account.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|it| it.type_ == "Ready").any(|it| it.status == "True")
}

/// The reason and the message of the condition.
pub fn ready(account: &WatchedAccount) -> (String, String) {
    let mut conditions = account.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|it| it.type_ == "Ready");
    let unknown = || {
        let message = "No operator serves it. Is one running with --boltz-accounts?".to_owned();
        ("Pending".to_owned(), message)
    };
    found.map_or_else(unknown, |it| (it.reason.clone(), it.message.clone()))
}

fn row(account: &WatchedAccount) -> Vec<String> {
    let keys = account.status.as_ref().and_then(|status| status.keys);
    let count =
        |of: fn(&boltz_operator::api::AccountKeyCounts) -> u32| or_dash(keys, |keys| of(&keys).to_string());
    let organization = |status: &BoltzAccountStatus| status.organization_id.clone();
    let is_default = if account.is_default() { " (default)" } else { "" };
    vec![
        format!("{}{is_default}", plain(&account.name_any())),
        match is_ready(account) {
            true => styled(GOOD, "yes"),
            false => styled(BAD, &plain(&ready(account).0)),
        },
        or_dash(account.status.as_ref().and_then(organization), |id| plain(&id)),
        count(|keys| keys.current),
        count(|keys| keys.previous),
        count(|keys| keys.orphaned),
        count(|keys| keys.foreign),
        account.spec.as_ref().map_or_else(|_| "-".to_owned(), |spec| plain(&spec.admin_key_secret_ref.name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn account(name: &str, status: Json) -> WatchedAccount {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {"boltz.bio/is-default-account": "true"}},
            "spec": {"adminKeySecretRef": {"name": "secret"}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn an_account_that_is_not_ready_says_why() {
        let condition = |status: &str, message: &str| {
            json!([{"type": "Ready", "status": status, "reason": "Why", "message": message,
                "lastTransitionTime": "2026-11-24T00:00:00Z"}])
        };
        let keys = json!({"current": 1, "previous": 2, "orphaned": 3, "foreign": 4});
        let good = json!({"conditions": condition("True", ""), "organizationID": "org", "keys": keys});
        let text = render(&[
            account("good", good),
            account("bad", json!({"conditions": condition("False", "The reason.\n")})),
            account("new", json!({})),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        for (line, words) in [
            (lines[1], &["good (default)", "yes", "org", "1", "2", "3", "4", "secret"][..]),
            (lines[2], &["bad (default)", "Why"]),
            (lines[4], &["bad: The reason. "]),
            (lines[5], &["new: No operator serves it."]),
        ] {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}

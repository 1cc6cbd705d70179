//! Whether the `BoltzAccounts` can be used.

use super::{Finding, Grade};
use crate::{
    pure::accounts::{is_ready, ready},
    verbs::{Session, accounts::listed},
    words::plain,
};
use kube::ResourceExt;

const CHECK: &str = "BoltzAccounts";

/// Most installations have none: then nothing is said.
pub async fn accounts(session: &Session) -> Vec<Finding> {
    let accounts = match listed(session).await {
        Ok((_, accounts)) => accounts,
        Err(failure) => return vec![Finding::unknown(CHECK, &failure)],
    };
    if accounts.is_empty() {
        return Vec::new();
    }
    let bad: Vec<Finding> = accounts
        .iter()
        .filter(|account| !is_ready(account))
        .map(|account| {
            let (name, (reason, message)) = (plain(&account.name_any()), ready(account));
            let message = format!("{name} is not Ready: {}: {}", plain(&reason), plain(&message));
            Finding::new(CHECK, Grade::Bad, message, format!("kubectl describe boltzaccount {name}"))
        })
        .collect();
    let good = || vec![Finding::good(CHECK, format!("{} are Ready", accounts.len()))];
    if bad.is_empty() { good() } else { bad }
}

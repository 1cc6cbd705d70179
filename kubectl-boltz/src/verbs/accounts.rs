//! `accounts`.

use super::Session;
use crate::{
    cluster::call,
    failure::Failure,
    output::{Format, list_of, print},
    pure::accounts,
};
use boltz_operator::api::{BoltzAccount, WatchedAccount};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::{Value as Json, json};

/// The `BoltzAccounts` as they are, and as far as they can be read. Where their CRD is not installed, there are none.
pub async fn listed(session: &Session) -> Result<(Vec<DynamicObject>, Vec<WatchedAccount>), Failure> {
    let resource = ApiResource::erase::<BoltzAccount>(&());
    let api: Api<DynamicObject> = Api::all_with(session.cluster.client.clone(), &resource);
    let found = match call(api.list(&ListParams::default()), "list", "boltzaccounts", None).await {
        Ok(list) => list.items,
        Err(failure) if failure.is_not_found() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let read = found.iter().filter_map(|account| serde_json::from_value(json!(account)).ok()).collect();
    Ok((found, read))
}

/// Lists the `BoltzAccounts`.
pub async fn accounts(session: &Session) -> Result<u8, Failure> {
    let (found, accounts) = listed(session).await?;
    if session.format == Format::Name {
        let name = |account: &DynamicObject| format!("boltzaccount.boltz.bio/{}\n", account.name_any());
        return print(&found.iter().map(name).collect::<String>()).map(|()| 0);
    }
    let raw: Vec<Json> = found.iter().map(|account| json!(account)).collect();
    let text = || match accounts.is_empty() {
        true => {
            "There are no BoltzAccounts: all objects use the account of the operator's flags.\n".to_owned()
        }
        false => accounts::render(&accounts),
    };
    session.format.write(&list_of(raw), text)?;
    Ok(0)
}

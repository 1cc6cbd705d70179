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

/// Lists the `BoltzAccounts`.
pub async fn accounts(session: &Session) -> Result<u8, Failure> {
    let resource = ApiResource::erase::<BoltzAccount>(&());
    let api: Api<DynamicObject> = Api::all_with(session.cluster.client.clone(), &resource);
    let found = call(api.list(&ListParams::default()), "list", "boltzaccounts", None).await?.items;
    if session.format == Format::Name {
        let name = |account: &DynamicObject| format!("boltzaccount.boltz.bio/{}\n", account.name_any());
        return print(&found.iter().map(name).collect::<String>()).map(|()| 0);
    }
    let raw: Vec<Json> = found.iter().map(|account| json!(account)).collect();
    let read = |account: &Json| serde_json::from_value::<WatchedAccount>(account.clone()).ok();
    let accounts: Vec<WatchedAccount> = raw.iter().filter_map(read).collect();
    let text = || match accounts.is_empty() {
        true => {
            "There are no BoltzAccounts: all objects use the account of the operator's flags.\n".to_owned()
        }
        false => accounts::render(&accounts),
    };
    session.format.write(&list_of(raw.clone()), text)?;
    Ok(0)
}

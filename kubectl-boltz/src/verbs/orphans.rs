//! `keys` and `orphans`.

use super::{
    Session,
    follow::Looks,
    operator::{WHERE_IT_IS, operators},
};
use crate::{
    cluster::call,
    failure::{Failure, NOT_READY},
    output::{Format, confirm, print, tell},
    pure::keys::{chosen, join, older, render, render_orphans},
    words::{duration, or_dash, plain},
};
use boltz_operator::{
    api::WatchedApiKey,
    controller::orphan_list::{
        OrphanList, PublishedOrphan, RevocationRequest, RevocationResponse, config_map_name, read_list_key,
        request_key, response_key,
    },
    protocol::{account_name::AccountName, marker::ClusterName},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The operator's Lease, if nothing says its name.
const DEFAULT_LEASE: &str = "boltz-operator";
/// Which orphans are revoked, if nothing is said.
pub const OLD_ENOUGH: SignedDuration = SignedDuration::from_hours(24);
const INTERVAL: Duration = Duration::from_secs(1);

/// Which operator's orphans; all, if nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    pub cluster: Option<String>,
    pub lease_name: Option<String>,
}

/// What one operator has published of one account.
#[derive(Clone, Debug)]
pub struct Published {
    place: Place,
    pub list: OrphanList,
}

/// Where an operator publishes orphans, and reads requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    namespace: String,
    config_map: String,
    cluster: ClusterName,
}

fn config_maps(session: &Session, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(session.cluster.client.clone(), namespace)
}

/// The ConfigMap with the orphans of the operator with that Lease.
async fn config_map_of(
    session: &Session,
    namespace: &str,
    lease_name: &str,
) -> Result<Option<ConfigMap>, Failure> {
    let (api, name) = (config_maps(session, namespace), config_map_name(lease_name));
    call(api.get_opt(&name), "get", "configmaps", Some(namespace)).await
}

/// The ConfigMaps that may have orphans. Somebody may have the right to a single one.
async fn candidates(session: &Session, publisher: &Publisher) -> Result<Vec<ConfigMap>, Failure> {
    let namespace = session.cluster.operator_namespace.as_str();
    if let Some(lease_name) = &publisher.lease_name {
        return Ok(config_map_of(session, namespace, lease_name).await?.into_iter().collect());
    }
    let operators = match operators(session).await {
        Ok(operators) => operators,
        Err(Failure::Forbidden { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let leases: Option<Vec<(String, String)>> = operators
        .iter()
        .map(|operator| Some((operator.lease_namespace(), operator.settings.get("lease-name")?)))
        .collect();
    if let Some(leases) = leases.filter(|leases| !leases.is_empty()) {
        let mut found = Vec::new();
        for (namespace, lease_name) in leases {
            found.extend(config_map_of(session, &namespace, &lease_name).await?);
        }
        return Ok(found);
    }
    // No Deployment names the Lease.
    let listed = config_maps(session, namespace);
    match call(listed.list(&ListParams::default()), "list", "configmaps", Some(namespace)).await {
        Ok(list) => Ok(list.items),
        Err(Failure::Forbidden { .. }) => {
            Ok(config_map_of(session, namespace, DEFAULT_LEASE).await?.into_iter().collect())
        }
        Err(error) => Err(error),
    }
}

/// What the operators have published.
pub async fn published(session: &Session, publisher: &Publisher) -> Result<Vec<Published>, Failure> {
    let found = candidates(session, publisher).await?;
    let mut lists = Vec::new();
    for config_map in found {
        for (key, text) in config_map.data.iter().flatten() {
            let Some((name, account)) = read_list_key(key) else { continue };
            let Ok(mut list) = serde_json::from_str::<OrphanList>(text) else { continue };
            list.orphans.iter_mut().for_each(|orphan| orphan.account = account.clone());
            // Also by the form of a derived name that stands in the names of keys.
            let is = |wanted: &String| {
                let forms = [Some(name.clone()), name.short_form()];
                forms.into_iter().flatten().any(|form| *wanted == form.to_string())
            };
            if publisher.cluster.as_ref().is_none_or(is) {
                let namespace = config_map.namespace().unwrap_or_default();
                let place = Place { namespace, config_map: config_map.name_any(), cluster: name };
                lists.push(Published { place, list });
            }
        }
    }
    Ok(lists)
}

pub async fn keys(session: &Session) -> Result<u8, Failure> {
    let objects = session.cluster.list(session.cluster.scope(), None).await?;
    let read: Vec<WatchedApiKey> = objects.into_iter().map(|object| object.read).collect();
    // Without a namespace's name, orphans belong to the whole cluster.
    let mut count = None;
    let orphans: Vec<PublishedOrphan> = if session.cluster.all_namespaces {
        match published(session, &Publisher::default()).await {
            Ok(lists) => {
                count = Some(lists.iter().map(|published| published.list.count).sum::<usize>());
                lists.into_iter().flat_map(|published| published.list.orphans).collect()
            }
            Err(error) => {
                tell(&format!("orphans are not shown: {error}"));
                Vec::new()
            }
        }
    } else {
        if session.format.is_for_people() {
            tell("orphans belong to no namespace, so they are not shown. With them: kubectl boltz keys -A");
        }
        Vec::new()
    };
    let keys = join(&read, &orphans);
    let left_out = count.unwrap_or_default().saturating_sub(orphans.len());
    let text = || match session.format {
        Format::Name => keys.iter().map(|key| format!("{}\n", plain(&key.key_id))).collect(),
        _ if left_out > 0 => format!("{}and {left_out} more orphans\n", render(&keys, session.now())),
        _ => render(&keys, session.now()),
    };
    // Null: it is not known.
    session.format.write(&json!({"orphanCount": count, "keys": keys}), text)?;
    Ok(0)
}

pub async fn orphans(
    session: &Session,
    publisher: &Publisher,
    older_than: Option<SignedDuration>,
) -> Result<u8, Failure> {
    let lists = published(session, publisher).await?;
    if lists.is_empty() {
        return Err(nothing_published(session));
    }
    let all: Vec<PublishedOrphan> = lists.iter().flat_map(|one| one.list.orphans.clone()).collect();
    let count: usize = lists.iter().map(|one| one.list.count).sum();
    // The oldest are published.
    let left_out = count.saturating_sub(all.len());
    let orphans = older(all, older_than, session.now());
    let text = || match session.format {
        Format::Name => orphans.iter().map(|orphan| format!("{}\n", plain(&orphan.key_id))).collect(),
        _ if orphans.is_empty() && older_than.is_some() => "no orphan is that old\n".to_owned(),
        _ if orphans.is_empty() => "no orphans\n".to_owned(),
        _ => {
            let mut text = render_orphans(&orphans, session.now());
            if left_out > 0 {
                text.push_str(&format!("and {left_out} more\n"));
            }
            text.push_str("next: kubectl boltz explain BoltzOperatorOrphanedKeys  # before you revoke any\n");
            text
        }
    };
    session.format.write(&json!({"count": count, "orphans": orphans}), text)?;
    Ok(0)
}

fn nothing_published(session: &Session) -> Failure {
    Failure::Other(format!(
        "no operator has published orphans in the namespace {}. It does so after two passes over Boltz's list, by \
         default after 10 minutes.\nnext: kubectl boltz doctor --operator-namespace {}  # or {WHERE_IT_IS}",
        session.cluster.operator_namespace, session.cluster.operator_namespace
    ))
}

pub struct Wish {
    pub ids: Vec<String>,
    pub older_than: SignedDuration,
    pub publisher: Publisher,
    pub yes: bool,
    pub timeout: Duration,
}

pub async fn revoke(session: &Session, wish: Wish) -> Result<u8, Failure> {
    let lists = published(session, &wish.publisher).await?;
    let places: BTreeSet<&Place> = lists.iter().map(|one| &one.place).collect();
    let mut several = places.iter();
    let (Some(target), None) = (several.next(), several.next()) else {
        if places.is_empty() {
            return Err(nothing_published(session));
        }
        let names: Vec<String> = places.iter().map(|place| place.cluster.to_string()).collect();
        return Err(Failure::Other(format!(
            "several operators publish orphans here: {}\nnext: kubectl boltz orphans --revoke --cluster NAME",
            names.join(", ")
        )));
    };
    let now = session.now();
    let orphans: Vec<PublishedOrphan> = lists.iter().flat_map(|one| one.list.orphans.clone()).collect();
    let chosen = chosen(&orphans, &wish.ids, wish.older_than, now).map_err(|others| {
        let others: Vec<String> = others.iter().map(|id| plain(id)).collect();
        Failure::Other(format!(
            "nothing was done: these are not published as orphans, or not for {}: {}\n\
             next: kubectl boltz orphans  # or --older-than 0s",
            duration(wish.older_than),
            others.join(", ")
        ))
    })?;
    if chosen.is_empty() {
        return Err(Failure::Other(
            "no orphan is that old\nnext: kubectl boltz orphans  # or --older-than 0s".to_owned(),
        ));
    }
    let listed = chosen.iter().map(|orphan| {
        let used = or_dash(orphan.last_used_on, |date| date.to_string());
        format!("  {}, last used {used}\n", plain(&orphan.key_id))
    });
    let question = format!(
        "{} keys are to be revoked:\n{}\
         The operator revokes each only if no BoltzApiKey and no Secret of this cluster refers to it.\n\
         If another cluster uses the clusterName {} (a clone, a restored backup), its keys are among them, and its workloads \
         fail.",
        chosen.len(),
        listed.collect::<String>(),
        target.cluster
    );
    confirm(&question, "revoke", wish.yes)?;
    let mut ids: BTreeMap<&AccountName, Vec<String>> = BTreeMap::new();
    for orphan in chosen {
        ids.entry(&orphan.account).or_default().push(orphan.key_id.clone());
    }
    let accounts: Vec<&AccountName> = ids.keys().copied().collect();
    let (id, older_than) = (Timestamp::now().to_string(), format!("{}s", wish.older_than.as_secs()));
    let requests = ids.into_iter().map(|(account, key_ids)| {
        let request = RevocationRequest { id: id.clone(), key_ids, older_than: older_than.clone() };
        (request_key(&target.cluster, account), serde_json::to_string(&request).unwrap_or_default())
    });
    let patch = Patch::Merge(json!({"data": requests.collect::<BTreeMap<_, _>>()}));
    let (api, namespace) = (config_maps(session, &target.namespace), Some(target.namespace.as_str()));
    let parameters = PatchParams::default();
    call(api.patch(&target.config_map, &parameters, &patch), "patch", "configmaps", namespace).await?;
    tell("requested; waiting for the operator");
    let (started, mut looks) = (Instant::now(), Looks::after_success());
    loop {
        let found = call(api.get(&target.config_map), "get", "configmaps", namespace).await;
        let found = looks.seen(found)?;
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let response = |account: &&AccountName| {
            let text = data.get(&response_key(&target.cluster, account))?;
            serde_json::from_str::<RevocationResponse>(text).ok().filter(|response| response.request == id)
        };
        // All of them, or none yet.
        let responses: Option<Vec<RevocationResponse>> = accounts.iter().map(response).collect();
        if let Some(responses) = responses {
            let results = responses.into_iter().flat_map(|response| response.results).collect();
            return report(session, &RevocationResponse { request: id, results });
        }
        if started.elapsed() > wish.timeout {
            return Err(Failure::Timeout {
                what: "an answer of the operator".to_owned(),
                after: wish.timeout,
                state: "The request stays, and the operator does it when it can.".to_owned(),
                next: "kubectl boltz doctor".to_owned(),
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn report(session: &Session, response: &RevocationResponse) -> Result<u8, Failure> {
    let mut text = String::new();
    for (id, result) in &response.results {
        let id = plain(id);
        if session.format == Format::Name {
            if result.is_revoked {
                text.push_str(&format!("{id}\n"));
            }
        } else if result.is_revoked {
            text.push_str(&format!("{id} revoked\n"));
        } else {
            text.push_str(&format!("{id} not revoked: {}\n", plain(&result.message)));
        }
    }
    let all = response.results.values().all(|result| result.is_revoked);
    match session.format {
        Format::Table | Format::Wide | Format::Name => print(&text)?,
        format => format.write(&json!(response), String::new)?,
    }
    Ok(if all { 0 } else { NOT_READY })
}

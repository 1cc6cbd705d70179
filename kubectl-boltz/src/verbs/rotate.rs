//! `rotate` and `revoke-leaked`.

use super::{
    Session,
    follow::{GiveUp, Wait},
    look,
};
use crate::{
    cluster::Object,
    failure::Failure,
    output::{confirm, tell},
    pure::{object::View, users::restarts},
    words::plain,
};
use boltz_operator::api::annotations::{
    ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION, ROTATE_OUTSIDE_WINDOW_ANNOTATION,
};
use futures::{StreamExt, stream};
use kube::ResourceExt;
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

/// So many are waited for at the same time, if nothing else is asked for.
const AT_ONCE: usize = 50;

pub struct Wish {
    pub wait: bool,
    pub until_revoked: bool,
    pub batch: Option<usize>,
    pub dry_run: bool,
    pub timeout: Duration,
}

pub async fn rotate(
    session: &Session,
    names: Vec<String>,
    selector: Option<String>,
    all: bool,
    wish: &Wish,
) -> Result<u8, Failure> {
    if names.is_empty() && selector.is_none() && !all {
        return Err(Failure::Other(
            "which objects? Name them, or use --selector or --all\nnext: kubectl boltz list".to_owned(),
        ));
    }
    if session.cluster.all_namespaces {
        return Err(Failure::Other(
            "rotate works in one namespace at a time\nnext: kubectl boltz list -A  # shows the namespaces; then the same with --namespace NAME"
                .to_owned(),
        ));
    }
    let objects = if names.is_empty() {
        let found = session.cluster.list(session.cluster.scope(), selector.as_deref()).await?;
        let namespace = &session.cluster.namespace;
        if found.is_empty() && selector.is_some() {
            return Err(Failure::Other(format!(
                "no BoltzApiKey in the namespace {namespace} has these labels\n\
                 next: kubectl get boltzapikeys --show-labels --namespace {namespace}"
            )));
        }
        if found.is_empty() {
            tell(&format!("no BoltzApiKeys in the namespace {namespace}\nnext: kubectl boltz list -A"));
        }
        found
    } else {
        let mut objects = Vec::new();
        for name in &names {
            objects.push(session.cluster.get(name).await?);
        }
        objects
    };
    let at_once = wish.batch.unwrap_or(AT_ONCE).max(1);
    let work = objects.iter().map(|object| rotate_one(session, object, wish));
    let results: Vec<Result<Object, Failure>> = stream::iter(work).buffer_unordered(at_once).collect().await;
    let (mut rotated, mut code) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(object) => rotated.push(object),
            Err(failure) => {
                tell(&format!("error: {failure}"));
                code = code.into_iter().chain([failure.exit_code()]).min();
            }
        }
    }
    rotated.sort_by_key(|object| object.read.name_any());
    session.write_changed(&rotated)?;
    Ok(code.unwrap_or(0))
}

/// The object as it is afterwards.
async fn rotate_one(session: &Session, object: &Object, wish: &Wish) -> Result<Object, Failure> {
    let name = object.read.name_any();
    let view = View::new(&object.read, session.now());
    if view.is_suspended() {
        let namespace = &session.cluster.namespace;
        return Err(Failure::NotReady(format!(
            "{name} is suspended, so it is not rotated\nnext: kubectl boltz resume {name} --namespace {namespace}"
        )));
    }
    // A person asks, so a rotation window is not waited for.
    let value = new_value(session);
    let annotations = json!({ROTATE_ANNOTATION: value, ROTATE_OUTSIDE_WINDOW_ANNOTATION: value});
    let patch = json!({"metadata": {"annotations": annotations}});
    if view.is_paused() {
        return Err(Failure::NotReady(paused(&name, &session.cluster.namespace)));
    }
    // The list may be hours old: which key is the old one, the response says.
    let requested = session.cluster.patch(&name, &patch, wish.dry_run).await?;
    let (object, resource) = (&requested, look::resource_name(&requested));
    if wish.dry_run {
        session.report(&format!("{resource} would be rotated (dry run)"))?;
        return Ok(requested);
    }
    session.report(&format!("{resource} rotation requested"))?;
    if !wish.wait {
        return Ok(requested);
    }
    let old = ids(object);
    let wait = Wait { object, what: &format!("the rotation of {name}"), timeout: wish.timeout };
    let rotated = wait
        .until(session, GiveUp::IfNewlyBlocked, |object| {
            object.is_some_and(|object| has_new_key(object, &old))
        })
        .await?;
    session.report(&format!("{resource} rotated"))?;
    let mut rotated = rotated.unwrap_or_else(|| requested.clone());
    if wish.until_revoked {
        let replaced: BTreeSet<String> = current_id(object).into_iter().collect();
        let overlap = View::new(&rotated.read, session.now()).overlap_left(&replaced);
        let wait = Wait {
            object,
            what: &format!("the revocation of the old key of {name}"),
            timeout: wish.timeout.saturating_add(Duration::try_from(overlap).unwrap_or_default()),
        };
        let found = wait
            .until(session, GiveUp::Never, |object| {
                object.is_some_and(|object| names_none(object, &replaced))
            })
            .await?;
        session.report(&format!("{resource} old key revoked"))?;
        rotated = found.unwrap_or(rotated);
    }
    Ok(rotated)
}

fn paused(name: &str, namespace: &str) -> String {
    format!(
        "{name} is paused, so it gets no new key and keeps the old one\n\
         next: kubectl annotate boltzapikey {name} boltz.bio/paused- --namespace {namespace}"
    )
}

pub async fn revoke_leaked(
    session: &Session,
    name: &str,
    yes: bool,
    timeout: Duration,
) -> Result<u8, Failure> {
    let object = session.cluster.get(name).await?;
    let namespace = &session.cluster.namespace;
    let view = View::new(&object.read, session.now());
    if view.is_suspended() {
        return Err(Failure::NotReady(format!(
            "{name} is suspended, so it gets no new key and keeps the old one\n\
             next: kubectl boltz resume {name} --namespace {namespace}"
        )));
    }
    if view.is_paused() {
        return Err(Failure::NotReady(paused(name, namespace)));
    }
    // Any key would then look like a new one.
    let without_key = |what_was_done: &str| {
        Failure::NotReady(format!(
            "the status of {name} names no key, so that it cannot be seen when the leaked one is revoked; {what_was_done}\n\
             next: kubectl boltz explain {name} --namespace {namespace}"
        ))
    };
    if current_id(&object).is_none() {
        return Err(without_key("nothing was done"));
    }
    let mut old = ids(&object);
    let users = match look::users_in(session, &view).await {
        Ok(users) => format!("{} containers use the Secret", users.len()),
        Err(why) => unknown_users(&why),
    };
    let question = format!(
        "{namespace}/{name} gets a new key, and these are revoked at once: {}.\n\
         {users}; those with an old key fail until they have loaded the new one.",
        listed(&old)
    );
    confirm(&question, name, yes)?;
    let patch = json!({"metadata": {"annotations": {ROTATE_NOW_ANNOTATION: new_value(session)}}});
    let object = session.cluster.patch(name, &patch, false).await?;
    if current_id(&object).is_none() {
        return Err(without_key("a new key was requested"));
    }
    // A key that was issued while the question waited is revoked too.
    old.extend(ids(&object));
    tell("requested; waiting until the old keys are revoked at Boltz");
    let wait = Wait { object: &object, what: "the revocation of the leaked key", timeout };
    let done = wait
        .until(session, GiveUp::Never, |object| {
            object.is_some_and(|object| has_new_key(object, &old) && names_none(object, &old))
        })
        .await?;
    let resource = look::resource_name(&object);
    session.report(&format!("{resource} has a new key; revoked: {}", listed(&old)))?;
    let object = done.unwrap_or(object);
    match look::users_in(session, &View::new(&object.read, session.now())).await {
        Ok(users) => {
            let commands = restarts(&users, namespace);
            if !commands.is_empty() {
                session.report("To give the new key to what still runs with a revoked one:")?;
            }
            for command in commands {
                session.report(&format!("  {command}"))?;
            }
        }
        Err(why) => tell(&unknown_users(&why)),
    }
    look::write_object(session.format, &object, String::new)?;
    Ok(0)
}

fn unknown_users(why: &Failure) -> String {
    format!("which pods use the Secret is not known: {}", why.short())
}

fn listed(ids: &BTreeSet<String>) -> String {
    ids.iter().map(|id| plain(id)).collect::<Vec<_>>().join(", ")
}

/// A value that the annotation never had.
fn new_value(session: &Session) -> String {
    session.now().to_string()
}

fn current_id(object: &Object) -> Option<String> {
    object.read.status.as_ref()?.key_id.clone()
}

/// The ids that the status names.
fn ids(object: &Object) -> BTreeSet<String> {
    let previous = object.read.status.iter().flat_map(|status| &status.previous_keys);
    current_id(object).into_iter().chain(previous.map(|previous| previous.key_id.clone())).collect()
}

fn has_new_key(object: &Object, old: &BTreeSet<String>) -> bool {
    current_id(object).is_some_and(|current| !old.contains(&current))
        && View::new(&object.read, jiff::Timestamp::UNIX_EPOCH).is_ready()
}

fn names_none(object: &Object, old: &BTreeSet<String>) -> bool {
    ids(object).is_disjoint(old)
}

//! Verbs that change what is wanted: `suspend`, `resume`, `release`.

use super::{
    Session,
    follow::{GiveUp, Wait},
    look::{resource_name, write_object},
};
use crate::{
    failure::Failure,
    output::{Format, confirm, print, tell},
    words::plain,
};
use boltz_operator::api::{annotations::DELETION_POLICY_ANNOTATION, crd};
use serde_json::{Value as Json, json};
use std::time::Duration;

pub async fn suspend(session: &Session, names: &[String], suspend: bool) -> Result<u8, Failure> {
    let done = if suspend { "suspended" } else { "resumed" };
    let (mut objects, mut failed) = (Vec::new(), None);
    for name in names {
        match session.cluster.patch(name, &json!({"spec": {"suspend": suspend}}), false).await {
            Ok(object) => {
                session.report(&format!("{} {done}", resource_name(&object)))?;
                objects.push(object);
            }
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    // Also those before one that failed.
    if failed.is_none() || !objects.is_empty() {
        session.write_changed(&objects)?;
    }
    failed.map_or(Ok(0), Err)
}

/// The definition, for whoever has this program and nothing else.
pub fn print_crd(format: Format) -> Result<(), Failure> {
    let crd = json!(crd::crd());
    let name = || "customresourcedefinition.apiextensions.k8s.io/boltzapikeys.boltz.bio\n".to_owned();
    match format {
        Format::Name => print(&name()),
        Format::Json => Format::Json.write(&crd, String::new),
        _ => Format::Yaml.write(&crd, String::new),
    }
}

pub async fn release(session: &Session, name: &str, yes: bool, timeout: Duration) -> Result<u8, Failure> {
    let object = session.cluster.get(name).await?;
    let namespace = &session.cluster.namespace;
    let status = object.read.status.clone().unwrap_or_default();
    let previous = status.previous_keys.iter().map(|previous| &previous.key_id);
    let ids: Vec<String> = status.key_id.iter().chain(previous).map(|id| plain(id)).collect();
    let secret = status.secret_name.as_deref().map_or("none".to_owned(), plain);
    let question = format!(
        "{namespace}/{name} is deleted. Its Secret stays: {secret}.\nThese keys stay valid, and the operator no longer \
         rotates or revokes them: {}.",
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    );
    confirm(&question, name, yes)?;
    // With the UID, another object that has the name by now is not changed.
    let uid = &object.read.metadata.uid;
    let annotate =
        |policy: Json| json!({"metadata": {"uid": uid, "annotations": {DELETION_POLICY_ANNOTATION: policy}}});
    session.cluster.patch(name, &annotate(json!("Retain")), false).await?;
    if let Err(refused) = session.cluster.delete(name, uid.clone()).await {
        let before = object.read.metadata.annotations.as_ref();
        let before = json!(before.and_then(|annotations| annotations.get(DELETION_POLICY_ANNOTATION)));
        // A call without a response may have deleted the object, whose keys have to stay then.
        let undone = match refused.is_refusal() {
            true => session.cluster.patch(name, &annotate(before), false).await.is_ok(),
            false => false,
        };
        tell(&match undone {
            true => format!("{name} was not deleted, and is as it was before"),
            false => format!(
                "{name} has the annotation {DELETION_POLICY_ANNOTATION}=Retain: when it is deleted, its keys stay valid. To \
                 take it back: kubectl annotate boltzapikey {name} {DELETION_POLICY_ANNOTATION}- --namespace {namespace}"
            ),
        });
        return Err(refused);
    }
    let wait = Wait { object: &object, what: &format!("the deletion of {name}"), timeout };
    wait.until(session, GiveUp::Never, |found| found.is_none()).await?;
    let kept = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
    session.report(&format!("{} released; keys that stay valid: {kept}", resource_name(&object)))?;
    write_object(session.format, &object, String::new)?;
    Ok(0)
}

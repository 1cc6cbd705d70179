//! Verbs that change what is wanted: `suspend`, `resume`, `release`.

use super::{Session, follow::until};
use crate::{
    failure::Failure,
    output::{confirm, print},
    words::plain,
};
use boltz_operator::api::annotations::DELETION_POLICY_ANNOTATION;
use serde_json::json;
use std::time::Duration;

pub async fn suspend(session: &Session, names: &[String], suspend: bool) -> Result<u8, Failure> {
    let done = if suspend { "suspended" } else { "resumed" };
    for name in names {
        session.cluster.patch(name, &json!({"spec": {"suspend": suspend}}), false).await?;
        print(&format!("boltzapikey.boltz.bio/{name} {done}\n"))?;
    }
    Ok(0)
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
    let patch = json!({"metadata": {"annotations": {DELETION_POLICY_ANNOTATION: "Retain"}}});
    session.cluster.patch(name, &patch, false).await?;
    session.cluster.delete(name, object.read.metadata.uid.clone()).await?;
    let what = format!("the deletion of {name}");
    until(session, name, &what, timeout, |found| {
        found.is_none_or(|found| found.read.metadata.uid != object.read.metadata.uid)
    })
    .await?;
    print(&format!("boltzapikey.boltz.bio/{name} released; keys that stay valid: {}\n", ids.join(", ")))?;
    Ok(0)
}

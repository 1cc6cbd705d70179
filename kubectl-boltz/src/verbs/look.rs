//! `status`, `list` and `users`.

use super::{Session, follow::Looks};
use crate::{
    cluster::Object,
    failure::{Failure, NOT_READY},
    output::{Format, list_of, print, tell},
    pure::{
        list::{Columns, Filter, by_urgency, render},
        object::View,
        tree,
        users::{User, restarts, users as users_of},
    },
    words::{or_dash, relative, table},
};
use boltz_operator::api::WatchedApiKey;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use std::time::Duration;

const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// 0 if all are ready, or not ready on purpose.
pub(super) fn code_of(objects: &[&WatchedApiKey], now: Timestamp) -> u8 {
    let is_well = |object: &&WatchedApiKey| {
        let view = View::new(object, now);
        view.has_valid_key() || view.is_unready_on_purpose()
    };
    if objects.iter().all(is_well) { 0 } else { NOT_READY }
}

pub async fn status(session: &Session, selector: Option<&str>, watch: bool) -> Result<u8, Failure> {
    let (mut before, mut looks) = (None, Looks::new());
    loop {
        let Some(shown) = looks.seen(table_of(session, selector, &Filter::default(), true).await)? else {
            tokio::time::sleep(WATCH_INTERVAL).await;
            continue;
        };
        if !watch {
            write(session, &shown)?;
            return Ok(shown.code);
        }
        // Not the text, in which ages change all the time.
        let state: Vec<_> = shown.objects.iter().map(|object| object.raw.clone()).collect();
        if before.as_ref() != Some(&state) {
            if session.format.is_for_people() {
                print(&format!("{}\n{}\n", session.now().strftime("%T UTC"), shown.text))?;
            } else {
                begin_document(session.format, before.is_none())?;
                write_objects(session.format, &shown.objects, String::new)?;
            }
            before = Some(state);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

pub async fn list(session: &Session, selector: Option<&str>, filter: &Filter) -> Result<u8, Failure> {
    let shown = table_of(session, selector, filter, false).await?;
    write(session, &shown)?;
    Ok(shown.code)
}

struct Shown {
    objects: Vec<Object>,
    text: String,
    code: u8,
    is_filtered: bool,
}

async fn table_of(
    session: &Session,
    selector: Option<&str>,
    filter: &Filter,
    bars: bool,
) -> Result<Shown, Failure> {
    let scope = session.cluster.scope();
    let objects = session.cluster.list(scope, selector).await?;
    let now = session.now();
    let read: Vec<WatchedApiKey> = objects.iter().map(|object| object.read.clone()).collect();
    let shown = by_urgency(&read, filter, now);
    let is_filtered = shown.len() < objects.len();
    let columns = Columns { all_namespaces: scope.is_none(), wide: session.format == Format::Wide, bars };
    let chosen: Vec<&WatchedApiKey> = shown.iter().map(|index| &read[*index]).collect();
    let (text, code) = (render(&chosen, columns, now), code_of(&chosen, now));
    let objects = shown.into_iter().map(|index| objects[index].clone()).collect();
    Ok(Shown { objects, text, code, is_filtered })
}

fn write(session: &Session, shown: &Shown) -> Result<(), Failure> {
    if shown.objects.is_empty() && session.format.is_for_people() {
        let place = session.cluster.scope().unwrap_or("any namespace");
        let (what, next) = if shown.is_filtered {
            ("no BoltzApiKey is so", "kubectl boltz list  # without filters")
        } else {
            ("no BoltzApiKeys", "kubectl boltz list -A  # to create one: kubectl explain boltzapikey.spec")
        };
        tell(&format!("{what} in {place}\nnext: {next}"));
        return Ok(());
    }
    write_objects(session.format, &shown.objects, || shown.text.clone())
}

/// JSON and names need nothing between them.
fn begin_document(format: Format, is_first: bool) -> Result<(), Failure> {
    if format == Format::Yaml && !is_first { print("---\n") } else { Ok(()) }
}

/// The object as JSON, YAML or its name, else that text.
pub fn write_object(format: Format, object: &Object, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let name = || format!("{}\n", resource_name(object));
    format.write(&object.raw, || if format == Format::Name { name() } else { text() })
}

/// The objects as JSON, YAML or names, else that text.
pub fn write_objects(
    format: Format,
    objects: &[Object],
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let names = || objects.iter().map(|object| format!("{}\n", resource_name(object))).collect();
    let text = || if format == Format::Name { names() } else { text() };
    format.write(&list_of(objects.iter().map(|object| object.raw.clone()).collect()), text)
}

pub fn resource_name(object: &Object) -> String {
    format!("boltzapikey.boltz.bio/{}", object.read.name_any())
}

pub async fn status_of(session: &Session, name: &str, watch: bool) -> Result<u8, Failure> {
    let (mut before, mut looks) = (None, Looks::new());
    loop {
        let Some(object) = looks.seen(session.cluster.get(name).await)? else {
            tokio::time::sleep(WATCH_INTERVAL).await;
            continue;
        };
        let view = View::new(&object.read, session.now());
        let code = code_of(&[&object.read], session.now());
        let (mut text, mut users) = (String::new(), None);
        if session.format.is_for_people() {
            let found = users_in(session, &view).await;
            let why = found.as_ref().err().map(Failure::short).unwrap_or_default();
            text = tree::render(&view, found.as_deref().map_err(|_| why.as_str()));
            users = found.ok();
        }
        let state = (object.raw.clone(), users);
        if before.as_ref() != Some(&state) {
            begin_document(session.format, before.is_none())?;
            write_object(session.format, &object, || text)?;
            before = Some(state);
        }
        if !watch {
            return Ok(code);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// The containers that use the object's Secret.
pub async fn users_in(session: &Session, view: &View<'_>) -> Result<Vec<User>, Failure> {
    let name = view.object.name_any();
    let by_spec = view.object.spec.as_ref().map(|spec| spec.secret_name(&name));
    let in_status = view.status().and_then(|status| status.secret_name.as_deref());
    let secret = in_status.or(by_spec.ok()).unwrap_or(&name);
    let pods = session.cluster.pods().await?;
    Ok(users_of(&pods, secret, view.issued_at(), view.now))
}

pub async fn users(session: &Session, name: &str) -> Result<u8, Failure> {
    let object = session.cluster.get(name).await?;
    let view = View::new(&object.read, session.now());
    let found = users_in(session, &view).await?;
    let text = || {
        if session.format == Format::Name {
            return found.iter().map(|user| format!("pod/{}\n", user.pod)).collect();
        }
        if found.is_empty() {
            return "no pod uses the Secret\n".to_owned();
        }
        let row = |user: &User| {
            let started = or_dash(user.started_at, |at| relative(at, view.now));
            let User { pod, container, workload, source, .. } = user;
            let copy = user.copy_text(view.now);
            vec![pod.clone(), container.clone(), workload.clone(), source.text(), started, copy]
        };
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        let mut text = table(&["POD", "CONTAINER", "WORKLOAD", "SOURCE", "STARTED", "COPY"], &rows);
        let commands = restarts(&found, &session.cluster.namespace);
        if !commands.is_empty() {
            text.push_str("\nTo give the current key to what still runs with an old one:\n");
            text.extend(commands.into_iter().map(|command| format!("  {command}\n")));
        }
        text
    };
    session.format.write(&json!({"users": found}), text)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_key_is_not_ready_whatever_its_condition_says() {
        use crate::pure::samples::{NOW, object};
        let ready = json!([{
            "type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": NOW,
        }]);
        for (expires_at, code) in [("2026-11-26T12:00:01Z", 0), (NOW, NOT_READY)] {
            let object = object("a", json!({}), json!({"conditions": ready, "expiresAt": expires_at}));
            assert_eq!(code_of(&[&object], NOW.parse().unwrap()), code, "{expires_at}");
        }
    }
}

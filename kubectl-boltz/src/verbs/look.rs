//! Verbs that change nothing.

use super::Session;
use crate::{
    cluster::Object,
    failure::{Failure, NOT_READY},
    output::{Format, list_of, print, tell},
    pure::{
        explain::{self, event_time},
        list::{Columns, Filter, by_urgency, render},
        object::View,
        tree,
        users::{User, restarts, users as users_of},
        whose::{self, Owner, Question},
    },
    words::{or_dash, plain, relative, table},
};
use boltz_operator::{api::WatchedApiKey, explain as reasons};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value as Json, json};
use std::{io::Read, time::Duration};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Longer than any key, and what stands around it.
const MAX_TEXT: usize = 64 * 1024;
/// The alerts of the chart.
const ALERTS: &str = include_str!("../../../charts/boltz-operator/files/alerts.yaml");

/// Names and pages.
macro_rules! runbooks {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../docs/runbooks/", $name, ".md")))),*]
    };
}

/// What to do after each alert.
const RUNBOOKS: &[(&str, &str)] = runbooks![
    "BoltzApiKeyExpired",
    "BoltzApiKeyExpiresSoon",
    "BoltzApiKeyMintLoop",
    "BoltzApiKeyNotReady",
    "BoltzApiKeyPreviousKeyStillUsed",
    "BoltzApiKeyRevocationOverdue",
    "BoltzApiKeyRotationOverdue",
    "BoltzApiKeyUnused",
    "BoltzOperatorAdminKeyRefused",
    "BoltzOperatorBoltzUnreachable",
    "BoltzOperatorCannotWatch",
    "BoltzOperatorDown",
    "BoltzOperatorInventoryStale",
    "BoltzOperatorIssueFailures",
    "BoltzOperatorListSuspect",
    "BoltzOperatorOrphanedKeys",
    "BoltzOperatorQueueSaturated",
    "BoltzOperatorRateLimited",
];

/// The types of conditions, and what they say when they are True: as in docs/reference/api.md.
const CONDITIONS: [(&str, &str); 4] = [
    ("Ready", "The Secret contains a valid key. It stays True while a rotation fails."),
    ("Reconciling", "The operator is working, or retries."),
    ("Stalled", "Somebody has to change something. Waiting does not help."),
    (
        "RevocationFailing",
        "A key that should be revoked is still valid, because its revocation fails. The message names the key, since when it \
         should be revoked, and what Boltz answers. Absent until a revocation fails for the first time; False when no key is \
         overdue any more. An object that is being deleted says the same in `Ready`.",
    ),
];

/// 0 if all are ready, or not ready on purpose.
fn code_of(objects: &[&WatchedApiKey], now: Timestamp) -> u8 {
    let is_well = |object: &&WatchedApiKey| {
        let view = View::new(object, now);
        view.has_valid_key() || view.is_unready_on_purpose()
    };
    if objects.iter().all(is_well) { 0 } else { NOT_READY }
}

pub async fn status(session: &Session, selector: Option<&str>, watch: bool) -> Result<u8, Failure> {
    let mut before = None;
    loop {
        let shown = table_of(session, selector, &Filter::default(), true).await?;
        if !watch {
            write(session, &shown)?;
            return Ok(shown.code);
        }
        // Not the text, in which ages change all the time.
        let state: Vec<_> = shown.objects.into_iter().map(|object| object.raw).collect();
        if before.as_ref() != Some(&state) {
            print(&format!("{}\n{}\n", session.now().strftime("%T UTC"), shown.text))?;
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
            ("no BoltzApiKey is so", "kubectl boltz list without filters")
        } else {
            ("no BoltzApiKeys", "kubectl boltz list -A, or kubectl explain boltzapikey.spec to create one")
        };
        tell(&format!("{what} in {place}\nnext: {next}"));
        return Ok(());
    }
    write_objects(session.format, &shown.objects, || shown.text.clone())
}

/// The objects as JSON, YAML or names, else that text.
fn write_objects(format: Format, objects: &[Object], text: impl FnOnce() -> String) -> Result<(), Failure> {
    let names = || objects.iter().map(|object| format!("{}\n", resource_name(object))).collect();
    let text = || if format == Format::Name { names() } else { text() };
    format.write(&list_of(objects.iter().map(|object| object.raw.clone()).collect()), text)
}

pub fn resource_name(object: &Object) -> String {
    format!("boltzapikey.boltz.bio/{}", object.read.name_any())
}

pub async fn status_of(session: &Session, name: &str, watch: bool) -> Result<u8, Failure> {
    let mut before = None;
    loop {
        let object = session.cluster.get(name).await?;
        let view = View::new(&object.read, session.now());
        let code = code_of(&[&object.read], session.now());
        match session.format {
            Format::Json | Format::Yaml => session.format.write(&object.raw, String::new)?,
            Format::Name => print(&format!("{}\n", resource_name(&object)))?,
            Format::Table | Format::Wide => {
                let found = users_in(session, &view).await;
                let why = found.as_ref().err().map(Failure::short).unwrap_or_default();
                let text = tree::render(&view, found.as_deref().map_err(|_| why.as_str()));
                let state = (object.raw.clone(), found.ok());
                if before.as_ref() != Some(&state) {
                    print(&text)?;
                    before = Some(state);
                }
            }
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

pub async fn whose(session: &Session, key: &str) -> Result<u8, Failure> {
    let question = if key == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        if read.is_err() || text.trim().is_empty() {
            return Err(Failure::Other(
                "standard input has no text\nnext: kubectl boltz whose - < FILE".to_owned(),
            ));
        }
        if bytes.len() > MAX_TEXT {
            return Err(Failure::Other(format!(
                "standard input has more than {MAX_TEXT} bytes, and a key may be in the rest\n\
                 next: grep sk_ FILE | kubectl boltz whose -"
            )));
        }
        Question::from_text(&text)
    } else {
        Question::from_argument(key).map_err(|whose::IsAValue| {
            Failure::Other(
                "this looks like the value of a key, and a command line is kept in the shell's history\n\
                 next: give it on standard input: kubectl boltz whose - < FILE"
                    .to_owned(),
            )
        })?
    };
    // Everywhere, if that is allowed.
    let (objects, everywhere) = match session.cluster.list(None, None).await {
        Ok(objects) => (objects, true),
        Err(Failure::Forbidden { .. }) => {
            (session.cluster.list(Some(&session.cluster.namespace), None).await?, false)
        }
        Err(error) => return Err(error),
    };
    let read: Vec<WatchedApiKey> = objects.into_iter().map(|object| object.read).collect();
    let owners = whose::owners(&question, &read);
    if owners.is_empty() {
        let lists = super::orphans::published(session, None).await.unwrap_or_default();
        let orphans: Vec<_> = lists.into_iter().flat_map(|list| list.list.orphans).collect();
        if let Some(orphan) = whose::orphan(&question, &orphans) {
            let text = || {
                format!(
                    "an orphan: no BoltzApiKey and no Secret refers to the key {}\nnext: kubectl boltz orphans\n",
                    plain(&orphan.key_id)
                )
            };
            session.format.write(&json!({"owners": [], "orphan": orphan}), text)?;
            return Ok(0);
        }
        let place = if everywhere {
            "in this cluster".to_owned()
        } else {
            format!(
                "in the namespace {}, the only one that was looked at: you may not list boltzapikeys in all",
                session.cluster.namespace
            )
        };
        let status = |object: &WatchedApiKey| object.status.clone().unwrap_or_default();
        let is_old =
            read.iter().map(status).any(|status| status.key_id.is_some() && status.value_sha256.is_none());
        let hint = match question {
            Question::Hashes(_) if is_old => {
                " Not every status has valueSHA256: the operator or its CRD is older."
            }
            Question::Hashes(_) => " Only current keys can be found by their value.",
            _ => "",
        };
        return Err(Failure::NotReady(format!(
            "no BoltzApiKey {place} has this key.{hint}\nnext: kubectl boltz keys -A"
        )));
    }
    let text = || {
        let line = |owner: &Owner| {
            let Owner { namespace, name, role, key_id } = owner;
            if session.format == Format::Name {
                return format!("{namespace}/{name}\n");
            }
            let id = key_id.as_deref().map(|id| format!(" ({})", plain(id))).unwrap_or_default();
            format!(
                "{namespace}/{name}: {}{id}\nnext: kubectl boltz status {name} --namespace {namespace}; if the key has leaked: \
                 kubectl boltz revoke-leaked {name} --namespace {namespace}\n",
                role.text()
            )
        };
        owners.iter().map(line).collect()
    };
    session.format.write(&json!({"owners": owners}), text)?;
    Ok(0)
}

pub async fn explain(session: &Session, what: &str) -> Result<u8, Failure> {
    // Names of objects have no capitals, so that this hides none.
    if let Some(topic) = topic(|known| known == what) {
        return topic.show(session);
    }
    let object = match session.cluster.get(what).await {
        Ok(object) => object,
        Err(failure) => {
            if let Some(topic) = topic(|known| known.eq_ignore_ascii_case(what)) {
                return topic.show(session);
            }
            return Err(match failure {
                Failure::NotFound { namespace, .. } => Failure::Other(format!(
                    "{what} is no reason, no condition, no alert, and no BoltzApiKey in the namespace {namespace}\n\
                     next: kubectl boltz list -A, or one of the reasons: {}",
                    reasons::explanations().map(|known| known.reason).collect::<Vec<_>>().join(", ")
                )),
                other => other,
            });
        }
    };
    let view = View::new(&object.read, session.now());
    let namespace = Some(session.cluster.namespace.as_str());
    let events = session.cluster.events(namespace, Some(what)).await;
    let newest = events.map(|events| events[events.len().saturating_sub(10)..].to_vec());
    let why = newest.as_ref().err().map(Failure::short).unwrap_or_default();
    let text = || explain::render(&view, newest.as_deref().map_err(|_| why.as_str()));
    session.format.write(&object.raw, text)?;
    Ok(code_of(&[&object.read], session.now()))
}

/// What is explained that is no object.
struct Topic {
    value: Json,
    text: String,
}

impl Topic {
    fn show(self, session: &Session) -> Result<u8, Failure> {
        session.format.write(&self.value, || self.text).map(|()| 0)
    }
}

/// The reason, condition or alert with such a name.
fn topic(is: impl Fn(&str) -> bool) -> Option<Topic> {
    if let Some(known) = reasons::explanations().find(|known| is(known.reason)) {
        let reasons::Explanation { reason, meaning, action } = known;
        return Some(Topic {
            value: json!({"reason": reason, "meaning": meaning, "action": action}),
            text: format!("{reason}\n  meaning: {meaning}\n  what to do: {action}\n"),
        });
    }
    if let Some((condition, meaning)) = CONDITIONS.into_iter().find(|(condition, _)| is(condition)) {
        return Some(Topic {
            value: json!({"condition": condition, "meaning": meaning}),
            text: format!("{condition}\n  True means: {meaning}\n"),
        });
    }
    let (name, summary) = alerts().into_iter().find(|(name, _)| is(name))?;
    let runbook = RUNBOOKS.iter().find(|(known, _)| *known == name).map_or("", |(_, page)| *page);
    // The heading is the name again.
    let steps = runbook.split_once('\n').map_or("", |(_, steps)| steps.trim());
    Some(Topic {
        value: json!({"alert": name, "meaning": summary, "runbook": runbook}),
        text: format!("{name}\n  meaning: {summary}\n\n{steps}\n"),
    })
}

/// Names and summaries of the alerts of the chart.
fn alerts() -> Vec<(String, String)> {
    let alerts: Json = serde_saphyr::from_str(ALERTS).unwrap_or_default();
    let groups = alerts["groups"].as_array().into_iter().flatten();
    let rules = groups.filter_map(|group| group["rules"].as_array()).flatten();
    let text = |value: &Json| value.as_str().unwrap_or_default().trim().to_owned();
    let alerts = rules.map(|rule| (text(&rule["alert"]), text(&rule["annotations"]["summary"])));
    alerts.filter(|(name, _)| !name.is_empty()).collect()
}

pub async fn events(session: &Session, name: Option<&str>) -> Result<u8, Failure> {
    let events = session.cluster.events(session.cluster.scope(), name).await?;
    let now = session.now();
    if events.is_empty() && session.format.is_for_people() {
        tell("no events. Kubernetes keeps them for an hour.\nnext: kubectl boltz status");
        return Ok(0);
    }
    let text = || {
        let row = |event: &k8s_openapi::api::core::v1::Event| {
            let text = |text: Option<&String>| or_dash(text, |text| plain(text));
            let object = &event.involved_object;
            let name = format!(
                "{}/{}",
                plain(object.namespace.as_deref().unwrap_or_default()),
                plain(object.name.as_deref().unwrap_or_default())
            );
            vec![
                or_dash(event_time(event), |time| relative(time.0, now)),
                text(event.type_.as_ref()),
                text(event.reason.as_ref()),
                name,
                text(event.message.as_ref()),
            ]
        };
        if session.format == Format::Name {
            return events.iter().map(|event| format!("event/{}\n", event.name_any())).collect();
        }
        let rows: Vec<Vec<String>> = events.iter().map(row).collect();
        table(&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], &rows)
    };
    session.format.write(&json!({"events": events}), text)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_of_the_chart_is_explained_by_its_runbook() {
        let alerts = alerts();
        assert!(alerts.len() > 10, "{alerts:?}");
        for (name, summary) in alerts {
            let Topic { value, text } = topic(|known| known == name).unwrap();
            assert!(!summary.is_empty() && text.contains("## What to do"), "{text}");
            assert!(!text.contains("{{"), "{text}");
            assert!(value["runbook"].as_str().unwrap().starts_with(&format!("# {name}\n")), "{value}");
        }
    }

    #[test]
    fn conditions_and_reasons_are_explained() {
        let reference = include_str!("../../../docs/reference/api.md");
        for (condition, meaning) in CONDITIONS {
            let row = format!("| `{condition}` | {meaning} |");
            assert!(
                reference.lines().any(|line| line == row),
                "docs/reference/api.md lacks this row:\n{row}"
            );
        }
        for (name, begin) in [
            ("RevocationFailing", Some("RevocationFailing\n  True means: A key that")),
            ("Pending", Some("Pending\n  meaning: A key is")),
            // It may be the name of an object.
            ("pending", None),
        ] {
            let text = topic(|known| known == name).map(|topic| topic.text);
            assert_eq!(text.is_some(), begin.is_some(), "{name}");
            assert!(text.unwrap_or_default().starts_with(begin.unwrap_or_default()), "{name}");
        }
    }

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

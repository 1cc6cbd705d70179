//! `explain` and `events`.

use super::{
    Session,
    look::{self, code_of},
};
use crate::{
    failure::Failure,
    output::{Format, tell},
    pure::{
        explain::{self, event_time},
        object::View,
    },
    words::{or_dash, plain, relative, table},
};
use boltz_operator::explain as reasons;
use kube::ResourceExt;
use serde_json::{Value as Json, json};

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
    "BoltzApiKeyRestartUnfinished",
    "BoltzApiKeyRevocationOverdue",
    "BoltzApiKeyRotationOverdue",
    "BoltzApiKeyUnused",
    "BoltzOperatorAdminKeyRefused",
    "BoltzOperatorAdminKeyUnchecked",
    "BoltzOperatorAdminKeyUnproved",
    "BoltzOperatorAdminKeyExpiresSoon",
    "BoltzOperatorBoltzUnreachable",
    "BoltzOperatorCannotWatch",
    "BoltzOperatorDown",
    "BoltzOperatorInventoryStale",
    "BoltzOperatorIssueFailures",
    "BoltzOperatorListSuspect",
    "BoltzOperatorNoLeader",
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
        "A key that should be revoked is still valid, because its revocation fails. The message names the key, says since when \
         it should be revoked, and quotes Boltz's answer. Absent until a revocation fails for the first time; False when no key is \
         overdue any more. An object that is being deleted says the same in `Ready`.",
    ),
];

pub async fn explain(session: &Session, what: &str) -> Result<u8, Failure> {
    // Names of objects have no capitals, so that this hides none.
    if let Some(topic) = topic(|known| known == what) {
        return topic.show(session);
    }
    super::in_one_namespace(session)?;
    let object = match session.cluster.get(what).await {
        Ok(object) => object,
        Err(failure) => {
            if let Some(topic) = topic(|known| known.eq_ignore_ascii_case(what)) {
                return topic.show(session);
            }
            return Err(match failure {
                Failure::NotFound { namespace, .. } => Failure::Other(format!(
                    "{what} is no reason, no condition, no alert, and no BoltzApiKey in the namespace {namespace}\n\
                     the reasons are: {}\nnext: kubectl boltz list -A",
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
    look::write_object(session.format, &object, text)?;
    Ok(code_of(&[&object.read], session.now()))
}

/// What is explained that is no object.
struct Topic {
    name: String,
    value: Json,
    text: String,
}

impl Topic {
    fn show(self, session: &Session) -> Result<u8, Failure> {
        let text = || if session.format == Format::Name { format!("{}\n", self.name) } else { self.text };
        session.format.write(&self.value, text).map(|()| 0)
    }
}

/// The reason, condition or alert with such a name.
fn topic(is: impl Fn(&str) -> bool) -> Option<Topic> {
    if let Some(known) = reasons::explanations().find(|known| is(known.reason)) {
        let reasons::Explanation { reason, meaning, look, action, avoid } = known;
        let commands: String = look.iter().map(|command| format!("    {command}\n")).collect();
        return Some(Topic {
            name: reason.to_owned(),
            value: json!({
                "reason": reason, "meaning": meaning, "look": look, "action": action, "avoid": avoid,
            }),
            text: format!(
                "{reason}\n  meaning: {meaning}\n  how to look:\n{commands}  what to do: {action}\n  what not to do: {avoid}\n"
            ),
        });
    }
    if let Some((condition, meaning)) = CONDITIONS.into_iter().find(|(condition, _)| is(condition)) {
        return Some(Topic {
            name: condition.to_owned(),
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
        name,
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
            let Topic { value, text, .. } = topic(|known| known == name).unwrap();
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
            ("RevocationFailing", Some("RevocationFailing\n  meaning: A key that")),
            ("Pending", Some("Pending\n  meaning: A key is being issued. If")),
            // Of `Reconciling` and of events.
            ("SecretAltered", Some("SecretAltered\n  meaning: The key in")),
            ("NoKeyOverdue", Some("NoKeyOverdue\n  meaning: Only in")),
            // Of events and of revocations only.
            ("NotRolledOut", Some("NotRolledOut\n  meaning: The rollout")),
            ("KeysLeftBehind", Some("KeysLeftBehind\n  meaning: The object moved")),
            ("Stray", Some("Stray\n  meaning: A key was revoked")),
            // It may be the name of an object.
            ("pending", None),
        ] {
            let text = topic(|known| known == name).map(|topic| topic.text);
            assert_eq!(text.is_some(), begin.is_some(), "{name}");
            assert!(text.unwrap_or_default().starts_with(begin.unwrap_or_default()), "{name}");
        }
        for known in reasons::explanations() {
            let Topic { text, .. } = topic(|name| name == known.reason).unwrap();
            for part in [known.meaning, known.look[0], known.action, known.avoid] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

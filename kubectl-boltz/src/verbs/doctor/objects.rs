//! What the objects say: only the operator knows whether it reaches Boltz.

use super::{Finding, Grade};
use crate::{
    cluster::Object,
    failure::Failure,
    pure::object::View,
    verbs::{Session, operator::Operator},
    words::plain,
};
use boltz_operator::api::BoltzApiKeyStatus;
use jiff::Timestamp;
use kube::ResourceExt;

/// The smallest object; it needs no file.
const TEST_OBJECT: &str = "create one in test mode: printf '{\"apiVersion\":\"boltz.bio/v1alpha1\",\"kind\":\"BoltzApiKey\",\
                           \"metadata\":{\"name\":\"trial\"},\"spec\":{\"mode\":\"test\"}}' | kubectl apply --filename -";

/// What the objects say of the admin key, of the way to Boltz, of Boltz's list and of clocks: only the operator knows these.
pub async fn objects(session: &Session, operators: &[Operator]) -> Vec<Finding> {
    let listed = match session.cluster.list(None, None).await {
        Err(Failure::Forbidden { .. }) => session.cluster.list(Some(&session.cluster.namespace), None).await,
        other => other,
    };
    let objects = match listed {
        Ok(objects) => objects,
        Err(failure) => return vec![Finding::unknown("Boltz", &failure)],
    };
    if objects.is_empty() {
        return vec![Finding::new(
            "Boltz",
            Grade::Unknown,
            "there is no BoltzApiKey that could say whether the operator reaches Boltz",
            TEST_OBJECT,
        )];
    }
    let mut findings = Vec::new();
    for (check, reason, fix) in [
        (
            "admin key",
            "BoltzUnauthorized",
            "put a valid admin key of this organization into the operator's Secret (docs/install.md)",
        ),
        (
            "egress to Boltz",
            "BoltzUnavailable",
            "check NetworkPolicies and the proxy; the message has the error",
        ),
        (
            "Boltz's list",
            "KeyDoubtful",
            "look at Boltz's console; if somebody revoked these keys on purpose, confirm it: kubectl boltz explain \
             BoltzOperatorListSuspect",
        ),
        ("clocks", "ClockSkew", "set the clock of the operator's node"),
        ("names at Boltz", "NamesAltered", "ask Boltz, then restart the operator with --retry-altered-names"),
    ] {
        let said: Vec<(String, String)> = objects
            .iter()
            .filter_map(|object| {
                let conditions = &object.read.status.as_ref()?.conditions;
                let said = conditions.iter().find(|condition| {
                    let tells = (condition.type_ == "Ready") == (condition.status == "False");
                    tells && condition.reason == reason
                })?;
                Some((full_name(object, session.now()), plain(&said.message)))
            })
            .collect();
        findings.push(match said.split_first() {
            Some(((name, message), [])) => {
                Finding::new(check, Grade::Bad, format!("{name} says: {message}"), fix)
            }
            Some(((name, message), others)) => {
                let message = format!("{name} and {} more say: {message}", others.len());
                Finding::new(check, Grade::Bad, message, fix)
            }
            None => match unseen_by_objects(check) {
                Some(fix) => Finding::new(
                    check,
                    Grade::Unknown,
                    "no BoltzApiKey reports a problem; one that needs nothing of Boltz now would not",
                    fix,
                ),
                None => Finding::good(check, "no BoltzApiKey reports a problem"),
            },
        });
    }
    findings.extend(unseen(session, operators, &objects));
    findings
}

/// Who knows more, of what objects do not say while they need nothing.
fn unseen_by_objects(check: &str) -> Option<&'static str> {
    match check {
        "admin key" | "clocks" => Some(
            "who may read the ConfigMap <lease name>-account in the operator's namespace sees here what the operator says",
        ),
        "egress to Boltz" => Some(
            "the operator's metrics and log say more: kubectl boltz explain BoltzOperatorBoltzUnreachable",
        ),
        _ => None,
    }
}

fn unseen(session: &Session, operators: &[Operator], objects: &[Object]) -> Option<Finding> {
    let is_unseen =
        |object: &&Object| object.read.status.as_ref().is_none_or(BoltzApiKeyStatus::is_untouched);
    let unseen = objects.iter().find(is_unseen)?;
    let watched: Vec<Vec<String>> =
        operators.iter().map(|operator| operator.settings.list("watch-namespaces")).collect();
    let namespace = unseen.read.namespace().unwrap_or_default();
    let is_watched =
        watched.is_empty() || watched.iter().any(|names| names.is_empty() || names.contains(&namespace));
    let selectors: Vec<String> =
        operators.iter().filter_map(|operator| operator.settings.get("label-selector")).collect();
    let fix = if !is_watched {
        format!(
            "add {namespace} to watchNamespaces of the chart: the operator watches only {}",
            watched.concat().join(", ")
        )
    } else if selectors.is_empty() {
        "does an operator run, and does it watch this namespace (watchNamespaces, labelSelector)?".to_owned()
    } else {
        format!("does the object have the labels that the operator selects ({})?", selectors.join("; "))
    };
    let message = format!("no operator has looked at {}", full_name(unseen, session.now()));
    Some(Finding::new("objects", Grade::Bad, message, fix))
}

fn full_name(object: &Object, now: Timestamp) -> String {
    View::new(&object.read, now).full_name()
}

//! Who scrapes the operator, and who has its alerts: only where the Prometheus operator is installed can this be seen.

use super::{Finding, Grade};
use crate::{
    cluster::{call, in_time},
    failure::{Failure, is_not_found},
    verbs::{Session, operator::Operator},
};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use std::collections::BTreeMap;

const SCRAPES: &str = "monitoring";
const ALERTS: &str = "alerts";
/// One that every installation needs.
const ONE_ALERT: &str = "BoltzOperatorDown";

pub async fn monitoring(session: &Session, operators: &[Operator]) -> Vec<Finding> {
    let discovery = session.cluster.client.list_api_group_resources("monitoring.coreos.com/v1");
    match in_time(discovery).await {
        Ok(Ok(_)) => {}
        Ok(Err(kube::Error::Api(status))) if is_not_found(&status) => {
            return vec![Finding::new(
                SCRAPES,
                Grade::Care,
                "the Prometheus operator is not installed",
                "scrape the operator's port 8080 in another way (docs/reference/metrics.md)",
            )];
        }
        Ok(Err(error)) => {
            let failure = Failure::from_kube(error, "discover", "servicemonitors", None);
            return vec![Finding::unknown(SCRAPES, &failure)];
        }
        Err(failure) => return vec![Finding::unknown(SCRAPES, &failure)],
    }
    let mut findings = Vec::new();
    for operator in operators {
        findings.push(
            scraped(session, operator).await.unwrap_or_else(|failure| Finding::unknown(SCRAPES, &failure)),
        );
    }
    if !operators.is_empty() {
        findings.push(alerts(session).await.unwrap_or_else(|failure| Finding::unknown(ALERTS, &failure)));
    }
    findings
}

/// Whether a ServiceMonitor or a PodMonitor selects the operator.
async fn scraped(session: &Session, operator: &Operator) -> Result<Finding, Failure> {
    let namespace = operator.namespace.as_str();
    let api: Api<Service> = Api::namespaced(session.cluster.client.clone(), namespace);
    let services = call(api.list(&ListParams::default()), "list", "services", Some(namespace)).await?;
    // What a ServiceMonitor can select: the Services in front of the operator's pods.
    let labels: Vec<BTreeMap<String, String>> = services
        .items
        .iter()
        .filter(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| {
                !selector.is_empty()
                    && selector.iter().all(|(name, value)| operator.pod_labels.get(name) == Some(value))
            })
        })
        .map(|service| service.labels().clone())
        .collect();
    let mut monitors = Vec::new();
    for (kind, plural, selectable) in [
        ("ServiceMonitor", "servicemonitors", &labels),
        ("PodMonitor", "podmonitors", &vec![operator.pod_labels.clone()]),
    ] {
        for monitor in list(session, kind, plural).await? {
            if selects(&monitor, namespace, selectable) {
                monitors.push(format!("{kind} {}", name(&monitor)));
            }
        }
    }
    let Operator { name, .. } = operator;
    if monitors.is_empty() {
        return Ok(Finding::new(
            SCRAPES,
            Grade::Care,
            format!("no ServiceMonitor and no PodMonitor selects the Deployment {name}"),
            "metrics.serviceMonitor.enabled=true in the chart's values, and in metrics.serviceMonitor.labels what your \
             Prometheus selects",
        ));
    }
    Ok(Finding::good(SCRAPES, monitors.join(", ")))
}

/// Whether a PrometheusRule has the alerts.
async fn alerts(session: &Session) -> Result<Finding, Failure> {
    let rules = list(session, "PrometheusRule", "prometheusrules").await?;
    let has_alert = |rule: &&DynamicObject| {
        let groups = rule.data["spec"]["groups"].as_array().into_iter().flatten();
        let mut alerts = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        alerts.any(|alert| alert["alert"] == ONE_ALERT)
    };
    Ok(match rules.iter().find(has_alert) {
        Some(rule) => Finding::good(ALERTS, format!("PrometheusRule {}", name(rule))),
        None => Finding::new(
            ALERTS,
            Grade::Care,
            format!("no PrometheusRule has the alert {ONE_ALERT}: nobody is told when the operator stops"),
            "metrics.prometheusRule.enabled=true in the chart's values, and in metrics.prometheusRule.labels what your \
             Prometheus selects",
        ),
    })
}

/// All that the user may see: of the cluster or, without that right, of the operator's namespace.
async fn list(
    session: &Session,
    kind: &'static str,
    plural: &'static str,
) -> Result<Vec<DynamicObject>, Failure> {
    let client = &session.cluster.client;
    let resource = GroupVersionKind::gvk("monitoring.coreos.com", "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&resource, plural);
    let everywhere: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match call(everywhere.list(&ListParams::default()), "list", plural, None).await {
        Err(Failure::Forbidden { .. }) => {}
        // A cluster may have some of these kinds only.
        Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
        listed => return listed.map(|list| list.items),
    }
    let namespace = session.cluster.operator_namespace.as_str();
    let here: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let listed = call(here.list(&ListParams::default()), "list", plural, Some(namespace)).await?;
    Ok(listed.items)
}

/// Whether a monitor selects, in that namespace, something with one of these sets of labels.
fn selects(monitor: &DynamicObject, namespace: &str, labels: &[BTreeMap<String, String>]) -> bool {
    let spec = &monitor.data["spec"];
    let namespaces = &spec["namespaceSelector"];
    let is_in_reach = namespaces["any"] == true
        || match namespaces["matchNames"].as_array() {
            Some(names) if !names.is_empty() => names.iter().any(|name| name == namespace),
            _ => monitor.namespace().as_deref() == Some(namespace),
        };
    // Of expressions nothing is read: they count as fulfilled.
    let wanted = spec["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let fits = |labels: &BTreeMap<String, String>| {
        wanted.iter().all(|(name, value)| {
            value.as_str().is_some_and(|value| labels.get(name).is_some_and(|known| known == value))
        })
    };
    is_in_reach && labels.iter().any(fits)
}

fn name(object: &DynamicObject) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_monitor_selects_by_namespace_and_labels() {
        let labels = [BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())])];
        for (namespace, spec, is) in [
            ("ops", json!({"selector": {"matchLabels": {"a": "1"}}}), true),
            ("ops", json!({"selector": {"matchLabels": {"a": "2"}}}), false),
            ("ops", json!({"selector": {"matchLabels": {"a": "1", "c": "3"}}}), false),
            ("ops", json!({"selector": {}}), true),
            ("monitoring", json!({"selector": {"matchLabels": {"a": "1"}}}), false),
            ("monitoring", json!({"selector": {}, "namespaceSelector": {"matchNames": ["x", "ops"]}}), true),
            ("ops", json!({"selector": {}, "namespaceSelector": {"matchNames": ["x"]}}), false),
            ("monitoring", json!({"selector": {}, "namespaceSelector": {"any": true}}), true),
        ] {
            let monitor = json!({
                "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
                "metadata": {"name": "x", "namespace": namespace}, "spec": spec,
            });
            let monitor: DynamicObject = serde_json::from_value(monitor).unwrap();
            assert_eq!(selects(&monitor, "ops", &labels), is, "{monitor:?}");
            assert!(!selects(&monitor, "ops", &[]), "there is nothing to select");
        }
    }
}

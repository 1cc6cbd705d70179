//! The API server, the CRD, your rights, monitoring.

use super::{Finding, Grade};
use crate::{cluster::call, failure::Failure, verbs::Session};
use boltz_operator::api::BoltzApiKey;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Resource, api::PostParams};
use std::collections::BTreeMap;

/// A field that the newest operator writes: an older CRD drops it.
const NEWEST_FIELD: &str = "valueSHA256";

pub async fn api_server(session: &Session) -> Finding {
    let version = call(session.cluster.client.apiserver_version(), "get", "the version", None).await;
    match version {
        Ok(version) => Finding::good("API server", version.git_version),
        Err(failure) => Finding::unknown("API server", &failure),
    }
}

pub async fn crd(session: &Session) -> Finding {
    const CHECK: &str = "CRD";
    let install = "helm upgrade --install boltz-operator … (docs/install.md), or kubectl apply -f crds/";
    let version = BoltzApiKey::api_version(&());
    match session.cluster.client.list_api_group_resources(&version).await {
        Ok(list) if list.resources.iter().any(|resource| resource.name == "boltzapikeys") => {}
        Ok(_) => return Finding::new(CHECK, Grade::Bad, "BoltzApiKeys are not installed", install),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Finding::new(CHECK, Grade::Bad, "BoltzApiKeys are not installed", install);
        }
        Err(error) => {
            return Finding::unknown(CHECK, &Failure::from_kube(error, "discover", "boltzapikeys", None));
        }
    }
    let request = http::Request::get(format!("/openapi/v3/apis/{version}")).body(Vec::new());
    let Ok(request) = request else { return Finding::good(CHECK, "installed") };
    match session.cluster.client.request_text(request).await {
        Ok(schema) if schema.contains(NEWEST_FIELD) => {
            Finding::good(CHECK, format!("{version} is installed"))
        }
        Ok(_) => Finding::new(
            CHECK,
            Grade::Care,
            format!("older than this program: it has no {NEWEST_FIELD}"),
            "kubectl apply -f crds/ of the operator's release",
        ),
        Err(_) => Finding::good(CHECK, format!("{version} is installed; its schema could not be read")),
    }
}

/// What the user may do, and what each verb needs.
pub async fn rights(session: &Session) -> Finding {
    const CHECK: &str = "your rights";
    let namespace = &session.cluster.namespace;
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (group, resource, verb, what_for) in [
        ("boltz.bio", "boltzapikeys", "get", "status"),
        ("boltz.bio", "boltzapikeys", "list", "list"),
        ("boltz.bio", "boltzapikeys", "patch", "rotate, suspend"),
        ("boltz.bio", "boltzapikeys", "delete", "release"),
        ("", "pods", "list", "users"),
        ("", "events", "list", "events"),
    ] {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.clone()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(session.cluster.client.clone());
        let parameters = PostParams::default();
        let asked = call(api.create(&parameters, &review), "create", "selfsubjectaccessreviews", None).await;
        match asked {
            Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => missing.entry(format!("{verb} {resource}")).or_default().push(what_for),
            Err(failure) => return Finding::unknown(CHECK, &failure),
        }
    }
    if missing.is_empty() {
        return Finding::good(CHECK, format!("everything in the namespace {namespace}"));
    }
    let texts: Vec<String> =
        missing.iter().map(|(right, verbs)| format!("{right} ({})", verbs.join(", "))).collect();
    let can_look = !missing
        .keys()
        .any(|right| right.ends_with("get boltzapikeys") || right.ends_with("list boltzapikeys"));
    let grade = if can_look { Grade::Care } else { Grade::Bad };
    Finding::new(
        CHECK,
        grade,
        format!("in the namespace {namespace} you may not: {}", texts.join("; ")),
        format!(
            "an administrator: kubectl --namespace {namespace} create rolebinding NAME --user YOU --clusterrole {}",
            role_with(missing.keys().map(String::as_str))
        ),
    )
}

/// The smallest ClusterRole of the cluster that has these rights.
fn role_with<'a>(mut rights: impl Iterator<Item = &'a str>) -> &'static str {
    let is_change = |right: &str| right.starts_with("patch ") || right.starts_with("delete ");
    // Nobody should get the keys by the way.
    if rights.any(is_change) { "edit (edit also reads Secrets)" } else { "view" }
}

pub async fn monitoring(session: &Session) -> Finding {
    const CHECK: &str = "monitoring";
    match session.cluster.client.list_api_group_resources("monitoring.coreos.com/v1").await {
        Ok(_) => Finding::good(
            CHECK,
            "the Prometheus operator is installed; the chart's metrics.serviceMonitor uses it",
        ),
        Err(kube::Error::Api(status)) if status.code == 404 => Finding::new(
            CHECK,
            Grade::Care,
            "the Prometheus operator is not installed",
            "scrape the operator's port 8080 in another way (docs/reference/metrics.md)",
        ),
        Err(error) => {
            Finding::unknown(CHECK, &Failure::from_kube(error, "discover", "servicemonitors", None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_gets_no_right_to_read_secrets() {
        for (rights, role) in [
            (&["get boltzapikeys", "list pods"][..], "view"),
            (&["get boltzapikeys", "patch boltzapikeys"], "edit (edit also reads Secrets)"),
            (&["delete boltzapikeys"], "edit (edit also reads Secrets)"),
        ] {
            assert_eq!(role_with(rights.iter().copied()), role, "{rights:?}");
        }
    }
}

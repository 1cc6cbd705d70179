//! The API server, the CRD, your rights.

use super::{Finding, Grade};
use crate::{
    cluster::{call, in_time},
    failure::{Failure, is_not_found},
    verbs::Session,
};
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
    let install = "kubectl boltz crd | kubectl apply --server-side --filename -  # with the operator, by Helm: docs/install.md";
    let version = BoltzApiKey::api_version(&());
    match in_time(session.cluster.client.list_api_group_resources(&version)).await {
        Ok(Ok(list)) if list.resources.iter().any(|resource| resource.name == "boltzapikeys") => {}
        Ok(Ok(_)) => return Finding::new(CHECK, Grade::Bad, "BoltzApiKeys are not installed", install),
        Ok(Err(kube::Error::Api(status))) if is_not_found(&status) => {
            return Finding::new(CHECK, Grade::Bad, "BoltzApiKeys are not installed", install);
        }
        Ok(Err(error)) => {
            return Finding::unknown(CHECK, &Failure::from_kube(error, "discover", "boltzapikeys", None));
        }
        Err(failure) => return Finding::unknown(CHECK, &failure),
    }
    let request = http::Request::get(format!("/openapi/v3/apis/{version}")).body(Vec::new());
    let Ok(request) = request else { return Finding::good(CHECK, "installed") };
    match in_time(session.cluster.client.request_text(request)).await {
        Ok(Ok(schema)) if schema.contains(NEWEST_FIELD) => {
            Finding::good(CHECK, format!("{version} is installed"))
        }
        Ok(Ok(_)) => Finding::new(
            CHECK,
            Grade::Care,
            format!("older than this program: it has no {NEWEST_FIELD}"),
            "kubectl boltz crd | kubectl apply --server-side --filename -",
        ),
        Ok(Err(_)) | Err(_) => {
            Finding::good(CHECK, format!("{version} is installed; its schema could not be read"))
        }
    }
}

/// Who has it may read Secrets too.
const EDIT: &str = "edit";

/// A right, and which verbs of this program need it.
struct Right {
    group: &'static str,
    /// With a subresource: `pods/log`.
    resource: &'static str,
    verb: &'static str,
    needed_by: &'static str,
}

const fn right(
    group: &'static str,
    resource: &'static str,
    verb: &'static str,
    needed_by: &'static str,
) -> Right {
    Right { group, resource, verb, needed_by }
}

/// In the namespace that is looked at.
const ON_OBJECTS: [Right; 6] = [
    right("boltz.bio", "boltzapikeys", "get", "status"),
    right("boltz.bio", "boltzapikeys", "list", "list"),
    right("boltz.bio", "boltzapikeys", "patch", "rotate, suspend"),
    right("boltz.bio", "boltzapikeys", "delete", "release"),
    right("", "pods", "list", "users"),
    right("", "events", "list", "events"),
];

/// In the operator's namespace.
const ON_THE_OPERATOR: [Right; 5] = [
    right("apps", "deployments", "list", "doctor, version, logs, orphans"),
    right("coordination.k8s.io", "leases", "get", "doctor"),
    right("", "configmaps", "get", "orphans, doctor"),
    right("", "pods", "list", "logs"),
    right("", "pods/log", "get", "logs"),
];

/// What the user may do, and what each verb needs.
pub async fn rights(session: &Session) -> Finding {
    const CHECK: &str = "your rights";
    let namespace = &session.cluster.namespace;
    let missing = match missing(session, namespace, &ON_OBJECTS).await {
        Ok(missing) => missing,
        Err(failure) => return Finding::unknown(CHECK, &failure),
    };
    if missing.is_empty() {
        return Finding::good(CHECK, format!("everything in the namespace {namespace}"));
    }
    let can_look = !missing
        .keys()
        .any(|right| right.ends_with("get boltzapikeys") || right.ends_with("list boltzapikeys"));
    let grade = if can_look { Grade::Care } else { Grade::Bad };
    let role = role_with(missing.keys().map(String::as_str));
    Finding::new(CHECK, grade, may_not(namespace, &missing), bind(namespace, role))
}

/// The same for what the operator itself has and says: for those who run it.
pub async fn rights_on_the_operator(session: &Session) -> Finding {
    const CHECK: &str = "your rights on the operator";
    let namespace = &session.cluster.operator_namespace;
    let missing = match missing(session, namespace, &ON_THE_OPERATOR).await {
        Ok(missing) => missing,
        Err(failure) => return Finding::unknown(CHECK, &failure),
    };
    if missing.is_empty() {
        return Finding::good(CHECK, format!("logs, orphans and Leases in the namespace {namespace}"));
    }
    // Kubernetes' own ClusterRoles do not have it.
    let only_leases = missing.keys().all(|right| right.ends_with(" leases"));
    let fix = if only_leases {
        format!(
            "kubectl --namespace {namespace} create role NAME --verb get --resource leases.coordination.k8s.io  # an \
             administrator, and a rolebinding"
        )
    } else {
        bind(namespace, "view")
    };
    Finding::new(CHECK, Grade::Care, may_not(namespace, &missing), fix)
}

fn may_not(namespace: &str, missing: &BTreeMap<String, Vec<&str>>) -> String {
    let texts: Vec<String> =
        missing.iter().map(|(right, verbs)| format!("{right} ({})", verbs.join(", "))).collect();
    format!("in the namespace {namespace} you may not: {}", texts.join("; "))
}

fn bind(namespace: &str, role: &str) -> String {
    let remark = if role == EDIT { "; edit also reads Secrets" } else { "" };
    format!(
        "kubectl --namespace {namespace} create rolebinding NAME --user YOU --clusterrole {role}  # an administrator{remark}"
    )
}

/// The rights that the user does not have in that namespace, each with what needs it.
async fn missing(
    session: &Session,
    namespace: &str,
    rights: &[Right],
) -> Result<BTreeMap<String, Vec<&'static str>>, Failure> {
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let api: Api<SelfSubjectAccessReview> = Api::all(session.cluster.client.clone());
    for Right { group, resource, verb, needed_by } in rights {
        let (name, subresource) =
            resource.split_once('/').map_or((*resource, None), |(name, sub)| (name, Some(sub)));
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    group: Some((*group).to_owned()),
                    resource: Some(name.to_owned()),
                    subresource: subresource.map(str::to_owned),
                    verb: Some((*verb).to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let parameters = PostParams::default();
        let asked =
            call(api.create(&parameters, &review), "create", "selfsubjectaccessreviews", None).await?;
        if !asked.status.is_some_and(|status| status.allowed) {
            missing.entry(format!("{verb} {resource}")).or_default().push(needed_by);
        }
    }
    Ok(missing)
}

/// The smallest ClusterRole of the cluster that has these rights.
fn role_with<'a>(mut rights: impl Iterator<Item = &'a str>) -> &'static str {
    let is_change = |right: &str| right.starts_with("patch ") || right.starts_with("delete ");
    // Nobody should get the keys by the way.
    if rights.any(is_change) { EDIT } else { "view" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_gets_no_right_to_read_secrets() {
        for (rights, role) in [
            (&["get boltzapikeys", "list pods"][..], "view"),
            (&["get boltzapikeys", "patch boltzapikeys"], EDIT),
            (&["delete boltzapikeys"], EDIT),
        ] {
            let found = role_with(rights.iter().copied());
            assert_eq!(found, role, "{rights:?}");
            let (command, remark) =
                bind("team", found).split_once("  # ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            assert!(command.ends_with(&format!("--clusterrole {role}")), "{command}");
            assert_eq!(remark.contains("also reads Secrets"), role == EDIT, "{remark}");
        }
    }
}

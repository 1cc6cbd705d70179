//! `doctor`, `logs` and `version`.

use super::Session;
use crate::{
    cluster::call,
    failure::{Failure, NOT_READY},
    output::{Format, print, tell},
    pure::object::View,
    words::{BAD, CARE, DIM, GOOD, duration, plain, styled},
};
use boltz_operator::api::BoltzApiKey;
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    coordination::v1::Lease,
    core::v1::Pod,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, LogParams, PostParams},
};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The operator's pods and its Deployment have it.
const LABELS: &str = "app.kubernetes.io/name=boltz-operator";
const INTERVAL: Duration = Duration::from_secs(3);
/// A field that the newest operator writes: an older CRD drops it.
const NEWEST_FIELD: &str = "valueSHA256";

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Grade {
    Good,
    /// You have no right to see it.
    Unknown,
    /// Something is missing that is not needed for keys.
    Care,
    Bad,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    check: &'static str,
    grade: Grade,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

impl Finding {
    fn new(check: &'static str, grade: Grade, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade, message: message.into(), fix: fix.into() }
    }

    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Grade::Good, message, "")
    }

    /// A check that could not be made.
    fn unknown(check: &'static str, failure: &Failure) -> Self {
        match failure {
            Failure::Forbidden { .. } => {
                Self::new(check, Grade::Unknown, failure.short(), "ask somebody who may, or ignore it")
            }
            failure => Self::new(check, Grade::Bad, failure.short(), next_of(failure)),
        }
    }
}

fn next_of(failure: &Failure) -> String {
    let text = failure.to_string();
    text.rsplit("next: ").next().filter(|next| *next != text).unwrap_or_default().to_owned()
}

pub async fn doctor(session: &Session, wait: Option<Duration>) -> Result<u8, Failure> {
    let started = Instant::now();
    loop {
        let findings = examine(session).await;
        let is_well = findings.iter().all(|finding| finding.grade != Grade::Bad);
        let is_over = wait.is_none_or(|wait| started.elapsed() > wait);
        if is_well || is_over {
            session.format.write(&json!({"findings": findings}), || text_of(session.format, &findings))?;
            return match (is_well, wait) {
                (true, _) => Ok(0),
                (false, None) => Ok(NOT_READY),
                (false, Some(_)) => Ok(3),
            };
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn text_of(format: Format, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        if format == Format::Name {
            text.push_str(&format!("{}\n", finding.check));
            continue;
        }
        let mark = match finding.grade {
            Grade::Good => styled(GOOD, "✓"),
            Grade::Unknown => styled(DIM, "?"),
            Grade::Care => styled(CARE, "!"),
            Grade::Bad => styled(BAD, "✗"),
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.check, finding.message));
        if !finding.fix.is_empty() {
            text.push_str(&format!("    fix: {}\n", finding.fix));
        }
    }
    text
}

async fn examine(session: &Session) -> Vec<Finding> {
    let mut findings = vec![api_server(session).await];
    if findings[0].grade == Grade::Bad {
        return findings;
    }
    let crd = crd(session).await;
    let has_crd = crd.grade != Grade::Bad;
    findings.push(crd);
    findings.push(rights(session).await);
    findings.push(deployment(session).await);
    findings.push(lease(session).await);
    if has_crd {
        findings.extend(objects(session).await);
    }
    findings.push(monitoring(session).await);
    findings
}

async fn api_server(session: &Session) -> Finding {
    let version = call(session.cluster.client.apiserver_version(), "get", "the version", None).await;
    match version {
        Ok(version) => Finding::good("API server", version.git_version),
        Err(failure) => Finding::unknown("API server", &failure),
    }
}

async fn crd(session: &Session) -> Finding {
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
async fn rights(session: &Session) -> Finding {
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

async fn deployment(session: &Session) -> Finding {
    const CHECK: &str = "operator";
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Deployment> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = ListParams::default().labels(LABELS);
    let found = match call(api.list(&parameters), "list", "deployments", Some(namespace)).await {
        Ok(found) => found.items,
        Err(failure) => return Finding::unknown(CHECK, &failure),
    };
    let Some(deployment) = found.iter().find(|deployment| {
        deployment.labels().get("app.kubernetes.io/component").is_none_or(|component| component != "emulator")
    }) else {
        return Finding::new(
            CHECK,
            Grade::Bad,
            format!("no Deployment with the label {LABELS} in the namespace {namespace}"),
            "--operator-namespace NAME, or install it: docs/install.md",
        );
    };
    let name = deployment.name_any();
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let running =
        deployment.labels().get("app.kubernetes.io/version").map(String::as_str).unwrap_or_default();
    if ready == 0 {
        return Finding::new(
            CHECK,
            Grade::Bad,
            format!("Deployment {name}: none of {wanted} replicas is ready"),
            format!("kubectl --namespace {namespace} describe pods --selector {LABELS}"),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    if !running.is_empty() && minor(running) != minor(own) {
        return Finding::new(
            CHECK,
            Grade::Care,
            format!("Deployment {name} has version {running}, this program {own}"),
            "use the kubectl-boltz of the operator's release",
        );
    }
    Finding::good(
        CHECK,
        format!("Deployment {name}: {ready} of {wanted} replicas are ready {running}").trim_end(),
    )
}

/// The part of a version up to which two fit together.
fn minor(version: &str) -> Vec<&str> {
    version.trim_start_matches('v').split('.').take(2).collect()
}

async fn lease(session: &Session) -> Finding {
    const CHECK: &str = "leader";
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Lease> = Api::namespaced(session.cluster.client.clone(), namespace);
    let leases = match call(api.list(&ListParams::default()), "list", "leases", Some(namespace)).await {
        Ok(leases) => leases.items,
        Err(failure) => return Finding::unknown(CHECK, &failure),
    };
    let held = leases.iter().filter(|lease| lease.name_any().contains("boltz-operator")).find_map(|lease| {
        let spec = lease.spec.as_ref()?;
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        Some((holder.to_owned(), spec.renew_time.as_ref()?.0, spec.lease_duration_seconds.unwrap_or(15)))
    });
    let Some((holder, renewed, seconds)) = held else {
        return Finding::new(
            CHECK,
            Grade::Care,
            "no Lease is held (as with --leader-elect=false)",
            format!("kubectl --namespace {namespace} get leases"),
        );
    };
    let age = session.now().duration_since(renewed);
    if age < SignedDuration::from_secs(-5) {
        return Finding::new(
            CHECK,
            Grade::Care,
            format!("the Lease was renewed {} in the future: clocks differ", duration(age)),
            "set the clock of this machine, or that of the operator's node",
        );
    }
    if age > SignedDuration::from_secs(i64::from(seconds) * 2) {
        return Finding::new(
            CHECK,
            Grade::Bad,
            format!("{} renewed its Lease {} ago", plain(&holder), duration(age)),
            format!("kubectl --namespace {namespace} logs --selector {LABELS} --tail 50"),
        );
    }
    Finding::good(CHECK, format!("{}, renewed {} ago", plain(&holder), duration(age)))
}

/// What the objects say of the admin key, of the way to Boltz and of clocks: only the operator knows these.
async fn objects(session: &Session) -> Vec<Finding> {
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
            "kubectl apply --filename examples/test-mode.yaml",
        )];
    }
    let mut findings = Vec::new();
    for (check, reasons, fix) in [
        (
            "admin key",
            &["BoltzUnauthorized"][..],
            "put a valid admin key of this organization into the operator's Secret (docs/install.md)",
        ),
        (
            "egress to Boltz",
            &["BoltzUnavailable"],
            "check NetworkPolicies and the proxy; the message has the error",
        ),
        ("clocks", &["ClockSkew"], "set the clock of the operator's node"),
        (
            "names at Boltz",
            &["NamesAltered"],
            "ask Boltz, then restart the operator with --retry-altered-names",
        ),
    ] {
        let said = objects.iter().find_map(|object| {
            let conditions = &object.read.status.as_ref()?.conditions;
            let said = conditions.iter().find(|condition| {
                let tells = (condition.type_ == "Ready") == (condition.status == "False");
                tells && reasons.contains(&condition.reason.as_str())
            })?;
            Some((View::new(&object.read, session.now()).full_name(), plain(&said.message)))
        });
        match said {
            Some((name, message)) => {
                findings.push(Finding::new(check, Grade::Bad, format!("{name} says: {message}"), fix));
            }
            None => findings.push(Finding::good(check, "no BoltzApiKey reports a problem")),
        }
    }
    let is_unseen = |object: &&crate::cluster::Object| {
        object.read.status.as_ref().is_none_or(boltz_operator::api::BoltzApiKeyStatus::is_untouched)
    };
    if let Some(unseen) = objects.iter().find(is_unseen) {
        findings.push(Finding::new(
            "objects",
            Grade::Bad,
            format!("no operator has looked at {}", View::new(&unseen.read, session.now()).full_name()),
            "does an operator run, and does it watch this namespace (watchNamespaces, labelSelector)?",
        ));
    }
    findings
}

async fn monitoring(session: &Session) -> Finding {
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

pub async fn logs(session: &Session, name: &str, since: SignedDuration) -> Result<u8, Failure> {
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Pod> = Api::namespaced(session.cluster.client.clone(), namespace);
    let pods = call(api.list(&ListParams::default().labels(LABELS)), "list", "pods", Some(namespace)).await?;
    if pods.items.is_empty() {
        return Err(Failure::Other(format!(
            "no pod of the operator in the namespace {namespace}\nnext: kubectl boltz doctor, or --operator-namespace NAME"
        )));
    }
    let mut count = 0;
    for pod in pods {
        let parameters = LogParams { since_seconds: Some(since.as_secs().max(1)), ..LogParams::default() };
        let name_of_pod = pod.name_any();
        let stream = api.log_stream(&name_of_pod, &parameters);
        let stream = call(stream, "get", "pods/log", Some(namespace)).await?;
        let mut lines = stream.lines();
        let cut = |error: std::io::Error| {
            let why = plain(&error.to_string());
            Failure::Other(format!(
                "the log of the pod {name_of_pod} could not be read to its end: {why}\n\
                 next: kubectl logs {name_of_pod} --namespace {namespace}"
            ))
        };
        while let Some(line) = lines.try_next().await.map_err(cut)? {
            if is_about(&line, &session.cluster.namespace, name) {
                count += 1;
                print(&format!("{}\n", plain(&line)))?;
            }
        }
    }
    if count == 0 {
        tell(&format!(
            "the operator logged nothing of {name} in the last {}\nnext: kubectl boltz events {name}",
            duration(since)
        ));
    }
    Ok(0)
}

/// Whether a line of the log, in JSON or as text, has this namespace and name.
fn is_about(line: &str, namespace: &str, name: &str) -> bool {
    if let Ok(line) = serde_json::from_str::<Json>(line) {
        let has = |key: &str, value: &str| line["fields"][key] == value || line[key] == value;
        return has("namespace", namespace) && has("name", name);
    }
    let has = |key: &str, value: &str| {
        let forms = [format!("{key}=\"{value}\""), format!("{key}={value}")];
        line.split_whitespace().any(|word| forms.iter().any(|form| word == form))
    };
    has("namespace", namespace) && has("name", name)
}

pub async fn version(session: &Session) -> Result<u8, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let server = call(session.cluster.client.apiserver_version(), "get", "the version", None).await;
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Deployment> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = ListParams::default().labels(LABELS);
    let operator = call(api.list(&parameters), "list", "deployments", Some(namespace)).await;
    let operator = operator.map(|list| {
        let versions =
            list.items.iter().filter_map(|one| one.labels().get("app.kubernetes.io/version").cloned());
        versions.collect::<Vec<_>>().join(", ")
    });
    let text_or_why = |found: Result<String, Failure>| match found {
        Ok(text) if text.is_empty() => "not found".to_owned(),
        Ok(text) => text,
        Err(failure) => failure.short(),
    };
    let server = text_or_why(server.map(|version| version.git_version));
    let operator = text_or_why(operator);
    let value = json!({"kubectl-boltz": own, "operator": operator, "apiServer": server});
    session.format.write(&value, || {
        format!("kubectl-boltz {own}\noperator      {operator}\nAPI server    {server}\n")
    })?;
    Ok(0)
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

    #[test]
    fn lines_of_the_log_are_about_one_object() {
        for (line, is) in [
            (r#"{"level":"INFO","fields":{"message":"x","namespace":"team","name":"design"}}"#, true),
            (r#"{"level":"INFO","namespace":"team","name":"design"}"#, true),
            (r#"{"level":"INFO","fields":{"namespace":"team","name":"design-2"}}"#, false),
            (r#"2026-11-26T12:00:00Z  INFO x: replaced namespace="team" name="design" key_id=1"#, true),
            (r#"2026-11-26T12:00:00Z  INFO x: replaced namespace="team" name="design-2""#, false),
            ("", false),
        ] {
            assert_eq!(is_about(line, "team", "design"), is, "{line}");
        }
    }
}

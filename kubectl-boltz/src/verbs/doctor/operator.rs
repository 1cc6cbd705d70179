//! The Deployment, the Lease, and what the objects say: only the operator knows whether it reaches Boltz.

use super::{Finding, Grade};
use crate::{
    cluster::{OPERATOR_LABELS, call},
    failure::Failure,
    pure::object::View,
    verbs::Session,
    words::{duration, plain},
};
use jiff::SignedDuration;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, ResourceExt, api::ListParams};

pub async fn deployment(session: &Session) -> Finding {
    const CHECK: &str = "operator";
    let namespace = session.cluster.operator_namespace.as_str();
    let api: Api<Deployment> = Api::namespaced(session.cluster.client.clone(), namespace);
    let parameters = ListParams::default().labels(OPERATOR_LABELS);
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
            format!("no Deployment with the label {OPERATOR_LABELS} in the namespace {namespace}"),
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
            format!("kubectl --namespace {namespace} describe pods --selector {OPERATOR_LABELS}"),
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

pub async fn lease(session: &Session) -> Finding {
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
            format!(
                "kubectl --namespace {namespace} logs --selector {OPERATOR_LABELS} --tail 50; if its pod runs, see what it \
                 does: kubectl --namespace {namespace} port-forward POD 8080, and /debug on that port"
            ),
        );
    }
    Finding::good(CHECK, format!("{}, renewed {} ago", plain(&holder), duration(age)))
}

/// What the objects say of the admin key, of the way to Boltz and of clocks: only the operator knows these.
pub async fn objects(session: &Session) -> Vec<Finding> {
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

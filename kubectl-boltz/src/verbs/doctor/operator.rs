//! The Deployment, the Lease and the ConfigMaps of an operator.

use super::{Finding, Grade};
use crate::{
    cluster::call,
    verbs::{
        Session,
        operator::{self, Operator, WHERE_IT_IS},
    },
    words::{duration, plain},
};
use boltz_operator::{boltz::account_data, controller::orphan_list};
use jiff::SignedDuration;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::Api;

const DEPLOYMENT: &str = "operator";
const LEADER: &str = "leader";
const MEMORY: &str = "what the operator remembers";
const ORPHANS: &str = "orphans";

/// After this time a leader has checked its admin key and read Boltz's list.
const SETTLED: SignedDuration = SignedDuration::from_mins(5);

/// The operators in their namespace; without any, what is wrong.
pub async fn operators(session: &Session) -> Result<Vec<Operator>, Finding> {
    let operators = operator::operators(session).await;
    let operators = operators.map_err(|failure| Finding::unknown(DEPLOYMENT, &failure))?;
    if operators.is_empty() {
        let namespace = &session.cluster.operator_namespace;
        return Err(Finding::new(
            DEPLOYMENT,
            Grade::Bad,
            format!("no Deployment of the operator in the namespace {namespace}"),
            format!("{WHERE_IT_IS}; or install it: docs/install.md"),
        ));
    }
    Ok(operators)
}

/// What is to be said of one operator.
pub async fn examine(session: &Session, operator: &Operator) -> Vec<Finding> {
    let (leader, leads_for) = lease(session, operator).await.unwrap_or_else(|finding| (finding, None));
    let mut findings = vec![deployment(operator), leader];
    if let Some(lease_name) = operator.settings.get("lease-name") {
        let name = account_data::config_map_name(&lease_name);
        findings.extend(memory(session, operator, &name, leads_for).await);
        let name = orphan_list::config_map_name(&lease_name);
        findings.push(orphans(session, operator, &name, leads_for).await);
    }
    findings
}

fn deployment(operator: &Operator) -> Finding {
    let Operator { name, namespace, wanted, ready, version, selector, .. } = operator;
    let describe = format!("kubectl --namespace {namespace} describe pods --selector {selector}");
    if *wanted == 0 {
        return Finding::new(
            DEPLOYMENT,
            Grade::Bad,
            format!("Deployment {name} is scaled to 0 replicas"),
            format!("kubectl --namespace {namespace} scale deployment {name} --replicas 2"),
        );
    }
    if *ready == 0 {
        let message = format!("Deployment {name}: none of {wanted} replicas is ready");
        return Finding::new(DEPLOYMENT, Grade::Bad, message, describe);
    }
    let own = env!("CARGO_PKG_VERSION");
    if !version.is_empty() && minor(version) != minor(own) {
        return Finding::new(
            DEPLOYMENT,
            Grade::Care,
            format!("Deployment {name} has version {version}, this program {own}"),
            "use the kubectl-boltz of the operator's release",
        );
    }
    if ready < wanted {
        let message = format!("Deployment {name}: only {ready} of {wanted} replicas are ready");
        return Finding::new(DEPLOYMENT, Grade::Care, message, describe);
    }
    let url = operator.settings.get("boltz-base-url").map(|url| format!(", it calls {}", plain(&url)));
    let version = if version.is_empty() { String::new() } else { format!(", version {}", plain(version)) };
    let url = url.unwrap_or_default();
    Finding::good(
        DEPLOYMENT,
        format!("Deployment {name}: {ready} of {wanted} replicas are ready{version}{url}"),
    )
}

/// The part of a version up to which two fit together.
fn minor(version: &str) -> Vec<&str> {
    version.trim_start_matches('v').split('.').take(2).collect()
}

/// Also since when somebody leads, if that is known.
async fn lease(session: &Session, operator: &Operator) -> Result<(Finding, Option<SignedDuration>), Finding> {
    let bad = |message: String, fix: String| Finding::new(LEADER, Grade::Bad, message, fix);
    if operator.settings.get("leader-elect").is_some_and(|value| value == "false") {
        if operator.wanted > 1 {
            return Err(bad(
                format!("{} replicas work at the same time, with --leader-elect=false", operator.wanted),
                format!(
                    "kubectl --namespace {} scale deployment {} --replicas 1  # or config.leaderElect=true",
                    operator.namespace, operator.name
                ),
            ));
        }
        return Err(Finding::good(LEADER, "the only replica, without a Lease (--leader-elect=false)"));
    }
    let Some(name) = operator.settings.get("lease-name") else {
        return Err(Finding::new(
            LEADER,
            Grade::Unknown,
            format!("the name of the Lease is not in the Deployment {}", operator.name),
            "set --lease-name in its arguments",
        ));
    };
    let namespace = operator.lease_namespace();
    let api: Api<Lease> = Api::namespaced(session.cluster.client.clone(), &namespace);
    let found = call(api.get_opt(&name), "get", "leases", Some(&namespace)).await;
    let Some(lease) = found.map_err(|failure| Finding::unknown(LEADER, &failure))? else {
        return Err(bad(
            format!("the Lease {name} does not exist in the namespace {namespace}: no replica has led yet"),
            format!("{}  # may it? {}", operator.logs(), operator.can_i("create", "leases")),
        ));
    };
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let (Some(holder), Some(renewed)) = (holder, spec.renew_time) else {
        return Err(bad(
            format!("nobody holds the Lease {name}: no key is issued, rotated or revoked"),
            format!("{}  # may it? {}", operator.logs(), operator.can_i("update", &format!("leases/{name}"))),
        ));
    };
    let age = session.now().duration_since(renewed.0);
    if age < SignedDuration::from_secs(-5) {
        return Err(Finding::new(
            LEADER,
            Grade::Care,
            format!("the Lease {name} was renewed {} in the future: clocks differ", duration(age)),
            "set the clock of this machine, or that of the operator's node",
        ));
    }
    let seconds = spec.lease_duration_seconds.unwrap_or(15);
    if age > SignedDuration::from_secs(i64::from(seconds) * 2) {
        return Err(bad(
            format!(
                "{} renewed the Lease {name} {} ago, and nobody took it over",
                plain(&holder),
                duration(age)
            ),
            format!(
                "kubectl boltz explain BoltzOperatorNoLeader  # its log: {}; may it? {}",
                operator.logs(),
                operator.can_i("update", &format!("leases/{name}"))
            ),
        ));
    }
    let leads_for = spec.acquire_time.map(|acquired| session.now().duration_since(acquired.0));
    let message = format!("{} holds the Lease {name}, renewed {} ago", plain(&holder), duration(age));
    Ok((Finding::good(LEADER, message), leads_for))
}

/// A ConfigMap that the operator writes; without it, what that means.
async fn config_map(
    session: &Session,
    operator: &Operator,
    check: &'static str,
    name: &str,
    is_late: bool,
    written: &str,
) -> Result<ConfigMap, Finding> {
    let namespace = operator.lease_namespace();
    let api: Api<ConfigMap> = Api::namespaced(session.cluster.client.clone(), &namespace);
    let found = call(api.get_opt(name), "get", "configmaps", Some(&namespace)).await;
    let found = found.map_err(|failure| Finding::unknown(check, &failure))?;
    found.ok_or_else(|| {
        let message = format!(
            "the ConfigMap {name} does not exist in the namespace {namespace}; it is written {written}"
        );
        if is_late {
            let fix =
                format!("{}  # may it write it?", operator.can_i("patch", &format!("configmaps/{name}")));
            return Finding::new(check, Grade::Care, message, fix);
        }
        Finding::new(check, Grade::Unknown, message, "wait")
    })
}

async fn memory(
    session: &Session,
    operator: &Operator,
    name: &str,
    leads_for: Option<SignedDuration>,
) -> Vec<Finding> {
    let is_late = leads_for.is_some_and(|time| time > SETTLED);
    let written = "when the admin key was checked";
    let config_map = match config_map(session, operator, MEMORY, name, is_late, written).await {
        Ok(config_map) => config_map,
        Err(finding) => return vec![finding],
    };
    let data = config_map.data.unwrap_or_default();
    // Several installations may share it, each with keys of its own.
    let values = |key: &str| {
        let suffix = format!(".{key}");
        let written = data.iter().filter(move |(key, value)| key.ends_with(&suffix) && !value.is_empty());
        written.map(|(_, value)| plain(value)).collect::<Vec<String>>()
    };
    if let Some(message) = values(account_data::NAMES_ALTERED).into_iter().next() {
        let fix = "kubectl boltz explain NamesAltered";
        return vec![Finding::new(MEMORY, Grade::Bad, message, fix)];
    }
    let organizations = values(account_data::ORGANIZATION);
    let of = if organizations.is_empty() {
        String::new()
    } else {
        format!(", organization {}", organizations.join(", "))
    };
    let mut findings = vec![Finding::good(MEMORY, format!("ConfigMap {name}{of}"))];
    // Without a leader it says what was.
    if leads_for.is_some() {
        findings.extend(values(account_data::ADMIN_KEY).iter().map(|state| admin_key(state)));
        let skews = values(account_data::CLOCK_SKEW).into_iter().filter_map(|text| text.parse().ok());
        findings.extend(skews.map(clocks));
    }
    findings
}

/// By the state that the leader has published.
fn admin_key(state: &str) -> Finding {
    const CHECK: &str = "admin key";
    let explain = |alert: &str| format!("kubectl boltz explain {alert}");
    match state {
        "valid" => Finding::good(CHECK, "Boltz accepts it, the operator says"),
        "test_mode" => Finding::new(
            CHECK,
            Grade::Care,
            "it is a test-mode key, the operator says: no live keys can be created",
            "put a live admin key into the operator's Secret, if the objects are to get live keys",
        ),
        "refused" => Finding::new(
            CHECK,
            Grade::Bad,
            "it is missing, or Boltz rejects it, the operator says: no key is issued, rotated or revoked",
            explain("BoltzOperatorAdminKeyRefused"),
        ),
        "wrong_organization" => Finding::new(
            CHECK,
            Grade::Bad,
            "it belongs to another organization than the keys, the operator says",
            explain("BoltzOperatorAdminKeyRefused"),
        ),
        "unreachable" => Finding::new(
            CHECK,
            Grade::Bad,
            "Boltz did not answer when it was to be checked, the operator says",
            explain("BoltzOperatorAdminKeyUnchecked"),
        ),
        other => Finding::new(
            CHECK,
            Grade::Unknown,
            format!("its state is {other}, the operator says; this program does not know that"),
            "use the kubectl-boltz of the operator's release",
        ),
    }
}

/// By what the leader has published: it writes differences of more than a minute.
fn clocks(ahead: i64) -> Finding {
    const CHECK: &str = "clocks";
    if ahead == 0 {
        return Finding::good(CHECK, "the operator's clock and Boltz's agree, within a minute");
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let text = duration(SignedDuration::from_secs(ahead));
    Finding::new(
        CHECK,
        Grade::Care,
        format!("the operator's clock is {text} {direction} Boltz's"),
        "set the clock of the operator's node",
    )
}

async fn orphans(
    session: &Session,
    operator: &Operator,
    name: &str,
    leads_for: Option<SignedDuration>,
) -> Finding {
    let interval = operator.settings.get("inventory-interval");
    let interval = interval.and_then(|text| boltz_operator::duration::parse_duration(&text).ok());
    let interval = interval.and_then(|interval| SignedDuration::try_from(interval).ok()).unwrap_or(SETTLED);
    let is_late = leads_for.is_some_and(|time| time > interval.saturating_mul(2) + SETTLED);
    let written = "after two reads of Boltz's list";
    let config_map = match config_map(session, operator, ORPHANS, name, is_late, written).await {
        Ok(config_map) => config_map,
        Err(finding) => return finding,
    };
    let lists = config_map.data.iter().flatten().filter(|(key, _)| key.ends_with(".orphans"));
    let lists = lists.filter_map(|(_, text)| serde_json::from_str::<orphan_list::OrphanList>(text).ok());
    let count: usize = lists.map(|list| list.count).sum();
    if count > 0 {
        return Finding::new(
            ORPHANS,
            Grade::Care,
            format!("{count} active keys of this cluster that no BoltzApiKey and no Secret refers to"),
            format!(
                "kubectl boltz orphans --operator-namespace {}  # before you revoke any: kubectl boltz explain \
                 BoltzOperatorOrphanedKeys",
                operator.namespace
            ),
        );
    }
    Finding::good(ORPHANS, format!("none, says the ConfigMap {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_leader_published_is_told() {
        for (state, grade) in [
            ("valid", Grade::Good),
            ("test_mode", Grade::Care),
            ("refused", Grade::Bad),
            ("wrong_organization", Grade::Bad),
            ("unreachable", Grade::Bad),
            ("later", Grade::Unknown),
        ] {
            let found = admin_key(state);
            assert_eq!((found.check, found.grade), ("admin key", grade), "{state}");
            assert_eq!(found.fix.is_empty(), grade == Grade::Good, "{state}");
        }
        for (ahead, grade, text) in [
            (0, Grade::Good, "agree"),
            (300, Grade::Care, "is 5m ahead of"),
            (-300, Grade::Care, "is 5m behind"),
        ] {
            let found = clocks(ahead);
            assert!(found.grade == grade && found.message.contains(text), "{found:?}");
        }
    }
}

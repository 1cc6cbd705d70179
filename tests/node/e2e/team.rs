//! A team that uses Boltz: its BoltzApiKey, and two programs that authenticate five times a second.

use super::{
    boltz::Boltz,
    cluster::{Cluster, PATIENCE},
};
use boltz_harness::eventually;
use serde_json::{Value as Json, json};

pub const NAMESPACE: &str = "team-a";
/// Of a team that goes.
pub const ANOTHER_NAMESPACE: &str = "team-b";
pub const OBJECT: &str = "design-jobs";
/// Reads the key from a mounted file, for each request.
pub const FROM_FILE: &str = "from-file";
/// Has the key in an environment variable, and is restarted after a rotation.
pub const FROM_ENVIRONMENT: &str = "from-environment";

/// Namespace and object. A new namespace takes a moment to be known everywhere.
pub async fn ask_for_key(cluster: &Cluster, namespace: &str, spec: Json) -> String {
    let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "boltz.bio/v1alpha1",
            "kind": "BoltzApiKey",
            "metadata": {"name": OBJECT, "namespace": namespace},
            "spec": spec,
        },
    ]});
    cluster.apply(&manifests.to_string());
    cluster.kubectl(&format!("-n {namespace} wait --for=condition=Ready boltzapikey/{OBJECT} --timeout=60s"));
    key(cluster, namespace)
}

/// The id of the current key.
pub fn key(cluster: &Cluster, namespace: &str) -> String {
    cluster.kubectl(&format!("-n {namespace} get boltzapikey {OBJECT} -o jsonpath={{.status.keyID}}"))
}

pub async fn start_workloads(cluster: &Cluster, boltz: &Boltz) {
    let base_url = format!("--base-url={}", boltz.base_url);
    let from_file = json!({
        "args": ["workload", base_url, "--key-file=/var/run/secrets/boltz/BOLTZ_API_KEY"],
        "volumeMounts": [{"name": "boltz", "mountPath": "/var/run/secrets/boltz", "readOnly": true}],
    });
    let mut from_file = deployment(cluster, NAMESPACE, FROM_FILE, from_file);
    from_file["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "boltz", "secret": {"secretName": OBJECT}}]);
    let from_environment = from_environment(cluster, boltz, NAMESPACE, FROM_ENVIRONMENT);
    let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [from_file, from_environment]});
    cluster.apply(&manifests.to_string());
    for name in [FROM_FILE, FROM_ENVIRONMENT] {
        cluster.kubectl(&format!("-n {NAMESPACE} rollout status deployment/{name} --timeout=90s"));
    }
}

/// A Deployment whose pods have the key of that namespace in an environment variable.
pub fn from_environment(cluster: &Cluster, boltz: &Boltz, namespace: &str, name: &str) -> Json {
    let base_url = format!("--base-url={}", boltz.base_url);
    let container = json!({"args": ["workload", base_url], "envFrom": [{"secretRef": {"name": OBJECT}}]});
    deployment(cluster, namespace, name, container)
}

fn deployment(cluster: &Cluster, namespace: &str, name: &str, mut container: Json) -> Json {
    container["name"] = json!("workload");
    container["image"] = json!(cluster.images.emulator);
    container["readinessProbe"] = json!({"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
            },
        },
    })
}

pub fn stop_workloads(cluster: &Cluster, namespace: &str) {
    cluster.kubectl(&format!("-n {namespace} scale deployment --all --replicas=0"));
    cluster.kubectl(&format!("-n {namespace} wait --for=delete pod --all --timeout=60s"));
}

/// Asks for a rotation, as people do; `reason` is new each time.
pub fn rotate(cluster: &Cluster, reason: &str) {
    cluster.kubectl(&format!(
        "-n {NAMESPACE} annotate boltzapikey {OBJECT} boltz.bio/rotate={reason} --overwrite"
    ));
}

/// Waits until another key than this one is stored; its id.
pub async fn until_rotated(cluster: &Cluster, from: &str) -> String {
    eventually(PATIENCE, "another key is stored", async || {
        let key = key(cluster, NAMESPACE);
        if key == from { Err(key) } else { Ok(key) }
    })
    .await
    .unwrap()
}

/// The one pod of a workload, and the last key that it authenticated with. None while there are two.
fn pod(cluster: &Cluster, workload: &str) -> Result<(String, String), String> {
    let words = format!("-n {NAMESPACE} get pods -l app={workload} -o jsonpath={{.items[*].metadata.name}}");
    let pod = cluster.try_kubectl(&words)?;
    if pod.contains(' ') {
        return Err(pod);
    }
    let log = cluster.try_kubectl(&format!("-n {NAMESPACE} logs {pod}"))?;
    assert!(!log.contains("refused") && !log.contains("no answer"), "{workload}, {pod}:\n{log}");
    let last = log.lines().filter_map(|line| line.strip_prefix("authenticated as ")).next_back();
    last.map(|key| (pod, key.to_owned())).ok_or(log)
}

/// The pod of a workload, once it uses that key and is the only one.
pub async fn until_used(cluster: &Cluster, workload: &str, key: &str) -> String {
    eventually(2 * PATIENCE, &format!("{workload} uses {key}"), async || match pod(cluster, workload)? {
        (pod, used) if used == key => Ok(pod),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap()
}

/// Object and Secret, with everything but their managers' notes: whatever writes to them, changes these.
pub fn versions(cluster: &Cluster) -> String {
    let words = "get boltzapikey,secret -o jsonpath={range.items[*]}{.kind}/{.metadata.name}@\
                 {.metadata.uid}:{.metadata.resourceVersion}{'\\n'}{end}";
    cluster.kubectl(&format!("-n {NAMESPACE} {words}"))
}

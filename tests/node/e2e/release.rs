//! The operator, installed by Helm from its chart.

use super::{
    boltz::{ADMIN_KEY, Boltz},
    cluster::{Cluster, PATIENCE},
};
use boltz_harness::eventually;
use serde_json::{Value as Json, json};

pub const NAMESPACE: &str = "boltz-system";
pub const NAME: &str = "boltz-operator";
pub const USER: &str = "system:serviceaccount:boltz-system:boltz-operator";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/boltz-operator");

/// The values of an image, from a reference such as `localhost:5000/name:tag`.
pub fn image(reference: &str) -> Json {
    match reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => json!({"repository": repository, "tag": tag}),
        None => json!({"repository": reference, "tag": "latest"}),
    }
}

/// Two replicas, and times for which a test can wait. Half the settle time is how long Boltz's answer may be held.
pub fn values(cluster: &Cluster, boltz: &Boltz) -> Json {
    json!({
        "image": image(&cluster.images.operator),
        "replicaCount": 2,
        "boltz": {"baseURL": boltz.base_url, "allowInsecureHTTP": true},
        "config": {
            "settleTime": "40s", "inventoryInterval": "3s", "requestTimeout": "19s", "logFormat": "text",
        },
        "podDisruptionBudget": {"enabled": true},
        "readinessProbe": {"periodSeconds": 1},
    })
}

/// What people do before `helm install`: the namespace and the Secret with the admin key.
pub fn prepare(cluster: &Cluster) {
    cluster.kubectl(&format!("create namespace {NAMESPACE}"));
    cluster.kubectl(&format!(
        "-n {NAMESPACE} create secret generic boltz-admin-key --from-literal=admin-key={ADMIN_KEY}"
    ));
}

/// `install` or `upgrade`; waits until all replicas are ready, if that is wanted.
pub fn helm(cluster: &Cluster, verb: &str, values: &Json, wait: bool) {
    let wait = if wait { " --wait --timeout 180s" } else { "" };
    cluster.helm(&format!("{verb} {NAME} {CHART} -n {NAMESPACE} -f -{wait}"), &values.to_string());
}

pub fn uninstall(cluster: &Cluster) {
    cluster.helm(&format!("uninstall {NAME} -n {NAMESPACE} --wait --timeout 60s"), "");
}

/// The names of its pods that are not on their way out.
pub fn pods(cluster: &Cluster) -> Vec<String> {
    let words = format!("-n {NAMESPACE} get pods -l app.kubernetes.io/component=operator -o json");
    let pods: Json = serde_json::from_str(&cluster.kubectl(&words)).unwrap();
    let pods = pods["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]);
    let running = pods.filter(|metadata| metadata["deletionTimestamp"].is_null());
    running.map(|metadata| metadata["name"].as_str().unwrap().to_owned()).collect()
}

/// The pod that leads, once it is none of these.
pub async fn leader_other_than(cluster: &Cluster, others: &[&str]) -> String {
    let words = format!("-n {NAMESPACE} get lease {NAME} -o jsonpath={{.spec.holderIdentity}}");
    eventually(PATIENCE, &format!("another than {others:?} leads"), async || {
        let holder = cluster.try_kubectl(&words)?;
        match holder.split_once('_') {
            Some((pod, _)) if !others.contains(&pod) => Ok(pod.to_owned()),
            _ => Err(holder),
        }
    })
    .await
    .unwrap()
}

pub async fn leader(cluster: &Cluster) -> String {
    leader_other_than(cluster, &[]).await
}

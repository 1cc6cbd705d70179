//! A team whose Deployment takes minutes to replace its pods, and whose overlap is over long before.

use super::{boltz::Boltz, cluster::Cluster, team};
use boltz_harness::eventually;
use serde_json::json;
use std::time::{Duration, Instant};

/// Short: names at Boltz show the beginning of longer ones only.
pub const NAMESPACE: &str = "team-c";
const WORKLOAD: &str = "slow";
const REPLICAS: u32 = 2;
/// A new pod has to be ready for so long before the next old one ends.
const MIN_READY: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(400);

/// A rotation that goes on while other things happen.
pub struct SlowRotation {
    old: String,
    since: Instant,
}

impl SlowRotation {
    /// Two pods use a key, and its rotation begins.
    pub async fn begin(cluster: &Cluster, boltz: &Boltz) -> Self {
        let spec = json!({
            "rotation": {"overlap": "20s", "overlapPolicy": "UntilIdle"},
            "rolloutRestartTargets": [{"kind": "Deployment", "name": WORKLOAD}],
        });
        let old = team::ask_for_key(cluster, NAMESPACE, spec).await;
        let mut deployment = team::from_environment(cluster, boltz, NAMESPACE, WORKLOAD);
        deployment["spec"]["replicas"] = json!(REPLICAS);
        deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        cluster.apply(&deployment.to_string());
        cluster.kubectl(&format!("-n {NAMESPACE} rollout status deployment/{WORKLOAD} --timeout=90s"));
        // Not before: the first pods need not wait.
        deployment["spec"]["minReadySeconds"] = json!(MIN_READY.as_secs());
        cluster.apply(&deployment.to_string());
        cluster
            .kubectl(&format!("-n {NAMESPACE} annotate boltzapikey {} boltz.bio/rotate=slow", team::OBJECT));
        Self { old, since: Instant::now() }
    }

    /// Waits until every pod is new and the old key is revoked, which must not come first. How long it took.
    pub async fn end(self, cluster: &Cluster, boltz: &Boltz) -> Duration {
        let state = || {
            let words = "-o jsonpath={.status.restarts[0].state}";
            cluster.kubectl(&format!("-n {NAMESPACE} get boltzapikey {} {words}", team::OBJECT))
        };
        eventually(PATIENCE, "the slow rollout ends, and then the old key", async || {
            let is_revoked = !boltz.active_in(NAMESPACE).await.contains(&self.old);
            let state = state();
            assert!(!is_revoked || state == "Done", "the old key is revoked, and the rollout is {state}");
            if is_revoked { Ok(()) } else { Err(state) }
        })
        .await
        .unwrap();
        let took = self.since.elapsed();
        assert!(took > MIN_READY * REPLICAS, "{took:?}: the rollout was not slow");
        let active = boltz.active_in(NAMESPACE).await;
        assert_eq!(active, [team::key(cluster, NAMESPACE)]);
        took
    }
}

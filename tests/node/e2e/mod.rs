//! From `helm install` to a workload with a working key, on a real node: `make e2e`.
//!
//! One cluster, one story. Two programs use the team's key all the time, and not one of their requests may be refused:
//! not while the key rotates, nor while the operator is drained, killed, upgraded, uninstalled or installed again; nor one
//! of the pods of another team, which take minutes to be replaced.

mod boltz;
mod cluster;
mod release;
mod slow_team;
mod team;

use boltz::Boltz;
use boltz_harness::{PrivateNetwork, eventually};
use cluster::{Cluster, PATIENCE};
use futures::FutureExt;
use serde_json::json;
use slow_team::SlowRotation;
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    process::Command,
    time::Instant,
};

#[test]
fn helm_install_to_a_workload_with_a_working_key() {
    let given = cluster::given();
    let network = given.is_none().then(|| {
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        assert!(
            root,
            "this needs a cluster: name its kubeconfig in E2E_KUBECONFIG=, with IMAGE= and EMULATOR_IMAGE= that it can \
             run; or be root on Debian, and a cluster is made on the spot"
        );
        // What is missing can be built out here only.
        boltz_harness::programs(&["kubectl", "helm"]).unwrap();
        cluster::build_plugin();
        PrivateNetwork::enter().unwrap()
    });
    // Not before: what it starts is in the network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let started = Instant::now();
        let cluster = match (given, &network) {
            (Some(kubeconfig), _) => Cluster::given(kubeconfig),
            (None, Some(network)) => Cluster::own(network).await,
            (None, None) => unreachable!("one of the two"),
        };
        let story = Story { started, cluster };
        let told = AssertUnwindSafe(story.tell()).catch_unwind().await;
        if let Err(panic) = told {
            story.cluster.dump();
            resume_unwind(panic);
        }
        story.cluster.clean_up();
        story.say("done");
    });
}

struct Story {
    started: Instant,
    cluster: Cluster,
}

impl Story {
    fn say(&self, what: &str) {
        println!("{:4} s  {what}", self.started.elapsed().as_secs());
    }

    async fn tell(&self) {
        let cluster = &self.cluster;
        let boltz = Boltz::deploy(cluster).await;
        self.say("Boltz's emulator runs as a pod");
        self.install(&boltz).await;
        let first = self.first_key(&boltz).await;
        self.what_the_plugin_says(&first);
        let slow = SlowRotation::begin(cluster, &boltz).await;
        self.say("another team's key is rotated; its pods will take minutes to be replaced");
        let second = self.rotation(&boltz, &first).await;
        let third = self.drained_leader(&boltz, &second).await;
        let fourth = self.crash_while_a_key_is_made(&boltz, &third).await;
        let fifth = self.upgrade_while_a_key_is_made(&boltz, &fourth).await;
        let took = slow.end(cluster, &boltz).await;
        self.say(&format!(
            "the old key of the slow pods is revoked after {} s, when all are new",
            took.as_secs()
        ));
        self.uninstalled_and_installed_again(&boltz, &fifth).await;
        self.no_request_was_refused(&boltz).await;
        self.deletion(&boltz).await;
        self.deleted_namespace(&boltz).await;
        self.trial_with_the_chart_s_emulator().await;
    }

    async fn install(&self, boltz: &Boltz) {
        let cluster = &self.cluster;
        release::prepare(cluster);
        release::helm(cluster, "install", &release::values(cluster, boltz), true);
        assert_eq!(release::pods(cluster).len(), 2);
        let leader = release::leader(cluster).await;
        self.say(&format!("helm install: two replicas are ready, {leader} leads"));
    }

    async fn first_key(&self, boltz: &Boltz) -> String {
        let cluster = &self.cluster;
        let spec = json!({
            "rotation": {"overlap": cluster.overlap},
            "rolloutRestartTargets": [{"kind": "Deployment", "name": team::FROM_ENVIRONMENT}],
        });
        let key = team::ask_for_key(cluster, team::NAMESPACE, spec).await;
        team::start_workloads(cluster, boltz).await;
        for workload in [team::FROM_FILE, team::FROM_ENVIRONMENT] {
            team::until_used(cluster, workload, &key).await;
        }
        boltz.until_active(&[&key]).await;
        self.say("a BoltzApiKey is Ready, and two workloads use its key");
        key
    }

    /// What somebody on call asks first.
    fn what_the_plugin_says(&self, key: &str) {
        let (namespace, name) = (team::NAMESPACE, team::OBJECT);
        let doctor = self.cluster.plugin("doctor");
        for check in ["operator", "leader", "admin key", "clocks", "Boltz's list"] {
            assert!(doctor.contains(&format!("✓ {check}:")), "{check}: {doctor}");
        }
        assert!(!doctor.contains('✗'), "{doctor}");
        let logs = self.cluster.plugin(&format!("logs {name} --namespace {namespace}"));
        assert!(logs.contains("issued a key") && logs.contains(key), "{logs}");
        let status = self.cluster.plugin(&format!("status {name} --namespace {namespace}"));
        assert!(status.contains(team::FROM_FILE), "the pods that use it: {status}");
        self.say("kubectl boltz: doctor finds nothing, logs and status tell of the key");
    }

    /// A rotation without trouble.
    async fn rotation(&self, boltz: &Boltz, old: &str) -> String {
        let cluster = &self.cluster;
        let from_file = team::until_used(cluster, team::FROM_FILE, old).await;
        let from_environment = team::until_used(cluster, team::FROM_ENVIRONMENT, old).await;
        team::rotate(cluster, "plain");
        let new = team::until_rotated(cluster, old).await;
        self.say("rotated: a new key is stored");
        let running = team::until_used(cluster, team::FROM_FILE, &new).await;
        assert_eq!(running, from_file, "the file changes under the running pod");
        self.say("the mounted file has changed under the running pod");
        let restarted = team::until_used(cluster, team::FROM_ENVIRONMENT, &new).await;
        assert_ne!(restarted, from_environment, "the variable needs another pod");
        assert!(
            boltz.active().await.contains(&old.to_owned()),
            "the old key lives as long as somebody has it"
        );
        self.say("the workload with the environment variable has been restarted");
        boltz.until_active(&[&new]).await;
        self.say("the overlap is over: the old key is revoked");
        new
    }

    /// Two replicas, of which the leader is evicted, as `kubectl drain` does, while it rotates.
    async fn drained_leader(&self, boltz: &Boltz, old: &str) -> String {
        let cluster = &self.cluster;
        let leader = release::leader(cluster).await;
        let creates = self.held_rotation(boltz, "drained").await;
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": leader, "namespace": release::NAMESPACE},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{leader}/eviction", release::NAMESPACE);
        cluster.kubectl_with_input(&format!("create --raw {path} -f -"), &eviction.to_string());
        boltz.release().await;
        let next = release::leader_other_than(cluster, &[&leader]).await;
        self.say(&format!("the leader is drained while Boltz makes a key; {next} leads"));
        let new = team::until_rotated(cluster, old).await;
        assert_eq!(boltz.creates().await, creates + 1, "what was in flight has been finished");
        self.until_both_use(&new).await;
        self.say("the rotation has been finished, with no key more than needed");
        new
    }

    /// The leader is killed between Boltz's answer and the Secret: that key's value is lost for good.
    async fn crash_while_a_key_is_made(&self, boltz: &Boltz, old: &str) -> String {
        let cluster = &self.cluster;
        let leader = release::leader(cluster).await;
        let creates = self.held_rotation(boltz, "crash").await;
        cluster.crash_pod(release::NAMESPACE, &leader);
        boltz.release().await;
        self.say(&format!("{leader} is killed while Boltz makes a key"));
        let new = team::until_rotated(cluster, old).await;
        let made = boltz.creates().await - creates;
        // Elsewhere than on our node it may have had the time to finish.
        assert!(
            made == 2 || made == 1 && cluster.node_address().is_none(),
            "{made}: the lost key and the next one"
        );
        self.until_both_use(&new).await;
        self.say("another key has been issued");
        new
    }

    /// Every pod is replaced while a key is made: the leader finishes it first.
    async fn upgrade_while_a_key_is_made(&self, boltz: &Boltz, old: &str) -> String {
        let cluster = &self.cluster;
        let (leader, before) = (release::leader(cluster).await, release::pods(cluster));
        let creates = self.held_rotation(boltz, "upgrade").await;
        let mut values = release::values(cluster, boltz);
        values["podAnnotations"] = json!({"e2e": "upgraded"});
        release::helm(cluster, "upgrade", &values, false);
        eventually(PATIENCE, "the leader is told to end", async || {
            let pods = release::pods(cluster);
            if pods.contains(&leader) { Err(format!("{pods:?}")) } else { Ok(()) }
        })
        .await
        .unwrap();
        boltz.release().await;
        let new = team::until_rotated(cluster, old).await;
        cluster.kubectl(&format!(
            "-n {} rollout status deployment/{} --timeout=90s",
            release::NAMESPACE,
            release::NAME
        ));
        let after = release::pods(cluster);
        assert!(after.len() == 2 && after.iter().all(|pod| !before.contains(pod)), "{before:?}, {after:?}");
        self.until_both_use(&new).await;
        assert_eq!(boltz.creates().await, creates + 1, "nothing is issued again");
        self.say("helm upgrade replaced every pod while Boltz made a key: nothing was issued again");
        boltz.until_active(&[&new]).await;
        self.say("the old keys are revoked, and the lost one");
        new
    }

    async fn uninstalled_and_installed_again(&self, boltz: &Boltz, key: &str) {
        let cluster = &self.cluster;
        let (before, creates) = (team::versions(cluster), boltz.creates().await);
        assert_eq!(before.lines().count(), 2, "{before}");
        release::uninstall(cluster);
        cluster.kubectl(&format!(
            "-n {} wait --for=delete pod -l app.kubernetes.io/component=operator --timeout=60s",
            release::NAMESPACE
        ));
        assert_eq!(team::versions(cluster), before);
        assert_eq!(boltz.active().await, [key]);
        self.say("helm uninstall: object, Secret and key stay");

        let resources = ["boltzapikeys", "secrets"];
        let writes = cluster.writes(release::USER, &resources).len();
        let passes = boltz.requests("list").await.len();
        release::helm(cluster, "install", &release::values(cluster, boltz), true);
        let leader = release::leader_other_than(cluster, &[""]).await;
        eventually(PATIENCE, "two passes over Boltz's list", async || {
            let now = boltz.requests("list").await.len();
            if now >= passes + 2 { Ok(()) } else { Err(format!("{passes}, now {now}; {leader} leads")) }
        })
        .await
        .unwrap();
        assert_eq!(boltz.creates().await, creates, "nothing is issued again");
        assert_eq!(team::versions(cluster), before, "nothing is written");
        assert_eq!(cluster.writes(release::USER, &resources).len(), writes, "nothing is tried");
        assert_eq!(team::key(cluster, team::NAMESPACE), key);
        self.say("helm install again: adopted, with no key made and nothing written");
    }

    /// The judge's word on everything so far. The workloads end here.
    async fn no_request_was_refused(&self, boltz: &Boltz) {
        let cluster = &self.cluster;
        for workload in [team::FROM_FILE, team::FROM_ENVIRONMENT] {
            team::until_used(cluster, workload, &team::key(cluster, team::NAMESPACE)).await;
        }
        team::stop_workloads(cluster, team::NAMESPACE);
        team::stop_workloads(cluster, slow_team::NAMESPACE);
        let requests = boltz.requests("auth_me").await;
        // None: the client was ended while it waited.
        let refused: Vec<_> =
            requests.iter().filter(|request| request.status.is_some_and(|status| status != 200)).collect();
        assert!(refused.is_empty(), "{refused:?}");
        self.say(&format!("of {} requests of the workloads not one was refused", requests.len()));
        assert!(requests.len() > 100, "they did work");
    }

    async fn deletion(&self, boltz: &Boltz) {
        let cluster = &self.cluster;
        for namespace in [team::NAMESPACE, slow_team::NAMESPACE] {
            // A process that has just started waits until the attempts of the one before are settled.
            cluster.kubectl(&format!("-n {namespace} delete boltzapikey {} --timeout=180s", team::OBJECT));
            assert!(boltz.active_in(namespace).await.is_empty());
            assert_eq!(cluster.try_kubectl(&format!("-n {namespace} get secret -o name")).unwrap(), "");
        }
        self.say("the objects are deleted: their keys are revoked, their Secrets gone");
    }

    async fn deleted_namespace(&self, boltz: &Boltz) {
        let cluster = &self.cluster;
        let key = team::ask_for_key(cluster, team::ANOTHER_NAMESPACE, json!({})).await;
        assert_eq!(boltz.active_in(team::ANOTHER_NAMESPACE).await, [key]);
        cluster.kubectl(&format!("delete namespace {} --timeout=180s", team::ANOTHER_NAMESPACE));
        assert!(boltz.active_in(team::ANOTHER_NAMESPACE).await.is_empty());
        self.say("a namespace is deleted: it is gone, and its key is revoked");
    }

    /// The way to try the operator without an account: the chart brings the emulator.
    async fn trial_with_the_chart_s_emulator(&self) {
        let cluster = &self.cluster;
        release::uninstall(cluster);
        let mut values = json!({
            "image": release::image(&cluster.images.operator),
            "emulator": {"enabled": true, "image": release::image(&cluster.images.emulator)},
        });
        if let Some(address) = cluster.node_address() {
            // There is no DNS on our node.
            values["boltz"] = json!({"baseURL": format!("http://{address}:8099"), "allowInsecureHTTP": true});
        }
        release::helm(cluster, "install", &values, true);
        let _forward = match cluster.node_address() {
            Some(address) => Some(
                cluster
                    .forward(
                        "trial",
                        &format!(
                            "-n {} port-forward --address {address} service/{}-emulator 8099",
                            release::NAMESPACE,
                            release::NAME
                        ),
                    )
                    .await,
            ),
            None => None,
        };
        cluster.helm(&format!("test {} -n {} --timeout 120s", release::NAME, release::NAMESPACE), "");
        cluster.kubectl(&format!("-n {} get boltzapikeys", release::NAMESPACE));
        release::uninstall(cluster);
        self.say("emulator.enabled: helm test passes without an account");
    }

    /// Asks for a rotation; it comes to where Boltz makes the key, and no further. How many keys were made before.
    async fn held_rotation(&self, boltz: &Boltz, why: &str) -> usize {
        let creates = boltz.creates().await;
        boltz.hold_next_create().await;
        team::rotate(&self.cluster, why);
        boltz.until_held().await;
        creates
    }

    async fn until_both_use(&self, key: &str) {
        for workload in [team::FROM_FILE, team::FROM_ENVIRONMENT] {
            team::until_used(&self.cluster, workload, key).await;
        }
    }
}

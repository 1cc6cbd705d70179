//! `helm install`, `upgrade` and `uninstall` against a real API server, in both versions: what a platform team does.

use super::helm::{HELMS, chart, run};
use crate::test_env::TestEnv;
use boltz_harness::{ControlPlane, ControlPlaneOptions, eventually};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{path::Path, process::Command};

struct Stage {
    control_plane: ControlPlane,
    helm: &'static str,
}

impl Stage {
    async fn new(helm: &'static str) -> Self {
        Self { control_plane: ControlPlane::start(ControlPlaneOptions::whole()).await.unwrap(), helm }
    }

    fn helm(&self, command: &str, chart: Option<&Path>, values: &Json) -> Result<String, String> {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        if let Some(chart) = chart {
            arguments.extend([chart.to_str().unwrap(), "--values", "-"]);
        }
        arguments.extend(["--namespace", "boltz-system"]);
        let kubeconfig = self.control_plane.kubeconfig("admin");
        run(self.helm, &arguments, values, &[("KUBECONFIG", &kubeconfig)])
    }

    fn get(&self, what: &str) -> Result<Json, String> {
        let mut arguments: Vec<&str> = what.split(' ').collect();
        arguments.splice(0..0, ["get", "-o", "json"]);
        let answer = self.control_plane.kubectl(&arguments).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&answer).unwrap())
    }
}

/// The chart of an earlier release, whose CRD knew less.
fn earlier_chart(folder: &Path) -> std::path::PathBuf {
    let earlier = folder.join("boltz-operator");
    assert!(Command::new("cp").arg("-r").arg(chart()).arg(&earlier).status().unwrap().success());
    let crd = earlier.join("files/crds/boltzapikeys.yaml");
    let mut parsed: Json = serde_saphyr::from_str(&std::fs::read_to_string(&crd).unwrap()).unwrap();
    let version = &mut parsed["spec"]["versions"][0];
    let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert!(spec.as_object_mut().unwrap().remove("suspend").is_some());
    // Without the order of the original: `metadata` begins a line in both.
    std::fs::write(crd, serde_saphyr::to_string(&parsed).unwrap()).unwrap();
    earlier
}

#[tokio::test]
async fn an_upgrade_brings_the_crd_along_and_an_uninstall_leaves_it() {
    for helm in HELMS {
        let stage = Stage::new(helm).await;
        let folder = tempfile::tempdir().unwrap();
        let knows_suspend = || {
            let crd = stage.get("crd boltzapikeys.boltz.bio").unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            !schema["properties"]["spec"]["properties"]["suspend"].is_null()
        };
        let install = "install boltz-operator --create-namespace";
        let earlier = earlier_chart(folder.path());
        // Over a CRD that was applied by hand.
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds").display().to_string();
        stage.control_plane.kubectl(&["apply", "--server-side", "-f", &crds]).unwrap();
        let error = stage.helm(install, Some(&earlier), &json!({})).unwrap_err();
        assert!(error.contains("boltzapikeys.boltz.bio"), "{error}");
        // Helm 4 applies on the server's side, where the fields are kubectl's too.
        let force = if helm == "helm" { " --force-conflicts" } else { "" };
        let take_over = format!("{install} --take-ownership{force}");
        let notes = stage.helm(&take_over, Some(&earlier), &json!({})).unwrap();
        assert!(notes.contains("create secret generic boltz-admin-key --from-file=admin-key="), "{notes}");
        assert!(notes.contains("kind: BoltzApiKey"), "{notes}");
        assert!(!knows_suspend());

        // From the package this time.
        let out = folder.path().to_str().unwrap();
        let package = ["package", chart().to_str().unwrap(), "--destination", out].map(str::to_owned);
        run(helm, &package.each_ref().map(String::as_str), &json!({}), &[]).unwrap();
        let package = folder.path().join(format!("boltz-operator-{}.tgz", env!("CARGO_PKG_VERSION")));
        stage
            .helm(
                "upgrade boltz-operator --reset-then-reuse-values",
                Some(&package),
                &json!({"replicaCount": 2}),
            )
            .unwrap();
        let established = ["wait", "--for=condition=Established", "crd/boltzapikeys.boltz.bio"];
        stage.control_plane.kubectl(&established).unwrap();
        assert!(knows_suspend(), "{helm} has not upgraded the CRD");
        let deployment = stage.get("deployment boltz-operator -n boltz-system").unwrap();
        assert_eq!(deployment["spec"]["replicas"], 2);

        let key = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
            "metadata": {"name": "kept", "namespace": "default"}, "spec": {"suspend": true},
        });
        stage.control_plane.apply(&key.to_string()).unwrap();
        let uid = stage.get("boltzapikey kept -n default").unwrap()["metadata"]["uid"].clone();
        stage.helm("uninstall boltz-operator", None, &json!({})).unwrap();
        assert!(stage.get("deployment boltz-operator -n boltz-system").is_err());
        assert!(stage.get("clusterrole boltz-operator").is_err());
        assert_eq!(stage.get("boltzapikey kept -n default").unwrap()["metadata"]["uid"], uid);

        // The same release again takes the CRD that stayed.
        stage.helm(install, Some(&chart()), &json!({})).unwrap();
        assert_eq!(stage.get("boltzapikey kept -n default").unwrap()["metadata"]["uid"], uid);
        // A second one must not want it too.
        let second = "install another";
        let error = stage.helm(second, Some(&chart()), &json!({})).unwrap_err();
        assert!(error.contains("cannot be imported into the current release"), "{error}");
        let shard = json!({
            "crds": {"install": false}, "clusterName": "b", "config": {"labelSelector": "shard=b"},
            "tests": {"enabled": false},
        });
        stage.helm(second, Some(&chart()), &shard).unwrap();
        // Without `keep` everything goes.
        stage.helm("uninstall another", None, &json!({})).unwrap();
        stage.helm("upgrade boltz-operator", Some(&chart()), &json!({"crds": {"keep": false}})).unwrap();
        let notes = stage.helm("status boltz-operator", None, &json!({})).unwrap();
        assert!(notes.contains("WARNING: crds.keep is off"), "{notes}");
        stage.helm("uninstall boltz-operator", None, &json!({})).unwrap();
        let gone = ["wait", "--for=delete", "crd/boltzapikeys.boltz.bio", "--timeout=30s"];
        stage.control_plane.kubectl(&gone).unwrap();
    }
}

/// Without a kubelet the test plays it: the pod succeeds when its Secret is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_test_waits_for_a_key_and_cleans_up() {
    let env = TestEnv::new().await;
    let namespace = &env.namespace;
    let accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), namespace);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    for helm in HELMS {
        let values = json!({
            "watchNamespaces": [namespace], "clusterName": namespace, "crds": {"install": false},
        });
        let kubeconfig = env.control_plane.kubeconfig("admin");
        let call = |command: Vec<String>| {
            let (values, kubeconfig) = (values.clone(), kubeconfig.clone());
            tokio::task::spawn_blocking(move || {
                let command: Vec<&str> = command.iter().map(String::as_str).collect();
                run(helm, &command, &values, &[("KUBECONFIG", &kubeconfig)])
            })
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut install = words(&format!("install checked --namespace {namespace} --values -"));
        install.push(chart().display().to_string());
        call(install).await.unwrap().unwrap();
        let test = call(words(&format!("test checked --namespace {namespace} --timeout 60s")));
        let name = "checked-boltz-operator-test";
        eventually(crate::test_env::PATIENCE, "the pod", async || pods.get(name).await.map(drop))
            .await
            .unwrap();
        env.ready(name).await;
        assert!(env.secrets().get(name).await.is_ok());
        assert!(!env.emulator.active_keys()[0].livemode);
        let status = json!({"status": {"phase": "Succeeded"}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let said = test.await.unwrap().unwrap();
        assert!(said.contains("Succeeded"), "{said}");
        env.gone(name).await;
        env.until_active(0).await;
        call(words(&format!("uninstall checked --namespace {namespace}"))).await.unwrap().unwrap();
    }
}

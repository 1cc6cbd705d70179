//! `helm install`, `upgrade` and `uninstall` against a real API server, in both versions: what a platform team does.

use crate::helm::{HELMS, chart, run};
use boltz_harness::{ControlPlane, ControlPlaneOptions};
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
    // -L: as `helm package` has it, without the link to the CRD.
    assert!(Command::new("cp").arg("-rL").arg(chart()).arg(&earlier).status().unwrap().success());
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
        let notes = stage.helm(install, Some(&earlier_chart(folder.path())), &json!({})).unwrap();
        assert!(notes.contains("create secret generic boltz-admin-key --from-file=admin-key="), "{notes}");
        assert!(notes.contains("kind: BoltzApiKey"), "{notes}");
        assert!(!knows_suspend());

        // From the package this time.
        let out = folder.path().to_str().unwrap();
        let package = ["package", chart().to_str().unwrap(), "--destination", out].map(str::to_owned);
        run(helm, &package.each_ref().map(String::as_str), &json!({}), &[]).unwrap();
        let package = folder.path().join(format!("boltz-operator-{}.tgz", env!("CARGO_PKG_VERSION")));
        stage.helm("upgrade boltz-operator", Some(&package), &json!({"replicaCount": 2})).unwrap();
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

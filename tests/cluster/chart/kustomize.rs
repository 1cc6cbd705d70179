//! `deploy/` and `examples/kustomize`, built by the kustomize in kubectl.

use super::helm::{Manifests, as_list, manifests, of_kind};
use crate::test_env::{TestEnv, control_plane};
use serde_json::{Value as Json, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `kubectl kustomize` makes of that folder, or what it complains about.
fn build(folder: &Path) -> Result<String, String> {
    let kubectl = boltz_harness::programs(&["kubectl"]).unwrap().join("kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn built(folder: &Path) -> Manifests {
    manifests(&build(folder).unwrap())
}

fn copy(from: &str, to: &Path) -> PathBuf {
    let copied = to.join(Path::new(from).file_name().unwrap());
    let status = Command::new("cp").arg("-r").arg(repository().join(from)).arg(&copied).status().unwrap();
    assert!(status.success());
    copied
}

/// Every place where a pod can name a Secret, with that name.
fn pod(secret: &str) -> Json {
    let env =
        json!([{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "BOLTZ_API_KEY"}}}]);
    let container = |name: &str| {
        json!({
            "name": name, "image": "worker", "env": env, "envFrom": [{"secretRef": {"name": secret}}],
        })
    };
    json!({
        "initContainers": [container("first")], "containers": [container("worker")],
        "volumes": [
            {"name": "a", "secret": {"secretName": secret}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": secret}}]}},
        ],
    })
}

#[test]
fn what_names_a_key_or_a_workload_follows_a_prefix_and_a_suffix() {
    let folder = tempfile::tempdir().unwrap();
    copy("deploy/kustomize-config", folder.path());
    // Both name the Secret of the same name; the second key's Secret has a name of its own, which nothing changes.
    let workloads = |secret: &str| {
        let object = |kind: &str, version: &str, spec: Json| {
            let name = format!("{}-{secret}", kind.to_lowercase());
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
        };
        let template = || json!({"template": {"spec": pod(secret)}});
        vec![
            object("Pod", "v1", pod(secret)),
            object("Deployment", "apps/v1", template()),
            object("StatefulSet", "apps/v1", template()),
            object("DaemonSet", "apps/v1", template()),
            object("Job", "batch/v1", template()),
            object("CronJob", "batch/v1", json!({"jobTemplate": {"spec": template()}})),
        ]
    };
    let targets = ["Deployment", "StatefulSet", "DaemonSet"]
        .map(|kind| json!({"kind": kind, "name": format!("{}-design", kind.to_lowercase())}));
    let key = |name: &str, spec: Json| {
        json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": name}, "spec": spec,
        })
    };
    let mut objects = vec![
        key("design", json!({"rolloutRestartTargets": targets})),
        key("other", json!({"secret": {"name": "own"}})),
    ];
    objects.extend(workloads("design"));
    objects.extend(workloads("own"));
    fs::write(folder.path().join("objects.yaml"), as_list(&objects)).unwrap();
    let kustomization = |components: Json| {
        let kustomization = json!({
            "resources": ["objects.yaml"], "components": components, "namePrefix": "a-", "nameSuffix": "-z",
        });
        fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
        built(folder.path())
    };
    let spec = |manifests: &Manifests, kind: &str, name: &str| {
        manifests[&(kind.to_owned(), String::new(), name.to_owned())]["spec"].clone()
    };
    let pods = |manifests: &Manifests, secret: &str| {
        let mut pods = vec![spec(manifests, "Pod", &format!("a-pod-{secret}-z"))];
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job"] {
            let name = format!("a-{}-{secret}-z", kind.to_lowercase());
            pods.push(spec(manifests, kind, &name)["template"]["spec"].clone());
        }
        let cron_job = spec(manifests, "CronJob", &format!("a-cronjob-{secret}-z"));
        pods.push(cron_job["jobTemplate"]["spec"]["template"]["spec"].clone());
        pods
    };

    let followed = kustomization(json!(["kustomize-config"]));
    assert!(pods(&followed, "design").iter().all(|found| *found == pod("a-design-z")), "{followed:?}");
    assert!(pods(&followed, "own").iter().all(|found| *found == pod("own")), "{followed:?}");
    let key = spec(&followed, "BoltzApiKey", "a-design-z");
    for target in key["rolloutRestartTargets"].as_array().unwrap() {
        let name = format!("a-{}-design-z", target["kind"].as_str().unwrap().to_lowercase());
        assert_eq!(target["name"], name);
    }
    // Without the component kustomize does not know.
    let alone = kustomization(json!([]));
    assert!(pods(&alone, "design").iter().all(|found| *found == pod("design")), "{alone:?}");
}

#[tokio::test]
async fn the_example_gets_its_keys_under_both_names() {
    let env = TestEnv::new().await;
    let examples = repository().join("examples/kustomize");
    let table = fs::read_to_string(repository().join("examples/README.md")).unwrap();
    assert!(table.contains("](kustomize/)"));
    let mut names = Vec::new();
    for (folder, name) in [("base", "screening"), ("overlays/staging", "staging-screening-v1")] {
        let text = build(&examples.join(folder)).unwrap();
        let manifests = manifests(&text);
        let deployment = of_kind(&manifests, "Deployment").next().unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], name);
        let key = of_kind(&manifests, "BoltzApiKey").next().unwrap();
        assert_eq!(key["spec"]["rolloutRestartTargets"][0]["name"], deployment["metadata"]["name"]);
        let create = ["create", "--namespace", &env.namespace, "--validate=strict", "--filename=-"];
        env.control_plane.kubectl_with_input(&create, &text).unwrap();
        names.push(name);
    }
    env.judge_all(&names, &[]).await;
}

#[tokio::test]
async fn the_operator_can_have_another_namespace_and_other_names() {
    let folder = tempfile::tempdir().unwrap();
    copy("deploy", folder.path());
    let kustomization = json!({
        "resources": ["deploy"], "namespace": "elsewhere", "namePrefix": "a-", "nameSuffix": "-z",
    });
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let text = build(folder.path()).unwrap();
    assert!(!text.contains("boltz-system"), "{text}");
    let manifests = manifests(&text);
    for binding in of_kind(&manifests, "RoleBinding").chain(of_kind(&manifests, "ClusterRoleBinding")) {
        let subject =
            json!([{"kind": "ServiceAccount", "name": "a-boltz-operator-z", "namespace": "elsewhere"}]);
        assert_eq!(binding["subjects"], subject);
    }
    let control_plane = control_plane().await;
    control_plane.apply(&as_list(of_kind(&manifests, "Namespace"))).unwrap();
    let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    control_plane.kubectl_with_input(&dry_run, &text).unwrap();
}

#[test]
fn the_overlays_take_an_image_and_an_admin_key() {
    let folder = tempfile::tempdir().unwrap();
    let deploy = copy("deploy", folder.path());
    let image = |manifests: &Manifests| {
        let deployment = of_kind(manifests, "Deployment").next().unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&built(&deploy)), format!("localhost/boltz-operator:{version}"));
    let theirs = built(&deploy.join("overlays/your-image"));
    assert_eq!(image(&theirs), format!("registry.example/boltz-operator:{version}"));
    assert_eq!(of_kind(&theirs, "Secret").count(), 0);

    let overlay = deploy.join("overlays/your-image-and-admin-key");
    let _ = fs::remove_file(overlay.join("admin-key"));
    let error = build(&overlay).unwrap_err();
    assert!(error.contains("admin-key: no such file"), "{error}");
    fs::write(overlay.join("admin-key"), "sk").unwrap();
    let complete = built(&overlay);
    assert_eq!(image(&complete), format!("registry.example/boltz-operator:{version}"));
    let secret = of_kind(&complete, "Secret").next().unwrap();
    assert_eq!(secret["data"], json!({"admin-key": "c2s="}));
    let deployment = of_kind(&complete, "Deployment").next().unwrap();
    let volume = &deployment["spec"]["template"]["spec"]["volumes"][0]["secret"];
    assert_eq!(volume["secretName"], secret["metadata"]["name"]);
    assert_eq!(deployment["metadata"]["namespace"], secret["metadata"]["namespace"]);
}

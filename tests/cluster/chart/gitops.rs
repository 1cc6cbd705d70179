//! What GitOps tools do with the objects: the health check for Argo CD, run by Lua on objects as the operator leaves them;
//! drift; pruning.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, control_plane};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_operator::api::BoltzApiKey;
use serde_json::{Value as Json, json};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

fn lua(value: &Json) -> String {
    match value {
        Json::Null => "nil".to_owned(),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("[{}]={}", json!(name), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Json::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        // JSON's escapes are not all Lua's, but \" \\ and \n are.
        other => other.to_string(),
    }
}

/// The files have the places and the form of those in Argo CD's own repository.
const CUSTOMIZATION: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/argocd/resource_customizations/boltz.bio/BoltzApiKey");

/// What Argo CD would show: status and message.
fn health(object: &Json) -> (String, String) {
    let check = std::fs::read_to_string(format!("{CUSTOMIZATION}/health.lua")).unwrap();
    let program = format!(
        "obj = {}\nlocal function check()\n{check}\nend\nlocal health = check()\nprint(health.status)\nprint(health.message)",
        lua(object)
    );
    let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/lua"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (status, message) = text.split_once('\n').unwrap();
    (status.to_owned(), message.trim().to_owned())
}

#[tokio::test]
async fn argo_cd_sees_what_the_conditions_say() {
    let env = TestEnv::new().await;
    let mut count = 0;
    let mut shown = |object: &BoltzApiKey, status: &str| {
        let object = json!(object);
        let (seen, message) = health(&object);
        assert_eq!(seen, status, "{message}: {object}");
        assert!(!message.is_empty());
        // For the testdata of the health check.
        if let Some(folder) = std::env::var_os("ARGO_CD_TESTDATA") {
            count += 1;
            let yaml = serde_saphyr::to_string(&object).unwrap();
            std::fs::write(Path::new(&folder).join(format!("{count}-{status}.yaml")), yaml).unwrap();
        }
    };
    let unavailable = |operation| Fault::once(operation, Effect::None, Outcome::status(503)).times(1000);
    shown(&env.create("key", json!({})).await, "Progressing");
    shown(&env.ready("key").await, "Healthy");
    let mut ahead = env.get("key").await;
    ahead.metadata.generation = ahead.metadata.generation.map(|generation| generation + 1);
    shown(&ahead, "Progressing");

    env.create("asleep", json!({"suspend": true})).await;
    shown(&env.not_ready("asleep", "Suspended").await, "Suspended");
    env.annotate("asleep", "boltz.bio/paused", "true").await;
    shown(&env.not_ready("asleep", "Paused").await, "Suspended");

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}});
    env.secrets().create(&Default::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    env.create("taken", json!({})).await;
    shown(&env.not_ready("taken", "SecretConflict").await, "Degraded");

    env.emulator.inject(unavailable(Operation::Create));
    env.create("unlucky", json!({})).await;
    shown(&env.not_ready("unlucky", "BoltzUnavailable").await, "Progressing");

    env.emulator.inject(unavailable(Operation::Revoke));
    env.delete("key").await;
    let deleting = env.until("key", "deleting", |object| object.metadata.deletion_timestamp.is_some()).await;
    shown(&deleting, "Progressing");
}

/// The tests that Argo CD runs, and the objects in them are as the API server takes them.
#[tokio::test]
async fn the_health_check_passes_its_own_tests() {
    let read = |file: &str| std::fs::read_to_string(format!("{CUSTOMIZATION}/{file}")).unwrap();
    let tests: Json = serde_saphyr::from_str(&read("health_test.yaml")).unwrap();
    let tests = tests["tests"].as_array().unwrap();
    let control_plane = control_plane().await;
    for test in tests {
        let text = read(test["inputPath"].as_str().unwrap());
        let mut object: Json = serde_saphyr::from_str(&text).unwrap();
        let (status, message) = health(&object);
        assert_eq!(
            json!({"status": status, "message": message}),
            test["healthStatus"],
            "{}",
            test["inputPath"]
        );
        for field in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields"] {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
        object["metadata"]["namespace"] = json!("default");
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        control_plane.kubectl_with_input(&create, &object.to_string()).unwrap();
    }
    let files = std::fs::read_dir(format!("{CUSTOMIZATION}/testdata")).unwrap();
    assert_eq!(files.count(), tests.len());
    let all = ["Progressing", "Healthy", "Suspended", "Degraded"];
    assert!(all.iter().all(|status| tests.iter().any(|test| test["healthStatus"]["status"] == *status)));
}

/// `kubectl diff` exits with 1 if an apply would change something. Flux applies on the server's side; Argo CD compares as a
/// client does, unless it is told otherwise.
#[tokio::test]
async fn what_the_server_and_the_operator_add_is_no_drift() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let manifests: Vec<String> = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let manifests = manifests.join("\n---\n");
    for side in ["--server-side=true", "--server-side=false"] {
        let env = TestEnv::new().await;
        let kubectl = |verb: &str, manifests: &str| {
            let arguments = [verb, side, "--field-manager=gitops", "--namespace", &env.namespace, "-f", "-"];
            env.control_plane.kubectl_with_input(&arguments, manifests)
        };
        kubectl("apply", &manifests).unwrap();
        for object in env.objects().list(&Default::default()).await.unwrap() {
            let name = object.metadata.name.unwrap();
            if object.spec.suspend {
                env.not_ready(&name, "Suspended").await
            } else {
                env.ready(&name).await
            };
        }
        kubectl("diff", &manifests).unwrap_or_else(|error| panic!("{side}: {error}"));
        // It sees a change.
        let changed = manifests.replace("expiresInDays: 90", "expiresInDays: 91");
        assert!(changed != manifests);
        kubectl("diff", &changed).unwrap_err();
    }
}

#[tokio::test]
async fn the_installation_does_not_drift() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").display().to_string();
    control_plane().await.kubectl(&["diff", "--server-side", "-k", &deploy]).unwrap();
}

#[tokio::test]
async fn pruning_an_object_revokes_its_key() {
    let env = TestEnv::new().await;
    let key = |name: &str| {
        json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
            "metadata": {"name": name, "labels": {"set": "keys"}}, "spec": {},
        })
    };
    let apply = |objects: &[Json]| {
        let arguments = [
            "apply",
            "--namespace",
            &env.namespace,
            "--prune",
            "--selector=set=keys",
            "--prune-allowlist=boltz.bio/v1alpha1/BoltzApiKey",
            "-f",
            "-",
        ];
        env.control_plane.kubectl_with_input(&arguments, &super::helm::as_list(objects)).unwrap()
    };
    apply(&[key("stays"), key("goes")]);
    env.ready("stays").await;
    env.ready("goes").await;
    assert!(apply(&[key("stays")]).contains("goes pruned"));
    env.gone("goes").await;
    env.until_active(1).await;
    env.ready("stays").await;
}

/// The wrong order: the CRD goes, and the operator before it. Nothing is lost, but everything waits for the operator.
#[tokio::test]
async fn objects_of_a_deleted_crd_wait_for_the_operator() {
    let options = EnvOptions { own_control_plane: true, ..EnvOptions::default() };
    let mut env = TestEnv::with_options(options).await;
    env.create("key", json!({})).await;
    env.ready("key").await;
    env.operator.kill();
    let crd = "crd/boltzapikeys.boltz.bio";
    env.control_plane.kubectl(&["delete", crd, "--wait=false"]).unwrap();
    env.until("key", "deleting", |object| object.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(env.emulator.active_keys().len(), 1);
    assert!(env.control_plane.kubectl(&["wait", "--for=delete", crd, "--timeout=2s"]).is_err());

    env.operator.restart().unwrap();
    env.until_active(0).await;
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    env.control_plane.kubectl(&["wait", "--for=delete", crd, &timeout]).unwrap();
}

/// The right order: objects, operator, CRD. `kubectl delete` returns when the keys are revoked.
#[tokio::test]
async fn objects_then_operator_then_crd_leaves_nothing() {
    let options = EnvOptions { own_control_plane: true, ..EnvOptions::default() };
    let mut env = TestEnv::with_options(options).await;
    for name in ["a", "b"] {
        env.create(name, json!({})).await;
        env.ready(name).await;
    }
    env.control_plane.kubectl(&["delete", "boltzapikeys", "--all", "--all-namespaces"]).unwrap();
    assert_eq!(env.emulator.active_keys().len(), 0);
    env.operator.kill();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").display().to_string();
    // Without a controller manager the namespace stays.
    env.control_plane.kubectl(&["delete", "--wait=false", "-k", &deploy]).unwrap();
    let crd = ["wait", "--for=delete", "crd/boltzapikeys.boltz.bio", "--timeout=60s"];
    env.control_plane.kubectl(&crd).unwrap();
}

//! What tools see of an object that no operator has worked on yet, and after that.

use crate::{chart::helm, test_env::TestEnv};
use serde_json::{Value as Json, json};
use std::{fs, path::Path};

/// The rules of kstatus for a kind that it does not know
/// (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>).
fn kstatus(object: &Json) -> &'static str {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .map(|condition| condition["status"].clone())
    };
    let observed = &status["observedGeneration"];
    let is_behind = !observed.is_null() && *observed != object["metadata"]["generation"];
    if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if is_behind || of("Reconciling") == Some(json!("True")) {
        "InProgress"
    } else if of("Stalled") == Some(json!("True")) {
        "Failed"
    } else if of("Ready").is_some_and(|ready| ready != "True") {
        "InProgress"
    } else {
        // Ready, or no condition that says anything: it counts as done.
        "Current"
    }
}

#[tokio::test]
async fn an_object_that_nobody_worked_on_is_in_progress() {
    let mut env = TestEnv::new().await;
    assert_eq!(env.operator.terminate(), Some(0));
    let created = env.create("early", json!({})).await;
    let early = env.get("early").await;
    assert_eq!(kstatus(&json!(created)), "InProgress", "{}", json!(created));
    assert_eq!(kstatus(&json!(early)), "InProgress", "{}", json!(early));
    let mut without = json!(early);
    without["status"] = Json::Null;
    assert_eq!(kstatus(&without), "Current", "without the default it would count as done");
    let wait = |timeout: &str| {
        let timeout = format!("--timeout={timeout}");
        let wait = ["wait", "--for=condition=Ready", &timeout, "boltzapikey/early", "--namespace"];
        env.control_plane.kubectl(&[&wait[..], &[env.namespace.as_str()]].concat())
    };
    assert!(wait("1s").unwrap_err().to_string().contains("timed out"));
    let columns = env.control_plane.kubectl(&["get", "boltzapikeys", "--namespace", &env.namespace]).unwrap();
    let columns: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["NAME", "READY", "REASON", "SECRET", "EXPIRES", "RENEWAL", "AGE"]);
    assert_eq!(columns[1][..3], ["early", "Unknown", "Pending"]);
    let wide = ["get", "boltzapikeys", "--output=wide", "--namespace", &env.namespace];
    let wide = env.control_plane.kubectl(&wide).unwrap();
    let more = ["PREFIX", "ACTIVE", "ID", "ACCOUNT", "MODE", "WORKSPACE", "LAST-USED"];
    assert!(
        wide.lines().next().unwrap().split_whitespace().eq(columns[0].iter().copied().chain(more)),
        "{wide}"
    );

    // Helm 4 waits by the rules of kstatus.
    let folder = tempfile::tempdir().unwrap();
    write_chart(folder.path());
    let kubeconfig = env.control_plane.kubeconfig("admin");
    let helm = |timeout: &str| {
        let timeout = format!("--timeout={timeout}");
        let chart = folder.path().to_str().unwrap();
        let install =
            ["upgrade", "--install", "app", chart, "--wait", &timeout, "--namespace", &env.namespace];
        helm::run("helm", &install, &json!({}), &[("KUBECONFIG", &kubeconfig)])
    };
    let error = helm("3s").unwrap_err();
    assert!(error.contains("InProgress"), "{error}");

    env.operator.restart().unwrap();
    env.operator.wait_ready().await.unwrap();
    // Not on this thread alone: the emulator has its own.
    wait("60s").unwrap();
    helm("60s").unwrap();
    env.judge_all(&["early", "of-the-chart"], &[]).await;
    assert_eq!(kstatus(&json!(env.get("early").await)), "Current");
    // The default costs no write, and the end of it is no event.
    assert_eq!(env.writes().len(), 2 * 3, "{:?}", env.writes());
    let events =
        env.control_plane.kubectl(&["get", "events", "--output=name", "--namespace", &env.namespace]);
    assert_eq!(events.unwrap(), "");
}

fn write_chart(folder: &Path) {
    let chart = json!({"apiVersion": "v2", "name": "app", "version": "0.1.0"});
    let object = json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": "of-the-chart"}, "spec": {},
    });
    fs::create_dir(folder.join("templates")).unwrap();
    fs::write(folder.join("Chart.yaml"), chart.to_string()).unwrap();
    fs::write(folder.join("templates/key.yaml"), object.to_string()).unwrap();
}

//! Verbs that change nothing.

use super::{Plugin, binary};
use crate::test_env::{PATIENCE, TestEnv};
use boltz_harness::eventually;
use boltz_operator::api::BoltzApiKey;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{process::Command, time::Duration};

#[tokio::test]
async fn a_viewer_sees_everything_but_the_key() {
    let env = TestEnv::new().await;
    env.create("design", json!({"expiresInDays": 30})).await;
    let taken: Secret = serde_json::from_value(json!({"metadata": {"name": "taken"}})).unwrap();
    env.secrets().create(&PostParams::default(), &taken).await.unwrap();
    env.create("taken", json!({})).await;
    let id = env.id_of("design").await;
    env.not_ready("taken", "SecretConflict").await;
    let value = env.value("design").await;
    let viewer = Plugin::in_env(&env, "view").await;

    let mut everything = Vec::new();
    let mut expect = |code: i32, arguments: &[&str], texts: &[&str]| {
        let said = viewer.expect(code, arguments);
        for text in texts {
            assert!(said.out.contains(text), "{arguments:?} lacks {text:?}: {said:?}");
        }
        everything.push(said.out + &said.err);
    };
    expect(2, &["status"], &["design", "rotated in", "taken: SecretConflict: "]);
    expect(2, &["list", "--not-ready"], &["taken"]);
    expect(0, &["list", "--expiring", "40d"], &["design", "in 29d"]);
    expect(0, &["list", "--output", "name", "--expiring", "40d"], &["boltzapikey.boltz.bio/design\n"]);
    expect(
        0,
        &["status", "design"],
        &["├─ Secret design", &id, "└─ no pod uses the Secret", "next: rotated in"],
    );
    expect(2, &["status", "taken"], &["SecretConflict: ", "what to do: Choose another `secret.name`"]);
    expect(0, &["status", "design", "--output", "yaml"], &["valueSHA256: "]);
    expect(0, &["keys"], &[&id, "current"]);
    expect(
        2,
        &["explain", "taken"],
        &["Ready=False: SecretConflict", "meaning: Another Secret has the name"],
    );
    expect(0, &["explain", "boltzrejected"], &["what to do: Fix what the message names"]);
    expect(0, &["explain", "BoltzApiKeyNotReady"], &["meaning: "]);
    expect(0, &["events", "taken"], &["NotReady"]);
    expect(0, &["version"], &["API server", "kubectl-boltz"]);
    expect(0, &["__complete", "status", "-n", &env.namespace, "des"], &["design\n:4\n"]);
    // From a key to its object, also without rights on other namespaces.
    let name = env.emulator.active_keys()[0].name.clone();
    for (key, role) in
        [(&id, "its current key"), (&name, "a key that was made for it; the status does not say")]
    {
        expect(0, &["whose", key], &[&format!("{}/design: {role}", env.namespace)]);
    }
    let said = viewer.run_with_input(&["whose", "-"], &format!("BOLTZ_API_KEY=\"{value}\"\n"));
    assert!(said.code == 0 && said.out.contains("/design: its current key"), "{said:?}");
    everything.push(said.out + &said.err);
    let said = viewer.run_with_input(&["whose", "-"], "sk_bc_work_live_of_somebody_else\n");
    said.fails_with(2, "no BoltzApiKey in the namespace");
    let said = viewer.run(&["whose", &value]);
    said.fails_with(1, "this looks like the value of a key");
    everything.push(said.out + &said.err);
    assert!(everything.iter().all(|text| !text.contains(&value)), "the key is printed");

    // What it may not do, it says.
    for arguments in [
        &["rotate", "design"][..],
        &["suspend", "design"],
        &["revoke-leaked", "design", "--yes"],
        &["release", "design", "--yes"],
    ] {
        viewer.run(arguments).fails_with(1, "you may not patch boltzapikeys in the namespace");
    }
    viewer.run(&["list", "-A"]).fails_with(1, "you may not list boltzapikeys in all namespaces");
    viewer.run(&["orphans"]).fails_with(1, "you may not get configmaps in the namespace boltz-system");
    viewer
        .run(&["logs", "design"])
        .fails_with(1, "you may not list deployments in the namespace boltz-system");
    for verb in ["status", "users", "explain", "logs"] {
        viewer.run(&[verb, "design", "-A"]).fails_with(1, "this works in one namespace");
    }
    for arguments in [
        &["logs", "design", "--output", "json"][..],
        &["logs", "design", "--output", "name"],
        &["version", "--output", "name"],
        &["completion", "bash", "--output", "yaml"],
    ] {
        viewer.run(arguments).fails_with(1, "has no output as");
    }
    viewer.run(&["status", "nobody"]).fails_with(1, "BoltzApiKey nobody does not exist");
    let said = viewer.expect(0, &["doctor"]);
    assert!(said.out.contains("patch boltzapikeys (rotate, suspend)"), "{said:?}");
    assert_eq!(env.id_of("design").await, id, "nothing was changed");

    // Standard output is no terminal here, so colours have to be asked for.
    for (variables, has_colours) in
        [(&[][..], false), (&["CLICOLOR_FORCE"], true), (&["CLICOLOR_FORCE", "NO_COLOR"], false)]
    {
        let mut command = Command::new(binary());
        command.args(["--namespace", &env.namespace, "status"]).env("KUBECONFIG", &viewer.kubeconfig);
        command.envs(variables.iter().map(|name| (*name, "1")));
        let output = command.output().unwrap().stdout;
        assert_eq!(output.contains(&0x1b), has_colours, "{variables:?}");
    }

    let nobody =
        Plugin::of(&env.control_plane, &format!("nobody-{}", env.namespace), &env.namespace, None).await;
    for arguments in [&["status"][..], &["list"], &["keys"], &["whose", "x"]] {
        nobody.run(arguments).fails_with(1, "you may not list boltzapikeys in the namespace");
    }
    nobody.run(&["status", "design"]).fails_with(1, "you may not get boltzapikeys in the namespace");
    let said = nobody.expect(2, &["doctor"]);
    assert!(said.out.contains("✗ your rights: ") && said.out.contains("create rolebinding"), "{said:?}");
}

/// A pod that uses the Secret by a variable, whose container started at that time.
pub async fn run_pod(pods: &Api<Pod>, namespace: &str, name: &str, secret: &str, started_at: &str) {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{
            "name": "app", "image": "app",
            "env": [{
                "name": "BOLTZ_API_KEY",
                "valueFrom": {"secretKeyRef": {"name": secret, "key": "BOLTZ_API_KEY"}},
            }],
        }]},
    });
    let accounts: Api<ServiceAccount> = Api::namespaced(pods.clone().into_client(), namespace);
    // The controllers make it too, some time after the namespace.
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    let _ = accounts.create(&PostParams::default(), &account).await;
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "app", "image": "app", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": started_at}},
    }]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn who_still_runs_with_the_old_key_is_seen() {
    let env = TestEnv::new().await;
    env.create("design", json!({})).await;
    env.ready("design").await;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), &env.namespace);
    run_pod(&pods, &env.namespace, "early", "design", "2026-01-01T00:00:00Z").await;
    run_pod(&pods, &env.namespace, "late", "design", "2126-01-01T00:00:00Z").await;
    run_pod(&pods, &env.namespace, "other", "another-secret", "2026-01-01T00:00:00Z").await;
    let viewer = Plugin::in_env(&env, "view").await;
    let users = viewer.json(&["users", "design"]);
    let copies: Vec<(&str, &str)> = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (user["pod"].as_str().unwrap(), user["copy"].as_str().unwrap()))
        .collect();
    assert_eq!(copies, [("early", "old"), ("late", "current")]);
    let said = viewer.expect(0, &["status", "design"]);
    assert!(said.out.contains("early/app  env BOLTZ_API_KEY: OLD KEY: started"), "{said:?}");
    assert!(said.out.contains("# pod/early has no controller"), "{said:?}");
}

/// A program that runs until it is dropped, and what it printed.
struct Watching {
    child: std::process::Child,
    printed: std::path::PathBuf,
}

/// The documents of which the text consists.
fn documents(text: &str) -> Vec<Json> {
    serde_json::Deserializer::from_str(text).into_iter().map_while(Result::ok).collect()
}

impl Watching {
    fn start(plugin: &Plugin, folder: &std::path::Path, arguments: &[&str]) -> Self {
        let printed = folder.join(arguments.join(" "));
        let file = std::fs::File::create(&printed).unwrap();
        let child = Command::new(binary())
            .args(["--namespace", &plugin.namespace])
            .args(arguments)
            .env("KUBECONFIG", &plugin.kubeconfig)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, printed }
    }

    async fn until(&self, is_so: impl Fn(&str) -> bool) {
        eventually(PATIENCE, "it prints that", async || {
            let text = std::fs::read_to_string(&self.printed).unwrap();
            if is_so(&text) { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_watch_prints_what_changes() {
    let env = TestEnv::new().await;
    env.create("design", json!({})).await;
    let first = env.id_of("design").await;
    let viewer = Plugin::in_env(&env, "view").await;
    let folder = tempfile::tempdir().unwrap();
    let all = Watching::start(&viewer, folder.path(), &["status", "--watch"]);
    let mut one = Watching::start(&viewer, folder.path(), &["status", "design", "--watch"]);
    let all_json = Watching::start(&viewer, folder.path(), &["status", "--watch", "--output", "json"]);
    let one_json =
        Watching::start(&viewer, folder.path(), &["status", "design", "--watch", "--output", "json"]);
    let one_yaml =
        Watching::start(&viewer, folder.path(), &["status", "design", "--watch", "--output", "yaml"]);
    let tables = |text: &str| text.matches("NAME").count();
    all.until(|text| tables(text) == 1 && text.contains("design")).await;
    one.until(|text| text.contains(&first)).await;
    // Nothing changes for longer than it waits between two looks.
    one_json.until(|text| documents(text).len() == 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    one_json.until(|text| documents(text).len() == 1).await;
    env.annotate("design", "boltz.bio/rotate", "1").await;
    let rotated = |object: &BoltzApiKey| {
        object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&first))
    };
    let second = env.until("design", "rotated", rotated).await.status.unwrap().key_id.unwrap();
    all.until(|text| tables(text) > 1).await;
    one.until(|text| text.contains(&second)).await;
    one_json.until(|text| documents(text).iter().any(|found| found["status"]["keyID"] == *second)).await;
    let key_of_list = |found: &Json| found["items"][0]["status"]["keyID"] == *second;
    all_json.until(|text| documents(text).iter().any(key_of_list)).await;
    one_yaml.until(|text| text.matches("\n---\n").count() >= 1 && text.contains(&second)).await;
    // One that is gone cannot be watched.
    env.delete("design").await;
    eventually(PATIENCE, "it ends", async || one.child.try_wait().ok().flatten().ok_or("it runs"))
        .await
        .unwrap();
    one.until(|text| text.contains("next: ")).await;
    assert_eq!(one.child.wait().unwrap().code(), Some(1));
    all.until(|text| !text.trim_end().ends_with("design")).await;
}

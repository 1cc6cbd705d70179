//! Every manifest in `examples/` is taken by the API server as it is, and the operator issues its keys.

use crate::test_env::TestEnv;
use std::{fs, path::PathBuf};

#[tokio::test]
async fn every_example_is_accepted_and_its_keys_are_issued() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    // The folders are tested with the chart and kustomize, in tests/cluster/chart.
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.is_file() && !path.ends_with("README.md")).collect();
    files.sort();
    assert!(!files.is_empty(), "there are examples");

    let env = TestEnv::new().await;
    let (mut names, mut suspended) = (Vec::new(), Vec::new());
    for file in files {
        let file_name = file.file_name().unwrap().to_str().unwrap();
        let manifest = fs::read_to_string(&file).unwrap();
        assert!(manifest.starts_with("# "), "{file_name} says first what it shows");
        assert!(table.contains(&format!("]({file_name})")), "{file_name} is in the table of the README");
        let created = create(&env, manifest).await;
        let objects: Vec<String> = created
            .lines()
            .filter_map(|line| line.strip_prefix("boltzapikey.boltz.bio/"))
            .map(str::to_owned)
            .collect();
        assert!(!objects.is_empty(), "{file_name} has a BoltzApiKey: {created}");
        if file_name == "suspended.yaml" { suspended.extend(objects) } else { names.extend(objects) }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    env.judge_all(&names, &[]).await;
    for name in suspended {
        env.not_ready(&name, "Suspended").await;
    }
}

/// Creates what the manifest has, with unknown fields refused. What kubectl printed.
async fn create(env: &TestEnv, manifest: String) -> String {
    let (control_plane, namespace) = (env.control_plane.clone(), env.namespace.clone());
    // The emulator goes on answering meanwhile.
    let kubectl = tokio::task::spawn_blocking(move || {
        let arguments =
            ["create", "--namespace", &namespace, "--validate=strict", "--output=name", "--filename=-"];
        control_plane.kubectl_with_input(&arguments, &manifest)
    });
    kubectl.await.unwrap().unwrap()
}

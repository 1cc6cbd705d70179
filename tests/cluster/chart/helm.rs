//! Runs helm, in both versions, as the project builds them.

use boltz_harness::child_process::output_with_input;
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Helm 4 and Helm 3: the same chart must do with both.
pub const HELMS: [&str; 2] = ["helm", "helm3"];
/// Without a cluster helm believes in a version of Kubernetes that its builder chose; ours is not a release's.
pub const KUBE_VERSION: &str = "--kube-version=1.36.3";

/// The folder of the chart.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/boltz-operator")
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build");
    let output = Command::new(script).args(HELMS).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "helm could not be built: see above");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap())
});

/// Runs that helm with these values on its standard input; what it printed, or what it complained about.
pub fn run(
    helm: &str,
    arguments: &[&str],
    values: &Json,
    environment: &[(&str, &Path)],
) -> Result<String, String> {
    // Nothing of it belongs among the user's own files.
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(FOLDER.join(helm));
    command
        .args(arguments)
        .envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, home.path())))
        .envs(environment.iter().copied());
    let output = output_with_input(&mut command, &values.to_string()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What the chart renders with these values as the release `boltz-operator` in `boltz-system`, as text.
pub fn render(helm: &str, values: &Json, more: &[&str]) -> Result<String, String> {
    let chart = chart();
    let release = ["template", "boltz-operator", chart.to_str().unwrap(), "--namespace", "boltz-system"];
    run(helm, &[&release[..], &[KUBE_VERSION, "--values", "-"], more].concat(), values, &[])
}

/// The manifests of a rendering.
pub type Manifests = BTreeMap<(String, String, String), Json>;

/// The manifests that the chart renders with these values, by kind, namespace and name. Both versions must agree.
pub fn template(values: &Json) -> Manifests {
    let [four, three] = HELMS.map(|helm| manifests(&render(helm, values, &[]).unwrap()));
    assert!(four == three, "Helm 4 and Helm 3 render differently: {values}");
    four
}

/// The manifests in a text.
pub fn manifests(text: &str) -> Manifests {
    let documents: Vec<Json> = serde_saphyr::from_multiple(text).unwrap();
    let field = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| {
            let metadata = &document["metadata"];
            let key = (field(&document["kind"]), field(&metadata["namespace"]), field(&metadata["name"]));
            (key, document)
        })
        .collect()
}

/// All of a kind.
pub fn of_kind<'a>(manifests: &'a Manifests, kind: &'a str) -> impl Iterator<Item = &'a Json> {
    manifests.iter().filter(move |((known, ..), _)| known == kind).map(|(_, manifest)| manifest)
}

/// As kubectl takes them.
pub fn as_list<'a>(manifests: impl IntoIterator<Item = &'a Json>) -> String {
    let items: Vec<&Json> = manifests.into_iter().collect();
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

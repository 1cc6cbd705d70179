//! Runs helm, in both versions, as the project builds them.

use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Helm 4 and Helm 3: the same chart must do with both.
pub const HELMS: [&str; 2] = ["helm", "helm3"];

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
    let mut child = Command::new(FOLDER.join(helm))
        .args(arguments)
        .envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, home.path())))
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading them.
    let _ = child.stdin.take().unwrap().write_all(values.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What the chart renders with these values as the release `boltz-operator` in `boltz-system`. Both versions must agree.
pub fn template(values: &Json, more: &[&str]) -> Result<String, String> {
    let chart = chart();
    let mut arguments = vec![
        "template",
        "boltz-operator",
        chart.to_str().unwrap(),
        "--namespace",
        "boltz-system",
        "--values",
        "-",
    ];
    arguments.extend(more);
    let [four, three] = HELMS.map(|helm| run(helm, &arguments, values, &[]));
    if let (Ok(four), Ok(three)) = (&four, &three) {
        assert_eq!(four, three, "Helm 4 and Helm 3 render differently: {values}");
    }
    three?;
    four
}

/// The manifests of a rendering.
pub fn manifests(rendering: &str) -> Vec<Json> {
    let documents: Vec<Json> = serde_saphyr::from_multiple(rendering).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The manifests by kind and name.
pub fn by_name(manifests: &[Json]) -> BTreeMap<(String, String), Json> {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    manifests
        .iter()
        .map(|manifest| ((text(&manifest["kind"]), text(&manifest["metadata"]["name"])), manifest.clone()))
        .collect()
}

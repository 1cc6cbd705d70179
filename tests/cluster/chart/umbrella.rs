//! `examples/umbrella-chart`: the chart as a dependency of another.

use super::helm::{HELMS, KUBE_VERSION, Manifests, as_list, manifests, of_kind, run};
use crate::test_env::control_plane;
use serde_json::json;
use std::{path::Path, process::Command};

#[tokio::test]
async fn an_umbrella_chart_configures_and_switches_off_the_operator() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(repository.join("examples/README.md")).unwrap();
    assert!(table.contains("](umbrella-chart/)"));
    let control_plane = control_plane().await;
    for helm in HELMS {
        // The dependency is fetched into the chart's folder.
        let folder = tempfile::tempdir().unwrap();
        for part in ["examples", "charts"] {
            let copy = Command::new("cp").arg("-r").arg(repository.join(part)).arg(folder.path()).status();
            assert!(copy.unwrap().success());
        }
        let chart = folder.path().join("examples/umbrella-chart");
        let chart = chart.to_str().unwrap();
        run(helm, &["dependency", "update", chart], &json!({}), &[]).unwrap();
        let template = |values| -> Manifests {
            let arguments = [
                "template",
                "platform",
                chart,
                "--namespace",
                "boltz-system",
                "--no-hooks",
                KUBE_VERSION,
                "-f",
                "-",
            ];
            manifests(&run(helm, &arguments, &values, &[]).unwrap())
        };
        run(helm, &["lint", "--strict", chart, KUBE_VERSION], &json!({}), &[]).unwrap();

        let rendered = template(json!({}));
        let deployment = of_kind(&rendered, "Deployment").next().unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let image = format!("registry.example/boltz-operator:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(pod["containers"][0]["image"], image);
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
        assert_eq!(of_kind(&rendered, "LimitRange").next().unwrap()["metadata"]["name"], "platform-pods");
        let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        control_plane.kubectl_with_input(&dry_run, &as_list(rendered.values())).unwrap();

        // As on OpenShift: null reaches a dependency too.
        let ids = json!({"runAsUser": null, "runAsGroup": null, "fsGroup": null});
        let without_ids = template(json!({"boltz-operator": {"podSecurityContext": ids}}));
        let deployment = of_kind(&without_ids, "Deployment").next().unwrap();
        assert_eq!(
            deployment["spec"]["template"]["spec"]["securityContext"],
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        assert!(template(json!({"boltz-operator": {"enabled": false}})).is_empty(), "{helm}");
    }
}

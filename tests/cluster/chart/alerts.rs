//! Alerts: they fire in their fault and in no other state, speak of metrics that exist, and lead to a page that helps.

use super::helm::{HELMS, chart, of_kind, render, template};
use boltz_operator::observability::metrics::Metrics;
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn promtool(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(root().join("tests/tools/promtool"))
        .args(arguments)
        .current_dir(root().join("tests/cluster/chart/alerts"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

fn files(folder: &str) -> Vec<String> {
    let files = fs::read_dir(root().join(folder)).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The rules, from the file that people without the Prometheus operator use.
fn rules() -> Vec<Json> {
    let text = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let file: Json = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Those that may fire. The others record something.
fn alerts() -> Vec<Json> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

fn name(rule: &Json) -> String {
    rule["alert"].as_str().unwrap().to_owned()
}

#[test]
fn each_alert_fires_in_its_fault_and_in_nothing_that_looks_like_it() {
    let tests = files("tests/cluster/chart/alerts");
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    promtool(&arguments).unwrap();
    let text: String = tests
        .iter()
        .map(|file| fs::read_to_string(root().join("tests/cluster/chart/alerts").join(file)).unwrap())
        .collect();
    for rule in alerts() {
        let fires = format!(r#"alertname="{}",alertstate="firing""#, name(&rule));
        assert!(text.contains(&fires), "no test expects {} to fire", name(&rule));
    }
}

#[test]
fn alerts_and_dashboard_speak_of_metrics_that_exist() {
    let text = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let dashboard = fs::read_to_string(chart().join("files/dashboards/boltz-operator.json")).unwrap();
    let _: Json = serde_json::from_str(&dashboard).unwrap();
    let known = Metrics::new().names();
    let mut used = BTreeSet::new();
    let is_name = |character: char| character.is_ascii_lowercase() || character == '_';
    for word in [text, dashboard].iter().flat_map(|text| text.split(|character| !is_name(character))) {
        if word.starts_with("boltz_") || word.starts_with("process_") {
            let name = word.trim_end_matches("_bucket").to_owned();
            assert!(known.contains(&name), "there is no metric {name}");
            used.insert(name);
        }
    }
    assert!(used.len() > 20, "{used:?}");
}

#[test]
fn each_alert_has_a_runbook_a_severity_and_a_switch() {
    let schema: Json =
        serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let switches = &schema["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]["alerts"];
    let switches: BTreeSet<String> = switches["properties"].as_object().unwrap().keys().cloned().collect();
    let names: BTreeSet<String> = alerts().iter().map(name).collect();
    assert_eq!(switches, names);
    let pages: BTreeSet<String> = names.iter().map(|name| format!("{name}.md")).collect();
    let found: BTreeSet<String> =
        files("docs/runbooks").into_iter().filter(|file| file.starts_with("Boltz")).collect();
    assert_eq!(found, pages);
    let list = fs::read_to_string(root().join("docs/runbooks/README.md")).unwrap();
    for rule in alerts() {
        let (name, severity) = (name(&rule), rule["labels"]["severity"].as_str().unwrap());
        let path = format!("docs/runbooks/{name}.md");
        assert_eq!(rule["annotations"]["runbook_url"], json!(path));
        // It also helps where the pages are not published.
        assert_eq!(rule["annotations"]["runbook"], json!(format!("kubectl boltz explain {name}")));
        let page = fs::read_to_string(root().join(&path)).unwrap();
        for part in [&format!("# {name}\n"), "## How to look", "## What to do", "## What not to do"] {
            assert!(page.contains(part), "{path} lacks {part:?}");
        }
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        let row = format!("| [{name}]({name}.md) | {summary} | {severity} |");
        assert!(list.lines().any(|line| line == row), "docs/runbooks/README.md lacks the row\n{row}");
    }
}

#[test]
fn single_alerts_can_be_switched_off_and_changed() {
    let rendered = |alerts: &Json| -> Json {
        let manifests = template(&json!({"metrics": {"prometheusRule": alerts}}));
        of_kind(&manifests, "PrometheusRule").next().unwrap()["spec"].clone()
    };
    // Without changes it is the file, but for the path of the page in a checkout, which leads nowhere from an alert.
    let plain = rendered(&json!({"enabled": true}));
    let mut expected = rules();
    for rule in &mut expected {
        if let Some(annotations) = rule.get_mut("annotations").and_then(Json::as_object_mut) {
            annotations.remove("runbook_url");
        }
    }
    assert_eq!(plain["groups"][0]["rules"], json!(expected));
    let changed = rendered(&json!({
        "enabled": true, "alertLabels": {"team": "platform"}, "runbookBaseURL": "https://docs.example/runbooks/",
        "alerts": {
            "BoltzApiKeyUnused": {"enabled": false},
            "BoltzApiKeyNotReady": {
                "for": "1h", "severity": "critical", "labels": {"page": "yes"}, "annotations": {"summary": "Mine."},
            },
            "BoltzOperatorOrphanedKeys": {"expr": "boltz_orphaned_keys > 7"},
        },
    }));
    let rules_now = changed["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules_now.len(), rules().len() - 1);
    let find = |wanted: &str| rules_now.iter().find(|rule| rule["alert"] == wanted).unwrap();
    let not_ready = find("BoltzApiKeyNotReady");
    assert_eq!(not_ready["for"], "1h");
    assert_eq!(not_ready["labels"], json!({"team": "platform", "severity": "critical", "page": "yes"}));
    assert_eq!(not_ready["annotations"]["summary"], "Mine.");
    assert_eq!(
        not_ready["annotations"]["runbook_url"],
        "https://docs.example/runbooks/BoltzApiKeyNotReady.md"
    );
    assert_eq!(find("BoltzOperatorOrphanedKeys")["expr"], "boltz_orphaned_keys > 7");
    assert_eq!(find("BoltzOperatorDown")["labels"], json!({"team": "platform", "severity": "warning"}));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), changed.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]).unwrap();
}

#[test]
fn a_mistyped_alert_is_refused() {
    for (change, words) in [
        (json!({"BoltzApiKeyNotReddy": {"enabled": false}}), "BoltzApiKeyNotReddy"),
        (json!({"BoltzApiKeyNotReady": {"severity": "page"}}), "/severity"),
        (json!({"BoltzApiKeyNotReady": {"fro": "1h"}}), "fro"),
    ] {
        for helm in HELMS {
            let values = json!({"metrics": {"prometheusRule": {"enabled": true, "alerts": change}}});
            let error = render(helm, &values, &[]).unwrap_err();
            assert!(error.contains(words), "{helm}: {words} is not in\n{error}");
        }
    }
}

#[test]
fn monitors_take_what_prometheus_lets_one_set() {
    let settings = json!({
        "enabled": true, "interval": "1m", "scrapeTimeout": "20s", "honorLabels": false,
        "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
        "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "process_.*", "action": "drop"}],
    });
    for (monitor, kind, endpoints) in [
        ("serviceMonitor", "ServiceMonitor", "endpoints"),
        ("podMonitor", "PodMonitor", "podMetricsEndpoints"),
    ] {
        let manifests = template(&json!({"metrics": {monitor: settings}}));
        let endpoint = &of_kind(&manifests, kind).next().unwrap()["spec"][endpoints][0];
        let mut expected = settings.clone();
        expected.as_object_mut().unwrap().remove("enabled");
        expected["port"] = json!("metrics");
        assert_eq!(*endpoint, expected, "{kind}");
    }
}

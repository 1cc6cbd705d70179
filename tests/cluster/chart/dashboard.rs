//! A real Prometheus reads a running operator: nothing is wrong, then something is; every query of the dashboard has data.

use super::{alerts::promtool, helm::chart};
use crate::test_env::{EnvOptions, PATIENCE, TestEnv, control_plane, is, owned};
use boltz_emulator::{Operation, StandingFault};
use boltz_harness::{
    child_process::{OwnedFolder, OwnedProcess},
    eventually, free_port,
};
use serde_json::{Value as Json, json};
use std::{fs, path::Path, time::Duration};

struct Prometheus {
    process: OwnedProcess,
    url: String,
    _folder: OwnedFolder,
}

impl Prometheus {
    /// Scrapes the operator every second, and evaluates the alerts as often.
    fn start(target: &str) -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/prometheus");
        let folder = OwnedFolder::create("prometheus").unwrap();
        let file = folder.path().join("prometheus.yml");
        let configuration = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [chart().join("files/alerts.yaml")],
            "scrape_configs": [{
                "job_name": "operator", "honor_labels": true,
                "static_configs": [{"targets": [target], "labels": {"cluster": "test", "pod": "operator-0"}}],
            }],
        });
        fs::write(&file, configuration.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let log = folder.path().join("prometheus.log");
        let process = OwnedProcess::start(&tool, &arguments, &[], &log).unwrap();
        Self { process, url: format!("http://{address}"), _folder: folder }
    }

    /// The results of an instant query.
    async fn query(&self, query: &str) -> Result<Vec<Json>, String> {
        boltz_harness::install_tls_provider();
        let ask = async {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
            let url = format!("{}/api/v1/query", self.url);
            client.get(url).query(&[("query", query)]).send().await?.json::<Json>().await
        };
        let answer = ask.await.map_err(|error| error.to_string())?;
        answer["data"]["result"].as_array().cloned().ok_or_else(|| answer.to_string())
    }

    /// Waits until the query has a result that is a number.
    async fn until(&self, query: &str) {
        let is_number = |result: &Json| {
            let value = result["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
            value.is_some_and(f64::is_finite)
        };
        let seen = eventually(PATIENCE, query, async || {
            let results = self.query(query).await?;
            if results.iter().any(is_number) { Ok(()) } else { Err(format!("{results:?}")) }
        });
        if let Err(error) = seen.await {
            panic!("{error}\n{}", self.process.last_lines(20));
        }
    }
}

/// The colour that Grafana gives to a value with that name: an override by name counts more than the panel's thresholds. Without a
/// value it is that of the first step.
fn color(panel: &Json, name: &str, value: Option<f64>) -> String {
    let config = &panel["fieldConfig"];
    let overrides = config["overrides"].as_array().into_iter().flatten();
    let own = overrides
        .filter(|one| one["matcher"] == json!({"id": "byName", "options": name}))
        .flat_map(|one| one["properties"].as_array().into_iter().flatten())
        .find(|property| property["id"] == "thresholds");
    let thresholds = own.map_or(&config["defaults"]["thresholds"], |property| &property["value"]);
    let steps =
        thresholds["steps"].as_array().unwrap_or_else(|| panic!("{} has no thresholds", panel["title"]));
    let is_reached = |least: f64| value.is_some_and(|value| value >= least);
    let mut reached = steps.iter().filter(|step| step["value"].as_f64().is_none_or(is_reached));
    reached.next_back().unwrap()["color"].as_str().unwrap().to_owned()
}

/// Of a number that is not known.
const GREY: &str = "#808080";

fn dashboard() -> Json {
    let file = fs::read_to_string(chart().join("files/dashboards/boltz-operator.json")).unwrap();
    serde_json::from_str(&file).unwrap()
}

fn stats(dashboard: &Json) -> impl Iterator<Item = &Json> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "stat")
}

/// The titles of the numbers that have that colour now.
async fn numbers(prometheus: &Prometheus, wanted: &str) -> Vec<String> {
    let dashboard = dashboard();
    let mut titles = Vec::new();
    for panel in stats(&dashboard) {
        let target = &panel["targets"][0];
        let results = prometheus.query(&evaluated(target["expr"].as_str().unwrap())).await.unwrap();
        let color_of = |result: &Json| {
            let name = target["legendFormat"]
                .as_str()
                .unwrap()
                .replace("{{state}}", result["metric"]["state"].as_str().unwrap_or_default());
            color(panel, &name, Some(result["value"][1].as_str().unwrap().parse().unwrap()))
        };
        let mut colors: Vec<String> = results.iter().map(color_of).collect();
        if colors.is_empty() {
            colors.push(color(panel, "", None));
        }
        if colors.iter().any(|color| color == wanted) {
            titles.push(panel["title"].as_str().unwrap().to_owned());
        }
    }
    titles
}

/// What is shown of objects.
const OF_OBJECTS: [&str; 5] =
    ["Ready", "Not ready", "Expiring soon", "Rotations overdue", "Longest overdue revocation"];

#[test]
fn each_number_has_a_colour_for_what_is_wrong_and_one_for_what_is_right() {
    let dashboard = dashboard();
    // What each shows when nothing is wrong, and when something is.
    for (title, name, right, wrong) in [
        ("Ready", "", 5.0, 0.0),
        ("Not ready", "", 0.0, 1.0),
        ("Expiring soon", "", 0.0, 1.0),
        ("Rotations overdue", "", 0.0, 1.0),
        ("Longest overdue revocation", "", 0.0, 4000.0),
        ("Orphaned keys", "", 0.0, 1.0),
        ("No single leader", "", 0.0, 1.0),
    ] {
        let panel = stats(&dashboard).find(|panel| panel["title"] == title).unwrap();
        assert_eq!(color(panel, name, Some(right)), "green", "{title}: {right}");
        assert_eq!(color(panel, name, Some(wrong)), "red", "{title}: {wrong}");
    }
    let admin_key = stats(&dashboard).find(|panel| panel["title"] == "Admin key").unwrap();
    for (state, expected) in [
        ("valid", "green"),
        ("test_mode", "blue"),
        ("refused", "red"),
        ("unreachable", "red"),
        ("wrong_organization", "red"),
    ] {
        assert_eq!(color(admin_key, state, Some(1.0)), expected, "{state}");
    }
    assert_eq!(stats(&dashboard).count(), 8, "a new number needs a line here");
    for panel in stats(&dashboard) {
        // What nobody knows is neither good nor bad.
        assert_eq!(color(panel, "", None), GREY, "{}", panel["title"]);
        assert_eq!(panel["fieldConfig"]["defaults"]["noValue"], "no data", "{}", panel["title"]);
    }
}

/// The value of a number whose queries find these series after two hours.
fn assert_number(title: &str, series: &[(&str, &str)], value: f64) {
    let dashboard = dashboard();
    let panel = stats(&dashboard).find(|panel| panel["title"] == title).unwrap();
    let series: Vec<Json> =
        series.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
    let test = json!({"evaluation_interval": "1m", "tests": [{
        "interval": "1m", "input_series": series,
        "promql_expr_test": [{
            "expr": evaluated(panel["targets"][0]["expr"].as_str().unwrap()), "eval_time": "2h",
            "exp_samples": [{"labels": "{}", "value": value}],
        }],
    }]});
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), test.to_string()).unwrap();
    promtool(&["test", "rules", file.path().to_str().unwrap()]).unwrap();
}

#[test]
fn each_installation_is_counted_by_itself() {
    let led = (r#"boltz_leader{job="led",namespace="ops",pod="a"}"#, "1x120");
    let standby = (r#"boltz_leader{job="led",namespace="ops",pod="b"}"#, "0x120");
    let leaderless = (r#"boltz_leader{job="leaderless",namespace="ops",pod="a"}"#, "0x120");
    let led_twice = (r#"boltz_leader{job="led-twice",namespace="ops",pod="a"}"#, "1x120");
    let led_twice_too = (r#"boltz_leader{job="led-twice",namespace="ops",pod="b"}"#, "1x120");
    let gone = (r#"boltz_leader{job="gone",namespace="ops",pod="a"}"#, "1x10 stale");
    assert_number("No single leader", &[led, standby], 0.0);
    assert_number("No single leader", &[led, standby, leaderless, gone, led_twice, led_twice_too], 3.0);
}

#[test]
fn a_key_expires_soon_by_the_rule_of_the_alert() {
    const DAY: i64 = 86400;
    // Two hours from the start: the keys' times count from there.
    let expiring = |renewal: i64, expiry: i64| {
        let series = |metric: &str| format!(r#"boltz_apikey_{metric}_timestamp_seconds{{name="a"}}"#);
        let value = |time: i64| format!("{}x120", 7200 + time);
        let (renewal, expiry) = (value(renewal), value(expiry));
        let (when_renewed, when_expired) = (series("renewal"), series("expiration"));
        [(when_renewed, renewal), (when_expired, expiry)]
    };
    for (renewal, expiry, is_soon) in [
        (60 * DAY, 90 * DAY, false),
        // A key for a day, new and late.
        (16 * 3600, DAY, false),
        (-3 * 3600, 5 * 3600, false),
        (-5 * 3600, 3 * 3600, true),
        // Late, but not yet near its end.
        (-20 * DAY, 10 * DAY, false),
        (-29 * DAY, DAY / 2, true),
        (-10 * DAY, -DAY, true),
    ] {
        let series = expiring(renewal, expiry);
        let series = series.each_ref().map(|(series, values)| (series.as_str(), values.as_str()));
        assert_number("Expiring soon", &series, f64::from(u8::from(is_soon)));
    }
}

#[test]
fn a_key_for_which_no_replacement_is_planned_expires_soon_within_a_day() {
    let expiring =
        |expiry: &'static str| [(r#"boltz_apikey_expiration_timestamp_seconds{name="a"}"#, expiry)];
    assert_number("Expiring soon", &expiring("93000x120"), 1.0);
    assert_number("Expiring soon", &expiring("95000x120"), 0.0);
}

/// Their alerts are silent too.
#[test]
fn objects_that_are_being_deleted_are_not_red() {
    let deleting =
        |metric: &str, values: &'static str| (format!(r#"boltz_apikey_{metric}{{name="a"}}"#), values);
    let series = [
        deleting("ready", "0x120"),
        deleting("active", "0x120"),
        deleting("expiration_timestamp_seconds", "600x120"),
        deleting("renewal_timestamp_seconds", "60x120"),
        (r#"boltz_apikey_status{name="a",reason="Deleting"}"#.to_owned(), "1x120"),
        // Another one without a key for which a replacement is planned.
        (r#"boltz_apikey_ready{name="b"}"#.to_owned(), "1x120"),
        (r#"boltz_apikey_active{name="b"}"#.to_owned(), "1x120"),
    ];
    let series = series.each_ref().map(|(series, values)| (series.as_str(), *values));
    for title in ["Not ready", "Expiring soon", "Rotations overdue"] {
        assert_number(title, &series, 0.0);
    }
}

/// What Grafana puts in the place of its variables.
fn evaluated(query: &str) -> String {
    let variables = [
        ("$__rate_interval", "1m"),
        ("$__range", "1h"),
        ("$cluster", ".*"),
        ("$installation", ".*"),
        ("$namespace", ".*"),
    ];
    variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
}

#[tokio::test]
async fn every_query_of_the_dashboard_has_data_and_a_healthy_operator_no_alert() {
    let mut env = TestEnv::new().await;
    let operator = env.operator.base_url();
    let prometheus = Prometheus::start(operator.strip_prefix("http://").unwrap());
    prometheus.until("boltz_leader == 1").await;
    // A new installation.
    assert_eq!(numbers(&prometheus, "red").await, [""; 0]);
    let unknown = numbers(&prometheus, GREY).await;
    assert!(OF_OBJECTS.iter().all(|title| unknown.iter().any(|known| known == title)), "{unknown:?}");
    // The first key is seen, because its counter was there before.
    let key = json!({"expiresInDays": 90, "rotation": {"interval": "24h"}});
    env.create("well", key).await;
    env.ready("well").await;
    // A key whose whole life is a day is no trouble.
    env.create("short", json!({"expiresInDays": 1})).await;
    env.ready("short").await;
    prometheus.until(r#"increase(boltz_apikey_issued_total{reason="Initial"}[1m]) > 0"#).await;
    prometheus.until(r#"boltz_apikey_ready{name="well"} == 1"#).await;
    prometheus.until(r#"boltz_apikey_expiration_timestamp_seconds{name="short"}"#).await;
    prometheus.until(r#"boltz_admin_key_state{state="valid"} == 1"#).await;
    // On a busy machine a first watch may have failed for a moment.
    prometheus.until("absent(ALERTS)").await;
    assert_eq!(numbers(&prometheus, "red").await, [""; 0]);
    let good = numbers(&prometheus, "green").await;
    assert!(OF_OBJECTS.iter().all(|title| good.iter().any(|known| known == title)), "{good:?}");

    // A key that cannot be revoked, and one that cannot be issued.
    env.create("leaked", json!({})).await;
    env.ready("leaked").await;
    env.emulator.stand("no revocation", StandingFault::status(Operation::Revoke, 409));
    env.annotate("leaked", "boltz.bio/rotate-now", "1").await;
    let refused = StandingFault::status(Operation::Create, 422).in_workspace("ws_gone");
    env.emulator.stand("no workspace", refused);
    env.create("rejected", json!({"workspaceID": "ws_gone"})).await;
    env.not_ready("rejected", "BoltzRejected").await;
    let told = |object: &_| is(object, "RevocationFailing");
    env.until("leaked", "RevocationFailing", told).await;

    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<String> = queries.map(|target| evaluated(target["expr"].as_str().unwrap())).collect();
    assert!(queries.len() >= 30);
    for query in &queries {
        prometheus.until(query).await;
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"].as_str().and_then(|query| query.strip_prefix("label_values("))
        else {
            continue;
        };
        let (series, label) = query.trim_end_matches(')').rsplit_once(", ").unwrap();
        prometheus.until(&evaluated(&format!("count by ({label}) ({series})"))).await;
        let values = prometheus.query(&evaluated(&format!("group by ({label}) ({series})"))).await.unwrap();
        assert!(values.iter().all(|value| value["metric"][label].is_string()), "{values:?}");
    }
    prometheus.until(r#"ALERTS{alertname="BoltzApiKeyNotReady",alertstate="pending",name="rejected"}"#).await;
    prometheus.until(r#"boltz_apikey_revocation_overdue_seconds{name="leaked"} > 0"#).await;
    // A wrong key in the file alone would not be used.
    env.emulator.set_admin_keys(Vec::new());
    prometheus.until(r#"boltz_admin_key_state{state="refused"} == 1"#).await;
    // The same for `kubectl boltz doctor`.
    let published = async || match env.remembered("adminKey").await {
        Ok(state) if state == "refused" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(PATIENCE, "it is published", published).await.unwrap();
    assert_eq!(numbers(&prometheus, "red").await, ["Not ready", "Admin key"]);
    // Gone, and not forgotten: the number is 0 and not absent. What only it knew is not known any more.
    env.operator.kill();
    eventually(PATIENCE, "no leader is red", async || {
        let red = numbers(&prometheus, "red").await;
        if red == ["No single leader"] { Ok(()) } else { Err(format!("{red:?}")) }
    })
    .await
    .unwrap();
    assert_eq!(numbers(&prometheus, "green").await, [""; 0]);
    // The times of its keys are remembered for the critical alerts.
    prometheus.until(r#"boltz:apikey_expiration_timestamp_seconds:last{name="short"}"#).await;
}

/// A standby is ready, so that only this alert tells.
#[tokio::test]
async fn that_every_replica_waits_is_seen() {
    const LEASE: &str = "held-by-somebody-who-is-gone";
    let control_plane = control_plane().await;
    let now = jiff::Timestamp::now().strftime("%FT%T.000000Z").to_string();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": "boltz-system"},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 3600, "acquireTime": now, "renewTime": now},
    });
    control_plane.apply(&lease.to_string()).unwrap();
    let arguments = owned(&["--leader-elect", "true", "--lease-name", LEASE]);
    let kubeconfig = control_plane.kubeconfig("admin");
    let options =
        EnvOptions { arguments, kubeconfig: Some(Box::new(move |_| kubeconfig)), ..EnvOptions::default() };
    let env = TestEnv::with_options(options).await;
    env.operator.wait_ready().await.unwrap();
    let prometheus = Prometheus::start(env.operator.base_url().strip_prefix("http://").unwrap());
    prometheus
        .until(r#"ALERTS{alertname="BoltzOperatorNoLeader",alertstate="pending",cluster="test"}"#)
        .await;
    assert_eq!(numbers(&prometheus, "red").await, ["No single leader"]);
    assert_eq!(numbers(&prometheus, "green").await, [""; 0]);
    let delete = ["delete", "lease", LEASE, "--namespace", "boltz-system"];
    control_plane.kubectl(&delete).unwrap();
    prometheus.until("boltz_leader == 1").await;
    eventually(PATIENCE, "no alert", async || {
        let alerts = prometheus.query("ALERTS").await?;
        if alerts.is_empty() { Ok(()) } else { Err(format!("{alerts:?}")) }
    })
    .await
    .unwrap();
}

/// Draws the picture of the dashboard for the documentation: some minutes of keys that come, rotate and go, and of trouble.
/// Writes the file that `PICTURE` names, relative to the repository.
#[tokio::test]
#[ignore = "draws a picture for somebody to look at: make dashboard-picture"]
async fn a_picture() {
    const MINUTES: u64 = 4;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = root.join(std::env::var("PICTURE").expect("PICTURE names the file"));
    let env = TestEnv::settling_fast().await;
    let prometheus = Prometheus::start(env.operator.base_url().strip_prefix("http://").unwrap());
    prometheus.until("boltz_leader == 1").await;
    let end = tokio::time::Instant::now() + Duration::from_secs(60 * MINUTES);
    let lives = [1, 7, 30, 90, 365];
    for round in 0_usize.. {
        let name = format!("model-{round}");
        let spec = json!({"expiresInDays": lives[round % lives.len()], "rotation": {"overlap": "20s"}});
        env.create(&name, spec).await;
        match round {
            4 => {
                let refused = StandingFault::status(Operation::Create, 422).in_workspace("ws_gone");
                env.emulator.stand("no workspace", refused);
                env.create("rejected", json!({"workspaceID": "ws_gone"})).await;
            }
            8 => env.emulator.stand("busy", StandingFault::status(Operation::Create, 429)),
            10 => env.emulator.lift("busy"),
            12 => {
                env.emulator.stand("no revocation", StandingFault::status(Operation::Revoke, 409));
                env.annotate("model-1", "boltz.bio/rotate-now", "1").await;
            }
            _ => {}
        }
        if round >= 6 && round % 2 == 0 {
            env.annotate(&format!("model-{}", round - 6), "boltz.bio/rotate", &round.to_string()).await;
        }
        if round >= 16 && round % 3 == 0 {
            env.delete(&format!("model-{}", round - 12)).await;
        }
        if tokio::time::Instant::now() >= end {
            break;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let mut tool = tokio::process::Command::new(root.join("tests/tools/dashboard-picture"));
    let drawn =
        tool.arg(&prometheus.url).arg(&picture).env("MINUTES", MINUTES.to_string()).status().await.unwrap();
    assert!(drawn.success());
}

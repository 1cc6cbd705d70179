//! Values: which are refused, with which words, and that they reach the operator.

use super::helm::{HELMS, of_kind, render, template};
use boltz_operator::cli::Config;
use clap::{CommandFactory, Parser};
use serde_json::{Value as Json, json};

/// The flags that the operator's container gets.
fn flags(values: &Json) -> Vec<String> {
    let manifests = template(values);
    let deployment = of_kind(&manifests, "Deployment").next().unwrap();
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    arguments.as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned()).collect()
}

fn parsed(flags: &[String]) -> Config {
    let name = "boltz-operator".to_owned();
    Config::try_parse_from(std::iter::once(&name).chain(flags)).unwrap()
}

#[test]
fn the_defaults_are_the_operators_own() {
    let chart = parsed(&flags(&json!({})));
    let own = parsed(&["--admin-key-file=/etc/boltz-operator/admin-key/admin-key".to_owned()]);
    assert_eq!(format!("{chart:?}"), format!("{own:?}"));
}

#[test]
fn every_flag_has_a_value() {
    let flags = flags(&json!({
        "boltz": {"baseURL": "http://boltz.example", "allowInsecureHTTP": true, "ca": {"configMap": "roots"}},
        "accounts": {"enabled": true, "allowedURLs": ["https://boltz.example"]},
        "clusterName": "prod",
        "watchNamespaces": ["team-a", "team-b"],
        "config": {
            "formerClusterNames": ["old", "older"], "labelSelector": "shard in (a, b)", "leaseNamespace": "leases",
            "acceptOrganization": "org", "retryAlteredNames": true, "maxMintsPerNamespace": 60,
        },
        "tests": {"labels": {"shard": "a"}},
    }));
    for flag in Config::command().get_arguments().filter_map(|argument| argument.get_long()) {
        let named =
            |text: &String| text.strip_prefix("--").and_then(|text| text.split('=').next()) == Some(flag);
        assert!(flags.iter().any(named), "--{flag} has no value in the chart");
    }
    let config = parsed(&flags);
    assert_eq!(config.watch_namespaces, ["team-a", "team-b"]);
    assert_eq!(config.former_cluster_names.len(), 2);
    assert_eq!(config.label_selector.as_deref(), Some("shard in (a, b)"));
    assert_eq!(config.boltz_ca_file.unwrap().to_str(), Some("/etc/boltz-operator/ca/ca.crt"));
}

#[test]
fn large_numbers_stay_numbers() {
    let numbers =
        json!({"maxMintsPerMinute": 1_000_000, "maxMintsPerNamespace": 1_000_000, "concurrency": 1000});
    let config = parsed(&flags(&json!({"config": numbers})));
    assert_eq!(config.max_mints_per_namespace, Some(1_000_000));
    assert_eq!((config.max_mints_per_minute, config.concurrency), (1_000_000, 1000));
}

/// What the schema refuses names the value; what only a template can refuse says what to do.
#[test]
fn wrong_values_are_refused_with_words_that_help() {
    for (values, words) in [
        (json!({"imag": {}}), "imag"),
        (json!({"image": {"repo": "x"}}), "repo"),
        (json!({"config": {"inventoryIntervall": "10m"}}), "inventoryIntervall"),
        (json!({"config": {"inventoryInterval": "10"}}), "/config/inventoryInterval"),
        (json!({"config": {"inventoryInterval": 600}}), "/config/inventoryInterval"),
        (json!({"config": {"settleTime": "0s"}}), "/config/settleTime"),
        (json!({"config": {"requestTimeout": "1d"}}), "/config/requestTimeout"),
        (json!({"config": {"maxMintsPerMinute": 0}}), "/config/maxMintsPerMinute"),
        (json!({"config": {"maxMintsPerNamespace": 0}}), "/config/maxMintsPerNamespace"),
        (json!({"config": {"concurrency": 1001}}), "/config/concurrency"),
        (json!({"config": {"orphanPolicy": "delete"}}), "/config/orphanPolicy"),
        (json!({"config": {"logFormat": "xml"}}), "/config/logFormat"),
        (json!({"config": {"listen": "8080"}}), "/config/listen"),
        (json!({"config": {"listen": "0.0.0.0:65536"}}), "/config/listen"),
        (json!({"config": {"listen": ":0"}}), "/config/listen"),
        (json!({"image": {"digest": "sha256:0"}}), "/image/digest"),
        (json!({"image": {"registry": "https://registry.example"}}), "/image/registry"),
        (json!({"global": {"imageRegistry": "https://registry.example"}}), "/global/imageRegistry"),
        (json!({"namespaceOverride": "Elsewhere"}), "/namespaceOverride"),
        (json!({"extraArgs": ["log-format=text"]}), "/extraArgs"),
        (json!({"dnsPolicy": "Cluster"}), "/dnsPolicy"),
        (json!({"dnsConfig": {"servers": []}}), "servers"),
        (json!({"hostAliases": [{"ip": "10.0.0.1"}]}), "hostnames"),
        (json!({"networkPolicy": {"dnsPorts": []}}), "/networkPolicy/dnsPorts"),
        (json!({"podDisruptionBudget": {"minAvailable": "half"}}), "/podDisruptionBudget/minAvailable"),
        (json!({"fullnameOverride": "1st"}), "/fullnameOverride"),
        (json!({"config": {"labelSelector": " "}}), "/config/labelSelector"),
        (json!({"config": {"formerClusterNames": ["Old"]}}), "/config/formerClusterNames"),
        (json!({"config": {"markerFormat": 3}}), "/config/markerFormat"),
        (json!({"clusterName": "a-name-of-seventeen"}), "/clusterName"),
        (json!({"clusterName": "Prod"}), "/clusterName"),
        (json!({"watchNamespaces": "team-a"}), "/watchNamespaces"),
        (json!({"watchNamespaces": [""], "clusterName": "a"}), "/watchNamespaces"),
        (json!({"boltz": {"baseUrl": "https://boltz.example"}}), "baseUrl"),
        (json!({"boltz": {"baseURL": "boltz.example"}}), "/boltz/baseURL"),
        (json!({"boltz": {"baseURL": "https://user:secret@boltz.example"}}), "/boltz/baseURL"),
        (json!({"boltz": {"baseURL": "https://boltz.example/?a=b"}}), "/boltz/baseURL"),
        (json!({"replicaCount": "two"}), "/replicaCount"),
        (json!({"terminationGracePeriodSeconds": 5}), "/terminationGracePeriodSeconds"),
        (json!({"metrics": {"serviceMonitor": {"enable": true}}}), "enable"),
        (json!({"policies": {"expiry": {"maxDays": 0}}}), "/policies/expiry/maxDays"),
        (json!({"policies": {"validationActions": []}}), "/policies/validationActions"),
        (json!({"policies": {"quotas": [{"namespace": "team-a"}]}}), "boltzapikeys"),
        (json!({"emulator": {"adminKey": ""}}), "/emulator/adminKey"),
        (json!({"watchNamespaces": ["team-a"]}), "clusterName: required with watchNamespaces"),
        (
            json!({"watchNamespaces": ["team-a"], "clusterName": "a", "config": {"orphanPolicy": "revoke"}}),
            "config.orphanPolicy: revoke cannot be combined with watchNamespaces",
        ),
        (
            json!({"config": {"orphanPolicy": "revoke", "labelSelector": "shard=a"}}),
            "config.orphanPolicy: revoke cannot be combined with",
        ),
        (json!({"replicaCount": 2, "config": {"leaderElect": false}}), "set replicaCount=1"),
        (json!({"boltz": {"baseURL": "http://boltz.example"}}), "use an https:// URL"),
        (json!({"boltz": {"baseURL": "http://localhost.example"}}), "use an https:// URL"),
        (json!({"boltz": {"ca": {"configMap": "a", "secret": "b"}}}), "only one of configMap and secret"),
        (json!({"adminKey": {"value": "a", "existingSecret": "b"}}), "only one of existingSecret and value"),
        (
            json!({"adminKey": {"file": "/a", "existingSecret": "b"}}),
            "only one of file, existingSecret and value",
        ),
        (json!({"config": {"labelSelector": "shard=a"}}), "tests.labels: required"),
        (
            json!({"config": {"listen": "127.0.0.1:8080"}}),
            "config.listen: probes cannot reach 127.0.0.1:8080",
        ),
        (json!({"hostNetwork": true, "networkPolicy": {"enabled": true}}), "set one of them to false"),
        (
            json!({"metrics": {"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}}}),
            "only one of serviceMonitor and podMonitor",
        ),
        (
            json!({"metrics": {"serviceMonitor": {"enabled": true}, "service": {"enabled": false}}}),
            "requires metrics.service.enabled=true",
        ),
    ] {
        for helm in HELMS {
            let error = render(helm, &values, &[]).expect_err(&format!("{helm}: {values}"));
            assert!(error.contains(words), "{helm}: {values}: {words} is not in\n{error}");
        }
    }
}

#[test]
fn http_to_loopback_is_allowed() {
    for url in ["http://127.0.0.1:8099", "http://localhost", "http://[::1]:8099"] {
        template(&json!({"boltz": {"baseURL": url}}));
    }
}

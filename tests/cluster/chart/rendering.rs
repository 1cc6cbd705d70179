//! What the chart renders, over a matrix of values in which every switch is on once.

use super::helm::{HELMS, Manifests, as_list, chart, of_kind, run, template};
use boltz_harness::ControlPlane;
use kube::{Api, api::PostParams};
use serde_json::{Value as Json, json};

/// Values, each with its name.
fn matrix() -> Vec<(&'static str, Json)> {
    vec![
        ("defaults", json!({})),
        ("a name", json!({"fullnameOverride": "keys", "commonLabels": {"team": "platform"}})),
        ("an admin key", json!({"adminKey": {"value": "sk_bc_admin_live_x", "secretKey": "KEY"}})),
        ("an admin key's Secret", json!({"adminKey": {"existingSecret": "boltz", "secretKey": "token"}})),
        ("roots from a ConfigMap", json!({"boltz": {"ca": {"configMap": "roots"}}})),
        ("roots from a Secret", json!({"boltz": {"ca": {"secret": "roots", "key": "tls.crt"}}})),
        ("namespaces", json!({"watchNamespaces": ["team-a", "team-b"], "clusterName": "prod"})),
        (
            "numbers as names",
            json!({
                "watchNamespaces": ["123"], "clusterName": "1", "nameOverride": "null",
                "adminKey": {"existingSecret": "0", "secretKey": "1"}, "boltz": {"ca": {"secret": "2", "key": "3"}},
                "serviceAccount": {"create": false, "name": "4"}, "config": {"leaseName": "5"},
            }),
        ),
        (
            "a label in two places",
            json!({
                "commonLabels": {"a": "common", "app.kubernetes.io/version": "mine"}, "labels": {"a": "own"},
                "podLabels": {"a": "pod"}, "podAnnotations": {"kubectl.kubernetes.io/default-container": "mine"},
                "tests": {"labels": {"a": "test"}},
                "metrics": {"serviceMonitor": {"enabled": true, "labels": {"a": "monitor"}}},
            }),
        ),
        ("a cluster name", json!({"clusterName": "prod", "config": {"formerClusterNames": ["old"]}})),
        ("two replicas", json!({"replicaCount": 2, "podDisruptionBudget": {"enabled": true}})),
        ("no leader election", json!({"config": {"leaderElect": false}})),
        ("a lease elsewhere", json!({"config": {"leaseName": "keys", "leaseNamespace": "team-a"}})),
        ("orphans", json!({"config": {"orphanPolicy": "revoke", "orphanGrace": "2h"}})),
        ("a shard", json!({"config": {"labelSelector": "shard=a"}, "tests": {"labels": {"shard": "a"}}})),
        ("no restarts", json!({"rolloutRestart": {"enabled": false}})),
        ("no RBAC", json!({"rbac": {"create": false}, "serviceAccount": {"create": false, "name": "own"}})),
        ("no CRD", json!({"crds": {"install": false}})),
        ("a CRD that goes", json!({"crds": {"keep": false, "annotations": {"a": "b"}}})),
        ("all addresses, as 0.1.0 wrote it", json!({"config": {"listen": "0.0.0.0:9090"}})),
        ("IPv6", json!({"config": {"listen": "[::]:9090"}})),
        (
            "an umbrella's values",
            json!({
                "global": {"imageRegistry": "registry.example", "imagePullSecrets": ["pull"], "other": {"chart": 1}},
                "namespaceOverride": "team-a",
            }),
        ),
        (
            "more of a pod",
            json!({
                "extraArgs": ["--log-format=text"], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["boltz.example"]}],
                "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"]},
                "image": {"digest": format!("sha256:{}", "0a".repeat(32))},
                "podDisruptionBudget": {"enabled": true, "minAvailable": 1},
                "podSecurityContext": {"runAsUser": null, "runAsGroup": null, "fsGroup": null},
                "tests": {"podAnnotations": {"a": "b"}},
                "extraObjects": [{
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "{{ .Release.Name }}", "namespace": "{{ .Release.Namespace }}"},
                }],
            }),
        ),
        (
            "extras",
            json!({
                "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
                "extraVolumes": [{"name": "more", "emptyDir": {}}],
                "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
                "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "labels": {"e": "f"},
                "annotations": {"g": "h"}, "serviceAccount": {"annotations": {"i": "j"}},
                "imagePullSecrets": [{"name": "pull"}],
            }),
        ),
        (
            "a place",
            json!({
                "priorityClassName": "system-cluster-critical", "nodeSelector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"operator": "Exists"}],
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"},
                }]}},
            }),
        ),
        (
            "a network policy",
            json!({"networkPolicy": {
                "enabled": true, "metricsFrom": [{"namespaceSelector": {}}],
                "extraEgress": [{"ports": [{"port": 3128}]}],
            }}),
        ),
        (
            "monitoring",
            json!({"metrics": {
                "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                "prometheusRule": {"enabled": true, "alerts": {"BoltzApiKeyUnused": {"enabled": false}}},
                "dashboard": {"enabled": true},
                "service": {"annotations": {"a": "b"}},
            }}),
        ),
        (
            "a PodMonitor",
            json!({"metrics": {"podMonitor": {"enabled": true}, "service": {"enabled": false}}}),
        ),
        (
            "the emulator",
            json!({"emulator": {"enabled": true, "day": "10s"}, "networkPolicy": {"enabled": true}}),
        ),
        (
            "the emulator, on the node",
            json!({
                "emulator": {"enabled": true, "listen": "127.0.0.1:8099"}, "hostNetwork": true,
                "boltz": {"baseURL": "http://127.0.0.1:8099"}, "config": {"listen": "127.0.0.1:8080"},
            }),
        ),
        (
            "policies",
            json!({"policies": {
                "workspaces": {"enabled": true}, "expiry": {"enabled": true}, "liveMode": {"enabled": true},
                "quotas": [{"namespace": "team-a", "boltzapikeys": 10}],
            }}),
        ),
    ]
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    let chart = chart();
    for (name, values) in matrix() {
        for helm in HELMS {
            let arguments =
                ["lint", "--strict", chart.to_str().unwrap(), super::helm::KUBE_VERSION, "--values", "-"];
            run(helm, &arguments, &values, &[]).unwrap_or_else(|error| panic!("{helm}: {name}: {error}"));
        }
    }
}

/// What the defaults render to stands in the repository, so that a change of it is seen: what is installed, which also
/// serves kustomize and has the operator's rights for the tests of the lifecycle; hooks; and what a user is told.
#[test]
fn the_committed_rendering_is_the_charts() {
    let chart = chart();
    let release = ["boltz-operator", chart.to_str().unwrap(), "--namespace", "boltz-system"];
    let helm = |command: &str, more: &[&str]| {
        run("helm", &[&[command], &release[..], more].concat(), &json!({}), &[]).unwrap()
    };
    let installed = helm("template", &["--no-hooks"]);
    let hooks = helm("template", &["--show-only", "templates/tests.yaml"]);
    let told = helm("install", &["--dry-run=client"]);
    for (file, committed, rendered) in [
        (
            "deploy/base/boltz-operator.yaml",
            include_str!("../../../deploy/base/boltz-operator.yaml"),
            installed.as_str(),
        ),
        ("tests/cluster/chart/golden/hooks.yaml", include_str!("golden/hooks.yaml"), &hooks),
        (
            "tests/cluster/chart/golden/NOTES.txt",
            include_str!("golden/NOTES.txt"),
            &told[told.find("NOTES:").unwrap()..],
        ),
    ] {
        assert!(committed == rendered, "{file} has drifted: run `make chart`");
    }
}

#[allow(dead_code)]
#[path = "../../../charts/generate.rs"]
mod generate;

#[test]
fn the_pages_about_the_values_are_those_of_values_yaml() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, generated) in generate::pages(repository).unwrap() {
        let committed = std::fs::read_to_string(repository.join(file)).unwrap();
        assert!(committed == generated, "{file} has drifted: run `make chart`");
    }
}

#[test]
fn the_charts_metadata_names_its_images_and_changes() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let metadata: Json = serde_saphyr::from_str(&text).unwrap();
    let list = |annotation: &str| {
        let text = metadata["annotations"][format!("artifacthub.io/{annotation}")].as_str().unwrap();
        serde_saphyr::from_str::<Vec<Json>>(text).unwrap()
    };
    let manifests = template(&json!({"emulator": {"enabled": true}}));
    let rendered: Vec<&Json> = of_kind(&manifests, "Deployment")
        .map(|deployment| &deployment["spec"]["template"]["spec"]["containers"][0]["image"])
        .collect();
    let images = list("images");
    let named: Vec<&Json> = images.iter().map(|image| &image["image"]).collect();
    assert!(
        named.len() == rendered.len() && rendered.iter().all(|image| named.contains(image)),
        "{rendered:?}"
    );
    for change in list("changes") {
        let kinds = ["added", "changed", "deprecated", "removed", "fixed", "security"];
        assert!(kinds.contains(&change["kind"].as_str().unwrap()), "{change}");
        assert!(!change["description"].as_str().unwrap().is_empty());
    }
    for link in list("links") {
        assert!(link["url"].as_str().unwrap().starts_with("https://") && link["name"].is_string(), "{link}");
    }
}

#[test]
fn the_chart_has_the_version_of_the_operator() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let metadata: Json = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(metadata["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
}

/// Only those on objects, because they must not go with a namespace.
#[test]
fn the_operator_gets_no_cluster_wide_right_on_secrets_when_its_namespaces_are_given() {
    let values = json!({
        "watchNamespaces": ["team-a", "team-b"], "clusterName": "prod", "crds": {"install": false},
    });
    let manifests = template(&values);
    let cluster_roles: Vec<&Json> = of_kind(&manifests, "ClusterRole").collect();
    let [role] = cluster_roles.as_slice() else { panic!("{cluster_roles:?}") };
    let resources: Vec<&Json> =
        role["rules"].as_array().unwrap().iter().map(|rule| &rule["resources"]).collect();
    assert_eq!(resources, [&json!(["boltzapikeys"]), &json!(["boltzapikeys/status"])]);
    // Two releases of one name in two namespaces do not meet.
    assert_eq!(role["metadata"]["name"], "boltz-operator-boltz-system");
    let namespaces: Vec<&Json> =
        of_kind(&manifests, "Role").map(|role| &role["metadata"]["namespace"]).collect();
    // In the release's namespace: leader election, and what the operator remembers.
    assert_eq!(namespaces, ["boltz-system", "boltz-system", "team-a", "team-b"]);
}

#[test]
fn no_role_has_a_wildcard_or_nodes_or_writes_crds() {
    for (name, values) in matrix() {
        let manifests = template(&values);
        for role in of_kind(&manifests, "ClusterRole").chain(of_kind(&manifests, "Role")) {
            for rule in role["rules"].as_array().unwrap() {
                let text = rule.to_string();
                for word in ["\"*\"", "nodes", "customresourcedefinitions"] {
                    assert!(!text.contains(word), "{name}: {text}");
                }
            }
        }
    }
}

#[test]
fn the_narrower_label_counts_and_the_charts_own_are_not_for_sale() {
    let (_, values) = matrix().into_iter().find(|(name, _)| *name == "a label in two places").unwrap();
    let manifests = template(&values);
    let deployment = of_kind(&manifests, "Deployment").next().unwrap();
    let pod = &deployment["spec"]["template"]["metadata"];
    assert_eq!(deployment["metadata"]["labels"]["a"], "own");
    assert_eq!(deployment["metadata"]["labels"]["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(pod["labels"]["a"], "pod");
    assert_eq!(pod["annotations"]["kubectl.kubernetes.io/default-container"], "mine");
    let service = of_kind(&manifests, "Service").next().unwrap();
    assert_eq!(service["metadata"]["labels"]["a"], "common");
}

#[test]
fn what_is_switched_off_is_not_there() {
    let without = |values: &Json, word: &str| {
        let text = serde_json::to_string(&template(values).values().collect::<Vec<_>>()).unwrap();
        assert!(!text.contains(word), "{word} with {values}");
    };
    without(&json!({"rolloutRestart": {"enabled": false}, "crds": {"install": false}}), "daemonsets");
    without(&json!({"config": {"leaderElect": false}}), "leases");
    without(&json!({"clusterName": "prod"}), "kube-system");
    without(&json!({"crds": {"keep": false}}), "helm.sh/resource-policy");
}

/// A control plane with what the matrix names.
async fn stage() -> std::sync::Arc<ControlPlane> {
    let control_plane = ControlPlane::shared().await.unwrap();
    control_plane.install_operator().await.unwrap();
    // The Prometheus operator's kinds, without their schemas: those of these are not checked.
    let crds: Vec<Json> = ["ServiceMonitor", "PodMonitor", "PrometheusRule"]
        .iter()
        .map(|kind| {
            let plural = format!("{}s", kind.to_lowercase());
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
                "spec": {
                    "group": "monitoring.coreos.com", "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }}}],
                },
            })
        })
        .collect();
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let others = ["team-a", "team-b", "123"];
    let namespaces = others.map(namespace);
    control_plane.apply(&as_list(crds.iter().chain(&namespaces))).unwrap();
    // Nothing here makes the default ones; the others are those of the matrix.
    let account = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace},
        })
    };
    let accounts = ["default", "own", "keys", "4"].map(|name| account("boltz-system", name));
    let others = others.map(|namespace| account(namespace, "default"));
    control_plane.apply(&as_list(accounts.iter().chain(&others))).unwrap();
    let names = crds.iter().map(|crd| format!("crd/{}", crd["metadata"]["name"].as_str().unwrap()));
    let names: Vec<String> = names.collect();
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=30s"];
    wait.extend(names.iter().map(String::as_str));
    control_plane.kubectl(&wait).unwrap();
    control_plane
}

#[tokio::test]
async fn the_api_server_takes_everything() {
    let control_plane = stage().await;
    for (name, values) in matrix() {
        let manifests = template(&values);
        let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        control_plane
            .kubectl_with_input(&dry_run, &as_list(manifests.values()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What Artifact Hub shows of the chart.
#[tokio::test]
async fn the_example_in_the_charts_metadata_is_taken() {
    let control_plane = stage().await;
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let metadata: Json = serde_saphyr::from_str(&text).unwrap();
    let list = |annotation: &str| {
        let text = metadata["annotations"][annotation].as_str().unwrap();
        serde_saphyr::from_str::<Vec<Json>>(text).unwrap()
    };
    for crd in list("artifacthub.io/crds") {
        let name = format!("crd/{}", crd["name"].as_str().unwrap());
        let known = control_plane.kubectl(&[
            "get",
            &name,
            "-o",
            "jsonpath={.spec.names.kind}/{.spec.versions[0].name}",
        ]);
        assert_eq!(
            known.unwrap(),
            format!("{}/{}", crd["kind"].as_str().unwrap(), crd["version"].as_str().unwrap())
        );
    }
    let examples = as_list(&list("artifacthub.io/crdsExamples"));
    control_plane.kubectl_with_input(&["create", "--dry-run=server", "-f", "-"], &examples).unwrap();
}

/// Every pod of a rendering: those of Deployments, and the one of `helm test`.
fn pods(manifests: &Manifests) -> Vec<Json> {
    let templates = of_kind(manifests, "Deployment").map(|deployment| &deployment["spec"]["template"]);
    templates
        .chain(of_kind(manifests, "Pod"))
        .map(|pod| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"generateName": "tried-", "labels": pod["metadata"]["labels"]},
                "spec": pod["spec"],
            })
        })
        .collect()
}

/// In `boltz-system` the strictest of Kubernetes' pod security standards is enforced: `deploy/base/namespace.yaml` says so.
#[tokio::test]
async fn restricted_pod_security_takes_every_pod_but_those_in_the_nodes_network() {
    let control_plane = stage().await;
    let api: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(control_plane.admin_client().await.unwrap(), "boltz-system");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (name, values) in matrix() {
        for pod in pods(&template(&values)) {
            let result = api.create(&dry_run, &serde_json::from_value(pod.clone()).unwrap()).await;
            let on_the_node = pod["spec"]["hostNetwork"] == json!(true);
            match result {
                Ok(_) => assert!(!on_the_node, "{name}: it should be refused"),
                Err(error) if on_the_node => {
                    assert!(error.to_string().contains("violates PodSecurity"), "{name}: {error}");
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn kubernetes_own_roles_take_in_the_users_rights() {
    let control_plane = stage().await;
    let namespace = control_plane.namespace("users").await.unwrap();
    for role in ["view", "edit", "admin"] {
        let arguments =
            ["create", "rolebinding", role, "--clusterrole", role, "--user", role, "-n", &namespace];
        control_plane.kubectl(&arguments).unwrap();
    }
    let may = |user: &str, verb: &str| {
        let question = ["auth", "can-i", verb, "boltzapikeys", "--as", user, "-n", &namespace];
        control_plane.kubectl(&question).is_ok()
    };
    let what = "view, edit and admin have taken in the chart's roles";
    boltz_harness::eventually(crate::test_env::PATIENCE, what, async || {
        let holds = ["view", "edit", "admin"].iter().all(|user| may(user, "list"))
            && ["edit", "admin"].iter().all(|user| may(user, "create") && may(user, "delete"));
        if holds { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    assert!(!may("view", "create") && !may("edit", "escalate"));
}

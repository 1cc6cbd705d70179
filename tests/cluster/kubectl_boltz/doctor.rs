//! `doctor`: each finding of an installation that lacks something, with its fix. Nothing makes pods here, so the status of the
//! Deployments is written by the test.

use super::{Plugin, Said};
use crate::test_env::{PATIENCE, TestEnv, condition, create_namespace};
use boltz_emulator::{Lie, Operation, StandingFault};
use boltz_harness::{ControlPlane, ControlPlaneOptions, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};
use std::sync::Arc;

const OPS: &str = "ops";
const LOCKS: &str = "locks";

struct Clinic {
    control_plane: Arc<ControlPlane>,
    admin: Plugin,
}

impl Clinic {
    async fn open() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        control_plane.install_operator().await.unwrap();
        let client = control_plane.admin_client().await.unwrap();
        for namespace in [OPS, LOCKS, "team"] {
            create_namespace(&client, namespace).await;
        }
        let admin = Plugin { kubeconfig: control_plane.kubeconfig("admin"), namespace: "team".to_owned() };
        Self { control_plane: Arc::new(control_plane), admin }
    }

    fn apply(&self, manifest: &Json) {
        self.control_plane.apply(&manifest.to_string()).unwrap();
    }

    /// A Deployment of the chart's kind, of which so many replicas are ready.
    fn deployment(&self, name: &str, component: &str, arguments: &[&str], replicas: i32, ready: i32) {
        let labels = json!({
            "app.kubernetes.io/name": "boltz-operator", "app.kubernetes.io/component": component,
            "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        });
        let image = json!([{"name": component, "image": "x", "args": arguments}]);
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": OPS, "labels": labels},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app.kubernetes.io/component": component}},
                "template": {
                    "metadata": {"labels": labels}, "spec": {"serviceAccountName": name, "containers": image},
                },
            },
        }));
        let status = json!({"status": {"replicas": ready, "readyReplicas": ready}});
        self.patch_status(&["deployment", name, "--namespace", OPS], &status);
    }

    fn patch_status(&self, what: &[&str], status: &Json) {
        let patch = status.to_string();
        let flags = ["--subresource", "status", "--type", "merge", "--patch", patch.as_str()];
        self.control_plane.kubectl(&[&["patch"], what, &flags].concat()).unwrap();
    }

    /// A Lease that was taken and renewed so long ago; nobody's, if the holder is empty.
    fn lease(
        &self,
        name: &str,
        namespace: &str,
        holder: &str,
        taken: SignedDuration,
        renewed: SignedDuration,
    ) {
        let time = |ago: SignedDuration| (Timestamp::now() - ago).strftime("%FT%T.000000Z").to_string();
        self.apply(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 3600,
                "acquireTime": time(taken), "renewTime": time(renewed),
            },
        }));
    }

    fn config_map(&self, name: &str, data: &Json) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": LOCKS}, "data": data,
        }));
    }

    /// What it says, as admin; that everything which is not good has a fix.
    fn asked(&self, code: i32) -> Said {
        let arguments = ["doctor", "--operator-namespace", OPS];
        let found = self.admin.run(&[&arguments[..], &["--output", "json"]].concat());
        let found: Json = serde_json::from_str(&found.out).unwrap();
        for finding in found["findings"].as_array().unwrap() {
            let has_fix = finding["fix"].as_str().is_some_and(|fix| !fix.is_empty());
            assert_eq!(has_fix, finding["grade"] != "good", "{finding}");
        }
        self.admin.expect(code, &arguments)
    }

    fn expect(&self, code: i32, lines: &[&str]) {
        let said = self.asked(code);
        for line in lines {
            assert!(said.out.contains(line), "{line:?} is missing: {}", said.out);
        }
    }
}

/// The arguments of the chart, with names of their own.
const ARGUMENTS: [&str; 4] = [
    "--boltz-base-url=https://boltz.example",
    "--lease-name=mine",
    "--lease-namespace=locks",
    "--watch-namespaces=elsewhere",
];

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn the_doctor_names_what_is_missing_and_its_fix() {
    let clinic = Clinic::open().await;
    let missing = [
        "✗ operator: no Deployment of the operator in the namespace ops\n    fix: kubectl get deployments -A --selector",
    ];
    clinic.expect(2, &missing);
    // Neither the emulator nor the Lease of the usual name is the operator's.
    clinic.deployment("emulator", "emulator", &["--listen=:8099"], 1, 1);
    clinic.lease("boltz-operator", OPS, "pod-1", hours(1), hours(0));
    clinic.expect(2, &missing);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "emulator", "namespace": OPS, "labels": {
            "app.kubernetes.io/name": "boltz-operator", "app.kubernetes.io/component": "emulator",
        }},
        "spec": {"containers": [{"name": "emulator", "image": "x"}], "serviceAccountName": "default"},
    });
    clinic.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": OPS}}));
    clinic.apply(&pod);
    let logs = ["logs", "design", "--operator-namespace", OPS];
    clinic.admin.run(&logs).fails_with(1, "no Deployment of the operator in the namespace ops");
    let version = clinic.admin.expect(0, &["version", "--operator-namespace", OPS]);
    assert!(version.out.contains("operator      not found"), "{version:?}");

    // The name of the Lease is in the arguments.
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 0);
    clinic.expect(
        2,
        &[
            "✗ operator: Deployment keys: none of 2 replicas is ready\n    fix: kubectl --namespace ops describe pods",
            "✗ leader: the Lease mine does not exist in the namespace locks",
            "kubectl auth can-i create leases --namespace locks --as system:serviceaccount:ops:keys",
        ],
    );
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 1);
    clinic.lease("mine", LOCKS, "pod-1", hours(9), hours(8));
    clinic.expect(
        2,
        &[
            "! operator: Deployment keys: only 1 of 2 replicas are ready",
            "✗ leader: pod-1 renewed the Lease mine 8h ago, and nobody took it over",
        ],
    );
    clinic.lease("mine", LOCKS, "", hours(9), hours(8));
    clinic.expect(2, &["✗ leader: nobody holds the Lease mine: no key is issued"]);
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 2);
    clinic.lease("mine", LOCKS, "pod-1", hours(0), hours(0));
    clinic.expect(
        0,
        &[
            "✓ operator: Deployment keys: 2 of 2 replicas are ready",
            "it calls https://boltz.example",
            "✓ leader: pod-1 holds the Lease mine",
            // It may not have come so far.
            "? what the operator remembers: the ConfigMap mine-account does not exist in the namespace locks",
            "? orphans: the ConfigMap mine-orphans does not exist",
            "! monitoring: the Prometheus operator is not installed",
            "? Boltz: there is no BoltzApiKey that could say",
        ],
    );
    // Two that do not elect a leader.
    clinic.deployment("keys", "operator", &[&ARGUMENTS[..], &["--leader-elect=false"]].concat(), 2, 2);
    clinic.expect(2, &["✗ leader: 2 replicas work at the same time", "scale deployment keys --replicas 1"]);
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 2);

    // What it writes.
    clinic.lease("mine", LOCKS, "pod-1", hours(9), hours(0));
    clinic.expect(
        0,
        &[
            "! what the operator remembers: the ConfigMap mine-account does not exist",
            "can-i patch configmaps/mine-account --namespace locks",
            "! orphans: the ConfigMap mine-orphans does not exist",
        ],
    );
    let organization = json!({"a.organization": "org_1", "a.namesAltered": ""});
    clinic.config_map("mine-account", &organization);
    let orphan = json!({
        "keyID": "ky_1", "keyPrefix": "sk", "object": "0", "attempt": "0", "orphanedSince": "2026-01-01T00:00:00Z",
    });
    clinic.config_map(
        "mine-orphans",
        &json!({"a.orphans": json!({"count": 1, "orphans": [orphan]}).to_string()}),
    );
    clinic.expect(
        0,
        &[
            "✓ what the operator remembers: ConfigMap mine-account, organization org_1",
            "! orphans: 1 active keys of this cluster",
            "fix: kubectl boltz orphans",
        ],
    );
    clinic.config_map("mine-orphans", &json!({"a.orphans": r#"{"count": 0, "orphans": []}"#}));
    clinic.config_map("mine-account", &json!({"a.namesAltered": "Boltz changes the names of keys."}));
    let altered =
        ["✗ what the operator remembers: Boltz changes the names", "fix: kubectl boltz explain NamesAltered"];
    clinic.expect(2, &altered);
    // What the leader knows and no idle object says.
    for (state, skew, code, lines) in [
        (
            "valid",
            "0",
            0,
            ["✓ admin key: Boltz accepts it", "✓ clocks: the operator's clock and Boltz's agree"],
        ),
        (
            "refused",
            "-300",
            2,
            [
                "✗ admin key: it is missing, or Boltz rejects it",
                "! clocks: the operator's clock is 5m behind",
            ],
        ),
        (
            "unreachable",
            "0",
            2,
            [
                "✗ admin key: Boltz did not answer",
                "fix: kubectl boltz explain BoltzOperatorAdminKeyUnchecked",
            ],
        ),
    ] {
        clinic.config_map(
            "mine-account",
            &json!({"a.adminKey": state, "a.clockSkewSeconds": skew, "a.namesAltered": ""}),
        );
        clinic.expect(code, &lines);
    }
    clinic.config_map("mine-account", &json!({"a.adminKey": "", "a.organization": "org_1"}));
    clinic.expect(0, &["✓ orphans: none, says the ConfigMap mine-orphans"]);
}

/// The chart's nameOverride changes the labels.
#[tokio::test]
async fn the_operator_is_found_whatever_its_name_is() {
    let clinic = Clinic::open().await;
    let manifest = |kind: &str, api: &str, name: &str, spec: &Json| {
        json!({
            "apiVersion": api, "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": OPS, "labels": {
                "app.kubernetes.io/name": "keys", "app.kubernetes.io/version": "9.8.7",
            }},
        })
    };
    let labels = json!({"app.kubernetes.io/name": "keys"});
    let containers = json!({"containers": [
        {"name": "proxy", "image": "x"}, {"name": "main", "image": "x", "args": ARGUMENTS},
    ]});
    let spec = json!({
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": containers},
    });
    clinic.apply(&manifest("Deployment", "apps/v1", "keys", &spec));
    clinic.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": OPS}}));
    clinic.apply(&manifest("Pod", "v1", "new", &containers));
    let mut elsewhere = containers.clone();
    elsewhere["nodeName"] = json!("gone");
    clinic.apply(&manifest("Pod", "v1", "lost", &elsewhere));
    let version = clinic.admin.expect(0, &["version", "--operator-namespace", OPS]);
    assert!(version.out.contains("operator      9.8.7\n"), "{version:?}");
    // One pod has not begun, so its log is empty; the node of the other is gone.
    let logs = ["logs", "design", "--operator-namespace", OPS];
    let said = clinic.admin.expect(0, &logs);
    assert!(said.err.contains("the log of the pod lost is not shown: "), "{said:?}");
    assert!(said.err.contains(r#""gone" not found"#), "{said:?}");
    assert!(said.err.contains("logged nothing of design") && !said.err.contains("the pod new"), "{said:?}");
    clinic.control_plane.kubectl(&["delete", "pod", "new", "--namespace", OPS]).unwrap();
    clinic.admin.run(&logs).fails_with(1, "the log of no pod could be read");
}

#[tokio::test]
async fn that_nothing_is_installed_is_said() {
    let clinic = Clinic::open().await;
    clinic.control_plane.kubectl(&["delete", "crd", "boltzapikeys.boltz.bio"]).unwrap();
    eventually(PATIENCE, "the API is gone", async || {
        let said = clinic.admin.run(&["list"]);
        if said.err.contains("boltz-operator is not installed") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await
    .unwrap();
    clinic.admin.run(&["status", "design"]).fails_with(1, "this cluster does not know BoltzApiKeys");
    clinic.admin.run(&["suspend", "design"]).fails_with(1, "this cluster does not know BoltzApiKeys");
    clinic.expect(
        2,
        &["✗ CRD: BoltzApiKeys are not installed\n    fix: kubectl boltz crd | kubectl apply --server-side --filename -  # "],
    );
    // The fix works without a checkout.
    let crd = clinic.admin.expect(0, &["crd"]).out;
    clinic.control_plane.apply(&crd).unwrap();
    eventually(PATIENCE, "the API is there", async || {
        let said = clinic.admin.run(&["doctor", "--operator-namespace", OPS]);
        if said.out.contains("✓ CRD: ") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn orphans_are_found_by_the_name_of_the_lease() {
    let clinic = Clinic::open().await;
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 2);
    let orphan = json!({
        "keyID": "ky_1", "keyPrefix": "sk", "object": "0", "attempt": "0", "orphanedSince": "2026-01-01T00:00:00Z",
    });
    clinic.config_map(
        "mine-orphans",
        &json!({"a.orphans": json!({"count": 1, "orphans": [orphan]}).to_string()}),
    );
    let said = clinic.admin.expect(0, &["orphans", "--operator-namespace", OPS]);
    assert!(said.out.contains("ky_1"), "{said:?}");

    // Who may read this ConfigMap only.
    let user = Plugin::of(&clinic.control_plane, "reader-of-orphans", "team", None).await;
    let may = |name: &str, namespace: &str, group: &str, verb: &str, resource: &str, names: &[&str]| {
        clinic.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{"apiGroups": [group], "resources": [resource], "verbs": [verb], "resourceNames": names}],
        }));
        clinic.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader-of-orphans"}],
        }));
    };
    may("orphans", LOCKS, "", "get", "configmaps", &["mine-orphans"]);
    let by_name = ["orphans", "--operator-namespace", LOCKS, "--lease-name", "mine"];
    eventually(PATIENCE, "the role is known", async || {
        let said = user.run(&by_name);
        if said.code == 0 && said.out.contains("ky_1") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await
    .unwrap();
    let arguments = ["orphans", "--operator-namespace", OPS];
    user.run(&arguments).fails_with(1, "you may not get configmaps in the namespace ops");
    may("deployments", OPS, "apps", "list", "deployments", &[]);
    eventually(PATIENCE, "the role is known", async || {
        let said = user.run(&arguments);
        if said.code == 0 && said.out.contains("ky_1") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await
    .unwrap();
}

/// CRDs as the Prometheus operator has them, without their schema.
fn monitoring_crds(clinic: &Clinic) {
    for (kind, plural) in [
        ("ServiceMonitor", "servicemonitors"),
        ("PodMonitor", "podmonitors"),
        ("PrometheusRule", "prometheusrules"),
    ] {
        clinic.apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": plural.trim_end_matches('s')},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        }));
    }
    clinic
        .control_plane
        .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])
        .unwrap();
}

#[tokio::test]
async fn the_doctor_sees_monitoring_and_doubtful_lists_and_waits() {
    let clinic = Clinic::open().await;
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 2);
    clinic.lease("mine", LOCKS, "pod-1", hours(0), hours(0));
    monitoring_crds(&clinic);
    clinic.expect(
        0,
        &[
            "! monitoring: no ServiceMonitor and no PodMonitor selects the Deployment keys",
            "fix: metrics.serviceMonitor.enabled=true",
            "! alerts: no PrometheusRule has the alert BoltzOperatorDown",
            "fix: metrics.prometheusRule.enabled=true",
        ],
    );
    let of_operator = json!({"app.kubernetes.io/component": "operator"});
    let monitor = |name: &str, labels: &Json| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "metadata": {"name": name, "namespace": OPS}, "spec": {"selector": {"matchLabels": labels}},
        })
    };
    clinic.apply(&monitor("of-others", &json!({"app.kubernetes.io/component": "emulator"})));
    // A monitor without a Service that it could select scrapes nothing.
    clinic.apply(&monitor("keys", &of_operator));
    clinic.expect(0, &["! monitoring: no ServiceMonitor"]);
    clinic.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "keys", "namespace": OPS, "labels": of_operator},
        "spec": {"selector": of_operator, "ports": [{"port": 8080}]},
    }));
    clinic.apply(&json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"name": "rules", "namespace": "team"},
        "spec": {"groups": [{"name": "a", "rules": [{"alert": "BoltzOperatorDown"}]}]},
    }));
    clinic.expect(0, &["✓ monitoring: ServiceMonitor ops/keys\n", "✓ alerts: PrometheusRule team/rules"]);

    // What only the objects say.
    clinic.apply(&json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
        "metadata": {"name": "design", "namespace": "team"}, "spec": {},
    }));
    clinic.expect(
        2,
        &[
            "✗ objects: no operator has looked at team/design",
            "fix: add team to watchNamespaces of the chart: the operator watches only elsewhere",
        ],
    );
    let says = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": format!("says {reason}"),
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        })
    };
    let object = ["boltzapikey", "design", "--namespace", "team"];
    let status = |conditions: Json| json!({"status": {"observedGeneration": 1, "conditions": conditions}});
    let ready = says("Ready", "True", "Issued");
    clinic.patch_status(&object, &status(json!([ready, says("Reconciling", "True", "KeyDoubtful")])));
    clinic.expect(
        2,
        &[
            "✗ Boltz's list: team/design says: says KeyDoubtful",
            "kubectl boltz explain BoltzOperatorListSuspect",
            "? admin key: no BoltzApiKey reports a problem; one that needs nothing",
        ],
    );
    clinic.patch_status(&object, &status(json!([says("Ready", "False", "BoltzUnauthorized")])));
    clinic.expect(2, &["✗ admin key: team/design says: says BoltzUnauthorized", "✓ Boltz's list"]);

    // It waits until all is well, and not for ever.
    let arguments = ["doctor", "--operator-namespace", OPS, "--wait", "--timeout"];
    let started = std::time::Instant::now();
    let said = clinic.admin.expect(3, &[&arguments[..], &["2s"]].concat());
    assert!(started.elapsed() >= std::time::Duration::from_secs(2), "{said:?}");
    assert!(said.out.contains("✗ admin key"), "{said:?}");
    let looks = || {
        let lists = clinic.control_plane.audit_events_where(|event| {
            event.verb == "list"
                && event.object_ref.resource == "boltzapikeys"
                && event.user.username == "admin"
        });
        lists.len()
    };
    let before = looks();
    let waiting = Plugin { kubeconfig: clinic.admin.kubeconfig.clone(), namespace: "team".to_owned() };
    let waiting = tokio::task::spawn_blocking(move || waiting.run(&[&arguments[..], &["2m"]].concat()));
    // It has looked more than once, and is not content.
    eventually(PATIENCE, "it looks again", async || {
        let count = looks() - before;
        if count >= 2 { Ok(()) } else { Err(format!("{count} looks")) }
    })
    .await
    .unwrap();
    assert!(!waiting.is_finished());
    clinic.patch_status(&object, &status(json!([ready])));
    let said = waiting.await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("? admin key") && !said.out.contains('✗'), "{said:?}");
}

#[tokio::test]
async fn the_doctor_names_the_rights_that_somebody_lacks_on_the_operator() {
    let clinic = Clinic::open().await;
    clinic.deployment("keys", "operator", &ARGUMENTS, 2, 2);
    let user = |name: &str, namespace: &str, rules: Json| {
        let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        let metadata = json!({"name": name, "namespace": namespace});
        let api = "rbac.authorization.k8s.io/v1";
        clinic.apply(&json!({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules}));
        clinic.apply(&json!({
            "apiVersion": api, "kind": "RoleBinding", "metadata": metadata, "roleRef": role("Role"),
            "subjects": [role("User")],
        }));
    };
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "list"]});
    user(
        "on-call",
        OPS,
        json!([
            rule("", &["pods", "configmaps"]),
            rule("apps", &["deployments"]),
            rule("coordination.k8s.io", &["leases"])
        ]),
    );
    let kubeconfig = clinic.control_plane.kubeconfig_for("on-call", None).unwrap();
    let on_call = Plugin { kubeconfig, namespace: "team".to_owned() };
    let arguments = ["doctor", "--operator-namespace", OPS];
    let said = on_call.run(&arguments);
    let lack = "! your rights on the operator: in the namespace ops you may not: get pods/log (logs)\n";
    assert!(said.out.contains(lack), "{said:?}");
    assert!(
        said.out.contains("--namespace ops create rolebinding NAME --user YOU --clusterrole view"),
        "{said:?}"
    );
    // Of another namespace than the operator's it may not read the Lease.
    assert!(said.out.contains("? leader: you may not get leases in the namespace locks"), "{said:?}");
    user("on-call-logs", OPS, json!([rule("", &["pods/log"])]));
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "on-call"});
    let patch = json!({"subjects": [subject]}).to_string();
    let binding =
        ["patch", "rolebinding", "on-call-logs", "--namespace", OPS, "--type", "merge", "--patch", &patch];
    clinic.control_plane.kubectl(&binding).unwrap();
    eventually(PATIENCE, "the right is there", async || {
        let said = on_call.run(&arguments);
        let has =
            said.out.contains("✓ your rights on the operator: logs, orphans and Leases in the namespace ops");
        if has { Ok(()) } else { Err(said.out) }
    })
    .await
    .unwrap();
}

/// What an operator writes while Boltz's list lacks its keys.
#[tokio::test]
async fn the_doctor_sees_that_the_list_is_doubtful() {
    let env = TestEnv::settling_fast().await;
    let names: Vec<String> = (0..12).map(|index| format!("key-{index}")).collect();
    for name in &names {
        env.create(name, json!({})).await;
    }
    for name in &names {
        env.ready(name).await;
    }
    env.passes(2).await;
    let viewer = Plugin::in_env(&env, "view").await;
    let said = viewer.expect(0, &["doctor"]);
    assert!(said.out.contains("✓ Boltz's list: no BoltzApiKey reports a problem"), "{said:?}");
    env.emulator.stand("lie", StandingFault::lie(Operation::List, Lie::NoKeys));
    env.until_metric("boltz_inventory_doubtful 1").await;
    env.annotate(&names[0], "boltz.bio/retry", "1").await;
    let doubts =
        |object: &_| condition(object, "Stalled").is_some_and(|stalled| stalled.reason == "KeyDoubtful");
    env.until(&names[0], "KeyDoubtful", doubts).await;
    let said = viewer.expect(2, &["doctor"]);
    assert!(said.out.contains("✗ Boltz's list: "), "{said:?}");
    assert!(said.out.contains("fix: look at Boltz's console"), "{said:?}");
}

//! The optional policies, on a real API server: what they let through, what they refuse, and that a policy which is
//! tightened later does not hold on to objects that exist.

use super::helm::{as_list, template};
use boltz_harness::{Component, ControlPlane, ControlPlaneOptions, eventually};
use serde_json::{Value as Json, json};

/// A control plane of its own, because a policy holds for every namespace.
struct Stage(ControlPlane);

impl Stage {
    async fn new() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::whole()).await.unwrap();
        control_plane.install_operator().await.unwrap();
        let namespace = |name: &str, labels: Json, annotations: Json| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": labels, "annotations": annotations},
            })
        };
        let allowed = |workspaces: &str| json!({"boltz.bio/allowed-workspaces": workspaces});
        control_plane
            .apply(&as_list(&[
                namespace("plain", json!({}), json!({})),
                namespace("design", json!({}), allowed("ws_design, ws_shared")),
                namespace("platform", json!({}), allowed("*")),
                namespace("beginners", json!({}), allowed("default")),
                namespace("production", json!({"boltz.bio/live-mode": "allowed"}), json!({})),
            ]))
            .unwrap();
        Self(control_plane)
    }

    fn apply_key(&self, namespace: &str, name: &str, spec: &Json) -> Result<(), String> {
        let object = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
            "metadata": {"name": name, "namespace": namespace, "finalizers": ["boltz.bio/revoke-keys"]},
            "spec": spec,
        });
        self.0.apply(&object.to_string()).map_err(|error| error.to_string())
    }

    /// Installs policies, and waits until this is refused with these words.
    async fn switch_on(&self, policies: Json, refused: (&str, Json), words: &str) {
        let manifests = template(&json!({"policies": policies}));
        let kinds = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ResourceQuota"];
        let policies = manifests.iter().filter(|((kind, ..), _)| kinds.contains(&kind.as_str()));
        self.0.apply(&as_list(policies.map(|(_, manifest)| manifest))).unwrap();
        // The API server takes them up after a moment.
        eventually(crate::test_env::PATIENCE, "the policy is in force", async || {
            match self.apply_key(refused.0, "probe", &refused.1) {
                Ok(()) => {
                    let patch = r#"{"metadata":{"finalizers":null}}"#;
                    let key = ["boltzapikey/probe", "-n", refused.0];
                    let patch = ["patch", key[0], key[1], key[2], "--type=merge", "-p", patch];
                    self.0.kubectl(&patch).map_err(|error| error.to_string())?;
                    self.0.kubectl(&["delete", key[0], key[1], key[2]]).map_err(|error| error.to_string())?;
                    Err("it is not refused".to_owned())
                }
                Err(error) if error.contains(words) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
        .unwrap();
    }

    fn check(&self, rows: &[(&str, Json, Option<&str>)]) {
        for (index, (namespace, spec, refused)) in rows.iter().enumerate() {
            let result = self.apply_key(namespace, &format!("key-{index}"), spec);
            match (result, refused) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => assert!(error.contains(words), "{namespace} {spec}: {error}"),
                (result, _) => panic!("{namespace} {spec}: {result:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_namespace_uses_only_the_workspaces_that_its_annotation_lists() {
    let stage = Stage::new().await;
    let design = json!({"workspaceID": "ws_design"});
    stage
        .switch_on(
            json!({"workspaces": {"enabled": true}}),
            ("plain", design.clone()),
            "is not allowed to use",
        )
        .await;
    let words = "is not allowed to use workspace ws_design; its annotation boltz.bio/allowed-workspaces";
    stage.check(&[
        ("plain", design.clone(), Some(words)),
        ("plain", json!({}), Some("is not allowed to use workspace default")),
        ("design", design.clone(), None),
        ("design", json!({"workspaceID": "ws_shared"}), None),
        ("design", json!({"workspaceID": "ws_other"}), Some("namespace design is not allowed to use")),
        ("design", json!({}), Some("is not allowed to use workspace default")),
        ("platform", design, None),
        ("platform", json!({}), None),
        ("beginners", json!({}), None),
        ("beginners", json!({"workspaceID": ""}), None),
        ("beginners", json!({"workspaceID": "ws_other"}), Some("ws_other")),
    ]);
}

#[tokio::test]
async fn keys_expire_and_live_mode_is_for_labelled_namespaces() {
    let stage = Stage::new().await;
    let test = |days: u32| json!({"mode": "test", "expiresInDays": days});
    // Before there is a policy: what it would refuse exists already.
    for name in ["old", "older"] {
        stage.apply_key("plain", name, &json!({"mode": "test"})).unwrap();
    }
    let policies = json!({"expiry": {"enabled": true, "maxDays": 30}, "liveMode": {"enabled": true}});
    stage.switch_on(policies.clone(), ("plain", json!({"mode": "test"})), "spec.expiresInDays must").await;
    stage.switch_on(policies, ("plain", json!({"expiresInDays": 30})), "only in namespaces").await;
    let must_expire = Some("spec.expiresInDays must be set, to at most 30");
    stage.check(&[
        ("plain", test(30), None),
        ("plain", test(31), must_expire),
        ("plain", json!({"mode": "test"}), must_expire),
        ("production", json!({"expiresInDays": 1}), None),
        (
            "plain",
            json!({"expiresInDays": 1}),
            Some("only in namespaces with the label boltz.bio/live-mode=allowed"),
        ),
        ("plain", json!({"mode": "live", "expiresInDays": 1}), Some("set spec.mode to test")),
    ]);

    let kubectl = |arguments: &str, patch: &str| {
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.extend(["-n", "plain"]);
        if !patch.is_empty() {
            arguments.extend(["--type=merge", "-p", patch]);
        }
        stage.0.kubectl(&arguments).map_err(|error| error.to_string())
    };
    // What leaves the spec alone passes, what changes it does not.
    kubectl("annotate boltzapikey/old boltz.bio/rotate=1", "").unwrap();
    kubectl("patch boltzapikey/old --subresource=status", r#"{"status":{"keyID":"key_1"}}"#).unwrap();
    let error = kubectl("patch boltzapikey/old", r#"{"spec":{"displayName":"new"}}"#).unwrap_err();
    assert!(error.contains("spec.expiresInDays must be set"), "{error}");
    kubectl("patch boltzapikey/old", r#"{"spec":{"expiresInDays":7}}"#).unwrap();
    // And an object that breaks the rule can go.
    kubectl("delete boltzapikey/older --wait=false", "").unwrap();
    kubectl("patch boltzapikey/older", r#"{"spec":{"displayName":"on its way out"}}"#).unwrap();
    kubectl("patch boltzapikey/older", r#"{"metadata":{"finalizers":null}}"#).unwrap();
    assert!(kubectl("get boltzapikey/older", "").unwrap_err().contains("not found"));
}

#[tokio::test]
async fn a_quota_limits_how_many_there_are() {
    let stage = Stage::new().await;
    // Which looks for new kinds every half minute, and when it starts.
    stage.0.launch(Component::ControllerManager).unwrap();
    let quotas = json!({"quotas": [{"namespace": "plain", "boltzapikeys": 1}]});
    let manifests = template(&json!({"policies": quotas}));
    stage.0.apply(&as_list(super::helm::of_kind(&manifests, "ResourceQuota"))).unwrap();
    eventually(crate::test_env::PATIENCE, "the quota is counted", async || {
        let quota = ["get", "resourcequota", "-n", "plain", "-o", "jsonpath={.items[*].status.used}"];
        let used = stage.0.kubectl(&quota).map_err(|error| error.to_string())?;
        if used.contains("count/boltzapikeys.boltz.bio") { Ok(()) } else { Err(used) }
    })
    .await
    .unwrap();
    stage.check(&[
        ("plain", json!({}), None),
        ("plain", json!({}), Some("exceeded quota")),
        ("design", json!({}), None),
    ]);
}

//! What the API server refuses before the operator sees it, by the CRD's own rules.

use crate::test_env::TestEnv;
use boltz_operator::api::BoltzApiKey;
use kube::{
    api::{DynamicObject, PostParams},
    core::ApiResource,
};
use serde_json::{Value as Json, json};

#[test]
fn the_committed_crd_is_the_generated_one() {
    for (committed, in_the_chart, generated) in [
        (
            include_str!("../../../crds/boltzapikeys.yaml"),
            include_str!("../../../charts/boltz-operator/files/crds/boltzapikeys.yaml"),
            boltz_operator::api::crd::crd(),
        ),
        (
            include_str!("../../../crds/boltzaccounts.yaml"),
            include_str!("../../../charts/boltz-operator/files/crds/boltzaccounts.yaml"),
            boltz_operator::api::crd::account_crd(),
        ),
    ] {
        let generated = serde_saphyr::to_string(&generated).unwrap();
        assert!(committed == generated && in_the_chart == generated, "the CRD has drifted: run `make crd`");
    }
}

fn window(schedule: &str, duration: &str, time_zone: &str) -> Json {
    json!({"rotation": {"window": {"schedule": schedule, "duration": duration, "timeZone": time_zone}}})
}

#[tokio::test]
async fn invalid_specs_are_refused_with_field_and_reason() {
    let env = TestEnv::new().await;
    let resource = ApiResource::erase::<BoltzApiKey>(&());
    let api: kube::Api<DynamicObject> =
        kube::Api::namespaced_with(env.client.clone(), &env.namespace, &resource);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |spec: &Json| {
        let object = serde_json::from_value(json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": "tried"}, "spec": spec,
        }))
        .unwrap();
        api.create(&dry_run, &object).await.map(drop).map_err(|error| error.to_string())
    };
    for good in [
        json!({}),
        json!({"allowedIPs": ["192.0.2.1", "2001:db8::1"], "expiresInDays": 1}),
        json!({"rotation": {"renewBefore": "23h59m", "overlap": "0s", "interval": "1.5h"}, "expiresInDays": 1}),
        json!({"rotation": {"renewBeforePercentage": 99}}),
        json!({"rotation": {"interval": "1h", "window": {"schedule": "0 2 * * sat", "duration": "10m"}}}),
        window("*/15 0-4,22 1 jan-mar 1", "1h30m", "America/Argentina/Buenos_Aires"),
        json!({"secret": {"name": "a.b-c", "key": "TOKEN_1", "template": {"labels": {"a": "b"}}}}),
        json!({"rolloutRestartTargets": [{"kind": "DaemonSet", "name": "d"}]}),
    ] {
        assert_eq!(create(&good).await, Ok(()), "{good}");
    }
    for (bad, field, reason) in [
        (json!({"allowedIPs": ["10.0.0.0/8"]}), "spec.allowedIPs", "IPv4 or IPv6"),
        (json!({"allowedIPs": vec!["192.0.2.1"; 257]}), "spec.allowedIPs", "256"),
        (json!({"expiresInDays": 0}), "spec.expiresInDays", "greater than or equal to 1"),
        (json!({"expiresInDays": 36501}), "spec.expiresInDays", "less than or equal to 36500"),
        (json!({"mode": "production"}), "spec.mode", "Unsupported value"),
        (json!({"workspaceID": "a b"}), "spec.workspaceID", "should match"),
        (json!({"displayName": "x".repeat(65)}), "spec.displayName", "64"),
        (json!({"rotation": {"overlap": "1 day"}}), "spec.rotation.overlap", "must be a duration"),
        (json!({"rotation": {"overlap": "-1h"}}), "spec.rotation.overlap", "must be a duration"),
        (json!({"rotation": {"overlap": ""}}), "spec.rotation.overlap", "must be a duration"),
        (json!({"rotation": {"interval": "90"}}), "spec.rotation.interval", "must be a duration"),
        (json!({"rotation": {"interval": "59m"}}), "spec.rotation.interval", "at least 1h"),
        (window("0 2 * *", "3h", "UTC"), "spec.rotation.window.schedule", "should match"),
        (window("TZ=UTC 0 2 * * *", "3h", "UTC"), "spec.rotation.window.schedule", "should match"),
        (window("0 2 * * 6", "9m", "UTC"), "spec.rotation.window.duration", "at least 10m"),
        (window("0 2 * * 6", "3 hours", "UTC"), "spec.rotation.window.duration", "at least 10m"),
        (window("0 2 * * 6", "3h", "Europe Berlin"), "spec.rotation.window.timeZone", "should match"),
        (
            json!({"rotation": {"renewBefore": "5d"}, "expiresInDays": 30}),
            "spec.rotation.renewBefore",
            "positive duration",
        ),
        (json!({"rotation": {"renewBefore": "0s"}}), "spec.rotation.renewBefore", "positive duration"),
        (
            json!({"rotation": {"renewBefore": "24h"}, "expiresInDays": 1}),
            "spec.rotation.renewBefore",
            "shorter than the life",
        ),
        (
            json!({"rotation": {"renewBefore": "1h", "renewBeforePercentage": 5}}),
            "spec.rotation",
            "set only one of",
        ),
        (json!({"rotation": {"renewBeforePercentage": 100}}), "spec.rotation.renewBeforePercentage", "99"),
        (json!({"rotation": {"overlapPolicy": "Never"}}), "spec.rotation.overlapPolicy", "Unsupported value"),
        (
            json!({"rotation": {"overlapPolicy": "UntilRolledOut"}}),
            "spec.rotation.overlapPolicy",
            "at least one entry in rolloutRestartTargets",
        ),
        (
            json!({"rotation": {"overlapPolicy": "UntilRolledOut"}, "rolloutRestartTargets": []}),
            "spec.rotation.overlapPolicy",
            "at least one entry in rolloutRestartTargets",
        ),
        (json!({"secret": {"name": "Not_DNS"}}), "spec.secret.name", "DNS-1123"),
        (json!({"secret": {"key": "a/b"}}), "spec.secret.key", "should match"),
        (
            json!({"secret": {"template": {"labels": {"team": "Data Science"}}}}),
            "spec.secret.template.labels.team",
            "should match",
        ),
        (
            json!({"secret": {"template": {"labels": {"boltz.bio/owner-uid": "x"}}}}),
            "spec.secret.template.labels",
            "reserved for the operator",
        ),
        (
            json!({"rolloutRestartTargets": [{"kind": "Job", "name": "x"}]}),
            "spec.rolloutRestartTargets[0].kind",
            "Unsupported value",
        ),
        (
            json!({"rolloutRestartTargets": [{"kind": "Deployment", "name": "X"}]}),
            "spec.rolloutRestartTargets[0].name",
            "DNS-1123",
        ),
        (json!({"deletionPolicy": "Keep"}), "spec.deletionPolicy", "Unsupported value"),
    ] {
        let error = create(&bad).await.expect_err(&bad.to_string());
        assert!(error.contains(field) && error.contains(reason), "{bad}: {error}");
        assert!(!error.contains("type conversion"), "one reason is enough: {error}");
    }
}

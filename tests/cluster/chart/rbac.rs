//! The chart's Roles are what the operator needs: with them its whole job goes well and nothing is refused; without any
//! single one of their rights, something does not.

use super::helm::{as_list, of_kind, template};
use crate::test_env::{EnvOptions, PATIENCE, TestEnv, owned, run_rows, workload};
use boltz_harness::{AuditEvent, ControlPlane, eventually};
use boltz_operator::api::RestartState;
use futures::FutureExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

/// One verb on one resource, as a rule grants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    /// With the subresource, if it is one: `boltzapikeys/status`.
    resource: String,
}

/// What the chart renders for the operator's rights, for the release of that name: Roles and their bindings.
pub fn roles(name: &str, values: &Json) -> Vec<Json> {
    let mut values = values.clone();
    values["fullnameOverride"] = json!(name);
    values["crds"] = json!({"install": false});
    let manifests = template(&values);
    let kinds = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    kinds.iter().flat_map(|kind| of_kind(&manifests, kind)).cloned().collect()
}

/// The rules of those Roles, each cut into rules for one right.
fn cut(roles: &mut [Json], keep: impl Fn(&Right) -> bool) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for role in roles {
        let Some(rules) = role["rules"].as_array() else { continue };
        let mut single = Vec::new();
        for rule in rules {
            for resource in rule["resources"].as_array().unwrap() {
                for verb in rule["verbs"].as_array().unwrap() {
                    let text = |value: &Json| value.as_str().unwrap().to_owned();
                    let right = Right { verb: text(verb), resource: text(resource) };
                    if keep(&right) {
                        let mut rule = rule.clone();
                        rule["resources"] = json!([resource]);
                        rule["verbs"] = json!([verb]);
                        single.push(rule);
                    }
                    rights.insert(right);
                }
            }
        }
        role["rules"] = json!(single);
    }
    rights
}

/// The ServiceAccount of the release of that name.
pub fn user(name: &str) -> String {
    format!("system:serviceaccount:boltz-system:{name}")
}

/// An operator with all of the chart's flags that touch its rights: a lease, all namespaces, the cluster's name by
/// default. Its own objects, among those of the other operators, carry its name.
async fn env(control_plane: &Arc<ControlPlane>, name: &'static str) -> TestEnv {
    let selector = format!("operator={name}");
    let control_plane = Arc::clone(control_plane);
    let flags = ["--leader-elect", "true", "--lease-name", name, "--lease-namespace", "boltz-system"];
    TestEnv::with_options(EnvOptions {
        arguments: owned(&[&flags[..], &["--label-selector", &selector]].concat()),
        without: vec!["--cluster-name", "--watch-namespaces"],
        kubeconfig: Some(Box::new(move |_| {
            control_plane.kubeconfig_for(&user(name), Some("system:serviceaccounts")).unwrap()
        })),
        ..EnvOptions::default()
    })
    .await
}

/// The operator's whole job: a key is issued, used from another Secret, rotated with workloads restarted, issued again
/// when its Secret is lost, and revoked. It panics at what does not come about.
async fn walk_through(mut env: TestEnv, name: &str, lease: bool) {
    let client = env.client.clone();
    let kinds = ["Deployment", "StatefulSet", "DaemonSet"];
    let workloads = kinds.map(|kind| env.workloads(kind));
    for (kind, api) in kinds.iter().zip(&workloads) {
        let workload = serde_json::from_value(workload(kind, "x")).unwrap();
        api.create(&Default::default(), &workload).await.unwrap();
    }

    let mut targets = kinds.map(|kind| json!({"kind": kind, "name": "x"})).to_vec();
    // An event that repeats.
    targets.push(json!({"kind": "Deployment", "name": "missing"}));
    env.create("key", json!({"rotation": {"overlap": "1s"}, "rolloutRestartTargets": targets})).await;
    env.patch("key", json!({"metadata": {"labels": {"operator": name}}})).await;
    let first = env.id_of("key").await;
    env.annotate("key", "boltz.bio/rotate", "1").await;
    let rotated = env
        .until("key", "rotated, and the overlap over", |object| {
            object.status.as_ref().is_some_and(|status| {
                status.key_id.as_ref() != Some(&first) && status.previous_keys.is_empty()
            })
        })
        .await;
    let second = rotated.status.unwrap().key_id.unwrap();
    env.until_active(1).await;
    for api in &workloads {
        eventually(PATIENCE, "the workload is restarted", async || {
            let workload = api.get("x").await.unwrap().data;
            let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
            let restarted = annotations["boltz.bio/restarted-for"] == json!(second);
            if restarted { Ok(()) } else { Err(annotations.to_string()) }
        })
        .await
        .unwrap();
        // Nobody else does it: there is no controller of workloads.
        let status = json!({"status": {
            "observedGeneration": api.get("x").await.unwrap().metadata.generation,
            "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1,
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }});
        api.patch_status("x", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    env.until("key", "the restarts are seen through", |object| {
        let restarts = object.status.iter().flat_map(|status| &status.restarts);
        restarts.filter(|restart| restart.state == RestartState::Done).count() == 3
    })
    .await;

    env.patch("key", json!({"spec": {"secret": {"name": "moved"}}})).await;
    eventually(PATIENCE, "the Secret has moved", async || {
        let both = (env.secrets().get_opt("key").await, env.secrets().get_opt("moved").await);
        if matches!(both, (Ok(None), Ok(Some(_)))) { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    env.secrets().delete("moved", &DeleteParams::default()).await.unwrap();
    env.until("key", "issued again", |object| {
        object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(&second))
    })
    .await;
    env.judge("key").await;

    let remembered: Api<ConfigMap> = Api::namespaced(client.clone(), "boltz-system");
    eventually(PATIENCE, "the organization is remembered", async || {
        let found = remembered.get_opt(&format!("{name}-account")).await.unwrap();
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let is_named = |(key, value): (&String, &String)| key.ends_with(".organization") && !value.is_empty();
        if data.iter().any(is_named) { Ok(()) } else { Err(format!("{data:?}")) }
    })
    .await
    .unwrap();
    let events: Api<Event> = Api::namespaced(client.clone(), &env.namespace);
    eventually(PATIENCE, "events", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let reasons: BTreeSet<String> = events.iter().filter_map(|event| event.reason.clone()).collect();
        let wanted = ["Rotated", "Restarted", "Revoked"];
        if !wanted.iter().all(|reason| reasons.contains(*reason)) {
            return Err(format!("{reasons:?}"));
        }
        let failed: Vec<Option<i32>> = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("RestartFailed"))
            .map(|event| event.series.as_ref().map(|series| series.count))
            .collect();
        if failed == [Some(2)] { Ok(()) } else { Err(format!("RestartFailed: {failed:?}")) }
    })
    .await
    .unwrap();
    env.delete("key").await;
    env.gone("key").await;
    env.until_active(0).await;
    assert_eq!(env.operator.terminate(), Some(0));
    if lease {
        let leases: Api<Lease> = Api::namespaced(client, "boltz-system");
        assert_eq!(leases.get(name).await.unwrap().spec.unwrap().holder_identity, None, "it is released");
    }
}

/// What that user asked for, and whether it was refused.
fn asked<'a>(events: &'a [AuditEvent], user: &str) -> impl Iterator<Item = (Right, bool)> + use<'a> {
    let user = user.to_owned();
    events.iter().filter(move |event| event.user.username == user).map(|event| {
        let object = &event.object_ref;
        let resource = if object.subresource.is_empty() {
            object.resource.clone()
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        (Right { verb: event.verb.clone(), resource }, event.response_status.code == 403)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_suffice_and_each_is_needed() {
    let control_plane = crate::test_env::control_plane().await;

    // With all of them.
    let mut whole = roles("whole", &json!({}));
    let rights = cut(&mut whole, |_| true);
    control_plane.apply(&as_list(&whole)).unwrap();
    let started = Instant::now();
    walk_through(env(&control_plane, "whole").await, "whole", true).await;
    let usual = started.elapsed();
    let events = control_plane.audit_events();
    let mut used = BTreeSet::new();
    for (right, refused) in asked(&events, &user("whole")) {
        assert!(!refused, "{right:?} is missing in the chart's Roles");
        used.insert(right);
    }
    assert_eq!(used, rights, "what is used, and what is granted");

    // Without one of them, each in turn; and beside them once more with all, so that what fails for the others does not
    // fail because the machine is busy.
    let mut manifests = Vec::new();
    let mut variants: Vec<(&'static str, Option<Right>)> = Vec::new();
    for (index, missing) in rights.into_iter().map(Some).chain([None]).enumerate() {
        let name: &'static str = Box::leak(format!("variant-{index}").into_boxed_str());
        // As `roles` would render them, without asking helm for each.
        let text = json!(whole).to_string().replace("\"whole", &format!("\"{name}"));
        let mut roles: Vec<Json> = serde_json::from_str(&text).unwrap();
        cut(&mut roles, |known| Some(known) != missing.as_ref());
        manifests.extend(roles);
        variants.push((name, missing));
    }
    assert!(variants.len() > 15, "{variants:?}");
    control_plane.apply(&as_list(&manifests)).unwrap();
    let control_plane = &control_plane;
    let rows = variants.iter().map(|(name, missing)| {
        let row = async move {
            let whole = async { walk_through(env(control_plane, name).await, name, true).await };
            let whole = AssertUnwindSafe(whole).catch_unwind();
            let Some(missing) = missing else {
                whole.await.expect("all goes well with every right");
                return;
            };
            tokio::pin!(whole);
            let user = user(name);
            let is_refused = is_refused(control_plane, &user, missing);
            let went_well = tokio::select! {
                ended = &mut whole => ended.is_ok(),
                // What has to fail from here on is not waited for as long as what has to go well.
                () = is_refused => {
                    let patience = usual * 2 + Duration::from_secs(5);
                    matches!(tokio::time::timeout(patience, whole).await, Ok(Ok(())))
                }
            };
            assert!(!went_well, "all goes well without {missing:?}");
        };
        (*name, row)
    });
    run_rows(variants.len(), rows).await;
    let events = control_plane.audit_events();
    for (name, missing) in &variants {
        let refused: BTreeSet<Right> =
            asked(&events, &user(name)).filter_map(|(right, refused)| refused.then_some(right)).collect();
        assert_eq!(
            refused,
            BTreeSet::from_iter(missing.clone()),
            "{name} is refused what it lacks, and nothing else"
        );
    }
}

/// Waits until the user has asked for that and been refused.
async fn is_refused(control_plane: &ControlPlane, user: &str, missing: &Right) {
    let _ = eventually(2 * PATIENCE, "the refusal", async || {
        let events = control_plane.audit_events_where(|event| event.user.username == user);
        let mut asked = asked(&events, user);
        if asked.any(|(right, refused)| refused && right == *missing) { Ok(()) } else { Err("none") }
    })
    .await;
}

/// An operator that watches its namespace only, with the rights that the chart gives to the release of that name.
async fn namespaced(control_plane: &Arc<ControlPlane>, name: &'static str, restarts: bool) -> TestEnv {
    let control_plane = Arc::clone(control_plane);
    let kubeconfig = move |namespace: &str| {
        let values = json!({
            "watchNamespaces": [namespace],
            "clusterName": namespace,
            "config": {"leaderElect": false},
            "rolloutRestart": {"enabled": restarts},
        });
        control_plane.apply(&as_list(&roles(name, &values))).unwrap();
        control_plane.kubeconfig_for(&user(name), Some("system:serviceaccounts")).unwrap()
    };
    TestEnv::with_options(EnvOptions {
        kubeconfig: Some(Box::new(kubeconfig)),
        arguments: owned(&["--lease-name", name]),
        ..EnvOptions::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_in_the_watched_namespaces_suffice() {
    let control_plane = crate::test_env::control_plane().await;
    walk_through(namespaced(&control_plane, "namespaced", true).await, "namespaced", false).await;
    let events = control_plane.audit_events();
    for (right, refused) in asked(&events, &user("namespaced")) {
        assert!(!refused, "{right:?} is missing in the chart's Roles");
    }
}

/// A user's mistake must not hurt more than the restart: the key rotates all the same, and an event says why.
#[tokio::test]
async fn without_the_right_to_restart_a_rotation_goes_on_and_an_event_tells() {
    let env = namespaced(&crate::test_env::control_plane().await, "no-restarts", false).await;
    let target = json!({"kind": "Deployment", "name": "x"});
    env.create("key", json!({"rotation": {"overlap": "1s"}, "rolloutRestartTargets": [target]})).await;
    let first = env.id_of("key").await;
    env.annotate("key", "boltz.bio/rotate", "1").await;
    env.until("key", "rotated, and the overlap over", |object| {
        object
            .status
            .as_ref()
            .is_some_and(|status| status.key_id.as_ref() != Some(&first) && status.previous_keys.is_empty())
    })
    .await;
    env.judge("key").await;
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    eventually(PATIENCE, "an event", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        let notes = |event: &Event| {
            event.reason.as_deref() == Some("RestartFailed")
                && event.note.as_deref().is_some_and(|note| note.contains("forbidden"))
        };
        if events.items.iter().any(notes) { Ok(()) } else { Err("none") }
    })
    .await
    .unwrap();
}

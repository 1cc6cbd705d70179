//! Each watched namespace stands alone: without rights, absent or going away, it holds up no other.

use crate::{
    chart::{
        helm::as_list,
        rbac::{roles, user},
    },
    test_env::{EnvOptions, PATIENCE, TestEnv, condition, create_namespace, is},
};
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::eventually;
use boltz_operator::api::BoltzApiKey;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, time::Duration};

/// The chart's rights with `watchNamespaces`, applied, for the operator of that name and for what it remembers under it.
fn grant(env: &TestEnv, name: &str, namespaces: &[String]) {
    grant_with_lease(env, name, name, namespaces);
}

fn grant_with_lease(env: &TestEnv, name: &str, lease: &str, namespaces: &[String]) {
    let values = json!({
        "watchNamespaces": namespaces,
        "clusterName": env.namespace,
        "config": {"leaderElect": false, "leaseName": lease},
    });
    env.control_plane.apply(&as_list(&roles(name, &values))).unwrap();
}

/// Starts the operator with the rights of that name in place of the usual ones.
fn operate_as(env: &mut TestEnv, name: &str, watched: &[String]) {
    operate_with_lease(env, name, name, watched);
}

fn operate_with_lease(env: &mut TestEnv, name: &str, lease: &str, watched: &[String]) {
    let kubeconfig = env.control_plane.kubeconfig_for(&user(name), Some("system:serviceaccounts")).unwrap();
    env.replace_operator(&kubeconfig, &["--watch-namespaces", &watched.join(","), "--lease-name", lease]);
}

fn objects_in(env: &TestEnv, namespace: &str) -> Api<BoltzApiKey> {
    Api::namespaced(env.client.clone(), namespace)
}

async fn create_in(env: &TestEnv, namespace: &str, name: &str, spec: Json) {
    let object = json!({
        "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": name}, "spec": spec,
    });
    let object = serde_json::from_value(object).unwrap();
    objects_in(env, namespace).create(&PostParams::default(), &object).await.unwrap();
}

async fn until_in(
    env: &TestEnv,
    namespace: &str,
    name: &str,
    what: &str,
    is_so: impl Fn(&BoltzApiKey) -> bool,
) {
    let seen = eventually(PATIENCE, what, async || match objects_in(env, namespace).get(name).await {
        Ok(object) if is_so(&object) => Ok(()),
        other => Err(format!("{:?}", other.map(|object| object.status))),
    });
    if let Err(error) = seen.await {
        panic!("{error}\n{}", env.operator.process().last_lines(40));
    }
}

fn health(namespace: &str, resource: &str, value: u8) -> String {
    format!("boltz_watch_healthy{{namespace=\"{namespace}\",resource=\"{resource}\"}} {value}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_rights_and_an_absent_one_hold_up_no_other() {
    let mut env = TestEnv::new().await;
    let name = format!("alone-{}", env.namespace);
    let (own, bare, absent) =
        (env.namespace.clone(), format!("{}-bare", env.namespace), format!("{}-absent", env.namespace));
    create_namespace(&env.client, &bare).await;
    create_in(&env, &bare, "waits", json!({})).await;
    grant(&env, &name, std::slice::from_ref(&own));
    operate_as(&mut env, &name, &[bare.clone(), absent.clone(), own.clone()]);
    env.operator.wait_ready().await.unwrap();
    env.create("served", json!({})).await;
    env.ready("served").await;
    // What is wrong is said where somebody looks.
    let body = env.operator.get("/readyz").await.unwrap();
    for namespace in [&bare, &absent] {
        assert!(body.contains(&format!("namespace {namespace}: ")), "{body}");
        env.until_metric(&health(namespace, "secrets", 0)).await;
    }
    env.until_metric(&health(&own, "secrets", 1)).await;
    until_in(&env, &bare, "waits", "the object says why", |object| {
        condition(object, "Ready").is_some_and(|ready| ready.message.contains("forbidden"))
    })
    .await;
    let warnings = env.operator.log().matches("cannot watch").count();
    assert!((2..=8).contains(&warnings), "{warnings} warnings\n{}", env.operator.log());

    // As soon as it has the rights, without a restart.
    grant(&env, &name, &[own.clone(), bare.clone()]);
    until_in(&env, &bare, "waits", "Ready", |object| is(object, "Ready")).await;
    env.until_metric(&health(&bare, "secrets", 1)).await;
    create_namespace(&env.client, &absent).await;
    grant(&env, &name, &[own, bare.clone(), absent.clone()]);
    create_in(&env, &absent, "late", json!({})).await;
    until_in(&env, &absent, "late", "Ready", |object| is(object, "Ready")).await;
    env.until_metric(&health(&absent, "secrets", 1)).await;
    assert_eq!(env.operator.get("/readyz").await.unwrap(), "ready\n");
    assert_eq!(env.emulator.count(Operation::Create), 3);
    for namespace in [bare, absent] {
        let namespaces: Api<Namespace> = Api::all(env.client.clone());
        namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    }
    env.until_active(1).await;
}

/// What the operator remembers of its organization cannot be read: it does not know whose keys these would be.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_its_config_map_no_key_is_issued() {
    let mut env = TestEnv::new().await;
    let name = format!("reads-{}", env.namespace);
    let own = [env.namespace.clone()];
    grant(&env, &name, &own);
    operate_as(&mut env, &name, &own);
    env.operator.wait_ready().await.unwrap();
    env.create("before", json!({})).await;
    env.ready("before").await;

    let lease = format!("{name}-other");
    operate_with_lease(&mut env, &name, &lease, &own);
    env.create("waits", json!({})).await;
    let told = env.not_ready("waits", "BoltzUnauthorized").await;
    let message = &condition(&told, "Ready").unwrap().message;
    assert!(message.contains("-account") && message.contains("permissions"), "{message}");
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    assert!(is(&env.get("before").await, "Ready"));

    grant_with_lease(&env, &name, &lease, &own);
    env.ready("waits").await;
    env.judge_all(&["before", "waits"], &[]).await;
}

/// How a namespace is when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// Its objects are at rest.
    AtRest,
    /// The operator is away until the namespace has nothing left but what waits for the operator.
    Away,
    /// Keys are being issued.
    MidIssue,
}

/// The RoleBinding goes with the namespace, and with it the right to read the Secret. `NAMESPACES=10` deletes as many.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_that_are_deleted_with_the_rights_in_them_go_and_their_keys_are_revoked() {
    let count = std::env::var("NAMESPACES").ok().and_then(|count| count.parse().ok()).unwrap_or(3);
    let mut env = TestEnv::settling_fast().await;
    let name = format!("going-{}", env.namespace);
    let whens = [When::AtRest, When::Away, When::MidIssue];
    let going: Vec<(String, When)> = (0..count)
        .map(|index| (format!("{}-going-{index}", env.namespace), whens[index % whens.len()]))
        .collect();
    for (namespace, _) in &going {
        create_namespace(&env.client, namespace).await;
    }
    let watched: Vec<String> =
        std::iter::once(&env.namespace).chain(going.iter().map(|(name, _)| name)).cloned().collect();
    grant(&env, &name, &watched);
    operate_as(&mut env, &name, &watched);
    env.operator.wait_ready().await.unwrap();
    env.create("stays", json!({})).await;
    env.ready("stays").await;
    let mut left = BTreeSet::from([env.id_of("stays").await]);
    for (namespace, when) in &going {
        left.extend(goes(&mut env, namespace, *when).await);
        // Nobody else's key is touched, and none of the namespace's is left but those that are retained.
        let active = eventually(PATIENCE, "the right keys live", async || {
            let active = env.active_ids();
            if active == left { Ok(()) } else { Err(format!("{active:?}, not {left:?}")) }
        });
        if let Err(error) = active.await {
            panic!("{namespace} {when:?}: {error}\n{}", env.operator.process().last_lines(60));
        }
    }
    env.ready("stays").await;
    assert!(env.emulator.authenticate(&env.value("stays").await).is_some());
}

/// Answers the key that is retained, if there is one.
async fn goes(env: &mut TestEnv, namespace: &str, when: When) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let keys = ["one", "two", "three"];
    if when == When::MidIssue {
        env.emulator.inject(Fault {
            operation: Some(Operation::Create),
            effect: Effect::Before,
            outcome: Outcome::Answer,
            latency_milliseconds: 700,
            times: 3,
        });
    }
    let active = env.active_ids().len();
    for key in keys {
        create_in(env, namespace, key, json!({})).await;
    }
    match when {
        When::MidIssue => {
            env.wait("a key is being delivered", || {
                if env.active_ids().len() > active { Ok(()) } else { Err("none".to_owned()) }
            })
            .await;
        }
        When::AtRest | When::Away => {
            for key in keys {
                until_in(env, namespace, key, "Ready", |object| is(object, "Ready")).await;
            }
        }
    }
    let mut retained = None;
    if when == When::AtRest {
        create_in(env, namespace, "kept", json!({"deletionPolicy": "Retain"})).await;
        until_in(env, namespace, "kept", "Ready", |object| is(object, "Ready")).await;
        let kept = objects_in(env, namespace).get("kept").await.unwrap();
        retained = kept.status.unwrap().key_id;
    }
    if when == When::Away {
        env.operator.kill();
    }
    namespaces.delete(namespace, &DeleteParams::default()).await.unwrap();
    if when == When::Away {
        let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> =
            Api::namespaced(env.client.clone(), namespace);
        eventually(PATIENCE, "the RoleBinding is gone", async || {
            match bindings.list(&Default::default()).await {
                Ok(list) if list.items.is_empty() => Ok(()),
                other => Err(format!("{:?}", other.map(|list| list.items.len()))),
            }
        })
        .await
        .unwrap();
        env.operator.restart().unwrap();
    }
    let gone =
        eventually(PATIENCE, "the namespace is gone", async || match namespaces.get_opt(namespace).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|known| known.map(|known| known.status)))),
        });
    if let Err(error) = gone.await {
        panic!("{namespace} {when:?}: {error}\n{}", env.operator.process().last_lines(60));
    }
    // Nothing spins meanwhile: of three objects, few calls are refused.
    let refused = env
        .control_plane
        .audit_events_where(|event| {
            event.object_ref.namespace == namespace
                && event.user.username.contains("going-")
                && event.response_status.code >= 400
        })
        .len();
    println!("{when:?}: {refused} calls were refused");
    assert!(refused < 150, "{refused} calls were refused in {namespace} {when:?}");
    retained
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_crd_it_says_what_to_do_and_works_as_soon_as_it_is_there() {
    let mut env =
        TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
    let crd = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/boltzapikeys.yaml");
    env.control_plane.kubectl(&["delete", "--filename", crd]).unwrap();
    let kubeconfig = env.control_plane.kubeconfig("operator");
    env.replace_operator(&kubeconfig, &[]);
    env.operator.wait_for_log("the CustomResourceDefinition", PATIENCE).await.unwrap();
    let answer = env.operator.get("/readyz").await;
    assert!(answer.as_ref().is_err_and(|error| error.contains("503")), "{answer:?}");
    assert!(env.operator.get("/healthz").await.is_ok());
    env.until_metric(&health(&env.namespace, "boltzapikeys", 0)).await;
    env.control_plane.kubectl(&["apply", "--server-side", "--filename", crd]).unwrap();
    env.control_plane
        .kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "--filename", crd])
        .unwrap();
    eventually(Duration::from_secs(60), "it is ready", async || env.operator.get("/readyz").await.map(drop))
        .await
        .unwrap();
    env.create("key", json!({})).await;
    env.ready("key").await;
}

//! `rotation.window` and the shortest `rotation.interval`, against a real API server.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv, condition, is};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};

fn spec(schedule: &str, duration: &str) -> Json {
    json!({"expiresInDays": 90, "rotation": {"window": {"schedule": schedule, "duration": duration}}})
}

/// A schedule whose window opens in five to seven hours.
fn later_today() -> String {
    let time = Timestamp::now().to_zoned(TimeZone::UTC);
    format!("0 {} * * *", time.checked_add(SignedDuration::from_hours(6)).unwrap().hour())
}

#[tokio::test]
async fn a_rotation_waits_for_its_window_unless_it_cannot() {
    let env = TestEnv::settling_fast().await;
    env.create("waiting", spec(&later_today(), "30m")).await;
    env.judge("waiting").await;
    env.annotate("waiting", "boltz.bio/rotate", "1").await;
    let waits = env.until("waiting", "it waits", |object| {
        condition(object, "Ready").is_some_and(|ready| ready.message.contains("waits until"))
    });
    let status = waits.await.status.unwrap();
    let window = status.rotation_window.unwrap();
    assert_eq!(window.end.0.duration_since(window.start.0), SignedDuration::from_mins(30));
    assert!(window.start.0 > Timestamp::now());
    env.passes(3).await;
    assert_eq!(env.emulator.count(Operation::Create), 1);
    let writes = env.writes().len();
    env.passes(2).await;
    assert_eq!(env.writes().len(), writes, "who waits writes nothing");

    // A window that is open at all times.
    env.patch("waiting", json!({"spec": spec("*/10 * * * *", "24h")})).await;
    env.wait("the rotation", || match env.emulator.count(Operation::Create) {
        2 => Ok(()),
        count => Err(format!("{count}")),
    })
    .await;
    env.judge("waiting").await;

    env.patch("waiting", json!({"spec": spec(&later_today(), "30m")})).await;
    env.annotate("waiting", "boltz.bio/rotate-now", "1").await;
    env.wait("a leaked key does not wait", || match env.emulator.count(Operation::Create) {
        3 => Ok(()),
        count => Err(format!("{count}")),
    })
    .await;
    env.judge("waiting").await;
    let events = || env.control_plane.kubectl(&["get", "events", "--namespace", &env.namespace]);
    eventually(PATIENCE, "the event says so", async || {
        let events = events().unwrap();
        let says = |event: &&str| {
            event.contains("(RotateNow)") && event.contains("could not wait for the rotation window")
        };
        if events.lines().find(says).is_some() { Ok(()) } else { Err(events) }
    })
    .await
    .unwrap();
    assert!(
        !events()
            .unwrap()
            .lines()
            .any(|event| event.contains("(RotateRequested)") && event.contains("could not"))
    );
}

#[tokio::test]
async fn a_time_zone_that_does_not_exist_is_said() {
    let env = TestEnv::new().await;
    let mut spec = spec("0 2 * * 6", "3h");
    spec["rotation"]["window"]["timeZone"] = json!("Middle-earth/Shire");
    env.create("lost", spec).await;
    // It has a key, which is renewed in time; rotations that can wait do.
    let object = env
        .until("lost", "a key, and what is wrong", |object| is(object, "Ready") && is(object, "Stalled"))
        .await;
    let stalled = condition(&object, "Stalled").unwrap();
    assert_eq!(stalled.reason, "InvalidSpec");
    assert!(stalled.message.contains("spec.rotation.window.timeZone"), "{}", stalled.message);
    assert_eq!(env.emulator.count(Operation::Create), 1);
}

/// An object from before the rule keeps its interval, whatever else of it changes.
#[tokio::test]
async fn a_short_interval_of_an_old_object_stays_until_it_is_changed() {
    let env = TestEnv::with_options(EnvOptions { own_control_plane: true, ..EnvOptions::default() }).await;
    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    let crd = crds.get("boltzapikeys.boltz.bio").await.unwrap();
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rotation/properties/interval/\
                 x-kubernetes-validations";
    let all = json!(crd).pointer(rules).unwrap().clone();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let set_rules = async |rules_of_interval: Json| {
        let mut changed = json!(crds.get(&crd.name_any()).await.unwrap());
        *changed.pointer_mut(rules).unwrap() = rules_of_interval;
        let changed = serde_json::from_value(changed).unwrap();
        crds.replace(&crd.name_any(), &PostParams::default(), &changed).await.unwrap();
    };
    let create = async |name: &str| {
        let object = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey", "metadata": {"name": name},
            "spec": {"rotation": {"interval": "30m"}},
        });
        let created =
            env.objects().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
        created.map(drop).map_err(|error| error.to_string())
    };
    assert!(create("old").await.unwrap_err().contains("at least 1h"));
    set_rules(json!([all[0]])).await;
    eventually(PATIENCE, "the old rules hold", async || create("old").await).await.unwrap();
    set_rules(all.clone()).await;
    let refuses = async || match create(&format!("new-{}", Timestamp::now().as_millisecond())).await {
        Ok(()) => Err("accepted".to_owned()),
        Err(error) => Ok(error),
    };
    assert!(eventually(PATIENCE, "the new rule holds", refuses).await.unwrap().contains("at least 1h"));

    env.ready("old").await;
    env.patch("old", json!({"spec": {"displayName": "still works"}})).await;
    env.annotate("old", "boltz.bio/rotate", "1").await;
    env.wait("a rotation", || match env.emulator.count(Operation::Create) {
        0 | 1 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    env.ready("old").await;
    let change = async |interval: &str| {
        let patch = Patch::Merge(json!({"spec": {"rotation": {"interval": interval}}}));
        let changed = env.objects().patch("old", &PatchParams::default(), &patch).await;
        changed.map(drop).map_err(|error| error.to_string())
    };
    assert!(change("20m").await.unwrap_err().contains("at least 1h"));
    change("0s").await.unwrap();
    assert!(change("30m").await.unwrap_err().contains("at least 1h"), "it is a new one now");
    change("90m").await.unwrap();
}

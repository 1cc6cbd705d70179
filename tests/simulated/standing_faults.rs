//! Faults that stay, under the real controller and executor: every call of a key's story answered in one way for three
//! hours of virtual time. The operator makes few calls, and all is well after the cure.

use crate::{
    api_server::Resource,
    fault_injection::{Fault, Met, lock},
    process::Process,
    threads::play_all,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::api::annotations::{ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3600);

/// The calls that a story makes, in the order of methods and paths.
const CALLS: [&str; 14] = [
    "POST /api/v1/namespaces/team/secrets dry",
    "PATCH /api/v1/namespaces/team/secrets/key dry",
    "POST /api/v1/namespaces/team/secrets",
    "PATCH /api/v1/namespaces/team/secrets/key",
    "GET /api/v1/namespaces/team/secrets/key",
    "DELETE /api/v1/namespaces/team/secrets/key",
    "PATCH /apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key",
    "PATCH /apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key/status",
    "GET /apis/boltz.bio/v1alpha1/namespaces/team/boltzapikeys/key",
    "PATCH /apis/apps/v1/namespaces/team/deployments/worker",
    "Boltz POST /compute/v1/admin/api-keys",
    "Boltz POST /compute/v1/admin/api-keys/*/revoke",
    "Boltz GET /compute/v1/admin/api-keys",
    "Boltz GET /compute/v1/auth/me",
];
/// Only Boltz, or a gateway in front of it, answers so.
const FAULTS_OF_BOLTZ: [Fault; 3] = [Fault::Status(302), Fault::Status(401), Fault::Odd];
const FAULTS: [Fault; 8] = [
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(409),
    Fault::Status(422),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Silent,
    Fault::Cut,
];

type Story = fn(&Arc<World>);

/// What happens once the fault stands. The object is there and has its key, but in the first.
const STORIES: [(&str, Story); 9] = [
    ("a first key", |_| {}),
    ("a rotation", |world| world.annotate(ROTATE_ANNOTATION, "1")),
    ("a leak", |world| world.annotate(ROTATE_NOW_ANNOTATION, "1")),
    ("another data key", |world| world.edit(json!({"spec": {"secret": {"key": "OTHER"}}}))),
    ("another name", |world| world.edit(json!({"spec": {"secret": {"name": "other"}}}))),
    ("a Secret that is to stay", |world| world.edit(json!({"spec": {"deletionPolicy": "Retain"}}))),
    ("a finalizer that is taken away", |world| world.edit(json!({"metadata": {"finalizers": []}}))),
    ("a Secret that is taken away", |world| world.delete_secret()),
    ("a deletion", |world| world.delete()),
];

fn kind(met: &Met) -> String {
    match met.what.strip_suffix("/revoke").and_then(|path| path.rsplit_once('/')) {
        Some((path, _)) => format!("{path}/*/revoke"),
        None => met.what.clone(),
    }
}

/// Calls about the object; passes, events and the check of the admin key are the account's.
fn is_counted(what: &str) -> bool {
    !what.contains("/events") && !what.ends_with("/auth/me") && what != "Boltz GET /compute/v1/admin/api-keys"
}

#[derive(Default)]
struct Counts {
    api: AtomicUsize,
    boltz: AtomicUsize,
    struck: AtomicUsize,
}

/// Plays a story under a fault that stays for three hours. Answers how often it struck.
async fn play(story: (&'static str, Story), call: &'static str, fault: Fault) -> usize {
    let world = World::new(Settings::default());
    let process = Process::start(&world, 1);
    sleep(SECOND).await;
    let what = format!("{}, {call}: {fault:?}", story.0);
    let targets = json!([{"kind": "Deployment", "name": "worker"}]);
    let create = || world.create(&json!({"rotation": {"overlap": "10m"}, "rolloutRestartTargets": targets}));
    let is_first = story.0 == STORIES[0].0;
    if !is_first {
        create();
        world.good(&format!("{what}: before")).await;
    }
    let counts = Arc::new(Counts::default());
    let counted = Arc::clone(&counts);
    world.faults(move |met| {
        let kind = kind(met);
        if is_counted(&met.what) {
            let counter = if kind.starts_with("Boltz") { &counted.boltz } else { &counted.api };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        (kind == call).then(|| {
            counted.struck.fetch_add(1, Ordering::Relaxed);
            fault
        })
    });
    if is_first {
        create();
    }
    story.1(&world);
    for hour in 1..=3 {
        sleep(HOUR).await;
        let (api, boltz) = (counts.api.load(Ordering::Relaxed), counts.boltz.load(Ordering::Relaxed));
        let (most_api, most_boltz) = (120 + 30 * (hour - 1), 40 + 12 * (hour - 1));
        assert!(
            api <= most_api && boltz <= most_boltz,
            "{what}: {api} calls to the API server and {boltz} to Boltz in {hour} h\n{}",
            world.transcript()
        );
    }
    world.faults(|_| None);
    // The longest wait after a refusal, and what then has to settle.
    sleep(62 * MINUTE).await;
    if story.0 == "another name" {
        assert_eq!(world.secret("key"), None, "{what}: the old Secret stays");
        world.edit(json!({"spec": {"secret": {"name": "key"}}}));
    }
    if story.0 == "a Secret that is to stay" {
        let owners = &world.secret("key").unwrap()["metadata"]["ownerReferences"];
        assert!(owners.as_array().is_none_or(Vec::is_empty), "{what}: it would go with its object");
        world.edit(json!({"spec": {"deletionPolicy": "Revoke"}}));
    }
    world.good(&what).await;
    drop(process);
    counts.struck.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn every_call_may_fail_in_every_way_for_hours() {
    let mut cases = Vec::new();
    for story in STORIES {
        for call in CALLS {
            // The API server's own word that the object is gone is believed. So is that an old Secret is gone, or another one:
            // nothing leads to it then.
            let is_old_secret = story.0 == "another name"
                && (call.starts_with("GET /api/v1") || call.starts_with("DELETE /api/v1"));
            let is_no_fault = |fault: &Fault| match fault {
                Fault::Status(404) => is_old_secret || call.starts_with("GET /apis"),
                Fault::Status(409) => is_old_secret,
                _ => false,
            };
            let of_boltz = FAULTS_OF_BOLTZ.into_iter().filter(|_| call.starts_with("Boltz"));
            let faults = FAULTS.into_iter().filter(|fault| !is_no_fault(fault)).chain(of_boltz);
            cases.extend(faults.map(|fault| (story, call, fault)));
        }
    }
    let struck = parking_lot::Mutex::new(BTreeMap::<&str, usize>::new());
    let cells = AtomicUsize::new(0);
    play_all("standing faults", &cases, async |(story, call, fault)| {
        let times = play(story, call, fault).await;
        cells.fetch_add(usize::from(times > 0), Ordering::Relaxed);
        *lock(&struck).entry(call).or_default() += times;
    });
    let cells = cells.load(Ordering::Relaxed);
    println!("{cells} cells in which the fault struck");
    assert!(cells >= 200, "only {cells}");
    for call in CALLS {
        assert!(lock(&struck)[call] > 0, "no story has the call {call}");
    }
}

/// Workloads behind a webhook that does not respond: the object says so in time, and newer versions of it are seen.
#[tokio::test(start_paused = true)]
async fn calls_that_hang_hold_up_nothing_else_of_their_object() {
    let world = World::new(Settings::default());
    let _process = Process::start(&world, 1);
    sleep(SECOND).await;
    let target = |number| json!({"kind": "Deployment", "name": format!("worker-{number}")});
    world.create(&json!({"rolloutRestartTargets": (1..=32).map(target).collect::<Vec<_>>()}));
    world.good("before").await;
    world.faults(|met| met.what.contains("/deployments/").then_some(Fault::Silent));
    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(30 * SECOND).await;
    let status = world.object().unwrap()["status"].clone();
    assert_eq!(status["keyID"], json!(world.record().unwrap().key_id), "{}", world.transcript());
    let stalled = status["conditions"].as_array().unwrap().iter().find(|known| known["type"] == "Stalled");
    assert_eq!(stalled.unwrap()["reason"], "RestartFailed", "{}", world.transcript());
    world.annotate(ROTATE_NOW_ANNOTATION, "2");
    sleep(30 * SECOND).await;
    assert!(world.record().unwrap().rotate_now.is_some(), "{}", world.transcript());
    world.delete();
    sleep(30 * SECOND).await;
    assert!(world.object().is_none() && world.emulator.active_keys().is_empty(), "{}", world.transcript());
}

/// An admission webhook that takes the operator's marks out of what it writes.
#[tokio::test(start_paused = true)]
async fn what_a_webhook_undoes_is_not_done_again_and_again() {
    // Without record, label and ownerReference, nothing tells whose a retained Secret is.
    let stories = || STORIES.into_iter().filter(|story| story.0 != "a Secret that is to stay");
    for resource in [Resource::Secrets, Resource::ApiKeys] {
        for story in stories() {
            let world = World::new(Settings::default());
            let _process = Process::start(&world, 1);
            sleep(SECOND).await;
            let create = || world.create(&json!({"rotation": {"overlap": "10m"}}));
            let is_first = story.0 == STORIES[0].0;
            if !is_first {
                create();
                world.good("before").await;
            }
            lock(&world.server).stripped = Some(resource);
            let counts = Arc::new(Counts::default());
            let counted = Arc::clone(&counts);
            world.faults(move |met| {
                if is_counted(&met.what) {
                    let is_boltz = met.what.starts_with("Boltz");
                    let counter = if is_boltz { &counted.boltz } else { &counted.api };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                None
            });
            if is_first {
                create();
            }
            story.1(&world);
            sleep(HOUR).await;
            let (api, boltz) = (counts.api.load(Ordering::Relaxed), counts.boltz.load(Ordering::Relaxed));
            let what = format!("{}: {resource:?}", story.0);
            assert!(api <= 120 && boltz <= 40, "{what}: {api}, {boltz}\n{}", world.transcript());
            lock(&world.server).stripped = None;
            sleep(62 * MINUTE).await;
            if story.0 == "another name" {
                world.edit(json!({"spec": {"secret": {"name": "key"}}}));
            }
            world.good(&what).await;
        }
    }
}

/// Of the objects in two namespaces, one meets a fault that stays. All others are served as if nothing were wrong.
const OTHERS: [(&str, &str); 3] = [("team", "other"), ("second", "key"), ("second", "other")];
/// How long a call that hangs may hold up others: its timeout, twice.
const IN_TIME: Duration = Duration::from_secs(20);

async fn play_among_others(story: &'static str, call: &'static str, fault: Fault) -> usize {
    let world = World::new(Settings::default());
    let process = Process::start(&world, 1);
    sleep(SECOND).await;
    let what = format!("{story}, {call}: {fault:?}");
    let everybody = || OTHERS.into_iter().chain([("team", "key")]);
    let create = || {
        everybody().for_each(|(namespace, name)| {
            world.create_in(namespace, name, &json!({"rotation": {"overlap": "10m"}}))
        })
    };
    let others =
        |holds: &dyn Fn(&str, &str) -> bool| OTHERS.iter().all(|(namespace, name)| holds(namespace, name));
    let has_a_key = |namespace: &str, name: &str| world.record_in(namespace, name).is_some();
    if story != "a first key" {
        create();
        sleep(5 * MINUTE).await;
        assert!(everybody().all(|(namespace, name)| has_a_key(namespace, name)), "{what}: before");
    }
    let struck = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&struck);
    world.faults(move |met| {
        (met.what == call).then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            fault
        })
    });
    let annotate = |annotation: &str| {
        for (namespace, name) in everybody() {
            world.edit_in(namespace, name, json!({"metadata": {"annotations": {annotation: "1"}}}));
        }
    };
    let begin = world.now();
    match story {
        "a first key" => create(),
        "a rotation" => annotate(ROTATE_ANNOTATION),
        "a leak" => annotate(ROTATE_NOW_ANNOTATION),
        _ => everybody().for_each(|(namespace, name)| world.delete_in(namespace, name)),
    }
    let is_served = |namespace: &str, name: &str| {
        let record = world.record_in(namespace, name);
        match story {
            "a first key" => record.is_some(),
            "a rotation" => record.is_some_and(|record| record.rotate.is_some()),
            "a leak" => record.is_some_and(|record| record.rotate_now.is_some()),
            _ => record.is_none(),
        }
    };
    while !others(&is_served) {
        sleep(SECOND / 4).await;
        let waited = world.now().duration_since(begin);
        assert!(
            waited.as_secs() < IN_TIME.as_secs() as i64,
            "{what}: others are not served in time\n{}",
            world.transcript()
        );
    }
    // Their overlaps end while the fault stands.
    sleep(13 * MINUTE).await;
    let alive = world.emulator.active_keys().len();
    let of_others = if story == "a deletion" { 0 } else { OTHERS.len() };
    assert!(alive <= of_others + 2, "{what}: {alive} keys are active\n{}", world.transcript());
    world.faults(|_| None);
    sleep(62 * MINUTE).await;
    assert_eq!(world.violation(), None, "{what}\n{}", world.transcript());
    assert!(everybody().all(|(namespace, name)| is_served(namespace, name)), "{what}: after the cure");
    let expected = if story == "a deletion" { 0 } else { OTHERS.len() + 1 };
    assert_eq!(
        world.emulator.active_keys().len(),
        expected,
        "{what}: after the cure\n{}",
        world.transcript()
    );
    drop(process);
    struck.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn one_object_in_trouble_holds_up_no_other() {
    let mut cases = Vec::new();
    for story in ["a first key", "a rotation", "a leak", "a deletion"] {
        for call in CALLS.into_iter().filter(|call| call.contains("/team/") && call.contains("/key")) {
            let is_no_fault = |fault: &Fault| call.starts_with("GET /apis") && *fault == Fault::Status(404);
            cases.extend(
                FAULTS.into_iter().filter(|fault| !is_no_fault(fault)).map(|fault| (story, call, fault)),
            );
        }
    }
    let cells = AtomicUsize::new(0);
    play_all("one object in trouble among four", &cases, async |(story, call, fault)| {
        let times = play_among_others(story, call, fault).await;
        cells.fetch_add(usize::from(times > 0), Ordering::Relaxed);
    });
    let cells = cells.load(Ordering::Relaxed);
    println!("{cells} cells in which the fault struck");
    assert!(cells >= 100, "only {cells}");
}

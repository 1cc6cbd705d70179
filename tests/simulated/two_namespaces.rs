//! Two objects of one name in two namespaces, crossed with crashes, lost answers and late effects at any call of either: each
//! gets its own key, is rotated and deleted, whatever happens to the other's calls.

use crate::api_server::Resource;
use crate::{
    fault_injection::{Fault, lock},
    process::Process,
    threads::play_all,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::api::annotations::{RECORD_ANNOTATION, ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION};
use boltz_operator::protocol::{
    marker::{Marker, ObjectMark},
    record::Record,
};
use k8s_openapi::ByteString;
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

const NAMESPACES: [&str; 2] = ["other", "team"];
const KINDS: [Fault; 7] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::CrashLate(Duration::from_secs(40)),
    Fault::Lost,
    Fault::Late(Duration::from_secs(40)),
    Fault::RefusedThoughDone(503),
    Fault::Status(403),
];
/// Two objects, and a rotation of each.
const KEYS: usize = 4;

/// What is wrong with the objects and their keys, once nothing is under way.
fn wrong(world: &World) -> Option<String> {
    let server = lock(&world.server);
    let (mut expected, mut marks) = (BTreeSet::new(), BTreeSet::new());
    for namespace in NAMESPACES {
        let place = |resource| (resource, namespace.to_owned(), "key".to_owned());
        let secret = server.objects.get(&place(Resource::Secrets));
        let Some(object) = server.objects.get(&place(Resource::ApiKeys)) else {
            if secret.is_some() {
                return Some(format!("the Secret in {namespace} outlives its object"));
            }
            continue;
        };
        if object["metadata"]["deletionTimestamp"].is_string() {
            return Some(format!("the deletion in {namespace} is not over"));
        }
        let annotation = |secret: &Arc<serde_json::Value>| {
            Record::parse(secret["metadata"]["annotations"][RECORD_ANNOTATION].as_str())
        };
        let Some((secret, record)) = secret.and_then(|secret| Some((secret, annotation(secret)?))) else {
            return Some(format!("no record in {namespace}"));
        };
        let mark = ObjectMark::from_uid(object["metadata"]["uid"].as_str()?);
        let key = world.emulator.key(&record.key_id)?;
        let value: ByteString = serde_json::from_value(secret["data"]["BOLTZ_API_KEY"].clone()).ok()?;
        let is_marked = Marker::parse(&key.name).is_some_and(|marker| marker.object == mark);
        if !is_marked || value.0 != key.plaintext.as_bytes() {
            return Some(format!("the Secret in {namespace} holds another's key, or not that of its record"));
        }
        if object["status"]["keyID"] != json!(record.key_id) {
            return Some(format!("the status in {namespace} names another key"));
        }
        marks.insert(mark);
        expected.insert(record.key_id);
    }
    let active: BTreeSet<String> = world.emulator.active_keys().into_iter().map(|key| key.id).collect();
    (active != expected).then(|| format!("{active:?} are active, {expected:?} are current"))
}

/// Lets time pass until all is good, and every overlap over; and a while longer.
async fn until_at_rest(world: &World, what: &str) {
    let begun = tokio::time::Instant::now();
    loop {
        sleep(5 * SECOND).await;
        let wrong = world.violation().or_else(|| wrong(world));
        if wrong.is_none() && world.late.load(Ordering::Relaxed) == 0 {
            break;
        }
        let is_over = world.violation().is_some() || begun.elapsed() > 75 * MINUTE;
        assert!(!is_over, "{what}: {wrong:?}\n{}", world.transcript());
    }
    sleep(6 * MINUTE).await;
    assert_eq!(wrong(world), None, "{what}, later\n{}", world.transcript());
}

/// Answers how many calls there were.
async fn play(faults: Vec<(usize, Fault)>) -> usize {
    let world = World::new(Settings::default());
    let count = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&count);
    let (name, struck) = (format!("{faults:?}"), faults.len());
    world.faults(move |met| {
        let counts = !met.what.ends_with("/auth/me") && !met.what.contains("/events");
        let index = counts.then(|| number.fetch_add(1, Ordering::Relaxed))?;
        faults.iter().find(|(at, _)| *at == index).map(|(_, fault)| *fault)
    });
    let _process = Process::start(&world, 1);
    sleep(SECOND).await;
    for namespace in NAMESPACES {
        world.create_in(namespace, "key", &json!({"rotation": {"overlap": "1m"}}));
    }
    until_at_rest(&world, &format!("created {name}")).await;
    for (namespace, annotation) in NAMESPACES.into_iter().zip([ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION]) {
        world.edit_in(namespace, "key", json!({"metadata": {"annotations": {annotation: "1"}}}));
    }
    let is_rotated = |namespace| {
        world.record_in(namespace, "key").is_some_and(|record| record.rotate.or(record.rotate_now).is_some())
    };
    world.until("both are rotated", |_| NAMESPACES.into_iter().all(is_rotated)).await;
    until_at_rest(&world, &format!("rotated {name}")).await;
    // One goes, the other stays.
    world.delete_in("other", "key");
    until_at_rest(&world, &format!("one deleted {name}")).await;
    assert!(world.record_in("team", "key").is_some() && world.record_in("other", "key").is_none());
    world.delete_in("team", "key");
    until_at_rest(&world, &format!("both deleted {name}")).await;
    // A crash ends what is under way for either.
    let (posts, most) = (world.posts(), KEYS + 2 * struck);
    assert!((KEYS..=most).contains(&posts), "{name}: {posts} POSTs\n{}", world.transcript());
    count.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn two_objects_of_one_name_in_two_namespaces_keep_apart() {
    let calls = play(Vec::new()).await;
    let mut cases = Vec::new();
    for first in 0..calls {
        for (number, kind) in KINDS.into_iter().enumerate() {
            // A second one follows soon: at the other's call, or in the recovery.
            let (distance, second) = (1 + (first + number) % 8, KINDS[(first * 3 + number) % KINDS.len()]);
            cases.push(vec![(first, kind), (first + distance, second)]);
        }
    }
    println!("{calls} calls without a fault");
    play_all("two objects in two namespaces", &cases, async |faults| {
        play(faults).await;
    });
}

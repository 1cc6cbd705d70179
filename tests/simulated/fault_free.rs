//! Without a fault: a key is issued, rotated and revoked, with exactly the writes that the protocol promises.

use crate::{
    fault_injection::Fault,
    process::Process,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::{Operation, Settings};
use boltz_operator::api::annotations::ROTATE_ANNOTATION;
use serde_json::json;
use tokio::time::sleep;

const ISSUE: [&str; 2] = ["PATCH ApiKeys", "PATCH ApiKeysstatus"];

#[tokio::test(start_paused = true)]
async fn three_writes_issue_a_key_and_three_replace_it() {
    let world = World::new(Settings::default());
    let _process = Process::start(&world, 1);
    sleep(SECOND).await;
    world.create(&json!({"rotation": {"overlap": "10m"}}));
    world.good("created").await;
    assert_eq!(world.take_writes(), [ISSUE[0], "POST Secrets", ISSUE[1]]);
    let first = world.record().unwrap().key_id;

    world.annotate(ROTATE_ANNOTATION, "1");
    sleep(5 * MINUTE).await;
    assert_eq!(world.take_writes(), [ISSUE[0], "PATCH Secrets", ISSUE[1]]);
    let active: Vec<String> = world.emulator.active_keys().into_iter().map(|key| key.id).collect();
    assert_eq!(active, [first.clone(), world.record().unwrap().key_id], "the overlap");

    sleep(6 * MINUTE).await;
    world.good("rotated").await;
    assert_eq!(world.take_writes(), ["PATCH ApiKeysstatus"], "the end of the overlap");
    assert!(world.emulator.key(&first).unwrap().revoked_at.is_some());

    sleep(60 * MINUTE).await;
    assert!(world.take_writes().is_empty(), "none at rest");

    world.delete();
    world.good("deleted").await;
    assert_eq!(world.emulator.count(Operation::Create), 2);
    assert_eq!(world.emulator.count(Operation::Revoke), 2);
    assert_eq!(world.take_writes(), ["PATCH ApiKeys"], "the finalizer");
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing() {
    let world = World::new(Settings::default());
    let mut process = Process::start(&world, 1);
    world.create(&json!({}));
    world.good("created").await;
    world.take_writes();
    for _ in 0..5 {
        process.restart();
        world.good("restarted").await;
    }
    assert!(world.take_writes().is_empty());
    assert_eq!(world.emulator.count(Operation::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_answer_never_comes_is_asked_for_again() {
    // The list at the start, and those of the two watchers.
    for number in 0..3 {
        let world = World::new(Settings::default());
        let mut lists = 0;
        world.faults(move |met| {
            let is_list = met.what.ends_with("/boltzapikeys") || met.what.ends_with("v1/secrets");
            lists += usize::from(is_list);
            (is_list && lists == number + 1).then_some(Fault::Silent)
        });
        let _process = Process::start(&world, 1);
        world.create(&json!({}));
        sleep(2 * MINUTE).await;
        assert!(world.record().is_some(), "list {number}: {}", world.transcript());
    }
}

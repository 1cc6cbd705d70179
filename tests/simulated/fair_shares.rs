//! Many objects and namespaces under one operator: nobody waits for others longer than the limits ask for.

use crate::{
    fault_injection::{Fault, lock},
    process::Process,
    world::{Flags, MINUTE, SECOND, World},
};
use boltz_emulator::{
    Effect, Fault as BoltzFault, LoggedRequest, Operation, Outcome, Settings, StandingFault,
};
use boltz_operator::api::annotations::ROTATE_NOW_ANNOTATION;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

const TICK: Duration = Duration::from_millis(50);

/// What the operator called, by kind.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Calls {
    fn of(&self, kind: &str) -> usize {
        lock(&self.0).get(kind).copied().unwrap_or_default()
    }
}

fn counted(world: &World) -> Calls {
    let calls = Calls::default();
    let counts = calls.clone();
    world.faults(move |met| {
        let kind = match met.what.as_str() {
            what if what.ends_with(" dry") => "dry run",
            what if what.ends_with("/status") => "status",
            what if what.contains("/events") => "event",
            "Boltz POST /compute/v1/admin/api-keys" => "create",
            _ => return None,
        };
        *lock(&counts.0).entry(kind).or_default() += 1;
        None::<Fault>
    });
    calls
}

/// A world with an operator that has seen that there is nothing yet. Boltz answers after a tenth of a second.
async fn empty(settings: Settings, mints_per_minute: u32) -> (Arc<World>, Process, Calls) {
    let flags = Flags { mints_per_minute, concurrency: 32, ..Flags::default() };
    let world = World::with(Settings { latency_milliseconds: 100, ..settings }, flags);
    let calls = counted(&world);
    let process = Process::start(&world, 1);
    sleep(5 * SECOND).await;
    (world, process, calls)
}

fn name(number: usize) -> String {
    format!("key-{number}")
}

fn create(world: &Arc<World>, namespace: &str, count: usize, spec: &Json) {
    for number in 0..count {
        world.create_in(namespace, &name(number), spec);
    }
}

fn rotate_now(world: &Arc<World>, namespace: &str, name: &str) {
    world.edit_in(namespace, name, json!({"metadata": {"annotations": {ROTATE_NOW_ANNOTATION: "leaked"}}}));
}

fn keys_in(world: &World, namespace: &str, count: usize) -> usize {
    (0..count).filter(|number| world.record_in(namespace, &name(*number)).is_some()).count()
}

/// How long it takes until this holds.
async fn time_until(world: &World, what: &str, holds: impl Fn(&World) -> bool) -> Duration {
    let started = Instant::now();
    while !holds(world) {
        sleep(TICK).await;
        assert!(started.elapsed() < 20 * MINUTE, "{what}: never\n{}", world.transcript());
    }
    started.elapsed()
}

async fn time_until_keys(world: &World, namespace: &str, count: usize) -> Duration {
    time_until(world, namespace, |world| keys_in(world, namespace, count) == count).await
}

fn answered(world: &World, operation: Operation, status: u16) -> Vec<LoggedRequest> {
    let requests = world.emulator.requests();
    requests
        .into_iter()
        .filter(|request| request.operation == operation && request.status == Some(status))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_objects_cost_a_hundred_dry_runs_and_status_writes_and_no_event() {
    let (world, _process, calls) = empty(Settings::default(), 1200).await;
    create(&world, "team", 100, &json!({}));
    let took = time_until_keys(&world, "team", 100).await;
    sleep(5 * SECOND).await;
    let costs = ["dry run", "status", "event", "create"].map(|kind| calls.of(kind));
    println!("100 objects: {took:?}; dry runs, status writes, events, creates: {costs:?}");
    assert_eq!(costs, [100, 100, 0, 100]);
    assert!(took < 2 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn under_a_small_budget_each_key_costs_one_dry_run() {
    let (world, _process, calls) = empty(Settings::default(), 120).await;
    create(&world, "team", 150, &json!({}));
    let took = time_until_keys(&world, "team", 150).await;
    sleep(5 * SECOND).await;
    let costs = ["dry run", "status", "event", "create"].map(|kind| calls.of(kind));
    println!("150 objects: {took:?}; dry runs, status writes, events, creates: {costs:?}");
    assert!(calls.of("dry run") <= 165 && calls.of("status") <= 300, "{costs:?}");
    assert!(took < 75 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leak_does_not_wait_for_the_first_keys_of_others() {
    let (world, _process, _) = empty(Settings::default(), 120).await;
    world.create_in("leak", &name(0), &json!({}));
    time_until_keys(&world, "leak", 1).await;
    create(&world, "busy", 150, &json!({}));
    for after in [1, 20, 40] {
        sleep(after * SECOND).await;
        let old = world.record_in("leak", &name(0)).unwrap().key_id;
        let value = format!("leaked-{after}");
        let annotations = json!({"metadata": {"annotations": {ROTATE_NOW_ANNOTATION: value}}});
        world.edit_in("leak", &name(0), annotations);
        let took = time_until(&world, "rotate-now", |world| {
            world.record_in("leak", &name(0)).is_some_and(|record| record.key_id != old)
        })
        .await;
        println!("rotate-now among those that wait: {took:?}");
        assert!(took <= 2 * SECOND, "{took:?}\n{}", world.transcript());
    }
    assert!(keys_in(&world, "busy", 150) < 150, "nobody waited");
}

#[tokio::test(start_paused = true)]
async fn many_leaks_of_one_tenant_starve_nobody() {
    let (world, _process, _) = empty(Settings::default(), 1200).await;
    world.create_in("leak", &name(0), &json!({}));
    create(&world, "leaks", 1000, &json!({}));
    time_until_keys(&world, "leaks", 1000).await;
    // All at once, which is more than what the budget has left.
    for number in 0..1000 {
        rotate_now(&world, "leaks", &name(number));
    }
    for round in 0..5 {
        sleep(SECOND).await;
        let namespace = format!("new-{round}");
        world.create_in(&namespace, &name(0), &json!({}));
        let took = time_until_keys(&world, &namespace, 1).await;
        println!("a first key among 1000 rotate-nows: {took:?}");
        assert!(took <= 2 * SECOND, "{took:?}");
    }
    let old = world.record_in("leak", &name(0)).unwrap().key_id;
    rotate_now(&world, "leak", &name(0));
    let took = time_until(&world, "rotate-now", |world| {
        world.record_in("leak", &name(0)).is_some_and(|record| record.key_id != old)
    })
    .await;
    println!("another tenant's rotate-now among 1000: {took:?}");
    assert!(took <= 2 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_queue() {
    let (world, _process, calls) = empty(Settings::default(), 60).await;
    create(&world, "busy", 60, &json!({}));
    sleep(SECOND).await;
    for number in 0..60 {
        match number % 2 {
            0 => world.delete_in("busy", &name(number)),
            _ => world.edit_in("busy", &name(number), json!({"spec": {"suspend": true}})),
        }
    }
    sleep(SECOND).await;
    let before = calls.of("create");
    create(&world, "late", 5, &json!({}));
    let took = time_until_keys(&world, "late", 5).await;
    println!("five keys after 60 others went away: {took:?}");
    assert!(took <= 6 * SECOND, "{took:?}");
    assert_eq!(calls.of("create") - before, 5);
}

#[tokio::test(start_paused = true)]
async fn what_boltz_asks_to_wait_holds_for_everybody_whatever_succeeds_meanwhile() {
    let (world, _process, calls) = empty(Settings::default(), 1200).await;
    let slow = BoltzFault { latency_milliseconds: 5000, ..BoltzFault::none() };
    let slow = BoltzFault { operation: Some(Operation::Create), ..slow };
    world.emulator.inject(slow);
    world.create_in("slow", &name(0), &json!({}));
    sleep(SECOND).await;
    let limited = Outcome::Status {
        status: 429,
        headers: BTreeMap::from([("retry-after".to_owned(), "20".to_owned())]),
        body: None,
    };
    world.emulator.inject(BoltzFault::once(Operation::Create, Effect::None, limited));
    world.create_in("limited", &name(0), &json!({}));
    sleep(SECOND).await;
    assert_eq!(calls.of("create"), 2);
    time_until_keys(&world, "slow", 1).await;
    world.create_in("third", &name(0), &json!({}));
    // The 429 came 0.1 s after its call, so the 20 s end at 20.1 s; four or five of them have passed.
    sleep(14 * SECOND).await;
    assert_eq!(calls.of("create"), 2, "{}", world.transcript());
    time_until_keys(&world, "third", 1).await;
    time_until_keys(&world, "limited", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_workspace_in_trouble_is_its_own_trouble() {
    for status in [409, 500, 408, 425] {
        let (world, _process, calls) = empty(Settings::default(), 1200).await;
        let fault = StandingFault::status(Operation::Create, status).in_workspace("broken");
        world.emulator.stand("broken", fault);
        create(&world, "trouble", 60, &json!({"workspaceID": "broken"}));
        for (round, wait) in [0, 5, 20, 60, 300].into_iter().enumerate() {
            sleep(SECOND / 2 + wait * SECOND).await;
            for (namespace, spec) in [("default", json!({})), ("other", json!({"workspaceID": "ws_other"}))] {
                let namespace = format!("{namespace}-{round}");
                world.create_in(&namespace, &name(0), &spec);
                let took = time_until_keys(&world, &namespace, 1).await;
                println!("{status}: a first key beside a workspace in trouble: {took:?}");
                assert!(took <= 2 * SECOND, "{status}: {took:?}\n{}", world.transcript());
            }
        }
        let failed = calls.of("create") - 10;
        println!("{status}: {failed} creates in 6 min for 60 objects of the workspace in trouble");
        assert!(failed <= 60, "{failed}");
        world.emulator.lift("broken");
        time_until_keys(&world, "trouble", 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_leave_room_for_others() {
    for what in ["creates of a workspace", "dry runs in a namespace", "revocations"] {
        let (world, _process, _) = empty(Settings::default(), 1200).await;
        let trouble = || create(&world, "trouble", 60, &json!({"workspaceID": "hangs"}));
        let hang = |operation| StandingFault::of(BoltzFault::once(operation, Effect::None, Outcome::Hang));
        match what {
            "creates of a workspace" => {
                world.emulator.stand("hangs", hang(Operation::Create).in_workspace("hangs"));
                trouble();
            }
            "dry runs in a namespace" => {
                let is_dry_run = |what: &str| what == "POST /api/v1/namespaces/trouble/secrets dry";
                world.faults(move |met| is_dry_run(&met.what).then_some(Fault::Silent));
                trouble();
            }
            _ => {
                trouble();
                time_until_keys(&world, "trouble", 60).await;
                world.emulator.stand("hangs", hang(Operation::Revoke));
                (0..60).for_each(|number| world.delete_in("trouble", &name(number)));
            }
        }
        for round in 0..4 {
            sleep(3 * SECOND).await;
            let namespace = format!("other-{round}");
            world.create_in(&namespace, &name(0), &json!({}));
            let took = time_until_keys(&world, &namespace, 1).await;
            println!("a first key beside {what} that hang: {took:?}");
            assert!(took <= 2 * SECOND, "{what}: {took:?}\n{}", world.transcript());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_felt_by_few_calls_and_ends_with_one() {
    let (world, _process, calls) = empty(Settings::default(), 1200).await;
    for operation in [Operation::Create, Operation::List] {
        let fault = StandingFault::status(operation, 503);
        world.emulator.stand(if operation == Operation::List { "list" } else { "create" }, fault);
    }
    for workspace in ["a", "b", "c", "d", "e"] {
        create(&world, workspace, 20, &json!({"workspaceID": workspace}));
    }
    sleep(5 * MINUTE).await;
    let failed = calls.of("create");
    println!("{failed} creates in an outage of 5 min, for 100 objects of 5 workspaces");
    assert!(failed <= 80, "{failed}\n{}", world.transcript());
    world.emulator.lift("list");
    world.emulator.lift("create");
    for workspace in ["a", "b", "c", "d", "e"] {
        let took = time_until_keys(&world, workspace, 20).await;
        println!("{workspace}: all keys {took:?} later");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_that_boltz_allows_is_found() {
    let settings = Settings { requests_per_second: Some(5), ..Settings::default() };
    let (world, _process, calls) = empty(settings, 1200).await;
    create(&world, "team", 150, &json!({}));
    let took = time_until_keys(&world, "team", 150).await;
    let limited = answered(&world, Operation::Create, 429).len();
    println!(
        "150 keys at 5 calls/s: {took:?}, {limited} creates answered with 429, {} dry runs, {} status writes",
        calls.of("dry run"),
        calls.of("status")
    );
    assert!(limited <= 20, "{limited}");
    assert!(took <= 150 * SECOND, "{took:?}");
    for number in 0..150 {
        world.delete_in("team", &name(number));
    }
    let took = time_until(&world, "deleted", |world| world.emulator.active_keys().is_empty()).await;
    let limited = answered(&world, Operation::Revoke, 429).len();
    println!("150 revocations at 5 calls/s: {took:?}, {limited} answered with 429");
    assert!(limited <= 20, "{limited}");
    assert!(took <= 150 * SECOND, "{took:?}");
}

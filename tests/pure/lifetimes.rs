//! Whole lives in virtual time.

use boltz_operator::plan::Step;
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, World};
use serde_json::json;

#[test]
fn a_year_of_rotations() {
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 30}));
    let mut most_active = 0;
    for _ in 0..365 {
        let until = world.elapsed + DAY;
        process.live_until(&mut world, until);
        most_active = most_active.max(world.active().len());
        assert_eq!(world.ready_reason(), "Issued");
        world.assert_good();
    }
    // A third of the lifetime before its end, and at most a tenth of that earlier: every 19 to 20 days.
    assert!((18..=20).contains(&(world.counts.posts - 1)), "{} rotations", world.counts.posts - 1);
    assert_eq!(most_active, 2, "an overlap of one day");
    // Three writes and one at the end of the overlap; `lastUsedAt` never moved.
    assert_eq!(world.counts.object_writes, world.counts.posts);
    assert_eq!(world.counts.secret_writes, world.counts.posts);
    assert_eq!(world.counts.status_writes, 2 * world.counts.posts - 1);
    assert!(world.object().ledger.entries.len() <= 3, "the ledger stays short");
}

#[test]
fn the_key_in_the_secret_always_works_through_a_year_with_restarts() {
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 10, "rotation": {"overlap": "12h"}}));
    for day in 0..365 {
        if day % 3 == 0 {
            process = Process::start_other(&world, 100 + day);
        }
        let until = world.elapsed + DAY;
        process.live_until(&mut world, until);
        world.assert_good();
    }
    assert!((45..=60).contains(&world.counts.posts), "{}", world.counts.posts);
}

#[test]
fn an_interval_rotates_a_key_that_never_expires() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"interval": "168h"}}));
    process.live_until(&mut world, 70 * DAY);
    assert!((10..=12).contains(&world.counts.posts), "{}", world.counts.posts);
    world.assert_good();
}

#[test]
fn steady_state_writes_nothing_and_asks_for_nothing() {
    let (mut world, mut process) = World::ready(json!({}));
    process.live_until(&mut world, HOUR);
    let before = world.counts.clone();
    process.live_until(&mut world, HOUR + 10 * DAY);
    let passes = world.counts.passes - before.passes;
    assert_eq!(passes, 10 * 24 * 6, "one pass every ten minutes");
    world.counts.passes = before.passes;
    assert_eq!(world.counts, before);
}

#[test]
fn a_key_that_expired_while_the_operator_was_down_is_replaced_at_once() {
    let (mut world, _) = World::ready(json!({"expiresInDays": 1}));
    world.advance_to(3 * DAY);
    let mut process = Process::start_other(&world, 2);
    let mut reasons = Vec::new();
    process
        .live_with(&mut world, 3 * DAY + MINUTE, &mut |step| {
            if let Step::WriteAttempt { intent, .. } = step {
                reasons.push(intent.reason.as_str());
            }
            None
        })
        .unwrap();
    assert_eq!(reasons, ["Renewal"]);
    world.assert_good();
}

#[test]
fn an_expired_key_that_cannot_be_replaced_is_said_to_be_expired() {
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 1}));
    let cut = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Cut);
    process.live_with(&mut world, 2 * DAY, cut).unwrap();
    assert_eq!(world.ready_reason(), "Expired");
    let (posts, passes) = (world.counts.posts, world.counts.passes);
    assert!(posts < 450, "{posts} POSTs in 32 hours: at most one in five minutes");
    assert!(
        passes < posts + 2 * 24 * 6 + 20,
        "{passes} passes: one for each lost POST, and the periodic ones"
    );
    process.live_until(&mut world, 3 * DAY);
    world.assert_good();
}

#[test]
fn an_early_rotation_that_fails_leaves_the_object_ready() {
    let (mut world, mut process) = World::ready(json!({}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let cut = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Cut);
    process.live_with(&mut world, 2 * HOUR, cut).unwrap();
    let ready = &world.object().status.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "True"));
}

#[test]
fn the_calendar_may_step_an_hour_either_way() {
    for step in [-3600, 3600] {
        let (mut world, mut process) = World::ready(json!({"expiresInDays": 30}));
        world.edit(|object| object.rotate = Some("1".to_owned()));
        process.reconcile(&mut world);
        world.clock_error = step;
        let until = world.elapsed + 22 * HOUR;
        process.live_until(&mut world, until);
        assert_eq!(world.active().len(), 2, "the overlap is not cut by more than the step");
        let until = world.elapsed + 4 * HOUR;
        process.live_until(&mut world, until);
        assert_eq!(world.counts.posts, 2);
        world.assert_good();
    }
}

#[test]
fn every_step_may_lose_its_answer_or_its_process_and_all_is_good_in_the_end() {
    let faults = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Cut,
        Fault::Lost,
        Fault::Late(45 * plan_world::SECOND),
        Fault::Late(90 * plan_world::SECOND),
    ];
    let mut cells = 0;
    // Create, rotate, and the end of the overlap; a fault at each step, a second one at each step after it.
    for first in 0..12 {
        for second in 0..8 {
            for (a, b) in faults.iter().flat_map(|a| faults.iter().map(move |b| (*a, *b))) {
                let mut world = World::with(json!({"rotation": {"overlap": "10m"}}));
                let mut process = Process::start(&world);
                let (mut steps, mut asked) = (0, false);
                let mut seed = 10;
                for _ in 0..4 {
                    let fault = &mut |_: &Step| {
                        steps += 1;
                        match steps - 1 {
                            step if step == first => Some(a),
                            step if step == first + 1 + second => Some(b),
                            _ => None,
                        }
                    };
                    let until = world.elapsed + 20 * MINUTE;
                    if process.live_with(&mut world, until, fault).is_err() {
                        seed += 1;
                        process = Process::start_other(&world, seed);
                    }
                    if !std::mem::replace(&mut asked, true) {
                        world.edit(|object| object.rotate = Some("1".to_owned()));
                    }
                }
                let until = world.elapsed + HOUR;
                process.live_until(&mut world, until);
                world.assert_good();
                assert_eq!(world.active().len(), 1, "{first} {a:?}, {second} {b:?}");
                assert!(
                    world.counts.posts <= 4,
                    "{first} {a:?}, {second} {b:?}: {} POSTs",
                    world.counts.posts
                );
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 12 * 8 * 36);
}

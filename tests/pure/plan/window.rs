//! `rotation.window`: what waits for it, and what does not.

use boltz_operator::{
    api::RotationWindowStatus,
    plan::{Step, Window, later},
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, World, is_mint};
use serde_json::{Value, json};
use std::time::Duration;

/// The world begins on Tuesday, 24 November 2026, at midnight UTC.
const SATURDAYS: &str = "0 2 * * 6";

fn spec(schedule: &str, mut spec: Value) -> Value {
    spec["rotation"]["window"] = json!({"schedule": schedule, "duration": "4h"});
    spec
}

fn window(world: &World) -> Window {
    Window::read(world.object().spec.as_ref().unwrap().rotation.window.as_ref().unwrap()).unwrap()
}

fn live(process: &mut Process, world: &mut World, time: Duration) {
    process.live_until(world, world.elapsed + time);
}

/// Lives for that time. When each attempt was written, why, and whether the window was open.
fn rotations(
    process: &mut Process,
    world: &mut World,
    time: Duration,
) -> Vec<(Duration, &'static str, bool)> {
    let mut rotations = Vec::new();
    let end = world.elapsed + time;
    while world.elapsed < end {
        let before = world.counts.posts;
        live(process, world, 10 * MINUTE);
        if world.counts.posts > before {
            let record = world.record();
            rotations.push((world.elapsed, record.reason.as_str(), window(world).is_open(record.issued_at)));
        }
    }
    rotations
}

fn told(world: &World) -> String {
    let ready = world.object().status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.unwrap().message.clone()
}

#[test]
fn a_rotation_that_was_requested_waits_for_the_window_and_says_until_when() {
    let (mut world, mut process) = World::ready(spec(SATURDAYS, json!({})));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.counts.posts, 1);
    let status = world.object().status.clone();
    assert!(
        told(&world).contains("A rotation (RotateRequested) waits until 2026-11-28T0"),
        "{}",
        told(&world)
    );
    let RotationWindowStatus { start, end } = status.rotation_window.unwrap();
    assert_eq!(
        (start.0, end.0),
        ("2026-11-28T02:00:00Z".parse().unwrap(), "2026-11-28T06:00:00Z".parse().unwrap())
    );
    let writes = world.counts.status_writes;
    let rotated = rotations(&mut process, &mut world, 5 * DAY);
    assert!(matches!(rotated[..], [(_, "RotateRequested", true)]), "{rotated:?}");
    assert!(world.counts.status_writes <= writes + 2, "nothing is written while it waits");
    assert_eq!(told(&world), "The Secret contains a valid key.");
    assert_eq!(world.object().status.rotation_window, None);
}

#[test]
fn what_cannot_wait_does_not() {
    type Change = fn(&mut World);
    let rows: &[(&str, Change, &str)] = &[
        (
            "the key has leaked",
            |world| world.edit(|object| object.rotate_now = Some("1".into())),
            "RotateNow",
        ),
        ("the Secret is gone", |world| world.secrets.clear(), "SecretMissing"),
        ("the value was altered", |world| world.secret().value = Some("x".into()), "SecretAltered"),
        (
            "another workspace",
            |world| world.edit_spec(spec(SATURDAYS, json!({"workspaceID": "other"}))),
            "ParametersChanged",
        ),
    ];
    for (what, change, reason) in rows {
        let (mut world, mut process) = World::ready(spec(SATURDAYS, json!({})));
        change(&mut world);
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.record().reason.as_str(), *reason, "{what}");
        assert_eq!(world.counts.posts, 2, "{what}");
    }
    // A first key, too.
    let (world, _) = World::ready(spec(SATURDAYS, json!({})));
    assert!(!window(&world).is_open(world.record().issued_at));
}

#[test]
fn renewals_of_a_year_begin_inside_the_window() {
    let (mut world, mut process) = World::ready(spec(SATURDAYS, json!({"expiresInDays": 60})));
    let rotated = rotations(&mut process, &mut world, 365 * DAY);
    assert!((7..=10).contains(&rotated.len()), "{rotated:?}");
    assert!(rotated.iter().all(|(_, reason, is_inside)| *reason == "Renewal" && *is_inside), "{rotated:?}");
    world.assert_good();
}

#[test]
fn an_interval_waits_for_the_window() {
    let (mut world, mut process) = World::ready(spec(SATURDAYS, json!({"rotation": {"interval": "24h"}})));
    let rotated = rotations(&mut process, &mut world, 10 * 7 * DAY);
    assert_eq!(rotated.len(), 10, "{rotated:?}");
    assert!(rotated.iter().all(|(_, reason, is_inside)| *reason == "Interval" && *is_inside), "{rotated:?}");
}

#[test]
fn the_renewal_time_is_the_time_at_which_the_renewal_begins() {
    let (mut world, mut process) = World::ready(spec(SATURDAYS, json!({"expiresInDays": 60})));
    let status = world.object().status.clone();
    let (renewal, opening) = (status.renewal_time.unwrap().0, status.rotation_window.unwrap());
    // The last quarter is left free.
    let last = later(opening.start.0, 3 * HOUR);
    assert!(opening.start.0 <= renewal && renewal <= last, "{renewal} in {opening:?}");
    let until = world.elapsed + 59 * DAY;
    while world.counts.posts == 1 && world.elapsed < until {
        live(&mut process, &mut world, MINUTE);
    }
    let issued_at = world.record().issued_at;
    assert!(
        issued_at >= renewal && issued_at <= later(renewal, 2 * MINUTE),
        "{issued_at}, promised {renewal}"
    );
}

#[test]
fn a_key_that_would_expire_too_soon_does_not_wait() {
    for schedule in ["0 2 29 2 *", "0 2 30 2 *"] {
        let (mut world, mut process) = World::ready(spec(schedule, json!({"expiresInDays": 30})));
        let status = world.object().status.clone();
        assert_eq!(status.rotation_window, None, "{schedule}");
        let rotated = rotations(&mut process, &mut world, 29 * DAY);
        assert!(matches!(rotated[..], [(_, "Renewal", false)]), "{schedule}: {rotated:?}");
        assert!(world.record().issued_at >= status.renewal_time.unwrap().0, "{schedule}");
    }
}

#[test]
fn a_window_in_which_boltz_was_away_is_not_the_last() {
    let (mut world, mut process) = World::ready(spec("0 2 * * *", json!({"expiresInDays": 30})));
    let renewal = world.object().status.renewal_time.clone().unwrap().0;
    let last = later(renewal, 5 * HOUR);
    // Until the first window is over, each create is cut.
    while world.true_time() < last {
        let until = world.elapsed + HOUR;
        let cut = &mut |step: &Step| is_mint(step).then_some(Fault::Cut);
        process.live_with(&mut world, until, cut).unwrap();
    }
    assert_eq!(world.record().rotations, 0);
    let next = world.object().status.rotation_window.clone().unwrap();
    assert!(next.start.0 > last, "{next:?}");
    live(&mut process, &mut world, DAY);
    assert_eq!(world.record().rotations, 1);
    assert!(window(&world).is_open(world.record().issued_at));
}

#[test]
fn a_window_that_never_opens_is_said() {
    let (mut world, mut process) = World::ready(spec("0 2 30 2 *", json!({})));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.counts.posts, 1);
    assert!(told(&world).contains("spec.rotation.window never opens"), "{}", told(&world));
    world.edit(|object| object.rotate_now = Some("1".to_owned()));
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.counts.posts, 2, "a leak does not wait");
}

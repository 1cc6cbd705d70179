//! Rule 13: what the annotation `boltz.bio/paused` stops, and what goes on.

use boltz_operator::plan::Step;
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, World, is_mint, is_store, plain};
use serde_json::{Value as Json, json};

fn pause(world: &mut World) {
    world.edit(|object| object.is_paused = true);
}

fn live(process: &mut Process, world: &mut World, time: std::time::Duration) {
    process.live_until(world, world.elapsed + time);
}

fn message(world: &World) -> String {
    let ready = world.object().status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.unwrap().message.clone()
}

#[test]
fn no_reason_starts_an_issuance() {
    type Change = fn(&mut World);
    let rows: &[(&str, Change)] = &[
        ("the Secret is gone", |world| world.secrets.clear()),
        ("the value was altered", |world| world.secret().value = Some("x".into())),
        ("another workspace", |world| world.edit_spec(json!({"workspaceID": "other", "expiresInDays": 90}))),
        ("a rotation is asked for", |world| world.edit(|object| object.rotate = Some("1".into()))),
        ("the key has leaked", |world| world.edit(|object| object.rotate_now = Some("1".into()))),
        ("the renewal time has come", |world| world.advance_to(DAY * 70)),
        ("the key was revoked by others", |world| world.key("key-1").revoked = true),
    ];
    for (what, change) in rows {
        let (mut world, mut process) = World::ready(json!({"expiresInDays": 90}));
        pause(&mut world);
        change(&mut world);
        live(&mut process, &mut world, 3 * HOUR);
        assert_eq!(world.counts.posts, 1, "{what}");
        assert_eq!(world.object().status.renewal_time, None, "{what}");
        world.edit(|object| object.is_paused = false);
        live(&mut process, &mut world, 3 * HOUR);
        assert_eq!(world.counts.posts, 2, "{what}: after the pause");
    }
    let mut world = World::with(plain());
    pause(&mut world);
    let mut process = Process::start(&world);
    live(&mut process, &mut world, 3 * HOUR);
    assert_eq!((world.counts.posts, world.ready_reason()), (0, "Paused"));
}

#[test]
fn the_status_says_so_and_an_expired_key_is_no_secret() {
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 1}));
    pause(&mut world);
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.ready_reason(), "Paused");
    assert!(message(&world).starts_with("The key is valid. The annotation boltz.bio/paused is true, so"));
    world.advance_to(DAY * 2);
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.ready_reason(), "Expired");
    assert!(message(&world).contains("boltz.bio/paused"), "{}", message(&world));
}

#[test]
fn the_secret_stays_as_it_is() {
    let specs: [Json; 3] = [
        json!({"secret": {"name": "moved"}}),
        json!({"secret": {"key": "OTHER"}}),
        json!({"secret": {"template": {"labels": {"team": "a"}}}}),
    ];
    for spec in specs {
        let (mut world, mut process) = World::ready(plain());
        pause(&mut world);
        world.edit_spec(spec.clone());
        let before = world.secrets.clone();
        live(&mut process, &mut world, 3 * HOUR);
        assert_eq!(world.secrets, before, "{spec}");
        world.edit(|object| object.is_paused = false);
        live(&mut process, &mut world, HOUR);
        assert_ne!(world.secrets, before, "{spec}: after the pause");
        assert_eq!(world.counts.posts, 1, "{spec}");
    }
}

#[test]
fn no_delivered_key_is_revoked_until_the_pause_ends() {
    for leaked in [false, true] {
        let (mut world, mut process) = World::ready(plain());
        world.edit(|object| {
            *(if leaked { &mut object.rotate_now } else { &mut object.rotate }) = Some("1".into())
        });
        // The new key is stored, and nothing more happened.
        let stop = &mut |step: &Step| {
            matches!(step, Step::WriteStatus(_) | Step::Revoke { .. }).then_some(Fault::CrashBefore)
        };
        process.reconcile_with(&mut world, stop).unwrap_err();
        pause(&mut world);
        let mut process = Process::start_other(&world, 9);
        live(&mut process, &mut world, 3 * DAY);
        assert_eq!(world.active(), ["key-1", "key-2"], "leaked: {leaked}");
        assert_eq!(world.object().status.previous_keys.len(), 1);
        world.edit(|object| object.is_paused = false);
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.active(), ["key-2"], "leaked: {leaked}");
        world.assert_good();
    }
}

#[test]
fn a_key_in_hand_is_stored_or_revoked() {
    for is_refused in [false, true] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        // The answer to the first write is lost with its effect.
        let cut = &mut |step: &Step| is_store(step).then_some(Fault::Cut);
        process.reconcile_with(&mut world, cut).unwrap();
        assert_eq!(world.active(), ["key-1"]);
        pause(&mut world);
        let refuse = &mut |step: &Step| (is_refused && is_store(step)).then_some(Fault::Refused);
        process.live_with(&mut world, HOUR, refuse).unwrap();
        assert_eq!(world.counts.posts, 1);
        assert_eq!(world.active().len(), usize::from(!is_refused), "refused: {is_refused}");
        assert_eq!(world.secrets.len(), usize::from(!is_refused), "refused: {is_refused}");
        assert_eq!(world.ready_reason(), "Paused");
    }
}

#[test]
fn a_stray_is_revoked() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let lost = &mut |step: &Step| is_mint(step).then_some(Fault::CrashAfter);
    process.reconcile_with(&mut world, lost).unwrap_err();
    assert_eq!(world.active(), ["key-1"]);
    pause(&mut world);
    let mut process = Process::start_other(&world, 9);
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.active(), [""; 0]);
    assert_eq!(world.counts.posts, 1);
}

#[test]
fn an_attempt_that_was_not_sent_is_not_sent() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let cut = &mut |step: &Step| {
        is_mint(step).then_some(Fault::Boltz(boltz_operator::plan::BoltzErrorKind::Refused))
    };
    process.reconcile_with(&mut world, cut).unwrap();
    let posts = world.counts.posts;
    pause(&mut world);
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.counts.posts, posts);
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn workloads_are_restarted_after_the_pause() {
    let (mut world, mut process) =
        World::ready(json!({"rolloutRestartTargets": [{"kind": "Deployment", "name": "worker"}]}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let stop = &mut |step: &Step| matches!(step, Step::RestartWorkload { .. }).then_some(Fault::CrashBefore);
    process.reconcile_with(&mut world, stop).unwrap_err();
    pause(&mut world);
    let mut process = Process::start_other(&world, 9);
    let mut restarts = 0;
    let mut count = |step: &Step| {
        restarts += usize::from(matches!(step, Step::RestartWorkload { .. }));
        None
    };
    process.live_with(&mut world, HOUR, &mut count).unwrap();
    assert_eq!(world.object().status.pending_restarts.len(), 1);
    world.edit(|object| object.is_paused = false);
    let before = std::mem::take(&mut restarts);
    let mut count = |step: &Step| {
        restarts += usize::from(matches!(step, Step::RestartWorkload { .. }));
        None
    };
    process.live_with(&mut world, HOUR, &mut count).unwrap();
    assert_eq!((before, restarts), (0, 1));
}

#[test]
fn a_deletion_ends_the_pause() {
    let (mut world, mut process) = World::rotated(plain());
    pause(&mut world);
    live(&mut process, &mut world, 10 * MINUTE);
    world.delete();
    live(&mut process, &mut world, HOUR);
    assert!(world.object.is_none());
    assert_eq!(world.active(), [""; 0]);
}

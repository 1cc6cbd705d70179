//! The end of an object: nothing is left alive, nothing foreign is touched, nothing blocks forever.

use boltz_operator::{
    api::DeletionPolicy,
    plan::{AccountFacts, Block, Reason, Step},
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World, plain, words};
use serde_json::json;

#[test]
fn every_key_of_the_object_is_revoked_then_the_finalizer_goes() {
    let (mut world, mut process) = World::rotated(plain());
    world.delete();
    process.reconcile(&mut world);
    assert!(world.object.is_none(), "at once: the process knows every attempt's end");
    assert_eq!(world.active(), [""; 0]);
    assert!(world.secrets.is_empty());
}

#[test]
fn a_new_process_revokes_them_as_soon_as_it_has_a_pass() {
    let (mut world, _) = World::ready(plain());
    world.delete();
    let mut process = Process::start_other(&world, 2);
    let waits = process.reconcile(&mut world).unwrap();
    assert!(world.object.is_some() && waits.pass_since.is_some(), "it waits for a pass");
    let until = world.elapsed + 2 * SECOND;
    process.live_until(&mut world, until);
    assert!(world.object.is_none());
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn a_deletion_tells_a_wait_that_lasts() {
    let (mut world, _) = World::ready(plain());
    world.delete();
    let mut process = Process::start_other(&world, 2);
    let writes = world.counts.status_writes;
    process.reconcile(&mut world).unwrap();
    world.elapsed += 9 * SECOND;
    let waits = process.reconcile(&mut world).unwrap();
    assert_eq!(world.counts.status_writes, writes, "it waits for a pass, which may be there in a moment");
    assert!(waits.wake_at.is_some());
    world.elapsed += SECOND;
    process.reconcile(&mut world).unwrap();
    let ready = &world.object().status.conditions[0];
    assert_eq!(ready.reason, "Deleting");
    assert!(ready.message.contains("key-1"), "{}", ready.message);
}

#[test]
fn what_a_deletion_does_next() {
    let blocked =
        || Block { reason: Reason::BoltzUnavailable, message: "Boltz is silent.".into(), until: None };
    type Change<'a> = &'a dyn Fn(&mut World, &mut Process);
    let rows: &[(&str, Change, &str)] = &[
        ("the usual", &|_, _| (), "revoke key-1: Deleted"),
        ("suspended", &|world, _| world.edit_spec(json!({"suspend": true})), "revoke key-1: Deleted"),
        ("retained", &|world, _| world.edit_spec(json!({"deletionPolicy": "Retain"})), "release key"),
        (
            "retained by annotation, Boltz away",
            &|world, process| {
                world.edit(|object| object.deletion_policy = Some(DeletionPolicy::Retain));
                process.account = AccountFacts { calls_blocked: Some(blocked()), ..AccountFacts::default() };
            },
            "release key",
        ),
        (
            "retained, the Secret gone",
            &|world, _| {
                world.edit_spec(json!({"deletionPolicy": "Retain"}));
                world.secrets.clear();
            },
            "remove the finalizer, leaving key-1",
        ),
        (
            "the annotation outdoes the field",
            &|world, _| {
                world.edit_spec(json!({"deletionPolicy": "Retain"}));
                world.edit(|object| object.deletion_policy = Some(DeletionPolicy::Revoke));
            },
            "revoke key-1: Deleted",
        ),
        ("another's Secret", &|world, _| world.secret().owner = None, "revoke key-1: Deleted"),
        (
            "a spec that cannot be read",
            &|world, _| world.edit(|object| object.spec = Err("bad".into())),
            "status: Deleting",
        ),
        (
            "Boltz away",
            &|_, process| {
                process.account = AccountFacts { calls_blocked: Some(blocked()), ..AccountFacts::default() };
            },
            "status: Deleting",
        ),
        (
            "revoked by hand already",
            &|world, process| {
                world.key("key-1").revoked = true;
                process.take_pass(world);
            },
            "check the key",
        ),
        ("expired", &|world, _| world.elapsed += 400 * DAY, "remove the finalizer"),
    ];
    for (what, change, expected) in rows {
        let (mut world, mut process) = World::ready(json!({"expiresInDays": 90}));
        process.take_pass(&mut world);
        change(&mut world, &mut process);
        world.delete();
        if *what == "expired" {
            process.take_pass(&mut world);
        }
        assert_eq!(words(&process.decide_live(&world)), *expected, "{what}");
    }
}

#[test]
fn an_object_without_the_finalizer_is_let_go() {
    let mut world = World::with(json!({"suspend": true}));
    world.edit(|object| object.finalizers = vec!["other".to_owned()]);
    world.delete();
    let mut process = Process::start(&world);
    process.reconcile(&mut world);
    assert_eq!((world.counts.posts, world.counts.object_writes), (0, 0));
}

#[test]
fn a_crash_anywhere_leaves_no_key_behind() {
    // Deleted while a rotation is at its nth step, the process killed before or after that step, a new one ends it.
    for nth in 0..8 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            for second_crash in 0..4 {
                let (mut world, mut process) = World::ready(plain());
                world.edit(|object| object.rotate = Some("1".to_owned()));
                let mut steps = 0;
                let crash = &mut |_: &Step| {
                    steps += 1;
                    (steps == nth + 1).then_some(fault)
                };
                let _ = process.reconcile_with(&mut world, crash);
                world.delete();
                let mut second = Process::start_other(&world, 2);
                let mut steps = 0;
                let crash = &mut |_: &Step| {
                    steps += 1;
                    (steps == second_crash + 1).then_some(fault)
                };
                let until = world.elapsed + 10 * MINUTE;
                let _ = second.live_with(&mut world, until, crash);
                let mut third = Process::start_other(&world, 3);
                let until = world.elapsed + HOUR;
                third.live_until(&mut world, until);
                assert!(world.object.is_none(), "step {nth}, {fault:?}, then {second_crash}");
                assert_eq!(world.active(), [""; 0], "step {nth}, {fault:?}, then {second_crash}");
            }
        }
    }
}

#[test]
fn a_key_in_hand_is_revoked_at_once_when_its_object_goes() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let cut = &mut |step: &Step| matches!(step, Step::Store { .. }).then_some(Fault::Cut);
    process.reconcile_with(&mut world, cut).unwrap();
    world.delete();
    process.reconcile(&mut world);
    assert_eq!(world.active(), [""; 0]);
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.reconcile_with(&mut world, cut).unwrap();
    // Deleted with the finalizer stripped: the object is gone before anybody looks.
    world.object = None;
    process.reconcile(&mut world);
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn an_object_that_goes_while_its_first_key_is_stored_leaves_none_behind() {
    // The API server may delete an object without a finalizer although one is added in the same moment.
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let crash = &mut |step: &Step| matches!(step, Step::WriteStatus(_)).then_some(Fault::CrashBefore);
    process.reconcile_with(&mut world, crash).unwrap_err();
    world.object = None;
    process.reconcile(&mut world);
    assert_eq!(world.active(), [""; 0]);
    // Once status has named it, somebody took the finalizer away: nobody revokes by guess.
    let (mut world, mut process) = World::ready(plain());
    world.object = None;
    process.reconcile(&mut world);
    assert_eq!(world.active(), ["key-1"]);
}

/// The garbage collector asks nobody: the Secret has no owner from the moment the policy says so.
#[test]
fn a_retained_secret_outlives_every_kind_of_deletion() {
    let (mut world, mut process) = World::ready(plain());
    assert!(world.secrets["key"].owned);
    world.edit_spec(json!({"deletionPolicy": "Retain"}));
    process.reconcile(&mut world);
    assert!(!world.secrets["key"].owned);
    world.edit_spec(json!({}));
    process.reconcile(&mut world);
    assert!(world.secrets["key"].owned);
    world.edit(|object| object.deletion_policy = Some(DeletionPolicy::Retain));
    process.reconcile(&mut world);
    assert!(!world.secrets["key"].owned, "the annotation overrides the field");
}

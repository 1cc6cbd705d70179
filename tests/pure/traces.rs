//! The traces that broke earlier wordings of the protocol, in the design's order, and one more. Three of them stand
//! elsewhere: 10 (two shards with one cluster name) in `cluster/lifecycle/selector.rs`, 13 (a webhook without dry-run
//! support) in `src/kubernetes/error.rs`, 16 (a full ledger) in `plan/issuance.rs`.

use boltz_operator::{
    api::{BoltzApiKeyStatus, PreviousKeyStatus},
    plan::{RevokeReason, Step},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World, is_mint, is_store, plain};
use serde_json::json;

/// Runs until the first step of that kind, which is not carried out: the process is paused there.
fn pause_before(process: &mut Process, world: &mut World, is_it: fn(&Step) -> bool) {
    let paused = process.reconcile_with(world, &mut |step| is_it(step).then_some(Fault::CrashBefore));
    assert!(paused.is_err(), "it never came to that step");
}

fn later(world: &mut World, by: std::time::Duration) {
    let until = world.elapsed + by;
    world.advance_to(until);
}

#[test]
fn trace_1_a_key_that_its_writer_stores_meanwhile_is_no_stray() {
    let mut world = World::with(json!({"suspend": true}));
    let mut reader = Process::start(&world);
    world.edit_spec(plain());
    let mut writer = Process::start_other(&world, 2);
    pause_before(&mut writer, &mut world, is_store);
    reader.stale = Some(Box::new(world.clone()));
    writer.reconcile(&mut world);
    reader.reconcile(&mut world);
    later(&mut world, 10 * MINUTE);
    reader.take_pass(&mut world);
    // Suspended in the stale view: strays are then revoked without issuing first.
    reader.stale.as_mut().unwrap().edit_spec(json!({"suspend": true}));
    reader.reconcile(&mut world);
    assert_eq!(world.active(), ["key-1"]);
    world.assert_good();
}

#[test]
fn trace_2_a_post_that_takes_effect_after_the_deletion_is_revoked() {
    for delay in [SECOND, 50 * SECOND, 119 * SECOND] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let late = &mut |step: &Step| is_mint(step).then_some(Fault::Late(delay));
        process.reconcile_with(&mut world, late).unwrap();
        world.delete();
        process.live_until(&mut world, HOUR);
        assert!(world.object.is_none(), "the object goes");
        assert_eq!(world.active(), [""; 0], "after {delay:?}");
    }
}

#[test]
fn trace_3_a_deletion_does_not_end_while_another_may_still_post() {
    let mut world = World::with(plain());
    let mut writer = Process::start(&world);
    pause_before(&mut writer, &mut world, is_mint);
    writer.stale = Some(Box::new(world.clone()));
    let mut deleter = Process::start_other(&world, 2);
    world.delete();
    deleter.live_until(&mut world, 40 * SECOND);
    assert!(world.object.is_some(), "the attempt is not settled");
    // The first resumes inside its window and POSTs; its C3 may land, its key is lost to it.
    writer.reconcile(&mut world);
    assert_eq!(world.counts.posts, 1);
    deleter.live_until(&mut world, HOUR);
    assert!(world.object.is_none());
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn trace_4_the_key_of_a_deleted_secret_keeps_its_whole_overlap() {
    for restarts in [false, true] {
        let (mut world, mut process) = World::ready(plain());
        world.secrets.clear();
        if restarts {
            process = Process::start_other(&world, 2);
        }
        let until = world.elapsed + 23 * HOUR;
        process.live_until(&mut world, until);
        assert_eq!(world.active(), ["key-1", "key-2"]);
        let until = world.elapsed + 2 * HOUR;
        process.live_until(&mut world, until);
        assert_eq!(world.active(), ["key-2"]);
        assert_eq!(world.key("key-1").reason, Some(RevokeReason::OverlapOver));
    }
}

#[test]
fn trace_5_no_number_of_rotations_pushes_a_lost_attempt_out_of_the_ledger() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let mut first = true;
    let lose = &mut |step: &Step| (is_mint(step) && std::mem::take(&mut first)).then_some(Fault::Lost);
    process.reconcile_with(&mut world, lose).unwrap();
    let lost = world.object().ledger.entries[0].attempt.clone();
    for round in 0..40 {
        later(&mut world, SECOND);
        world.edit(|object| object.rotate_now = Some(round.to_string()));
        process.reconcile(&mut world);
        assert!(world.object().ledger.contains(&lost), "round {round}");
    }
    let until = world.elapsed + HOUR;
    process.live_until(&mut world, until);
    assert!(world.key("key-1").revoked);
    world.assert_good();
}

#[test]
fn trace_6_nothing_is_written_to_a_recreated_object_by_its_name() {
    let (mut world, mut process) = World::ready(plain());
    world.edit(|object| object.status = BoltzApiKeyStatus::default());
    process.stale = Some(Box::new(world.clone()));
    world.object = None;
    world.secrets.clear();
    world.create("11111111-2222-4333-8444-555555555555", json!({"suspend": true}));
    process.reconcile(&mut world);
    assert_eq!(world.object().status, BoltzApiKeyStatus::default(), "the old object's status");
}

#[test]
fn trace_7_a_stripped_finalizer_is_put_back() {
    let (mut world, mut process) = World::ready(plain());
    world.edit(|object| object.finalizers = vec!["other".to_owned()]);
    process.reconcile(&mut world);
    assert!(world.object().has_finalizer);
    assert!(world.object().finalizers.contains(&"other".to_owned()), "another's stays");
    world.edit(|object| object.finalizers.retain(|finalizer| finalizer != "other"));
    world.delete();
    process.run_until_idle(&mut world);
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn trace_8_absence_is_not_judged_by_passes_older_than_the_key() {
    for lag in [0, 5, 60] {
        let mut world = World::with(plain());
        world.list_lag = lag * SECOND;
        let mut process = Process::start(&world);
        process.take_pass(&mut world);
        process.take_pass(&mut world);
        for _ in 0..20 {
            process.reconcile(&mut world);
            process.take_pass(&mut world);
            later(&mut world, SECOND);
        }
        process.run_until_idle(&mut world);
        assert_eq!(world.counts.posts, 1, "a list that lags {lag} s behind costs no second key");
        let mut restarted = Process::start_other(&world, 2);
        for _ in 0..20 {
            restarted.take_pass(&mut world);
            restarted.reconcile(&mut world);
        }
        assert_eq!(world.counts.posts, 1);
    }
}

#[test]
fn trace_9_a_crash_between_r3_and_r4_does_not_rotate_twice() {
    for (rotate, rotate_now) in [(Some("1"), None), (None, Some("1")), (Some("1"), Some("1"))] {
        let (mut world, mut process) = World::ready(plain());
        world.edit(|object| {
            object.rotate = rotate.map(str::to_owned);
            object.rotate_now = rotate_now.map(str::to_owned);
        });
        let crash = &mut |step: &Step| is_store(step).then_some(Fault::CrashAfter);
        assert!(process.reconcile_with(&mut world, crash).is_err());
        let mut restarted = Process::start_other(&world, 2);
        restarted.run_until_idle(&mut world);
        assert_eq!(world.counts.posts, 2);
        world.assert_good();
    }
}

#[test]
fn trace_11_a_revocation_that_a_restored_backup_overtakes_is_dropped() {
    let (mut world, mut process) = World::ready(plain());
    let backup = world.secrets.clone();
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.run_until_idle(&mut world);
    later(&mut world, 2 * DAY);
    process.stale = Some(Box::new(world.clone()));
    process.take_pass(&mut world);
    // Decided by the caches: key-1's overlap is over. Then the backup comes back.
    world.secrets = backup;
    world.secret();
    process.reconcile(&mut world);
    assert!(!world.key("key-1").revoked, "it is the current one again");
}

#[test]
fn trace_12_a_store_that_took_effect_without_an_answer_succeeded() {
    for rotation in [false, true] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        if rotation {
            process.run_until_idle(&mut world);
            world.edit(|object| object.rotate_now = Some("1".to_owned()));
        }
        // However often it were tried again, no answer would come, and status cannot be written either.
        let lose = &mut |step: &Step| match step {
            Step::Store { .. } => Some(Fault::Lost),
            Step::WriteStatus(_) => Some(Fault::CrashBefore),
            _ => None,
        };
        for _ in 0..600 {
            let _ = process.reconcile_with(&mut world, lose);
            later(&mut world, SECOND);
        }
        process.run_until_idle(&mut world);
        assert_eq!(world.counts.posts, if rotation { 2 } else { 1 });
        world.assert_good();
    }
}

#[test]
fn trace_14_keys_known_to_a_vanished_record_alone_are_revoked_through_the_ledger() {
    let (mut world, mut process) = World::ready(plain());
    for round in 0..3 {
        world.edit(|object| object.rotate = Some(round.to_string()));
        process.run_until_idle(&mut world);
    }
    assert_eq!(world.active().len(), 4);
    world.secrets.clear();
    world.edit(|object| object.status = BoltzApiKeyStatus::default());
    world.delete();
    let mut restarted = Process::start_other(&world, 2);
    restarted.run_until_idle(&mut world);
    assert!(world.object.is_none());
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn trace_15_forged_ids_neither_block_a_deletion_nor_hurt_others() {
    let (mut world, mut process) = World::ready(plain());
    // A key of another object, which the forger would like to see revoked.
    let mut theirs = world.keys[0].clone();
    theirs.id = "key-of-another".to_owned();
    theirs.object =
        boltz_operator::protocol::marker::ObjectMark::from_uid("11111111-2222-4333-8444-555555555555");
    world.keys.push(theirs);
    let forged = |id: &str| PreviousKeyStatus {
        key_id: id.to_owned(),
        key_prefix: None,
        last_used_at: None,
        revoke_after: Time("2020-01-01T00:00:00Z".parse().unwrap()),
    };
    world.edit(|object| {
        object.status.previous_keys = vec![forged("no-such-key"), forged("key-of-another")];
        object.status.key_id = Some("another-invention".to_owned());
    });
    let mut record = world.record().clone();
    record.previous = vec![boltz_operator::protocol::record::PreviousKey {
        key_id: "key-of-another".to_owned(),
        key_prefix: None,
        attempt: None,
        revoke_after: "2020-01-01T00:00:00Z".parse().unwrap(),
        expires_at: None,
        even_if_used: true,
        organization: None,
        adopted: None,
        other: Default::default(),
    }];
    world.secret().record = Some(record);
    for process in [&mut process, &mut Process::start_other(&world, 2)] {
        let mut world = world.clone();
        process.run_until_idle(&mut world);
        world.delete();
        process.live_until(&mut world, DAY);
        assert!(world.object.is_none(), "the deletion ends");
        assert_eq!(world.active(), ["key-of-another"]);
    }
}

#[test]
fn trace_17_a_store_in_flight_never_delivers_a_revoked_key() {
    for delay in [30, 61, 100, 119] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let mut stores = 0;
        let late = &mut |step: &Step| {
            is_store(step).then(|| {
                stores += 1;
                if stores == 1 { Fault::Late(delay * SECOND) } else { Fault::Cut }
            })
        };
        // `World` itself asserts that the Secret never holds a key that we revoked.
        process.live_with(&mut world, delay * SECOND, late).unwrap();
        process.live_until(&mut world, HOUR);
        process.live_until(&mut world, 2 * DAY);
        world.assert_good();
    }
}

#[test]
fn trace_18_the_process_knows_its_own_delivered_key_without_status() {
    for fault in [Fault::Cut, Fault::Lost] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let mut failures = 0;
        let c4 = &mut |step: &Step| {
            let fails = matches!(step, Step::WriteStatus(_)) && failures < 1;
            failures += usize::from(fails);
            fails.then_some(fault)
        };
        pause_before(&mut process, &mut world, |step| matches!(step, Step::WriteStatus(_)));
        world.secrets.clear();
        process.live_with(&mut world, HOUR, c4).unwrap();
        assert_eq!(world.active(), ["key-1", "key-2"], "the delivered key has its overlap");
        world.assert_good();
    }
}

#[test]
fn trace_19_a_key_in_its_overlap_is_not_revoked_by_the_one_who_lost_its_answer() {
    let mut world = World::with(plain());
    let mut a = Process::start(&world);
    // Paused before it looks again: it does not know that its key was stored.
    a.reconcile_with(&mut world, &mut |step| is_store(step).then_some(Fault::CrashAfter)).unwrap_err();
    assert_eq!(a.memory.in_hand().count(), 1);
    let mut b = Process::start_other(&world, 2);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    // Of key-1 only the record speaks, not yet status.
    pause_before(&mut b, &mut world, |step| matches!(step, Step::WriteStatus(_)));
    assert_eq!(world.record().key_id, "key-2");
    assert!(!world.object().status.names("key-1"));
    let until = world.elapsed + HOUR;
    a.live_until(&mut world, until);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    world.assert_good();
}

#[test]
fn trace_20_a_status_that_alone_names_a_delivered_key_is_not_overwritten() {
    let mut world = World::with(plain());
    let mut a = Process::start(&world);
    pause_before(&mut a, &mut world, is_mint);
    a.stale = Some(Box::new(world.clone()));
    let mut b = Process::start_other(&world, 2);
    later(&mut world, 2 * SECOND);
    b.reconcile(&mut world);
    assert_eq!(world.record().key_id, "key-1", "B's key is delivered");
    world.secrets.clear();
    a.reconcile(&mut world);
    a.stale = None;
    assert_eq!(world.record().key_id, "key-2", "A's key takes its place");
    a.live_until(&mut world, HOUR);
    assert_eq!(world.active(), ["key-1", "key-2"], "and B's has its overlap");
    world.assert_good();
}

#[test]
fn trace_21_a_stray_by_an_old_cache_that_was_rotated_meanwhile_keeps_its_overlap() {
    let mut world = World::with(plain());
    let mut writer = Process::start(&world);
    pause_before(&mut writer, &mut world, is_store);
    let mut reader = Process::start_other(&world, 2);
    reader.reconcile_with(&mut world.clone(), &mut |_| Some(Fault::CrashBefore)).ok();
    let mut old = world.clone();
    old.edit_spec(json!({"suspend": true}));
    reader.stale = Some(Box::new(old));
    writer.reconcile(&mut world);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    writer.reconcile(&mut world);
    reader.reconcile(&mut world);
    later(&mut world, 10 * MINUTE);
    reader.take_pass(&mut world);
    reader.reconcile(&mut world);
    assert_eq!(world.active(), ["key-1", "key-2"]);
}

#[test]
fn trace_22_an_overlap_shorter_than_the_settle_time_does_not_kill_a_key_that_may_still_land() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "1s"}}));
    let start = world.elapsed;
    world.secrets.clear();
    // The first write of key-2 is late; its retry succeeds; key-2 is then replaced.
    let mut stores = 0;
    let late = &mut |step: &Step| {
        is_store(step).then(|| stores += 1)?;
        (stores == 1).then_some(Fault::Late(100 * SECOND))
    };
    process.live_with(&mut world, start + 5 * SECOND, late).unwrap();
    assert_eq!(world.record().key_id, "key-2");
    world.edit(|object| object.rotate_now = Some("1".to_owned()));
    process.live_until(&mut world, start + 99 * SECOND);
    assert_eq!(world.record().key_id, "key-3");
    world.secrets.clear();
    world.advance_to(start + 101 * SECOND);
    assert_eq!(world.record().key_id, "key-2", "the late write has landed");
    assert!(!world.key("key-2").revoked);
    process.live_until(&mut world, start + HOUR);
    world.assert_good();
}

#[test]
fn trace_23_a_stale_cache_of_the_secret_costs_no_post() {
    let (mut world, mut process) = World::ready(plain());
    let mut old = world.clone();
    old.secrets.clear();
    process.stale = Some(Box::new(old));
    process.reconcile(&mut world);
    assert_eq!(world.counts.posts, 1, "the dry run found the Secret");
    let mut restarted = Process::start_other(&world, 2);
    restarted.stale = process.stale.clone();
    restarted.reconcile(&mut world);
    assert_eq!(world.counts.posts, 1);
}

/// Found by a random schedule, when an hour by the wall clock was enough for an attempt to be settled.
#[test]
fn trace_24_a_wall_clock_that_steps_settles_nothing() {
    for hours in [1, 14] {
        let (mut world, mut process) = World::ready(plain());
        world.list_lag = MINUTE;
        world.edit(|object| object.rotate_now = Some("1".to_owned()));
        let late = &mut |step: &Step| is_store(step).then_some(Fault::Late(24 * SECOND));
        process.reconcile_with(&mut world, late).unwrap();
        // Its value goes with its process, and the write that is under way does not fit any more.
        world.secret().value = Some("edited".to_owned());
        world.clock_error = hours * 3600;
        let mut next = Process::start_other(&world, 2);
        next.take_pass(&mut world);
        next.reconcile(&mut world);
        world.edit(|object| object.rotate_now = Some("2".to_owned()));
        next.reconcile(&mut world);
        assert_eq!(world.record().key_id, "key-4");
        let until = world.elapsed + 2 * DAY;
        next.live_until(&mut world, until);
        world.assert_good();
    }
}

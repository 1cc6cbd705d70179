//! Which keys of a living object are revoked, when, and which never.

use boltz_operator::{
    api::BoltzApiKeyStatus,
    plan::{AccountFacts, Block, BoltzErrorKind, Reason, RevokeReason, Step},
    protocol::marker::ObjectMark,
};
use plan_world::{DAY, Fault, HOUR, Lie, MINUTE, Process, SECOND, World, plain, words};
use serde_json::json;

/// Lives on for that long.
fn live(process: &mut Process, world: &mut World, by: std::time::Duration) {
    let until = world.elapsed + by;
    process.live_until(world, until);
}

#[test]
fn the_old_key_lives_through_its_overlap_and_no_longer() {
    let (mut world, mut process) = World::rotated(plain());
    live(&mut process, &mut world, DAY - 21 * MINUTE);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    live(&mut process, &mut world, 2 * MINUTE);
    assert_eq!(world.active(), ["key-2"]);
    assert_eq!(world.key("key-1").reason, Some(RevokeReason::OverlapOver));
    assert!(world.object().status.previous_keys.is_empty());
    world.assert_good();
}

#[test]
fn a_revocation_that_boltz_accepts_without_effect_is_repeated_and_reported() {
    let (mut world, mut process) = World::rotated(plain());
    let until = world.elapsed + 2 * DAY;
    let mut tries = 0;
    let mut lie = |step: &Step| {
        let revokes = matches!(step, Step::Revoke { .. });
        tries += u32::from(revokes);
        revokes.then_some(Fault::Undone)
    };
    process.live_with(&mut world, until, &mut lie).unwrap();
    assert!((3..=24 * 12).contains(&tries), "{tries} tries in a day");
    let status = &world.object().status;
    assert_eq!(status.previous_keys[0].key_id, "key-1");
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert!(
        stalled.status == "True" && stalled.message.contains("still lists the key as active"),
        "{stalled:?}"
    );
    // Each is listed and unlisted at most once: the report does not come and go.
    let writes = world.counts.status_writes;
    live(&mut process, &mut world, 20 * MINUTE);
    assert!(world.key("key-1").revoked, "Boltz tells the truth again");
    live(&mut process, &mut world, HOUR);
    assert!(world.object().status.previous_keys.is_empty());
    assert!(world.counts.status_writes <= writes + 2);
    world.assert_good();
}

/// A gateway answers 404, and the list lags: then the key counts as revoked, and is not.
#[test]
fn a_key_that_the_list_called_revoked_and_shows_again_is_revoked_as_if_nothing_had_been() {
    let (mut world, mut process) = World::rotated(plain());
    let until = world.elapsed + DAY + MINUTE;
    let mut faults = |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::NotFound);
    process.live_with(&mut world, until, &mut faults).unwrap();
    let truth = std::mem::take(&mut world.keys);
    let key_2 = truth.iter().filter(|key| key.id == "key-2").cloned().collect();
    world.keys = truth;
    world.list_lies = Lie::Old(key_2);
    process.take_pass(&mut world);
    live(&mut process, &mut world, SECOND);
    assert!(world.object().status.previous_keys.is_empty(), "the list agrees with the 404");
    assert!(!world.key("key-1").revoked);
    world.list_lies = Lie::None;
    live(&mut process, &mut world, 10 * MINUTE);
    assert!(world.key("key-1").revoked, "the list shows it again");
    live(&mut process, &mut world, SECOND);
    assert_eq!(
        world.ready_reason(),
        "Issued",
        "Boltz has accepted only one revocation, and it had its effect"
    );
    assert!(world.object().status.previous_keys.is_empty());
}

/// The response to the create had our name and the id of somebody else's key.
#[test]
fn a_key_that_never_was_ours_is_not_revoked() {
    let other = || ObjectMark::from_uid("11111111-2222-4333-8444-555555555555");
    for deletes in [false, true] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        process.reconcile(&mut world);
        let key = world.key("key-1");
        (key.object, key.value) = (other(), "the value of another".to_owned());
        live(&mut process, &mut world, if deletes { SECOND } else { 3 * DAY });
        if deletes {
            world.delete();
            live(&mut process, &mut world, DAY);
            assert!(world.object.is_none());
        } else {
            assert_eq!(world.record().key_id, "key-2");
        }
        assert_eq!((world.key("key-1").revoked, world.violation.as_ref()), (false, None), "{deletes}");
    }
}

/// Boltz's list has another name for a key of this process, and the key itself says that it is this one: the list is wrong.
#[test]
fn a_key_of_ours_that_lost_its_name_stays_and_is_revoked_in_the_end() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.reconcile(&mut world);
    let mut renamed = world.keys.clone();
    renamed[0].object = ObjectMark::from_uid("11111111-2222-4333-8444-555555555555");
    world.list_lies = Lie::Old(renamed);
    live(&mut process, &mut world, DAY);
    assert_eq!((world.record().key_id.as_str(), world.counts.posts), ("key-1", 1));
    let stalled = &world.object().status.conditions[2];
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "KeyDoubtful"));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.record().key_id, "key-2");
    assert!(!world.key("key-1").revoked, "it has its overlap");
    live(&mut process, &mut world, DAY);
    assert!(world.key("key-1").revoked);
    assert_eq!(world.violation, None);
}

#[test]
fn what_keeps_an_old_key_alive() {
    type Change = fn(&mut World, &mut Process);
    let rows: &[(&str, Change)] = &[
        ("the new key is not in the Secret any more", |world, _| world.secret().value = Some("x".into())),
        ("Boltz must not be called", |_, process| {
            let reason = Reason::BoltzUnavailable;
            let block = Block { reason, message: String::new(), until: None };
            process.account = AccountFacts { calls_blocked: Some(block), ..AccountFacts::default() };
        }),
        ("the list shows it under another object's name", |world, process| {
            world.key("key-1").object = ObjectMark::from_uid("11111111-2222-4333-8444-555555555555");
            // This process did not create it.
            *process = Process::start_other(world, 7);
            process.take_pass(world);
        }),
    ];
    for (what, change) in rows {
        let (mut world, mut process) = World::rotated(plain());
        let until = world.elapsed + DAY;
        world.advance_to(until);
        change(&mut world, &mut process);
        let never = &mut |step: &Step| {
            let revokes = matches!(step, Step::Revoke { key_id, .. } if key_id == "key-1");
            assert!(!revokes, "{what}");
            // Nothing is issued here, so that it stays so.
            matches!(step, Step::Mint(_)).then_some(Fault::Cut)
        };
        process.reconcile_with(&mut world, never).unwrap();
        assert!(!world.key("key-1").revoked, "{what}");
    }
}

#[test]
fn until_idle_waits_for_the_last_use_and_says_so() {
    let (mut world, mut process) = World::rotated(json!({"rotation": {"overlapPolicy": "UntilIdle"}}));
    for _ in 0..36 {
        live(&mut process, &mut world, 50 * MINUTE);
        world.key("key-1").last_used_at = Some(world.true_time());
    }
    live(&mut process, &mut world, 30 * MINUTE);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    assert_eq!(world.ready_reason(), "PreviousKeyStillUsed");
    live(&mut process, &mut world, 45 * MINUTE);
    assert_eq!(world.active(), ["key-2"], "unused for an hour");
    assert_eq!(world.ready_reason(), "Issued");
}

#[test]
fn until_idle_without_an_overlap_does_not_ask_for_passes_without_end() {
    let (mut world, mut process) =
        World::ready(json!({"rotation": {"overlapPolicy": "UntilIdle", "overlap": "0s"}}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let before = world.counts.passes;
    process.run_until_idle(&mut world);
    assert_eq!(world.active(), ["key-2"]);
    assert!(world.counts.passes - before <= 8, "{} passes", world.counts.passes - before);
}

#[test]
fn strict_revokes_a_key_that_is_still_used() {
    let (mut world, mut process) = World::rotated(plain());
    world.key("key-1").last_used_at = Some(world.true_time());
    live(&mut process, &mut world, DAY);
    assert_eq!(world.active(), ["key-2"]);
}

#[test]
fn a_short_overlap_waits_until_the_old_attempt_is_settled() {
    let mut world = World::with(json!({"rotation": {"overlap": "1s"}}));
    let mut process = Process::start(&world);
    process.reconcile(&mut world);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, 179 * SECOND);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    live(&mut process, &mut world, SECOND);
    assert_eq!(world.active(), ["key-2"], "a window and a settle time after it was written");
}

#[test]
fn an_old_key_whose_attempt_has_left_the_ledger_is_revoked_too() {
    let (mut world, mut process) = World::rotated(plain());
    world.edit(|object| object.ledger.entries.clear());
    for process in [&mut process, &mut Process::start_other(&world, 2)] {
        let mut world = world.clone();
        live(process, &mut world, DAY + HOUR);
        assert_eq!(world.active(), ["key-2"]);
    }
}

#[test]
fn a_stray_is_revoked_once_settled_by_a_process_that_did_not_write_it() {
    let mut world = World::with(plain());
    let crash = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::CrashAfter);
    Process::start(&world).reconcile_with(&mut world, crash).unwrap_err();
    let mut next = Process::start_other(&world, 2);
    next.live_until(&mut world, 179 * SECOND);
    assert_eq!(world.active(), ["key-1", "key-2"], "its writer may be about to store it");
    assert_eq!(world.record().key_id, "key-2", "and blocks nobody meanwhile");
    next.live_until(&mut world, 185 * SECOND);
    assert_eq!(world.active(), ["key-2"]);
    assert_eq!(world.key("key-1").reason, Some(RevokeReason::Stray));
}

#[test]
fn an_attempt_written_a_day_ago_is_settled_for_a_process_that_sees_it_only_now() {
    let (mut world, _) = World::rotated(plain());
    world.advance_to(DAY + HOUR);
    let mut next = Process::start_other(&world, 2);
    next.live_until(&mut world, DAY + HOUR + 2 * SECOND);
    assert_eq!(world.active(), ["key-2"], "the overlap is over");
}

#[test]
fn no_age_in_the_ledger_settles_a_stray() {
    let mut world = World::with(plain());
    let crash = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::CrashAfter);
    Process::start(&world).reconcile_with(&mut world, crash).unwrap_err();
    world.advance_to(DAY);
    let mut next = Process::start_other(&world, 2);
    next.live_until(&mut world, DAY + 179 * SECOND);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    next.live_until(&mut world, DAY + 182 * SECOND);
    assert_eq!(world.active(), ["key-2"]);
}

#[test]
fn strays_wait_for_a_key_where_one_can_be_issued_and_not_where_none_can() {
    let stray_world = || {
        let mut world = World::with(plain());
        let crash = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::CrashAfter);
        Process::start(&world).reconcile_with(&mut world, crash).unwrap_err();
        world.advance_to(DAY);
        let mut process = Process::start_other(&world, 2);
        process.decide(&world);
        world.advance_to(DAY + 3 * MINUTE);
        process.take_pass(&mut world);
        (world, process)
    };
    let (world, mut process) = stray_world();
    assert_eq!(words(&process.decide(&world)), "issue: Initial");
    let (mut world, mut process) = stray_world();
    world.edit_spec(json!({"suspend": true}));
    assert_eq!(words(&process.decide(&world)), "read", "rule 8");
    assert_eq!(words(&process.decide_live(&world)), "revoke key-1: Stray");
    let (mut world, mut process) = stray_world();
    world.edit(|object| object.spec = Err("bad".to_owned()));
    assert_eq!(words(&process.decide_live(&world)), "revoke key-1: Stray");
}

#[test]
fn what_is_no_stray() {
    type Change = fn(&mut World);
    let rows: &[(&str, Change)] = &[
        ("status names it", |world| {
            world.edit(|object| object.status.key_id = Some("key-1".to_owned()));
        }),
        ("its attempt is not in the ledger", |world| {
            world.edit(|object| object.ledger.entries.clear());
        }),
        ("its name has another object's marker", |world| {
            world.key("key-1").object = ObjectMark::from_uid("11111111-2222-4333-8444-555555555555");
        }),
    ];
    for (what, change) in rows {
        let mut world = World::with(plain());
        let crash = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::CrashAfter);
        Process::start(&world).reconcile_with(&mut world, crash).unwrap_err();
        world.edit_spec(json!({"suspend": true}));
        change(&mut world);
        world.advance_to(DAY);
        let mut process = Process::start_other(&world, 2);
        process.take_pass(&mut world);
        process.reconcile(&mut world);
        assert!(!world.key("key-1").revoked, "{what}");
    }
}

#[test]
fn a_revocation_is_decided_again_on_what_was_read() {
    let (mut world, mut process) = World::rotated(plain());
    process.stale = Some(Box::new(world.clone()));
    let until = world.elapsed + DAY;
    world.advance_to(until);
    // Since the cache's view, somebody has deleted the Secret with the new key.
    world.secrets.clear();
    let cut = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Cut);
    process.reconcile_with(&mut world, cut).unwrap();
    assert_eq!(world.active()[..2], ["key-1", "key-2"]);
}

#[test]
fn a_revocation_whose_answer_is_lost_is_made_again() {
    for fault in [Fault::Cut, Fault::Lost, Fault::Refused] {
        let (mut world, mut process) = World::rotated(plain());
        let until = world.elapsed + DAY;
        world.advance_to(until);
        let mut failures = 0;
        let fail = &mut |step: &Step| {
            let fails = matches!(step, Step::Revoke { .. }) && failures < 3;
            failures += usize::from(fails);
            fails.then_some(fault)
        };
        process.live_with(&mut world, until + MINUTE, fail).unwrap();
        assert_eq!(world.active(), ["key-2"], "{fault:?}");
        world.assert_good();
    }
}

#[test]
fn a_key_that_only_status_names_is_recorded_before_status_forgets_it() {
    let (mut world, mut process) = World::ready(plain());
    let status = world.object().status.clone();
    world.secrets.clear();
    world.edit(|object| object.status = BoltzApiKeyStatus::default());
    let mut other = Process::start_other(&world, 2);
    other.reconcile(&mut world);
    // A status that came late names the key that was in the deleted Secret.
    world.edit(|object| object.status = status);
    assert_eq!(words(&other.decide(&world)), "record previous key-1");
    other.reconcile(&mut world);
    process.run_until_idle(&mut world);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    world.assert_good();
}

/// Status, reason and message of the condition for revocations that fail.
fn revocation_failing(world: &World) -> Option<(String, String, String)> {
    let conditions = &world.object().status.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == "RevocationFailing")?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[test]
fn a_revocation_that_fails_is_told_at_once_and_as_long_as_the_key_lives() {
    for (kind, reason) in [
        (BoltzErrorKind::Refused, Some("BoltzRejected")),
        (BoltzErrorKind::Invalid, Some("BoltzRejected")),
        (BoltzErrorKind::Unauthorized, Some("BoltzUnauthorized")),
        (BoltzErrorKind::Unavailable, Some("BoltzUnavailable")),
        // Boltz asks to wait.
        (BoltzErrorKind::RateLimited, None),
    ] {
        let (mut world, mut process) = World::rotated(plain());
        let until = world.elapsed + DAY;
        world.advance_to(until);
        let refuse = &mut |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::Boltz(kind));
        process.reconcile_with(&mut world, refuse).unwrap();
        let told = revocation_failing(&world);
        assert_eq!(told.as_ref().map(|(_, reason, _)| reason.as_str()), reason, "{kind:?}");
        if let Some((status, _, message)) = told {
            assert_eq!(status, "True", "{kind:?}");
            assert!(message.starts_with("Key key-1 should have been revoked at 20"), "{message}");
            assert!(message.contains("Failed to revoke key key-1"), "{message}");
        }
        // A restart does not forget it, and neither does a pause.
        let told = revocation_failing(&world);
        let mut process = Process::start_other(&world, 2);
        let block = Block { reason: Reason::BoltzUnavailable, message: "Later.".to_owned(), until: None };
        let block = Block { until: Some(process.now(&world).monotonic.plus(MINUTE)), ..block };
        process.account = AccountFacts { calls_blocked: Some(block), ..AccountFacts::default() };
        process.take_pass(&mut world);
        process.reconcile(&mut world);
        assert_eq!(revocation_failing(&world), told, "{kind:?}");
        process.account = AccountFacts::default();
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.active(), ["key-2"], "{kind:?}");
        let ended = told.map(|_| ("False".to_owned(), "NoKeyOverdue".to_owned(), String::new()));
        assert_eq!(revocation_failing(&world), ended, "{kind:?}");
    }
}

/// Status named it as replaced as soon as it could not say more, and the process that knew better has ended.
#[test]
fn a_key_whose_record_was_taken_away_keeps_its_overlap_after_a_crash() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "10m"}}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let webhook = &mut |step: &Step| matches!(step, Step::Store { .. }).then_some(Fault::Undone);
    process.reconcile_with(&mut world, webhook).unwrap();
    let held = world.secrets["key"].value.clone();
    assert_eq!(held.as_deref(), Some("value of key-2"));
    let later = world.elapsed + HOUR;
    world.advance_to(later);
    let mut restarted = Process::start_other(&world, 2);
    restarted.live_until(&mut world, later + 9 * MINUTE);
    assert_eq!(world.record().key_id, "key-3");
    assert!(world.active().contains(&"key-2"), "workloads had it until now: {:?}", world.active());
    restarted.live_until(&mut world, later + HOUR);
    world.assert_good();
    assert_eq!(world.active(), ["key-3"]);
}

//! What starts an issuance, and nothing else; what stands in its way; what becomes of its key.

use boltz_operator::{
    api::BoltzApiKeyStatus,
    plan::{Block, BoltzErrorKind, ObjectFacts, Reason, RevokeReason, Slot, Step},
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::AttemptId,
    },
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, UID, World, plain, words};
use serde_json::{Value, json};
use std::time::Duration;

/// A key of 90 days, rotated at a third of its lifetime, overlap a day.
fn usual() -> Value {
    json!({"expiresInDays": 90, "allowedIPs": ["10.0.0.1", "10.0.0.2"], "workspaceID": "w"})
}

/// What a Ready object does after a change, in words.
fn after(spec: Value, change: impl FnOnce(&mut World, &mut Process)) -> String {
    let (mut world, mut process) = World::ready(spec);
    change(&mut world, &mut process);
    words(&process.decide(&world))
}

type Change = fn(&mut World, &mut Process);

/// A webhook changes the spec with each write of the object, or a user corrects what Boltz has rejected.
#[test]
fn a_spec_that_changes_before_the_post_costs_no_other_attempt() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let mut attempts = 0;
    process
        .reconcile_with(&mut world, &mut |step| {
            attempts += usize::from(matches!(step, Step::WriteAttempt { .. }));
            matches!(step, Step::Mint(_)).then_some(Fault::Boltz(BoltzErrorKind::Invalid))
        })
        .unwrap();
    world.edit_spec(json!({"displayName": "another"}));
    process
        .reconcile_with(&mut world, &mut |step| {
            attempts += usize::from(matches!(step, Step::WriteAttempt { .. }));
            None
        })
        .unwrap();
    assert_eq!((attempts, world.record().key_id.as_str()), (1, "key-1"));
}

#[test]
fn what_starts_an_issuance() {
    let rows: &[(&str, Change, &str)] = &[
        ("the Secret is gone", |world, _| world.secrets.clear(), "SecretMissing"),
        ("its value is altered", |world, _| world.secret().value = Some("x".into()), "SecretAltered"),
        ("its value is gone", |world, _| world.secret().value = None, "SecretAltered"),
        ("its record is gone", |world, _| world.secret().record = None, "SecretAltered"),
        (
            "another workspace",
            |world, _| world.edit_spec(json!({"expiresInDays": 90, "allowedIPs": ["10.0.0.1", "10.0.0.2"]})),
            "ParametersChanged",
        ),
        (
            "another address",
            |world, _| {
                world.edit_spec(json!({"expiresInDays": 90, "allowedIPs": ["10.0.0.1"], "workspaceID": "w"}));
            },
            "ParametersChanged",
        ),
        (
            "another mode",
            |world, _| world.edit_spec(merged(usual(), json!({"mode": "test"}))),
            "ParametersChanged",
        ),
        (
            "other days",
            |world, _| world.edit_spec(merged(usual(), json!({"expiresInDays": 30}))),
            "ParametersChanged",
        ),
        (
            "a rotate value",
            |world, _| world.edit(|object| object.rotate = Some("1".into())),
            "RotateRequested",
        ),
        (
            "a rotate-now value",
            |world, _| world.edit(|object| object.rotate_now = Some("1".into())),
            "RotateNow",
        ),
        ("the renewal time", |world, _| world.elapsed += 61 * DAY, "Renewal"),
        ("its expiry", |world, _| world.elapsed += 91 * DAY, "Renewal"),
        (
            "an interval that is over",
            |world, _| {
                world.edit_spec(merged(usual(), json!({"rotation": {"interval": "24h"}})));
                world.elapsed += DAY;
            },
            "Interval",
        ),
    ];
    for (what, change, reason) in rows {
        assert_eq!(after(usual(), change), format!("issue: {reason}"), "{what}");
    }
}

#[test]
fn nothing_else_does() {
    let rows: &[(&str, Change)] = &[
        ("time", |world, _| world.elapsed += 10 * DAY),
        ("another pass", |world, process| process.take_pass(world)),
        ("addresses in another order", |world, _| {
            world.edit_spec(merged(usual(), json!({"allowedIPs": ["10.0.0.2", "10.0.0.1", "10.0.0.2"]})));
        }),
        ("another display name", |world, _| {
            world.edit_spec(merged(usual(), json!({"displayName": "other"})));
        }),
        ("the default mode, said", |world, _| world.edit_spec(merged(usual(), json!({"mode": "live"})))),
        ("a later renewal", |world, _| {
            world.edit_spec(merged(usual(), json!({"rotation": {"renewBefore": "24h"}})));
        }),
        ("a rotate annotation taken away", |world, _| world.edit(|object| object.rotate = None)),
        ("status lost", |world, _| world.edit(|object| object.status = BoltzApiKeyStatus::default())),
        ("the ledger lost", |world, _| world.edit(|object| object.ledger = Ledger::default())),
        ("the finalizer stripped", |world, _| world.edit(|object| object.finalizers.clear())),
        ("a foreign finalizer", |world, _| world.edit(|object| object.finalizers.push("other".into()))),
        ("one pass that does not show it", |world, process| {
            world.keys.clear();
            process.take_pass(world);
        }),
        ("suspended, and a rotation asked for", |world, _| {
            world.edit_spec(merged(usual(), json!({"suspend": true})));
            world.edit(|object| object.rotate = Some("1".into()));
        }),
        ("a spec that cannot be read", |world, _| world.edit(|object| object.spec = Err("bad".into()))),
        ("the calendar an hour ahead", |world, _| world.clock_error = 3600),
        ("the calendar an hour behind", |world, _| world.clock_error = -3600),
    ];
    for (what, change) in rows {
        let (mut world, mut process) = World::ready(usual());
        change(&mut world, &mut process);
        let until = world.elapsed + HOUR;
        process.live_until(&mut world, until);
        if *what != "one pass that does not show it" {
            assert_eq!(world.counts.posts, 1, "{what}");
        }
        let (mut world, mut process) = World::ready(usual());
        change(&mut world, &mut process);
        let decision = process.reconcile(&mut world).unwrap();
        assert_eq!(decision.step, Step::Wait, "{what}");
        assert_eq!(world.counts.posts, 1, "{what}");
        // The same for a process that has just started and remembers nothing.
        let (mut world, _) = World::ready(usual());
        let mut restarted = Process::start(&world);
        change(&mut world, &mut restarted);
        restarted.reconcile(&mut world);
        assert_eq!(world.counts.posts, 1, "{what}, after a restart");
    }
}

#[test]
fn a_restart_writes_nothing() {
    let (mut world, _) = World::ready(usual());
    let before = world.counts.clone();
    let mut restarted = Process::start(&world);
    restarted.run_until_idle(&mut world);
    assert_eq!(world.counts.object_writes, before.object_writes);
    assert_eq!(world.counts.secret_writes, before.secret_writes);
    assert_eq!(world.counts.status_writes, before.status_writes);
}

#[test]
fn a_key_takes_three_writes_in_order() {
    let mut world = World::with(usual());
    let mut process = Process::start(&world);
    let mut steps = Vec::new();
    let record = &mut |step: &Step| {
        steps.push(std::mem::discriminant(step));
        None
    };
    process.reconcile_with(&mut world, record).unwrap();
    assert_eq!(steps.len(), 5, "preflight, attempt, mint, store, status");
    assert_eq!(
        (world.counts.object_writes, world.counts.secret_writes, world.counts.status_writes),
        (1, 1, 1)
    );
    assert!(world.object().has_finalizer, "the finalizer comes with the attempt");
    world.assert_good();
}

#[test]
fn what_stands_in_the_way() {
    type Obstacle<'a> = &'a dyn Fn(&mut World, &mut Process);
    let block = |reason| Block { reason, message: "no".to_owned(), until: None };
    let rows: &[(&str, Obstacle, Reason)] = &[
        ("a foreign Secret", &|world, _| foreign_secret(world), Reason::SecretConflict),
        (
            "Boltz must not be called",
            &|_, process| process.account.calls_blocked = Some(block(Reason::BoltzUnauthorized)),
            Reason::BoltzUnauthorized,
        ),
        (
            "only test keys can be made",
            &|_, process| process.account.mints_blocked = Some(block(Reason::BoltzUnauthorized)),
            Reason::BoltzUnauthorized,
        ),
        (
            "the Secret was refused",
            &|_, process| process.block(Slot::Preflight, block(Reason::SecretWriteFailed)),
            Reason::SecretWriteFailed,
        ),
        (
            "a failed mint waits",
            &|_, process| process.block(Slot::Mint, block(Reason::RateLimited)),
            Reason::RateLimited,
        ),
        (
            "Boltz refused the parameters",
            &|_, process| process.block(Slot::Mint, block(Reason::BoltzRejected)),
            Reason::BoltzRejected,
        ),
        ("sixteen attempts are open", &|world, _| full_ledger(world), Reason::Pending),
        ("suspended", &|world, _| world.edit_spec(json!({"suspend": true})), Reason::Suspended),
        (
            "the spec cannot be read",
            &|world, _| world.edit(|object| object.spec = Err("bad".into())),
            Reason::InvalidSpec,
        ),
        (
            "a duration cannot be read",
            &|world, _| world.edit_spec(json!({"rotation": {"overlap": "soon"}})),
            Reason::InvalidSpec,
        ),
    ];
    for (what, obstacle, reason) in rows {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        // What a new generation would lift is there after it was seen.
        process.facts(&world, false);
        obstacle(&mut world, &mut process);
        process.reconcile(&mut world);
        assert_eq!(world.counts.posts, 0, "{what}");
        assert_eq!(world.ready_reason(), reason.as_str(), "{what}");
        let stalled = world
            .object()
            .status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Stalled" && condition.status == "True");
        assert_eq!(stalled, reason.is_stalled(), "{what}");
    }
}

#[test]
fn boltzs_refusal_is_tried_again_ever_more_seldom_and_at_once_when_somebody_asks() {
    let refused = |kind| {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let refuse = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Boltz(kind));
        process.live_with(&mut world, HOUR, refuse).unwrap();
        assert_eq!(world.ready_reason(), "BoltzRejected");
        let posts = world.counts.posts;
        process.live_with(&mut world, 5 * HOUR, refuse).unwrap();
        let later = world.counts.posts - posts;
        (world, process, posts, later)
    };
    let (_, _, first_hour, later) = refused(BoltzErrorKind::Refused);
    assert_eq!((first_hour, later), (12, 24), "every ten minutes in the end");
    let (_, _, first_hour, later) = refused(BoltzErrorKind::Invalid);
    assert_eq!((first_hour, later), (6, 4), "every hour in the end");
    type Change = fn(&mut World);
    let asks: &[(&str, Change)] = &[
        ("a new spec", |world| world.edit_spec(json!({"displayName": "other"}))),
        ("rotate", |world| world.edit(|object| object.rotate = Some("1".to_owned()))),
        ("rotate-now", |world| world.edit(|object| object.rotate_now = Some("1".to_owned()))),
        ("retry", |world| world.edit(|object| object.retry = Some("1".to_owned()))),
    ];
    for (what, ask) in asks {
        let (mut world, mut process, ..) = refused(BoltzErrorKind::Invalid);
        let posts = world.counts.posts;
        process.reconcile(&mut world);
        assert_eq!(world.counts.posts, posts, "{what}: nothing is tried before its time");
        ask(&mut world);
        process.reconcile(&mut world);
        assert_eq!(world.counts.posts, posts + 1, "{what}");
        world.assert_good();
    }
}

#[test]
fn a_full_ledger_without_a_key_does_not_stand_in_its_own_way() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    // Somebody takes the Secret away as often as it is written.
    for _ in 0..40 {
        process.run_until_idle(&mut world);
        world.secrets.clear();
    }
    process.run_until_idle(&mut world);
    world.advance_to(world.elapsed + DAY);
    process.run_until_idle(&mut world);
    process.run_until_idle(&mut world);
    assert!(world.secrets.contains_key("key"), "{:?}", world.object().ledger);
}

#[test]
fn a_full_ledger_drains() {
    let mut world = World::with(plain());
    full_ledger(&mut world);
    let mut process = Process::start(&world);
    process.run_until_idle(&mut world);
    world.assert_good();
    assert!(
        world.object().ledger.entries.len() <= 11,
        "what is over has left, but for what the backoff counts"
    );
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.run_until_idle(&mut world);
    assert_eq!(world.object().ledger.entries.len(), 2, "after a success nothing is counted any more");
}

#[test]
fn what_the_backoff_counts_leaves_room_for_the_next_attempt() {
    let mut world = World::with(plain());
    full_ledger(&mut world);
    // Six have a live key, which is revoked only when another one is stored; ten are over, and only counted.
    for entry in world.object().ledger.entries.clone().iter().take(6) {
        world.make_key(UID, &entry.attempt, None);
    }
    Process::start(&world).run_until_idle(&mut world);
    world.assert_good();
    assert_eq!(world.counts.posts, 1);
}

#[test]
fn a_foreign_secret_is_left_alone_and_its_end_is_noticed_within_a_minute() {
    let mut world = World::with(plain());
    foreign_secret(&mut world);
    let theirs = world.secrets.clone();
    let mut process = Process::start(&world);
    let wake_at = process.reconcile(&mut world).unwrap().wake_at.unwrap();
    assert!(wake_at.since(process.now(&world).monotonic) <= MINUTE);
    assert_eq!(world.secrets, theirs);
    world.secrets.clear();
    world.advance_to(MINUTE);
    process.reconcile(&mut world);
    world.assert_good();
}

#[test]
fn an_attempt_is_posted_once_whatever_the_answer() {
    for fault in [Fault::Cut, Fault::Lost, Fault::Late(10 * SECOND), Fault::Late(100 * SECOND)] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let mut posted: Vec<AttemptId> = Vec::new();
        let once = &mut |step: &Step| match step {
            Step::Mint(attempt) => {
                assert!(!posted.contains(attempt), "{fault:?}: the attempt is POSTed twice");
                posted.push(attempt.clone());
                (posted.len() <= 2).then_some(fault)
            }
            _ => None,
        };
        process.live_with(&mut world, HOUR, once).unwrap();
        assert_eq!(world.counts.posts, 3, "{fault:?}: two lost, and one that succeeds");
        assert_eq!(world.active().len(), 1, "{fault:?}: strays are revoked");
        world.assert_good();
    }
}

#[test]
fn what_surely_had_no_effect_uses_its_attempt_again_inside_the_window_only() {
    for (wait, new_attempts) in [(59 * SECOND, 0), (60 * SECOND, 1)] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let refuse = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Refused);
        process.reconcile_with(&mut world, refuse).unwrap();
        process.memory.troubles.clear();
        world.edit(|object: &mut ObjectFacts| object.status = BoltzApiKeyStatus::default());
        world.advance_to(wait);
        let writes = world.counts.object_writes;
        process.reconcile(&mut world);
        assert_eq!(world.counts.object_writes - writes, new_attempts, "after {wait:?}");
        assert_eq!(world.counts.posts, 2, "after {wait:?}");
        world.assert_good();
    }
}

#[test]
fn a_process_posts_only_its_own_attempts() {
    let mut world = World::with(plain());
    let crash = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::CrashBefore);
    assert!(Process::start(&world).reconcile_with(&mut world, crash).is_err());
    let theirs = world.object().ledger.entries[0].attempt.clone();
    let mut next = Process::start_other(&world, 77);
    let mut posted = Vec::new();
    next.live_with(&mut world, HOUR, &mut |step| {
        if let Step::Mint(attempt) = step {
            posted.push(attempt.clone());
        }
        None
    })
    .unwrap();
    assert_eq!(posted.len(), 1);
    assert_ne!(posted[0], theirs);
}

#[test]
fn a_key_held_past_its_window_is_revoked_and_not_stored() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    // The Secret's write is refused by nobody and answered by nobody: it never took effect.
    let mut stores = 0;
    let cut = &mut |step: &Step| match step {
        Step::Store { .. } => {
            stores += 1;
            (stores <= 100).then_some(Fault::Cut)
        }
        _ => None,
    };
    process.live_with(&mut world, 59 * SECOND, cut).unwrap();
    assert_eq!(world.active(), ["key-1"], "inside the window it is tried again");
    process.live_with(&mut world, HOUR, &mut |_| None).unwrap();
    assert!(world.key("key-1").revoked);
    world.assert_good();
}

#[test]
fn two_keys_in_hand_do_not_wait_for_each_other() {
    // The first key's write of the Secret stays in doubt until its attempt is settled, three minutes after it was
    // written; the second key is stored at once all the same, in whatever order the attempts' ids stand.
    for seed in 0..8 {
        let mut world = World::with(plain());
        let mut process = Process::start_other(&world, seed * 997);
        let cut = &mut |step: &Step| match step {
            Step::Store { record, .. } if record.key_id == "key-1" => Some(Fault::Cut),
            _ => None,
        };
        process.live_with(&mut world, 100 * SECOND, cut).unwrap();
        assert_eq!(world.record().key_id, "key-2");
        assert_eq!(world.counts.posts, 2);
        process.live_with(&mut world, HOUR, cut).unwrap();
        world.assert_good();
    }
}

#[test]
fn a_definitely_refused_key_is_revoked_at_once() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let mut refused = false;
    let refuse = &mut |step: &Step| {
        let refuse = matches!(step, Step::Store { .. }) && !std::mem::replace(&mut refused, true);
        refuse.then_some(Fault::Refused)
    };
    process.reconcile_with(&mut world, refuse).unwrap();
    assert!(world.key("key-1").revoked);
    process.run_until_idle(&mut world);
    world.assert_good();
}

#[test]
fn backoff_is_counted_from_the_ledger_and_outlasts_restarts() {
    let mut world = World::with(plain());
    // Each process loses one answer and dies: without the ledger's count this would be one key per restart.
    for restart in 0..200 {
        let mut process = Process::start_other(&world, 1000 + restart);
        let _ = process.reconcile_with(&mut world, &mut |step| {
            matches!(step, Step::Mint(_)).then_some(Fault::CrashAfter)
        });
        let next = world.elapsed + SECOND;
        world.advance_to(next);
    }
    assert!(world.counts.posts <= 9, "{} keys in 200 restarts, one a second", world.counts.posts);
    let mut process = Process::start_other(&world, 5000);
    let until = world.elapsed + HOUR;
    process.live_until(&mut world, until);
    assert_eq!(world.active().len(), 1);
    world.assert_good();
}

#[test]
fn a_request_by_a_user_ends_the_backoff_and_a_fight_between_users_does_not() {
    let (mut world, mut process) = World::ready(plain());
    let mut taken_away_for = |world: &mut World, time: Duration, change: fn(&mut ObjectFacts, u64)| {
        let (start, before) = (world.elapsed, world.counts.posts);
        for round in 0.. {
            let next = start + round * SECOND / 4;
            if next > start + time {
                break;
            }
            world.secrets.clear();
            world.edit(|object| change(object, round.into()));
            process.live_until(world, next);
        }
        world.counts.posts - before
    };
    let alone = taken_away_for(&mut world, 4 * MINUTE, |_, _| ());
    assert!((6..=9).contains(&alone), "{alone} keys in 4 minutes: they wait ever longer");
    assert_eq!(taken_away_for(&mut world, SECOND, |_, _| ()), 0);
    assert_eq!(taken_away_for(&mut world, SECOND, |object, _| object.retry = Some("1".to_owned())), 1);
    let fight =
        taken_away_for(&mut world, MINUTE, |object, round| object.retry = Some((round % 2).to_string()));
    assert!((1..=7).contains(&fight), "{fight} keys in a minute");
}

/// Each change would otherwise cost a dry run, and a request to Boltz that others could use.
#[test]
fn whoever_changes_an_object_all_the_time_gets_a_retry_in_ten_seconds() {
    let refused =
        |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Boltz(BoltzErrorKind::Invalid));
    type Change = fn(&mut ObjectFacts, u32);
    // The status says which generation it is about.
    let rows: [(&str, usize, Change); 2] = [
        ("retry", 40, |object, round| object.retry = Some(round.to_string())),
        ("the spec", 40 + 241, |object, round| object.generation = Some(2 + i64::from(round))),
    ];
    for (name, most_api, change) in rows {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let _ = process.reconcile_with(&mut world, &mut |step| refused(step));
        assert_eq!(world.counts.boltz_calls, 1, "{name}");
        // The first change is answered at once.
        world.edit(|object| change(object, 0));
        let _ = process.reconcile_with(&mut world, &mut |step| refused(step));
        assert_eq!(world.counts.boltz_calls, 2, "{name}");
        let (start, calls) = (world.elapsed, world.counts.api_calls);
        for round in 1..=241 {
            world.edit(|object| change(object, round));
            process.live_with(&mut world, start + round * SECOND / 4, &mut |step| refused(step)).unwrap();
        }
        let (boltz, api) = (world.counts.boltz_calls - 2, world.counts.api_calls - calls);
        assert!((5..=6).contains(&boltz), "{name}: {boltz} calls to Boltz in a minute");
        assert!(api <= most_api, "{name}: {api} calls to the API server in a minute");
        // And the last change too, without an event.
        let end = world.elapsed + 11 * SECOND;
        process.live_until(&mut world, end);
        assert_eq!(world.active().len(), 1, "{name}");
    }
}

#[test]
fn a_leaked_key_gets_no_overlap_whatever_happens_to_its_secret() {
    let leak = |object: &mut ObjectFacts| object.rotate_now = Some("1".to_owned());
    let changes: [fn(&mut World); 3] = [
        |world| world.secrets.clear(),
        |world| world.secret().value = Some("x".into()),
        |world| world.secret().record = None,
    ];
    for change in changes {
        let (mut world, mut process) = World::ready(plain());
        world.edit(leak);
        change(&mut world);
        let until = world.elapsed + 10 * MINUTE;
        process.live_until(&mut world, until);
        assert_eq!(world.key("key-1").reason, Some(RevokeReason::RotateNow));
        world.assert_good();
    }
    // A request that a key has answered is none any more.
    let (mut world, mut process) = World::ready(plain());
    world.edit(leak);
    process.run_until_idle(&mut world);
    let until = world.elapsed + 10 * MINUTE;
    process.live_until(&mut world, until);
    world.secrets.clear();
    let until = world.elapsed + HOUR;
    process.live_until(&mut world, until);
    assert_eq!(world.record().reason.as_str(), "SecretMissing");
    assert!(!world.key("key-2").revoked, "it keeps its overlap");
}

#[test]
fn success_ends_the_backoff() {
    let (mut world, mut process) = World::ready(plain());
    for round in 0..5 {
        world.edit(|object| object.rotate_now = Some(round.to_string()));
        process.run_until_idle(&mut world);
        assert_eq!(world.counts.posts, 2 + round, "a rotation that is asked for comes at once");
    }
    world.assert_good();
}

#[test]
fn with_four_previous_keys_optional_rotations_wait_and_others_cut_an_overlap() {
    let (mut world, mut process) = World::ready(plain());
    for round in 0..6 {
        world.edit(|object| object.rotate = Some(round.to_string()));
        process.run_until_idle(&mut world);
    }
    assert_eq!(world.counts.posts, 5, "the current key and four previous ones");
    assert_eq!(world.active().len(), 5);
    let ready = &world.object().status.conditions[0];
    assert!(
        ready.message.ends_with("A rotation (RotateRequested) waits until 2026-11-25T00:20:00Z: 4 previous keys are still active, the maximum."),
        "{}",
        ready.message
    );
    world.secret().value = None;
    process.run_until_idle(&mut world);
    assert_eq!(world.counts.posts, 6, "an altered Secret cannot wait");
    assert_eq!(world.active().len(), 5);
    assert!(world.key("key-1").revoked, "the oldest made room");
    // The optional one comes when an overlap is over.
    let until = world.elapsed + DAY;
    process.live_until(&mut world, until);
    assert_eq!(world.record().rotate.as_deref(), Some("5"));
    assert!(world.counts.posts <= 8);
}

#[test]
fn rotate_now_leaves_no_overlap() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlapPolicy": "UntilIdle"}}));
    world.edit(|object| object.rotate = Some("1".into()));
    process.run_until_idle(&mut world);
    assert_eq!(world.active().len(), 2);
    world.key("key-1").last_used_at = Some(world.true_time());
    world.key("key-2").last_used_at = Some(world.true_time());
    world.edit(|object| object.rotate_now = Some("leaked".into()));
    process.run_until_idle(&mut world);
    assert_eq!(world.active(), ["key-3"], "every older key goes, used or not");
    for id in ["key-1", "key-2"] {
        assert_eq!(world.key(id).reason, Some(RevokeReason::RotateNow), "{id}");
    }
    world.assert_good();
}

#[test]
fn a_key_that_lives_shorter_than_asked_does_not_renew_for_ever() {
    let (mut world, mut process) =
        World::ready(json!({"expiresInDays": 1, "rotation": {"renewBefore": "720h", "overlap": "1h"}}));
    let until = world.elapsed + 10 * DAY;
    process.live_until(&mut world, until);
    assert!((10..=20).contains(&world.counts.posts), "{} keys in ten days", world.counts.posts);
}

#[test]
fn keys_of_many_objects_do_not_renew_at_one_moment() {
    let mut renewals = std::collections::BTreeSet::new();
    for object in 0..20_u64 {
        let mut world = World::with(usual());
        world.edit(|facts| facts.uid = format!("550e8400-e29b-41d4-a716-4466554400{object:02}"));
        let mut process = Process::start(&world);
        process.run_until_idle(&mut world);
        renewals.insert(world.object().status.renewal_time.clone().unwrap().0);
        let mut restarted = Process::start_other(&world, 9);
        assert_eq!(restarted.reconcile(&mut world).unwrap().step, Step::Wait, "a restart keeps the time");
    }
    assert!(renewals.len() >= 15, "{} different times", renewals.len());
}

fn foreign_secret(world: &mut World) {
    let theirs = plan_world::Secret {
        uid: "theirs".into(),
        version: 9,
        record: None,
        value: Some("theirs".into()),
        owner: None,
        owned: false,
    };
    world.secrets.insert("key".into(), theirs);
}

fn full_ledger(world: &mut World) {
    let written_at = world.true_time();
    let entry = |bits| LedgerEntry::new(AttemptId::from_random(bits), written_at, None);
    world.edit(|object| object.ledger = Ledger::new((500..516).map(entry).collect()));
    let later = world.elapsed + Duration::from_secs(600);
    // Their backoff is over, and they are not settled by anybody's clock yet.
    world.advance_to(later);
}

/// A spec with some fields changed.
pub fn merged(mut spec: Value, change: Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

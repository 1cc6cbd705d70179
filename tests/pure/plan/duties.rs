//! Duties that do not wait for each other: what one call meets, for however long, delays no other duty of the object.

use boltz_operator::{
    api::DeletionPolicy,
    plan::{BoltzErrorKind, Step, later},
};
use plan_world::{Fault, HOUR, MINUTE, Process, SECOND, Secret, World, key_value, plain};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// No write of the Secret goes through.
fn refuse_secrets(step: &Step) -> Option<Fault> {
    let is_write = matches!(
        step,
        Step::Preflight
            | Step::Store { .. }
            | Step::WriteRecord(_)
            | Step::Reshape
            | Step::MoveSecret { .. }
            | Step::DeleteSecret { .. }
    );
    is_write.then_some(Fault::Refused)
}

fn live(
    process: &mut Process,
    world: &mut World,
    time: Duration,
    mut fault: impl FnMut(&Step) -> Option<Fault>,
) {
    process.live_with(world, world.elapsed + time, &mut fault).unwrap();
}

/// Status, reason and message of a condition.
fn condition(world: &World, kind: &str) -> (bool, String, String) {
    let conditions = &world.object().status.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(Default::default, |known| {
        (known.status == "True", known.reason.clone(), known.message.clone())
    })
}

#[test]
fn an_overlap_ends_although_the_secret_is_gone_or_altered_and_cannot_be_written() {
    type Change = fn(&mut World);
    let rows: [(&str, Change, bool, bool); 6] = [
        ("gone", |world| world.secrets.clear(), false, true),
        ("gone, and the process restarted", |world| world.secrets.clear(), true, true),
        ("altered", |world| world.secret().value = Some("x".to_owned()), false, true),
        ("emptied", |world| world.secret().value = None, true, true),
        // It may be the key that workloads use: a user has put it back.
        ("the old value", |world| world.secret().value = Some(key_value("key-1")), false, false),
        (
            "altered, and the process restarted",
            |world| world.secret().value = Some("x".to_owned()),
            true,
            false,
        ),
    ];
    for (what, change, restarts, ends) in rows {
        let (mut world, mut process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
        change(&mut world);
        if restarts {
            process = Process::start_other(&world, 9);
        }
        live(&mut process, &mut world, 3 * HOUR, refuse_secrets);
        assert_eq!(!world.active().contains(&"key-1"), ends, "{what}: {:?}", world.active());
        assert!(world.active().contains(&"key-2"), "{what}: its overlap begins when it is replaced");
        let (is_failing, _, message) = condition(&world, "RevocationFailing");
        assert_eq!(is_failing, !ends, "{what}: {message}");
        assert!(ends || message.contains("key-1"), "{what}: {message}");
        // If it was back, it has an overlap once more.
        live(&mut process, &mut world, 2 * HOUR, |_| None);
        assert!(!world.active().contains(&"key-1"), "{what}: after the cure");
    }
}

#[test]
fn a_revocation_that_fails_is_told_although_the_secret_is_gone() {
    let (mut world, mut process) = World::ready(plain());
    world.edit(|object| object.rotate_now = Some("1".to_owned()));
    let refuse = |step: &Step| {
        let is_revocation = matches!(step, Step::Revoke { .. });
        is_revocation.then_some(Fault::Boltz(BoltzErrorKind::Refused)).or_else(|| refuse_secrets(step))
    };
    let refuse_revocations =
        |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::Boltz(BoltzErrorKind::Refused));
    live(&mut process, &mut world, MINUTE, refuse_revocations);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    world.secrets.clear();
    live(&mut process, &mut world, HOUR, refuse);
    assert!(condition(&world, "RevocationFailing").0);
    live(&mut process, &mut world, 20 * MINUTE, refuse_secrets);
    assert_eq!(world.active(), ["key-2"], "the leaked key");
}

/// It has no end of an overlap, because no new key has replaced it.
#[test]
fn a_leaked_key_that_cannot_be_replaced_is_overdue() {
    for (what, issuable) in [("refused", true), ("suspended", false)] {
        let (mut world, mut process) = World::ready(plain());
        if !issuable {
            world.edit_spec(json!({"suspend": true}));
        }
        world.edit(|object| object.rotate_now = Some("1".to_owned()));
        let since = world.true_time();
        let refuse =
            |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Boltz(BoltzErrorKind::Refused));
        live(&mut process, &mut world, 3 * HOUR, refuse);
        assert_eq!(world.active(), ["key-1"], "{what}");
        let overdue = process.decide(&world).findings.overdue;
        assert_eq!(overdue.len(), 1, "{what}: {overdue:?}");
        assert_eq!(overdue[0].key_id, "key-1", "{what}");
        assert!(
            overdue[0].since.is_some_and(|at| at >= since && at < later(since, MINUTE)),
            "{what}: {overdue:?}"
        );
        if issuable {
            let (is_failing, _, message) = condition(&world, "RevocationFailing");
            assert!(is_failing && message.contains("key-1"), "{message}");
        } else {
            world.edit_spec(plain());
        }
        live(&mut process, &mut world, HOUR, |_| None);
        assert_eq!(world.active(), ["key-2"], "{what}");
        if issuable {
            assert!(!condition(&world, "RevocationFailing").0, "{what}");
        }
    }
}

/// The Secret that recorded the end of a key goes. The end stays.
#[test]
fn a_replaced_key_gets_no_new_overlap_when_its_record_goes() {
    for leaked in [true, false] {
        let (mut world, mut process) =
            World::ready(json!({"rotation": {"overlap": "6h", "overlapPolicy": "UntilIdle"}}));
        world.edit(|object| {
            *(if leaked { &mut object.rotate_now } else { &mut object.rotate }) = Some("1".to_owned())
        });
        let refuse = |step: &Step| {
            matches!(step, Step::Revoke { .. }).then_some(Fault::Boltz(BoltzErrorKind::Refused))
        };
        live(&mut process, &mut world, 5 * HOUR, refuse);
        let end = world.record().previous[0].clone();
        assert_eq!((end.key_id.as_str(), end.even_if_used), ("key-1", leaked));
        world.secrets.clear();
        live(&mut process, &mut world, 5 * MINUTE, refuse);
        let previous = &world.record().previous;
        let kept = previous.iter().find(|key| key.key_id == "key-1").unwrap();
        assert_eq!((kept.revoke_after, kept.even_if_used), (end.revoke_after, leaked), "leaked: {leaked}");
        live(&mut process, &mut world, 2 * HOUR, |_| None);
        assert!(!world.active().contains(&"key-1"), "leaked: {leaked}");
    }
}

#[test]
fn an_old_secret_stays_until_the_record_names_its_key() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "6h"}}));
    let keep_old = |step: &Step| matches!(step, Step::DeleteSecret { .. }).then_some(Fault::Refused);
    world.edit_spec(json!({"secret": {"name": "other"}, "rotation": {"overlap": "6h"}}));
    live(&mut process, &mut world, 10 * MINUTE, keep_old);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, 10 * MINUTE, keep_old);
    assert_eq!(world.secrets.keys().collect::<Vec<_>>(), ["key", "other"]);
    world.edit_spec(json!({"rotation": {"overlap": "6h"}}));
    world.edit(|object| object.rotate = None);
    let refuse = |step: &Step| {
        (matches!(step, Step::WriteRecord(_)) && step.key_id() == Some("key-1")).then_some(Fault::Refused)
    };
    live(&mut process, &mut world, 2 * MINUTE, refuse);
    let is_named = world.record().names("key-2");
    assert!(is_named || world.secrets.contains_key("other"), "nothing in the cluster names key-2");
    live(&mut process, &mut world, HOUR, |_| None);
    assert!(world.record().names("key-2") && !world.secrets.contains_key("other"));
    assert!(world.active().contains(&"key-2"), "it keeps its overlap");
}

#[test]
fn with_retain_the_owner_reference_goes_whatever_else_fails() {
    type Change = fn(&mut World);
    let rows: [(&str, Change); 6] = [
        ("another shape that is refused", |world| {
            world.edit_spec(json!({"deletionPolicy": "Retain", "secret": {"key": "OTHER"}}))
        }),
        ("another name that is refused", |world| {
            world.edit_spec(json!({"deletionPolicy": "Retain", "secret": {"name": "other"}}))
        }),
        ("a name that is taken", |world| {
            let theirs = Secret {
                uid: "theirs".to_owned(),
                version: 1,
                record: None,
                value: None,
                owner: None,
                owned: false,
            };
            world.secrets.insert("other".to_owned(), theirs);
            world.edit_spec(json!({"deletionPolicy": "Retain", "secret": {"name": "other"}}))
        }),
        ("an invalid spec", |world| {
            world.edit(|object| {
                object.spec = Err("invalid".to_owned());
                object.deletion_policy = Some(DeletionPolicy::Retain);
            })
        }),
        ("an altered value", |world| {
            world.edit_spec(json!({"deletionPolicy": "Retain"}));
            world.secret().value = Some("x".to_owned());
        }),
        ("a pause", |world| {
            world.edit_spec(json!({"deletionPolicy": "Retain"}));
            world.edit(|object| object.is_paused = true);
        }),
    ];
    for (what, change) in rows {
        let (mut world, mut process) = World::ready(plain());
        assert!(world.secrets["key"].owned);
        change(&mut world);
        live(&mut process, &mut world, 30 * SECOND, refuse_secrets);
        assert!(!world.secrets["key"].owned, "{what}");
        let calls = world.counts.api_calls;
        live(&mut process, &mut world, HOUR, refuse_secrets);
        assert!(world.counts.api_calls - calls <= 120, "{what}: {}", world.counts.api_calls - calls);
        assert!(world.active().contains(&"key-1"), "{what}");
    }
}

/// Any refusal that stays, not only a 404, of a key that is not there.
#[test]
fn a_deletion_does_not_wait_for_a_key_that_boltz_does_not_have() {
    for kind in [BoltzErrorKind::Refused, BoltzErrorKind::Invalid] {
        for exists in [false, true] {
            // The key itself is not asked: its value is in no Secret.
            let (mut world, mut process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
            world.key("key-2").revoked = true;
            world.keys.retain(|key| exists || key.id != "key-1");
            world.delete();
            let refuse = |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::Boltz(kind));
            live(&mut process, &mut world, HOUR, refuse);
            assert_eq!(world.object.is_some(), exists, "{kind:?}");
        }
    }
}

/// The steps of these kinds, in their order, while a fault stays.
fn order(
    process: &mut Process,
    world: &mut World,
    time: Duration,
    fault: impl Fn(&Step) -> Option<Fault>,
) -> Vec<String> {
    let mut steps = Vec::new();
    live(process, world, time, |step| {
        match step {
            Step::RestartWorkload { target, .. } => steps.push(target.name.clone()),
            Step::Revoke { key_id, .. } => steps.push(key_id.clone()),
            Step::WriteStatus(_) => steps.push("status".to_owned()),
            _ => {}
        }
        fault(step)
    });
    steps
}

#[test]
fn the_status_does_not_wait_for_calls_that_hang() {
    let targets: Vec<Json> =
        (1..=5).map(|number| json!({"kind": "Deployment", "name": format!("worker-{number}")})).collect();
    let (mut world, mut process) = World::ready(json!({"rolloutRestartTargets": targets}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let hang =
        |step: &Step| matches!(step, Step::RestartWorkload { .. }).then_some(Fault::Silent(3 * SECOND));
    let steps = order(&mut process, &mut world, 25 * SECOND, hang);
    assert_eq!(&steps[..3], ["worker-1", "status", "worker-2"], "{steps:?}");
    assert!((3..=5).all(|number| steps.contains(&format!("worker-{number}"))), "{steps:?}");
    let (is_stalled, reason, message) = condition(&world, "Stalled");
    assert!(is_stalled && reason == "RestartFailed" && message.contains("worker-1"), "{message}");
    live(&mut process, &mut world, 20 * MINUTE, |_| None);
    assert!(world.object().status.pending_restarts.is_empty());

    let hang = |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::Silent(30 * SECOND));
    for is_deleted in [false, true] {
        let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "2h"}}));
        for round in ["1", "2"] {
            world.edit(|object| object.rotate = Some(round.to_owned()));
            process.run_until_idle(&mut world);
        }
        assert_eq!(world.record().previous.len(), 2);
        if is_deleted {
            world.delete();
        } else {
            world.edit(|object| object.rotate_now = Some("1".to_owned()));
        }
        let steps = order(&mut process, &mut world, 2 * MINUTE, hang);
        let revocations: Vec<usize> =
            steps.iter().enumerate().filter(|(_, step)| *step != "status").map(|(index, _)| index).collect();
        assert!(revocations.len() >= 2, "{steps:?}");
        assert!(steps[revocations[0]..revocations[1]].contains(&"status".to_owned()), "{steps:?}");
    }
}

#[test]
fn a_slow_failure_is_told_within_half_a_minute() {
    let (mut world, mut process) = World::ready(plain());
    world.edit_spec(json!({"secret": {"key": "OTHER"}}));
    let hang = |step: &Step| matches!(step, Step::Reshape).then_some(Fault::Silent(10 * SECOND));
    live(&mut process, &mut world, 15 * SECOND, hang);
    let (is_stalled, reason, _) = condition(&world, "Stalled");
    assert!(is_stalled && reason == "SecretWriteFailed" && world.elapsed < 20 * MINUTE + 30 * SECOND);
    // A short one is nobody's business.
    let (mut world, mut process) = World::ready(plain());
    world.edit_spec(json!({"secret": {"key": "OTHER"}}));
    let mut times = 0;
    let short = |step: &Step| {
        times += usize::from(matches!(step, Step::Reshape));
        (matches!(step, Step::Reshape) && times <= 2).then_some(Fault::Silent(SECOND))
    };
    let statuses = world.counts.status_writes;
    live(&mut process, &mut world, MINUTE, short);
    assert!(!condition(&world, "Stalled").0);
    assert!(world.counts.status_writes <= statuses + 2);
}

fn refused(kind: &'static str) -> impl Fn(&Step) -> Option<Fault> {
    move |step| (<&str>::from(step) == kind).then_some(Fault::Refused)
}

/// A change of the Secret by somebody else may be the cure.
#[test]
fn a_changed_secret_is_looked_at_at_once() {
    type Change = fn(&mut World);
    let rows: [(&str, Change); 3] = [
        ("Preflight", |world| world.edit(|object| object.rotate = Some("1".to_owned()))),
        ("Reshape", |world| world.edit_spec(json!({"secret": {"key": "OTHER"}}))),
        ("ReleaseSecret", |world| world.edit_spec(json!({"deletionPolicy": "Retain"}))),
    ];
    for (kind, change) in rows {
        let (mut world, mut process) = World::ready(plain());
        change(&mut world);
        live(&mut process, &mut world, HOUR, refused(kind));
        let mut tries = 0;
        let mut count = |step: &Step| {
            tries += usize::from(<&str>::from(step) == kind);
            None
        };
        process.reconcile_with(&mut world, &mut count).unwrap();
        assert_eq!(tries, 0, "{kind}: it waits");
        world.secret();
        let mut count = |step: &Step| {
            tries += usize::from(<&str>::from(step) == kind);
            None
        };
        process.reconcile_with(&mut world, &mut count).unwrap();
        assert_eq!(tries, 1, "{kind}");
        assert!(!condition(&world, "Stalled").0, "{kind}");
        // Somebody who changes it all the time does not make it a loop.
        let (mut world, mut process) = World::ready(plain());
        change(&mut world);
        let calls = world.counts.api_calls;
        for _ in 0..720 {
            live(&mut process, &mut world, 5 * SECOND, refused(kind));
            world.secret();
        }
        assert!(world.counts.api_calls - calls <= 240, "{kind}: {}", world.counts.api_calls - calls);
    }
}

#[test]
fn a_refused_write_of_the_secret_is_tried_again_within_five_minutes() {
    type Change = fn(&mut World);
    let rows: [(&str, Change); 5] = [
        ("Preflight", |world| world.edit(|object| object.rotate = Some("1".to_owned()))),
        ("Reshape", |world| world.edit_spec(json!({"secret": {"key": "OTHER"}}))),
        ("MoveSecret", |world| world.edit_spec(json!({"secret": {"name": "other"}}))),
        ("DeleteSecret", |world| world.edit_spec(json!({"secret": {"name": "other"}}))),
        ("ReleaseSecret", |world| world.edit_spec(json!({"deletionPolicy": "Retain"}))),
    ];
    for (kind, change) in rows {
        let (mut world, mut process) = World::ready(plain());
        change(&mut world);
        live(&mut process, &mut world, 3 * HOUR, refused(kind));
        let mut tries = 0;
        live(&mut process, &mut world, 5 * MINUTE + 10 * SECOND, |step| {
            tries += usize::from(<&str>::from(step) == kind);
            None
        });
        assert!(tries > 0, "{kind}");
    }
}

/// Whoever reads the condition knows when the next try is.
#[test]
fn what_boltz_refuses_says_when_the_next_try_is() {
    let (mut world, mut process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
    live(&mut process, &mut world, 2 * HOUR, |step| {
        matches!(step, Step::Revoke { .. }).then_some(Fault::NotFound)
    });
    let (is_true, _, message) = condition(&world, "RevocationFailing");
    assert!(is_true && message.contains("The next retry is at "), "{message}");
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    live(&mut process, &mut world, HOUR, |step| matches!(step, Step::Mint(_)).then_some(Fault::Conflict));
    let (is_stalled, reason, message) = condition(&world, "Stalled");
    assert!(is_stalled && reason == "BoltzRejected", "{reason}: {message}");
    assert!(message.contains("The next retry is at "), "{message}");
}

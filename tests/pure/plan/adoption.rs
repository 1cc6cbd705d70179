//! An object takes over a Secret that was there before: what becomes of the key that the Secret held, and what nobody can
//! bring about by forging its record.

use boltz_operator::{
    plan::{AccountFacts, BoltzErrorKind, Doubt, Monotonic, Reason, RevokeReason, Step},
    protocol::{
        marker::ObjectMark,
        record::{Record, value_sha256},
    },
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, Secret, World, plain};
use serde_json::{Value as Json, json};
use std::time::Duration;

const NEW: &str = "9b2e7c1a-0d3f-4f5e-8a6b-1c2d3e4f5a6b";

fn live(process: &mut Process, world: &mut World, by: Duration) {
    let until = world.elapsed + by;
    process.live_until(world, until);
}

fn adopting() -> Json {
    json!({"secret": {"adopt": true}})
}

/// An object was deleted with `Retain`, and another is to have its Secret.
fn renamed() -> (World, Process) {
    let (mut world, mut process) = World::ready(json!({"deletionPolicy": "Retain"}));
    world.delete();
    process.run_until_idle(&mut world);
    assert!(world.object.is_none());
    assert_eq!(world.secrets["key"].value.as_deref(), Some("value of key-1"));
    world.secrets_consent = true;
    world.create(NEW, adopting());
    let mut process = Process::start(&world);
    process.take_pass(&mut world);
    (world, process)
}

/// What the record says of the key before, as previous: whether that is proven.
fn says_of_the_key_before(world: &World) -> Option<bool> {
    let previous = world.record().previous.iter().find(|key| key.key_id == "key-1");
    previous.map(|key| key.adopted.as_deref().is_some_and(|proof| !proof.is_empty()))
}

#[test]
fn a_renamed_object_has_a_key_at_every_moment_and_revokes_the_old_one_after_its_overlap() {
    for restarted in [false, true] {
        let (mut world, mut process) = renamed();
        live(&mut process, &mut world, MINUTE);
        assert_eq!((world.ready_reason(), world.counts.posts), ("Issued", 2));
        assert_eq!(world.record().owner_uid, NEW);
        assert_eq!(world.secrets["key"].value.as_deref(), Some("value of key-2"));
        assert_eq!(world.active(), ["key-1", "key-2"]);
        assert_eq!(says_of_the_key_before(&world), Some(true));
        assert_eq!(world.object().status.previous_keys[0].key_id, "key-1");
        if restarted {
            process = Process::start(&world);
        }
        live(&mut process, &mut world, DAY - 5 * MINUTE);
        assert_eq!(world.active(), ["key-1", "key-2"], "its overlap runs");
        live(&mut process, &mut world, 10 * MINUTE);
        assert_eq!(world.active(), ["key-2"]);
        assert_eq!(world.key("key-1").reason, Some(RevokeReason::OverlapOver));
        assert!(world.object().status.previous_keys.is_empty());
        world.assert_good();
    }
}

#[test]
fn the_proof_survives_a_rotation_a_reshape_and_a_crash() {
    let (mut world, mut process) = renamed();
    live(&mut process, &mut world, MINUTE);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, MINUTE);
    assert_eq!(world.record().key_id, "key-3");
    world.edit_spec(json!({"secret": {"adopt": true, "template": {"labels": {"a": "b"}}}}));
    live(&mut process, &mut world, MINUTE);
    assert_eq!(says_of_the_key_before(&world), Some(true));
    process = Process::start(&world);
    live(&mut process, &mut world, DAY);
    assert_eq!(world.active(), ["key-3"]);
    assert_eq!(world.violation, None);
}

#[test]
fn an_object_that_is_deleted_revokes_what_it_adopted() {
    let (mut world, mut process) = renamed();
    live(&mut process, &mut world, HOUR);
    world.delete();
    live(&mut process, &mut world, HOUR);
    assert!(world.object.is_none() && world.active().is_empty(), "{:?}", world.active());
    assert_eq!(world.violation, None);
}

#[test]
fn nothing_is_adopted_that_is_not_asked_for_or_does_not_consent() {
    let rows: [(&str, Json, bool); 3] = [
        ("no consent", adopting(), false),
        ("not asked for", plain(), true),
        ("an object that is suspended", json!({"suspend": true, "secret": {"adopt": true}}), true),
    ];
    for (what, spec, consents) in rows {
        let (mut world, mut process) = renamed();
        world.edit_spec(spec);
        world.secrets_consent = consents;
        let before = world.secrets.clone();
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, &world.secrets), (1, &before), "{what}");
        assert_eq!(world.active(), ["key-1"], "{what}");
    }
}

#[test]
fn consent_that_comes_later_is_seen_at_the_next_look() {
    let (mut world, mut process) = renamed();
    world.secrets_consent = false;
    live(&mut process, &mut world, MINUTE);
    assert_eq!(world.ready_reason(), "SecretConflict");
    world.secrets_consent = true;
    world.edit(|object| object.retry = Some("1".to_owned()));
    live(&mut process, &mut world, 20 * SECOND);
    assert_eq!(world.ready_reason(), "Issued");
    assert_eq!(says_of_the_key_before(&world), Some(true));
}

/// An object with a Secret that is to have another name keeps the one that it has.
#[test]
fn only_an_object_without_a_secret_adopts_one() {
    let (mut world, mut process) = World::ready(plain());
    let theirs = Secret { owner: None, owned: false, record: None, ..world.secrets["key"].clone() };
    world.secrets.insert("theirs".to_owned(), theirs.clone());
    world.secrets_consent = true;
    world.edit_spec(json!({"secret": {"name": "theirs", "adopt": true}}));
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.secrets["theirs"], theirs);
    assert_eq!((world.counts.posts, world.ready_reason()), (1, "Issued"));
    let stalled = &world.object().status.conditions[2];
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "SecretConflict"));
    assert!(stalled.message.contains("Only an object without a Secret adopts"), "{}", stalled.message);
}

#[test]
fn a_secret_that_people_made_is_adopted_and_nothing_is_revoked() {
    let mut world = World::with(adopting());
    let version = 1;
    let theirs = Secret {
        uid: "theirs".to_owned(),
        version,
        record: None,
        value: Some("by hand".to_owned()),
        owner: None,
        owned: false,
    };
    world.secrets.insert("key".to_owned(), theirs);
    world.secrets_consent = true;
    let mut process = Process::start(&world);
    live(&mut process, &mut world, 2 * DAY);
    assert_eq!(world.ready_reason(), "Issued");
    let secret = &world.secrets["key"];
    assert_eq!((secret.uid.as_str(), secret.value.as_deref()), ("theirs", Some("value of key-1")));
    assert!(secret.record.as_ref().unwrap().previous.is_empty());
    assert_eq!(world.active(), ["key-1"]);
    world.assert_good();
}

/// A key of an object that is gone, and whose value nobody here has.
fn key_of_another(world: &mut World) -> Record {
    let attempt = world.keys[0].attempt.clone();
    let theirs = world.make_key("11111111-2222-4333-8444-555555555555", &attempt, None);
    Record {
        owner_uid: "11111111-2222-4333-8444-555555555555".to_owned(),
        key_id: theirs.id,
        ..world.record().clone()
    }
}

/// What can be wrong with the Secret, and what the record then says of the key that it names.
#[test]
fn without_every_part_of_the_proof_a_key_is_never_revoked() {
    type Change = fn(&mut World, &mut Process);
    let rows: [(&str, Change, Option<bool>); 9] = [
        (
            "the record names the key of another",
            |world, _| {
                let forged = key_of_another(world);
                world.secret().record = Some(forged);
            },
            None,
        ),
        (
            "the record names the key of another, and the hash of a value that is none",
            |world, _| {
                let forged = key_of_another(world);
                let secret = world.secret();
                secret.value = Some("invented".to_owned());
                secret.record = Some(Record { value_sha256: value_sha256(b"invented"), ..forged });
            },
            None,
        ),
        (
            "the record says that the key is that of another object",
            |world, _| {
                let owner_uid = "11111111-2222-4333-8444-555555555555".to_owned();
                world.secret().record = Some(Record { owner_uid, ..world.record().clone() });
            },
            None,
        ),
        (
            "the key carries no marker of this cluster",
            |world, process| {
                world.key("key-1").object = ObjectMark::from_uid("of a person");
                process.take_pass(world);
            },
            None,
        ),
        ("the value was altered", |world, _| world.secret().value = Some("altered".to_owned()), None),
        ("the record is gone", |world, _| world.secret().record = None, None),
        ("not all objects can be listed", |world, _| world.objects_are_hidden = true, Some(false)),
        (
            "Boltz has no auth/me",
            |_, process| {
                process.account = AccountFacts { lacks_auth_me: true, ..AccountFacts::default() };
            },
            Some(false),
        ),
        ("the key is not active", |world, _| world.key("key-1").revoked = true, None),
    ];
    for (what, change, expected) in rows {
        let (mut world, mut process) = renamed();
        change(&mut world, &mut process);
        process.take_pass(&mut world);
        // Only that may be called a proof which the world itself has seen.
        live(&mut process, &mut world, 10 * MINUTE);
        assert_eq!(world.ready_reason(), "Issued", "{what}");
        assert_eq!(says_of_the_key_before(&world), expected, "{what}");
        let active: Vec<String> = world.active().into_iter().map(str::to_owned).collect();
        for restarted in [false, true] {
            let mut world = world.clone();
            let mut process = if restarted { Process::start(&world) } else { process.clone() };
            process.account = AccountFacts::default();
            live(&mut process, &mut world, 2 * DAY);
            assert_eq!(world.active(), active, "{what}");
            assert_eq!(world.violation, None, "{what}");
            assert!(!world.record().names("key-1"), "{what}: then it is an orphan that is reported");
        }
    }
}

#[test]
fn a_key_that_is_newer_than_the_newest_pass_is_waited_for() {
    let (mut world, mut process) = renamed();
    let keys = std::mem::take(&mut world.keys);
    process.take_pass(&mut world);
    world.keys = keys;
    live(&mut process, &mut world, 10 * MINUTE);
    assert_eq!(world.ready_reason(), "Issued");
    assert_eq!(says_of_the_key_before(&world), Some(true));
}

#[test]
fn a_key_that_cannot_be_asked_is_waited_for_an_hour() {
    let refuses = |step: &Step| {
        matches!(step, Step::CheckKey { .. }).then_some(Fault::Boltz(BoltzErrorKind::Unavailable))
    };
    let (mut world, mut process) = renamed();
    let until = world.elapsed + 50 * MINUTE;
    process.live_with(&mut world, until, &mut |step| refuses(step)).unwrap();
    assert_eq!((world.counts.posts, world.ready_reason()), (1, "KeyDoubtful"));
    let message = &world.object().status.conditions[0].message;
    assert!(message.contains("The Secret to be adopted may contain key key-1"), "{message}");
    for answers in [true, false] {
        let (mut world, mut process) = (world.clone(), process.clone());
        let until = world.elapsed + 20 * MINUTE;
        process.live_with(&mut world, until, &mut |step| refuses(step).filter(|_| !answers)).unwrap();
        assert_eq!(world.ready_reason(), "Issued");
        assert_eq!(says_of_the_key_before(&world), Some(answers));
        live(&mut process, &mut world, 2 * DAY);
        assert_eq!(world.key("key-1").revoked, answers);
        assert_eq!(world.violation, None);
        assert_eq!(world.record().names("key-1"), answers, "or else it is an orphan that is reported");
    }
}

#[test]
fn a_list_that_is_doubtful_or_missing_is_waited_for_an_hour() {
    for is_missing in [true, false] {
        for recovers in [true, false] {
            let (mut world, mut process) = renamed();
            if is_missing {
                process = Process::start(&world);
            } else {
                world.list_lies = plan_world::Lie::Old(Vec::new());
                world.doubt = Doubt::Many;
                process.take_pass(&mut world);
            }
            let decision = process.reconcile(&mut world).unwrap();
            assert_eq!((decision.step, world.counts.posts), (Step::Wait, 1));
            assert_eq!(world.ready_reason(), Reason::Pending.as_str());
            assert_eq!(decision.pass_since, is_missing.then(Monotonic::default), "it asks for a list");
            let given_up_at = decision.wake_at.unwrap();
            if recovers {
                (world.list_lies, world.doubt) = (plan_world::Lie::None, Doubt::None);
                process.take_pass(&mut world);
            } else {
                world.advance_to(process.started + given_up_at.0 + SECOND);
            }
            process.reconcile(&mut world);
            assert_eq!(world.ready_reason(), "Issued");
            assert_eq!(says_of_the_key_before(&world), Some(recovers));
        }
    }
}

/// Somebody writes into the record of the own Secret that it adopted a key.
#[test]
fn a_forged_proof_proves_nothing() {
    let (mut world, mut process) = renamed();
    live(&mut process, &mut world, MINUTE);
    let forged = key_of_another(&mut world).key_id;
    let mine = world.record().previous[0].clone();
    for proof in ["", "a proof", &world.proof(NEW, "key-1"), &world.proof("another object", &forged)] {
        let (mut world, mut process) = (world.clone(), process.clone());
        let mut record = world.record().clone();
        let mut entry = mine.clone();
        (entry.key_id, entry.adopted) = (forged.clone(), Some(proof.to_owned()));
        entry.revoke_after = world.true_time();
        record.previous.push(entry);
        world.secret().record = Some(record);
        for process in [&mut process, &mut Process::start_other(&world, 2)] {
            let mut world = world.clone();
            live(process, &mut world, 2 * DAY);
            assert!(!world.key(&forged).revoked, "{proof}");
            assert_eq!(world.violation, None);
            assert!(!world.record().names(&forged), "it is an orphan that is reported");
        }
    }
}

#[test]
fn with_another_admin_key_an_old_proof_is_none() {
    let (mut world, mut process) = renamed();
    live(&mut process, &mut world, MINUTE);
    world.admin_key = 2;
    process = Process::start_other(&world, 2);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, DAY - 10 * MINUTE);
    assert_eq!(world.record().key_id, "key-3");
    assert_eq!(says_of_the_key_before(&world), Some(true), "it is no orphan before the end of its overlap");
    live(&mut process, &mut world, DAY);
    assert!(!world.key("key-1").revoked);
    assert!(!world.record().names("key-1"), "it is reported as an orphan");
}

/// A write whose answer is lost, and a process that dies at each step: the old key is never in doubt.
#[test]
fn a_fault_at_any_step_loses_no_key() {
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::Lost, Fault::Cut, Fault::Conflict];
    for fault in faults {
        for index in 0..8 {
            let (mut world, mut process) = renamed();
            let mut steps = 0;
            let until = world.elapsed + 20 * MINUTE;
            let crashed = process.live_with(&mut world, until, &mut |_| {
                steps += 1;
                (steps == index + 1).then_some(fault)
            });
            if crashed.is_err() {
                process = Process::start_other(&world, 2);
                live(&mut process, &mut world, 20 * MINUTE);
            }
            assert_eq!(world.ready_reason(), "Issued", "{fault:?} at {index}");
            assert_eq!(says_of_the_key_before(&world), Some(true), "{fault:?} at {index}");
            live(&mut process, &mut world, DAY);
            assert!(world.key("key-1").revoked, "{fault:?} at {index}");
            world.assert_good();
        }
    }
}

/// Between the look at the Secret and the write somebody puts another value into it.
#[test]
fn another_value_is_asked_anew() {
    for same_key in [true, false] {
        let (mut world, mut process) = renamed();
        let forged = key_of_another(&mut world);
        let mut facts = process.facts(&world, false).unwrap();
        while !matches!(process.decide_on(&world, &mut facts).step, Step::Store { .. }) {
            process.step(&mut world, &mut facts, &mut |_| None).unwrap_or_else(|_| panic!("it crashed"));
        }
        let record = if same_key { world.record().clone() } else { forged.clone() };
        let secret = world.secret();
        secret.record = Some(Record { value_sha256: value_sha256(b"invented"), ..record });
        secret.value = Some("invented".to_owned());
        // The key in hand is stored, or revoked and another one stored.
        process.step(&mut world, &mut facts, &mut |_| None).unwrap_or_else(|_| panic!("it crashed"));
        live(&mut process, &mut world, 10 * MINUTE);
        assert_eq!(world.ready_reason(), "Issued");
        assert_ne!(says_of_the_key_before(&world), Some(true), "{same_key}");
        live(&mut process, &mut world, 2 * DAY);
        assert!(!world.key("key-1").revoked && !world.key(&forged.key_id).revoked);
        assert_eq!(world.violation, None);
        assert!(!world.record().names("key-1") && !world.record().names(&forged.key_id));
    }
}

fn restarting(mut spec: Json) -> Json {
    spec["rolloutRestartTargets"] = json!([{"kind": "Deployment", "name": "web"}]);
    spec
}

#[test]
fn a_first_key_restarts_workloads_if_it_replaces_a_value() {
    // A value that another object left.
    for crashes in [false, true] {
        let (mut world, mut process) = renamed();
        world.edit_spec(restarting(adopting()));
        if crashes {
            let until = world.elapsed + MINUTE;
            let mut fault = |step: &Step| {
                matches!(step, Step::RestartWorkload { .. } | Step::WriteStatus(_))
                    .then_some(Fault::CrashBefore)
            };
            assert!(process.live_with(&mut world, until, &mut fault).is_err());
            process = Process::start_other(&world, 2);
        }
        live(&mut process, &mut world, MINUTE);
        assert_eq!(world.ready_reason(), "Issued");
        assert_eq!(world.workloads["Deployment web"].0, "key-2", "{crashes}");
        world.workloads.clear();
        live(&mut process, &mut world, HOUR);
        live(&mut Process::start_other(&world, 3), &mut world, HOUR);
        assert!(world.workloads.is_empty(), "only once");
    }
    // There was no value.
    let (world, _) = World::ready(restarting(plain()));
    assert!(world.workloads.is_empty());
}

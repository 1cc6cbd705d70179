//! What users can write into the annotations and the status of their own object: nothing of it makes the operator forget
//! a key, and nothing costs more than its length.

use boltz_operator::{
    api::{BoltzApiKeyStatus, WatchedApiKey},
    controller::object_facts,
    plan::{Plan, Step},
    protocol::{
        ledger::{Forgery, Ledger, LedgerEntry},
        marker::AttemptId,
        record::Record,
    },
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, UID, World, is_mint, plain, words};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The settle time and the window of the world's settings.
const SETTLING: Duration = Duration::from_secs(180);

fn ruin(world: &mut World, text: &str) {
    world.edit(|object| object.ledger = Ledger::parse(Some(text)));
}

fn forged_entries(count: u64) -> String {
    let entry =
        |bits| LedgerEntry::new(AttemptId::from_random(bits), "2020-01-01T00:00:00Z".parse().unwrap(), None);
    Ledger::new((1000..1000 + count).map(entry).collect()).to_annotation()
}

fn condition<'a>(world: &'a World, kind: &str) -> (&'a str, &'a str) {
    let conditions = &world.object().status.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&condition.reason, &condition.message)
}

#[test]
fn with_a_forged_ledger_nothing_is_issued_until_a_pass_shows_the_attempts() {
    for (text, forgery) in [
        ("no ledger".to_owned(), Forgery::Unreadable),
        ("{}".to_owned(), Forgery::Unreadable),
        (forged_entries(65), Forgery::TooLong),
        (forged_entries(4000), Forgery::TooLong),
    ] {
        let (mut world, mut process) = World::ready(plain());
        let ledger = world.object().ledger.clone();
        ruin(&mut world, &text);
        assert_eq!(world.object().ledger.forgery, Some(forgery));
        world.edit(|object| object.rotate_now = Some("1".to_owned()));
        let forged_at = world.elapsed;
        process.live_until(&mut world, forged_at + SETTLING - SECOND);
        assert_eq!(world.counts.posts, 1, "nothing is issued yet");
        assert!(world.object().ledger.forgery.is_some(), "nor is the ledger written");
        let (reason, message) = condition(&world, "Reconciling");
        assert_eq!(reason, "Pending");
        assert!(message.contains("boltz.bio/attempts") && message.contains("no key is issued"), "{message}");
        process.live_until(&mut world, forged_at + SETTLING + 2 * SECOND);
        assert_eq!(world.record().key_id, "key-2", "then it is issued at once");
        assert!(world.object().ledger.contains(&ledger.entries[0].attempt), "the key of the first lives");
        process.run_until_idle(&mut world);
        world.assert_good();
        assert_eq!(world.counts.posts, 2);
    }
}

#[test]
fn a_forged_ledger_is_written_anew_although_nothing_is_to_be_issued() {
    for suspended in [false, true] {
        for other in [false, true] {
            let (mut world, mut process) = World::rotated(plain());
            let attempts: Vec<AttemptId> =
                world.object().ledger.entries.iter().map(|entry| entry.attempt.clone()).collect();
            assert_eq!(attempts.len(), 2, "the current and the previous key");
            if suspended {
                world.edit_spec(json!({"suspend": true}));
            }
            if other {
                process = Process::start_other(&world, 2);
            }
            ruin(&mut world, "no ledger");
            process.run_until_idle(&mut world);
            let ledger = world.object().ledger.clone();
            assert_eq!(ledger.forgery, None);
            assert!(attempts.iter().all(|attempt| ledger.contains(attempt)), "{ledger:?}");
            assert_eq!(condition(&world, "Reconciling").1, "", "the condition says nothing of it any more");
            assert_eq!((world.counts.posts, world.active()), (2, vec!["key-1", "key-2"]));
        }
    }
}

#[test]
fn a_key_that_appears_after_the_ledger_was_forged_is_found() {
    for (deletes, crashes) in [(false, false), (true, false), (false, true), (true, true)] {
        for text in ["no ledger".to_owned(), forged_entries(4000)] {
            let (mut world, mut process) = World::ready(plain());
            world.edit(|object| object.rotate_now = Some("1".to_owned()));
            // As late as it may be: the POST was sent at once, and Boltz executes it a settle time later.
            let late = &mut |step: &Step| is_mint(step).then_some(Fault::Late(2 * MINUTE));
            process.reconcile_with(&mut world, late).unwrap();
            ruin(&mut world, &text);
            if crashes {
                process = Process::start_other(&world, 2);
            }
            if deletes {
                world.delete();
            }
            process.live_until(&mut world, 2 * HOUR);
            if deletes {
                assert!(world.object.is_none(), "the deletion ends");
                assert_eq!(world.active(), [""; 0]);
            } else {
                world.assert_good();
                assert_eq!(world.object().ledger.forgery, None);
            }
        }
    }
}

#[test]
fn no_forged_time_makes_an_attempt_over_before_it_is() {
    for written_at in ["0001-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
        for (deletes, crashes) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut world = World::with(plain());
            let mut process = Process::start(&world);
            process.take_pass(&mut world);
            let late = &mut |step: &Step| is_mint(step).then_some(Fault::Late(2 * MINUTE));
            process.reconcile_with(&mut world, late).unwrap();
            let written_at = written_at.parse().unwrap();
            world.edit(|object| object.ledger.entries[0].written_at = written_at);
            if crashes {
                process = Process::start_other(&world, 2);
            }
            if deletes {
                world.delete();
            }
            process.live_until(&mut world, HOUR);
            if deletes {
                assert!(world.object.is_none(), "the deletion ends");
                assert_eq!(world.active(), [""; 0], "{written_at}, crashes: {crashes}");
            } else {
                world.assert_good();
            }
        }
    }
}

#[test]
fn more_strays_than_a_ledger_has_room_for_are_revoked() {
    for text in ["no ledger".to_owned(), forged_entries(100)] {
        for deletes in [false, true] {
            let (mut world, mut process) = World::ready(plain());
            for bits in 100..130 {
                world.make_key(UID, &AttemptId::from_random(bits), None);
            }
            ruin(&mut world, &text);
            if deletes {
                world.delete();
            }
            process.live_until(&mut world, HOUR);
            if deletes {
                assert!(world.object.is_none());
                assert_eq!(world.active(), [""; 0]);
            } else {
                world.assert_good();
                assert_eq!(world.active(), ["key-1"]);
                assert_eq!(world.object().ledger.forgery, None);
            }
        }
    }
}

#[test]
fn retained_keys_are_named_although_the_ledger_is_forged() {
    let (mut world, mut process) = World::ready(plain());
    world.make_key(UID, &AttemptId::from_random(100), None);
    ruin(&mut world, "no ledger");
    world.edit_spec(json!({"deletionPolicy": "Retain"}));
    process.take_pass(&mut world);
    world.secrets.clear();
    world.delete();
    assert_eq!(words(&process.decide(&world)), "remove the finalizer, leaving key-1 key-2");
}

/// An object as the API server has it, with everything forged that a user can.
fn forged_object(world: &World) -> (boltz_operator::plan::ObjectFacts, Record) {
    let previous =
        |index: u32| json!({"keyID": format!("forged-{index}"), "revokeAfter": "2020-01-01T00:00:00Z"});
    let previous: Vec<Value> = (0..2200).map(previous).collect();
    let mut record = serde_json::to_value(world.record()).unwrap();
    record["previous"] = json!(previous);
    let record = Record::parse(Some(&record.to_string())).unwrap();
    let status = BoltzApiKeyStatus { previous_keys: Vec::new(), ..world.object().status.clone() };
    let mut status = json!(status);
    status["previousKeys"] = json!(previous);
    let object: WatchedApiKey = serde_json::from_value(json!({
        "metadata": {
            "name": "key",
            "namespace": "team",
            "uid": UID,
            "annotations": {"boltz.bio/attempts": forged_entries(4000)},
        },
        "spec": plain(),
        "status": status,
    }))
    .unwrap();
    (object_facts(&object), record)
}

#[test]
fn an_object_with_thousands_of_forged_keys_costs_little_and_ends() {
    for deletes in [true, false] {
        let (mut world, mut process) = World::ready(plain());
        let (forged, record) = forged_object(&world);
        world.edit(|object| {
            object.ledger = forged.ledger.clone();
            object.status = forged.status.clone();
        });
        world.secret().record = Some(record);
        let facts = process.facts(&world, false).unwrap();
        assert!(facts.named_keys().len() <= 1 + 64, "{}", facts.named_keys().len());
        if deletes {
            world.delete();
        }
        let (before, calls, started) = (world.elapsed, world.counts.clone(), Instant::now());
        process.live_until(&mut world, before + HOUR);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?} for an hour", started.elapsed());
        let passes = world.counts.passes - calls.passes;
        assert!(passes <= 6 + 8, "{passes} passes in an hour");
        assert!(world.counts.api_calls - calls.api_calls <= 30);
        if deletes {
            assert!(world.object.is_none(), "the deletion ends");
            assert_eq!(world.active(), [""; 0]);
        } else {
            world.assert_good();
            assert_eq!(world.object().ledger.forgery, None);
            assert_eq!(world.object().status.previous_keys, []);
            assert_eq!((world.record().previous.len(), world.record().is_cut), (0, false));
            world.edit(|object| object.rotate = Some("1".to_owned()));
            process.run_until_idle(&mut world);
            assert_eq!(world.record().key_id, "key-2", "keys are issued as ever");
        }
    }
}

#[test]
fn a_message_names_ten_keys_at_most() {
    let (mut world, mut process) = World::ready(plain());
    let (forged, record) = forged_object(&world);
    world.edit(|object| object.status = forged.status.clone());
    world.secret().record = Some(record);
    world.delete();
    process.reconcile(&mut world).unwrap();
    // Shorter waits are not told.
    world.elapsed += 10 * SECOND;
    let decision: Plan = process.reconcile(&mut world).unwrap();
    let message = decision.findings.blocked.unwrap().message;
    assert!(message.contains(" more") && message.len() < 1000, "{message}");
}

#[test]
fn a_ledger_that_is_forged_again_and_again_is_not_written_again_and_again() {
    let (mut world, mut process) = World::ready(plain());
    let writes = world.counts.object_writes;
    let until = world.elapsed + DAY / 4;
    while world.elapsed < until {
        ruin(&mut world, "no ledger");
        let next = world.elapsed + 5 * MINUTE;
        process.live_until(&mut world, next);
    }
    let writes = world.counts.object_writes - writes;
    assert!(writes <= 60, "{writes} writes in six hours");
    process.run_until_idle(&mut world);
    world.assert_good();
    assert_eq!(world.object().ledger.forgery, None);
}

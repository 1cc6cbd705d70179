//! Lists that do not show the current key as active: the key itself is checked, and nothing follows from a wrong list.

use boltz_operator::plan::{Block, BoltzErrorKind, Doubt, Reason, Step};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World, plain, words};
use serde_json::json;

fn conditions(world: &World) -> Vec<(String, String, String)> {
    let conditions = &world.object().status.conditions;
    conditions
        .iter()
        .map(|condition| (condition.type_.clone(), condition.status.clone(), condition.reason.clone()))
        .collect()
}

fn condition(kind: &str, status: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), status.to_owned(), reason.to_owned())
}

/// Every key is shown as inactive, or as another's.
fn lie(world: &mut World) {
    world.list_shows_inactive = true;
}

fn truth(world: &mut World) {
    world.list_shows_inactive = false;
}

fn live_for(process: &mut Process, world: &mut World, time: std::time::Duration) {
    let until = world.elapsed + time;
    process.live_until(world, until);
}

#[test]
fn a_key_that_is_revoked_by_others_is_replaced_after_it_was_asked() {
    for is_listed in [true, false] {
        let (mut world, mut process) = World::ready(plain());
        live_for(&mut process, &mut world, HOUR);
        world.key("key-1").revoked = true;
        if !is_listed {
            world.list_lag = 10 * DAY;
            process.take_pass(&mut world);
        }
        process.take_pass(&mut world);
        assert_eq!(words(&process.decide(&world)), "check the key");
        live_for(&mut process, &mut world, MINUTE);
        assert_eq!(world.record().reason.as_str(), "KeyInactive");
        assert_eq!(world.counts.posts, 2);
    }
}

#[test]
fn a_list_that_lies_for_a_day_changes_nothing_and_is_reported() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    lie(&mut world);
    process.take_pass(&mut world);
    live_for(&mut process, &mut world, 10 * SECOND);
    assert_eq!(
        conditions(&world),
        [
            condition("Ready", "True", "Issued"),
            condition("Reconciling", "False", "KeyDoubtful"),
            condition("Stalled", "True", "KeyDoubtful")
        ]
    );
    let (boltz, status) = (world.counts.boltz_calls, world.counts.status_writes);
    live_for(&mut process, &mut world, DAY);
    assert_eq!(world.counts.posts, 1);
    assert_eq!(world.counts.status_writes, status, "the status does not change");
    let asked = world.counts.boltz_calls - boltz;
    assert!((10..=40).contains(&asked), "asked {asked} times");
    world.assert_good();
    truth(&mut world);
    live_for(&mut process, &mut world, HOUR);
    assert_eq!(conditions(&world)[2], condition("Stalled", "False", "Issued"));
    world.assert_good();
}

#[test]
fn a_deletion_does_not_give_up_a_key_that_only_the_list_calls_gone() {
    // Another process: this one did not create the key.
    let deleted = |is_revoked: bool, fault: Option<Fault>| {
        let (mut world, _) = World::ready(plain());
        let mut process = Process::start_other(&world, 7);
        live_for(&mut process, &mut world, HOUR);
        world.key("key-1").revoked = is_revoked;
        lie(&mut world);
        process.take_pass(&mut world);
        process.take_pass(&mut world);
        world.delete();
        let calls = world.counts.boltz_calls;
        let until = world.elapsed + 2 * HOUR;
        let mut faults = |step: &Step| fault.filter(|_| matches!(step, Step::CheckKey { .. }));
        process.live_with(&mut world, until, &mut faults).unwrap();
        assert!(world.object.is_none(), "the object is gone");
        (world.key("key-1").revoked, world.counts.boltz_calls - calls)
    };
    assert_eq!(deleted(false, None), (true, 2), "asked, then revoked");
    assert_eq!(deleted(true, None), (true, 1), "asked, and revoked already");
    // Its value cannot be read, or the answer is unclear for an hour: it is revoked all the same.
    assert_eq!(deleted(false, Some(Fault::Refused)), (true, 2));
    let (is_revoked, calls) = deleted(false, Some(Fault::Boltz(BoltzErrorKind::Unauthorized)));
    assert!(is_revoked && (2..=40).contains(&calls), "an hour of unclear answers: {calls} calls");
}

/// Its value is gone, so that it cannot be asked.
#[test]
fn a_previous_key_that_the_list_calls_inactive_is_revoked_at_the_end_of_its_overlap() {
    let (mut world, _) = World::rotated(plain());
    let mut process = Process::start_other(&world, 7);
    lie(&mut world);
    live_for(&mut process, &mut world, HOUR);
    assert!(!world.key("key-1").revoked, "its overlap is not over");
    assert_eq!(world.object().status.previous_keys.len(), 1, "status still shows it");
    live_for(&mut process, &mut world, 2 * DAY);
    assert!(world.key("key-1").revoked);
}

/// Boltz revoked the key and answered 404, and its list lacks the key: that is not believed, and the key itself is asked.
#[test]
fn a_deletion_asks_a_key_that_may_be_revoked_when_the_list_is_doubtful() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    world.delete();
    world.key("key-1").revoked = true;
    world.doubt = Doubt::Many;
    world.list_lag = 10 * DAY;
    process.take_pass(&mut world);
    let until = world.elapsed + 20 * MINUTE;
    let mut faults = |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::NotFound);
    process.live_with(&mut world, until, &mut faults).unwrap();
    assert!(world.object.is_none(), "the key says that it is not valid");
}

#[test]
fn what_waits_for_a_list_that_cannot_be_read_says_so() {
    let failing = || {
        let message = "Failed to read Boltz's list of keys: down.".to_owned();
        Some(Block { reason: Reason::BoltzUnavailable, message, until: None })
    };
    let (mut world, _) = World::rotated(plain());
    let until = world.elapsed + 2 * DAY;
    world.advance_to(until);
    // It has read no list yet.
    let mut process = Process::start_other(&world, 9);
    process.account.list_failing = failing();
    process.reconcile(&mut world);
    let failing_revocation =
        world.object().status.conditions.iter().find(|known| known.type_ == "RevocationFailing").unwrap();
    assert_eq!(failing_revocation.status, "True");
    assert!(failing_revocation.message.contains("read Boltz's list of keys: down."));
    world.delete();
    process.reconcile(&mut world);
    let ready = &world.object().status.conditions[0];
    assert!(ready.message.contains("read Boltz's list of keys: down."), "{}", ready.message);
}

/// The check of a key that was replaced says nothing about the key after it, and does not delay its check.
#[test]
fn another_key_is_asked_at_once() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    lie(&mut world);
    process.take_pass(&mut world);
    live_for(&mut process, &mut world, HOUR);
    assert_eq!(world.counts.posts, 1);
    truth(&mut world);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live_for(&mut process, &mut world, 20 * MINUTE);
    world.key("key-2").revoked = true;
    process.take_pass(&mut world);
    assert_eq!(words(&process.decide(&world)), "check the key");
}

#[test]
fn a_deletion_goes_on_when_boltz_may_be_called_again() {
    let (mut world, _) = World::ready(plain());
    let mut process = Process::start_other(&world, 7);
    live_for(&mut process, &mut world, HOUR);
    world.key("key-1").revoked = true;
    process.take_pass(&mut world);
    let block = Block { reason: Reason::BoltzUnauthorized, message: "no".to_owned(), until: None };
    process.account.calls_blocked = Some(block);
    world.delete();
    live_for(&mut process, &mut world, HOUR);
    assert!(world.object.is_some(), "nobody can be asked");
    process.account.calls_blocked = None;
    live_for(&mut process, &mut world, 2 * MINUTE);
    assert!(world.object.is_none());
}

#[test]
fn an_unclear_answer_proves_nothing_for_an_hour() {
    let unclear = || {
        |step: &Step| {
            let strikes = matches!(step, Step::CheckKey { .. });
            strikes.then_some(Fault::Boltz(BoltzErrorKind::Unauthorized))
        }
    };
    for lasts in [true, false] {
        let (mut world, mut process) = World::ready(plain());
        live_for(&mut process, &mut world, HOUR);
        lie(&mut world);
        process.take_pass(&mut world);
        let until = world.elapsed + 55 * MINUTE;
        process.live_with(&mut world, until, &mut unclear()).unwrap();
        assert_eq!(world.counts.posts, 1);
        assert_eq!(conditions(&world)[0], condition("Ready", "False", "KeyDoubtful"));
        if !lasts {
            truth(&mut world);
        }
        let until = world.elapsed + 20 * MINUTE;
        process.live_with(&mut world, until, &mut unclear()).unwrap();
        assert_eq!(world.counts.posts, if lasts { 2 } else { 1 });
    }
}

#[test]
fn without_auth_me_the_list_is_believed() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    process.account.lacks_auth_me = true;
    world.key("key-1").revoked = true;
    process.take_pass(&mut world);
    assert_eq!(words(&process.decide(&world)), "issue: KeyInactive");
}

#[test]
fn a_doubtful_list_proves_no_absence() {
    for (doubt, posts) in [(Doubt::Many, 1), (Doubt::All, 2)] {
        let (mut world, mut process) = World::ready(plain());
        live_for(&mut process, &mut world, HOUR);
        // Even if it is true: of many keys, nobody believes it at once.
        world.key("key-1").revoked = true;
        world.doubt = doubt;
        process.take_pass(&mut world);
        live_for(&mut process, &mut world, DAY);
        assert_eq!(world.counts.posts, posts, "{doubt:?}");
        if doubt == Doubt::Many {
            assert_eq!(conditions(&world)[0], condition("Ready", "True", "Issued"));
            assert_eq!(conditions(&world)[2], condition("Stalled", "True", "KeyDoubtful"));
        }
    }
}

/// Somebody revokes every key at once.
#[test]
fn keys_that_are_revoked_again_and_again_are_issued_ever_more_seldom() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    let begin = world.elapsed;
    let mut issued = Vec::new();
    while world.elapsed < begin + HOUR {
        world.keys.iter_mut().for_each(|key| key.revoked = true);
        process.take_pass(&mut world);
        let before = world.counts.posts;
        live_for(&mut process, &mut world, SECOND);
        if world.counts.posts > before {
            issued.push((world.elapsed - begin).as_secs());
        }
    }
    assert!((8..=14).contains(&issued.len()), "issued at {issued:?}");
    let last = issued.len() - 1;
    assert!(issued[last] - issued[last - 1] >= 500, "issued at {issued:?}");
}

/// The finalizer stays while a list that is not believed lacks the key.
#[test]
fn a_deletion_does_not_believe_a_doubtful_list() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    let mut other = Process::start_other(&world, 9);
    world.doubt = Doubt::Many;
    let hidden = std::mem::take(&mut world.keys);
    other.take_pass(&mut world);
    world.delete();
    live_for(&mut other, &mut world, 3 * HOUR);
    let ready = world.object().status.conditions[0].message.clone();
    assert!(ready.contains("does not trust the list"), "{ready}");
    world.keys = hidden;
    world.doubt = Doubt::None;
    live_for(&mut other, &mut world, HOUR);
    assert!(world.object.is_none());
    assert_eq!(world.active(), Vec::<&str>::new());
}

#[test]
fn a_deletion_revokes_what_a_doubtful_list_shows_as_inactive() {
    let (mut world, mut process) = World::ready(plain());
    live_for(&mut process, &mut world, HOUR);
    world.doubt = Doubt::Many;
    lie(&mut world);
    process.take_pass(&mut world);
    world.delete();
    live_for(&mut process, &mut world, MINUTE);
    assert_eq!(world.active(), Vec::<&str>::new());
}

/// This process knows that it made the key.
#[test]
fn a_key_of_this_process_is_revoked_even_if_the_list_does_not_show_it() {
    let (mut world, mut process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
    let key = world.keys.remove(0);
    let boltz = world.counts.boltz_calls;
    process.take_pass(&mut world);
    process.take_pass(&mut world);
    live_for(&mut process, &mut world, 2 * HOUR);
    assert_eq!(world.counts.boltz_calls, boltz + 1, "{} is revoked", key.id);
}

/// The operator moves to another organization: the keys that stay behind are not disowned, and not revoked.
#[test]
fn keys_of_another_organization_are_replaced_and_kept() {
    let organization = |name: &str| Some(name.to_owned());
    let mut world = World::with(json!({"rotation": {"overlap": "1h"}}));
    let mut process = Process::start(&world);
    process.account.organization = organization("a");
    live_for(&mut process, &mut world, HOUR);
    assert_eq!(world.record().organization, organization("a"));
    // The list of the other organization does not have the key.
    let left_behind = std::mem::take(&mut world.keys);
    let mut next = Process::start_other(&world, 9);
    next.account.organization = organization("b");
    // Nobody accepted it: the account ConfigMap was deleted. Whatever wants a key waits.
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live_for(&mut next, &mut world, HOUR);
    let stalled = conditions(&world)[2].clone();
    assert_eq!((world.keys.len(), stalled.2.as_str()), (0, "BoltzUnauthorized"));
    let secrets = std::mem::take(&mut world.secrets);
    live_for(&mut next, &mut world, HOUR);
    assert_eq!(world.keys.len(), 0, "the ledger also names the organization");
    world.secrets = secrets;
    next.account.accepts_organization = true;
    live_for(&mut next, &mut world, 5 * HOUR);
    let record = world.record();
    assert_eq!(
        (record.reason.as_str(), record.organization.clone()),
        ("ParametersChanged", organization("b"))
    );
    assert_eq!(record.previous.iter().map(|key| &key.key_id).collect::<Vec<_>>(), [&left_behind[0].id]);
    assert_eq!(record.previous[0].organization, organization("a"));
    let stalled = world.object().status.conditions[2].message.clone();
    assert!(stalled.contains("organization a"), "{stalled}");
    world.delete();
    live_for(&mut next, &mut world, DAY);
    assert!(world.object.is_some(), "a deletion waits for the key");
    assert_eq!(world.active(), Vec::<&str>::new(), "and revokes what it can");
    // Back in the first one.
    world.keys.extend(left_behind);
    next.account.organization = organization("a");
    live_for(&mut next, &mut world, HOUR);
    world.keys.iter().for_each(|key| assert!(key.revoked, "{key:?}"));
}

/// What the key said before it was revoked counts no more.
#[test]
fn a_key_that_was_valid_against_the_list_can_be_revoked() {
    for deletes in [true, false] {
        let (mut world, mut process) = World::ready(plain());
        live_for(&mut process, &mut world, HOUR);
        lie(&mut world);
        process.take_pass(&mut world);
        live_for(&mut process, &mut world, MINUTE);
        assert_eq!(conditions(&world)[2].2, "KeyDoubtful");
        if deletes {
            world.delete();
        } else {
            world.edit(|object| object.rotate_now = Some("1".to_owned()));
        }
        let calls = world.counts.boltz_calls;
        live_for(&mut process, &mut world, 20 * MINUTE);
        assert!(world.counts.boltz_calls - calls <= 12, "{}", world.counts.boltz_calls - calls);
        assert!(world.key("key-1").revoked);
        assert_eq!(world.object.is_none(), deletes);
    }
}

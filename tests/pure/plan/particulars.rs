//! Particulars that the stories of the other files do not tell: each stands for a mutant of the code that survived them.

use boltz_operator::{
    api::BoltzApiKeyStatus,
    plan::{
        AccountFacts, Attempt, Block, Facts, ListedKey, Monotonic, Now, OwnSecret, ProcessMemory, Progress,
        Reason, RevokeReason, SecretFacts, Slot, Step, plan,
    },
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::AttemptId,
        record::IssueReason,
    },
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World, is_mint, is_store, plain, words};
use serde_json::json;
use std::time::Duration;

fn until(wake_at: Duration, reason: Reason, message: &str) -> Block {
    Block { reason, message: message.to_owned(), until: Some(Monotonic(wake_at)) }
}

/// The facts of a process that has just made its object Ready, and the present.
fn facts() -> (World, Facts, Now) {
    let (world, mut process) = World::ready(plain());
    let (facts, now) = (process.facts(&world, true).unwrap(), process.now(&world));
    (world, facts, now)
}

#[test]
fn workloads_are_restarted_once_for_each_rotation_before_status_reports_it() {
    let targets = json!([{"kind": "Deployment", "name": "worker"}]);
    let mut world = World::with(json!({"rolloutRestartTargets": targets}));
    let mut process = Process::start(&world);
    let mut steps = Vec::new();
    let mut run = |process: &mut Process, world: &mut World| {
        let look = &mut |step: &Step| {
            match step {
                Step::RestartWorkload { .. } => steps.push("restart"),
                Step::WriteStatus(_) => steps.push("status"),
                _ => {}
            }
            None
        };
        process.reconcile_with(world, look).unwrap();
        std::mem::take(&mut steps)
    };
    assert_eq!(run(&mut process, &mut world), ["status"], "nobody runs with an older key");
    world.edit(|object| object.rotate = Some("1".to_owned()));
    assert_eq!(run(&mut process, &mut world), ["restart", "status"]);
    // Whoever comes next reads how far the rollout is.
    assert_eq!(run(&mut Process::start_other(&world, 8), &mut world), ["status"]);
    assert_eq!(run(&mut Process::start_other(&world, 9), &mut world), [""; 0], "a restart owes nothing");
}

#[test]
fn a_record_says_all_that_boltz_answered_and_counts_rotations() {
    let (mut world, mut process) = World::ready(plain());
    for round in 1..=3 {
        world.edit(|object| object.rotate = Some(round.to_string()));
        process.reconcile(&mut world);
        let record = world.record();
        assert_eq!(record.rotations, round);
        assert_eq!(record.reason, IssueReason::RotateRequested);
        assert_eq!(record.key_prefix, format!("sk_{}", record.key_id));
        assert_eq!(record.workspace_id.as_deref(), Some("workspace"));
        assert!(record.livemode);
    }
    // Without its Secret the object still knows by its status.
    world.secrets.clear();
    process.run_until_idle(&mut world);
    assert_eq!((world.record().rotations, world.record().reason), (4, IssueReason::SecretMissing));
    assert_eq!(world.object().status.rotations, Some(4));
}

#[test]
fn the_largest_count_of_rotations_stays() {
    // Anybody with rights on Secret or status can write it there.
    for forge_status in [false, true] {
        let (mut world, mut process) = World::ready(plain());
        if forge_status {
            world.secrets.clear();
            world.edit(|object| object.status.rotations = Some(i64::MAX));
        } else {
            world.secret().record.as_mut().unwrap().rotations = i64::MAX;
            world.edit(|object| object.rotate = Some("1".to_owned()));
        }
        process.run_until_idle(&mut world);
        assert_eq!((world.counts.posts, world.record().rotations), (2, i64::MAX), "{forge_status}");
    }
}

#[test]
fn the_reason_tells_a_first_key_from_a_replaced_one() {
    // Its own Secret without a record, and no key ever.
    let mut world = World::with(plain());
    let (mut other, _) = World::ready(plain());
    other.secret().record = None;
    world.secrets = other.secrets;
    assert_eq!(words(&Process::start(&world).decide(&world)), "issue: Initial");
    // Stored, but no status says so yet: only this process remembers.
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let cut = &mut |step: &Step| matches!(step, Step::WriteStatus(_)).then_some(Fault::CrashBefore);
    process.reconcile_with(&mut world, cut).unwrap_err();
    assert!(world.object().status.key_id.is_none());
    world.secrets.clear();
    world.advance_to(SECOND);
    assert_eq!(words(&process.decide(&world)), "issue: SecretMissing");
}

#[test]
fn a_key_in_hand_gives_way_to_a_later_attempt_and_to_no_other() {
    let (mut world, mut slow) = World::ready(plain());
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let pause = &mut |step: &Step| is_store(step).then_some(Fault::CrashBefore);
    slow.reconcile_with(&mut world, pause).unwrap_err();
    let before = world.clone();
    let mut fast = Process::start_other(&world, 77);
    fast.take_pass(&mut world);
    world.advance_to(world.elapsed + 2 * SECOND);
    fast.reconcile(&mut world);
    assert_eq!(world.record().key_id, "key-3");
    slow.clone().reconcile(&mut world);
    assert_eq!(world.key("key-2").reason, Some(RevokeReason::NotStored));
    assert_eq!(world.record().key_id, "key-3");
    // Nothing is later when nobody knows the order any more.
    let mut world = before;
    world.edit(|object| object.ledger = Ledger::default());
    slow.reconcile(&mut world);
    assert_eq!(world.record().key_id, "key-2");
}

#[test]
fn a_store_that_may_still_land_outweighs_a_later_refusal() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let mut stores = 0;
    let faults = &mut |step: &Step| {
        is_store(step).then(|| {
            stores += 1;
            if stores == 1 { Fault::Late(100 * SECOND) } else { Fault::Refused }
        })
    };
    process.live_with(&mut world, 90 * SECOND, faults).unwrap();
    assert_eq!(world.active(), ["key-1"], "it may be in the Secret any moment");
    process.run_until_idle(&mut world);
    assert_eq!(world.violation, None);
    world.assert_good();
}

#[test]
fn a_key_made_here_needs_no_pass_to_be_revoked() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.reconcile(&mut world);
    world.delete();
    process.reconcile(&mut world);
    assert!(world.object.is_none(), "the object goes at once");
    assert_eq!((world.active().len(), world.counts.passes), (0, 0));
}

#[test]
fn an_attempt_that_was_never_posted_holds_up_no_deletion() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.reconcile_with(&mut world, &mut |step| is_mint(step).then_some(Fault::Refused)).unwrap();
    world.delete();
    process.reconcile(&mut world);
    assert!(world.object.is_none());
}

#[test]
fn a_revoked_key_does_not_end_another_attempt() {
    let (mut world, mut process) = World::ready(plain());
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let late = &mut |step: &Step| is_mint(step).then_some(Fault::Late(100 * SECOND));
    process.reconcile_with(&mut world, late).unwrap();
    world.delete();
    process.reconcile(&mut world);
    assert!(world.key("key-1").revoked);
    assert!(world.object.is_some(), "the other attempt may still have a key");
    process.run_until_idle(&mut world);
    assert!(world.object.is_none());
    assert_eq!(world.active(), [""; 0]);
}

#[test]
fn a_finalizer_is_put_back_for_a_key_or_for_an_attempt() {
    for keeps_the_ledger in [true, false] {
        let (mut world, mut process) = World::ready(plain());
        world.edit(|object| {
            object.finalizers.clear();
            if keeps_the_ledger {
                object.status = BoltzApiKeyStatus::default();
            } else {
                object.ledger = Ledger::default();
            }
        });
        if keeps_the_ledger {
            world.secrets.clear();
            process = Process::start_other(&world, 9);
        }
        assert_eq!(words(&process.decide(&world)), "add the finalizer", "ledger: {keeps_the_ledger}");
    }
}

#[test]
fn the_secrets_name_is_the_objects_unless_another_is_asked_for() {
    for (asked, name) in
        [(json!({}), "key"), (json!({"name": ""}), "key"), (json!({"name": "other"}), "other")]
    {
        assert_eq!(World::with(json!({"secret": asked})).object().secret_name(), name);
    }
}

#[test]
fn a_moment_is_over_when_it_has_come() {
    let (world, facts, now) = facts();
    let key = ListedKey {
        id: "key-1".to_owned(),
        attempt: AttemptId::from_random(1),
        prefix: String::new(),
        is_active: true,
        expires_at: Some(now.wall),
        last_used_at: None,
    };
    assert!(!key.is_active_at(now.wall), "the expiry");
    let mut named = facts.named_keys().remove(0);
    named.expires_at = Some(now.wall);
    assert!(!facts.may_be_active(&world.settings, now, &named), "the expiry of a named key");
    // The end of the overlap.
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "10m"}}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.reconcile(&mut world);
    world.advance_to(world.elapsed + 10 * MINUTE);
    process.reconcile(&mut world);
    assert!(world.key("key-1").revoked);
    // The window: an attempt that was not POSTed is not used at its end.
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.reconcile_with(&mut world, &mut |step| is_mint(step).then_some(Fault::Refused)).unwrap();
    process.memory.troubles.clear();
    world.object.as_mut().unwrap().status = BoltzApiKeyStatus::default();
    world.advance_to(world.elapsed + world.settings.window());
    process.reconcile(&mut world);
    assert_eq!(world.object().ledger.entries.len(), 2);
}

#[test]
fn an_attempts_age_is_its_own() {
    let (world, mut facts, now) = facts();
    let ids = [1, 2].map(AttemptId::from_random);
    let ages = [DAY + MINUTE, 20 * HOUR];
    let entries =
        ids.iter().zip(ages).map(|(attempt, age)| LedgerEntry::new(attempt.clone(), now.wall - age, None));
    facts.object.ledger = Ledger::new(entries.collect());
    let settled_at = |facts: &Facts, id| facts.settled_at(&world.settings, now, id);
    assert_eq!(settled_at(&facts, &ids[0]), now.monotonic.minus(MINUTE), "a day after it was written");
    assert_eq!(settled_at(&facts, &ids[1]), now.monotonic.plus(3 * MINUTE), "it is seen only now");
    // One that this process wrote, and that somebody took out of the ledger.
    let written = now.monotonic.minus(2 * MINUTE);
    let attempt = facts.memory.attempts.values().next().unwrap().clone();
    facts.memory.attempts.insert(AttemptId::from_random(3), Box::new(Attempt { written, ..*attempt }));
    let settled_at = settled_at(&facts, &AttemptId::from_random(3));
    assert_eq!(settled_at, now.monotonic.plus(MINUTE));
}

#[test]
fn whose_end_a_process_knows() {
    let (world, mut facts, now) = facts();
    let id = AttemptId::from_random(1);
    let known = facts.memory.attempts.values().next().unwrap().clone();
    let Progress::Stored { key, .. } = known.progress.clone() else { panic!("it is stored") };
    let in_hand = Progress::InHand { key, calls_in_doubt: 0, is_refused: false };
    let (young, old) = (now.monotonic.minus(59 * SECOND), now.monotonic.minus(MINUTE));
    for (progress, written, deleting, knows) in [
        (Progress::Written, young, false, false),
        (Progress::Written, old, false, true),
        (Progress::Written, young, true, true),
        (Progress::Sent, old, true, false),
        (in_hand, old, true, false),
        (known.progress.clone(), old, true, false),
        (Progress::Ended, young, false, true),
    ] {
        facts.object.deleting = deleting;
        let attempt = Attempt { written, progress: progress.clone(), ..*known.clone() };
        facts.memory.attempts.insert(id.clone(), Box::new(attempt));
        let found = facts.knows_result(&world.settings, now, &id);
        assert_eq!(found, knows, "{progress:?}, deleting: {deleting}");
    }
}

#[test]
fn the_first_failure_waits_a_second_from_when_it_happened() {
    for clock_error in [0, -3600] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        process.take_pass(&mut world);
        let cut = &mut |step: &Step| is_mint(step).then_some(Fault::Cut);
        process.reconcile_with(&mut world, cut).unwrap();
        world.clock_error = clock_error;
        world.advance_to(SECOND / 2);
        assert_eq!(process.reconcile(&mut world).unwrap().wake_at, Some(Monotonic(SECOND)), "{clock_error}");
        world.advance_to(SECOND);
        assert_eq!(words(&process.decide(&world)), "issue: Initial", "{clock_error}");
    }
}

#[test]
fn a_boltz_that_never_answers_is_asked_every_ten_minutes_in_the_end() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let cut = &mut |step: &Step| is_mint(step).then_some(Fault::Cut);
    process.live_with(&mut world, HOUR, cut).unwrap();
    let first = world.counts.posts;
    process.live_with(&mut world, 4 * HOUR, cut).unwrap();
    let later = world.counts.posts - first;
    assert!((14..=16).contains(&first), "{first} in the first hour");
    assert!((17..=19).contains(&later), "{later} in the three hours after it");
}

#[test]
fn a_rotation_right_after_a_key_does_not_wait_for_its_backoff_after_a_restart() {
    let mut world = World::with(plain());
    Process::start(&world).reconcile(&mut world);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    assert_eq!(words(&Process::start_other(&world, 9).decide(&world)), "issue: RotateRequested");
}

#[test]
fn one_failure_has_one_description_unless_nothing_will_end_it() {
    let own = until(10 * SECOND, Reason::BoltzUnavailable, "own");
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.facts(&world, false);
    process.block(Slot::Mint, own);
    process.account.calls_blocked = Some(until(30 * SECOND, Reason::RateLimited, "everybody's"));
    let decision = process.decide(&world);
    assert_eq!(decision.findings.blocked, Some(until(10 * SECOND, Reason::BoltzUnavailable, "own")));
    world.elapsed += 10 * SECOND;
    let decision = process.reconcile(&mut world).unwrap();
    assert_eq!(decision.findings.blocked, Some(until(30 * SECOND, Reason::BoltzUnavailable, "own")));
    process.account.calls_blocked =
        Some(Block { reason: Reason::BoltzUnauthorized, message: "refused".to_owned(), until: None });
    process.reconcile(&mut world);
    assert_eq!(world.ready_reason(), "BoltzUnauthorized");
}

#[test]
fn without_its_turn_an_object_makes_no_dry_run_and_says_so_once() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let message = "others are first".to_owned();
    let block = Block { reason: Reason::MintBudgetExceeded, message, until: None };
    process.account.turn_blocked = Some(block.clone());
    let decision = process.reconcile(&mut world).unwrap();
    assert_eq!((decision.findings.wants_turn, decision.wake_at), (Some(IssueReason::Initial), None));
    assert_eq!((world.ready_reason(), world.counts.posts), ("MintBudgetExceeded", 0));
    assert_eq!(words(&process.decide(&world)), "wait");
    // A pause that all objects meet is no reason to ask again: the turn comes after it.
    process.account.calls_blocked = Some(until(30 * SECOND, Reason::RateLimited, "everybody's"));
    assert_eq!(process.decide(&world).wake_at, None);
    process.account = AccountFacts::default();
    assert_eq!(words(&process.decide(&world)), "issue: Initial");
    // A turn that is about to come is not worth a status.
    let mut another = World::with(plain());
    let mut at_once = Process::start(&another);
    let message = "A key is being issued.".to_owned();
    at_once.account.turn_blocked = Some(Block { reason: Reason::Pending, message, until: None });
    at_once.reconcile(&mut another);
    assert!(another.object().status.conditions.is_empty());
    process.reconcile(&mut world);
    assert_eq!(world.counts.posts, 1);
    // Who has a key, or wants none, wants no turn.
    process.account.turn_blocked = Some(block);
    assert_eq!(process.decide(&world).findings.wants_turn, None);
    world.edit_spec(json!({"suspend": true}));
    world.secrets.clear();
    assert_eq!(process.decide(&world).findings.wants_turn, None);
}

#[test]
fn a_new_spec_lifts_what_was_held_against_the_old_one() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.facts(&world, false);
    process.block(Slot::Preflight, until(HOUR, Reason::SecretWriteFailed, "no"));
    process.reconcile(&mut world);
    assert_eq!(world.counts.posts, 0);
    world.edit_spec(json!({"secret": {"key": "OTHER"}}));
    process.reconcile(&mut world);
    assert_eq!(world.counts.posts, 1);
}

#[test]
fn a_wait_ends_with_the_renewal() {
    let (world, mut process) = World::ready(json!({"expiresInDays": 90}));
    let renewal = world.object().status.renewal_time.clone().unwrap().0;
    let wake_at = process.decide(&world).wake_at.unwrap();
    let difference = wake_at.since(process.now(&world).monotonic_at(renewal));
    assert!(difference < SECOND, "status speaks in whole seconds: {difference:?}");
}

#[test]
fn a_pass_is_wanted_when_the_last_one_is_too_old_to_tell() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.take_pass(&mut world);
    let lose = &mut |step: &Step| is_mint(step).then_some(Fault::Lost);
    process.reconcile_with(&mut world, lose).unwrap();
    process.live_until(&mut world, 10 * SECOND);
    // Its own lost key needs no waiting; another process has to wait until the attempt is settled.
    let mut process = Process::start_other(&world, 9);
    process.take_pass(&mut world);
    process.reconcile(&mut world);
    world.advance_to(world.elapsed + 3 * MINUTE);
    let decision = process.reconcile(&mut world).unwrap();
    assert_eq!(decision.pass_since, Some(Monotonic(3 * MINUTE)));
}

#[test]
fn a_stray_waits_for_a_key_while_boltz_is_away() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let lose = &mut |step: &Step| is_mint(step).then_some(Fault::Lost);
    process.reconcile_with(&mut world, lose).unwrap();
    process.take_pass(&mut world);
    process.block(Slot::Mint, until(HOUR, Reason::BoltzUnavailable, "away"));
    process.reconcile(&mut world);
    assert_eq!(world.active(), ["key-1"]);
    process.block(Slot::Mint, until(HOUR, Reason::BoltzRejected, "no"));
    process.reconcile(&mut world);
    assert_eq!(world.active(), [""; 0], "no key will come before the spec changes");
}

#[test]
fn a_retained_object_leaves_its_stored_key_to_the_secret() {
    let (_, facts, _) = facts();
    let known = facts.memory.attempts.values().next().unwrap().clone();
    let Progress::Stored { key, .. } = known.progress.clone() else { panic!("it is stored") };
    let mut memory = ProcessMemory::default();
    let progress = Progress::Stored { key, is_reported: false };
    memory.attempts.insert(AttemptId::from_random(1), Box::new(Attempt { progress, ..*known }));
    assert_eq!(memory.unreported_keys(true), [""; 0]);
    assert_eq!(memory.unreported_keys(false), ["key-1"]);
}

#[test]
fn a_long_life_does_not_fill_the_memory() {
    let (mut world, mut process) = World::ready(json!({"rotation": {"overlap": "1m"}}));
    for round in 0..12 {
        world.edit(|object| object.rotate = Some(round.to_string()));
        process.run_until_idle(&mut world);
        process.take_pass(&mut world);
        process.reconcile(&mut world);
        let ProcessMemory { attempts, revoked_ids, first_seen, .. } = &process.memory;
        assert!(attempts.len() <= 2, "{} attempts", attempts.len());
        assert!(revoked_ids.len() <= 2, "{revoked_ids:?}");
        assert!(first_seen.len() <= 6, "{first_seen:?}");
        assert!(attempts.values().any(|known| matches!(known.progress, Progress::Stored { .. })));
    }
}

#[test]
fn what_another_leader_overwrites_is_not_said_again_at_once() {
    let (mut world, mut process) = World::ready(plain());
    let overwrite = |world: &mut World| world.edit(|object| object.status.rotations = Some(9));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.reconcile(&mut world);
    let writes = world.counts.status_writes;
    overwrite(&mut world);
    let decision = process.reconcile(&mut world).unwrap();
    assert_eq!(world.counts.status_writes, writes);
    assert_eq!(decision.wake_at, Some(process.now(&world).monotonic.plus(MINUTE)));
    world.advance_to(world.elapsed + MINUTE);
    process.reconcile(&mut world);
    assert_eq!((world.counts.status_writes, world.object().status.rotations), (writes + 1, Some(1)));
}

#[test]
fn record_and_status_say_what_boltz_answered() {
    for (mode, livemode) in [("live", true), ("test", false)] {
        let (world, _) = World::ready(json!({"mode": mode, "expiresInDays": 30}));
        let (record, status, key) = (world.record(), &world.object().status, &world.keys[0]);
        assert_eq!((record.livemode, status.livemode), (livemode, Some(livemode)), "{mode}");
        assert_eq!(record.workspace_id.as_deref(), Some("workspace"));
        assert_eq!((record.created_at, record.expires_at), (key.created_at, key.expires_at));
        assert_eq!((&record.key_id, &record.key_prefix), (&key.id, &format!("sk_{}", key.id)));
    }
}

#[test]
fn a_reserved_type_is_refused_with_an_older_crd_too() {
    for kind in ["kubernetes.io/tls", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"] {
        let mut world = World::with(json!({"secret": {"type": kind}}));
        Process::start(&world).reconcile(&mut world);
        assert_eq!((world.counts.posts, world.ready_reason()), (0, "InvalidSpec"), "{kind}");
    }
}

#[test]
fn another_address_of_boltz_reshapes_what_mentions_it_and_costs_no_key() {
    for (text, shapes) in [("$(baseURL)", 1), ("$(key)", 0)] {
        let (mut world, mut process) = World::ready(json!({"secret": {"data": {"a": text}}}));
        process.account.base_url = "https://another.example".to_owned();
        let mut reshapes = 0;
        let mut count = |step: &Step| {
            reshapes += usize::from(*step == Step::Reshape);
            None
        };
        process.reconcile_with(&mut world, &mut count).unwrap();
        assert_eq!((reshapes, world.counts.posts), (shapes, 1), "{text}");
    }
}

#[test]
fn each_part_of_the_secrets_shape_counts() {
    type Change = fn(&mut OwnSecret);
    let rows: &[(&str, Change, &str)] = &[
        ("as it was made", |_| {}, "wait"),
        ("without its ownerReference", |own| own.owned = false, "reshape"),
        ("without its label", |own| own.labelled = false, "reshape"),
        ("another data key", |own| own.record.as_mut().unwrap().secret_key.push('X'), "reshape"),
        ("another template", |own| own.record.as_mut().unwrap().template_hash.push('X'), "reshape"),
        (
            "fields that are not wanted any more",
            |own| {
                let mut record = own.record.clone().unwrap();
                let spec = json!({"secret": {"data": {"a": "$(key)"}}});
                record.take_shape(&serde_json::from_value(spec).unwrap(), "");
                own.record = Some(record);
            },
            "reshape",
        ),
    ];
    for (what, change, decision) in rows {
        let (world, mut facts, now) = facts();
        let SecretFacts::Ours(own) = &mut facts.secret else { panic!("it is ours") };
        change(own);
        assert_eq!(words(&plan(&facts, &world.settings, now)), *decision, "{what}");
    }
}

#[test]
fn a_previous_key_that_only_status_names_goes_into_the_record_when_boltz_lists_it() {
    let (mut world, _) = World::rotated(plain());
    world.secret().record.as_mut().unwrap().previous.clear();
    let mut restarted = Process::start_other(&world, 2);
    assert_eq!(words(&restarted.decide(&world)), "wait", "it may be forged");
    restarted.take_pass(&mut world);
    assert_eq!(words(&restarted.decide(&world)), "record previous key-1");
}

#[test]
fn a_deletion_that_cannot_go_on_names_each_key_once() {
    let (mut world, mut process) = World::rotated(plain());
    world.delete();
    let mut facts = process.facts(&world, true).unwrap();
    let message = "Boltz is away.".to_owned();
    facts.account.calls_blocked = Some(Block { reason: Reason::BoltzUnavailable, message, until: None });
    let passes = std::mem::take(&mut facts.passes);
    for passes in [passes, Vec::new()] {
        facts.passes = passes;
        let Step::WriteStatus(status) = plan(&facts, &world.settings, process.now(&world)).step else {
            panic!("it says why")
        };
        let says = "Boltz is away. To delete the object without revoking key-1, key-2, set the annotation";
        assert!(status.conditions[0].message.starts_with(says), "{}", status.conditions[0].message);
    }
}

//! Faults that stay: every step, refused in every way for hours of virtual time. The object makes few calls, says what
//! stands in the way, does its other duties, and is well again when the fault goes.

use boltz_operator::{
    plan::{BoltzErrorKind, Step, later},
    protocol::ledger::Ledger,
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World, plain};
use serde_json::json;
use std::{cell::Cell, collections::BTreeMap, time::Duration};

type Scenario = (&'static str, fn() -> (World, Process));

/// Worlds in which every step comes.
const SCENARIOS: &[Scenario] = &[
    ("first key", || {
        let world = World::with(plain());
        let process = Process::start(&world);
        (world, process)
    }),
    ("rotation", || {
        let (mut world, process) = World::ready(json!({"rotation": {"overlap": "10m"}, "expiresInDays": 90}));
        world.edit(|object| object.rotate = Some("1".to_owned()));
        (world, process)
    }),
    ("leaked key", || {
        let targets =
            json!([{"kind": "Deployment", "name": "worker"}, {"kind": "DaemonSet", "name": "agent"}]);
        let (mut world, process) = World::ready(json!({"rolloutRestartTargets": targets}));
        world.edit(|object| object.rotate_now = Some("1".to_owned()));
        (world, process)
    }),
    ("another data key", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "10m"}}));
        world.edit_spec(json!({"secret": {"key": "OTHER"}, "rotation": {"overlap": "10m"}}));
        (world, process)
    }),
    ("another Secret", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "10m"}}));
        world.edit_spec(json!({"secret": {"name": "other"}, "rotation": {"overlap": "10m"}}));
        (world, process)
    }),
    ("no finalizer", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "10m"}}));
        world.edit(|object| object.finalizers.clear());
        (world, process)
    }),
    ("a forged ledger", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "10m"}}));
        world.edit(|object| object.ledger = Ledger::parse(Some("no ledger")));
        (world, process)
    }),
    ("a key that only status names", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
        world.secret().record.as_mut().unwrap().previous.clear();
        (world, process)
    }),
    ("Secret taken away", || {
        let (mut world, process) = World::rotated(json!({"rotation": {"overlap": "10m"}}));
        world.secrets.clear();
        (world, process)
    }),
    ("revoked by somebody else", || {
        let (mut world, process) = World::ready(plain());
        world.key("key-1").revoked = true;
        (world, process)
    }),
    ("expiry", || {
        let (mut world, process) = World::ready(json!({"expiresInDays": 2}));
        world.advance_to(2 * DAY - 30 * MINUTE);
        world.edit_spec(json!({"expiresInDays": 2, "suspend": true, "secret": {"key": "OTHER"}}));
        (world, process)
    }),
    ("deletion", || {
        let (mut world, process) = World::rotated(plain());
        world.delete();
        (world, process)
    }),
    ("deletion that retains", || {
        let (mut world, process) = World::rotated(plain());
        world.edit_spec(json!({"deletionPolicy": "Retain"}));
        world.delete();
        (world, process)
    }),
];

const API_FAULTS: [Fault; 5] = [Fault::Refused, Fault::NotFound, Fault::Conflict, Fault::Cut, Fault::Undone];
const BOLTZ_FAULTS: [Fault; 6] = [
    Fault::NotFound,
    Fault::Cut,
    Fault::Boltz(BoltzErrorKind::Unauthorized),
    Fault::Boltz(BoltzErrorKind::Invalid),
    Fault::Boltz(BoltzErrorKind::RateLimited),
    Fault::Boltz(BoltzErrorKind::Unavailable),
];

/// The name of a step's kind.
fn kind(step: &Step) -> &'static str {
    match step {
        Step::Wait => "Wait",
        Step::ReadLive => "ReadLive",
        Step::Preflight => "Preflight",
        Step::WriteAttempt { .. } => "WriteAttempt",
        Step::WriteLedger(_) => "WriteLedger",
        Step::Mint(_) => "Mint",
        Step::Store { .. } => "Store",
        Step::CheckKey { .. } => "CheckKey",
        Step::WriteStatus(_) => "WriteStatus",
        Step::Revoke { .. } => "Revoke",
        Step::AddFinalizer => "AddFinalizer",
        Step::WriteRecord(_) => "WriteRecord",
        Step::MoveSecret { .. } => "MoveSecret",
        Step::DeleteSecret { .. } => "DeleteSecret",
        Step::Reshape => "Reshape",
        Step::RestartWorkload { .. } => "RestartWorkload",
        Step::ReadRollout { .. } => "ReadRollout",
        Step::ReleaseSecret { .. } => "ReleaseSecret",
        Step::RemoveFinalizer { .. } => "RemoveFinalizer",
    }
}

const STEPS: [&str; 18] = [
    "ReadLive",
    "Preflight",
    "WriteAttempt",
    "WriteLedger",
    "Mint",
    "Store",
    "CheckKey",
    "WriteStatus",
    "Revoke",
    "AddFinalizer",
    "WriteRecord",
    "MoveSecret",
    "DeleteSecret",
    "Reshape",
    "RestartWorkload",
    "ReadRollout",
    "ReleaseSecret",
    "RemoveFinalizer",
];

/// Whether a message has the words of the server, and what follows.
fn tells(message: &str) -> bool {
    let cause = [
        "the API server says",
        "Boltz: ",
        "Boltz responded with 404",
        "it is as before",
        "undoes the change",
        "is missing",
        "is not as it was written",
        "was not removed",
    ];
    let next = [
        "The operator will retry",
        "The next retry is at",
        "for at most one hour",
        "An admission webhook or policy may have changed it",
    ];
    let contains = |words: &[&str]| words.iter().any(|words| message.contains(words));
    contains(&cause) && contains(&next)
}

/// Duties that are late, whatever fails.
fn late(world: &World, step: &str) -> Vec<String> {
    let Some(object) = world.object.as_ref().filter(|object| !object.deleting) else { return Vec::new() };
    let record = world.secrets.get(object.secret_name()).and_then(|secret| secret.record.as_ref());
    let Some(record) = record.filter(|_| step != "ReadLive") else { return Vec::new() };
    let mut late = Vec::new();
    let now = world.true_time();
    let has_ended = |end| later(end, 5 * MINUTE) < now;
    for previous in record.previous.iter().filter(|_| step != "Revoke") {
        if has_ended(previous.revoke_after) && world.active().contains(&previous.key_id.as_str()) {
            late.push(format!("{} lives after its overlap", previous.key_id));
        }
    }
    let is_ready =
        object.status.conditions.iter().any(|known| known.type_ == "Ready" && known.status == "True");
    if step != "WriteStatus" && is_ready && record.expires_at.is_some_and(has_ended) {
        late.push("Ready with an expired key".to_owned());
    }
    late
}

/// One cell of the matrix. Answers how often the fault struck, and what is wrong.
fn cell(scenario: &Scenario, step: &'static str, fault: Fault) -> (usize, Vec<String>) {
    let (mut world, mut process) = scenario.1();
    let struck = Cell::new(0_usize);
    let mut wrong = Vec::new();
    let (api, boltz) = (world.counts.api_calls, world.counts.boltz_calls);
    let begin = world.elapsed;
    let strike = |candidate: &Step| {
        let strikes = kind(candidate) == step;
        if strikes {
            struck.set(struck.get() + 1);
        }
        strikes.then_some(fault)
    };
    // Until it strikes, in steps of half a minute; then status has half a minute to say so.
    while struck.get() == 0 && world.elapsed < begin + HOUR {
        let next = world.elapsed + 30 * SECOND;
        process.live_with(&mut world, next, &mut { strike }).unwrap();
    }
    let next = world.elapsed + 30 * SECOND;
    process.live_with(&mut world, next, &mut { strike }).unwrap();
    let told = world.object.as_ref().is_none_or(|object| {
        let conditions = object.status.conditions.iter().filter(|condition| condition.type_ != "Ready");
        conditions.filter(|condition| condition.status == "True").any(|condition| tells(&condition.message))
    });
    for hour in 1..=3 {
        process.live_with(&mut world, begin + hour * HOUR, &mut { strike }).unwrap();
        let (api_calls, boltz_calls) = (world.counts.api_calls - api, world.counts.boltz_calls - boltz);
        let (most_api, most_boltz) = (120 + 30 * (hour as usize - 1), 40 + 12 * (hour as usize - 1));
        if api_calls > most_api || boltz_calls > most_boltz {
            wrong.push(format!("{api_calls} API and {boltz_calls} Boltz calls in {hour} h"));
        }
    }
    wrong.extend(late(&world, step));
    if scenario.0 == "expiry" {
        world.edit_spec(json!({"expiresInDays": 2}));
    }
    let struck = struck.get();
    if struck == 0 {
        return (0, wrong);
    }
    // A status that cannot be written, or read, tells nobody; and what a first try of another kind cures is not told.
    // A deletion that is answered and undone is told when it is needed again. Of a rollout, `restarts` tells.
    let is_silent = matches!(step, "WriteStatus" | "ReadLive" | "ReadRollout")
        || (step, fault) == ("DeleteSecret", Fault::Undone);
    if !told && struck > 3 && !is_silent {
        wrong.push("status says nothing within 30 s".to_owned());
    }
    // The leaked key dies whatever else fails after its successor is stored.
    let stored = world
        .secrets
        .values()
        .any(|secret| secret.record.as_ref().is_some_and(|record| record.rotate_now.is_some()));
    if stored && !matches!(step, "ReadLive" | "Revoke") && world.active().contains(&"key-1") {
        wrong.push("the leaked key lives".to_owned());
    }
    // The cure comes: within the longest wait all is well.
    let longest = if fault == Fault::Boltz(BoltzErrorKind::Invalid) { 61 * MINUTE } else { 31 * MINUTE };
    world.secrets.retain(|_, secret| secret.uid != "vandal");
    let now = world.elapsed;
    process.live_until(&mut world, now + longest + 15 * MINUTE);
    if let Some(object) = &world.object {
        if object.deleting {
            wrong.push("the object is still there after the cure".to_owned());
        } else {
            let reason = world.ready_reason();
            let is_clean = object.status.conditions[1..].iter().all(|condition| condition.status == "False");
            if reason != "Issued" || !is_clean {
                wrong.push(format!("{reason} after the cure, clean: {is_clean}"));
            }
            if object.status.pending_restarts.len() + usize::from(!object.has_finalizer) > 0 {
                wrong.push("a restart or the finalizer is missing after the cure".to_owned());
            }
        }
    } else if scenario.0 == "deletion" && !world.active().is_empty() {
        wrong.push(format!("{:?} live on", world.active()));
    }
    if let Some(violation) = &world.violation {
        wrong.push(violation.clone());
    }
    (struck, wrong)
}

#[test]
fn every_step_may_fail_in_every_way_for_hours() {
    let mut cells = 0;
    let mut wrong = Vec::new();
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    for scenario in SCENARIOS {
        for step in STEPS {
            let faults: &[Fault] = match step {
                "Mint" | "Revoke" => &BOLTZ_FAULTS,
                _ => &API_FAULTS,
            };
            for fault in faults {
                // A read has no version to conflict with, and nothing undoes it. An object that is not there is gone.
                let is_no_fault = match step {
                    "ReadLive" | "ReadRollout" => matches!(fault, Fault::Conflict | Fault::Undone),
                    "RemoveFinalizer" => *fault == Fault::NotFound,
                    // It is gone, or another Secret has the name: that is as good.
                    "DeleteSecret" => matches!(fault, Fault::NotFound | Fault::Conflict),
                    _ => false,
                };
                if is_no_fault {
                    continue;
                }
                let (struck, faults) = cell(scenario, step, *fault);
                cells += usize::from(struck > 0);
                *reached.entry(step).or_default() += usize::from(struck > 0);
                wrong.extend(
                    faults.into_iter().map(|what| format!("{}: {step} {fault:?}: {what}", scenario.0)),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells >= 200, "only {cells} cells struck");
    for step in STEPS {
        assert!(reached[step] > 0, "no scenario reaches {step}");
    }
}

/// A live read before each retry would triple the calls, of which there are many in the first half minute.
#[test]
fn a_status_that_cannot_be_written_costs_one_call_for_each_retry() {
    let targets = json!([{"kind": "Deployment", "name": "worker"}]);
    for step in ["WriteStatus", "RestartWorkload"] {
        let (mut world, mut process) = World::ready(json!({"rolloutRestartTargets": targets}));
        world.edit(|object| object.rotate = Some("1".to_owned()));
        let (mut strikes, mut reads) = (0, 0);
        let end = world.elapsed + 30 * SECOND;
        let cut = &mut |candidate: &Step| {
            strikes += usize::from(kind(candidate) == step);
            reads += usize::from(kind(candidate) == "ReadLive");
            (kind(candidate) == step).then_some(Fault::Cut)
        };
        process.live_with(&mut world, end, cut).unwrap();
        assert!(strikes >= 4 && reads == 0, "{step}: {strikes} tries, {reads} reads");
    }
}

/// An edit takes effect at once, whatever waits.
#[test]
fn what_waits_is_tried_again_when_somebody_asks() {
    for (step, fault) in
        [("Preflight", Fault::Refused), ("WriteAttempt", Fault::Refused), ("Mint", Fault::NotFound)]
    {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        let refuse = &mut |candidate: &Step| (kind(candidate) == step).then_some(fault);
        process.live_with(&mut world, HOUR, refuse).unwrap();
        process.reconcile(&mut world);
        assert!(world.secrets.is_empty(), "{step}: it waits");
        world.edit(|object| object.retry = Some("1".to_owned()));
        process.reconcile(&mut world);
        assert_eq!(world.ready_reason(), "Issued", "{step}");
    }
}

/// A gateway that answers 404 loses no key: it is tried again until the list agrees.
#[test]
fn a_revocation_answered_with_404_is_believed_only_when_the_list_agrees() {
    let overlap = json!({"rotation": {"overlap": "1h"}});
    let (mut world, mut process) = World::rotated(overlap.clone());
    let gateway = &mut |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::NotFound);
    let until = world.elapsed + 3 * HOUR;
    process.live_with(&mut world, until, gateway).unwrap();
    assert_eq!(world.active().len(), 2, "it lives, and is accounted for");
    assert_eq!(world.object().status.previous_keys.len(), 1);
    process.live_until(&mut world, until + 20 * MINUTE);
    world.assert_good();
    // One that is truly gone is given up with the next pass.
    let (mut world, mut process) = World::rotated(overlap);
    world.keys.retain(|key| key.id != "key-1");
    let gone = &mut |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::NotFound);
    let until = world.elapsed + 3 * HOUR;
    process.live_with(&mut world, until, gone).unwrap();
    assert_eq!(world.object().status.previous_keys.len(), 0);
    // A deletion waits for it, too.
    let (mut world, mut process) = World::ready(plain());
    world.delete();
    let until = world.elapsed + HOUR;
    process.live_with(&mut world, until, gateway).unwrap();
    assert!(world.object.is_some());
    process.live_until(&mut world, until + 20 * MINUTE);
    assert!(world.object.is_none() && world.active().is_empty());
}

/// Boltz revokes, but no response ever arrives: the list confirms it, and nothing is revoked again for ever.
#[test]
fn a_revocation_whose_response_is_lost_is_believed_when_the_list_agrees() {
    let lost = &mut |step: &Step| matches!(step, Step::Revoke { .. }).then_some(Fault::Lost);
    let (mut world, mut process) = World::ready(plain());
    world.delete();
    let until = world.elapsed + 10 * MINUTE;
    process.live_with(&mut world, until, lost).unwrap();
    assert!(world.object.is_none() && world.active().is_empty());
    let (mut world, mut process) = World::rotated(json!({"rotation": {"overlap": "1h"}}));
    let until = world.elapsed + 80 * MINUTE;
    process.live_with(&mut world, until, lost).unwrap();
    assert_eq!(world.object().status.previous_keys.len(), 0);
    world.assert_good();
}

/// The status says so in time, even if nothing can be written anywhere else.
#[test]
fn an_object_whose_secret_cannot_be_written_turns_not_ready_when_its_key_expires() {
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 2}));
    let refuse =
        &mut |step: &Step| matches!(step, Step::Preflight | Step::Store { .. }).then_some(Fault::Cut);
    process.live_with(&mut world, 2 * DAY + 30 * SECOND, refuse).unwrap();
    assert_eq!(world.ready_reason(), "Expired");
    let wait: Duration = 31 * MINUTE;
    let until = world.elapsed + wait;
    process.live_until(&mut world, until);
    world.assert_good();
}

/// A pending restart outlasts the fault, and the process.
#[test]
fn a_restart_that_was_refused_follows_even_after_a_crash() {
    let targets = json!([{"kind": "Deployment", "name": "worker"}, {"kind": "DaemonSet", "name": "agent"}]);
    let (mut world, mut process) = World::ready(json!({"rolloutRestartTargets": targets}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let is_worker =
        |step: &Step| matches!(step, Step::RestartWorkload { target, .. } if target.name == "worker");
    process.reconcile_with(&mut world, &mut |step| is_worker(step).then_some(Fault::Refused)).unwrap();
    let status = &world.object().status;
    assert_eq!(status.key_id.as_deref(), Some("key-2"), "status does not wait");
    let pending: Vec<String> = status.pending_restarts.iter().map(ToString::to_string).collect();
    assert_eq!(pending, ["Deployment worker"]);
    for mut process in [process, Process::start_other(&world, 9)] {
        let mut world = world.clone();
        let mut restarted = Vec::new();
        let count = &mut |step: &Step| {
            if let Step::RestartWorkload { target, .. } = step {
                restarted.push(target.name.clone());
            }
            None
        };
        let until = world.elapsed + MINUTE;
        process.live_with(&mut world, until, count).unwrap();
        assert_eq!(restarted, ["worker"]);
        assert!(world.object().status.pending_restarts.is_empty());
    }
}

/// An outage of an hour, and then an API server that starts: its first refusal is not counted with the silence before.
#[test]
fn another_kind_of_failure_is_counted_from_the_beginning() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let silent = &mut |step: &Step| matches!(step, Step::WriteStatus(_)).then_some(Fault::Cut);
    process.live_with(&mut world, HOUR, silent).unwrap();
    let refusals = Cell::new(0);
    let refused_once = |step: &Step| {
        let strikes = matches!(step, Step::WriteStatus(_)) && refusals.replace(refusals.get() + 1) == 0;
        strikes.then_some(Fault::Refused)
    };
    while refusals.get() == 0 {
        let next = world.elapsed + 5 * SECOND;
        process.live_with(&mut world, next, &mut { refused_once }).unwrap();
    }
    let next = world.elapsed + 10 * SECOND;
    process.live_with(&mut world, next, &mut { refused_once }).unwrap();
    assert_eq!(world.ready_reason(), "Issued");
}

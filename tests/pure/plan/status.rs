//! What status says of the facts.

use boltz_operator::{
    api::BoltzApiKeyStatus,
    plan::{Block, Facts, Findings, ListedKey, Now, Reason, SecretFacts, Settings, desired_status, later},
    protocol::record::{IssueReason, value_sha256},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use plan_world::{DAY, HOUR, Process, SECOND, World, plain};
use serde_json::json;

/// The facts of an object that has been rotated once, and the present.
struct Seen {
    facts: Facts,
    settings: Settings,
    now: Now,
}

impl Seen {
    fn of(spec: serde_json::Value) -> Self {
        let (world, mut process) = World::rotated(spec);
        Self {
            facts: process.facts(&world, true).unwrap(),
            settings: world.settings,
            now: process.now(&world),
        }
    }

    fn status_with(&self, findings: &Findings) -> BoltzApiKeyStatus {
        desired_status(&self.facts, &self.settings, self.now, findings)
    }

    fn status(&self) -> BoltzApiKeyStatus {
        self.status_with(&Findings::default())
    }

    fn of_key_2(&mut self, change: fn(&mut ListedKey)) {
        let keys = self.facts.passes.iter_mut().flat_map(|pass| &mut pass.keys);
        keys.filter(|key| key.id == "key-2").for_each(change);
    }

    fn expiry(&self) -> Timestamp {
        self.facts.record().unwrap().expires_at.unwrap()
    }

    fn suspend(&mut self) {
        if let Ok(spec) = &mut self.facts.object.spec {
            spec.suspend = true;
        }
    }
}

fn time(text: &str) -> Option<Time> {
    Some(Time(text.parse().unwrap()))
}

#[test]
fn the_record_is_what_status_shows() {
    let seen = Seen::of(json!({"expiresInDays": 3, "mode": "test"}));
    let status = seen.status();
    let shown = BoltzApiKeyStatus {
        observed_generation: Some(1),
        key_id: Some("key-2".to_owned()),
        key_prefix: Some("sk_key-2".to_owned()),
        value_sha256: Some(value_sha256(b"value of key-2")),
        is_active: Some(true),
        livemode: Some(false),
        workspace_id: Some("workspace".to_owned()),
        secret_name: Some("key".to_owned()),
        created_at: time("2026-11-24T00:20:00Z"),
        expires_at: time("2026-11-27T00:20:00Z"),
        rotations: Some(1),
        last_rotation_time: time("2026-11-24T00:20:00Z"),
        last_rotation_reason: Some("RotateRequested".to_owned()),
        ..BoltzApiKeyStatus::default()
    };
    let BoltzApiKeyStatus { conditions, renewal_time, previous_keys, .. } = status.clone();
    assert_eq!(status, BoltzApiKeyStatus { conditions, renewal_time, previous_keys, ..shown });
    assert!(status.renewal_time.is_some_and(|time| Some(time) < status.expires_at));
    let [previous] = status.previous_keys.as_slice() else { panic!("one previous key") };
    assert_eq!((previous.key_id.as_str(), previous.key_prefix.as_deref()), ("key-1", Some("sk_key-1")));
    assert_eq!(previous.revoke_after, Time("2026-11-25T00:20:00Z".parse().unwrap()));
}

/// The CRD does not refuse it, but nobody reads a megabyte.
#[test]
fn a_forged_hash_in_the_record_is_not_repeated() {
    let mut seen = Seen::of(plain());
    let SecretFacts::Ours(secret) = &mut seen.facts.secret else { panic!("its Secret") };
    secret.record.as_mut().unwrap().value_sha256 = "x".repeat(1 << 20);
    assert_eq!(seen.status().value_sha256, None);
}

#[test]
fn a_first_key_is_no_rotation() {
    let (world, _) = World::ready(plain());
    let status = &world.object().status;
    assert_eq!(
        (status.rotations, &status.last_rotation_time, &status.last_rotation_reason),
        (Some(0), &None, &None)
    );
}

#[test]
fn without_its_secret_status_keeps_what_it_said() {
    let mut seen = Seen::of(json!({"expiresInDays": 3}));
    seen.facts.secret = SecretFacts::Absent;
    seen.facts.object.status.last_used_at = time("2026-11-24T00:30:00Z");
    let before = seen.facts.object.status.clone();
    let after = seen.status();
    let kept = BoltzApiKeyStatus {
        secret_name: None,
        renewal_time: None,
        conditions: after.conditions.clone(),
        // It is a previous key now, as far as anybody knows; the other one is in the record that is gone.
        previous_keys: after.previous_keys.clone(),
        ..before
    };
    assert_eq!(after, kept);
}

#[test]
fn whether_the_key_is_active() {
    type Change = fn(&mut Seen);
    let rows: &[(&str, Change, bool)] = &[
        ("as it is", |_| {}, true),
        ("Boltz's list says that it is not", |seen| seen.of_key_2(|key| key.is_active = false), false),
        (
            "this process revoked it",
            |seen| seen.facts.memory.revoked_ids = ["key-2".to_owned()].into(),
            false,
        ),
        ("nothing is known of it", |seen| seen.facts.passes.clear(), true),
        ("the second before it expires", |seen| seen.now.wall = seen.expiry() - SECOND, true),
        ("the moment in which it expires", |seen| seen.now.wall = seen.expiry(), false),
        (
            "the same, and nothing is known of it",
            |seen| {
                seen.now.wall = seen.expiry();
                seen.facts.passes.clear();
            },
            false,
        ),
    ];
    for (what, change, is_active) in rows {
        for has_secret in [true, false] {
            let mut seen = Seen::of(json!({"expiresInDays": 3}));
            change(&mut seen);
            if !has_secret {
                seen.facts.secret = SecretFacts::Absent;
            }
            assert_eq!(seen.status().is_active, Some(*is_active), "{what}, with its Secret: {has_secret}");
            let ready = condition(&seen.status(), "Ready").status == "True";
            assert_eq!(ready, *is_active && has_secret, "{what}, with its Secret: {has_secret}");
        }
    }
}

#[test]
fn the_last_use_moves_by_days() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let used = at("2026-11-24T00:30:00.7Z");
    for (said, listed, says) in [
        (None, None, None),
        (None, Some(used), time("2026-11-24T00:30:00Z")),
        (time("2026-11-24T00:30:00Z"), None, time("2026-11-24T00:30:00Z")),
        (time("2026-11-24T00:30:00Z"), Some(at("2026-11-25T00:29:59Z")), time("2026-11-24T00:30:00Z")),
        (time("2026-11-24T00:30:00Z"), Some(at("2026-11-25T00:30:00Z")), time("2026-11-25T00:30:00Z")),
    ] {
        for id in ["key-1", "key-2"] {
            let mut seen = Seen::of(plain());
            for key in seen.facts.passes.iter_mut().flat_map(|pass| &mut pass.keys).filter(|key| key.id == id)
            {
                key.last_used_at = listed;
            }
            let status = &mut seen.facts.object.status;
            match id {
                "key-2" => status.last_used_at = said.clone(),
                _ => status.previous_keys[0].last_used_at = said.clone(),
            }
            let status = seen.status();
            let found = if id == "key-2" {
                status.last_used_at
            } else {
                status.previous_keys[0].last_used_at.clone()
            };
            assert_eq!(found, says, "{id}: {said:?}, {listed:?}");
        }
    }
    // What was said of the key before this one stays, and a later use of that one counts too.
    let mut seen = Seen::of(plain());
    seen.facts.object.status.last_used_at = time("2026-11-24T00:30:00Z");
    seen.facts.object.status.key_id = Some("key-1".to_owned());
    assert_eq!(seen.status().last_used_at, time("2026-11-24T00:30:00Z"));
    for key in seen.facts.passes.iter_mut().flat_map(|pass| &mut pass.keys).filter(|key| key.id == "key-1") {
        key.last_used_at = Some(at("2026-11-26T00:00:00Z"));
    }
    assert_eq!(seen.status().last_used_at, time("2026-11-26T00:00:00Z"));
}

fn condition(status: &BoltzApiKeyStatus, kind: &str) -> Condition {
    status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().clone()
}

/// The conditions in short: the reason of Ready with a `+` when it is so, and whether Reconciling and Stalled are so.
fn conditions(status: &BoltzApiKeyStatus) -> (String, bool, bool) {
    let is_so = |kind| condition(status, kind).status == "True";
    let ready = condition(status, "Ready");
    let sign = if is_so("Ready") { "+" } else { "-" };
    (format!("{sign}{}", ready.reason), is_so("Reconciling"), is_so("Stalled"))
}

#[test]
fn conditions_say_what_is_going_on() {
    type Change = fn(&mut Seen, &mut Findings);
    fn block(findings: &mut Findings, reason: Reason) {
        findings.blocked = Some(Block { reason, message: "Why.".to_owned(), until: None });
    }
    fn no_secret(seen: &mut Seen) {
        seen.facts.secret = SecretFacts::Absent;
    }
    let rows: &[(&str, Change, &str, bool, bool)] = &[
        ("idle", |_, _| {}, "+Issued", false, false),
        ("a rotation", |_, found| found.issue = Some(IssueReason::RotateRequested), "+Issued", true, false),
        ("a wait for Boltz", |_, found| block(found, Reason::BoltzUnavailable), "+Issued", true, false),
        ("a refused admin key", |_, found| block(found, Reason::BoltzUnauthorized), "+Issued", false, true),
        (
            "a used old key",
            |_, found| found.still_used.push("key-1".into()),
            "+PreviousKeyStillUsed",
            false,
            false,
        ),
        ("suspended", |seen, _| seen.suspend(), "+Suspended", false, false),
        ("no key yet", |seen, _| no_secret(seen), "-Pending", false, false),
        (
            "no key, and Boltz is away",
            |seen, found| {
                no_secret(seen);
                block(found, Reason::RateLimited);
            },
            "-RateLimited",
            true,
            false,
        ),
        (
            "no key, and suspended",
            |seen, _| {
                no_secret(seen);
                seen.suspend();
            },
            "-Suspended",
            false,
            false,
        ),
        (
            "expired",
            |seen, found| {
                seen.now.wall = seen.expiry();
                found.issue = Some(IssueReason::Renewal);
            },
            "-Expired",
            true,
            false,
        ),
        (
            "expired, and nothing helps",
            |seen, found| {
                seen.now.wall = seen.expiry();
                block(found, Reason::BoltzRejected);
            },
            "-Expired",
            false,
            true,
        ),
        (
            "revoked by somebody",
            |seen, _| seen.of_key_2(|key| key.is_active = false),
            "-Rotating",
            false,
            false,
        ),
        ("deleted", |seen, _| seen.facts.object.deleting = true, "-Deleting", true, false),
    ];
    for (what, change, ready, reconciling, stalled) in rows {
        let (mut seen, mut findings) = (Seen::of(json!({"expiresInDays": 3})), Findings::default());
        change(&mut seen, &mut findings);
        let status = seen.status_with(&findings);
        assert_eq!(conditions(&status), ((*ready).to_owned(), *reconciling, *stalled), "{what}");
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, Some(1), "{what}");
            let blocked = findings.blocked.as_ref().filter(|_| condition.status == "True");
            if let Some(block) = blocked.filter(|_| condition.type_ != "Ready") {
                assert_eq!(
                    (condition.reason.as_str(), condition.message.as_str()),
                    (block.reason.as_str(), "Why.")
                );
            }
        }
    }
}

#[test]
fn messages_say_what_stands_in_the_way() {
    let mut seen = Seen::of(json!({"expiresInDays": 3}));
    let blocked =
        Some(Block { reason: Reason::RateLimited, message: "Boltz asks to wait.".to_owned(), until: None });
    let blocked = Findings { blocked, ..Findings::default() };
    let message = |status: &BoltzApiKeyStatus| condition(status, "Ready").message;
    let used = Findings { still_used: vec!["key-0".to_owned(), "key-1".to_owned()], ..Findings::default() };
    assert!(message(&seen.status_with(&used)).ends_with("end of their overlap: key-0, key-1."));
    seen.facts.object.deleting = true;
    assert_eq!(message(&seen.status_with(&blocked)), "Boltz asks to wait.");
    assert_eq!(message(&seen.status()), "Revoking the keys of this object.");
    seen.facts.object.deleting = false;
    seen.now.wall = seen.expiry();
    assert_eq!(message(&seen.status_with(&blocked)), "The key has expired. Boltz asks to wait.");
    assert_eq!(message(&seen.status()), "The key has expired. It is being replaced.");
}

#[test]
fn progress_says_what_is_being_done() {
    let progress = |seen: &Seen, findings: &Findings| {
        let Condition { reason, message, .. } = condition(&seen.status_with(findings), "Reconciling");
        format!("{reason}: {message}")
    };
    let mut seen = Seen::of(plain());
    assert_eq!(progress(&seen, &Findings::default()), "Issued: ");
    let issue = Findings { issue: Some(IssueReason::Renewal), ..Findings::default() };
    assert_eq!(progress(&seen, &issue), "Renewal: A key is being issued.");
    seen.facts.object.deleting = true;
    assert_eq!(progress(&seen, &Findings::default()), "Deleting: Revoking the keys of this object.");
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut seen = Seen::of(plain());
    let since = condition(&seen.facts.object.status, "Ready").last_transition_time;
    seen.now.wall = later(seen.now.wall, DAY + SECOND / 2);
    assert_eq!(condition(&seen.status(), "Ready").last_transition_time, since);
    seen.of_key_2(|key| key.is_active = false);
    let now = Timestamp::from_second(seen.now.wall.as_second()).unwrap();
    assert_eq!(condition(&seen.status(), "Ready").last_transition_time, Time(now), "in whole seconds");
    assert_eq!(condition(&seen.status(), "Stalled").last_transition_time, since, "that one did not change");
}

#[test]
fn a_previous_key_leaves_status_when_it_is_gone() {
    let mut seen = Seen::of(plain());
    assert_eq!(seen.status().previous_keys.len(), 1);
    seen.facts.memory.revoked_ids.insert("key-1".to_owned());
    assert_eq!(seen.status().previous_keys, []);
}

#[test]
fn a_suspended_object_has_no_renewal_time() {
    let mut seen = Seen::of(json!({"expiresInDays": 3, "rotation": {"interval": "12h"}}));
    let renewal = seen.status().renewal_time.unwrap().0;
    assert!(renewal <= later(seen.now.wall, 12 * HOUR), "the interval comes first");
    seen.suspend();
    assert_eq!(seen.status().renewal_time, None);
}

#[test]
fn status_is_settled_after_one_write() {
    let (mut world, _) = World::ready(json!({"expiresInDays": 3}));
    let mut restarted = Process::start_other(&world, 2);
    restarted.run_until_idle(&mut world);
    assert_eq!(world.counts.status_writes, 1);
}

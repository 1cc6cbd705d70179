//! Which account an object uses, and what the account allows it.

use boltz_operator::{
    api::{DeletionPolicy, Mode},
    plan::{AccountPolicy, Block, DefaultAccount, LiveKeys, Reason, Step},
    protocol::account_name::AccountName,
};
use plan_world::{DAY, Fault, HOUR, Process, World, plain};
use serde_json::{Value as Json, json};
use std::time::Duration;

fn live(process: &mut Process, world: &mut World, time: Duration) {
    process.live_until(world, world.elapsed + time);
}

fn condition(world: &World, kind: &str) -> (String, String, String) {
    let conditions = &world.object().status.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

fn named(name: &str) -> DefaultAccount {
    DefaultAccount::Is(AccountName::named(name))
}

fn with_ref(name: Option<&str>) -> Json {
    match name {
        Some(name) => json!({"expiresInDays": 90, "accountRef": {"name": name}}),
        None => json!({"expiresInDays": 90}),
    }
}

#[test]
fn an_object_stays_with_the_account_of_its_first_attempt() {
    let of_flags = DefaultAccount::default;
    for (asked, default, pinned, then_asked, then_default) in [
        (None, of_flags(), AccountName::OF_FLAGS, Some("b"), of_flags()),
        (None, of_flags(), AccountName::OF_FLAGS, None, named("b")),
        (None, named("a"), AccountName::named("a"), Some("b"), named("a")),
        (None, named("a"), AccountName::named("a"), None, of_flags()),
        (None, named("a"), AccountName::named("a"), None, named("b")),
        (Some("a"), of_flags(), AccountName::named("a"), Some("b"), of_flags()),
        (Some("a"), of_flags(), AccountName::named("a"), None, of_flags()),
    ] {
        let what = format!("{asked:?} {default:?}, then {then_asked:?} {then_default:?}");
        let mut world = World::with(with_ref(asked));
        let mut process = Process::start(&world);
        process.default_account = default;
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.record().account, pinned, "{what}");
        assert_eq!(condition(&world, "Stalled").0, "False", "{what}");
        world.edit_spec(with_ref(then_asked));
        // Also for a process that knows nothing but what is stored.
        for mut process in [process, Process::start_other(&world, 9)] {
            process.default_account = then_default.clone();
            live(&mut process, &mut world, HOUR);
            let (status, reason, message) = condition(&world, "Stalled");
            assert_eq!((status.as_str(), reason.as_str()), ("True", "PolicyDenied"), "{what}: {message}");
            assert_eq!(condition(&world, "Ready").0, "True", "{what}");
            assert_eq!((world.counts.posts, world.active().len()), (1, 1), "{what}");
        }
        // What works goes on to work, where it was.
        let mut process = Process::start_other(&world, 11);
        process.default_account = then_default;
        world.advance_to(DAY * 80);
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, world.record().account.clone()), (2, pinned), "{what}");
    }
}

#[test]
fn an_attempt_without_a_key_pins_the_account() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.default_account = named("a");
    while world.object().ledger.entries.is_empty() {
        live(&mut process, &mut world, Duration::from_millis(1));
    }
    // Its POST was not sent, or nobody knows.
    world.keys.clear();
    world.secrets.clear();
    let mut next = Process::start_other(&world, 9);
    next.default_account = named("b");
    live(&mut next, &mut world, HOUR);
    assert_eq!(world.record().account, AccountName::named("a"));
    assert_eq!(condition(&world, "Stalled").1, "PolicyDenied");
}

#[test]
fn without_an_account_nothing_is_requested() {
    for (default, reason) in [
        (DefaultAccount::None("no default".to_owned()), "PolicyDenied"),
        (DefaultAccount::Unknown, "Pending"),
    ] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        process.default_account = default;
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, world.ready_reason()), (0, reason));
        process.default_account = named("a");
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, world.ready_reason()), (1, "Issued"));
    }
}

/// What an account does not allow, and a spec that it would allow.
fn violations() -> Vec<(&'static str, AccountPolicy, Json, Json)> {
    let policy = AccountPolicy::default;
    let workspaces = || vec!["one".to_owned(), "two".to_owned()];
    let (one, none) = (json!({"workspaceID": "one"}), json!({}));
    vec![
        (
            "the namespace",
            AccountPolicy { refusal: Some("not you".to_owned()), ..policy() },
            none.clone(),
            Json::Null,
        ),
        (
            "the workspace",
            AccountPolicy { workspaces: workspaces(), ..policy() },
            json!({"workspaceID": "three"}),
            one.clone(),
        ),
        (
            "Boltz's default workspace",
            AccountPolicy { workspaces: workspaces(), ..policy() },
            none.clone(),
            one,
        ),
        (
            "the account's default workspace",
            AccountPolicy {
                workspaces: workspaces(),
                default_workspace: Some("three".to_owned()),
                ..policy()
            },
            none.clone(),
            json!({"workspaceID": "two"}),
        ),
        (
            "the mode",
            AccountPolicy { modes: vec![Mode::Test], ..policy() },
            none.clone(),
            json!({"mode": "test"}),
        ),
        (
            "a long life",
            AccountPolicy { max_expires_in_days: Some(30), ..policy() },
            json!({"expiresInDays": 31}),
            json!({"expiresInDays": 30}),
        ),
        (
            "an endless life beside a maximum",
            AccountPolicy { max_expires_in_days: Some(30), ..policy() },
            none.clone(),
            json!({"expiresInDays": 1}),
        ),
        (
            "an endless life",
            AccountPolicy { require_expiry: true, ..policy() },
            none.clone(),
            json!({"expiresInDays": 36500}),
        ),
        (
            "retained keys",
            AccountPolicy { forbids_retain: true, ..policy() },
            json!({"deletionPolicy": "Retain"}),
            none.clone(),
        ),
        (
            "one more key",
            AccountPolicy { live_keys: Some(LiveKeys { most: 2, now: Some(2) }), ..policy() },
            none,
            Json::Null,
        ),
    ]
}

#[test]
fn what_an_account_does_not_allow_is_not_issued() {
    for (what, policy, denied, allowed) in violations() {
        let mut world = World::with(denied);
        let mut process = Process::start(&world);
        process.account.policy = policy;
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, world.ready_reason()), (0, "PolicyDenied"), "{what}");
        assert!(world.object().ledger.entries.is_empty(), "{what}: nothing was attempted");
        assert!(condition(&world, "Ready").2.ends_with("No key is issued."), "{what}");
        match allowed {
            Json::Null => process.account.policy = AccountPolicy::default(),
            spec => world.edit_spec(spec),
        }
        live(&mut process, &mut world, HOUR);
        assert_eq!((world.counts.posts, world.ready_reason()), (1, "Issued"), "{what}");
    }
}

#[test]
fn a_policy_that_becomes_narrower_revokes_nothing_and_says_so() {
    for (what, policy, denied, _) in violations() {
        let mut world = World::with(denied);
        let mut process = Process::start(&world);
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.counts.posts, 1, "{what}");
        process.account.policy = policy.clone();
        world.edit(|object| object.rotate = Some("1".to_owned()));
        live(&mut process, &mut world, DAY);
        assert_eq!((world.counts.posts, world.active().len()), (1, 1), "{what}");
        assert_eq!(condition(&world, "Ready").0, "True", "{what}");
        let (status, reason, _) = condition(&world, "Stalled");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "PolicyDenied"), "{what}");
        process.account.policy = AccountPolicy::default();
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.counts.posts, 2, "{what}");
        assert_eq!(condition(&world, "Stalled").0, "False", "{what}");
    }
}

#[test]
fn a_full_namespace_keeps_its_keys_valid() {
    let full =
        || AccountPolicy { live_keys: Some(LiveKeys { most: 1, now: Some(1) }), ..AccountPolicy::default() };
    type Change = fn(&mut World);
    let rows: &[(&str, Change, usize)] = &[
        ("a renewal", |world| world.advance_to(DAY * 80), 2),
        ("a key that others revoked", |world| world.key("key-1").revoked = true, 2),
        ("a leak", |world| world.edit(|object| object.rotate_now = Some("1".into())), 2),
        ("a rotation that is asked for", |world| world.edit(|object| object.rotate = Some("1".into())), 1),
        ("other parameters", |world| world.edit_spec(json!({"expiresInDays": 90, "mode": "test"})), 1),
        ("a Secret that somebody deletes", |world| world.secrets.clear(), 1),
    ];
    for (what, change, posts) in rows {
        let (mut world, mut process) = World::ready(json!({"expiresInDays": 90}));
        process.account.policy = full();
        change(&mut world);
        live(&mut process, &mut world, 3 * HOUR);
        assert_eq!(world.counts.posts, *posts, "{what}");
    }
}

/// Create, retain, delete, repeat would give any number of live keys.
#[test]
fn no_key_is_retained_where_that_is_forbidden() {
    for (forbids, by_annotation) in [(true, false), (true, true), (false, false), (false, true)] {
        let spec = if by_annotation { plain() } else { json!({"deletionPolicy": "Retain"}) };
        let (mut world, mut process) = World::ready(spec);
        if by_annotation {
            world.edit(|object| object.deletion_policy = Some(DeletionPolicy::Retain));
        }
        process.account.policy.forbids_retain = forbids;
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.active().len(), 1);
        world.delete();
        live(&mut process, &mut world, DAY);
        assert!(world.object.is_none());
        assert_eq!(world.active().is_empty(), forbids, "by annotation: {by_annotation}");
    }
}

/// The account is not there now: what depends on it waits, and nothing is changed.
#[test]
fn an_account_that_is_not_served_changes_nothing() {
    let data = json!({"secret": {"data": {"url": "$(baseURL)"}}});
    let mut world = World::with(data);
    let mut process = Process::start(&world);
    process.account.base_url = "https://boltz.example".to_owned();
    live(&mut process, &mut world, HOUR);
    let (secrets, posts) = (world.secrets.clone(), world.counts.posts);
    let message = "It is not served.".to_owned();
    process.account.base_url = String::new();
    process.account.is_absent = true;
    process.account.calls_blocked = Some(Block { reason: Reason::PolicyDenied, message, until: None });
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, DAY);
    assert_eq!((world.secrets.len(), world.counts.posts), (secrets.len(), posts));
    assert!(world.secrets.iter().all(|(name, secret)| secrets[name].record == secret.record));
    assert_eq!(condition(&world, "Stalled").1, "PolicyDenied");
}

/// A tenant can edit the Secret and the object's annotations, and not its status.
#[test]
fn a_forged_account_takes_no_object_to_another_account() {
    for forged in ["nope", "b"] {
        let mut world = World::with(plain());
        let mut process = Process::start(&world);
        process.default_account = named("a");
        live(&mut process, &mut world, HOUR);
        world.secret().record.as_mut().unwrap().account = AccountName::named(forged);
        world.edit(|object| {
            let entries = &mut object.ledger.entries;
            entries.iter_mut().for_each(|entry| entry.account = AccountName::named(forged));
        });
        let mut next = Process::start_other(&world, 9);
        next.default_account = named("a");
        let facts = next.facts(&world, true).unwrap();
        assert_eq!(facts.account.name, AccountName::named("a"), "{forged}");
        live(&mut next, &mut world, HOUR);
        assert_eq!(world.object().status.account_name.as_deref(), Some("a"), "{forged}");
    }
}

/// Whether an account allows keys to be retained is not known while it is not served.
#[test]
fn nothing_is_retained_while_the_account_is_not_served() {
    let (mut world, mut process) = World::ready(plain());
    let message = "It is not served.".to_owned();
    process.account.is_absent = true;
    process.account.calls_blocked = Some(Block { reason: Reason::PolicyDenied, message, until: None });
    world.edit_spec(json!({"deletionPolicy": "Retain"}));
    live(&mut process, &mut world, HOUR);
    assert!(world.secret().owned, "the Secret is not released");
    process.account.policy.forbids_retain = true;
    world.delete();
    live(&mut process, &mut world, DAY);
    assert!(world.object.is_some(), "the deletion waits");
    process.account = Process::start(&world).account;
    live(&mut process, &mut world, DAY);
    assert!(world.object.is_none());
    assert_eq!(world.active().len(), 1, "retained, since the account allows it");
}

#[test]
fn an_attempt_that_was_refused_pins_nothing() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.default_account = named("a");
    let end = world.elapsed + Duration::from_secs(1);
    let refuse = &mut |step: &Step| matches!(step, Step::WriteAttempt { .. }).then_some(Fault::Refused);
    process.live_with(&mut world, end, refuse).unwrap();
    assert!(world.object().ledger.entries.is_empty());
    process.default_account = named("b");
    live(&mut process, &mut world, DAY);
    assert_eq!((world.ready_reason(), world.record().account.clone()), ("Issued", AccountName::named("b")));
    assert_eq!(condition(&world, "Stalled").0, "False");
}

/// The list of one account does not show that a key of another has ended.
#[test]
fn an_attempt_of_another_account_is_not_over() {
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    let end = world.elapsed + Duration::from_secs(2);
    let lose = &mut |step: &Step| matches!(step, Step::Mint(_)).then_some(Fault::Lost);
    process.live_with(&mut world, end, lose).unwrap();
    let before = process.facts(&world, true).unwrap();
    let attempt = before.object.ledger.entries[0].attempt.clone();
    // Its key is revoked, and a later pass shows that.
    live(&mut process, &mut world, DAY);
    let mut facts = process.facts(&world, true).unwrap();
    facts.object = before.object;
    facts.memory.first_seen = before.memory.first_seen;
    for (account, is_over) in [(AccountName::OF_FLAGS, true), (AccountName::named("a"), false)] {
        facts.object.ledger.entries[0].account = account;
        assert_eq!(facts.is_over(&world.settings, process.now(&world), &attempt), is_over);
    }
}

#[test]
fn an_account_that_is_being_deleted_keeps_the_keys_of_its_objects_valid() {
    let ending = AccountPolicy { is_ending: true, ..AccountPolicy::default() };
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 90}));
    process.account.policy = ending.clone();
    world.advance_to(DAY * 80);
    live(&mut process, &mut world, 3 * HOUR);
    assert_eq!(world.counts.posts, 2, "the key is renewed");
    assert_eq!(condition(&world, "Stalled").0, "False");
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.account.policy = ending;
    live(&mut process, &mut world, HOUR);
    assert_eq!((world.counts.posts, world.ready_reason()), (0, "PolicyDenied"));
}

#[test]
fn too_many_live_keys_are_reported_and_renewed() {
    let policy =
        |now| AccountPolicy { live_keys: Some(LiveKeys { most: 1, now }), ..AccountPolicy::default() };
    let (mut world, mut process) = World::ready(json!({"expiresInDays": 90}));
    process.account.policy = policy(Some(2));
    world.advance_to(DAY * 80);
    live(&mut process, &mut world, 3 * HOUR);
    assert_eq!(world.counts.posts, 2, "the key is renewed");
    let (status, reason, message) = condition(&world, "Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "PolicyDenied"), "{message}");
    // Before a pass has shown them, how many there are is not known.
    let mut world = World::with(plain());
    let mut process = Process::start(&world);
    process.account.policy = policy(None);
    live(&mut process, &mut world, HOUR);
    assert_eq!((world.counts.posts, world.ready_reason()), (0, "Pending"));
    process.account.policy = policy(Some(0));
    live(&mut process, &mut world, HOUR);
    assert_eq!((world.counts.posts, world.ready_reason()), (1, "Issued"));
}

//! To which objects the next pass over Boltz's list does not matter.

use boltz_operator::plan::{Doubt, Facts, Monotonic, Now, Progress, plan};
use plan_world::{HOUR, MINUTE, Process, World, plain};
use serde_json::json;

/// The facts of a process that has issued a key two hours ago and seen two passes since.
fn quiet() -> (World, Facts, Now) {
    let (mut world, mut process) = World::ready(plain());
    let until = world.elapsed + 2 * HOUR;
    process.live_until(&mut world, until);
    let (facts, now) = (process.facts(&world, false).unwrap(), process.now(&world));
    (world, facts, now)
}

fn is_quiet(world: &World, facts: &Facts, now: Now) -> bool {
    facts.is_quiet(&world.settings, &plan(facts, &world.settings, now))
}

#[test]
fn an_object_with_nothing_but_its_key_is_quiet_after_two_passes() {
    let (world, facts, now) = quiet();
    assert!(is_quiet(&world, &facts, now));
    // Also in a process that has just started and seen two passes.
    let mut world = world;
    let mut process = Process::start(&world);
    let until = world.elapsed + MINUTE;
    process.live_until(&mut world, until);
    let facts = process.facts(&world, false).unwrap();
    assert!(!is_quiet(&world, &facts, process.now(&world)), "one pass may have missed what it saw");
    let until = world.elapsed + 2 * HOUR;
    process.live_until(&mut world, until);
    let facts = process.facts(&world, false).unwrap();
    assert!(is_quiet(&world, &facts, process.now(&world)));
}

#[test]
fn an_object_to_which_a_pass_may_matter_is_not_quiet() {
    type Change = fn(&mut Facts);
    let changes: [(&str, Change); 11] = [
        ("there was one pass", |facts| facts.passes.truncate(1)),
        ("a pass is doubtful", |facts| facts.passes[1].doubt = Doubt::All),
        ("its key is inactive", |facts| facts.passes[0].keys[0].is_active = false),
        ("its key is not listed", |facts| facts.passes[0].keys.clear()),
        ("there is another active key", |facts| {
            let mut stray = facts.passes[0].keys[0].clone();
            stray.id = "key-9".to_owned();
            facts.passes[0].keys.push(stray);
        }),
        ("it is deleted", |facts| facts.object.deleting = true),
        ("it was seen after the earlier pass", |facts| {
            let seen = facts.passes[1].started.plus(std::time::Duration::from_nanos(1));
            facts.memory.first_seen.insert("key-1".to_owned(), seen);
        }),
        ("a revocation has to be confirmed", |facts| {
            facts.memory.perhaps_revoked.insert("key-0".to_owned(), Monotonic::default());
        }),
        ("a key of its own was revoked", |facts| {
            facts.memory.revoked_ids.insert("key-0".to_owned());
        }),
        ("an attempt is in progress", |facts| {
            facts.memory.attempts.iter_mut().for_each(|(_, known)| known.progress = Progress::Sent);
        }),
        ("the spec asks for something", |facts| {
            facts.object.spec = Ok(serde_json::from_value(json!({"mode": "test"})).unwrap());
        }),
    ];
    let (world, facts, now) = quiet();
    for (what, change) in changes {
        let mut changed = facts.clone();
        change(&mut changed);
        assert!(!is_quiet(&world, &changed, now), "{what}");
    }
    let (world, mut process) = World::rotated(plain());
    let facts = process.facts(&world, false).unwrap();
    assert!(!is_quiet(&world, &facts, process.now(&world)), "a previous key is in its overlap");
}

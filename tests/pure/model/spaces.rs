//! The spaces that are explored, each to its end.

use super::{Most, Protocol, Seen, State, user::User};
use boltz_operator::plan::{BoltzErrorKind, Slot};
use plan_world::{Fault, HOUR, Milestone};
use serde_json::json;
use stateright::{Checker, HasDiscoveries, Model};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What a space has to show, or it shows nothing.
#[derive(Clone, Copy)]
struct Expected {
    /// At least so many states that differ.
    states: usize,
    reached: &'static [Milestone],
    /// Exactly so many, on the path that makes the most.
    most: Most,
}

const fn expected(states: usize, posts: usize, writes: usize, reached: &'static [Milestone]) -> Expected {
    Expected { states, reached, most: Most { posts, writes } }
}

/// Explores the whole space, and prints a row of the table. `MEASURE=1` judges no figures, to find new ones; `MOST=100000`
/// cuts each space short.
fn explore(name: &str, protocol: Protocol, expected: Expected) {
    let started = Instant::now();
    let most = std::env::var("MOST").ok().and_then(|most| most.parse().ok());
    let measures = std::env::var("MEASURE").is_ok();
    let bounds = if measures { Protocol::default().most } else { expected.most };
    let seen = Arc::<Seen>::default();
    let checker = Protocol { most: bounds, seen: Arc::clone(&seen), ..protocol }
        .checker()
        .threads(2)
        .target_state_count(most.unwrap_or(usize::MAX))
        .finish_when(HasDiscoveries::Any)
        .spawn_dfs()
        .join();
    let (reached, Most { posts, writes }) = (seen.reached(), seen.most());
    println!(
        "| {name} | {} | {} | {posts} | {writes} | {:.1} h | {} | {:.1} s |",
        checker.unique_state_count(),
        checker.max_depth(),
        seen.latest().as_secs_f64() / 3600.0,
        reached.iter().map(|milestone| format!("{milestone:?}")).collect::<Vec<_>>().join(" "),
        started.elapsed().as_secs_f64()
    );
    for (property, path) in checker.discoveries() {
        tell(checker.model(), property, path.into_actions());
    }
    assert!(checker.discoveries().is_empty(), "{name}: see above");
    if measures || most.is_some_and(|most| checker.state_count() >= most) {
        return;
    }
    let missing: Vec<_> =
        expected.reached.iter().filter(|milestone| !reached.contains(**milestone)).collect();
    assert!(missing.is_empty(), "{name}: no path reaches {missing:?}");
    assert!(
        checker.unique_state_count() >= expected.states,
        "{name}: only {} states",
        checker.unique_state_count()
    );
    assert_eq!(seen.most(), expected.most, "{name}: fewer POSTs or writes than expected");
}

/// How the property came to be violated.
fn tell(protocol: &Protocol, property: &str, actions: Vec<super::Action>) {
    eprintln!("violated: {property}");
    let mut state: State = protocol.init_states().remove(0);
    for action in actions {
        let seconds = state.world.elapsed.as_secs_f64();
        let next = match &action {
            super::Action::Step(index, _) => state.actors[*index].next_step(&state.world),
            _ => String::new(),
        };
        eprintln!("{seconds:>8.1} s  {action:?} {next}");
        state = protocol.next_state(&state, action).unwrap();
    }
    eprintln!(
        "{:?}\nunaccounted {:?}\nwrong {:?}",
        state.world.violation,
        state.unaccounted(),
        state.what_is_wrong()
    );
}

/// Short walks of users, with all that the protocol promises about them; alone, and crossed with a fault.
const WALKS: [(&[User], Expected, Expected); 10] = [
    (&[User::Deletes, User::Recreates], NONE, NONE),
    (&[User::Rotates, User::Rotates], NONE, NONE),
    (&[User::RotatesNow, User::Deletes], NONE, NONE),
    (&[User::DeletesTheSecret, User::Rotates], NONE, NONE),
    (&[User::EditsTheValue], NONE, NONE),
    (&[User::StripsTheFinalizer, User::Deletes], NONE, NONE),
    (&[User::TakesABackup, User::Rotates, User::RestoresIt], NONE, NONE),
    (&[User::RuinsTheLedger, User::Deletes], NONE, NONE),
    (&[User::Rotates, User::RuinsTheLedger], NONE, NONE),
    (&[User::ForgesTheStatus, User::ForgesTheRecord, User::ForgesTheLedger], NONE, NONE),
];
const NONE: Expected = expected(1, 0, 0, &[]);

/// One more dimension each, crossed with one fault: a crash at any point, or a lost answer, a late effect or a refusal of
/// any call.
const DIMENSIONS: [(&str, &[User], Expected); 15] = [
    ("the Secret is renamed", &[User::RenamesTheSecret], NONE),
    ("renamed and rotated", &[User::RenamesTheSecret, User::Rotates], NONE),
    ("another workspace", &[User::ChangesTheWorkspace], NONE),
    ("another data key and label", &[User::ChangesTheTemplate], NONE),
    ("a shorter overlap", &[User::Rotates, User::ShortensTheOverlap], NONE),
    ("suspended", &[User::Suspends, User::Rotates, User::Resumes], NONE),
    ("suspended, without a Secret", &[User::Suspends, User::DeletesTheSecret, User::Resumes], NONE),
    ("retained", &[User::Retains, User::Deletes], NONE),
    ("the clock steps forward", &[User::Rotates, User::StepsTheClockForward], NONE),
    ("the clock steps back", &[User::Rotates, User::StepsTheClockBack], NONE),
    ("a webhook", &[User::InstallsAWebhook, User::Rotates, User::RemovesTheWebhook], NONE),
    ("the list is empty", &[User::EmptiesTheList, User::Rotates, User::MendsTheList], NONE),
    ("the list is old", &[User::FreezesTheList, User::Rotates, User::MendsTheList], NONE),
    ("the account is paused", &[User::PausesTheAccount, User::Rotates], NONE),
    ("the list is empty, deleted", &[User::EmptiesTheList, User::Deletes, User::MendsTheList], NONE),
];

#[test]
fn one_operator_and_two_faults() {
    explore("one operator, two faults", Protocol { faults: 2, ..Protocol::default() }, NONE);
}

#[test]
fn one_operator_and_users() {
    for (users, expected, _) in WALKS {
        let protocol = Protocol { is_ready: true, passes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, {users:?}"), protocol, expected);
    }
}

#[test]
fn one_operator_and_one_more_dimension() {
    for (name, users, expected) in DIMENSIONS {
        let protocol = Protocol { is_ready: true, faults: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("a fault, {name}"), protocol, expected);
    }
    // Each key lives for a day, and is replaced after 16 hours.
    let spec = json!({"expiresInDays": 1, "rotation": {"overlap": "10m"}});
    let ends = Some(17 * HOUR);
    let protocol = Protocol { is_ready: true, faults: 1, spec, ends, ..Protocol::default() };
    explore("a fault, an expiry", protocol, NONE);
}

#[test]
fn one_operator_and_a_fault_that_stays() {
    let api = [Fault::Refused, Fault::Conflict, Fault::Cut, Fault::Undone];
    let slots = [Slot::Preflight, Slot::Ledger, Slot::Store, Slot::Status, Slot::Finalizer, Slot::Read];
    let boltz = [Fault::NotFound, Fault::Cut, Fault::Boltz(BoltzErrorKind::RateLimited)];
    let of_api = slots.into_iter().flat_map(|slot| api.map(|fault| (slot.clone(), fault)));
    let of_boltz = boltz.map(|fault| (Slot::Mint, fault));
    for (slot, fault) in of_api.chain(of_boltz) {
        let is_impossible = slot == Slot::Read && matches!(fault, Fault::Conflict | Fault::Undone);
        for (is_ready, users) in
            [(false, vec![]), (true, vec![User::RotatesNow]), (true, vec![User::Deletes])]
        {
            // What the walk never calls cannot go wrong.
            let is_called = match (&slot, users.first()) {
                (Slot::Read, None) => false,
                (Slot::Read | Slot::Status, _) => true,
                (Slot::Finalizer, user) => user == Some(&User::Deletes),
                (_, user) => user != Some(&User::Deletes),
            };
            if is_impossible || !is_called {
                continue;
            }
            let name = format!("{slot:?} {fault:?} stays for 2 h, {users:?}");
            let standing = Some((slot.clone(), fault));
            explore(&name, Protocol { is_ready, users, standing, ..Protocol::default() }, NONE);
        }
    }
}

#[test]
fn two_operators() {
    explore("two operators, a pause", Protocol { operators: 2, pauses: 1, ..Protocol::default() }, NONE);
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_and_three_faults() {
    let protocol = Protocol { faults: 3, freezes: 1, ..Protocol::default() };
    explore("one operator, three faults, a stale cache", protocol, NONE);
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_a_stale_cache_and_users() {
    for (users, ..) in WALKS {
        let protocol =
            Protocol { is_ready: true, passes: 1, freezes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, a stale cache, {users:?}"), protocol, NONE);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_a_fault_and_users() {
    for (users, _, expected) in WALKS {
        let protocol =
            Protocol { is_ready: true, faults: 1, passes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, a fault, {users:?}"), protocol, expected);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_one_more_dimension_and_two_faults() {
    for (name, users, _) in DIMENSIONS {
        let protocol = Protocol { is_ready: true, faults: 2, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("two faults, {name}"), protocol, NONE);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_and_a_fault() {
    for list_lag in [Duration::ZERO, Duration::from_secs(60)] {
        let protocol = Protocol { operators: 2, faults: 1, list_lag, ..Protocol::default() };
        explore(&format!("two operators, a fault, the list lags {list_lag:?}"), protocol, NONE);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_and_users() {
    for (users, ..) in WALKS {
        let protocol =
            Protocol { operators: 2, is_ready: true, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("two operators, {users:?}"), protocol, NONE);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_a_user_and_what_can_go_wrong() {
    let users = [User::Rotates, User::RotatesNow, User::Deletes, User::DeletesTheSecret, User::EditsTheValue];
    for user in users {
        let calm = Protocol { operators: 2, is_ready: true, users: vec![user], ..Protocol::default() };
        let one = Protocol { faults: 1, ..calm.clone() };
        explore(&format!("two operators, a fault, {user:?}"), one, NONE);
        let one = Protocol { freezes: 1, ..calm.clone() };
        explore(&format!("two operators, a stale cache, {user:?}"), one, NONE);
        let one = Protocol { pauses: 1, ..calm };
        explore(&format!("two operators, a pause, {user:?}"), one, NONE);
    }
}

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

/// What a space has to show: its row of the table in `spaces.md`.
struct Expected {
    states: usize,
    most: Most,
    /// Exactly so many POSTs and writes, on the path that makes the most; else no more than these.
    is_exact: bool,
    reached: Vec<String>,
}

/// The row of that name.
fn row(name: &str) -> Option<Expected> {
    let table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pure/model/spaces.md")).unwrap();
    let cells = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = cells.into_iter().find(|row| row.get(1) == Some(&name))?;
    Some(Expected {
        states: row[2].parse().unwrap(),
        most: Most { posts: row[3].parse().unwrap(), writes: row[4].parse().unwrap() },
        is_exact: true,
        reached: row[6].split(' ').map(str::to_owned).collect(),
    })
}

impl Protocol {
    /// Of a space that was not measured: a key for each that is asked for and for each thing that goes wrong.
    fn unmeasured(&self) -> Expected {
        let things = usize::from(self.faults + self.freezes + self.pauses);
        let asked =
            self.users.iter().filter(|user| user.asks_for_a_key()).count() + usize::from(!self.is_ready);
        // A space that ends sees one renewal.
        let posts = asked + things + usize::from(self.ends.is_some());
        let writes = 4 * posts + 2 * (self.users.len() + things) + 4;
        let must = if self.ends.is_some() { Milestone::Renewed } else { Milestone::Rested };
        let reached = vec![format!("{must:?}")];
        Expected { states: 100, most: Most { posts, writes }, is_exact: false, reached }
    }
}

/// Explores the whole space, and prints its row of the table. `MEASURE=1` judges no figures, to find new ones;
/// `MOST=100000` cuts each space short.
fn explore(name: &str, protocol: Protocol) {
    let started = Instant::now();
    let cut_at = std::env::var("MOST").ok().and_then(|most| most.parse().ok());
    let measures = std::env::var("MEASURE").is_ok();
    let expected = row(name).unwrap_or_else(|| protocol.unmeasured());
    let bounds = if measures { Protocol::default().most } else { expected.most };
    let seen = Arc::<Seen>::default();
    let checker = Protocol { most: bounds, seen: Arc::clone(&seen), ..protocol }
        .checker()
        .threads(2)
        .target_state_count(cut_at.unwrap_or(usize::MAX))
        .finish_when(HasDiscoveries::Any)
        .spawn_dfs()
        .join();
    let states = checker.unique_state_count();
    let reached: Vec<String> = seen.reached().iter().map(|milestone| format!("{milestone:?}")).collect();
    let Most { posts, writes } = seen.most();
    println!(
        "| {name} | {states} | {posts} | {writes} | {:.1} | {} | {:.1} s",
        seen.latest().as_secs_f64() / 3600.0,
        reached.join(" "),
        started.elapsed().as_secs_f64()
    );
    for (property, path) in checker.discoveries() {
        tell(checker.model(), property, path.into_actions());
    }
    assert!(checker.discoveries().is_empty(), "{name}: see above");
    if measures || cut_at.is_some_and(|most: usize| checker.state_count() >= most) {
        return;
    }
    let missing: Vec<&String> =
        expected.reached.iter().filter(|milestone| !reached.contains(milestone)).collect();
    assert!(missing.is_empty(), "{name}: no path reaches {missing:?}");
    // A tenth less may be a better decision; much less is a space that is cut off.
    assert!(states >= expected.states / 10 * 9, "{name}: only {states} states");
    if expected.is_exact {
        assert_eq!(seen.most(), expected.most, "{name}: fewer POSTs or writes than in the table");
    }
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

/// Short walks of users, with all that the protocol promises about them.
const WALKS: [&[User]; 10] = [
    &[User::Deletes, User::Recreates],
    &[User::Rotates, User::Rotates],
    &[User::RotatesNow, User::Deletes],
    &[User::DeletesTheSecret, User::Rotates],
    &[User::EditsTheValue],
    &[User::StripsTheFinalizer, User::Deletes],
    &[User::TakesABackup, User::Rotates, User::RestoresIt],
    &[User::RuinsTheLedger, User::Deletes],
    &[User::Rotates, User::RuinsTheLedger],
    &[User::ForgesTheStatus, User::ForgesTheRecord, User::ForgesTheLedger],
];

/// One more dimension each.
const DIMENSIONS: [(&str, &[User]); 10] = [
    ("another name of the Secret", &[User::RenamesTheSecret]),
    ("another name, and rotated", &[User::RenamesTheSecret, User::Rotates]),
    ("another workspace", &[User::ChangesTheWorkspace]),
    ("another data key and label", &[User::ChangesTheTemplate]),
    ("a shorter overlap", &[User::Rotates, User::ShortensTheOverlap]),
    ("suspended", &[User::Suspends, User::Rotates]),
    ("paused", &[User::Rotates, User::PausesTheObject]),
    ("retained", &[User::Retains, User::Deletes]),
    ("the clock steps forward", &[User::Rotates, User::StepsTheClockForward]),
    ("the clock steps back", &[User::Rotates, User::StepsTheClockBack]),
];
/// The same, of what lasts for a while.
const LASTING: [(&str, &[User]); 4] = [
    ("the list is empty", &[User::EmptiesTheList, User::MendsTheList]),
    ("the list is old", &[User::FreezesTheList, User::Rotates]),
    ("the account is paused", &[User::PausesTheAccount, User::Rotates]),
    ("the list is empty, and deleted", &[User::EmptiesTheList, User::Deletes, User::MendsTheList]),
];
/// With workloads that are restarted, under `UntilRolledOut`.
const RESTARTS: [(&str, &[User]); 3] = [
    ("all pods are new", &[User::Rotates]),
    ("all pods are new, and rotated again", &[User::Rotates, User::Rotates]),
    ("all pods are new, and paused", &[User::Rotates, User::PausesTheObject]),
];
/// Without a fault: a key whose record a webhook takes away is known to its process alone, a known limit of the protocol.
const WEBHOOKS: [(&str, &[User]); 2] = [
    ("a webhook comes", &[User::InstallsAWebhook, User::Rotates]),
    ("a webhook comes and goes", &[User::InstallsAWebhook, User::Rotates, User::RemovesTheWebhook]),
];
/// The same with a cure, which makes them larger.
const CURED: [(&str, &[User]); 5] = [
    ("suspended and resumed", &[User::Suspends, User::Rotates, User::Resumes]),
    ("suspended and resumed, without a Secret", &[User::Suspends, User::DeletesTheSecret, User::Resumes]),
    ("paused for a while", &[User::Rotates, User::PausesTheObject, User::EndsThePause]),
    ("paused, and deleted", &[User::Rotates, User::PausesTheObject, User::Deletes]),
    ("the list is old for a while", &[User::FreezesTheList, User::Rotates, User::MendsTheList]),
];

#[test]
fn one_operator_and_two_faults() {
    explore("one operator, two faults", Protocol { faults: 2, ..Protocol::default() });
}

#[test]
fn one_operator_and_users() {
    for users in WALKS {
        let protocol = Protocol { is_ready: true, passes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, {users:?}"), protocol);
    }
}

#[test]
fn one_operator_and_one_more_dimension() {
    for (name, users) in DIMENSIONS {
        let protocol = Protocol { is_ready: true, faults: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("a fault, {name}"), protocol);
    }
}

#[test]
fn one_operator_and_a_webhook() {
    for (name, users) in WEBHOOKS {
        explore(name, Protocol { is_ready: true, users: users.to_vec(), ..Protocol::default() });
    }
}

#[test]
fn one_operator_and_what_lasts_for_a_while() {
    for (name, users) in LASTING {
        let protocol = Protocol { is_ready: true, faults: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("a fault, {name}"), protocol);
    }
}

#[test]
fn one_operator_and_an_expiry() {
    // Each key lives for a day, and is replaced after 16 hours.
    let spec = json!({"expiresInDays": 1, "rotation": {"overlap": "10m"}});
    let ends = Some(17 * HOUR);
    let protocol = Protocol { is_ready: true, faults: 1, spec, ends, ..Protocol::default() };
    explore("a fault, an expiry", protocol);
}

#[test]
fn one_operator_and_restarts_that_end_an_overlap() {
    let spec = json!({
        "rotation": {"overlap": "1h", "overlapPolicy": "UntilRolledOut"},
        "rolloutRestartTargets": [{"kind": "Deployment", "name": "worker"}],
    });
    for (name, users) in RESTARTS {
        let (spec, users) = (spec.clone(), users.to_vec());
        let protocol =
            Protocol { is_ready: true, faults: 1, spec, users, longest: 3 * HOUR, ..Protocol::default() };
        explore(&format!("a fault, {name}"), protocol);
    }
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
                (Slot::Read, _) => true,
                (Slot::Finalizer, user) => user == Some(&User::Deletes),
                (_, user) => user != Some(&User::Deletes),
            };
            if is_impossible || !is_called {
                continue;
            }
            let name = format!("{slot:?} {fault:?} stays for 2 h, {users:?}");
            let standing = Some((slot.clone(), fault));
            explore(&name, Protocol { is_ready, users, standing, ..Protocol::default() });
        }
    }
}

#[test]
fn two_operators() {
    explore("two operators, a pause", Protocol { operators: 2, pauses: 1, ..Protocol::default() });
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_and_three_faults() {
    let protocol = Protocol { faults: 3, freezes: 1, ..Protocol::default() };
    explore("one operator, three faults, a stale cache", protocol);
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_a_stale_cache_and_users() {
    for users in WALKS {
        let protocol =
            Protocol { is_ready: true, passes: 1, freezes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, a stale cache, {users:?}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_a_fault_and_users() {
    for users in WALKS {
        let protocol =
            Protocol { is_ready: true, faults: 1, passes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, a fault, {users:?}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_one_more_dimension_and_a_cure() {
    for (name, users) in CURED {
        let protocol = Protocol { is_ready: true, faults: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("a fault, {name}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_one_more_dimension_and_two_faults() {
    for (name, users) in DIMENSIONS.into_iter().chain(CURED) {
        let protocol = Protocol { is_ready: true, faults: 2, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("two faults, {name}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_and_a_fault() {
    for list_lag in [Duration::ZERO, Duration::from_secs(60)] {
        let protocol = Protocol { operators: 2, faults: 1, list_lag, ..Protocol::default() };
        explore(&format!("two operators, a fault, the list lags {list_lag:?}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_and_users() {
    for users in WALKS {
        let protocol =
            Protocol { operators: 2, is_ready: true, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("two operators, {users:?}"), protocol);
    }
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn two_operators_a_user_and_what_can_go_wrong() {
    let users = [User::Rotates, User::RotatesNow, User::Deletes, User::DeletesTheSecret, User::EditsTheValue];
    for user in users {
        let calm = Protocol { operators: 2, is_ready: true, users: vec![user], ..Protocol::default() };
        let one = Protocol { faults: 1, ..calm.clone() };
        explore(&format!("two operators, a fault, {user:?}"), one);
        let one = Protocol { freezes: 1, ..calm.clone() };
        explore(&format!("two operators, a stale cache, {user:?}"), one);
        let one = Protocol { pauses: 1, ..calm };
        explore(&format!("two operators, a pause, {user:?}"), one);
    }
}

//! The spaces that are explored, each to its end.

use super::{Protocol, State, user::User};
use boltz_operator::plan::{BoltzErrorKind, Slot};
use plan_world::Fault;
use stateright::{Checker, HasDiscoveries, Model};
use std::time::{Duration, Instant};

/// Explores the whole space and prints its size.
fn explore(name: &str, protocol: Protocol) {
    let started = Instant::now();
    let most = std::env::var("MOST").ok().and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    let checker = protocol
        .checker()
        .threads(2)
        .target_state_count(most)
        .finish_when(HasDiscoveries::Any)
        .spawn_dfs()
        .join();
    eprintln!(
        "{name}: {} states, {} of them different, at most {} deep, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    for (property, path) in checker.discoveries() {
        tell(checker.model(), property, path.into_actions());
    }
    assert!(checker.discoveries().is_empty(), "{name}: see above");
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

#[test]
fn one_operator_and_two_faults() {
    explore("one operator, two faults", Protocol { faults: 2, ..Protocol::default() });
}

#[test]
fn one_operator_and_users() {
    for users in WALKS {
        let protocol =
            Protocol { is_ready: true, passes: 1, freezes: 1, users: users.to_vec(), ..Protocol::default() };
        explore(&format!("one operator, a stale cache, {users:?}"), protocol);
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
            if is_impossible {
                continue;
            }
            let name = format!("{slot:?} {fault:?} stays, {users:?}");
            let standing = Some((slot.clone(), fault));
            explore(&name, Protocol { is_ready, users, standing, ..Protocol::default() });
        }
    }
}

#[test]
fn two_operators() {
    explore("two operators", Protocol { operators: 2, pauses: 1, ..Protocol::default() });
}

#[test]
#[ignore = "takes minutes: make test-all runs it"]
fn one_operator_and_three_faults() {
    explore("one operator, three faults", Protocol { faults: 3, freezes: 1, ..Protocol::default() });
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
        explore(&format!("two operators, a fault, {user:?}"), Protocol { faults: 1, ..calm.clone() });
        explore(&format!("two operators, a stale cache, {user:?}"), Protocol { freezes: 1, ..calm.clone() });
        explore(&format!("two operators, a pause, {user:?}"), Protocol { pauses: 1, ..calm });
    }
}

//! How long each kind of call waits after each kind of failure: one table.

use super::{backoff::Backoff, facts::Settings, step::Slot};
use std::time::Duration;

/// The kinds of failure, by who can cure them and how soon a new try is worth its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may pass by itself at any moment: no answer, an overload.
    Passing,
    /// Again and again another version is there, or something that no read shows. Each try costs a read, too.
    Conflict,
    /// Somebody has to change something first.
    Refused,
    /// The request itself cannot be right: 400 and 422 of Boltz.
    Invalid,
    /// It was done, and something undoes it.
    Undone,
}

/// The waits after failures of that kind in that slot. With them an object whose every call fails makes at most 120 calls
/// to the API server in its first hour and 30 in each later one, and 40 and 12 calls to Boltz.
pub fn patience(slot: &Slot, failure: Failure, settings: &Settings) -> Backoff {
    let recheck = settings.recheck;
    match (slot, failure) {
        (_, Failure::Conflict) => Backoff::from_secs(1, 600),
        (Slot::Preflight, Failure::Refused) => Backoff { first: recheck, longest: recheck * 5 },
        (Slot::Preflight, _) => Backoff::from_secs(1, 300),
        // Each of these tries costs a key that is minted and revoked.
        (Slot::Store, Failure::Refused) => Backoff { first: recheck, longest: recheck * 30 },
        (Slot::Store, _) => Backoff::from_secs(1, 1800),
        (Slot::Mint, Failure::Invalid) => Backoff::from_secs(60, 3600),
        (Slot::Mint | Slot::Restart(_), Failure::Refused) => Backoff::from_secs(5, 600),
        (Slot::Mint | Slot::Restart(_) | Slot::Revoke(_), _) => Backoff::from_secs(1, 600),
        // Two leaders that know different things would write against each other.
        (Slot::Status, Failure::Undone) => Backoff { first: recheck, longest: recheck * 5 },
        (_, Failure::Refused | Failure::Invalid) => {
            Backoff { first: recheck, longest: Duration::from_secs(600) }
        }
        (_, Failure::Passing | Failure::Undone) => Backoff::from_secs(1, 600),
    }
}

//! How long each kind of call waits after each kind of failure.

use super::{backoff::Backoff, settings::Settings, step::Slot};

/// Kinds of failure, by who can fix them and how soon a retry is useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may end at any moment without anybody acting: no response, an overload.
    Passing,
    /// The API server has another version again and again, or something that no read shows. Each retry also costs a read.
    Conflict,
    /// Somebody has to change something first.
    Refused,
    /// The request is invalid: 400 and 422 of Boltz.
    Invalid,
    /// The call succeeds, but something undoes it.
    Undone,
}

/// The waits after failures of this kind in this slot. With these waits, an object whose calls all fail makes at most
/// 120 calls to the API server in its first hour and 30 in each later hour, and 40 and 12 calls to Boltz.
pub fn retry_backoff(slot: &Slot, failure: Failure, settings: &Settings) -> Backoff {
    let recheck = settings.recheck;
    match (slot, failure) {
        (_, Failure::Conflict) => Backoff::from_secs(1, 600),
        (
            Slot::Preflight | Slot::Record | Slot::Shape | Slot::Release | Slot::DeleteSecret(_),
            Failure::Refused,
        ) => Backoff { first: recheck, longest: recheck * 5 },
        (Slot::Preflight, _) => Backoff::from_secs(1, 300),
        // Valid although the list says otherwise: the list may be wrong for days.
        (Slot::Check, Failure::Undone) => Backoff::from_secs(60, 3600),
        // Each retry creates and revokes a key.
        (Slot::Store, Failure::Refused) => Backoff { first: recheck, longest: recheck * 30 },
        (Slot::Store, _) => Backoff::from_secs(1, 1800),
        (Slot::Mint, Failure::Invalid) => Backoff::from_secs(60, 3600),
        (Slot::Mint | Slot::Restart(_), Failure::Refused) => Backoff::from_secs(5, 600),
        (Slot::Mint | Slot::Restart(_) | Slot::Revoke(_), _) => Backoff::from_secs(1, 600),
        // Two leaders with different knowledge would otherwise overwrite each other without end.
        (Slot::Status, Failure::Undone) => Backoff { first: recheck, longest: recheck * 5 },
        // An API server that starts also refuses, for some seconds.
        (_, Failure::Refused | Failure::Invalid) => Backoff::from_secs(5, 600),
        (_, Failure::Passing | Failure::Undone) => Backoff::from_secs(1, 600),
    }
}

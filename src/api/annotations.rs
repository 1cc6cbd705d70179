//! The names under `boltz.bio/` that the operator writes and reads: finalizer, annotations, labels.

/// The API group of the resource, and the prefix of every annotation and label that the operator writes.
pub const GROUP: &str = "boltz.bio";
/// What annotations of the operator begin with.
pub const PREFIX: &str = "boltz.bio/";
/// Keeps an object until its keys are revoked.
pub const FINALIZER: &str = "boltz.bio/revoke-keys";
/// Keeps a `BoltzAccount` until no key of it is left.
pub const ACCOUNT_FINALIZER: &str = "boltz.bio/account-in-use";
/// On a `BoltzAccount`: `true` makes it the account of objects that name none.
pub const DEFAULT_ACCOUNT_ANNOTATION: &str = "boltz.bio/is-default-account";
/// On the object: the attempts that may still have an active key ([`crate::protocol::ledger`]).
pub const LEDGER_ANNOTATION: &str = "boltz.bio/attempts";
/// On the Secret: the current key and the previous keys ([`crate::protocol::record`]).
pub const RECORD_ANNOTATION: &str = "boltz.bio/record";
/// On the Secret: the UID of the object that it belongs to.
pub const OWNER_LABEL: &str = "boltz.bio/owner-uid";
/// A new value requests a rotation with the usual overlap.
pub const ROTATE_ANNOTATION: &str = "boltz.bio/rotate";
/// The same value as `rotate`: that rotation does not wait for the rotation window.
pub const ROTATE_OUTSIDE_WINDOW_ANNOTATION: &str = "boltz.bio/rotate-outside-window";
/// A new value requests a rotation without overlap, for a key that has leaked.
pub const ROTATE_NOW_ANNOTATION: &str = "boltz.bio/rotate-now";
/// A new value retries everything immediately that waits after a failure.
pub const RETRY_ANNOTATION: &str = "boltz.bio/retry";
/// On a Secret: the name of the object that may take it over with `spec.secret.adopt`.
pub const ADOPTABLE_BY_ANNOTATION: &str = "boltz.bio/adoptable-by";
/// `true` pauses the object: nothing is issued, reshaped, restarted or taken from workloads.
pub const PAUSED_ANNOTATION: &str = "boltz.bio/paused";
/// Overrides `spec.deletionPolicy` while the object is being deleted.
pub const DELETION_POLICY_ANNOTATION: &str = "boltz.bio/deletion-policy";
/// On the pod template of a restarted workload: the key that it has to load.
pub const RESTARTED_FOR_ANNOTATION: &str = "boltz.bio/restarted-for";

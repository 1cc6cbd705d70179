//! Why something has to wait, in the words of conditions.

use super::time::Monotonic;

/// The reasons of the `Ready` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum Reason {
    /// A working key is in the Secret.
    Issued,
    /// No key yet.
    Pending,
    /// The key does not work any more and is being replaced.
    Rotating,
    /// The Secret's name is taken by something else.
    SecretConflict,
    /// The API server refuses the Secret, or does not answer about it.
    SecretWriteFailed,
    /// The API server refuses a write of the object, or does not answer about it.
    ObjectWriteFailed,
    /// The API server refuses to restart a workload, or does not answer about it.
    RestartFailed,
    /// The spec cannot be read.
    InvalidSpec,
    /// Boltz refuses the request.
    BoltzRejected,
    /// Boltz does not answer.
    BoltzUnavailable,
    /// Boltz does not take the admin key.
    BoltzUnauthorized,
    /// Boltz asks to slow down.
    RateLimited,
    /// The operator's own limit on new keys.
    MintBudgetExceeded,
    /// The key has expired.
    Expired,
    /// `spec.suspend`.
    Suspended,
    /// The object is being deleted.
    Deleting,
    /// An old key is still used at the end of its overlap.
    RevocationBlocked,
    /// An admission policy refuses a write.
    PolicyDenied,
}

impl Reason {
    /// The condition's `reason`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether waiting alone will not help: somebody has to change something.
    pub fn is_stalled(self) -> bool {
        matches!(
            self,
            Self::SecretConflict
                | Self::InvalidSpec
                | Self::BoltzRejected
                | Self::BoltzUnauthorized
                | Self::PolicyDenied
                | Self::SecretWriteFailed
                | Self::ObjectWriteFailed
                | Self::RestartFailed
        )
    }
}

/// Why something has to wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The condition's reason.
    pub reason: Reason,
    /// A sentence for people, without anything that changes from one retry to the next.
    pub message: String,
    /// When to try again; `None`: something else will tell.
    pub until: Option<Monotonic>,
}

impl Block {
    /// Whether it still holds.
    pub fn holds(&self, now: Monotonic) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

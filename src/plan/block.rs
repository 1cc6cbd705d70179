//! Why a step has to wait: the reasons and messages of conditions.

use super::time::Monotonic;

/// The reasons of the `Ready` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
pub enum Reason {
    /// The Secret contains a valid key.
    Issued,
    /// The first key has not been stored yet.
    Pending,
    /// The key is no longer valid and is being replaced.
    Rotating,
    /// The Secret's name is taken by something else.
    SecretConflict,
    /// The API server rejects a write of the Secret, or does not respond.
    SecretWriteFailed,
    /// The API server rejects a write of the object, or does not respond.
    ObjectWriteFailed,
    /// The API server rejects the restart of a workload, or does not respond.
    RestartFailed,
    /// The operator cannot use the spec, although the CRD allows it.
    InvalidSpec,
    /// Boltz rejected a request, and will reject it again until something changes.
    BoltzRejected,
    /// No connection, no response in time, or a 5xx.
    BoltzUnavailable,
    /// Boltz rejected the admin key.
    BoltzUnauthorized,
    /// Boltz's list does not show the key as active, and it is not certain that this is true.
    KeyDoubtful,
    /// Boltz changes the names of keys, so that they cannot be found again.
    NamesAltered,
    /// New keys have expired when they arrive: the clock of the operator or of Boltz is wrong.
    ClockSkew,
    /// Boltz limits the request rate.
    RateLimited,
    /// The operator's limit of new keys is reached.
    MintBudgetExceeded,
    /// The key expired before another one was stored.
    Expired,
    /// `spec.suspend` is true.
    Suspended,
    /// The annotation `boltz.bio/paused` is `true`.
    Paused,
    /// The object is being deleted.
    Deleting,
    /// A previous key is still in use after the end of its overlap.
    PreviousKeyStillUsed,
    /// An admission webhook or policy denied a write, or the object's account does not allow it a key.
    PolicyDenied,
}

impl Reason {
    /// Why a call to Boltz fails.
    pub(crate) const OF_BOLTZ: [Self; 4] =
        [Self::BoltzRejected, Self::BoltzUnauthorized, Self::BoltzUnavailable, Self::RateLimited];
    /// Why a key cannot be issued or stored.
    pub(crate) const OF_ISSUING: [Self; 9] = [
        Self::BoltzRejected,
        Self::BoltzUnauthorized,
        Self::BoltzUnavailable,
        Self::RateLimited,
        Self::NamesAltered,
        Self::ClockSkew,
        Self::SecretWriteFailed,
        Self::ObjectWriteFailed,
        Self::PolicyDenied,
    ];

    /// The `reason` of the condition, and the label of `boltz_apikey_status`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether somebody has to act: waiting does not help.
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
                | Self::KeyDoubtful
                | Self::NamesAltered
                | Self::ClockSkew
        )
    }
}

/// Why a step has to wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// What the condition shows while the step waits.
    pub reason: Reason,
    /// Message for the condition. It must not change between retries.
    pub message: String,
    /// When to retry. `None`: wait for an event.
    pub until: Option<Monotonic>,
}

impl Block {
    /// Whether it is still in effect.
    pub(crate) fn is_in_effect(&self, now: Monotonic) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

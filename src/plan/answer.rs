//! Results of a step's call. The controller converts responses of the API server and of Boltz to these types;
//! [`super::ProcessMemory::apply`] decides what they mean.

use super::{attempt::MintedKey, block::Block, rollout::Rollout};
use crate::{
    protocol::marker::{MAX_NAME_LENGTH, Marker},
    scrub::scrub,
};
use jiff::Timestamp;
use std::time::Duration;

/// Result of a step's call.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr, strum::VariantNames)]
pub enum Answer {
    /// It took effect, and the facts contain the response.
    Done,
    /// It was accepted, but the response shows that it had no effect. The text names what is missing.
    Undone(String),
    /// The key was stored, but something took away the record of it.
    Unrecorded,
    /// Nothing was sent: the facts are stale.
    Stale,
    /// Nothing was sent: one of the operator's own limits is reached.
    Postponed(Block),
    /// The object does not exist any more.
    Gone,
    /// Boltz created a key.
    Minted(Box<MintedKey>),
    /// Boltz created a key that must not be used. It is revoked.
    MintedUnusable(Box<MintedKey>, Unusable),
    /// Boltz was asked with the stored key whether it is valid.
    Checked(KeyCheck),
    /// How far the rollout of a restarted workload is.
    RolloutRead(Rollout),
    /// The key was already revoked.
    AlreadyRevoked,
    /// Boltz, or a gateway in front of it, responded to a revocation with 404.
    KeyNotFound,
    /// The API server rejected the call, or did not respond.
    ApiFailed(ApiFailure),
    /// Boltz rejected the call, or did not respond.
    BoltzFailed(BoltzFailure),
}

/// Why a new key must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Boltz named it differently: Boltz's list would not lead back to the object. Contains the name.
    OtherName(String),
    /// Its name is that of another request of an operator, or its id that of an older key: a proxy may have repeated an
    /// old response. The key belongs to another request, so it is not revoked. Contains the name.
    KeyOfAnother(String),
    /// It is in another workspace than requested. Contains the workspace.
    OtherWorkspace(String),
    /// By the operator's clock, it had expired when it arrived: one of the two clocks is wrong.
    Expired,
}

impl Unusable {
    /// Compares a new key with what was requested.
    pub fn find(
        marker: &Marker,
        workspace: Option<&str>,
        name: &str,
        key: &MintedKey,
        now: Timestamp,
    ) -> Option<Self> {
        match Marker::parse(name) {
            None => return Some(Self::OtherName(repeated(name))),
            Some(other) if other != *marker => return Some(Self::KeyOfAnother(repeated(name))),
            Some(_) => {}
        }
        // What is missing proves nothing.
        if let (Some(wanted), Some(given)) = (workspace, &key.workspace_id)
            && wanted != given
        {
            return Some(Self::OtherWorkspace(scrub(given, &[])));
        }
        key.expires_at.is_some_and(|expires_at| expires_at <= now).then_some(Self::Expired)
    }

    /// A key with this name, whose id was known before the request.
    pub fn known(name: &str) -> Self {
        Self::KeyOfAnother(repeated(name))
    }

    /// Whether the key was created for the request, so that it has to be revoked.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self, Self::KeyOfAnother(_))
    }
}

/// A name of Boltz for a message.
fn repeated(name: &str) -> String {
    scrub(name, &[]).chars().take(MAX_NAME_LENGTH).collect()
}

/// What Boltz says to a request with the stored key itself (`auth/me`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// Boltz accepts it, so a list that shows it as inactive or not at all is wrong.
    Valid,
    /// Boltz does not accept it: 401.
    Invalid,
    /// Any other answer proves nothing: a 403 may be about the address of the operator. Contains the answer.
    Unclear(String),
}

/// What a failed call to the API server means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may or may not have taken effect, now or later.
    Unknown,
    /// No effect: the object exists already, or has another version. Read, then decide again.
    Conflict,
    /// No effect: the object does not exist.
    NotFound,
    /// No effect: rejected.
    Refused,
}

/// A failed call to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiFailure {
    /// What it means for the caller.
    pub verdict: Verdict,
    /// Denied by an admission webhook or policy.
    pub by_policy: bool,
    /// The API server's message, or why there is none.
    pub message: String,
}

/// Whether a failed create may have made a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No.
    None,
    /// Possibly, now or later.
    Unknown,
}

/// What to do about a failure of Boltz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoltzErrorKind {
    /// Boltz rejected the admin key for this call: another key, or more permissions, are needed.
    Unauthorized,
    /// The request is invalid: 400 and 422.
    Invalid,
    /// The request is rejected for a reason outside of it: a bill, a workspace, a quota.
    Refused,
    /// Too many calls: wait.
    RateLimited,
    /// Boltz, or the network, does not work: wait.
    Unavailable,
}

/// A failed call to Boltz.
#[derive(Clone, Debug, PartialEq)]
pub struct BoltzFailure {
    /// What kind of failure.
    pub kind: BoltzErrorKind,
    /// Whether a create may have made a key.
    pub effect: Effect,
    /// How long Boltz asks to wait.
    pub retry_after: Option<Duration>,
    /// The error, without a period at the end.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_must_be_what_was_requested() {
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let ours = "bo.prod.550e8400e29b41d4.0123456789ab";
        let marker = Marker::parse(ours).unwrap();
        let find = |name: &str, workspace: Option<&str>, expires_in: Option<i64>| {
            let key = MintedKey {
                id: "key_1".to_owned(),
                prefix: "sk_bc_ws_liv".to_owned(),
                value_sha256: String::new(),
                received_at: now,
                created_at: now,
                expires_at: expires_in.map(|seconds| now + jiff::SignedDuration::from_secs(seconds)),
                livemode: true,
                workspace_id: workspace.map(str::to_owned),
                organization: None,
            };
            Unusable::find(&marker, Some("ws_1"), name, &key, now)
        };
        let team = format!("team/design {ours}");
        assert_eq!(find(&team, Some("ws_1"), Some(1)), None);
        assert_eq!(find(&team, None, None), None, "what is missing proves nothing");
        assert_eq!(find(&team, Some("ws_2"), None), Some(Unusable::OtherWorkspace("ws_2".to_owned())));
        assert_eq!(find(&team, Some("ws_1"), Some(0)), Some(Unusable::Expired));
        assert_eq!(find("cut", None, None), Some(Unusable::OtherName("cut".to_owned())));
        let other = "team/design bo.prod.550e8400e29b41d4.0a9876543210";
        let unusable = find(other, None, None).unwrap();
        assert_eq!(unusable, Unusable::KeyOfAnother(other.to_owned()));
        assert!(!unusable.is_ours(), "it is the key of another request, so it is not revoked");
    }
}

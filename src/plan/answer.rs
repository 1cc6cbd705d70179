//! Results of a step's call. The controller converts responses of the API server and of Boltz to these types;
//! [`super::ProcessMemory::apply`] decides what they mean.

use super::{attempt::MintedKey, block::Block, rollout::Rollout, time::elapsed};
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
    /// The response does not contain a name, so nothing shows whose key it is.
    NoName,
    /// Its name is that of another request of an operator, or its id that of an older key: a proxy may have repeated an
    /// old response. The key belongs to another request, so it is not revoked. Contains the name.
    KeyOfAnother(String),
    /// It is in another workspace than requested. Contains the workspace.
    OtherWorkspace(String),
    /// It is a live key, and a test-mode key was requested, or the other way round.
    OtherMode,
    /// Boltz says that it is not active.
    Inactive,
    /// By the operator's clock, it had expired when it arrived: one of the two clocks is wrong.
    Expired,
}

/// What a create requested.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a> {
    /// The end of the name.
    pub marker: &'a Marker,
    /// `None`: the default one.
    pub workspace: Option<&'a str>,
    /// Not a test-mode key.
    pub livemode: bool,
}

/// A key without our name that is older than this is not new: a proxy has repeated the response to somebody else's request.
const NEW: Duration = Duration::from_secs(300);

impl Unusable {
    /// Compares a new key with what was requested.
    pub fn find(
        requested: Requested,
        name: &str,
        is_active: bool,
        key: &MintedKey,
        now: Timestamp,
    ) -> Option<Self> {
        match Marker::parse(name) {
            None if elapsed(key.created_at, now) > NEW => return Some(Self::KeyOfAnother(repeated(name))),
            None if name.is_empty() => return Some(Self::NoName),
            None => return Some(Self::OtherName(repeated(name))),
            Some(other) if other != *requested.marker => return Some(Self::KeyOfAnother(repeated(name))),
            Some(_) => {}
        }
        // What is missing proves nothing.
        if let (Some(wanted), Some(given)) = (requested.workspace, &key.workspace_id)
            && wanted != given
        {
            return Some(Self::OtherWorkspace(scrub(given, &[])));
        }
        if key.livemode != requested.livemode {
            return Some(Self::OtherMode);
        }
        if !is_active {
            return Some(Self::Inactive);
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
    /// Boltz accepts it, as another key: the id that was asked about is wrong.
    OtherKey,
    /// Any other answer proves nothing: a 403 may be about the address of the operator. Contains the answer.
    Unclear(String),
}

impl KeyCheck {
    /// What Boltz answered, if that is not clear.
    pub(super) fn told(&self) -> &str {
        match self {
            Self::Unclear(answer) => answer,
            Self::OtherKey => "Boltz responded with another key's id",
            Self::Valid | Self::Invalid => "",
        }
    }
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
    /// The operator lacks the permission.
    pub is_forbidden: bool,
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

impl BoltzFailure {
    /// Whether the key of a revocation that failed so may be revoked: it took effect, or the key was revoked before.
    pub(crate) fn may_have_revoked(&self) -> bool {
        self.effect == Effect::Unknown
            || matches!(self.kind, BoltzErrorKind::Invalid | BoltzErrorKind::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_must_be_what_was_requested() {
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let ours = "bo.prod.550e8400e29b41d4.0123456789ab";
        let marker = Marker::parse(ours).unwrap();
        let requested = Requested { marker: &marker, workspace: Some("ws_1"), livemode: true };
        let find_odd = |name: &str, is_active: bool, odd: &dyn Fn(&mut MintedKey)| {
            let mut key = MintedKey {
                id: "key_1".to_owned(),
                prefix: "sk_bc_ws_liv".to_owned(),
                value_sha256: String::new(),
                received_at: now,
                created_at: now,
                expires_at: None,
                livemode: true,
                workspace_id: None,
                organization: None,
            };
            odd(&mut key);
            Unusable::find(requested, name, is_active, &key, now)
        };
        let find = |name: &str, workspace: Option<&str>, expires_in: Option<i64>| {
            find_odd(name, true, &|key| {
                key.workspace_id = workspace.map(str::to_owned);
                key.expires_at = expires_in.map(|seconds| now + jiff::SignedDuration::from_secs(seconds));
            })
        };
        assert_eq!(find_odd(ours, false, &|_| {}), Some(Unusable::Inactive));
        assert_eq!(find_odd(ours, true, &|key| key.livemode = false), Some(Unusable::OtherMode));
        for name in ["", "of a person"] {
            let unusable =
                find_odd(name, true, &|key| key.created_at = "2026-11-23T23:50:00Z".parse().unwrap());
            assert!(
                !unusable.unwrap().is_ours(),
                "{name}: a proxy repeated the response to a person's request"
            );
        }
        let team = format!("team/design {ours}");
        assert_eq!(find(&team, Some("ws_1"), Some(1)), None);
        assert_eq!(find(&team, None, None), None, "what is missing proves nothing");
        assert_eq!(find(&team, Some("ws_2"), None), Some(Unusable::OtherWorkspace("ws_2".to_owned())));
        assert_eq!(find(&team, Some("ws_1"), Some(0)), Some(Unusable::Expired));
        assert_eq!(find("cut", None, None), Some(Unusable::OtherName("cut".to_owned())));
        assert_eq!(find("", None, None), Some(Unusable::NoName), "missing is not altered");
        let other = "team/design bo.prod.550e8400e29b41d4.0a9876543210";
        let unusable = find(other, None, None).unwrap();
        assert_eq!(unusable, Unusable::KeyOfAnother(other.to_owned()));
        assert!(!unusable.is_ours(), "it is the key of another request, so it is not revoked");
    }
}

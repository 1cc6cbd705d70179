//! What one object says.

use crate::words::plain;
use boltz_operator::{
    api::{
        BoltzApiKeyStatus, DeletionPolicy, WatchedApiKey,
        annotations::{DELETION_POLICY_ANNOTATION, FINALIZER, PAUSED_ANNOTATION},
    },
    plan::{Opening, Reason, Window},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::BTreeSet;

/// A rotation or a revocation that is due for longer than this is overdue.
pub(super) const OVERDUE: SignedDuration = SignedDuration::from_hours(1);

/// The object with its status, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub object: &'a WatchedApiKey,
    pub now: Timestamp,
}

impl<'a> View<'a> {
    pub fn new(object: &'a WatchedApiKey, now: Timestamp) -> Self {
        Self { object, now }
    }

    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.object.namespace().unwrap_or_default(), self.object.name_any())
    }

    pub fn status(&self) -> Option<&'a BoltzApiKeyStatus> {
        self.object.status.as_ref()
    }

    pub fn condition(&self, kind: &str) -> Option<&'a Condition> {
        self.status()?.conditions.iter().find(|condition| condition.type_ == kind)
    }

    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    pub fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Among its finalizers is the operator's: its keys are not revoked yet.
    pub fn has_our_finalizer(&self) -> bool {
        self.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
    }

    /// A deletion keeps its keys. The annotation overrides the spec.
    pub fn keeps_its_keys(&self) -> bool {
        match self.object.annotations().get(DELETION_POLICY_ANNOTATION).map(String::as_str) {
            Some("Retain") => true,
            Some("Revoke") => false,
            _ => self.object.spec.as_ref().is_ok_and(|spec| spec.deletion_policy == DeletionPolicy::Retain),
        }
    }

    pub fn is_suspended(&self) -> bool {
        self.object.spec.as_ref().is_ok_and(|spec| spec.suspend)
    }

    /// The annotation `boltz.bio/paused` stops the operator.
    pub fn is_paused(&self) -> bool {
        self.object.annotations().get(PAUSED_ANNOTATION).is_some_and(|value| value == "true")
    }

    /// The key is over. The status may say Ready still, if no operator runs.
    pub fn is_expired(&self) -> bool {
        self.expires_at().is_some_and(|at| at <= self.now)
    }

    /// Workloads have a valid key.
    pub fn has_valid_key(&self) -> bool {
        self.is("Ready") && !self.is_expired()
    }

    /// Ready, and the operator has seen the newest spec.
    pub fn is_ready(&self) -> bool {
        let observed = self.status().and_then(|status| status.observed_generation);
        self.is("Ready") && observed == self.object.metadata.generation
    }

    /// No key is wanted, so that not being Ready is no fault.
    pub fn is_unready_on_purpose(&self) -> bool {
        // A valid key of such an object has these reasons too.
        let on_purpose = [Reason::Suspended, Reason::Paused].map(Reason::as_str);
        !self.is("Ready")
            && self.condition("Ready").is_some_and(|ready| on_purpose.contains(&ready.reason.as_str()))
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        Some(self.status()?.expires_at.as_ref()?.0)
    }

    pub fn renewal_time(&self) -> Option<Timestamp> {
        Some(self.status()?.renewal_time.as_ref()?.0)
    }

    pub fn last_used_at(&self) -> Option<Timestamp> {
        Some(self.status()?.last_used_at.as_ref()?.0)
    }

    /// The same of the current key: an earlier use was one of a key before it.
    pub fn current_key_last_used_at(&self) -> Option<Timestamp> {
        let created = self.status()?.created_at.as_ref().map(|time| time.0);
        self.last_used_at().filter(|used| created.is_none_or(|created| *used >= created))
    }

    /// The rotation window that is open or opens next.
    pub fn next_window(&self) -> Option<Opening> {
        let window = self.object.spec.as_ref().ok()?.rotation.window.as_ref()?;
        Window::read(window).ok()?.first_ending_after(self.now)
    }

    /// When the current key was issued.
    pub fn issued_at(&self) -> Option<Timestamp> {
        let status = self.status()?;
        // A key that replaced none has no rotation time.
        let time = status.last_rotation_time.as_ref().or(status.created_at.as_ref())?;
        Some(time.0)
    }

    /// A rotation, the revocation of a key, or the end of a deletion should have happened.
    pub fn is_overdue(&self) -> bool {
        let is_late = |time: Timestamp| self.now.duration_since(time) > OVERDUE;
        let previous = self.status().map(|status| status.previous_keys.as_slice()).unwrap_or_default();
        let deleted_at = self.object.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        self.renewal_time().is_some_and(is_late)
            || deleted_at.is_some_and(is_late)
            // Also of a key that previousKeys does not name.
            || self.is("RevocationFailing")
            || previous.iter().any(|previous| is_late(previous.revoke_after.0))
    }

    pub fn expires_within(&self, within: SignedDuration) -> bool {
        self.expires_at().is_some_and(|expiry| expiry.duration_since(self.now) <= within)
    }

    /// No key of it was used for that time. A key that replaced others may be new: then it is the object's age that counts.
    pub fn is_unused_for(&self, time: SignedDuration) -> bool {
        let status = self.status();
        let rotations = status.and_then(|status| status.rotations).unwrap_or_default();
        let first_key = self.issued_at().filter(|_| rotations == 0);
        let created = self.object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let has_key = status.is_some_and(|status| status.created_at.is_some());
        let since = self.last_used_at().max(first_key.or(created).or(self.issued_at()).filter(|_| has_key));
        since.is_some_and(|since| self.now.duration_since(since) >= time)
    }

    /// The reason of the condition that says most: what blocks, else that of Ready.
    pub fn reason(&self) -> String {
        let stalled = self.condition("Stalled").filter(|stalled| stalled.status == "True");
        if stalled.is_none() && self.is("Ready") && self.is_expired() {
            return Reason::Expired.as_str().to_owned();
        }
        or_unknown(stalled.or(self.condition("Ready")).map(|condition| condition.reason.as_str()))
    }

    /// Why it is not Ready, or what the operator cannot do although it is: a reason and a message.
    pub fn trouble(&self) -> Option<(String, String)> {
        let ready = self.condition("Ready").filter(|ready| ready.status != "True");
        if ready.is_none() && self.is_expired() {
            let message =
                "The key has expired, and no operator has reported it. Check it: kubectl boltz doctor";
            return Some((Reason::Expired.as_str().to_owned(), message.to_owned()));
        }
        let when_true = |kind: &str| self.condition(kind).filter(|condition| condition.status == "True");
        let reconciling = when_true("Reconciling").filter(|condition| !condition.message.is_empty());
        let condition = ready.or(when_true("Stalled")).or(when_true("RevocationFailing")).or(reconciling)?;
        Some((plain(&condition.reason), plain(&condition.message)))
    }

    /// In one line: the trouble, else what Ready says.
    pub fn state(&self) -> String {
        if let Some((reason, message)) = self.trouble() {
            return format!("{reason}: {message}");
        }
        let said = self.condition("Ready").map(|ready| plain(&ready.message));
        said.filter(|said| !said.is_empty()).unwrap_or_else(|| "The object reports no problem.".to_owned())
    }

    /// Somebody has to act before a key can be issued, which was not so before.
    pub fn is_newly_blocked(&self, before: &View) -> bool {
        let issues_still = [Reason::RestartFailed, Reason::KeyDoubtful].map(Reason::as_str);
        self.condition("Stalled").is_some_and(|stalled| {
            stalled.status == "True"
                && before.condition("Stalled") != Some(stalled)
                && !issues_still.contains(&stalled.reason.as_str())
        })
    }

    /// How long the overlap of these previous keys still lasts.
    pub fn overlap_left(&self, ids: &BTreeSet<String>) -> SignedDuration {
        let previous = self.status().map(|status| status.previous_keys.as_slice()).unwrap_or_default();
        let ends = previous.iter().filter(|previous| ids.contains(&previous.key_id));
        let left = ends.map(|previous| previous.revoke_after.0.duration_since(self.now)).max();
        left.unwrap_or_default().max(SignedDuration::ZERO)
    }
}

fn or_unknown(text: Option<&str>) -> String {
    text.map_or_else(|| "Unknown".to_owned(), plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, condition_of, object};
    use serde_json::json;

    const NOW_AND_LATER: &str = "2027-11-26T12:00:00Z";

    #[test]
    fn trouble_is_what_hinders_most() {
        let ready = condition_of("Ready", true, "Issued", "The Secret contains a valid key.");
        let failing =
            condition_of("RevocationFailing", true, "BoltzRejected", "Key a\u{202e} is still valid.");
        let reconciling = condition_of("Reconciling", true, "BoltzUnavailable", "Calls fail.");
        let over = "2026-11-26T11:00:00Z";
        for (conditions, expires_at, word, state) in [
            (json!([ready]), NOW_AND_LATER, "True", "The Secret contains a valid key."),
            (
                json!([ready]),
                over,
                "Expired",
                "Expired: The key has expired, and no operator has reported it.",
            ),
            (json!([ready, reconciling]), NOW_AND_LATER, "True", "BoltzUnavailable: Calls fail."),
            (
                json!([ready, reconciling, failing]),
                NOW_AND_LATER,
                "True",
                "BoltzRejected: Key a  is still valid.",
            ),
            // Nobody has said anything yet.
            (json!([]), NOW_AND_LATER, "Unknown", "The object reports no problem."),
        ] {
            let object = object("a", json!({}), json!({"conditions": conditions, "expiresAt": expires_at}));
            let view = View::new(&object, NOW.parse().unwrap());
            assert_eq!(anstream::adapter::strip_str(&view.ready_word()).to_string(), word, "{conditions}");
            assert!(view.state().starts_with(state), "{}", view.state());
        }
    }

    #[test]
    fn only_what_is_new_and_keeps_a_key_from_being_issued_blocks() {
        let stalled = |reason: &str, message: &str| condition_of("Stalled", true, reason, message);
        let before = stalled("BoltzRejected", "402");
        for (after, is_blocked) in [
            (before.clone(), false),
            (stalled("BoltzRejected", "422"), true),
            (stalled("SecretConflict", ""), true),
            (stalled("RestartFailed", ""), false),
            (stalled("KeyDoubtful", ""), false),
            (condition_of("Stalled", false, "Issued", ""), false),
        ] {
            let [before, object] =
                [&before, &after].map(|condition| object("a", json!({}), json!({"conditions": [condition]})));
            let [before, view] = [&before, &object].map(|object| View::new(object, NOW.parse().unwrap()));
            assert_eq!(view.is_newly_blocked(&before), is_blocked, "{after}");
        }
    }

    #[test]
    fn what_should_have_happened_is_overdue() {
        let early = "2026-11-26T10:30:00Z";
        let late = "2026-11-26T11:30:00Z";
        let failing =
            |is: bool| json!({"conditions": [condition_of("RevocationFailing", is, "BoltzFailed", "")]});
        let previous = |end: &str| json!({"previousKeys": [{"keyID": "a", "revokeAfter": end}]});
        for (status, deleted_at, is_overdue) in [
            (json!({}), None, false),
            (json!({"renewalTime": early}), None, true),
            (json!({"renewalTime": late}), None, false),
            (previous(early), None, true),
            (previous(late), None, false),
            // Of a key that the status does not name otherwise.
            (failing(true), None, true),
            (failing(false), None, false),
            (json!({}), Some(early), true),
            (json!({}), Some(late), false),
        ] {
            let mut object = object("a", json!({}), status.clone());
            object.metadata.deletion_timestamp =
                deleted_at.map(|time| serde_json::from_value(json!(time)).unwrap());
            let view = View::new(&object, NOW.parse().unwrap());
            assert_eq!(view.is_overdue(), is_overdue, "{status}, {deleted_at:?}");
        }
    }

    #[test]
    fn the_longest_overlap_of_the_old_keys_counts() {
        let previous = |id: &str, end: &str| json!({"keyID": id, "revokeAfter": end});
        let status = json!({"previousKeys": [
            previous("a", "2026-11-26T13:00:00Z"), previous("b", "2026-11-26T14:00:00Z"),
            previous("c", "2026-11-26T15:00:00Z"), previous("d", "2026-11-26T11:00:00Z"),
        ]});
        let object = object("a", json!({}), status);
        let view = View::new(&object, NOW.parse().unwrap());
        for (ids, hours) in [(&["a", "b", "d"][..], 2), (&["d"], 0), (&["unknown"], 0)] {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(view.overlap_left(&ids), SignedDuration::from_hours(hours), "{ids:?}");
        }
    }

    #[test]
    fn a_key_that_was_never_used_is_unused_since_it_was_issued() {
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        for (status, is_unused) in [
            (json!({}), false),
            (json!({"createdAt": "2026-10-01T00:00:00Z"}), true),
            (json!({"createdAt": "2026-10-01T00:00:00Z", "lastUsedAt": "2026-11-20T00:00:00Z"}), false),
            // A key that is new may be the newest of many that nobody used.
            (
                json!({
                    "createdAt": "2026-11-20T00:00:00Z", "lastRotationTime": "2026-11-20T00:00:00Z", "rotations": 3,
                }),
                true,
            ),
            (
                json!({
                    "createdAt": "2026-11-20T00:00:00Z", "lastRotationTime": "2026-11-20T00:00:00Z", "rotations": 3,
                    "lastUsedAt": "2026-11-19T00:00:00Z",
                }),
                false,
            ),
            (json!({"createdAt": "2026-11-20T00:00:00Z", "rotations": 0}), false),
        ] {
            let mut object = object("a", json!({}), status.clone());
            object.metadata.creation_timestamp =
                serde_json::from_value(json!("2026-09-01T00:00:00Z")).unwrap();
            let view = View::new(&object, NOW.parse().unwrap());
            assert_eq!(view.is_unused_for(days(30)), is_unused, "{status}");
        }
    }
}

//! How urgent an object is, and what happens next.

use super::object::{OVERDUE, View};
use crate::words::{self, BAD, CARE, DIM, GOOD, PLAIN, relative, styled};
use anstyle::Style;
use boltz_operator::api::BoltzApiKeyStatus;
use jiff::{SignedDuration, Timestamp};

/// A key that expires within this time is urgent.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How urgent an object is: the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Workloads have no valid key, and somebody has to act.
    NotReadyAndStalled,
    /// Workloads have no valid key.
    NotReady,
    /// A rotation or a revocation should have happened long ago.
    Overdue,
    /// The operator cannot do something until somebody acts.
    Stalled,
    /// The key expires soon and is not being replaced before.
    ExpiresSoon,
    /// Nothing to see.
    Fine,
    /// Nothing to do: the user wants no key.
    Suspended,
}

impl View<'_> {
    pub fn urgency(&self) -> Urgency {
        if self.is_unready_on_purpose() {
            return Urgency::Suspended;
        }
        // Before its renewal, a key with a short life is not urgent.
        let soon = self.expires_within(SOON) && self.renewal_time().is_none_or(|renewal| renewal <= self.now);
        match (self.has_valid_key(), self.is("Stalled")) {
            (false, true) => Urgency::NotReadyAndStalled,
            (false, false) => Urgency::NotReady,
            (true, _) if self.is_overdue() => Urgency::Overdue,
            (true, true) => Urgency::Stalled,
            (true, false) if soon => Urgency::ExpiresSoon,
            (true, false) => Urgency::Fine,
        }
    }

    /// One word for the column READY, with its colour.
    pub fn ready_word(&self) -> String {
        match (self.urgency(), self.is("Ready")) {
            (Urgency::Suspended, _) => styled(DIM, "Suspended"),
            _ if self.status().is_none_or(BoltzApiKeyStatus::is_untouched) => styled(CARE, "Unknown"),
            (_, false) => styled(BAD, "False"),
            (_, true) if self.is_expired() => styled(BAD, "Expired"),
            (Urgency::Fine, true) => styled(GOOD, "True"),
            (_, true) => styled(CARE, "True"),
        }
    }

    /// What happens next, and when.
    pub fn next_step(&self) -> String {
        let Some(status) = self.status().filter(|status| !status.is_untouched()) else {
            return styled(BAD, "no operator has looked at it yet");
        };
        if self.is("Stalled") {
            return styled(BAD, "somebody has to act");
        }
        if self.is_deleting() {
            return match (self.has_our_finalizer(), self.keeps_its_keys()) {
                (false, _) => "finalizers of others hold it".to_owned(),
                (true, true) => "it goes; its keys and its Secret stay".to_owned(),
                (true, false) if self.is_overdue() => {
                    styled(BAD, "the revocation of its keys is tried again")
                }
                (true, false) => "its keys are being revoked".to_owned(),
            };
        }
        if self.is("RevocationFailing") {
            return styled(BAD, "the revocation of a key is tried again");
        }
        if self.is_paused() {
            return "nothing while the annotation boltz.bio/paused is true".to_owned();
        }
        if self.is_unready_on_purpose() {
            return "nothing until it is resumed".to_owned();
        }
        if !self.is("Ready") || self.is("Reconciling") {
            return styled(CARE, "the operator goes on by itself");
        }
        match status.pending_restarts.len() {
            0 => {}
            1 => return styled(CARE, "1 workload waits to be restarted"),
            count => return styled(CARE, &format!("{count} workloads wait to be restarted")),
        }
        let until = |style: Style, what: &str, time: Timestamp| {
            let text = if time < self.now {
                format!("{what}: due {}", relative(time, self.now))
            } else {
                format!("{what} {}", relative(time, self.now))
            };
            styled(style, &text)
        };
        let revocations = status.previous_keys.iter().map(|key| (key.revoke_after.0, "previous key revoked"));
        let rotation = self.renewal_time().map(|time| (time, "rotated"));
        // A rotation that was asked for, or is due by its interval, waits for another window than that of the renewal.
        let windows = status.rotation_window.iter();
        let waits = windows.filter(|window| self.renewal_time().is_none_or(|time| time >= window.end.0));
        let waits = waits.map(|window| (window.start.0, "rotated, in its window"));
        let expiry =
            self.expires_at().filter(|_| rotation.is_none()).map(|time| (time, "expires, not rotated"));
        let next = revocations.chain(rotation).chain(waits).chain(expiry).min_by_key(|(time, _)| *time);
        match next {
            Some((time, what)) if self.now.duration_since(time) > OVERDUE => until(BAD, what, time),
            Some((time, what)) => until(PLAIN, what, time),
            None if self.is_suspended() => "nothing until it is resumed".to_owned(),
            None => "nothing is due".to_owned(),
        }
    }

    pub fn bar(&self) -> String {
        let Some(created) = self.status().and_then(|status| status.created_at.as_ref()) else {
            return "-".to_owned();
        };
        let bar = words::lifetime_bar(created.0, self.expires_at(), self.renewal_time(), self.now);
        let style = match self.urgency() {
            Urgency::Fine => GOOD,
            Urgency::Suspended => DIM,
            Urgency::ExpiresSoon | Urgency::Stalled => CARE,
            _ => BAD,
        };
        styled(style, &bar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, condition_of, object};
    use serde_json::{Value as Json, json};

    fn seen(status: Json) -> (Urgency, String) {
        let object = object("a", json!({}), status);
        let view = View::new(&object, NOW.parse().unwrap());
        (view.urgency(), anstream::adapter::strip_str(&view.next_step()).to_string())
    }

    fn conditions(ready: bool, reconciling: bool, stalled: bool) -> Json {
        let condition = |kind: &str, is_true: bool| condition_of(kind, is_true, "Issued", "");
        json!([
            condition("Ready", ready),
            condition("Reconciling", reconciling),
            condition("Stalled", stalled)
        ])
    }

    #[test]
    fn urgency_and_the_next_step() {
        let ready = conditions(true, false, false);
        for (status, urgency, next) in [
            (json!({}), Urgency::NotReady, "no operator has looked at it yet"),
            (json!({"conditions": ready}), Urgency::Fine, "nothing is due"),
            (
                json!({"conditions": conditions(false, true, false)}),
                Urgency::NotReady,
                "the operator goes on by itself",
            ),
            (
                json!({"conditions": conditions(false, false, true)}),
                Urgency::NotReadyAndStalled,
                "somebody has to act",
            ),
            (json!({"conditions": conditions(true, false, true)}), Urgency::Stalled, "somebody has to act"),
            (
                json!({"conditions": ready, "renewalTime": "2026-11-28T12:00:00Z", "expiresAt": "2026-11-29T12:00:00Z"}),
                Urgency::Fine,
                "rotated in 2d",
            ),
            (
                json!({"conditions": ready, "renewalTime": "2026-11-26T11:30:00Z", "expiresAt": "2026-11-29T12:00:00Z"}),
                Urgency::ExpiresSoon,
                "rotated: due 30m ago",
            ),
            (
                json!({"conditions": ready, "renewalTime": "2026-11-26T06:00:00Z", "expiresAt": "2026-11-29T12:00:00Z"}),
                Urgency::Overdue,
                "rotated: due 6h ago",
            ),
            (
                json!({"conditions": ready, "expiresAt": "2026-11-29T12:00:00Z"}),
                Urgency::ExpiresSoon,
                "expires, not rotated in 3d",
            ),
            (
                json!({
                    "conditions": ready, "renewalTime": "2026-12-29T12:00:00Z",
                    "previousKeys": [{"keyID": "old", "revokeAfter": "2026-11-26T17:00:00Z"}],
                }),
                Urgency::Fine,
                "previous key revoked in 5h",
            ),
            (
                json!({
                    "conditions": ready,
                    "previousKeys": [{"keyID": "old", "revokeAfter": "2026-11-25T12:00:00Z"}],
                }),
                Urgency::Overdue,
                "previous key revoked: due 24h ago",
            ),
            (
                json!({
                    "conditions": ready, "renewalTime": "2026-12-29T12:00:00Z",
                    "rotationWindow": {"start": "2026-11-28T01:00:00Z", "end": "2026-11-28T04:00:00Z"},
                }),
                Urgency::Fine,
                "rotated, in its window in 37h",
            ),
            (
                json!({"conditions": ready, "pendingRestarts": [{"kind": "Deployment", "name": "web"}]}),
                Urgency::Fine,
                "1 workload waits to be restarted",
            ),
            (
                json!({"conditions": ready, "expiresAt": "2026-11-26T11:30:00Z"}),
                Urgency::NotReady,
                "expires, not rotated: due 30m ago",
            ),
            (
                json!({"conditions": [
                    condition_of("Ready", true, "Issued", ""),
                    condition_of("RevocationFailing", true, "BoltzRejected", "Key a is still valid."),
                ]}),
                Urgency::Overdue,
                "the revocation of a key is tried again",
            ),
        ] {
            assert_eq!(seen(status.clone()), (urgency, next.to_owned()), "{status}");
        }
    }

    #[test]
    fn what_happens_next_to_an_object_that_is_being_deleted() {
        let going = conditions(false, true, false);
        let ours = &["boltz.bio/revoke-keys"][..];
        let (early, late) = ("2026-11-26T11:59:00Z", "2026-11-26T09:00:00Z");
        for (spec, annotation, finalizers, since, conditions, next) in [
            (json!({}), None, ours, early, &going, "its keys are being revoked"),
            (json!({}), None, ours, late, &going, "the revocation of its keys is tried again"),
            (
                json!({}),
                None,
                ours,
                late,
                &super::tests::conditions(false, false, true),
                "somebody has to act",
            ),
            (
                json!({"deletionPolicy": "Retain"}),
                None,
                ours,
                early,
                &going,
                "it goes; its keys and its Secret stay",
            ),
            (json!({}), Some("Retain"), ours, early, &going, "it goes; its keys and its Secret stay"),
            (
                json!({"deletionPolicy": "Retain"}),
                Some("Revoke"),
                ours,
                early,
                &going,
                "its keys are being revoked",
            ),
            (json!({}), None, &["example/other"], early, &going, "finalizers of others hold it"),
        ] {
            let mut object = object("a", spec, json!({"conditions": conditions}));
            let metadata = &mut object.metadata;
            metadata.deletion_timestamp = serde_json::from_value(json!(since)).unwrap();
            metadata.finalizers = Some(finalizers.iter().map(|name| (*name).to_owned()).collect());
            metadata.annotations =
                annotation.map(|policy| [("boltz.bio/deletion-policy".to_owned(), policy.to_owned())].into());
            let view = View::new(&object, NOW.parse().unwrap());
            let said = anstream::adapter::strip_str(&view.next_step()).to_string();
            assert_eq!(said, next, "{annotation:?}, {finalizers:?}, {since}");
        }
    }

    #[test]
    fn a_suspended_object_with_a_valid_key_is_not_without_a_key() {
        for (is_ready, urgency, next) in [
            (true, Urgency::ExpiresSoon, "expires, not rotated in 2d"),
            (false, Urgency::Suspended, "nothing until it is resumed"),
        ] {
            let status = json!({
                "conditions": [condition_of("Ready", is_ready, "Suspended", "")], "expiresAt": "2026-11-28T12:00:00Z",
            });
            let object = object("a", json!({"suspend": true}), status);
            let view = View::new(&object, NOW.parse().unwrap());
            let step = anstream::adapter::strip_str(&view.next_step()).to_string();
            assert_eq!((view.urgency(), step.as_str()), (urgency, next), "{is_ready}");
        }
    }
}

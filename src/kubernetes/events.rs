//! Kubernetes events: rotations, revocations, conflicts and failures. A first issue that succeeds has none; its
//! condition says it.

use super::client::api_version;
use crate::{api::BoltzApiKeyStatus, plan::ObjectFacts};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// The API server takes no longer one.
const LONGEST_NOTE: usize = 1024;

/// Whether an event is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Normal,
    /// Worth a look.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Publishes events, without anything waiting for them.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
}

impl Events {
    /// Events of the operator process with that name.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Publishes one event about the object. A failure is logged, and nothing else comes of it.
    pub fn publish(&self, object: &ObjectFacts, kind: Kind, reason: &'static str, note: String) {
        let mut note = note;
        if let Some((end, _)) = note.char_indices().take_while(|(index, _)| *index <= LONGEST_NOTE - 4).last()
            && note.len() > LONGEST_NOTE
        {
            note.truncate(end);
        }
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", object.name.chars().take(200).collect::<String>())),
                namespace: Some(object.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            reason: Some(reason.to_owned()),
            note: Some(note),
            type_: Some(kind.as_str().to_owned()),
            reporting_controller: Some("boltz.bio/boltz-operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            regarding: Some(ObjectReference {
                api_version: Some(api_version()),
                kind: Some("BoltzApiKey".to_owned()),
                name: Some(object.name.clone()),
                namespace: Some(object.namespace.clone()),
                uid: Some(object.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace);
        tokio::spawn(async move {
            match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => {}
                // In a terminating namespace, for example, no event can be created.
                Ok(Err(error)) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        reason,
                        "an event was not published"
                    );
                }
                Err(_) => tracing::debug!(reason, "an event was not published in time"),
            }
        });
    }
}

/// The events that a change of status is worth: a new reason for not being ready or for being stalled, and the end of
/// one.
pub fn transitions(
    before: &BoltzApiKeyStatus,
    after: &BoltzApiKeyStatus,
) -> Vec<(Kind, &'static str, String)> {
    let find = |status: &BoltzApiKeyStatus, kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|condition| {
            (condition.status == "True", condition.reason.clone(), condition.message.clone())
        })
    };
    let mut events = Vec::new();
    let (ready_before, ready) = (find(before, "Ready"), find(after, "Ready"));
    let changed = ready_before.as_ref().map(|(is, reason, _)| (*is, reason.clone()))
        != ready.as_ref().map(|(is, reason, _)| (*is, reason.clone()));
    match ready {
        Some((false, reason, message)) if changed && reason != "Deleting" && reason != "Pending" => {
            events.push((Kind::Warning, "NotReady", format!("{reason}: {message}")));
        }
        Some((true, reason, message)) if changed && reason == "RevocationBlocked" => {
            events.push((Kind::Warning, "RevocationBlocked", message));
        }
        Some((true, ..)) if ready_before.is_some_and(|(was_ready, ..)| !was_ready) => {
            events.push((Kind::Normal, "Ready", "A working key is in the Secret.".to_owned()));
        }
        Some((true, ..)) => {
            let (stalled_before, stalled) = (find(before, "Stalled"), find(after, "Stalled"));
            let was = stalled_before.is_some_and(|(is, ..)| is);
            if let Some((true, reason, message)) = stalled.filter(|_| !was) {
                events.push((Kind::Warning, "Stalled", format!("{reason}: {message}")));
            }
        }
        _ => {}
    }
    events
}

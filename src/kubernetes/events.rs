//! Kubernetes events: rotations, revocations, conflicts and failures. A first key that is issued without problems has no
//! event. Its condition says it.

use super::client::api_version;
use crate::plan::{EventNote, ObjectFacts};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a note in events.k8s.io/v1.
const MAX_NOTE_LENGTH: usize = 1024;

/// Publishes events in the background.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
}

impl Events {
    /// `instance` is the name of this process.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Publishes one event about the object. A failure is only logged.
    pub(crate) fn publish(&self, object: &ObjectFacts, event: EventNote) {
        let EventNote { kind, reason, mut note } = event;
        if let Some((end, _)) =
            note.char_indices().take_while(|(index, _)| *index <= MAX_NOTE_LENGTH - 4).last()
            && note.len() > MAX_NOTE_LENGTH
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
            type_: Some(<&str>::from(kind).to_owned()),
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
                        "failed to publish an event"
                    );
                }
                Err(_) => tracing::debug!(reason, "timed out publishing an event"),
            }
        });
    }
}

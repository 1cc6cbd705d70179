//! Kubernetes events: rotations, revocations, conflicts and failures. A first key that is issued without problems has no
//! event. Its condition says it. An event that repeats is one event with a count. The recorder of kube is not used: it
//! joins events of one reason whatever their note, so a second revoked key would not be named.

use super::client::api_version;
use crate::{
    plan::{EventNote, ObjectFacts},
    protocol::account_name::{AccountName, MAX_ACCOUNT_NAME},
};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::json;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a note in events.k8s.io/v1.
const MAX_NOTE_LENGTH: usize = 1024;
/// So much of it stays for the name of an account.
const FOR_ACCOUNT: usize = 4 + "(BoltzAccount )".len() + MAX_ACCOUNT_NAME;

/// An event that is published again within this time becomes a series of the first one. That is how long client-go
/// remembers events, too.
const SERIES: Duration = Duration::from_secs(600);

/// Publishes events in the background.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    recent: Arc<Mutex<HashMap<u64, Recent>>>,
}

/// An event that was published.
struct Recent {
    name: String,
    count: i32,
    last: Instant,
}

impl Events {
    /// `instance` is the name of this process.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, recent: Arc::default() }
    }

    /// Publishes one event about the object, whose keys are of this account. A failure is only logged.
    pub(crate) fn publish(&self, object: &ObjectFacts, account: &AccountName, event: EventNote) {
        let EventNote { kind, reason, mut note } = event;
        if let Some((end, _)) =
            note.char_indices().take_while(|(index, _)| *index <= MAX_NOTE_LENGTH - FOR_ACCOUNT).last()
            && note.len() > MAX_NOTE_LENGTH - FOR_ACCOUNT
        {
            note.truncate(end);
        }
        if let Some(account) = account.boltz_account() {
            note.push_str(&format!(" (BoltzAccount {account})"));
        }
        let now = MicroTime(jiff::Timestamp::now());
        let (key, name, count) = self.count(object, reason, &note);
        let recent = Arc::clone(&self.recent);
        // The next one is a first one again.
        let forget = move || drop(recent.lock().remove(&key));
        let api: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace);
        if count > 1 {
            let series = EventSeries { count, last_observed_time: now };
            let patch = Patch::Merge(json!({"series": series}));
            in_background(
                reason,
                async move { api.patch(&name, &PatchParams::default(), &patch).await },
                forget,
            );
            return;
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(object.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(now),
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
        in_background(reason, async move { api.create(&PostParams::default(), &event).await }, forget);
    }

    /// The key and the name of the event, and how often it was published, this time included.
    fn count(&self, object: &ObjectFacts, reason: &str, note: &str) -> (u64, String, i32) {
        let mut hasher = DefaultHasher::new();
        (&object.uid, reason, note).hash(&mut hasher);
        let now = Instant::now();
        let mut recent = self.recent.lock();
        recent.retain(|_, event| now.duration_since(event.last) < SERIES);
        let key = hasher.finish();
        let event = recent.entry(key).or_insert_with(|| {
            let object: String = object.name.chars().take(200).collect();
            Recent { name: format!("{object}.{:016x}", rand::rng().random::<u64>()), count: 0, last: now }
        });
        event.count = event.count.saturating_add(1);
        event.last = now;
        (key, event.name.clone(), event.count)
    }
}

fn in_background(
    reason: &'static str,
    call: impl Future<Output = Result<Event, kube::Error>> + Send + 'static,
    on_failure: impl FnOnce() + Send + 'static,
) {
    tokio::spawn(async move {
        let result = tokio::time::timeout(TIMEOUT, call).await;
        if !matches!(result, Ok(Ok(_))) {
            on_failure();
        }
        match result {
            Ok(Ok(_)) => {}
            // In a terminating namespace, for example, no event can be created.
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, reason, "failed to publish an event");
            }
            Err(_) => tracing::debug!(reason, "timed out publishing an event"),
        }
    });
}

//! The overlap: when each key that a Secret held left it, and until when it must live.

use crate::api_server::{ApiServer, Resource, text};
use boltz_emulator::Key;
use boltz_operator::{
    api::{
        BoltzApiKeySpec,
        annotations::{RECORD_ANNOTATION, ROTATE_NOW_ANNOTATION},
    },
    duration::parse_duration,
    plan::later,
    protocol::{
        marker::{Marker, ObjectMark},
        record::{MAX_PREVIOUS, Record},
    },
};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use plan_world::Milestone;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A call takes no longer between its decision and its sending.
const TOLERANCE: Duration = Duration::from_secs(1);

struct Delivery {
    uid: String,
    /// The request of `rotate-now` that the key answered, if any.
    answers: Option<String>,
    left: Option<Left>,
}

/// It is not in the Secret any more.
struct Left {
    over_at: Timestamp,
    is_named: bool,
    /// A user took away all that named it: a known limit of the protocol.
    is_excused: bool,
}

/// The keys that Secrets held.
#[derive(Default)]
pub struct Deliveries(BTreeMap<String, Delivery>);

/// A Secret of a living object.
struct Held<'a> {
    uid: &'a str,
    values: Vec<Vec<u8>>,
    record: Option<Record>,
}

impl Deliveries {
    /// Looks what is in the Secrets after a change. `sent_at`: when the operator sent it; none: users did it.
    pub fn follow(&mut self, server: &ApiServer, keys: &[Key], sent_at: Option<Timestamp>) -> Vec<Milestone> {
        let mut reached = Vec::new();
        let secrets: Vec<Held<'_>> =
            server.objects.iter().filter_map(|(place, object)| held(place.0, object)).collect();
        for object in living(server) {
            let uid = text(&object["metadata"]["uid"]);
            let own: Vec<&Held<'_>> = secrets.iter().filter(|secret| secret.uid == uid).collect();
            let is_named = |id: &str| {
                let status = &object["status"];
                let previous = status["previousKeys"].as_array().into_iter().flatten();
                status["keyID"] == json!(id)
                    || previous.into_iter().any(|key| key["keyID"] == json!(id))
                    || own.iter().filter_map(|secret| secret.record.as_ref()).any(|record| record.names(id))
            };
            let mut current = BTreeSet::new();
            for secret in &own {
                let is_held =
                    |key: &&Key| secret.values.iter().any(|value| value == key.plaintext.as_bytes());
                for key in keys.iter().filter(is_held) {
                    current.insert(key.id.clone());
                    self.0.entry(key.id.clone()).or_insert_with(|| {
                        reached.push(Milestone::Delivered);
                        let record = secret.record.as_ref().filter(|record| record.key_id == key.id);
                        let answers = record.and_then(|record| record.rotate_now.clone());
                        Delivery { uid: uid.to_owned(), answers, left: None }
                    });
                }
            }
            let overlap = overlap_of(object);
            for (id, delivery) in self.0.iter_mut().filter(|(_, delivery)| delivery.uid == uid) {
                if current.contains(id) {
                    delivery.left = None;
                    continue;
                }
                let is_named = is_named(id);
                let has_left = delivery.left.is_none();
                if has_left && sent_at.is_some() {
                    reached.push(Milestone::Rotated);
                }
                let over_at = later(sent_at.unwrap_or_else(|| server.now()), overlap);
                let left = delivery.left.get_or_insert(Left { over_at, is_named, is_excused: false });
                left.is_excused |= sent_at.is_none() && !is_named && (has_left || left.is_named);
                left.is_named = is_named;
            }
        }
        reached
    }

    /// The operator revokes an active key: what that means, or why it must not.
    pub fn judge(&self, server: &ApiServer, keys: &[Key], id: &str) -> Result<Milestone, String> {
        let key = keys.iter().find(|key| key.id == id);
        let is_own = |object: &&Arc<Json>| key.is_some_and(|key| has_marker_of(key, object));
        let Some(delivery) = self.0.get(id) else {
            let lives = living(server).any(|object| is_own(&object));
            return Ok(if lives { Milestone::StrayRevoked } else { Milestone::DeletedRevoked });
        };
        let object = living(server).find(|object| object["metadata"]["uid"] == json!(delivery.uid));
        let Some(object) = object else { return Ok(Milestone::DeletedRevoked) };
        let Some(left) = &delivery.left else {
            return Err(format!("{id} is revoked, and a Secret holds it"));
        };
        let asked = object["metadata"]["annotations"][ROTATE_NOW_ANNOTATION].as_str();
        let active = keys.iter().filter(|key| key.revoked_at.is_none() && has_marker_of(key, object));
        if later(server.now(), TOLERANCE) >= left.over_at {
            Ok(Milestone::OverlapEnded)
        } else if asked.is_some() && asked != delivery.answers.as_deref() {
            Ok(Milestone::LeakRevoked)
        } else if active.count() >= MAX_PREVIOUS {
            // Two controllers may cut one overlap each at the same moment.
            Ok(Milestone::OverlapCut)
        } else if left.is_excused {
            Ok(Milestone::StrayRevoked)
        } else {
            Err(format!("{id} is revoked, and its overlap ends at {}", left.over_at))
        }
    }
}

fn has_marker_of(key: &Key, object: &Json) -> bool {
    let mark = ObjectMark::from_uid(text(&object["metadata"]["uid"]));
    Marker::parse(&key.name).is_some_and(|marker| marker.object == mark)
}

fn living(server: &ApiServer) -> impl Iterator<Item = &Arc<Json>> {
    server
        .objects
        .iter()
        .filter(|((resource, ..), object)| {
            *resource == Resource::ApiKeys && !object["metadata"]["deletionTimestamp"].is_string()
        })
        .map(|(_, object)| object)
}

fn held(resource: Resource, object: &Json) -> Option<Held<'_>> {
    if resource != Resource::Secrets {
        return None;
    }
    let owner = object["metadata"]["ownerReferences"].as_array()?.first()?;
    let data = object["data"].as_object().into_iter().flat_map(|data| data.values());
    Some(Held {
        uid: text(&owner["uid"]),
        values: data.map(|value| serde_json::from_value::<ByteString>(value.clone()).unwrap().0).collect(),
        record: Record::parse(object["metadata"]["annotations"][RECORD_ANNOTATION].as_str()),
    })
}

fn overlap_of(object: &Json) -> Duration {
    let spec: BoltzApiKeySpec = serde_json::from_value(object["spec"].clone()).unwrap();
    parse_duration(&spec.rotation.overlap).unwrap()
}

//! An hour of an object that nobody touches any more, decided and carried out without faults.

use super::input::{Input, start};
use boltz_operator::{
    api::BoltzApiKeySpec,
    duration::parse_duration,
    plan::ObjectFacts,
    protocol::{
        marker::{AttemptId, Marker, ObjectMark},
        record::Record,
    },
};
use plan_world::{HOUR, Key, Process, Secret, World};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Whatever stands in annotations and status: at most one key is asked for, none for an object that goes or is
/// suspended, and no key of another object is revoked.
pub fn check(input: &Input) {
    let forged = input.object();
    if !is_admitted(&forged) || foresees(input, &forged) {
        return;
    }
    let mut world = World::with(serde_json::json!({}));
    if world.true_time() != start() {
        panic!("the world begins at another time");
    }
    add_keys(&mut world, input);
    let mut process = Process::start_other(&world, seed(input));
    if input.ready {
        world.edit(|object| object.spec = forged.spec.clone());
        process.run_until_idle(&mut world);
    } else {
        add_secrets(&mut world, input, &forged);
    }
    let posts = world.counts.posts;
    world.edit(|object| {
        let finalizers = if input.ready { object.finalizers.clone() } else { forged.finalizers.clone() };
        let resource_version = object.resource_version.clone();
        *object = ObjectFacts { finalizers, resource_version, ..forged.clone() };
    });
    let until = world.elapsed + HOUR;
    process.live_until(&mut world, until);
    let asked = world.counts.posts - posts;
    let suspended = forged.spec.as_ref().is_ok_and(|spec| spec.suspend);
    let most = usize::from(!forged.deleting && !suspended);
    assert!(asked <= most, "{asked} keys are asked for where {most} is the most");
    assert_eq!(world.violation, None);
}

/// Whether the CRD's rules let the spec pass, and nothing in it asks for more than one key within the hour.
fn is_admitted(object: &ObjectFacts) -> bool {
    let admitted = |spec: &BoltzApiKeySpec| {
        let interval = parse_duration(&spec.rotation.interval);
        spec.expires_in_days.is_none_or(|days| (1..=36500).contains(&days))
            && interval.is_ok_and(|interval| interval.is_zero() || interval >= Duration::from_secs(7200))
    };
    // A spec that cannot be read is an older CRD's.
    object.spec.as_ref().map_or(true, admitted)
}

/// Whether the input names what the world has not made yet. Nobody can: ids and values are random in reality.
fn foresees(input: &Input, forged: &ObjectFacts) -> bool {
    let status = serde_json::to_string(&forged.status).unwrap_or_default();
    let texts = [input.record.as_deref(), input.other.as_deref(), input.value.as_deref(), Some(&status)];
    let records = [&input.record, &input.other].map(|text| Record::parse(text.as_deref()));
    let records = records.iter().flatten().map(Record::to_annotation);
    let foreseen = ["key-", "value of "];
    texts
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .chain(records)
        .chain(input.keys.iter().map(|key| key.id.clone()))
        .any(|text| foreseen.iter().any(|word| text.contains(word)))
}

/// Attempts that no annotation can foresee.
fn seed(input: &Input) -> u64 {
    let mut hasher = DefaultHasher::new();
    input.spec.to_string().hash(&mut hasher);
    input.status.to_string().hash(&mut hasher);
    format!("{:?}", input.annotations).hash(&mut hasher);
    hasher.finish()
}

/// Boltz has keys from before: of the object, of other objects, and of people.
fn add_keys(world: &mut World, input: &Input) {
    for details in &input.keys {
        let marker = Marker::parse(&details.name).filter(|marker| marker.cluster.to_string() == "fuzz");
        let (object, attempt) = match marker {
            Some(marker) => (marker.object, marker.attempt),
            None => (ObjectMark::from_uid("people"), AttemptId::from_random(0)),
        };
        world.keys.push(Key {
            id: details.id.clone(),
            object,
            attempt,
            // The forged Secret does not hold it: who puts a living key there by hand has it revoked as a stray.
            value: format!("value of {}", details.id),
            created_at: details.created_at.unwrap_or_else(start),
            expires_at: details.expires_at,
            last_used_at: details.last_used_at,
            revoked: !details.is_active,
            reason: None,
        });
    }
}

fn add_secrets(world: &mut World, input: &Input, forged: &ObjectFacts) {
    let secret = |name: &str, record: &str, value: Option<String>, is_ours: bool| Secret {
        uid: format!("uid of {name}"),
        version: 1,
        record: Record::parse(Some(record)),
        value,
        owner: is_ours.then(|| forged.uid.clone()),
        owned: is_ours,
    };
    if let Some(record) = &input.other {
        world.secrets.insert("other".to_owned(), secret("other", record, None, true));
    }
    if let Some(record) = &input.record {
        let name = forged.secret_name();
        world.secrets.insert(name.to_owned(), secret(name, record, input.value.clone(), !input.foreign));
    }
}

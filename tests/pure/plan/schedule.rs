//! When a key is due.

use boltz_operator::{
    plan::{RotationSchedule, elapsed},
    protocol::record::Record,
};
use plan_world::{DAY, HOUR, World};
use serde_json::{Value, json};
use std::time::Duration;

/// How long before its expiry a key of 90 days renews under this `rotation`.
fn before_expiry(rotation: Value) -> Duration {
    let (world, _) = World::ready(json!({"expiresInDays": 90, "rotation": rotation}));
    let schedule = RotationSchedule::read(world.object().spec.as_ref().unwrap()).unwrap();
    let record = world.record();
    let renewal = schedule.renewal(record, world.true_time()).unwrap();
    elapsed(renewal.at, record.expires_at.unwrap())
}

#[test]
fn a_key_renews_as_long_before_its_expiry_as_asked_and_up_to_a_tenth_of_that_earlier() {
    for (rotation, asked) in [
        (json!({}), 30 * DAY),
        (json!({"renewBefore": "720h"}), 30 * DAY),
        (json!({"renewBefore": "36h"}), 36 * HOUR),
        (json!({"renewBeforePercentage": 10}), 9 * DAY),
        (json!({"renewBeforePercentage": 50}), 45 * DAY),
        // Longer than the lifetime: the default third, or the key would renew at once, without end.
        (json!({"renewBefore": "2160h"}), 30 * DAY),
        // The sooner of the two.
        (json!({"interval": "240h", "renewBefore": "24h"}), 80 * DAY),
    ] {
        let before = before_expiry(rotation.clone());
        let room = if rotation.get("interval").is_some() { DAY } else { asked / 10 };
        assert!((asked..=asked + room).contains(&before), "{rotation}: {before:?}");
    }
    assert!(
        before_expiry(json!({"renewBeforePercentage": 99})) <= 81 * DAY,
        "never in the first tenth of the lifetime"
    );
}

/// Boltz says that the key was made long ago, or in the future: its life begins when it arrives, or then.
#[test]
fn an_odd_time_of_creation_does_not_make_a_new_key_due() {
    let (world, _) = World::ready(json!({"expiresInDays": 90}));
    let schedule = RotationSchedule::read(world.object().spec.as_ref().unwrap()).unwrap();
    let usual = schedule.renewal(world.record(), world.true_time()).unwrap().at;
    for created_at in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"] {
        let record = Record { created_at: created_at.parse().unwrap(), ..world.record().clone() };
        assert_eq!(schedule.renewal(&record, world.true_time()).unwrap().at, usual, "{created_at}");
    }
}

#[test]
fn a_rotation_that_cannot_be_read_names_its_field() {
    for (rotation, words) in [
        (json!({"overlap": "soon"}), "spec.rotation.overlap"),
        (json!({"interval": "-1h"}), "spec.rotation.interval"),
        (json!({"renewBefore": ""}), "spec.rotation.renewBefore"),
        (json!({"renewBefore": "1h", "renewBeforePercentage": 5}), "set only one of"),
    ] {
        let world = World::with(json!({"rotation": rotation}));
        let error = RotationSchedule::read(world.object().spec.as_ref().unwrap()).unwrap_err();
        assert!(error.contains(words), "{rotation}: {error}");
    }
}

//! The formats of release 0.1.0, as it wrote them. They are read, and written again as they were, for ever. A format
//! changes only by more fields: `docs/protocol.md`, "Formats".

use boltz_operator::protocol::{
    ledger::Ledger,
    marker::{Marker, MarkerFormat, ObjectMark},
    record::Record,
};
use plan_world::{Process, World, plain};
use serde_json::{Value, json};

const MARKER: &str = "team-a/design bo.prod.550e8400e29b41d4.0123456789ab";

/// Of the release after 0.1.0.
const MARKER_2: &str = "team-a/design b2.am788072.5a3m403h9pgem.0123456789ab";

const LEDGER: &str = r#"[{"attempt":"0123456789ab","writtenAt":"2026-11-24T00:00:00Z"},{"attempt":"zyxwvtsrqpnm","writtenAt":"2026-11-24T00:01:30.123456789Z"}]"#;

/// With every field, and with those only that are always there.
const RECORDS: [&str; 2] = [
    r#"{"ownerUID":"550e8400-e29b-41d4-a716-446655440000","keyID":"key_2","keyPrefix":"sk_live_abcd","attempt":"zyxwvtsrqpnm","reason":"RotateNow","issuedAt":"2026-11-24T00:01:31.5Z","createdAt":"2026-11-24T00:01:31Z","expiresAt":"2027-02-22T00:01:31Z","livemode":true,"workspaceID":"ws_1","valueSha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","parametersHash":"0123456789abcdef","rotate":"1","rotateNow":"2","secretKey":"BOLTZ_API_KEY","templateLabels":["app"],"templateAnnotations":["note"],"templateHash":"fedcba9876543210","rotations":1,"previous":[{"keyID":"key_1","keyPrefix":"sk_live_1234","attempt":"0123456789ab","revokeAfter":"2026-11-24T00:01:31Z","expiresAt":"2027-02-22T00:00:00Z","evenIfUsed":true},{"keyID":"key_0","revokeAfter":"2026-11-25T00:00:00Z"}]}"#,
    r#"{"ownerUID":"550e8400-e29b-41d4-a716-446655440000","keyID":"key_1","keyPrefix":"sk_test_1234","attempt":"0123456789ab","reason":"Initial","issuedAt":"2026-11-24T00:00:01Z","createdAt":"2026-11-24T00:00:01Z","livemode":false,"valueSha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","parametersHash":"0123456789abcdef","secretKey":"BOLTZ_API_KEY","templateHash":"fedcba9876543210","rotations":0}"#,
];

#[test]
fn the_marker_of_0_1_0() {
    let marker = Marker::parse(MARKER).unwrap();
    assert_eq!(marker.cluster, "prod".parse().unwrap());
    assert_eq!(marker.object, ObjectMark::from_uid("550e8400-e29b-41d4-a716-446655440000"));
    assert_eq!(marker.attempt, "0123456789ab".parse().unwrap());
    assert_eq!(marker.format, MarkerFormat::One);
    assert_eq!(marker.name_with("team-a/design"), MARKER);
}

/// To 0.1.0 it is no marker at all, and so a key of somebody else.
#[test]
fn the_second_format_of_the_marker() {
    let marker = Marker::parse(MARKER_2).unwrap();
    assert_eq!(marker.cluster, "am788072".parse().unwrap());
    assert_eq!(marker.object, ObjectMark::from_uid("550e8400-e29b-41d4-a716-446655440000"));
    assert_eq!(marker.attempt, "0123456789ab".parse().unwrap());
    assert_eq!(marker.format, MarkerFormat::Two);
    assert_eq!(marker.name_of("team-a", "design"), MARKER_2);
}

#[test]
fn the_ledger_of_0_1_0() {
    let ledger = Ledger::parse(Some(LEDGER));
    assert_eq!((ledger.forgery, ledger.entries.len()), (None, 2));
    assert_eq!(ledger.entries[1].attempt.as_str(), "zyxwvtsrqpnm");
    assert_eq!(ledger.to_annotation(), LEDGER);
}

#[test]
fn the_record_of_0_1_0() {
    for text in RECORDS {
        let record = Record::parse(Some(text)).unwrap();
        assert_eq!(record.to_annotation(), text);
    }
    let record = Record::parse(Some(RECORDS[0])).unwrap();
    assert_eq!((record.key_id.as_str(), record.previous.len(), record.rotations), ("key_2", 2, 1));
    assert!(record.previous[0].even_if_used && !record.previous[1].even_if_used);
}

/// With a field that this release does not know.
fn with_more(text: &str, name: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value[name] = json!({"of": ["a", "later"], "release": 2});
    value
}

#[test]
fn fields_of_a_later_release_survive_a_rewrite() {
    let mut record = with_more(RECORDS[0], "laterField");
    record["previous"][1]["laterField"] = json!("org_1");
    let mut ledger: Value = serde_json::from_str(LEDGER).unwrap();
    ledger[0]["laterField"] = json!("org_1");
    let read = Record::parse(Some(&record.to_string())).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read.to_annotation()).unwrap(), record);
    let read = Ledger::parse(Some(&ledger.to_string()));
    assert_eq!(serde_json::from_str::<Value>(&read.to_annotation()).unwrap(), ledger);
}

#[test]
fn fields_of_a_later_release_survive_two_rotations() {
    let (mut world, mut process) = World::ready(plain());
    let more = with_more(&world.record().to_annotation(), "laterField");
    world.secret().record = Record::parse(Some(&more.to_string()));
    let mut ledger: Value = serde_json::from_str(&world.object().ledger.to_annotation()).unwrap();
    ledger[0]["laterField"] = json!("org_1");
    world.edit(|object| object.ledger = Ledger::parse(Some(&ledger.to_string())));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.run_until_idle(&mut world);
    let mut record: Value = serde_json::from_str(&world.record().to_annotation()).unwrap();
    record["previous"][0]["laterField"] = json!("org_1");
    world.secret().record = Record::parse(Some(&record.to_string()));
    world.edit(|object| object.rotate = Some("2".to_owned()));
    Process::start_other(&world, 2).run_until_idle(&mut world);
    let record: Value = serde_json::from_str(&world.record().to_annotation()).unwrap();
    assert_eq!(record["keyID"], "key-3");
    assert_eq!(record["laterField"], more["laterField"]);
    let first = |previous: &&Value| previous["keyID"] == "key-1";
    let previous = record["previous"].as_array().unwrap();
    assert_eq!(previous.iter().find(first).unwrap()["laterField"], "org_1");
    let ledger: Value = serde_json::from_str(&world.object().ledger.to_annotation()).unwrap();
    assert_eq!(ledger[0]["laterField"], "org_1", "its key is in its overlap");
}

#[test]
fn what_is_longer_than_any_release_writes_does_not_survive() {
    let long = "x".repeat(5000);
    for fraction in [json!(0.1), json!({"of": [1, 0.1]})] {
        let mut record: Value = serde_json::from_str(RECORDS[1]).unwrap();
        record["forged"] = fraction;
        assert_eq!(Record::parse(Some(&record.to_string())).unwrap().to_annotation(), RECORDS[1]);
    }
    let mut record: Value = serde_json::from_str(RECORDS[1]).unwrap();
    record["forged"] = json!(long);
    assert_eq!(Record::parse(Some(&record.to_string())).unwrap().to_annotation(), RECORDS[1]);
    let mut ledger: Value = serde_json::from_str(LEDGER).unwrap();
    ledger[0]["forged"] = json!(long);
    assert_eq!(Ledger::parse(Some(&ledger.to_string())).to_annotation(), LEDGER);
}

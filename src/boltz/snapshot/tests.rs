use super::*;
use crate::protocol::marker::MarkerFormat;
use serde_json::json;

fn names() -> ClusterNames {
    ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One)
}

fn row(id: &str, object: &str, is_active: bool) -> KeyDetails {
    let marker = names().marker(ObjectMark::from_uid(object), AttemptId::from_random(1));
    let name = if object.is_empty() { "of others".to_owned() } else { marker.name_with("") };
    serde_json::from_value(json!({"id": id, "name": name, "is_active": is_active})).unwrap()
}

fn pass(rows: &[(&str, &str, bool)]) -> Snapshot {
    let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
    let rows = rows.iter().map(|(id, object, is_active)| row(id, object, *is_active));
    Snapshot::of(now, rows, &names(), HashSet::from(["named".to_owned()]))
}

#[test]
fn each_object_sees_its_keys_and_which_of_its_ids_have_other_names() {
    let pass = pass(&[
        ("b", "one", false),
        ("a", "one", true),
        ("b", "one", true),
        ("b", "one", false),
        ("c", "two", true),
        ("named", "", true),
        ("not named", "", true),
    ]);
    let named = ["a", "c", "named", "not named", "absent"];
    let view = pass.view(&ObjectMark::from_uid("one"), named.into_iter(), &[]);
    let keys: Vec<(&str, bool)> = view.keys.iter().map(|key| (key.id.as_str(), key.is_active)).collect();
    assert_eq!(keys, [("a", true), ("b", true)], "what shows a key as active is believed");
    assert_eq!(Vec::from_iter(view.under_other_names), ["c", "named"]);
    assert_eq!((pass.rows, pass.by_object().count()), (7, 2));
    assert!(pass.view(&ObjectMark::from_uid("three"), std::iter::empty(), &[]).keys.is_empty());
}

#[test]
fn a_row_without_an_id_costs_only_its_object() {
    let good = pass(&[("a", "one", true), ("b", "two", true)]);
    let bad = pass(&[("", "one", true), ("b", "two", true)]);
    let doubt =
        |pass: &Snapshot, object: &str| pass.view(&ObjectMark::from_uid(object), [].into_iter(), &[]).doubt;
    assert_eq!([doubt(&bad, "one"), doubt(&bad, "two")], [Doubt::All, Doubt::None]);
    assert_eq!([doubt(&good, "one"), doubt(&good, "two")], [Doubt::None, Doubt::None]);
    assert_eq!((bad.unreadable(), bad.keys().count()), (1, 1));
    // It is looked at again when the row can be read.
    let one = HashSet::from([ObjectMark::from_uid("one")]);
    assert_eq!(
        [bad.changes_since(&good), good.changes_since(&bad), bad.changes_since(&bad)],
        [Some(one.clone()), Some(one.clone()), Some(one),]
    );
}

#[test]
fn keys_of_both_formats_and_of_both_forms_of_a_derived_name_are_ours() {
    let uid = "550e8400-e29b-41d4-a716-446655440000";
    let formats = [MarkerFormat::One, MarkerFormat::Two];
    let operators = formats.map(|format| ClusterNames::derived(uid, Vec::new(), format));
    let object = ObjectMark::from_uid(uid);
    let rows = operators.iter().enumerate().map(|(number, names)| KeyDetails {
        name: names.marker(object, AttemptId::from_random(number as u64)).name_of("team", "key"),
        ..row(&format!("key-{number}"), "", true)
    });
    let rows: Vec<KeyDetails> = rows.collect();
    for names in &operators {
        let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
        let pass = Snapshot::of(now, rows.clone(), names, HashSet::new());
        let view = pass.view(&object, ["key-0", "key-1"].into_iter(), &[]);
        assert_eq!((view.keys.len(), view.under_other_names.len()), (2, 0), "{}", names.begin_of_markers());
    }
}

#[test]
fn a_key_that_gets_another_name_stays_one_of_its_object() {
    let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Monotonic::default() };
    let mut before = pass(&[("named", "one", true), ("two", "two", true)]);
    for (name, is_active) in [("of others", true), ("", true), ("of others", false)] {
        let mut renamed = row("named", "", is_active);
        renamed.name = name.to_owned();
        let mut listed = ListedRows::new(HashSet::from(["named".to_owned()]));
        [renamed, row("two", "one", true)].into_iter().for_each(|row| listed.add(row, &names()));
        before = listed.complete(now, Some(&before));
        let of = |object| {
            Vec::from_iter(before.view(&ObjectMark::from_uid(object), ["named"].into_iter(), &[]).keys)
        };
        let one = of("one");
        assert_eq!((one.len(), one[0].id.as_str(), one[0].is_active), (1, "named", is_active), "{name}");
        assert_eq!(of("two").len(), 1, "the marker of another object does not take it away");
    }
}

#[test]
fn the_changes_name_the_objects_whose_keys_are_not_the_same() {
    let before = [("a", "one", true), ("b", "two", true), ("c", "three", true)];
    for (after, changed) in [
        (vec![("a", "one", true), ("b", "two", true), ("c", "three", true)], vec![]),
        (vec![("a", "one", true), ("b", "two", false), ("c", "three", true)], vec!["two"]),
        (vec![("c", "three", true), ("b", "two", true), ("a", "one", true), ("d", "one", true)], vec!["one"]),
        (vec![("b", "two", true), ("d", "four", true)], vec!["one", "three", "four"]),
        (vec![], vec!["one", "two", "three"]),
    ] {
        let changed: HashSet<ObjectMark> = changed.into_iter().map(ObjectMark::from_uid).collect();
        assert_eq!(pass(&after).changes_since(&pass(&before)), Some(changed), "{after:?}");
    }
    assert_eq!(pass(&[("named", "", true)]).changes_since(&pass(&before)), None);
    let doubtful = Snapshot { doubt: Doubt::Many, ..pass(&before) };
    assert_eq!(pass(&before).changes_since(&doubtful), None);
}

#[test]
fn a_list_that_repeats_itself_does_not_fill_the_memory() {
    let mut listed = ListedRows::new(HashSet::new());
    for number in 0..100_000 {
        listed.add(row(&format!("key_{}", number % 10), "one", true), &names());
        assert!(listed.keys.len() <= MIN_COMPACTED);
    }
}

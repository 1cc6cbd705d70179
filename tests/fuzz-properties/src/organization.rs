//! Whose the admin key is: what `auth/me` answers, and what the ConfigMap says that the operator remembered.
//!
//! Input: a first line with data of the ConfigMap as JSON, an object of strings; the rest is the body of `auth/me`.

use boltz_operator::{
    boltz::{AuthMe, account_data::Remembered, cluster_names::ClusterNames, read_answer},
    protocol::marker::MarkerFormat,
};
use std::collections::BTreeMap;

/// What may be repeated in a condition, the log or an annotation.
const MOST: usize = 256;

/// Holds for every input, or panics.
pub fn check(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (data, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Ok(me) = read_answer::<AuthMe>(body) {
        let words =
            [Some(&me.key_type), me.mode.as_ref(), me.api_key_id.as_ref(), me.organization_id.as_ref()];
        for word in words.into_iter().flatten() {
            assert!(word.chars().count() <= MOST && !word.contains(char::is_control), "{word:?}");
        }
    }
    let Ok(data) = serde_json::from_slice::<BTreeMap<String, String>>(data) else { return };
    let former = vec!["old".parse().unwrap()];
    let names = ClusterNames::named("mine".parse().unwrap(), former, MarkerFormat::One);
    let remembered = Remembered::from_data(&data, &names);
    // What is written again means the same.
    assert_eq!(Remembered::from_data(&remembered.to_data(&names), &names), remembered);
    for text in [&remembered.organization, &remembered.accepted].into_iter().flatten() {
        assert!(!text.is_empty());
    }
}

//! Names of keys: anybody can write them in Boltz's console, and what we write has to be read back.
//!
//! Input: lines; a display name, a cluster name, a UID, 60 bits as a number. Each is written in both formats.

use boltz_operator::protocol::marker::{
    AttemptId, ClusterName, MAX_NAME_LENGTH, Marker, MarkerFormat, ObjectMark,
};

/// Holds for every input, or panics.
pub fn check(text: &str) {
    if let Some(marker) = Marker::parse(text) {
        assert!(text.ends_with(&marker.to_string()), "{marker} is not the end of {text:?}");
        assert_names_fit(&marker, text);
    }
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (display_name, cluster, uid, bits) = (line(), line(), line(), line());
    let derived = ClusterName::from_kube_system_uid(cluster);
    let short = derived.short_form();
    for format in [MarkerFormat::One, MarkerFormat::Two] {
        for cluster in [cluster.parse().ok(), Some(derived.clone()), short.clone()].into_iter().flatten() {
            let marker = Marker {
                format,
                cluster,
                object: ObjectMark::from_uid(uid),
                attempt: AttemptId::from_random(bits.parse().unwrap_or_default()),
            };
            assert_names_fit(&marker, display_name);
        }
    }
}

/// Every name with this marker is short enough and carries it back.
fn assert_names_fit(marker: &Marker, display_name: &str) {
    let of_object = marker.name_of(display_name, display_name);
    for name in [marker.to_string(), marker.name_with(display_name), marker.name_with(""), of_object] {
        assert!(name.chars().count() <= MAX_NAME_LENGTH, "{name:?} is too long");
        assert_eq!(Marker::parse(&name).as_ref(), Some(marker), "{name:?}");
    }
}

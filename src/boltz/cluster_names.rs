//! Which keys of Boltz's list are those of this cluster, and what the names of new ones say.

use crate::protocol::marker::{AttemptId, ClusterName, Marker, MarkerFormat, ObjectMark};

/// The cluster names of this installation.
#[derive(Clone, Debug)]
pub struct ClusterNames {
    /// The name in the ConfigMaps. It does not depend on the format of the marker, so that they outlast a change of it.
    pub current: ClusterName,
    /// Earlier names. Keys with these names are also managed.
    pub former: Vec<ClusterName>,
    /// The short forms of all these names.
    short: Vec<ClusterName>,
    /// The format and the name in the markers of new keys.
    in_new_markers: (MarkerFormat, ClusterName),
}

impl ClusterNames {
    /// Of a cluster that has a name.
    pub fn named(current: ClusterName, former: Vec<ClusterName>, format: MarkerFormat) -> Self {
        let short = std::iter::once(&current).chain(&former).filter_map(ClusterName::short_form).collect();
        Self { in_new_markers: (format, current.clone()), current, former, short }
    }

    /// Of a cluster without a name: it is derived, and shorter in markers of format 2.
    pub fn derived(kube_system_uid: &str, former: Vec<ClusterName>, format: MarkerFormat) -> Self {
        let names = Self::named(ClusterName::from_kube_system_uid(kube_system_uid), former, format);
        match (format, names.current.short_form()) {
            (MarkerFormat::Two, Some(short)) => Self { in_new_markers: (format, short), ..names },
            _ => names,
        }
    }

    /// Whether the name is one of ours. A derived name also counts in its other form, whichever is written.
    pub fn include(&self, cluster: &ClusterName) -> bool {
        self.current == *cluster || self.former.contains(cluster) || self.short.contains(cluster)
    }

    /// The marker of a new key.
    pub fn marker(&self, object: ObjectMark, attempt: AttemptId) -> Marker {
        let (format, cluster) = self.in_new_markers.clone();
        Marker { format, cluster, object, attempt }
    }

    /// How the markers of new keys begin.
    pub fn begin_of_markers(&self) -> String {
        let (format, cluster) = &self.in_new_markers;
        format!("{}.{cluster}", format.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "550e8400-e29b-41d4-a716-446655440000";
    const FORMATS: [MarkerFormat; 2] = [MarkerFormat::One, MarkerFormat::Two];

    fn name(text: &str) -> ClusterName {
        text.parse().unwrap()
    }

    #[test]
    fn a_derived_name_is_recognized_in_both_forms_whichever_is_written() {
        let both = FORMATS.map(|format| ClusterNames::derived(UID, vec![name("old")], format));
        for (names, begin) in both.iter().zip(["bo.550e8400e29b41d4", "b2.am788072"]) {
            assert_eq!(names.begin_of_markers(), begin);
            assert_eq!(names.current, name("550e8400e29b41d4"), "the ConfigMaps stay");
            for other in &both {
                let marker = other.marker(ObjectMark::from_uid(UID), AttemptId::from_random(1));
                assert!(marker.to_string().starts_with(&other.begin_of_markers()));
                assert!(names.include(&marker.cluster), "{marker}");
            }
            assert!(names.include(&name("old")));
            for other in ["prod", "550e8400e29b41d5", "am788073", "b2"] {
                assert!(!names.include(&name(other)), "{other}");
            }
        }
    }

    #[test]
    fn a_name_that_was_given_stays_as_it_is() {
        for (format, begin) in FORMATS.into_iter().zip(["bo.prod", "b2.prod"]) {
            let names = ClusterNames::named(name("prod"), Vec::new(), format);
            assert_eq!((names.begin_of_markers().as_str(), &names.current), (begin, &name("prod")));
            assert!(names.include(&name("prod")) && !names.include(&name("am788072")));
            // Not in the short form: the user wants this one.
            let names = ClusterNames::named(name("550e8400e29b41d4"), Vec::new(), format);
            assert_eq!(names.begin_of_markers(), format!("{}.550e8400e29b41d4", format.prefix()));
        }
    }

    #[test]
    fn a_former_name_that_was_derived_counts_in_both_forms() {
        let names = ClusterNames::named(name("prod"), vec![name("550e8400e29b41d4")], MarkerFormat::One);
        assert!(names.include(&name("550e8400e29b41d4")) && names.include(&name("am788072")));
    }
}

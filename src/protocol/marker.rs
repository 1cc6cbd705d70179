//! The marker: the machine-readable end of a key's name at Boltz.
//!
//! Boltz's create is not idempotent, and `name` is the only field of a key that the operator can write. Therefore the name
//! identifies the cluster, the object and the attempt: `<display name> bo.<cluster>.<object>.<attempt>`, for example
//! `team-a/design bo.prod.550e8400e29b41d4.0123456789ab`, at most 64 characters. Format 2 begins with `b2` and writes the
//! object in fewer characters. Both formats are read.
//!
//! ```
//! use boltz_operator::protocol::marker::{AttemptId, Marker, MarkerFormat, ObjectMark};
//!
//! let marker = Marker {
//!     format: MarkerFormat::One,
//!     cluster: "prod".parse()?,
//!     object: ObjectMark::from_uid("550e8400-e29b-41d4-a716-446655440000"),
//!     attempt: AttemptId::from_random(7),
//! };
//! let name = marker.name_with("team-a/design");
//! assert_eq!(name, "team-a/design bo.prod.550e8400e29b41d4.700000000000");
//! assert_eq!(Marker::parse(&name), Some(marker));
//!
//! // A key that somebody created in Boltz's console has no marker.
//! assert_eq!(Marker::parse("my key"), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{
    digits::{
        BASE32, BASE32_LENGTH, HEXADECIMAL_LENGTH, base32, from_base32, from_hexadecimal, hexadecimal,
        is_hexadecimal,
    },
    display_name,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Maximum length of a key's name. Boltz's limit is not known (`docs/boltz-api.md`); 64 is our choice
/// (`docs/design/0001-protocol.md`).
pub const MAX_NAME_LENGTH: usize = 64;
/// 40 bits in base 32.
const SHORT_NAME_LENGTH: usize = 8;
const ATTEMPT_LENGTH: usize = 12;

/// How a marker is written. Its first part says which format it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum MarkerFormat {
    /// `bo.<cluster>.<object>.<attempt>`, the object in 16 hexadecimal digits. Every release reads it.
    #[value(name = "1")]
    One,
    /// `b2.<cluster>.<object>.<attempt>`, the object in 13 characters of base 32. To 0.1.0 it is no marker.
    #[value(name = "2")]
    Two,
}

impl MarkerFormat {
    /// The first part of the marker.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::One => "bo",
            Self::Two => "b2",
        }
    }

    fn from_prefix(text: &str) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|format| format.prefix() == text)
    }
}

/// The name of a cluster: 1 to 16 characters of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);

/// The text is not a cluster name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cluster name must have 1 to 16 characters from a-z, 0-9 and '-'")]
pub struct InvalidClusterName;

impl ClusterName {
    /// The default: the start of the UID of the namespace `kube-system`.
    pub fn from_kube_system_uid(uid: &str) -> Self {
        Self(ObjectMark::from_uid(uid).to_string())
    }

    /// What stands for a derived name in markers of format 2: its first 40 bits. `None`: the name is not a derived one.
    pub fn short_form(&self) -> Option<Self> {
        let bits = from_hexadecimal(&self.0)?;
        Some(Self(base32(bits >> 24, SHORT_NAME_LENGTH)))
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=16).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClusterName)
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The object in the marker: the first 64 bits of its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectMark(u64);

impl ObjectMark {
    /// Kubernetes' UIDs are UUIDs. For any other text, the SHA-256 is used.
    pub fn from_uid(uid: &str) -> Self {
        let mut digits: String = uid.chars().filter(|character| *character != '-').collect();
        if digits.len() != 32 || !is_hexadecimal(&digits) {
            digits = hexadecimal(&Sha256::digest(uid));
        }
        digits.truncate(HEXADECIMAL_LENGTH);
        Self(from_hexadecimal(&digits).unwrap_or_default())
    }

    fn parse(format: MarkerFormat, text: &str) -> Option<Self> {
        match format {
            MarkerFormat::One => from_hexadecimal(text).map(Self),
            MarkerFormat::Two => from_base32(text).map(Self),
        }
    }

    fn text(self, format: MarkerFormat) -> String {
        match format {
            MarkerFormat::One => self.to_string(),
            MarkerFormat::Two => base32(self.0, BASE32_LENGTH),
        }
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for ObjectMark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:0HEXADECIMAL_LENGTH$x}", self.0)
    }
}

/// The random id of one attempt: one POST, so at most one key. 60 bits, 12 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId([u8; ATTEMPT_LENGTH]);

/// The text is not an attempt id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an attempt id must have 12 characters of lower-case Crockford base 32")]
pub struct InvalidAttemptId;

impl AttemptId {
    /// The id made of 60 of these bits.
    pub fn from_random(bits: u64) -> Self {
        Self(std::array::from_fn(|index| BASE32[(bits >> (5 * index)) as usize & 31]))
    }

    /// 12 characters of Crockford's base 32, in lower case.
    pub fn as_str(&self) -> &str {
        // Never the default: it is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for AttemptId {
    type Err = InvalidAttemptId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; ATTEMPT_LENGTH] = text.as_bytes().try_into().map_err(|_| InvalidAttemptId)?;
        bytes.iter().all(|byte| BASE32.contains(byte)).then_some(Self(bytes)).ok_or(InvalidAttemptId)
    }
}

impl TryFrom<String> for AttemptId {
    type Error = InvalidAttemptId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AttemptId> for String {
    fn from(attempt: AttemptId) -> Self {
        attempt.to_string()
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Where a key belongs, as written in its name at Boltz.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// How it is written.
    pub format: MarkerFormat,
    /// The cluster whose operator asked for the key.
    pub cluster: ClusterName,
    /// The object that asked for it.
    pub object: ObjectMark,
    /// The attempt that made it.
    pub attempt: AttemptId,
}

impl Marker {
    /// How long a display name can be.
    fn room(&self) -> usize {
        MAX_NAME_LENGTH.saturating_sub(self.to_string().len() + 1)
    }

    /// The complete name of a key without a display name of its own: the name of its object, shortened to fit, and the
    /// marker.
    pub fn name_of(&self, namespace: &str, name: &str) -> String {
        self.name_with(&display_name::of_object(namespace, name, self.room()))
    }

    /// The complete name of a key: the display name, cut to fit, and the marker.
    pub fn name_with(&self, display_name: &str) -> String {
        let (marker, room) = (self.to_string(), self.room());
        let printable = |character: char| if character.is_control() { ' ' } else { character };
        let display: String = display_name.chars().map(printable).take(room).collect();
        // Limit the bytes too: it is not known whether Boltz counts characters or bytes.
        let mut display = display.as_str();
        while display.len() > room {
            display = &display[..display.char_indices().next_back().map_or(0, |(index, _)| index)];
        }
        let display = display.trim();
        if display.is_empty() { marker } else { format!("{display} {marker}") }
    }

    /// The marker at the end of a key's name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        let last = name.rsplit(' ').next()?;
        let mut parts = last.split('.');
        let (prefix, cluster, object, attempt) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let format = MarkerFormat::from_prefix(prefix)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            format,
            cluster: cluster.parse().ok()?,
            object: ObjectMark::parse(format, object)?,
            attempt: attempt.parse().ok()?,
        })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, object) = (self.format.prefix(), self.object.text(self.format));
        write!(formatter, "{prefix}.{}.{object}.{}", self.cluster, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "550e8400-e29b-41d4-a716-446655440000";
    const FORMATS: [MarkerFormat; 2] = [MarkerFormat::One, MarkerFormat::Two];

    fn marker(format: MarkerFormat, cluster: &str) -> Marker {
        Marker {
            format,
            cluster: cluster.parse().unwrap(),
            object: ObjectMark::from_uid(UID),
            attempt: AttemptId::from_random(u64::MAX / 3),
        }
    }

    #[test]
    fn every_name_carries_its_marker_back() {
        let long = "x".repeat(200);
        let wide = "\u{1F9EC}".repeat(60);
        for (format, cluster) in FORMATS
            .into_iter()
            .flat_map(|format| ["a", "prod-eu-1", "abcdefghijklmnop"].map(|cluster| (format, cluster)))
        {
            let marker = marker(format, cluster);
            for display in ["", " ", "team/key", "a b.c bo.x.y.z", &long, &wide, "tab\tand\nline"] {
                for name in [marker.name_with(display), marker.name_of(display, display)] {
                    assert!(name.len() <= MAX_NAME_LENGTH, "{name}");
                    assert_eq!(Marker::parse(&name).as_ref(), Some(&marker), "{name}");
                    assert!(!name.contains('\n'));
                }
            }
        }
    }

    #[test]
    fn the_display_name_stands_in_front_and_is_cut() {
        for (format, cut) in
            FORMATS.into_iter().zip(["team-a/a-rather-long-name-", "team-a/a-rather-long-name-of-"])
        {
            let marker = marker(format, "prod");
            assert_eq!(marker.name_with("team-a/a-rather-long-name-of-a-key"), format!("{cut} {marker}"));
        }
    }

    #[test]
    fn by_default_format_2_leaves_25_characters() {
        let derived = ClusterName::from_kube_system_uid(UID);
        for (format, cluster, room) in
            [(MarkerFormat::One, derived.clone(), 14), (MarkerFormat::Two, derived.short_form().unwrap(), 25)]
        {
            let marker = Marker { cluster, ..marker(format, "replaced") };
            assert_eq!(marker.name_with(&"x".repeat(64)), format!("{} {marker}", "x".repeat(room)));
        }
    }

    #[test]
    fn only_a_derived_cluster_name_has_a_short_form() {
        let short =
            |name: &str| name.parse::<ClusterName>().unwrap().short_form().map(|short| short.to_string());
        assert_eq!(short("550e8400e29b41d4").unwrap(), "am788072");
        assert_eq!(short("0000000000ffffff").unwrap(), "00000000");
        assert_eq!(short("ffffffffff000000").unwrap(), "zzzzzzzz");
        for name in ["prod", "550e8400e29b41d", "550e8400e29b41dg", "am788072"] {
            assert_eq!(short(name), None, "{name}");
        }
    }

    #[test]
    fn other_names_carry_no_marker() {
        let good = marker(MarkerFormat::One, "prod").to_string();
        let good_2 = marker(MarkerFormat::Two, "prod").to_string();
        for name in [
            "",
            "ci key of Jane",
            "bo.prod",
            "bo.prod.550e8400e29b41d4.",
            "bo.PROD.550e8400e29b41d4.000000000000",
            "bo.prod.550e8400e29b41dX.000000000000",
            "bo.prod.550e8400e29b41d4.00000000000i",
            "xx.prod.550e8400e29b41d4.000000000000",
            // The object of the other format.
            "bo.prod.5a3m403h9pgem.000000000000",
            "b2.prod.550e8400e29b41d4.000000000000",
            // 65 bits, and no letter of the alphabet.
            "b2.prod.g000000000000.000000000000",
            "b2.prod.000000000000u.000000000000",
            "b2.prod.00000000000A0.000000000000",
            "b3.prod.0000000000000.000000000000",
            "b2.prod.0000000000000",
            &format!("{good}.more"),
            &format!("{good} edited"),
            &format!("{good_2}.more"),
        ] {
            assert_eq!(Marker::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_uid_that_is_no_uuid_has_a_mark_too() {
        assert_ne!(ObjectMark::from_uid("one"), ObjectMark::from_uid("two"));
        assert_eq!(ObjectMark::from_uid("one").to_string().len(), 16);
        assert_eq!(
            ObjectMark::from_uid("550e8400-e29b-41d4-a716-446655440000").to_string(),
            "550e8400e29b41d4"
        );
    }

    #[test]
    fn only_a_uuid_is_its_own_mark() {
        for uid in ["0123456789abcdef", "550e8400-e29b-41d4-a716-44665544000z"] {
            let mark = ObjectMark::from_uid(uid).to_string();
            assert_eq!(mark, hexadecimal(&Sha256::digest(uid))[..16], "{uid}");
        }
    }

    #[test]
    fn an_attempts_id_has_five_bits_in_each_character() {
        for index in 0..12 {
            let mut expected = "0".repeat(12);
            expected.replace_range(index..=index, "z");
            let attempt = AttemptId::from_random(31 << (5 * index));
            assert_eq!((attempt.as_str(), attempt.to_string()), (expected.as_str(), expected.clone()));
        }
    }

    #[test]
    fn cluster_names_are_short_and_plain() {
        for bad in ["", "abcdefghijklmnopq", "Prod", "a.b", "a b", "ä"] {
            assert_eq!(bad.parse::<ClusterName>(), Err(InvalidClusterName), "{bad}");
        }
    }
}

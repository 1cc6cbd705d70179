//! The marker: the machine-readable end of a key's name at Boltz.
//!
//! Boltz's create is not idempotent, and `name` is the only field of a key that the operator can write. Therefore the name
//! identifies the cluster, the object and the attempt: `<display name> bo.<cluster>.<object>.<attempt>`, for example
//! `team-a/design bo.prod.550e8400e29b41d4.0123456789ab`, at most 64 characters.
//!
//! ```
//! use boltz_operator::protocol::marker::{AttemptId, Marker, ObjectMark};
//!
//! let marker = Marker {
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

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Maximum length of a key's name. Boltz's limit is not known (`docs/boltz-api.md`); 64 is our choice
/// (`docs/design/0001-protocol.md`).
pub const MAX_NAME_LENGTH: usize = 64;
const PREFIX: &str = "bo";
const OBJECT_LENGTH: usize = 16;
const ATTEMPT_LENGTH: usize = 12;
const ATTEMPT_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

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

/// The object in the marker: the first 64 bits of its UID, as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectMark(u64);

impl ObjectMark {
    /// Kubernetes' UIDs are UUIDs. For any other text, the SHA-256 is used.
    pub fn from_uid(uid: &str) -> Self {
        let mut digits: String = uid.chars().filter(|character| *character != '-').collect();
        if digits.len() != 32 || !is_hexadecimal(&digits) {
            digits = hexadecimal(&Sha256::digest(uid));
        }
        digits.truncate(OBJECT_LENGTH);
        Self(u64::from_str_radix(&digits, 16).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let is_mark = text.len() == OBJECT_LENGTH && is_hexadecimal(text);
        is_mark.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for ObjectMark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:0OBJECT_LENGTH$x}", self.0)
    }
}

/// Lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        Self(std::array::from_fn(|index| ATTEMPT_ALPHABET[(bits >> (5 * index)) as usize & 31]))
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
        bytes
            .iter()
            .all(|byte| ATTEMPT_ALPHABET.contains(byte))
            .then_some(Self(bytes))
            .ok_or(InvalidAttemptId)
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
    /// The cluster whose operator asked for the key.
    pub cluster: ClusterName,
    /// The object that asked for it.
    pub object: ObjectMark,
    /// The attempt that made it.
    pub attempt: AttemptId,
}

impl Marker {
    /// The complete name of a key: the display name, shortened to fit, and the marker.
    pub fn name_with(&self, display_name: &str) -> String {
        let marker = self.to_string();
        let room = MAX_NAME_LENGTH.saturating_sub(marker.len() + 1);
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
        if prefix != PREFIX || parts.next().is_some() {
            return None;
        }
        Some(Self {
            cluster: cluster.parse().ok()?,
            object: ObjectMark::parse(object)?,
            attempt: attempt.parse().ok()?,
        })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}.{}.{}.{}", self.cluster, self.object, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(cluster: &str) -> Marker {
        Marker {
            cluster: cluster.parse().unwrap(),
            object: ObjectMark::from_uid("550e8400-e29b-41d4-a716-446655440000"),
            attempt: AttemptId::from_random(u64::MAX / 3),
        }
    }

    #[test]
    fn every_name_carries_its_marker_back() {
        let long = "x".repeat(200);
        let wide = "\u{1F9EC}".repeat(60);
        for cluster in ["a", "prod-eu-1", "abcdefghijklmnop"] {
            for display in ["", " ", "team/key", "a b.c bo.x.y.z", &long, &wide, "tab\tand\nline"] {
                let name = marker(cluster).name_with(display);
                assert!(name.len() <= MAX_NAME_LENGTH, "{name}");
                assert_eq!(Marker::parse(&name), Some(marker(cluster)), "{name}");
                assert!(!name.contains('\n'));
            }
        }
    }

    #[test]
    fn the_display_name_stands_in_front_and_is_cut() {
        assert_eq!(
            marker("prod").name_with("team-a/a-rather-long-name-of-a-key"),
            format!("team-a/a-rather-long-name- {}", marker("prod"))
        );
    }

    #[test]
    fn other_names_carry_no_marker() {
        let good = marker("prod").to_string();
        for name in [
            "",
            "ci key of Jane",
            "bo.prod",
            "bo.prod.550e8400e29b41d4.",
            "bo.PROD.550e8400e29b41d4.000000000000",
            "bo.prod.550e8400e29b41dX.000000000000",
            "bo.prod.550e8400e29b41d4.00000000000i",
            "xx.prod.550e8400e29b41d4.000000000000",
            &format!("{good}.more"),
            &format!("{good} edited"),
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

//! When a key is due for renewal.

use super::time::{earlier, elapsed, later};
use crate::{
    api::{BoltzApiKeySpec, OverlapPolicy},
    duration::parse_duration,
    protocol::record::Record,
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The durations of a spec's `rotation`, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSchedule {
    renewal: Renewal,
    interval: Option<Duration>,
    /// How long an old key lives on.
    pub overlap: Duration,
    /// What happens when it is still used then.
    pub overlap_policy: OverlapPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Before(Duration),
    Percentage(u8),
    Default,
}

impl RotationSchedule {
    /// Reads the spec's durations; the error names the field. Admission refuses what cannot be read, so this speaks
    /// up only where the CRD's rules are missing or older.
    pub fn read(spec: &BoltzApiKeySpec) -> Result<Self, String> {
        let read = |field: &str, text: &str| {
            parse_duration(text).map_err(|error| format!("spec.rotation.{field}: {error}"))
        };
        let rotation = &spec.rotation;
        let renewal = match (&rotation.renew_before, rotation.renew_before_percentage) {
            (Some(text), None) => Renewal::Before(read("renewBefore", text)?),
            (None, Some(percentage)) => Renewal::Percentage(percentage.clamp(1, 99)),
            (None, None) => Renewal::Default,
            (Some(_), Some(_)) => {
                return Err("spec.rotation: set only one of renewBefore and renewBeforePercentage".to_owned());
            }
        };
        let interval = read("interval", &rotation.interval)?;
        Ok(Self {
            renewal,
            interval: (!interval.is_zero()).then_some(interval),
            overlap: read("overlap", &rotation.overlap)?,
            overlap_policy: rotation.overlap_policy,
        })
    }

    /// When the key expires too soon to be kept. The life counts as Boltz answered it, never as days × 24 h: a key
    /// that lives shorter than `renewBefore` renews at the default third, or it would be replaced at once for ever.
    pub fn expiry_renewal(&self, record: &Record) -> Option<Timestamp> {
        let expires_at = record.expires_at?;
        let life = elapsed(record.created_at, expires_at);
        let before = match self.renewal {
            Renewal::Before(before) if before < life => before,
            Renewal::Percentage(percentage) => life / 100 * u32::from(percentage),
            Renewal::Before(_) | Renewal::Default => life / 3,
        };
        // Never in the first tenth of the life, whatever the jitter adds.
        let before = (before + jitter(record, before / 10)).min(life / 10 * 9);
        Some(earlier(expires_at, before))
    }

    /// When `rotation.interval` has passed.
    pub fn interval_renewal(&self, record: &Record) -> Option<Timestamp> {
        let interval = self.interval?;
        Some(later(record.issued_at, interval.saturating_sub(jitter(record, interval / 10))))
    }

    /// The earlier of the two.
    pub fn renewal_time(&self, record: &Record) -> Option<Timestamp> {
        [self.expiry_renewal(record), self.interval_renewal(record)].into_iter().flatten().min()
    }
}

/// A part of the duration that depends on nothing but the object and its key: keys made together do not renew
/// together, and a restart changes nothing.
fn jitter(record: &Record, at_most: Duration) -> Duration {
    let digest = Sha256::digest(format!("{}/{}", record.owner_uid, record.key_id));
    at_most / 256 * u32::from(digest[0])
}

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
    /// How long an old key stays valid.
    pub overlap: Duration,
    /// What happens if it is still in use after that.
    pub overlap_policy: OverlapPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Before(Duration),
    Percentage(u8),
    Default,
}

impl RotationSchedule {
    /// Reads the spec's durations; the error names the field. The CRD's rules reject invalid durations, so an error occurs
    /// only with an older CRD.
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

    /// When the key must be renewed before it expires. Uses the lifetime that Boltz returned, not days × 24 h. If the
    /// lifetime is shorter than `renewBefore`, the default (a third) applies; otherwise each new key would be replaced
    /// immediately.
    pub(crate) fn expiry_renewal(&self, record: &Record) -> Option<Timestamp> {
        let expires_at = record.expires_at?;
        let lifetime = elapsed(record.created_at, expires_at);
        let before = match self.renewal {
            Renewal::Before(before) if before < lifetime => before,
            Renewal::Percentage(percentage) => lifetime / 100 * u32::from(percentage),
            Renewal::Before(_) | Renewal::Default => lifetime / 3,
        };
        // Never in the first tenth of the lifetime, whatever the jitter adds.
        let before = (before + jitter(record, before / 10)).min(lifetime / 10 * 9);
        Some(earlier(expires_at, before))
    }

    /// When `rotation.interval` has passed.
    pub(crate) fn interval_renewal(&self, record: &Record) -> Option<Timestamp> {
        let interval = self.interval?;
        Some(later(record.issued_at, interval.saturating_sub(jitter(record, interval / 10))))
    }

    /// The earlier of the two.
    pub fn renewal_time(&self, record: &Record) -> Option<Timestamp> {
        [self.expiry_renewal(record), self.interval_renewal(record)].into_iter().flatten().min()
    }
}

/// Jitter derived from the object and its key: it spreads renewals and is the same after a restart.
fn jitter(record: &Record, at_most: Duration) -> Duration {
    let digest = Sha256::digest(format!("{}/{}", record.owner_uid, record.key_id));
    at_most / 256 * u32::from(digest[0])
}

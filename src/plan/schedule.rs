//! When a key is due for renewal.

use super::{
    time::{earlier, elapsed, later},
    window::{Opening, Window},
};
use crate::{
    api::{BoltzApiKeySpec, OverlapPolicy},
    duration::parse_duration,
    protocol::record::Record,
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// `spec.rotation` with its durations, window and defaults, checked.
#[derive(Clone, Debug)]
pub struct RotationSchedule {
    renewal: Renewal,
    interval: Option<Duration>,
    /// How long an old key stays valid.
    pub overlap: Duration,
    /// What happens if it is still in use after that.
    pub overlap_policy: OverlapPolicy,
    /// When rotations that can wait may begin; `None`: always.
    pub window: Option<Window>,
    /// Why the window cannot be read. Rotations that cannot wait do not wait for that.
    pub window_error: Option<String>,
}

/// When a rotation may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The step is taken no earlier, by the wall clock.
    pub at: Timestamp,
    /// The rotation window that contains it. `None`: there is no window, or it cannot wait for the next one.
    pub opening: Option<Opening>,
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
        let (window, window_error) = match rotation.window.as_ref().map(Window::read).transpose() {
            Ok(window) => (window, None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            renewal,
            interval: (!interval.is_zero()).then_some(interval),
            overlap: read("overlap", &rotation.overlap)?,
            overlap_policy: rotation.overlap_policy,
            window,
            window_error,
        })
    }

    /// When the key must be renewed before it expires. Uses the lifetime that Boltz returned, not days × 24 h. If the
    /// lifetime is shorter than `renewBefore`, the default (a third) applies; otherwise each new key would be replaced
    /// immediately.
    pub(crate) fn expiry_due(&self, record: &Record) -> Option<Timestamp> {
        let expires_at = record.expires_at?;
        // A time of creation that is long ago, or a clock that is ahead, would make each new key be due at once.
        let lifetime = elapsed(record.created_at.max(record.issued_at), expires_at);
        let before = match self.renewal {
            Renewal::Before(before) if before < lifetime => before,
            Renewal::Percentage(percentage) => lifetime / 100 * u32::from(percentage),
            Renewal::Before(_) | Renewal::Default => lifetime / 3,
        };
        // Never in the first tenth of the lifetime, whatever the jitter adds.
        let before = (before + jitter(record, before / 10)).min(lifetime / 10 * 9);
        Some(earlier(expires_at, before))
    }

    pub(crate) fn interval_due(&self, record: &Record) -> Option<Timestamp> {
        let interval = self.interval?;
        Some(later(record.issued_at, interval.saturating_sub(jitter(record, interval / 10))))
    }

    /// When the renewal begins. It waits for a window that opens in the first half of the time that is left to the key.
    pub(crate) fn expiry_renewal(&self, record: &Record, now: Timestamp) -> Option<Planned> {
        let (due, expires_at) = (self.expiry_due(record)?, record.expires_at?);
        self.planned(record, due, Some(later(due, elapsed(due, expires_at) / 2)), now)
    }

    /// When the rotation by `rotation.interval` begins. It waits for any window.
    pub(crate) fn interval_renewal(&self, record: &Record, now: Timestamp) -> Option<Planned> {
        self.planned(record, self.interval_due(record)?, None, now)
    }

    /// When a rotation that was requested with usual overlap begins. It waits for any window.
    pub(crate) fn requested(&self, record: &Record, now: Timestamp) -> Option<Planned> {
        self.planned(record, Timestamp::MIN, None, now)
    }

    /// When a rotation begins that is due then, and can wait until that time. `None`: the window never opens again.
    /// Objects begin at different times in the first three quarters of a window, so that the last ones have time too.
    fn planned(
        &self,
        record: &Record,
        due: Timestamp,
        at_latest: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Planned> {
        let Some(window) = &self.window else {
            let may_begin = self.window_error.is_none() || at_latest.is_some();
            return may_begin.then_some(Planned { at: due, opening: None });
        };
        let in_window = window.first_ending_after(due.max(now)).map(|opening| {
            let start = later(opening.start, jitter(record, window.duration / 4 * 3));
            Planned { at: due.max(start), opening: Some(opening) }
        });
        match (in_window, at_latest) {
            (None, Some(_)) => Some(Planned { at: due, opening: None }),
            (Some(planned), Some(at_latest)) if planned.at > at_latest.max(now) => {
                Some(Planned { at: due, opening: None })
            }
            (planned, _) => planned,
        }
    }

    /// When the key is replaced because of its age: the earlier of the two.
    pub fn renewal(&self, record: &Record, now: Timestamp) -> Option<Planned> {
        let both = [self.expiry_renewal(record, now), self.interval_renewal(record, now)];
        both.into_iter().flatten().min_by_key(|planned| planned.at)
    }
}

/// Jitter derived from the object and its key: it spreads renewals and is the same after a restart.
fn jitter(record: &Record, at_most: Duration) -> Duration {
    let digest = Sha256::digest(format!("{}/{}", record.owner_uid, record.key_id));
    at_most / 256 * u32::from(digest[0])
}

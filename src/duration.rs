//! Durations as Go and Kubernetes write them.

use jiff::SignedDuration;
use std::time::Duration;

/// The text is not a duration, or not one that is allowed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDuration {
    /// Not a duration. Contains the start of the text.
    #[error("must be a duration such as 90s, 30m or 720h, not {0:?}")]
    Syntax(String),
    /// Zero, where a wait is needed.
    #[error("must be longer than zero")]
    Zero,
}

/// Reads a duration as Go and Kubernetes write it: `90s`, `1h30m`, `1.5h`, `0s`. Not negative.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration::Syntax(text.chars().take(32).collect());
    // jiff reads more than Go does ("1 hour", ISO 8601): only what Go reads may pass.
    let is_go = text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(['h', 'm', 's'])
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'h' | b'm' | b's' | b'u' | b'n'));
    let duration: SignedDuration = is_go.then(|| text.parse().ok()).flatten().ok_or_else(invalid)?;
    Duration::try_from(duration).map_err(|_| invalid())
}

/// Reads a duration that is longer than zero.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let duration = parse_duration(text)?;
    if duration.is_zero() { Err(InvalidDuration::Zero) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("720h", 2_592_000.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("0s", 0.0),
            ("250ms", 0.25),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in [
            "",
            "90",
            "-1h",
            "1 hour",
            "PT1H",
            "1d",
            "h",
            "1h-30m",
            "99999999999999999999h",
            "s1",
            "1.2.3h",
            "٣s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}

//! The settings of a decision.

use std::time::Duration;

/// The flags that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long Boltz may still execute a POST that got no response. Includes the delay of Boltz's list.
    pub settle_time: Duration,
    /// The first wait before a rejected write is retried.
    pub recheck: Duration,
}

impl Settings {
    /// The window: how long after C1 the POST may be sent and the key stored.
    pub fn window(&self) -> Duration {
        self.settle_time / 2
    }

    /// How long after C1 an attempt is settled: its POST, sent within the window, can take effect for a settle time.
    pub(super) fn settling(&self) -> Duration {
        self.window() + self.settle_time
    }
}

//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Asks every 50 ms until the answer is `Ok`. Afterwards the error says what was awaited and what was seen last.
pub async fn eventually<T, E: std::fmt::Display>(
    at_most: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, String> {
    let deadline = Instant::now() + at_most;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(seen) if Instant::now() >= deadline => {
                return Err(format!("not within {} s: {what}; last seen: {seen}", at_most.as_secs()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

//! Reads the pages of Boltz's list of keys, until a pass has all of them.

use super::{error::BoltzError, types::KeyPage};
use crate::{
    boltz::account::{Account, Call},
    clock::Clock,
    plan::BoltzErrorKind,
    retry_delay,
};
use parking_lot::Mutex;

/// The rows of a page to ask for: Boltz's default is 100. If such a page fails, the default is used until a pass is complete.
pub(super) const PAGE_SIZE: u32 = 1000;

/// Reads pages. A page that fails is asked for again at the same cursor, so that a pass also completes under a rate limit.
pub(super) struct Pages<'a> {
    account: &'a Account,
    clock: Clock,
    page_size: &'a Mutex<Option<u32>>,
    failures: u32,
    /// The call that began the pass.
    first: Option<Call>,
}

impl<'a> Pages<'a> {
    pub fn new(account: &'a Account, clock: Clock, page_size: &'a Mutex<Option<u32>>, first: Call) -> Self {
        Self { account, clock, page_size, failures: 0, first: Some(first) }
    }

    pub async fn page(&mut self, after: Option<&str>) -> Result<KeyPage, BoltzError> {
        loop {
            let call = match self.first.take() {
                Some(call) => call,
                None => self.account.list_call(self.clock).await,
            };
            let page_size = *self.page_size.lock();
            let error = match self.account.client().list_keys(after, page_size).await {
                Ok(page) => {
                    self.failures = 0;
                    self.account.record_success(&call, self.clock.now().monotonic);
                    return Ok(page);
                }
                Err(error) => error,
            };
            self.account.record_failure(&call, &error, self.clock.now().monotonic);
            // A large page may be refused, too long, too slow, or too much for Boltz or a gateway.
            if error.kind() != BoltzErrorKind::RateLimited && !matches!(error, BoltzError::Connect(_)) {
                *self.page_size.lock() = None;
            }
            match error.kind() {
                // After a 401, no call is made until the admin key has been checked.
                BoltzErrorKind::Invalid | BoltzErrorKind::Refused | BoltzErrorKind::Unauthorized
                    if page_size.is_some() && !error.is_invalid_key() =>
                {
                    *self.page_size.lock() = None;
                }
                BoltzErrorKind::Invalid | BoltzErrorKind::Refused | BoltzErrorKind::Unauthorized => {
                    return Err(error);
                }
                BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable => {
                    self.failures += 1;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures = self.failures,
                        "failed to read a page of the list of keys; it will be retried"
                    );
                    tokio::time::sleep(retry_delay::delay(self.failures, error.retry_after())).await;
                }
            }
        }
    }
}

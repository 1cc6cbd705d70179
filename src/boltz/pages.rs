//! Reads the pages of Boltz's list of keys, until a pass has all of them.

use super::{error::BoltzError, list_failure::ListFailure, types::KeyPage};
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
    list_failure: &'a ListFailure,
    failures: u32,
    /// The call that began the pass.
    first: Option<Call>,
}

impl<'a> Pages<'a> {
    pub fn new(
        account: &'a Account,
        clock: Clock,
        page_size: &'a Mutex<Option<u32>>,
        list_failure: &'a ListFailure,
        first: Call,
    ) -> Self {
        Self { account, clock, page_size, list_failure, failures: 0, first: Some(first) }
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
            let now = self.clock.now().monotonic;
            self.account.record_failure(&call, &error, now);
            if error.kind() != BoltzErrorKind::RateLimited {
                self.list_failure.record_failure(error.to_string(), now);
            }
            // A large page may be refused, too long, too slow, or too much for Boltz or a gateway.
            if error.kind() != BoltzErrorKind::RateLimited && !matches!(error, BoltzError::Connect(_)) {
                *self.page_size.lock() = None;
            }
            // A 401 may concern this call only. If the admin key is refused, the next call waits for another one.
            let is_rejected = match error.kind() {
                BoltzErrorKind::Invalid | BoltzErrorKind::Refused | BoltzErrorKind::Unauthorized => {
                    !error.is_invalid_key()
                }
                BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable => false,
            };
            if !is_rejected {
                self.failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    failures = self.failures,
                    "failed to read a page of the list of keys; it will be retried"
                );
                tokio::time::sleep(retry_delay::delay(self.failures, error.retry_after())).await;
            } else if page_size.is_none() {
                return Err(error);
            }
        }
    }
}

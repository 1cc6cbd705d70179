//! Everything listed once, and read only as far as the next page needs.

use super::calls::Calls;
use crate::BenchError;

/// As large as `kubectl get` asks for.
const PAGE: u32 = 500;

/// Lists objects, Secrets with their values, and keys, at the same time.
pub async fn list(calls: &Calls) -> Result<(), BenchError> {
    tokio::try_join!(calls.read_pages(true, PAGE), calls.read_pages(false, PAGE), calls.list_keys()).map(drop)
}

//! Waiting for a moment that may not come.

use std::time::Instant;

/// Returns at `deadline`; never, when there is none.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

//! Until when a decision is made.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// A client is waiting for its first byte.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Until when one decision about a client is made. All that is waited for on its behalf shares it: what is not known by then
/// cannot be found out now.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// That of a decision which begins now.
    pub fn from_now() -> Deadline {
        Deadline(Instant::now() + PATIENCE)
    }

    /// So much earlier.
    pub(super) fn before(self, grace: Duration) -> Deadline {
        Deadline(self.0 - grace)
    }

    /// Whether nothing can be waited for any more.
    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    /// What comes of it in time. What is there already is never late.
    pub(super) async fn wait<T>(self, future: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.0, future).await.ok()
    }
}

//! The only wait of the tests: for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a condition may take to come true. Generous, because it is only spent by a test that fails: noisy machines
/// with two cores run a dozen servers at once here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long to let other threads run between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until `condition` gives something, and returns it; panics, naming `what` was waited for, when patience ends.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that waits for a condition by looking again"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

//! How often refusals are logged: each is what somebody may look for, but a stranger can bring about any number.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{Meter, Rate};

/// Lines about refusals, of all clients together: enough to find out what is wrong with an app, and at the size that a line
/// may have less than a gigabyte a day.
const LINES: Rate = Rate {
    per_second: 10,
    burst: 200,
};

/// Counts what is said of refusals.
#[derive(Debug)]
pub struct Refusals {
    start: Instant,
    /// What was said, and how many were not since.
    said: Mutex<(Meter, u64)>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            start: Instant::now(),
            said: Mutex::default(),
        }
    }
}

impl Refusals {
    /// Whether one more may be said; if so, how many could not be since the last.
    pub fn say(&self) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (meter, unsaid) = &mut *said;
        match meter.take(LINES, self.start.elapsed()) {
            true => Some(std::mem::take(unsaid)),
            false => {
                *unsaid += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written_down() {
        let refusals = Refusals::default();
        let said = (0..10_000).filter(|_| refusals.say().is_some()).count();
        // It takes far less than a minute.
        assert!((200..800).contains(&said), "{said}");
        let unsaid = refusals.said.lock().unwrap().1;
        assert!(unsaid > 0);
    }
}

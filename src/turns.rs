//! Counts the turns of the loops that matter, so that one that hangs is noticed.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::switches::{self, Switch};

/// A loop that has nothing to do turns this often all the same. Often enough for every watchdog of some seconds, seldom
/// enough that an idle process sleeps.
pub const IDLE: Duration = Duration::from_secs(1);

/// A loop that a test switched off turns this long, so that the test sees first what it is like when it does.
const UNTIL_OFF: Duration = Duration::from_secs(3);

/// The turns of one loop.
#[derive(Debug)]
pub struct Turns {
    count: AtomicU64,
    begun: Instant,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            count: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }
}

impl Turns {
    /// Another turn begins. `switch` is what puts this loop out of order: it hangs here.
    pub fn next(&self, switch: Switch) {
        self.count.fetch_add(1, Ordering::Relaxed);
        while switches::off(switch) && self.begun.elapsed() > UNTIL_OFF {
            std::thread::park();
        }
    }

    /// Comes every [`IDLE`]: what a loop waits for beside its work.
    pub fn idle() -> Interval {
        let mut interval = interval(IDLE);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// Turns as long as the task that awaits this is not held up: for a loop that may rightly wait for long inside.
    pub async fn keep(&self, switch: Switch) -> Infallible {
        let mut idle = Turns::idle();
        loop {
            idle.tick().await;
            self.next(switch);
        }
    }

    /// How many turns there were.
    pub fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The loops of a process, for whoever watches that they turn.
#[derive(Debug, Default)]
pub struct Loops(Mutex<Vec<(String, Arc<Turns>)>>);

impl Loops {
    /// Adds a loop, which turns at least every [`IDLE`] from now on.
    pub fn add(&self, name: &str) -> Arc<Turns> {
        let turns = Arc::new(Turns::default());
        let mut loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loops.push((name.to_owned(), turns.clone()));
        turns
    }

    /// The turns of each loop by its name, in the order in which they were added.
    pub fn so_far(&self) -> Vec<(String, u64)> {
        let loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loops
            .iter()
            .map(|(name, turns)| (name.clone(), turns.so_far()))
            .collect()
    }
}

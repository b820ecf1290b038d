//! Numbers that several layers keep: counts by word, how long things took, and how reloads ended.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often something happened, by a word out of a small, fixed set. For what is rare: it takes a lock.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// Counts one more.
    pub fn add(&self, word: &'static str) {
        *self.counts().entry(word).or_default() += 1;
    }

    /// Every word that was counted so far.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Durations(Mutex<Sums>);

/// What a [`Durations`] has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// How often.
    pub count: u64,
    /// All of it together, in seconds.
    pub seconds: f64,
    /// How often it took no longer than each of [`Durations::LIMITS`], and longer than the one before.
    pub within: [u64; Durations::LIMITS.len()],
}

impl Durations {
    /// In seconds: from what a machine alone takes to what somebody is called for.
    pub const LIMITS: [f64; 16] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 300.0,
    ];

    /// Counts one more.
    pub fn add(&self, took: Duration) {
        self.add_all([took]);
    }

    /// Counts each of these.
    pub fn add_all(&self, took: impl IntoIterator<Item = Duration>) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for took in took {
            let seconds = took.as_secs_f64();
            sums.count += 1;
            sums.seconds += seconds;
            if let Some(at) = Self::LIMITS.iter().position(|limit| seconds <= *limit) {
                sums.within[at] += 1;
            }
        }
    }

    /// What was counted so far.
    pub fn sums(&self) -> Sums {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How the reloads of the config ended.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Those after which the new config holds.
    pub applied: AtomicU64,
    /// Those after which the old config went on, because the new one has errors.
    pub refused: AtomicU64,
    /// When the config that holds was read, in milliseconds since 1970: the last success, or the start; 0 never.
    pub last: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_each_by_itself() {
        let tally = Tally::default();
        ["b", "a", "b"].iter().for_each(|word| tally.add(word));
        assert_eq!(tally.all(), BTreeMap::from([("a", 1), ("b", 2)]));
    }

    #[test]
    fn durations_fall_into_one_limit_each_or_beyond_all() {
        let durations = Durations::default();
        [10, 11, 600_000]
            .map(Duration::from_millis)
            .into_iter()
            .for_each(|took| durations.add(took));
        let sums = durations.sums();
        let within = |limit: f64| sums.within[Durations::LIMITS.iter().position(|each| *each == limit).unwrap()];
        assert_eq!((sums.count, within(0.01), within(0.025)), (3, 1, 1));
        assert_eq!(sums.within.iter().sum::<u64>(), 2);
        assert!((sums.seconds - 600.021).abs() < 1e-9);
    }
}

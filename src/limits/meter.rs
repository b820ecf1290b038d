//! How often something happens, in 8 bytes: the generic cell rate algorithm.

use std::time::Duration;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; at least one.
    pub per_second: u32,
    /// At once, after a time in which nothing happened; at least one.
    pub burst: u32,
}

/// The moment from when on all that happened would have happened evenly, in nanoseconds from where its owner counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter(u64);

impl Rate {
    /// From one to the next, in nanoseconds.
    fn interval(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.max(1))
    }
}

impl Meter {
    /// Counts one more at this time, if the rate allows it.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let (now, interval) = (nanoseconds(now), rate.interval());
        let even = self.0.max(now);
        let allowed = even - now <= interval * u64::from(rate.burst.saturating_sub(1));
        if allowed {
            self.0 = even + interval;
        }
        allowed
    }

    /// Whether nothing of what happened counts any more.
    pub fn is_even(self, now: Duration) -> bool {
        self.0 <= nanoseconds(now)
    }
}

/// Enough for centuries.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let mut meter = Meter::default();
        let taken: Vec<bool> = [0, 0, 0, 0, 99, 100, 100, 200, 10_000, 10_000, 10_000, 10_000]
            .into_iter()
            .map(|now| meter.take(RATE, at(now)))
            .collect();
        let (yes, no) = (true, false);
        assert_eq!(taken, [yes, yes, yes, no, no, yes, no, yes, yes, yes, yes, no]);
    }

    #[test]
    fn what_is_refused_does_not_count() {
        let mut meter = Meter::default();
        for _ in 0..1_000 {
            meter.take(RATE, at(0));
        }
        assert!(!meter.is_even(at(299)) && meter.is_even(at(300)));
        assert!(meter.take(RATE, at(100)));
    }

    proptest! {
        /// However they come, within any time no more pass than the burst and what the rate gives in that time, and
        /// whoever is even has the whole burst.
        #[test]
        fn no_more_pass_than_burst_and_rate(
            per_second in 1..2_000_u32,
            burst in 1..50_u32,
            waits in prop::collection::vec(0..5_000_000_000_u64, 1..300),
            quick in 1..1_000_u64,
        ) {
            let rate = Rate { per_second, burst };
            let mut meter = Meter::default();
            let mut now = 0;
            let mut passed = Vec::new();
            for wait in waits {
                now += wait / quick;
                let even = meter.is_even(Duration::from_nanos(now));
                let took = meter.take(rate, Duration::from_nanos(now));
                prop_assert!(took || !even);
                if took {
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / (1_000_000_000 / u64::from(per_second));
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}

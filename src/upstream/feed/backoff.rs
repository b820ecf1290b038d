//! How long to wait before connecting again.

use std::time::Duration;

/// The first delay: a server that is restarted by its supervisor is back about then.
const FIRST: Duration = Duration::from_millis(50);

/// The longest delay: how late we may be when a server comes back after hours.
const LONGEST: Duration = Duration::from_secs(2);

/// The delay before attempt `attempt` (0 for the first after a loss): doubling, and of that between a half and all, so
/// that the relays of a fleet do not come back in step. `random` is any number.
pub(super) fn delay(attempt: u32, random: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
    let half = full / 2;
    half + half.mul_f64(random as f64 / u64::MAX as f64)
}

/// A number for [`delay`]; without entropy, which only a broken system has not got, a fixed one.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_two_seconds() {
        let longest = |attempt| delay(attempt, u64::MAX).as_millis();
        assert_eq!(
            [0, 1, 2, 5, 6, 30, u32::MAX].map(longest),
            [50, 100, 200, 1600, 2000, 2000, 2000]
        );
        let shortest = |attempt| delay(attempt, 0).as_millis();
        assert_eq!([0, 1, 6, u32::MAX].map(shortest), [25, 50, 1000, 1000]);
    }
}

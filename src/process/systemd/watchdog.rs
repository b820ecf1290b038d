//! The service shows that it has not hung: `sd_watchdog_enabled(3)`.

use std::time::{Duration, Instant};

/// Loops turn at least every second. One that did not for this long has hung, however short the manager's patience is; a
/// busy machine may well keep a thread waiting for a second or two.
const HUNG: Duration = Duration::from_secs(5);

/// Whether the loops of the process have turned lately.
#[derive(Debug)]
pub struct Watchdog {
    interval: Duration,
    loops: Vec<Seen>,
}

/// What was seen of a loop.
#[derive(Debug)]
struct Seen {
    name: String,
    turns: u64,
    /// When it was first seen to have made them.
    since: Instant,
    /// Whether it was said that it hangs.
    told: bool,
}

/// What a look at the loops has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// All have turned lately: the manager may be told so.
    pub well: bool,
    /// Those that hang, and were not said to before, with the time in which they did not turn.
    pub hung: Vec<(String, Duration)>,
    /// Those that turn again.
    pub back: Vec<String>,
}

impl Watchdog {
    /// What the manager wants, by its `WATCHDOG_USEC` and `WATCHDOG_PID`: none if they are missing, or meant for another
    /// process than `own`.
    pub fn new(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Watchdog> {
        let patience = usec?.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros)?;
        if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
            return None;
        }
        Some(Watchdog {
            // The half is the custom; of a quarter, one may come late or be missed.
            interval: patience / 4,
            loops: Vec::new(),
        })
    }

    /// How often to look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Looks at the turns of each loop.
    pub fn look(&mut self, loops: Vec<(String, u64)>, now: Instant) -> Verdict {
        let hung_after = HUNG.max(self.interval);
        let mut verdict = Verdict {
            well: true,
            ..Verdict::default()
        };
        for (name, turns) in loops {
            let Some(seen) = self.loops.iter_mut().find(|seen| seen.name == name) else {
                self.loops.push(Seen {
                    name,
                    turns,
                    since: now,
                    told: false,
                });
                continue;
            };
            if seen.turns != turns {
                seen.turns = turns;
                seen.since = now;
                if std::mem::take(&mut seen.told) {
                    verdict.back.push(name);
                }
                continue;
            }
            let still = now.saturating_duration_since(seen.since);
            if still >= hung_after {
                verdict.well = false;
                if !std::mem::replace(&mut seen.told, true) {
                    verdict.hung.push((name, still));
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_asked_for_by_the_environment() {
        let asked = |usec, pid| Watchdog::new(usec, pid, 7).map(|watchdog| watchdog.interval);
        assert_eq!(asked(Some("30000000"), Some("7")), Some(30 * SECOND / 4));
        assert_eq!(asked(Some("30000000"), None), Some(30 * SECOND / 4));
        for (usec, pid) in [
            (None, None),
            (Some("30000000"), Some("8")),
            (Some("30000000"), Some("?")),
            (Some("0"), None),
            (Some("30s"), None),
        ] {
            assert_eq!(asked(usec, pid), None, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn a_loop_that_does_not_turn_is_told_once() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Some("8000000"), None, 1).unwrap();
        let mut look = |feed: u64, relay: u64, after: u32| {
            watchdog.look(
                vec![("feed".into(), feed), ("relay".into(), relay)],
                start + after * SECOND,
            )
        };
        let well = Verdict {
            well: true,
            ..Verdict::default()
        };
        assert_eq!(look(1, 1, 0), well);
        // What turned between two looks was never still.
        assert_eq!(look(2, 9, 2), well);
        assert_eq!(look(3, 9, 4), well, "not for long enough");
        let verdict = look(4, 9, 8);
        assert_eq!(verdict.hung, [("relay".to_owned(), 6 * SECOND)]);
        assert!(!verdict.well && verdict.back.is_empty());
        let verdict = look(5, 9, 10);
        assert!(!verdict.well && verdict.hung.is_empty(), "it was told");
        let verdict = look(6, 10, 12);
        assert_eq!(verdict.back, ["relay"]);
        assert!(verdict.well);
    }

    /// A loop turns each second: looking more often finds nothing wrong with it.
    #[test]
    fn a_short_patience_does_not_find_loops_that_are_idle() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Some("400000"), None, 1).unwrap();
        for look in 0..30_u32 {
            let at = start + watchdog.interval() * look;
            let turns = u64::from(look / 10);
            assert!(watchdog.look(vec![("feed".into(), turns)], at).well, "{look}");
        }
    }
}

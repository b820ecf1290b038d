//! Whether the server is still there: own PINGs, because a frozen server or a vanished network closes nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::switches::{self, Switch};

/// How often the server is asked, and how long its answer may take before it is late.
const INTERVAL: Duration = Duration::from_secs(2);

/// A connection on which not one byte came for this long is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// What the clock and the bytes say about one connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the last PING was sent, or when the connection began.
    asked: Instant,
    /// Whether that PING has no answer yet; there is never more than one such.
    waiting: bool,
    /// Whether it was said that the answer is late.
    late: bool,
    /// When the last byte came.
    heard: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing.
    Wait,
    /// Send a PING.
    Ping,
    /// Say that the server's answer is late, or that it came after all.
    Late(bool),
    /// Give the connection up.
    Lost,
}

impl Pulse {
    pub fn new(now: Instant) -> Pulse {
        Pulse {
            asked: now,
            waiting: false,
            late: false,
            heard: now,
        }
    }

    /// Bytes came.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What to do now that `answers` replies came.
    pub fn beat(&mut self, now: Instant, answers: usize) -> Beat {
        if answers > 0 || switches::off(Switch::Pulse) {
            self.waiting = false;
            if self.late {
                self.late = false;
                return Beat::Late(false);
            }
        }
        if self.waiting && now >= self.end() {
            return Beat::Lost;
        }
        if now < self.asked + INTERVAL {
            return Beat::Wait;
        }
        if !self.waiting {
            self.asked = now;
            self.waiting = true;
            return Beat::Ping;
        }
        if !self.late {
            self.late = true;
            return Beat::Late(true);
        }
        Beat::Wait
    }

    /// When to ask again, if no byte comes before.
    pub fn next(&self) -> Instant {
        match (self.waiting, self.late) {
            (false, _) => self.asked + INTERVAL,
            (true, false) => self.end().min(self.asked + INTERVAL),
            (true, true) => self.end(),
        }
    }

    /// When to give up if no byte comes before. Only an unanswered PING can lead there, and only after its time: if it
    /// was this process that did not run for a while, nobody was asked.
    fn end(&self) -> Instant {
        (self.heard + SILENCE).max(self.asked + (SILENCE - INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn asks_every_two_seconds() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start, 0), Beat::Wait);
        assert_eq!(pulse.next(), start + 2 * SECOND);
        assert_eq!(pulse.beat(start + 2 * SECOND, 0), Beat::Ping);
        pulse.heard(start + 3 * SECOND);
        assert_eq!(pulse.beat(start + 3 * SECOND, 1), Beat::Wait);
        assert_eq!(pulse.next(), start + 4 * SECOND);
        assert_eq!(pulse.beat(start + 4 * SECOND, 0), Beat::Ping);
    }

    #[test]
    fn a_late_answer_is_said_once_and_taken_back_once() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start + 2 * SECOND, 0), Beat::Ping);
        assert_eq!(pulse.next(), start + 4 * SECOND);
        assert_eq!(pulse.beat(start + 4 * SECOND, 0), Beat::Late(true));
        assert_eq!(pulse.beat(start + 5 * SECOND, 0), Beat::Wait);
        assert_eq!(pulse.next(), start + 10 * SECOND);
        pulse.heard(start + 6 * SECOND);
        assert_eq!(pulse.beat(start + 6 * SECOND, 1), Beat::Late(false));
        assert_eq!(pulse.beat(start + 6 * SECOND, 0), Beat::Ping);
    }

    #[test]
    fn other_bytes_keep_the_connection_but_not_the_pulse() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start + 2 * SECOND, 0), Beat::Ping);
        pulse.heard(start + 9 * SECOND);
        assert_eq!(pulse.beat(start + 9 * SECOND, 0), Beat::Late(true));
        assert_eq!(pulse.beat(start + 18 * SECOND, 0), Beat::Wait);
        assert_eq!(pulse.next(), start + 19 * SECOND);
        assert_eq!(pulse.beat(start + 19 * SECOND, 0), Beat::Lost);
    }

    #[test]
    fn who_was_stopped_asks_before_giving_up() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start + 60 * SECOND, 0), Beat::Ping);
        assert_eq!(pulse.beat(start + 62 * SECOND, 0), Beat::Late(true));
        assert_eq!(pulse.beat(start + 67 * SECOND, 0), Beat::Wait);
        assert_eq!(pulse.next(), start + 68 * SECOND);
        assert_eq!(pulse.beat(start + 68 * SECOND, 0), Beat::Lost);
    }
}

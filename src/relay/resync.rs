//! Losses and their repair: what the feed and the reader's connection tell, and what clients are told of it.

use super::entries::Now;
use super::mirror::Mirror;
use super::reads::PATIENCE;
use super::timers::Timer;
use crate::hub::Reason;
use crate::switches::{self, Switch};

/// There is no connection, or there was none.
pub(super) const LOST: Reason = Reason("upstream-lost");
/// The server does not answer.
pub(super) const LATE: Reason = Reason("upstream-late");
/// Keys came or went without events.
pub(super) const FLUSHED: Reason = Reason("upstream-flushed");
/// There was more than could be kept.
pub(super) const OVERFLOW: Reason = Reason("overflow");

/// Keys cannot be heard or cannot be read.
#[derive(Debug)]
pub(super) struct Outage {
    number: u64,
    pub since: Now,
    /// Whether clients were told: of a short one, in which nothing was lost, they are not.
    pub told: bool,
}

/// Reading again after a loss.
#[derive(Debug)]
pub(super) struct Recovery {
    since: Now,
    reason: Reason,
    /// Logs that are not whole yet.
    logs: usize,
    /// Slots that turned out to differ.
    pub differences: usize,
}

impl Mirror {
    /// The feed hears this process, and misses nothing from here on.
    pub(super) fn up(&mut self, run_id: String, now: Now) {
        if self.reader.as_ref().is_some_and(|reader| *reader != run_id) {
            self.unlinked(now);
        }
        let again = self.generation > 0;
        self.feed = Some(run_id);
        self.late = false;
        self.generation += 1;
        self.tell_gaps(LOST, now);
        let since = self.outage.as_ref().map_or(now, |outage| outage.since);
        let recovery = again.then_some((LOST, since));
        self.begin_outdated(recovery, now);
        self.end_outage(now);
    }

    /// The feed may miss events from here on. Said again when the reason becomes another.
    pub(super) fn lost(&mut self, why: &str, now: Now) {
        tracing::debug!(why, "events may be lost");
        if self.feed.take().is_some() {
            self.generation += 1;
            for log in self.logs.values_mut() {
                match &mut log.fifo {
                    Some(fifo) => fifo.lost |= log.filled,
                    None => log.outdated |= !switches::off(Switch::Resync),
                }
            }
        }
        self.late = false;
        self.unlinked(now);
        if let Some(number) = self.outage.as_ref().map(|outage| outage.number) {
            self.outlasts(number);
        }
    }

    /// Keys may have changed without events, though the connection is there.
    pub(super) fn flushed(&mut self, reason: Reason, now: Now) {
        if self.feed.is_none() {
            return;
        }
        self.generation += 1;
        for log in self.logs.values_mut().filter(|log| log.fifo.is_none()) {
            log.outdated = true;
        }
        self.begin_outdated(Some((reason, now)), now);
        self.timers.set(now.mono + PATIENCE, Timer::Slow(self.generation));
    }

    /// The server does not answer, or does again and nothing was lost.
    pub(super) fn be_late(&mut self, late: bool, now: Now) {
        self.late = late && self.feed.is_some();
        for id in self.ids() {
            if self.late {
                self.stale(id, LATE, now.wall);
            } else {
                self.expect_changed(id, now);
                self.settle(id);
            }
        }
    }

    /// Lets all logs that somebody listens to be read again; the others when somebody returns.
    fn begin_outdated(&mut self, recovery: Option<(Reason, Now)>, now: Now) {
        let listened = |id: &u64| {
            let log = self.logs.get(id);
            log.is_some_and(|log| log.outdated && log.is_told())
        };
        let ids: Vec<u64> = self.ids().into_iter().filter(listened).collect();
        if let Some((reason, since)) = recovery {
            // A loss during a recovery makes it longer.
            let recovery = self.recovery.get_or_insert(Recovery {
                since,
                reason,
                logs: 0,
                differences: 0,
            });
            for id in &ids {
                if let Some(log) = self.logs.get_mut(id) {
                    recovery.logs += usize::from(!std::mem::replace(&mut log.recovering, true));
                }
            }
            // So that it ends even if there is no log.
            recovery.logs += 1;
        }
        for id in ids {
            self.begin(id, now);
        }
        if recovery.is_some() {
            self.recovered();
        }
    }

    /// One log less is being recovered.
    pub(super) fn recovered(&mut self) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.logs = recovery.logs.saturating_sub(1);
        if recovery.logs > 0 {
            return;
        }
        if let Some(Recovery {
            since,
            reason,
            differences,
            ..
        }) = self.recovery.take()
        {
            let seconds = self.now.mono.saturating_duration_since(since.mono).as_secs_f64();
            tracing::info!(reason = reason.0, seconds, differences, "the mirror is true again");
        }
    }

    /// A resync that clients were not told of takes its time.
    pub(super) fn slow(&mut self, generation: u64, now: Now) {
        if generation != self.generation {
            return;
        }
        for id in self.ids() {
            if self.logs.get(&id).is_some_and(|log| !log.is_whole() && log.filled) {
                let since = now.wall.checked_sub(PATIENCE).unwrap_or(now.wall);
                self.stale(id, FLUSHED, since);
            }
        }
    }

    /// Whether the reader is wanted and not there.
    pub fn wants_reader(&self) -> bool {
        self.feed.is_some() && self.reader.is_none()
    }

    /// Whether keys can be read.
    pub fn has_reader(&self) -> bool {
        self.reader.is_some()
    }

    /// A reader is connected. `false`: it reads another process than the feed hears and must be given up.
    pub fn linked(&mut self, run_id: &str, now: Now) -> bool {
        if self.feed.as_deref() != Some(run_id) {
            return false;
        }
        self.reader = Some(run_id.to_owned());
        self.end_outage(now);
        true
    }

    /// The reader's connection is gone. Nothing is lost by that: what was in flight is read again.
    pub fn unlinked(&mut self, now: Now) {
        self.reader = None;
        self.abandon_flights(now);
        self.abandon_pass();
        self.away(now);
    }

    /// Keys cannot be heard or read from now on.
    pub(super) fn away(&mut self, now: Now) {
        if self.outage.is_none() {
            let number = self.next_id();
            self.outage = Some(Outage {
                number,
                since: now,
                told: false,
            });
            self.timers.set(now.mono + PATIENCE, Timer::Outage(number));
        }
    }

    /// The outage is worth telling.
    pub(super) fn outlasts(&mut self, number: u64) {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.number == number) else {
            return;
        };
        outage.told = true;
        let since = outage.since.wall;
        for id in self.ids() {
            self.stale(id, LOST, since);
        }
    }

    /// If both connections are there the outage is over; who was told so is told again when all is read.
    fn end_outage(&mut self, now: Now) {
        if self.feed.is_none() || self.reader.is_none() {
            return;
        }
        let Some(outage) = self.outage.take() else { return };
        for id in self.ids() {
            if outage.told {
                self.expect_changed(id, now);
            }
            self.settle(id);
        }
    }
}

//! Keys whose changes no server announces: read again and again while somebody listens.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::channels::Table;
use super::entries::{KeyEntry, LogEntry, Now};
use super::mirror::Mirror;
use super::timers::Timer;
use crate::mapping::MappingId;

impl Mirror {
    /// Sets the timers of mappings that are polled, and have none or another interval than in the table of `before`; those of
    /// the others go.
    pub(super) fn begin_polling(&mut self, before: Option<&Table>, now: Instant) {
        let table = self.table.clone();
        let interval = |table: &Table, mapping| table.rule(mapping).and_then(|rule| rule.poll);
        for (mapping, timer) in std::mem::take(&mut self.polls) {
            match before.is_some_and(|before| interval(before, mapping) == interval(&table, mapping)) {
                true => drop(self.polls.insert(mapping, timer)),
                false => self.timers.cancel(timer),
            }
        }
        for rule in table.rules() {
            if let Some(interval) = rule.poll.filter(|_| !self.polls.contains_key(&rule.id)) {
                self.poll_after(rule.id, interval, now);
            }
        }
    }

    fn poll_after(&mut self, mapping: MappingId, interval: Duration, now: Instant) {
        let timer = self.timers.set(now + interval, Timer::Poll(mapping));
        self.polls.insert(mapping, timer);
    }

    /// Lets the keys of a mapping be read again. What still waits to be read since the last time is not read twice.
    pub(super) fn poll(&mut self, mapping: MappingId, now: Now) {
        let Some(interval) = self.table.rule(mapping).and_then(|rule| rule.poll) else {
            return;
        };
        self.poll_after(mapping, interval, now.mono);
        let polled =
            |log: &&LogEntry| log.lingering.is_none() && log.sources.iter().any(|source| source.mapping == mapping);
        let keys: Vec<Bytes> = self
            .logs
            .values()
            .filter(polled)
            .flat_map(|log| &log.keys)
            .cloned()
            .collect();
        for key in keys {
            let own = |entry: &KeyEntry| entry.uses.iter().any(|each| each.mapping == mapping);
            if self.keys.get(&key).is_some_and(own) {
                self.dirty(&key, false, now);
            }
        }
    }
}

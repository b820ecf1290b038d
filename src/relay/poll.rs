//! Keys whose changes no server announces: read again and again while somebody listens.

use bytes::Bytes;

use super::entries::{KeyEntry, LogEntry, Now};
use super::mirror::Mirror;
use super::timers::Timer;
use crate::mapping::MappingId;

impl Mirror {
    /// Sets the timers of all mappings that are polled.
    pub(super) fn begin_polling(&mut self, now: Now) {
        for rule in self.table.rules() {
            if let Some(interval) = rule.poll {
                self.timers.set(now.mono + interval, Timer::Poll(rule.id));
            }
        }
    }

    /// Lets the keys of a mapping be read again. What still waits to be read since the last time is not read twice.
    pub(super) fn poll(&mut self, mapping: MappingId, now: Now) {
        let Some(interval) = self.table.rule(mapping).poll else {
            return;
        };
        self.timers.set(now.mono + interval, Timer::Poll(mapping));
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

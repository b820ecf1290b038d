//! What is to be done at a later time, in the order of the times.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use crate::hub::Name;
use crate::mapping::MappingId;
use crate::upstream::NodeId;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The key may be read (again).
    Read(Bytes),
    /// The key's entry may go, if nothing needs it any more.
    Forget(Bytes),
    /// The log was idle for as long as it is kept warm.
    Linger(u64),
    /// The log's old messages may go.
    Trim(u64),
    /// The keys of this mapping are to be read again.
    Poll(MappingId),
    /// The batch of reads is slow: clients must be told.
    Flight(NodeId, u64),
    /// The resync of this generation is slow: clients must be told.
    Slow(NodeId, u64),
    /// This outage is not a short one: clients must be told.
    Outage(NodeId, u64),
    /// The channel that had too many keys may be tried again.
    Unbar(Name),
}

/// Names one entry, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId(Instant, u64);

/// One structure for all; some 80 bytes an entry.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeMap<TimerId, Timer>,
    last: u64,
}

impl Timers {
    pub fn set(&mut self, at: Instant, timer: Timer) -> TimerId {
        self.last += 1;
        let id = TimerId(at, self.last);
        self.entries.insert(id, timer);
        id
    }

    pub fn cancel(&mut self, id: TimerId) {
        self.entries.remove(&id);
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(id, _)| id.0)
    }

    /// What is due.
    pub fn pop(&mut self, now: Instant) -> Option<Timer> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_comes_in_order_and_the_cancelled_does_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(at(20), Timer::Linger(2));
        timers.set(at(10), Timer::Linger(1));
        let cancelled = timers.set(at(5), Timer::Linger(0));
        timers.set(at(20), Timer::Linger(3));
        timers.cancel(cancelled);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(10)), Some(Timer::Linger(1)));
        assert_eq!(timers.pop(at(19)), None);
        assert_eq!(timers.pop(at(30)), Some(Timer::Linger(2)));
        assert_eq!(timers.pop(at(30)), Some(Timer::Linger(3)));
        assert_eq!((timers.pop(at(30)), timers.next()), (None, None));
    }
}

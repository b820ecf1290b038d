//! When keys expire: each is read again then, because servers may say so a minute late, or never.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::entries::{KeyEntry, Now};
use super::mirror::Mirror;
use crate::switches::{self, Switch};
use crate::upstream::NodeId;

/// A deadline lies this far behind the moment that the server named, so that the key is gone when it is read.
const AFTER: Duration = Duration::from_millis(1);

/// A key is looked at again after this time although it expires later: no clock runs true for longer.
const FARTHEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A key that is still there at its deadline is asked for less and less often, down to once in `AFTER * 2^12`, 4 s.
const DOUBLINGS: u8 = 12;

/// So much earlier than thought a key may expire: until the server's clock is next looked at, which is each second.
const NEAR: Duration = Duration::from_millis(1_500);

/// Places that are kept in spare however few are used.
const SPARE: usize = 1024;

/// A moment in microseconds since the mirror began: half as large as an `Instant`, as is the choice of one or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(NonZeroU64);

impl Tick {
    fn earlier(self, by: Duration) -> Tick {
        Tick(NonZeroU64::new(self.0.get().saturating_sub(micros(by))).unwrap_or(NonZeroU64::MIN))
    }
}

/// Deadlines, the earliest first: 40 bytes each. Nothing is taken out of the middle: an entry is void unless its key
/// says that it waits for it ([`KeyEntry::armed`]), and when half of them are void those are dropped together.
#[derive(Debug)]
pub(super) struct Deadlines {
    start: Instant,
    heap: BinaryHeap<Due>,
    /// Entries that are not void.
    armed: usize,
}

#[derive(Debug)]
struct Due {
    at: Tick,
    key: Bytes,
}

impl Ord for Due {
    /// The earliest is the greatest, which is what a heap gives first.
    fn cmp(&self, other: &Due) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl Deadlines {
    pub fn new(start: Instant) -> Deadlines {
        Deadlines {
            start,
            heap: BinaryHeap::new(),
            armed: 0,
        }
    }

    /// When there is something to do, or a void entry to be dropped.
    pub fn next(&self) -> Option<Instant> {
        self.heap
            .peek()
            .map(|due| self.start + Duration::from_micros(due.at.0.get()))
    }

    /// How many there are, void ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Lets the key's entry go without a deadline.
    pub fn disarm(&mut self, entry: &mut KeyEntry) {
        entry.deadline = None;
        entry.overdue = 0;
        if entry.armed.take().is_some() {
            self.armed -= 1;
        }
    }

    /// Whether the key expires within [`NEAR`], or should have expired.
    pub fn is_near(&self, entry: &KeyEntry, now: Instant) -> bool {
        entry.deadline.is_some_and(|deadline| deadline <= self.tick(now + NEAR))
    }

    fn tick(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start);
        Tick(NonZeroU64::MIN.saturating_add(micros(since)))
    }

    fn set(&mut self, entry: &mut KeyEntry, key: &Bytes, at: Tick) {
        if entry.armed.replace(at).is_none() {
            self.armed += 1;
        }
        // Doubling would leave half of the memory unused.
        if self.heap.len() == self.heap.capacity() {
            self.heap.reserve_exact(self.heap.len() / 8 + SPARE);
        }
        self.heap.push(Due { at, key: key.clone() });
    }

    /// Takes the first entry that is due.
    fn pop(&mut self, now: Tick) -> Option<Due> {
        let due = self.heap.peek()?.at <= now;
        due.then(|| self.heap.pop()).flatten()
    }

    /// Drops the void entries if they are many, and memory that is not used.
    fn tidy(&mut self, is_armed: impl Fn(&Bytes, Tick) -> bool) {
        if self.heap.len() > 2 * self.armed + SPARE {
            self.heap.retain(|due| is_armed(&due.key, due.at));
        }
        if self.heap.capacity() > 4 * self.heap.len() + 2 * SPARE {
            self.heap.shrink_to(2 * self.heap.len());
        }
    }

    fn bring_forward(&mut self, by: Duration, of: impl Fn(&Bytes) -> bool) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        for due in all.iter_mut().filter(|due| of(&due.key)) {
            due.at = due.at.earlier(by);
        }
        self.heap = all.into();
    }
}

impl Mirror {
    /// Sets the deadline of a key that has yet so long to live.
    pub(super) fn arm(&mut self, key: &Bytes, ttl: Option<Duration>, now: Now) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        let Some(ttl) = ttl.filter(|_| !entry.uses.is_empty() && !switches::off(Switch::Deadlines)) else {
            return self.deadlines.disarm(entry);
        };
        let mut wait = ttl.min(FARTHEST) + AFTER;
        let at_least = AFTER * (1 << entry.overdue.min(DOUBLINGS));
        if wait >= at_least {
            entry.overdue = 0;
        }
        wait = wait.max(at_least);
        let deadline = self.deadlines.tick(now.mono + wait);
        entry.deadline = Some(deadline);
        // One that was prolonged is looked at when its old deadline has come: most are prolonged again and again.
        if entry.armed.is_none_or(|armed| armed > deadline) {
            self.deadlines.set(entry, key, deadline);
        }
    }

    /// Lets keys be read whose deadline has come.
    pub(super) fn expire(&mut self, now: Now) {
        let tick = self.deadlines.tick(now.mono);
        while let Some(Due { at, key }) = self.deadlines.pop(tick) {
            let Some(entry) = self.keys.get_mut(&key).filter(|entry| entry.armed == Some(at)) else {
                continue;
            };
            entry.armed = None;
            self.deadlines.armed -= 1;
            if let Some(deadline) = entry.deadline.filter(|&deadline| deadline > tick) {
                self.deadlines.set(entry, &key, deadline);
                continue;
            }
            entry.deadline = None;
            entry.overdue = entry.overdue.saturating_add(1);
            entry.probably_gone = true;
            self.dirty(&key, true, now);
        }
        let Mirror { keys, deadlines, .. } = self;
        deadlines.tidy(|key, at| keys.get(key).is_some_and(|entry| entry.armed == Some(at)));
    }

    /// The clock of a node was set, and its keys go as much earlier or later. Those that go later are found there at their old
    /// deadlines, and are given new ones.
    pub(super) fn clock_set(&mut self, node: NodeId, ahead_ms: i64) {
        let Ok(ahead) = u64::try_from(ahead_ms) else { return };
        let by = Duration::from_millis(ahead);
        let owners = self.nodes.owners();
        let own = |key: &Bytes| owners.of(key) == node;
        for (_, entry) in self.keys.iter_mut().filter(|(key, _)| own(key)) {
            entry.deadline = entry.deadline.map(|at| at.earlier(by));
            entry.armed = entry.armed.map(|at| at.earlier(by));
        }
        self.deadlines.bring_forward(by, own);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

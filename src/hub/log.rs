//! One channel's log: what is kept of it.

mod reading;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use foldhash::HashMap;

use super::channel::{Channel, Mode};
use super::limit::{Account, Ended};
use super::makers::Maker;
use super::message::{Body, Message, Reason};
use crate::switches::{self, Switch};

/// A deletion is kept this long for those who come back with a cursor, unless there are too many ([`Trim`]).
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(5 * 60);

/// Fewer deletions than this are never dropped for their number.
const TOMBSTONES: usize = 1_000;

/// Deletions younger than this are kept for those who are just being sent them, unless there are [`FRESH_TOMBSTONES`]:
/// who cannot take them within this time is cheaper served with a new snapshot.
const FRESH: Duration = Duration::from_secs(5);

/// More deletions than keys expire together as a rule; at some 200 bytes each, 26 MB of a channel that was larger before.
const FRESH_TOMBSTONES: usize = 1 << 17;

/// What tells the values of one state channel apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// Which of the channel's sources the value comes from.
    pub source: u32,
    /// The value's name within the source.
    pub name: Bytes,
}

/// A message that stands after a cursor, and the slot it fills (state mode).
#[derive(Clone, Debug)]
pub struct Found {
    /// The message.
    pub message: Arc<Message>,
    /// The slot's place in the fixed order of a sweep.
    pub slot: Option<u32>,
}

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Deletions or happenings that were dropped.
    pub dropped: usize,
}

/// A channel with its messages. Cheap to share; every access goes through a short lock.
#[derive(Debug)]
pub struct Log {
    /// Distinguishes this log from every other of the process, also from a later one of the same name.
    pub id: u64,
    /// What the channel is.
    pub channel: Arc<Channel>,
    /// Held for a few steps only and never across an await. Where the registry's lock is needed too, it is taken first.
    inner: Mutex<LogView>,
}

/// A log under its lock.
#[derive(Debug)]
pub struct LogView {
    mode: Mode,
    /// From here on the log misses nothing: a cursor before it is unknown.
    complete_from: u64,
    /// The sequence from which on the log holds the whole state; `None` while the state is still being read.
    filled: Option<u64>,
    /// The newest `stale` or `fresh`.
    status: Option<Arc<Message>>,
    /// The newest `stale` that a `fresh` has ended.
    passed: Option<Arc<Message>>,

    /// State mode: one place per value; a place keeps its index while it is occupied, which is what a sweep goes by.
    slots: Vec<Option<Slot>>,
    index: HashMap<SlotKey, u32>,
    free: Vec<u32>,
    /// Sequences in ascending order with their slots; an entry is void where the slot has a newer message.
    order: VecDeque<(u64, u32)>,
    /// Deletions in the order they happened; void where the slot has a newer message.
    tombstones: VecDeque<(u64, u32, Instant)>,
    /// Slots whose value is there.
    live: usize,
    /// Slots whose value is gone, fixed ones not counted.
    dead: usize,

    /// Events mode: what the retention kept, oldest first.
    ring: VecDeque<Happening>,
    ring_bytes: usize,

    /// Connected subscribers. Without an end the log may be closed only while this is 0, which is checked under this same
    /// lock.
    pub(super) subscribers: usize,
    /// Whether any subscriber wanted the log kept warm.
    pub(super) lingers: bool,
    /// Where it stands in the registry's order of idle logs, while it has no subscribers.
    pub(super) idle: Option<u64>,
    /// Whoever it is kept for: who opened it while nobody had it, or left it last.
    pub(super) maker: Maker,
    /// Closed for good: whoever still finds it must ask the registry again.
    pub(super) closed: bool,
    /// Closed although it has subscribers, who are to be ended; it is empty since, and never whole again.
    ended: Option<Ended>,
    /// What was in it when it was closed: to be dropped, which may take long, without a lock.
    remains: Option<Remains>,
    /// Already in the queue that tells the left side of changed interest.
    pub(super) queued: bool,
    /// Bit i: shard i has subscribers.
    pub(super) shards: u64,
}

/// What a closed log held.
#[derive(Debug)]
#[expect(dead_code, reason = "it is there to be dropped")]
pub(super) struct Remains(Vec<Option<Slot>>, HashMap<SlotKey, u32>, VecDeque<Happening>);

#[derive(Debug)]
struct Happening {
    /// The message's own: whoever looks for a place among hundreds would wait for the memory of each message otherwise.
    sequence: u64,
    message: Arc<Message>,
    at: Instant,
}

#[derive(Debug)]
struct Slot {
    key: SlotKey,
    message: Arc<Message>,
    /// Its value's absence is part of the state, so it is never dropped and stands in every snapshot.
    fixed: bool,
}

impl Log {
    pub(super) fn new(id: u64, channel: Arc<Channel>) -> Log {
        let inner = LogView {
            mode: channel.mode,
            complete_from: u64::MAX,
            filled: None,
            status: None,
            passed: None,
            slots: Vec::new(),
            index: HashMap::default(),
            free: Vec::new(),
            order: VecDeque::new(),
            tombstones: VecDeque::new(),
            live: 0,
            dead: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            subscribers: 0,
            lingers: false,
            idle: None,
            maker: Maker::NOBODY,
            closed: false,
            ended: None,
            remains: None,
            queued: false,
            shards: 0,
        };
        Log {
            id,
            channel,
            inner: Mutex::new(inner),
        }
    }

    /// Locks the log; do little and let go.
    pub fn view(&self) -> MutexGuard<'_, LogView> {
        // A panic elsewhere cannot leave a view half-changed in a way that later steps would not bear.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogView {
    /// From here on the log misses nothing; `u64::MAX` before it was activated.
    pub fn complete_from(&self) -> u64 {
        if switches::off(Switch::CompleteFrom) {
            return 0;
        }
        self.complete_from
    }

    /// Whether the log held the whole state at this watermark.
    pub fn is_filled(&self, watermark: u64) -> bool {
        self.filled.is_some_and(|filled| filled <= watermark)
    }

    /// Up to where the messages only say what was there when the log was filled; 0 while it is not.
    pub fn filled_at(&self) -> u64 {
        self.filled.unwrap_or(0)
    }

    /// The newest `stale` or `fresh` at this watermark.
    pub fn status(&self, watermark: u64) -> Option<&Arc<Message>> {
        self.status.as_ref().filter(|status| status.sequence <= watermark)
    }

    /// Why and since when the log is stale, if the newest status, seen or not, says so.
    pub fn stale(&self) -> Option<(Reason, SystemTime)> {
        match self.status.as_ref()?.body {
            Body::Stale { reason, since } => Some((reason, since)),
            _ => None,
        }
    }

    /// How many values are there (state) or retained happenings (events).
    pub fn len(&self) -> usize {
        match self.mode {
            Mode::State => self.live,
            Mode::Events => self.ring.len(),
        }
    }

    /// Whether there is no value and no happening.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connected subscribers.
    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Whether it is closed for good.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Why its subscribers are to be ended.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Whether it is to be kept warm after its last subscriber.
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// Marks that shard `shard` (below 64) has subscribers here, or no longer has any.
    pub fn set_shard(&mut self, shard: u32, present: bool) {
        let bit = 1 << shard;
        self.shards = if present { self.shards | bit } else { self.shards & !bit };
    }

    pub(super) fn activate(&mut self, sequence: u64) {
        if !self.closed {
            self.complete_from = sequence;
        }
    }

    pub(super) fn fill(&mut self, sequence: u64) {
        if !self.closed {
            self.filled = Some(sequence);
        }
    }

    /// What it held when it was closed, once.
    pub(super) fn remains(&mut self) -> Option<Remains> {
        self.remains.take()
    }

    /// Closes it for good.
    pub(super) fn close(&mut self, ended: Option<Ended>) {
        self.closed = true;
        self.ended = ended;
        // Who is still in the midst of it finds that it lost its place, and says `ready` for it no more.
        self.complete_from = u64::MAX;
        self.filled = None;
        self.remains = Some(Remains(
            std::mem::take(&mut self.slots),
            std::mem::take(&mut self.index),
            std::mem::take(&mut self.ring),
        ));
        self.free = Vec::new();
        self.order = VecDeque::new();
        self.tombstones = VecDeque::new();
        (self.live, self.dead) = (0, 0);
        self.ring_bytes = 0;
    }

    /// The state is no longer known to be whole: those who join wait until it is filled again.
    pub(super) fn unfill(&mut self) {
        self.filled = None;
    }

    pub(super) fn set_status(&mut self, message: Arc<Message>) {
        let before = self.status.replace(message);
        let stale = |message: &Arc<Message>| matches!(message.body, Body::Stale { .. });
        if self.stale().is_none() && before.as_ref().is_some_and(stale) {
            self.passed = before;
        }
    }

    /// Whether a value stands in this slot, its absence included.
    pub fn has_slot(&self, key: &SlotKey) -> bool {
        self.index.contains_key(key)
    }

    /// Bytes that its messages are counted for.
    pub(super) fn bytes(&self) -> usize {
        let slots = self.slots.iter().flatten().map(|slot| &slot.message);
        let messages = slots.chain(self.ring.iter().map(|happening| &happening.message));
        messages.map(|message| message.charge()).sum()
    }

    /// Lets go of what its messages were encoded to, and says how many bytes that were.
    pub(super) fn strip(&mut self, account: &Account) -> usize {
        let slots = self.slots.iter_mut().flatten();
        let slots = slots.map(|slot| (slot.key.name.len(), &mut slot.message));
        let messages = slots.chain(self.ring.iter_mut().map(|happening| (0, &mut happening.message)));
        let strip = |(name, message): (usize, &mut Arc<Message>)| {
            let bare = message.bare(account, name)?;
            let freed = message.charge().saturating_sub(bare.charge());
            *message = Arc::new(bare);
            Some(freed)
        };
        messages.filter_map(strip).sum()
    }

    /// Puts a message into its slot, and says by how many bytes more it is counted for than what stood there. A deletion of
    /// what was never there is not kept: `None`.
    pub(super) fn put(&mut self, key: SlotKey, fixed: bool, message: Arc<Message>, now: Instant) -> Option<usize> {
        if self.closed {
            return None;
        }
        let present = message.is_present();
        let mut before = 0;
        let place = match self.index.get(&key) {
            Some(&place) => {
                let was = self.slots[place as usize].take().expect("an indexed slot is occupied");
                self.count(&was, -1);
                before = was.message.charge();
                place
            }
            None if !present && !fixed => return None,
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    (self.slots.len() - 1) as u32
                });
                self.index.insert(key.clone(), place);
                place
            }
        };
        let sequence = message.sequence;
        let grown = message.charge().saturating_sub(before);
        let slot = Slot { key, message, fixed };
        self.count(&slot, 1);
        self.slots[place as usize] = Some(slot);
        self.order.push_back((sequence, place));
        if !present && !fixed {
            self.tombstones.push_back((sequence, place, now));
        }
        let slots = &self.slots;
        if self.order.len() > 2 * self.index.len() + 64 {
            self.order
                .retain(|&(sequence, slot)| occupied_by(slots, slot, sequence));
        }
        if self.tombstones.len() > 2 * self.dead + 64 {
            self.tombstones
                .retain(|&(sequence, slot, _)| occupied_by(slots, slot, sequence));
        }
        Some(grown)
    }

    fn count(&mut self, slot: &Slot, by: isize) {
        let counter = match (slot.message.is_present(), slot.fixed) {
            (true, _) => &mut self.live,
            (false, false) => &mut self.dead,
            (false, true) => return,
        };
        *counter = counter.wrapping_add_signed(by);
    }

    pub(super) fn push(&mut self, message: Arc<Message>, now: Instant) {
        if self.closed {
            return;
        }
        self.ring_bytes += message.size();
        self.ring.push_back(Happening {
            sequence: message.sequence,
            message,
            at: now,
        });
    }

    /// Drops what the retention no longer keeps, and says with `complete_from` that it is missing.
    pub(super) fn trim(&mut self, channel: &Channel, now: Instant) -> Trim {
        let mut dropped = 0;
        while let Some(&(sequence, place, at)) = self.tombstones.front() {
            let valid = occupied_by(&self.slots, place, sequence);
            let age = now.saturating_duration_since(at);
            let most = if age < FRESH { FRESH_TOMBSTONES } else { TOMBSTONES };
            let too_many = self.dead > most.max(self.live);
            if valid && !too_many && age < TOMBSTONE_AGE {
                break;
            }
            self.tombstones.pop_front();
            if valid && let Some(slot) = self.slots[place as usize].take() {
                self.index.remove(&slot.key);
                self.free.push(place);
                self.dead -= 1;
                self.complete_from = self.complete_from.max(sequence);
                dropped += 1;
            }
        }
        let keep = &channel.retention;
        while let Some(Happening { message, at, .. }) = self.ring.front() {
            // One message is kept however large it is, or those that are connected would never see it.
            let too_large = self.ring_bytes > keep.bytes && self.ring.len() > 1;
            let too_many = self.ring.len() > keep.messages || too_large;
            if !too_many && now.saturating_duration_since(*at) < keep.age {
                break;
            }
            self.ring_bytes -= message.size();
            self.complete_from = self.complete_from.max(message.sequence);
            self.ring.pop_front();
            dropped += 1;
        }
        Trim { dropped }
    }

    /// Drops the oldest happenings before their time, until so many bytes are let go or one is left; says how many bytes
    /// that were.
    pub(super) fn cut(&mut self, bytes: usize) -> usize {
        let mut freed = 0;
        while freed < bytes && self.ring.len() > 1 {
            let Some(Happening { message, .. }) = self.ring.pop_front() else {
                break;
            };
            freed += message.charge();
            self.ring_bytes -= message.size();
            self.complete_from = self.complete_from.max(message.sequence);
        }
        freed
    }
}

fn occupied_by(slots: &[Option<Slot>], place: u32, sequence: u64) -> bool {
    slots
        .get(place as usize)
        .and_then(Option::as_ref)
        .is_some_and(|slot| slot.message.sequence == sequence)
}

#[cfg(test)]
mod tests;

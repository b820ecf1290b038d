//! What the feed's thread has put down and the relay's has not looked at yet.

use std::collections::hash_map::Entry;
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::HashMap;

use super::backlog::Backlog;
use super::entries::Event;
use super::node::Heard;
use crate::hub::Reason;
use crate::keyspace::{EventName, Value};
use crate::mapping::MappingId;
use crate::upstream::NodeId;
use crate::upstream::feed::Cause;
use crate::upstream::topology::Slots;

/// What has come that has an order.
#[derive(Debug)]
pub(super) enum Item {
    /// The feed hears this server's process; nothing is missed from here on.
    Up(Heard),
    /// The feed hears by this plan from here on.
    Hears(u64),
    /// The feed may miss events from here on; the reason is the word that clients are told.
    Lost { why: String, reason: Reason },
    /// The server does not send all key events any more.
    Unheard,
    /// Keys may have gone or come without events.
    Flushed(Cause),
    /// The server is a replica whose primary is out of its reach since then, or is not, or is no replica.
    Behind(Option<SystemTime>),
    /// The server does not answer, or does again.
    Late(bool),
    /// Which node has which slots from now on, whichever node the item is of.
    Slots(Slots),
    /// The server's clock was set ahead, or back.
    ClockSet { ahead_ms: i64 },
    /// All that was said before the question of this number is told.
    Answered { number: u64 },
    /// Something happened to a key of an events channel.
    Happening {
        log: u64,
        mapping: MappingId,
        key: Bytes,
        event: EventName,
        /// When it was heard, in microseconds since 1970.
        heard_at: u64,
    },
    /// A message was published for an events channel.
    Published {
        log: u64,
        mapping: MappingId,
        topic: Bytes,
        /// The message, or how large it is where it is over the mapping's `max_value`.
        message: Value,
        /// When it was heard, in microseconds since 1970.
        heard_at: u64,
    },
    /// Happenings of an events channel were too many to be kept.
    Missed { log: u64, count: u64 },
}

/// What has come since the relay's thread last looked.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Keys of state channels that may have changed, with the last event of each.
    pub keys: HashMap<Bytes, Event>,
    /// The rest, in order, and of which node.
    pub items: Vec<(NodeId, Item)>,
    /// There were more keys than may wait: all must be read again.
    pub overflowed: bool,
    /// Where in `items` the happenings missed of a log are being counted.
    missed: HashMap<u64, usize>,
}

impl Taken {
    /// Empties it and keeps its memory, unless a burst made it large.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(10_000);
        self.items.clear();
        self.items.shrink_to(10_000);
        self.missed.clear();
        self.overflowed = false;
    }

    /// The key may have changed, by this event last.
    pub fn key(&mut self, key: &[u8], event: &Event, max_dirty: usize) {
        if let Some(last) = self.keys.get_mut(key) {
            let since = last.since;
            *last = Event { since, ..event.clone() };
        } else if self.keys.len() < max_dirty {
            self.keys.insert(Bytes::copy_from_slice(key), event.clone());
        } else {
            self.overflowed = true;
        }
    }

    /// What comes next of a node.
    pub fn item(&mut self, node: NodeId, item: Item) {
        // What is missed later is counted behind this.
        self.missed.clear();
        // To read all again twice is no better than once, and a server may be emptied faster than we look.
        let last = self.items.last().filter(|(last, _)| *last == node);
        if let (Item::Flushed(cause), Some((_, Item::Flushed(last)))) = (&item, last)
            && cause == last
        {
            return;
        }
        self.items.push((node, item));
    }

    /// What happened next in a log, or one more that is missed if its backlog is full.
    pub fn happening(
        &mut self,
        node: NodeId,
        log: u64,
        backlog: &Backlog,
        bytes: usize,
        happening: impl FnOnce() -> Item,
    ) {
        if backlog.add(bytes) {
            self.missed.remove(&log);
            self.items.push((node, happening()));
            return;
        }
        match self.missed.entry(log) {
            Entry::Occupied(at) => {
                if let Some((_, Item::Missed { count, .. })) = self.items.get_mut(*at.get()) {
                    *count += 1;
                }
            }
            Entry::Vacant(at) => {
                at.insert(self.items.len());
                self.items.push((node, Item::Missed { log, count: 1 }));
            }
        }
    }
}

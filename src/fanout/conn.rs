//! One connected client, and the only way its bytes are written: a frame that was begun is finished first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::limits::{Meter, Permits};
use crate::session::{Ending, Session};

use super::inbound::Inbound;
use super::socket::Socket;
use super::stats::Stats;
use super::wheel::Wheel;
use super::{Gate, Transport};

/// Who wants to be told that it will expire is told this long before: time to fetch a new token over a bad network.
const ANNOUNCED: Duration = Duration::from_secs(30);

/// Names a client for as long as it is connected: the place is used again, the generation is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub index: u32,
    pub generation: u32,
}

impl Token {
    /// As the 64 bits that epoll carries.
    pub fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Back from the 64 bits.
    pub fn from_bits(bits: u64) -> Token {
        Token {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Served.
    Open,
    /// To be ended as soon as the frame that was begun is written.
    Ending(Ending),
    /// The ending is written, but for what is pending.
    Ended(Ending),
    /// A WebSocket whose close frame is out: the peer's answer is awaited for a moment.
    Closing(Ending),
}

/// A frame of which a part is still to be written.
#[derive(Debug)]
pub(super) struct Pending {
    bytes: Bytes,
    offset: usize,
    /// A further frame, of which nothing is written.
    behind: Option<Bytes>,
}

impl Pending {
    fn len(&self) -> usize {
        self.bytes.len() - self.offset + self.behind.as_ref().map_or(0, Bytes::len)
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.offset..]);
        out.extend_from_slice(self.behind.as_deref().unwrap_or_default());
    }
}

/// One connected client. There is one for each idle connection, so every field is paid ten thousand times.
#[derive(Debug)]
pub(super) struct Conn {
    pub session: Session,
    pub socket: Socket,
    /// Written before anything else.
    pub pending: Option<Box<Pending>>,
    /// The state of a WebSocket client that is in the midst of a message.
    pub inbound: Option<Box<Inbound>>,
    /// Held until it goes.
    pub _permits: Box<Permits>,
    /// How often it sends messages.
    pub meter: Meter,
    pub token: Token,
    /// What it asks while it is connected.
    pub gate: Option<Arc<dyn Gate>>,
    /// The hub's revision by which it was let in, or judged last.
    pub judged: u64,
    /// The tick in which it may no longer read; `u32::MAX` if that never comes.
    pub expires: u32,
    /// The tick in which it is asked to come back, however lively it is.
    pub retires: u32,
    /// The tick of its valid entry in the wheel; any other entry is void.
    pub due: u32,
    /// The tick in which it last took anything.
    pub last: u32,
    /// Bytes that a client sent which has nothing to say.
    pub received: u32,
    /// Its own length of the heartbeat's interval, in 256ths of the spread.
    pub jitter: u8,
    pub transport: Transport,
    pub phase: Phase,
    /// The socket has no room, or took less than it was given: nothing is written until epoll says so.
    pub blocked: bool,
    /// There may be something to read.
    pub readable: bool,
    /// The client sends nothing more. Its end has no event of its own if it came with its last bytes, so it is read to the end.
    pub hung_up: bool,
    /// Stands in the queue of those to be served.
    pub queued: bool,
    /// Nothing was heard since it was pinged.
    pub unanswered: bool,
    /// It waits for what its gate says, and is not heard until then.
    pub asking: bool,
    /// It wants to be told before it expires.
    pub wants_word: bool,
    /// It is still to be told.
    pub announce: bool,
    /// What it showed may count again after it expired.
    pub renewable: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it was taken.
    Whole,
    /// A part was taken, and the rest is pending.
    Part,
    /// Nothing was taken, and nothing is pending.
    Nothing,
    /// The connection is broken.
    Gone,
}

/// What the clients of a shard share while they are written to.
#[derive(Debug)]
pub(super) struct Books {
    /// All sockets.
    pub epoll: Rc<OwnedFd>,
    pub wheel: Wheel,
    /// The current tick.
    pub tick: u32,
    pub write_timeout: u32,
    /// The watermark of the last finished turn.
    pub walked: u64,
    pub pins: Pins,
    /// Messages sent since they were last added to the stats.
    pub messages: u64,
    /// How long messages took that were handed over since then.
    pub took: Vec<Duration>,
    /// Clients of this shard that are blocked, so that nobody need be looked at to find them.
    pub blocked: HashSet<Token>,
    pub stats: Arc<Stats>,
}

impl Conn {
    /// Sends a frame of this client's own, or one that its session has counted as sent: what the socket does not take
    /// stays pending. Not to be called while blocked.
    pub fn send(&mut self, frame: &Bytes, books: &mut Books) -> Sent {
        match self.send_live(frame, books) {
            Sent::Nothing => {
                self.hold(frame, 0, books);
                Sent::Part
            }
            sent => sent,
        }
    }

    /// Sends a frame, or nothing of it. Not to be called while blocked.
    pub fn send_live(&mut self, frame: &Bytes, books: &mut Books) -> Sent {
        debug_assert!(
            !self.blocked && self.pending.is_none(),
            "a frame that was begun is finished first"
        );
        if frame.is_empty() {
            return Sent::Whole;
        }
        match self.socket.send(frame) {
            Ok(Some(size)) if size == frame.len() => {
                self.last = books.tick;
                Sent::Whole
            }
            Ok(Some(size)) => {
                self.hold(frame, size, books);
                self.block(books);
                Sent::Part
            }
            Ok(None) => {
                self.block(books);
                Sent::Nothing
            }
            Err(_) => Sent::Gone,
        }
    }

    /// Sends several frames that were put behind one another, and that its session has counted as sent. Not to be called
    /// while blocked.
    pub fn send_gathered(&mut self, frames: &[u8], books: &mut Books) -> Sent {
        let taken = match self.socket.send(frames) {
            Ok(taken) => taken.unwrap_or(0),
            Err(_) => return Sent::Gone,
        };
        if taken == frames.len() {
            self.last = books.tick;
            return Sent::Whole;
        }
        self.hold(&Bytes::copy_from_slice(&frames[taken..]), 0, books);
        self.block(books);
        Sent::Part
    }

    /// Holds a frame that its socket has no room for, until it has.
    pub fn put_off(&mut self, frame: &Bytes, books: &mut Books) -> Sent {
        self.hold(frame, 0, books);
        self.block(books);
        Sent::Part
    }

    /// Puts a frame behind what is pending, which the socket takes no more of now. To be called once at most until all of it
    /// is written.
    pub fn follow(&mut self, frame: &Bytes, books: &mut Books) {
        let Some(pending) = &mut self.pending else { return };
        debug_assert!(pending.behind.is_none(), "who is blocked is sent nothing more");
        books.pins.add(frame, &books.stats);
        pending.behind = Some(frame.clone());
    }

    /// Holds a frame, to be written before anything else.
    pub fn hold(&mut self, frame: &Bytes, offset: usize, books: &mut Books) {
        books.pins.add(frame, &books.stats);
        self.pending = Some(Box::new(Pending {
            bytes: frame.clone(),
            offset,
            behind: None,
        }));
    }

    fn block(&mut self, books: &mut Books) {
        self.set_blocked(true, books);
        // From now on the time is counted in which it takes nothing.
        self.last = books.tick;
        self.arm(books.tick.saturating_add(books.write_timeout), books);
    }

    /// Whether the socket has no room, or took less than it was given.
    pub fn set_blocked(&mut self, blocked: bool, books: &mut Books) {
        match (std::mem::replace(&mut self.blocked, blocked), blocked) {
            (false, true) => {
                // It cannot fail for a socket that is in the set; of one that is not the time will run out.
                let _ = self.socket.await_room(&books.epoll, self.token);
                books.blocked.insert(self.token);
                books.stats.blocked.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                books.blocked.remove(&self.token);
                books.stats.blocked.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Writes on where it was broken off; afterwards it is blocked or nothing is pending.
    pub fn flush(&mut self, books: &mut Books) -> Sent {
        while let Some(pending) = &mut self.pending {
            let rest = &pending.bytes[pending.offset..];
            match self.socket.send(rest) {
                Ok(Some(size)) if size == rest.len() => {
                    self.last = books.tick;
                    let behind = pending.behind.take();
                    self.release(books);
                    if let Some(frame) = behind {
                        books.pins.remove(&frame, &books.stats);
                        self.hold(&frame, 0, books);
                    }
                }
                Ok(size) => {
                    pending.offset += size.unwrap_or(0);
                    self.set_blocked(true, books);
                    if size.is_some() {
                        self.block(books);
                    }
                    return Sent::Part;
                }
                Err(_) => return Sent::Gone,
            }
        }
        Sent::Whole
    }

    /// Lets go of what is pending.
    pub fn release(&mut self, books: &mut Books) {
        if let Some(pending) = self.pending.take() {
            for frame in [Some(pending.bytes), pending.behind].iter().flatten() {
                books.pins.remove(frame, &books.stats);
            }
        }
    }

    /// Puts further bytes behind what is pending; to be called while blocked, and for short answers only.
    pub fn append(&mut self, bytes: &Bytes, books: &mut Books) {
        let mut rest = Vec::new();
        if let Some(pending) = &self.pending {
            pending.append_to(&mut rest);
        }
        rest.extend_from_slice(bytes);
        self.release(books);
        self.hold(&rest.into(), 0, books);
    }

    /// Puts what is pending before what is to be written together with it, if it is no longer than this; otherwise, and while
    /// blocked, it stays pending.
    pub fn take_pending(&mut self, longest: usize, out: &mut Vec<u8>, books: &mut Books) {
        let short = |pending: &&Pending| pending.len() <= longest;
        if !self.blocked
            && let Some(pending) = self.pending.as_deref().filter(short)
        {
            pending.append_to(out);
            self.release(books);
        }
    }

    /// Lets it read until this time at the latest; what ends earlier stays.
    pub fn expire(&mut self, at: SystemTime, books: &mut Books) {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        // The current tick has begun already; it ends no earlier than it should.
        let tick = books.tick.saturating_add(books.wheel.ticks(left)).saturating_add(1);
        self.expires = self.expires.min(tick);
        self.arm(self.next_of_expiry(books), books);
    }

    /// The next tick in which something is to be done because it will expire.
    pub fn next_of_expiry(&self, books: &Books) -> u32 {
        match self.announce {
            true => self.expires.saturating_sub(books.wheel.ticks(ANNOUNCED)),
            false => self.expires,
        }
    }

    /// Has it looked at in this tick at the latest.
    pub fn arm(&mut self, due: u32, books: &mut Books) {
        let due = due.min(self.retires);
        if due < self.due {
            self.due = books.wheel.add(self.token, due);
        }
    }
}

/// The frames that half-written clients hold on to, each counted once however many hold it: one large message that
/// blocks all its subscribers costs its own size.
#[derive(Debug, Default)]
pub(super) struct Pins {
    frames: HashMap<usize, usize>,
    /// What this shard has of the sum.
    bytes: usize,
    /// Whether this shard has pinned anything since it last told the others that it is too much.
    grown: bool,
}

impl Pins {
    fn add(&mut self, frame: &Bytes, stats: &Stats) {
        // The address is the frame's own while it is held.
        let holders = self.frames.entry(frame.as_ptr() as usize).or_default();
        *holders += 1;
        if *holders == 1 {
            self.bytes += frame.len();
            self.grown = true;
            stats.pinned.fetch_add(frame.len(), Ordering::Relaxed);
        }
    }

    fn remove(&mut self, frame: &Bytes, stats: &Stats) {
        let address = frame.as_ptr() as usize;
        if let Entry::Occupied(mut holders) = self.frames.entry(address) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
                self.bytes -= frame.len();
                stats.pinned.fetch_sub(frame.len(), Ordering::Relaxed);
            }
        }
    }

    /// Whether all shards together hold more than they may, and this one more than its share. Where it is others that do,
    /// they are told: those of this shard are not ended for what is held elsewhere.
    pub fn too_many(&mut self, stats: &Stats, most: usize) -> bool {
        if stats.pinned.load(Ordering::Relaxed) <= most {
            return false;
        }
        let own = self.bytes > most / stats.shards.load(Ordering::Relaxed).max(1);
        if !own && std::mem::take(&mut self.grown) {
            stats.crowded.send_replace(());
        }
        own
    }
}

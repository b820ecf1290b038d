//! What a shard does, without waiting: clients come, are served, and go.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use slab::Slab;
use tokio::time::Instant;

use crate::hub::{Hub, Inbox, Log};
use crate::limits::{Limit, Meter};
use crate::session::Ending;

use super::asking::Asking;
use super::conn::{Books, Conn, Phase, Pins, Sent, Token};
use super::handle::Handle;
use super::judging::Judging;
use super::socket::Socket;
use super::stats::Stats;
use super::subscribers::Subscribers;
use super::timers::Drain;
use super::walk::Turn;
use super::wheel::Wheel;
use super::{Client, Options, Transport};

/// Most sends of one kind in a slice: about a millisecond.
pub(super) const SLICE: usize = 256;

/// Most clients adopted in a slice.
const ADOPTED: usize = 64;

/// Most piped clients heard of in a slice; each costs no more than an event of epoll does.
const RINGS: usize = 1024;

/// Read at once. Shared by all clients of a shard.
const SCRATCH: usize = 16 * 1024;

/// All of a shard but its waiting.
pub(super) struct Core {
    pub options: Options,
    pub epoch: u64,
    /// Who is judged again.
    pub judging: Judging,
    /// What gates were asked and have not said yet.
    pub asking: Asking,
    pub inbox: Arc<Inbox>,
    pub handle: Handle,
    events: Vec<epoll::Event>,
    pub clients: Slab<Conn>,
    generation: u32,
    pub subscribers: Subscribers,
    pub books: Books,
    /// Taken from the inbox: everything up to here may be sent.
    pub watermark: u64,
    /// Taken from the inbox, for the next turn.
    pub grown: Vec<Arc<Log>>,
    pub turn: Option<Turn>,
    /// To be served; each has its `queued` set and stands here once.
    pub ready: VecDeque<Token>,
    /// Out of the wheel, to be looked at.
    pub due: VecDeque<(u32, Token)>,
    pub drain: Option<Drain>,
    pub scratch: Box<[u8]>,
    /// Frames of one client that are sent at once; empty in between.
    pub gathered: Vec<u8>,
    pub random: Random,
    pub start: Instant,
    /// A moment by both clocks: by ours, which stands still while the machine is suspended, and by the world's.
    pub clock: (Instant, SystemTime),
}

impl Core {
    pub fn new(options: Options, hub: &Hub, stats: Arc<Stats>, seed: u64, start: Instant) -> std::io::Result<Core> {
        let inbox = hub.open_inbox();
        stats.shards.fetch_add(1, Ordering::Relaxed);
        let wheel = Wheel::new(options.heartbeat.min(options.write_timeout));
        let write_timeout = wheel.ticks(options.write_timeout);
        // What was appended before can concern no client of this shard.
        let watermark = inbox.take().watermark;
        let books = Books {
            epoll: Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
            wheel,
            tick: 0,
            write_timeout,
            walked: watermark,
            pins: Pins::default(),
            messages: 0,
            took: Vec::new(),
            blocked: HashSet::new(),
            stats,
        };
        Ok(Core {
            options,
            epoch: hub.epoch,
            judging: Judging::new(hub.verdicts()),
            asking: Asking::default(),
            handle: Handle::new(),
            events: Vec::with_capacity(SLICE),
            clients: Slab::new(),
            generation: 0,
            subscribers: Subscribers::new(inbox.shard),
            books,
            watermark,
            grown: Vec::new(),
            turn: None,
            ready: VecDeque::new(),
            due: VecDeque::new(),
            drain: None,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            gathered: Vec::new(),
            random: Random(seed | 1),
            start,
            clock: (start, SystemTime::now()),
            inbox,
        })
    }

    /// Takes what the hub has announced. To be called after a new subscriber was registered at its logs, and before it is
    /// served.
    pub fn take(&mut self) {
        let delivery = self.inbox.take();
        self.watermark = delivery.watermark;
        self.grown.extend(delivery.grown);
    }

    /// Does a bounded part of what there is to do; `true` if there is more.
    pub fn slice(&mut self, now: Instant) -> bool {
        self.books.tick = self.books.wheel.tick_at(now - self.start);
        if self.handle.is_draining() && self.drain.is_none() {
            self.begin_drain(now);
        }
        for _ in 0..ADOPTED {
            let Some(client) = self.handle.next() else { break };
            self.adopt(client);
        }
        self.rings();
        self.follow_clock(now);
        self.timers();
        self.end_some(now);
        let judging = self.judge_some();
        self.serve_some();
        let walking = self.walk();
        self.unpin();
        let sent = std::mem::take(&mut self.books.messages);
        if sent > 0 {
            self.books.stats.messages.fetch_add(sent, Ordering::Relaxed);
        }
        if !self.books.took.is_empty() {
            self.books.stats.latency.add_all(self.books.took.drain(..));
        }
        walking || judging || !self.ready.is_empty() || !self.due.is_empty() || self.handle.has_next()
    }

    /// Asks which sockets can be read or written; how many there were. There may be more only if it was a whole slice.
    pub fn poll(&mut self) -> usize {
        self.events.clear();
        let now = Timespec::default();
        let got = epoll::wait(
            &self.books.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&now),
        );
        // Interrupted, as the one thing that can happen to a valid set: the caller asks again.
        let got = got.unwrap_or(SLICE);
        for at in 0..self.events.len() {
            let epoll::Event { flags, data, .. } = self.events[at];
            self.event(Token::from_bits(data.u64()), flags);
        }
        got
    }

    /// Takes what there is to know of piped clients.
    fn rings(&mut self) {
        for _ in 0..RINGS {
            let Some(token) = self.handle.next_ring() else { return };
            let conn = client(&mut self.clients, token);
            if let Some(Socket::Piped(near)) = conn.map(|conn| &conn.socket) {
                let flags = near.news();
                self.event(token, flags);
            }
        }
    }

    fn event(&mut self, token: Token, flags: EventFlags) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        let hung_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if broken || (flags.intersects(hung_up) && matches!(conn.transport, Transport::Sse { .. })) {
            return self.close(token, Ending::Gone);
        }
        conn.hung_up |= flags.contains(EventFlags::RDHUP);
        conn.readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        let writable = flags.contains(EventFlags::OUT) && conn.blocked;
        if writable {
            conn.set_blocked(false, &mut self.books);
        }
        if writable || conn.readable {
            enqueue(conn, &mut self.ready);
        }
    }

    fn adopt(&mut self, given: Client) {
        self.generation = self.generation.wrapping_add(1);
        let token = Token {
            index: self.clients.vacant_key() as u32,
            generation: self.generation,
        };
        let added = given.socket.register(&self.books.epoll, &self.handle, token);
        if let Err(error) = added {
            // Mostly a client that left at once.
            tracing::debug!(%error, "socket not adopted");
            return;
        }
        let mut conn = Conn {
            session: given.session,
            socket: given.socket,
            pending: None,
            inbound: None,
            _permits: given.permits,
            meter: Meter::default(),
            token,
            gate: given.gate,
            judged: given.judged,
            expires: u32::MAX,
            retires: self.retirement(),
            due: u32::MAX,
            // Nothing was sent in this one.
            last: self.books.tick.saturating_sub(1),
            received: 0,
            jitter: self.random.next() as u8,
            transport: given.transport,
            phase: Phase::Open,
            blocked: false,
            readable: false,
            hung_up: false,
            queued: false,
            unanswered: false,
            asking: false,
            wants_word: given.until.announced,
            announce: given.until.announced,
            renewable: given.until.renewable,
        };
        count(&self.books.stats, conn.transport, 1);
        self.books.stats.opened(conn.transport).fetch_add(1, Ordering::Relaxed);
        for log in conn.session.logs() {
            self.subscribers.add(log, token);
        }
        conn.arm(self.books.tick + self.interval(&conn), &mut self.books);
        if let Some(expires) = given.until.expires {
            conn.expire(expires, &mut self.books);
        }
        if self.drain.is_some() {
            conn.phase = Phase::Ending(Ending::Drain);
        }
        // It goes out together with what follows.
        conn.hold(&given.head, 0, &mut self.books);
        let sent = match given.read_ahead.is_empty() {
            true => Sent::Whole,
            false => conn.flush(&mut self.books),
        };
        enqueue(&mut conn, &mut self.ready);
        self.clients.insert(conn);
        // After the registration at its logs, so that what is appended from here on is announced.
        self.take();
        if sent == Sent::Gone {
            self.close(token, Ending::Gone);
        } else if !given.read_ahead.is_empty() {
            self.read_ahead(token, &given.read_ahead);
        }
        self.end_if_ended(token);
        self.judge_if_due(token);
    }

    /// Ends a client if a log was that it has just been registered at: this shard may have been told before.
    pub fn end_if_ended(&mut self, token: Token) {
        let ended = client(&mut self.clients, token).and_then(|conn| conn.session.ended());
        if let Some(ending) = ended {
            self.end(token, ending);
        }
    }

    /// The tick in which a client that comes now is asked to come back: a tenth sooner or later than others, so that those
    /// who came together do not all go at once.
    fn retirement(&mut self) -> u32 {
        let Some(lifetime) = self.options.bounds.lifetime else {
            return u32::MAX;
        };
        let spread = 0.9 + 0.2 * (self.random.next() % 1_024) as f64 / 1_024.0;
        let ticks = self.books.wheel.ticks(lifetime.mul_f64(spread));
        self.books.tick.saturating_add(ticks)
    }

    /// Ends whoever has stalled longest while half-written clients hold on to too much.
    fn unpin(&mut self) {
        while self.books.pins.too_many(&self.books.stats, self.options.pinned) {
            let held = self.clients.iter().filter(|(_, conn)| conn.pending.is_some());
            let Some(token) = held.min_by_key(|(_, conn)| conn.last).map(|(_, conn)| conn.token) else {
                return;
            };
            self.books.stats.limited.hit(Limit::Pinned, None);
            self.close(token, Ending::TooSlow);
        }
    }

    /// Ticks between two heartbeats of this client: the interval, up to 20 % shorter or longer.
    pub fn interval(&self, conn: &Conn) -> u32 {
        let shortest = self.options.heartbeat.mul_f64(0.8);
        let spread = self.options.heartbeat.mul_f64(0.4 * f64::from(conn.jitter) / 256.0);
        self.books.wheel.ticks(shortest + spread)
    }
}

/// The client of this token, if it is still connected.
pub(super) fn client(clients: &mut Slab<Conn>, token: Token) -> Option<&mut Conn> {
    clients.get_mut(token.index as usize).filter(|conn| conn.token == token)
}

/// Has a client served in its turn.
pub(super) fn enqueue(conn: &mut Conn, ready: &mut VecDeque<Token>) {
    if !std::mem::replace(&mut conn.queued, true) {
        ready.push_back(conn.token);
    }
}

pub(super) fn count(stats: &Stats, transport: Transport, by: isize) {
    let counter = match transport {
        Transport::Sse { .. } => &stats.sse,
        Transport::WebSocket { .. } => &stats.websocket,
    };
    counter.fetch_add(by as usize, Ordering::Relaxed);
}

/// Spreads moments; nothing secret depends on it (xorshift64).
#[derive(Debug)]
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// When a client that is sent away should come back: 1 to 5 s, so that not all come at once.
    pub fn retry(&mut self) -> Duration {
        Duration::from_millis(1_000 + self.next() % 4_000)
    }
}

//! Serving one client: its session's steps, what it sends, and its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::session::Ending;

use super::Transport;
use super::codec;
use super::conn::{Phase, Sent, Token};
use super::core::{Core, SLICE, client, count, enqueue};

/// Most that one client is sent before others get their turn. Short messages are gathered, so that they take no slice of time.
const STEPS: usize = SLICE;

/// As [`STEPS`], in bytes.
const BYTES: usize = 256 * 1024;

/// Frames up to this length are put behind one another. Of longer ones too few fit together to save much, so they are sent as they
/// are, from the memory that all share: a client that takes a part of one holds on to no copy of its own.
const SHORT: usize = 2 * 1024;

/// So much is sent at once to a client that was sent nothing just before; otherwise its socket is asked for how much it has
/// room. What a client holds on to for itself when it takes nothing any more is twice as much at most.
const GATHERED: usize = 16 * 1024;

/// A client of Server-Sent Events has nothing to say after its request; more than this and it is ended.
pub(super) const CHATTER: u32 = 64 * 1024;

/// A WebSocket client has this long to answer our close frame.
const CLOSING: Duration = Duration::from_secs(1);

impl Core {
    /// Serves those who wait for it, until the slice is used up.
    pub fn serve_some(&mut self) {
        let mut steps = 0;
        while steps < SLICE {
            let Some(token) = self.ready.pop_front() else { return };
            steps += 1 + self.serve(token);
        }
    }

    /// Does for one client what can be done now; how many steps it took.
    fn serve(&mut self, token: Token) -> usize {
        let Some(conn) = client(&mut self.clients, token) else {
            return 0;
        };
        conn.queued = false;
        if conn.blocked {
            return 0;
        }
        // What was asked for before is answered before it is heard what is asked for next. Otherwise a client is heard first:
        // one that never takes all there is could not say that it wants less.
        if conn.phase == Phase::Open && conn.session.owes_answer() {
            let steps = self.pump(token);
            let waits = client(&mut self.clients, token).is_some_and(|conn| conn.queued);
            if waits {
                return steps;
            }
            self.read(token);
            return steps + self.pump(token);
        }
        match conn.flush(&mut self.books) {
            Sent::Whole => {}
            Sent::Part | Sent::Nothing => return 0,
            Sent::Gone => {
                self.close(token, Ending::Gone);
                return 0;
            }
        }
        if conn.phase != Phase::Open {
            self.finish(token);
        }
        self.read(token);
        self.pump(token)
    }

    /// Sends what the session has to say, while the socket takes it: many short frames at once, as a call costs as much as
    /// ten of them.
    fn pump(&mut self, token: Token) -> usize {
        let Some(conn) = client(&mut self.clients, token) else {
            return 0;
        };
        let (books, gathered) = (&mut self.books, &mut self.gathered);
        gathered.clear();
        let (mut steps, mut bytes) = (0, 0);
        if conn.blocked {
            return 0;
        }
        // The head of the answer, or the rest of what was sent before.
        conn.take_pending(GATHERED, gathered, books);
        let mut sent = conn.flush(books);
        // As long as it is not asked for, nothing is gathered.
        let mut room = if conn.last == books.tick { 0 } else { GATHERED };
        while sent == Sent::Whole && conn.phase == Phase::Open && !conn.blocked && !conn.session.is_live() {
            if steps == STEPS || bytes >= BYTES {
                enqueue(conn, &mut self.ready);
                break;
            }
            let Some(step) = conn.session.next(self.watermark) else {
                break;
            };
            let frame = codec::step(conn.transport, &step, self.epoch);
            steps += 1;
            bytes += frame.len();
            books.messages += 1;
            if frame.is_empty() {
                continue;
            }
            let is_long = frame.len() > SHORT;
            if is_long || gathered.len() + frame.len() > room {
                if !gathered.is_empty() {
                    sent = conn.send_gathered(gathered, books);
                    gathered.clear();
                }
                room = 0;
                match sent {
                    Sent::Whole if is_long => sent = conn.send(&frame, books),
                    Sent::Whole => match conn.socket.room() {
                        0 => sent = conn.put_off(&frame, books),
                        free => room = free,
                    },
                    Sent::Part | Sent::Nothing => conn.follow(&frame, books),
                    Sent::Gone => {}
                }
            }
            if room > 0 {
                gathered.extend_from_slice(&frame);
            }
        }
        if !gathered.is_empty() {
            sent = conn.send_gathered(gathered, books);
        }
        match sent {
            Sent::Whole => {}
            Sent::Part | Sent::Nothing => conn.session.fall_behind(books.walked),
            Sent::Gone => self.close(token, Ending::Gone),
        }
        steps
    }

    /// Reads what the client has sent.
    fn read(&mut self, token: Token) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        if !conn.readable || conn.blocked {
            // Who does not take our answers need not be heard.
            return;
        }
        if conn.phase == Phase::Open && matches!(conn.transport, Transport::WebSocket { .. }) {
            return self.hear(token);
        }
        loop {
            match conn.socket.receive(&mut self.scratch) {
                Ok(Some(0)) | Err(_) => return self.close(token, Ending::Gone),
                Ok(Some(size)) => {
                    conn.received = conn.received.saturating_add(size as u32);
                    if conn.received > CHATTER {
                        match conn.phase {
                            Phase::Open => self.end(token, Ending::Protocol("data after the request")),
                            _ => self.close(token, Ending::Gone),
                        }
                        return;
                    }
                    if size < self.scratch.len() {
                        break;
                    }
                }
                Ok(None) => break,
            }
        }
        conn.readable = false;
    }

    /// Ends a client: what was begun is finished, then it is told why.
    pub fn end(&mut self, token: Token, ending: Ending) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        if conn.phase == Phase::Open {
            conn.phase = Phase::Ending(ending);
            // Who can be written to again may not have been served yet: then that finishes what was begun, and then this.
            if !conn.blocked && conn.pending.is_none() {
                self.finish(token);
            }
        }
    }

    /// Goes on with the end of a client that is not blocked and has nothing pending.
    pub fn finish(&mut self, token: Token) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        if let Phase::Ending(ending) = conn.phase {
            conn.phase = Phase::Ended(ending);
            let frame = codec::ending(conn.transport, ending, self.random.retry());
            match conn.send(&frame, &mut self.books) {
                Sent::Whole => {}
                Sent::Part | Sent::Nothing => return,
                Sent::Gone => return self.close(token, Ending::Gone),
            }
        }
        let Phase::Ended(ending) = conn.phase else { return };
        match conn.transport {
            Transport::Sse { .. } => self.close(token, Ending::Gone),
            Transport::WebSocket { .. } => {
                // Closed with something unread, the connection would be reset, and the close frame perhaps lost.
                conn.socket.finish();
                conn.phase = Phase::Closing(ending);
                conn.received = 0;
                let books = &mut self.books;
                conn.arm(books.tick + books.wheel.ticks(CLOSING), books);
            }
        }
    }

    /// Lets a client go.
    pub fn close(&mut self, token: Token, why: Ending) {
        if client(&mut self.clients, token).is_none() {
            return;
        }
        let mut conn = self.clients.remove(token.index as usize);
        conn.release(&mut self.books);
        conn.set_blocked(false, &mut self.books);
        // Who was told, or is just being told, has gone for that.
        let why = match (why, conn.phase) {
            (Ending::Gone, Phase::Ending(told) | Phase::Ended(told) | Phase::Closing(told)) => told,
            _ => why,
        };
        self.books.stats.ended.add(why.reason());
        count(&self.books.stats, conn.transport, -1);
        if why == Ending::TooSlow {
            conn.socket.give_up();
            self.books.stats.slow.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(shard = self.inbox.shard, reason = why.reason(), "client closed");
        let clients = &self.clients;
        let connected = |token: Token| {
            let conn = clients.get(token.index as usize);
            conn.is_some_and(|conn| conn.token == token)
        };
        for log in conn.session.logs() {
            self.subscribers.gone(log.id, connected);
        }
    }
}

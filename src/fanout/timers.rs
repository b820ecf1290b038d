//! What happens because time has passed: heartbeats, clients that take nothing, the drain.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::limits::Limit;
use crate::session::Ending;

use super::Transport;
use super::codec;
use super::conn::{Phase, Token};
use super::core::{Core, SLICE, client};

/// In a drain one client per this long is ended, as long as that leaves half of the time for the last of them: a reverse
/// proxy and the other instances are spared a burst that nobody needs.
const PACE: Duration = Duration::from_millis(1);

/// By less than this the clocks may differ.
const LEAP: Duration = Duration::from_secs(1);

/// The orderly end of a shard.
#[derive(Debug)]
pub(super) struct Drain {
    began: Instant,
    spread: Duration,
    deadline: Instant,
    total: usize,
    /// Not yet told.
    queue: VecDeque<Token>,
}

impl Core {
    /// Looks at those who are due.
    pub fn timers(&mut self) {
        self.books.wheel.advance(self.books.tick, &mut self.due);
        for _ in 0..SLICE {
            let Some((tick, token)) = self.due.pop_front() else {
                return;
            };
            self.look(tick, token);
        }
    }

    fn look(&mut self, tick: u32, token: Token) {
        let Some(conn) = client(&mut self.clients, token).filter(|conn| conn.due == tick) else {
            return;
        };
        conn.due = u32::MAX;
        let now = self.books.tick;
        if matches!(conn.phase, Phase::Closing(_)) {
            return self.close(token, Ending::Gone);
        }
        if now >= conn.retires {
            conn.retires = u32::MAX;
            self.books.stats.limited.hit(Limit::Lifetime, None);
            self.end(token, Ending::Lifetime);
        }
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        if now >= conn.expires && conn.phase == Phase::Open {
            let renewable = conn.renewable;
            self.end(token, Ending::Expired { renewable });
            // Who takes nothing is not given more time by having expired.
            if let Some(conn) = client(&mut self.clients, token).filter(|conn| conn.blocked) {
                conn.arm(now + 1, &mut self.books);
            }
            return;
        }
        if now >= conn.next_of_expiry(&self.books)
            && conn.phase == Phase::Open
            && !conn.blocked
            && conn.pending.is_none()
        {
            return self.announce(token);
        }
        if conn.blocked {
            let until = conn.last.saturating_add(self.books.write_timeout);
            if now >= until {
                return self.close(token, Ending::TooSlow);
            }
            let next = match conn.phase {
                Phase::Open => until.min(conn.expires.max(now + 1)),
                _ => until,
            };
            return conn.arm(next, &mut self.books);
        }
        let (last, unanswered) = (conn.last, conn.unanswered);
        let conn = &self.clients[token.index as usize];
        let interval = self.interval(conn);
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        let until = last.saturating_add(interval);
        if now < until || conn.phase != Phase::Open || conn.pending.is_some() {
            let next = until.min(conn.next_of_expiry(&self.books));
            return conn.arm(next.max(now + 1), &mut self.books);
        }
        if matches!(conn.transport, Transport::WebSocket { .. }) {
            if unanswered {
                return self.close(token, Ending::Gone);
            }
            conn.unanswered = true;
        }
        conn.arm((now + interval).min(conn.next_of_expiry(&self.books)), &mut self.books);
        let heartbeat = codec::heartbeat(conn.transport);
        self.say(token, &heartbeat);
    }

    /// Tells a client that it will expire.
    fn announce(&mut self, token: Token) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        conn.announce = false;
        let left = self.books.wheel.begins(conn.expires.saturating_sub(self.books.tick));
        conn.arm(self.books.tick + 1, &mut self.books);
        let frame = codec::expiring(conn.transport, SystemTime::now() + left);
        self.say(token, &frame);
    }

    /// Grants end by the world's clock. Where that has leapt ahead, as over a suspended machine, they end sooner by ours.
    pub fn follow_clock(&mut self, now: Instant) {
        let (ours, worlds) = self.clock;
        let Ok(ahead) = SystemTime::now().duration_since(worlds + now.saturating_duration_since(ours)) else {
            return;
        };
        if ahead < LEAP {
            return;
        }
        self.clock = (now, SystemTime::now());
        let ticks = self.books.wheel.ticks(ahead);
        let next = self.books.tick + 1;
        for (_, conn) in self.clients.iter_mut().filter(|(_, conn)| conn.expires != u32::MAX) {
            conn.expires = conn.expires.saturating_sub(ticks);
            conn.arm(next, &mut self.books);
        }
    }

    /// Begins the orderly end.
    pub fn begin_drain(&mut self, now: Instant) {
        let queue: VecDeque<Token> = self.clients.iter().map(|(_, conn)| conn.token).collect();
        let total = queue.len();
        let spread = PACE.saturating_mul(total as u32).min(self.options.drain / 2);
        self.drain = Some(Drain {
            began: now,
            spread,
            deadline: now + self.options.drain,
            total,
            queue,
        });
    }

    /// Ends those whose moment has come.
    pub fn end_some(&mut self, now: Instant) {
        let Some(drain) = &mut self.drain else { return };
        let passed = (now - drain.began).as_secs_f64() / drain.spread.as_secs_f64().max(1e-9);
        let told = drain.total - drain.queue.len();
        let want = 1 + (drain.total as f64 * passed).min(drain.total as f64) as usize;
        let ending: Vec<Token> = drain
            .queue
            .drain(..want.saturating_sub(told).min(drain.queue.len()))
            .collect();
        for token in ending {
            self.end(token, Ending::Drain);
        }
    }

    /// Whether the drain is over.
    pub fn is_over(&self, now: Instant) -> bool {
        let idle = self.clients.is_empty() && !self.handle.has_next();
        self.drain.as_ref().is_some_and(|drain| idle || now >= drain.deadline)
    }

    /// When there is something to do next because of the time.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let due = self
            .books
            .wheel
            .next()
            .map(|tick| self.start + self.books.wheel.begins(tick));
        let drain = self.drain.as_ref().map(|drain| match drain.queue.is_empty() {
            true => drain.deadline,
            false => (now + PACE).min(drain.deadline),
        });
        due.into_iter().chain(drain).min()
    }
}

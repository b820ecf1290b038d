//! The most memory that a process with this config takes, whatever its clients do.
//!
//! `docs/limits.md` has the formula, and how its numbers were measured.

use std::fmt;

use super::Config;
use crate::access::ask::{IN_FLIGHT, MAX_ANSWER, MAX_HELD, MAX_OPEN};
use crate::access::jwt::Keys;
use crate::access::waiting::MAX_WAITING;
use crate::server::{JUDGED_AT_ONCE, MAX_BODIES};

/// The program, its libraries, and what it makes at its start: 22 MB were measured.
const BASE: u64 = 32 << 20;

/// A thread's stack and buffers, and what the allocator keeps for it.
const THREAD: u64 = 4 << 20;

/// Threads beside those that serve clients: the first, that of feed and relay, that of operators, and one for names to be
/// looked up.
const OTHER_THREADS: u64 = 4;

/// A connection that only waits: 0.8 KB were measured of a WebSocket, 3 KB before the first request.
const CONNECTION: u64 = 8 << 10;

/// A client of a TLS listener beyond that: a pipe, what is encrypted and what waits to be, and the state of the connection,
/// 12 KB when idle and some 70 KB with all of them full.
const SECURED: u64 = 80 << 10;

/// The token of a WebSocket beside the header that it came in, 8 KiB at most, and what it says: 2.5 KB were measured of nine
/// claims and four channels.
const TOKEN: u64 = 12 << 10;

/// A name of a channel that is asked for, beyond its text.
const NAME: u64 = 64;

/// A name that a client waits for, beyond its text, with who may read it by one mapping: 0.35 KB were measured.
const JUDGED: u64 = 512;

/// A log without messages, with its name, its place in both tables, and the key that it is of: 2.7 KB were measured.
const CHANNEL: u64 = 4 << 10;

/// A place in a session, and one in the list of a shard.
const SUBSCRIPTION: u64 = 512;

/// What the mirror knows of a key, and a change or happening of it that waits: 0.6 KB were measured of the former.
const KEY: u64 = 1 << 10;

/// What the config lets a process take at most, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of each part, the largest first.
    pub parts: Vec<(&'static str, u64)>,
}

/// The limits that it follows from.
#[derive(Clone, Copy, Debug)]
struct Limits {
    cores: u64,
    connections: u64,
    head_size: u64,
    message_size: u64,
    /// Names in one request or message.
    names: u64,
    channels: u64,
    subscriptions: u64,
    keys: u64,
    log_bytes: u64,
    pinned: u64,
    reading: u64,
    is_secured: bool,
    asks: bool,
    fetches_keys: bool,
}

impl Config {
    /// The most memory that it lets a process take on a machine with so many cores.
    pub fn memory(&self, cores: usize) -> Memory {
        let access = &self.server.access;
        Limits {
            cores: cores as u64,
            connections: self.server.limits.connections as u64,
            head_size: self.server.head.size as u64,
            message_size: self.fanout.bounds.message_size as u64,
            names: self.fanout.bounds.channels as u64,
            channels: self.hub.max_channels as u64,
            subscriptions: self.hub.subscriptions as u64,
            keys: self.mirror.keys as u64,
            log_bytes: self.hub.log_bytes as u64,
            pinned: self.fanout.pinned as u64,
            reading: self.mirror.reading as u64,
            is_secured: self.server.tls.is_some(),
            asks: access.ask.is_some(),
            fetches_keys: access.jwt.iter().any(|jwt| matches!(jwt.keys, Keys::Fetched { .. })),
        }
        .memory()
    }
}

impl Limits {
    fn memory(self) -> Memory {
        // A head is read before there is a WebSocket. Its buffer doubles; of a message, a frame and the whole are held.
        // Beside the head there are the credentials that were in it, which a WebSocket keeps.
        let shown = self.head_size;
        let head = self.head_size + self.head_size / 2 + shown;
        let read = head.max(shown + TOKEN + 2 * self.message_size);
        let times = |count: u64, each: u64| count.saturating_mul(each);
        let mut parts = vec![
            ("the process", BASE + times(self.cores + OTHER_THREADS, THREAD)),
            ("connections", times(self.connections, CONNECTION + read)),
            ("channels", times(self.channels, CHANNEL)),
            ("subscriptions", times(self.subscriptions, SUBSCRIPTION)),
            ("keys", times(self.keys, KEY)),
            // What the allocator cannot use of it.
            ("logs", self.log_bytes.saturating_add(self.log_bytes / 4)),
            ("pinned", self.pinned),
            // They are held twice while they grow.
            ("answers", 2 * MAX_BODIES as u64),
            // As replies, and taken apart; and published messages that wait.
            ("reads", times(self.reading, 3)),
        ];
        if self.is_secured {
            parts.push(("TLS", times(self.connections, SECURED)));
        }
        if self.asks {
            parts.push(("the app's answers", MAX_HELD as u64));
        }
        if self.asks || self.fetches_keys {
            parts.push(("questions", self.questions()));
        }
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Memory { parts }
    }

    /// What is asked, and what those hold who wait for it or for keys.
    fn questions(self) -> u64 {
        let times = |count: usize, each: u64| each.saturating_mul(count as u64);
        // All names together: they came in a head, in a message, or in an answer of the app, or they are a session's.
        let lists = MAX_ANSWER.max(JUDGED_AT_ONCE) as u64;
        let text = self.head_size.max(self.message_size).max(lists);
        // Once more in what claims must hold.
        let waiting = times(MAX_WAITING, 2 * text + self.names.saturating_mul(JUDGED));
        if !self.asks {
            return waiting;
        }
        // A credential may be as long as a head; the client may have gone.
        let open = times(MAX_OPEN, self.head_size + text + self.names.saturating_mul(NAME));
        // The head is written anew. JSON makes six bytes of one at worst, and is held three times, as it grows and for TLS.
        let under_way = times(IN_FLIGHT, 2 * self.head_size + 18 * text);
        waiting.saturating_add(open).saturating_add(under_way)
    }
}

impl Memory {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// `1200 MiB: connections 700, logs 320, …`
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(f, "{} MiB:", mib(self.bytes()))?;
        for (at, (name, bytes)) in self.parts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator} {name} {}", mib(*bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        cores: 2,
        connections: 1_000,
        head_size: 16 << 10,
        message_size: 8 << 10,
        names: 1_000,
        channels: 1_000,
        subscriptions: 10_000,
        keys: 10_000,
        log_bytes: 32 << 20,
        pinned: 8 << 20,
        reading: 16 << 20,
        is_secured: false,
        asks: false,
        fetches_keys: false,
    };

    fn of(limits: Limits, part: &str) -> u64 {
        let memory = limits.memory();
        memory.parts.iter().find(|(name, _)| *name == part).unwrap().1
    }

    #[test]
    fn each_limit_has_its_part() {
        assert_eq!(of(SMALL, "the process"), 56 << 20);
        assert_eq!(of(SMALL, "connections"), 1_000 * (52 << 10));
        assert_eq!(of(SMALL, "channels"), 1_000 * 4096);
        assert_eq!(of(SMALL, "subscriptions"), 10_000 * 512);
        assert_eq!(of(SMALL, "keys"), 10_000 * 1024);
        assert_eq!(of(SMALL, "logs"), 40 << 20);
        assert_eq!(of(SMALL, "pinned"), 8 << 20);
        assert_eq!(of(SMALL, "answers"), 256 << 20);
        assert_eq!(of(SMALL, "reads"), 48 << 20);
        let large_messages = Limits {
            message_size: 64 << 10,
            ..SMALL
        };
        assert_eq!(of(large_messages, "connections"), 1_000 * (164 << 10));
        let more = Limits {
            is_secured: true,
            asks: true,
            ..SMALL
        };
        assert_eq!(of(more, "TLS"), 1_000 * (80 << 10));
        assert_eq!(of(more, "the app's answers"), 106 << 20);
        let waiting = 1_024 * ((128 << 10) + 512_000);
        let under_way = 64 * ((32 << 10) + (18 << 16));
        assert_eq!(
            of(more, "questions"),
            waiting + 1_024 * ((80 << 10) + 64_000) + under_way
        );
        let keys = Limits {
            fetches_keys: true,
            ..SMALL
        };
        assert_eq!(of(keys, "questions"), waiting);
    }

    #[test]
    fn it_is_told_with_the_largest_part_first() {
        let memory = SMALL.memory();
        assert_eq!(
            memory.to_string(),
            "478 MiB: answers 256, the process 56, connections 51, reads 48, logs 40, keys 10, pinned 8, subscriptions 5, \
             channels 4"
        );
        let endless = Limits {
            log_bytes: u64::MAX,
            ..SMALL
        };
        assert_eq!(endless.memory().bytes(), u64::MAX);
    }
}

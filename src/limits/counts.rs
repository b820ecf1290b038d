//! How often each limit was reached, for the metrics and, now and then, for the log.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A limit is named in the log no more often than this: whoever reaches it does so a thousand times a second.
const PAUSE: Duration = Duration::from_secs(10);

/// A limit that can be reached; each has an option in `[limits]` of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections in all.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// Streams of one token's subject.
    ConnectionsPerSubject,
    /// Connects of one address.
    ConnectsPerSecond,
    /// Channels of one connection.
    ChannelsPerConnection,
    /// Messages of one WebSocket client.
    MessagesPerSecond,
    /// The size of one of them.
    MessageSize,
    /// The size of a request's head.
    HeadSize,
    /// The time for it.
    HeadTimeout,
    /// The time that a stream lives.
    Lifetime,
    /// What half-written clients hold on to.
    Pinned,
}

/// How often each limit was reached since the start.
#[derive(Debug)]
pub struct Counts {
    start: Instant,
    limits: [Count; Limit::ALL.len()],
    /// Bodies for which there was no room beside all others that are being sent; no option says how much that is.
    pub refused_bodies: AtomicU64,
    /// Questions to the app that found no room, and clients without a place to wait for them or for keys; no option either.
    pub refused_questions: AtomicU64,
}

/// How often one limit was reached, and when that was last said.
#[derive(Debug, Default)]
pub struct Count {
    reached: AtomicU64,
    /// When it may next be named in the log, in milliseconds since the start.
    silent_until: AtomicU64,
}

impl Limit {
    /// All of them, in the order of the config.
    pub const ALL: [Limit; 11] = [
        Limit::Connections,
        Limit::ConnectionsPerAddress,
        Limit::ConnectionsPerSubject,
        Limit::ConnectsPerSecond,
        Limit::ChannelsPerConnection,
        Limit::MessagesPerSecond,
        Limit::MessageSize,
        Limit::HeadSize,
        Limit::HeadTimeout,
        Limit::Lifetime,
        Limit::Pinned,
    ];

    /// The option that sets it.
    pub fn option(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::ConnectionsPerSubject => "connections_per_subject",
            Limit::ConnectsPerSecond => "connects_per_second",
            Limit::ChannelsPerConnection => "channels_per_connection",
            Limit::MessagesPerSecond => "messages_per_second",
            Limit::MessageSize => "message_size",
            Limit::HeadSize => "head_size",
            Limit::HeadTimeout => "head_timeout",
            Limit::Lifetime => "lifetime",
            Limit::Pinned => "pinned",
        }
    }

    /// Whether it is reached on an ordinary day by clients that do nothing wrong.
    fn is_ordinary(self) -> bool {
        matches!(self, Limit::HeadTimeout | Limit::Lifetime)
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            start: Instant::now(),
            limits: Default::default(),
            refused_bodies: AtomicU64::new(0),
            refused_questions: AtomicU64::new(0),
        }
    }
}

impl Counts {
    /// Counts that a limit was reached, by this address if it is one of addresses.
    pub fn hit(&self, limit: Limit, address: Option<IpAddr>) {
        let count = &self.limits[limit as usize];
        let reached = count.add();
        if limit.is_ordinary() || !count.is_due(self.start.elapsed()) {
            return;
        }
        let option = limit.option();
        match address {
            Some(address) => tracing::warn!(
                limit = option,
                %address,
                reached,
                "a limit is reached: if those whom it keeps out are welcome, raise this option of [limits]"
            ),
            None => tracing::warn!(
                limit = option,
                reached,
                "a limit is reached: if those whom it keeps out are welcome, raise this option of [limits]"
            ),
        }
    }

    /// How often each was reached, by its option's name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |limit: Limit| self.limits[limit as usize].reached();
        Limit::ALL.into_iter().map(move |limit| (limit.option(), count(limit)))
    }
}

impl Count {
    /// Counts once more, and says how often that was.
    pub fn add(&self) -> u64 {
        self.reached.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How often that was.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Whether it is time to name it in the log again, so long after the start; true for one of several who ask at once.
    pub fn is_due(&self, now: Duration) -> bool {
        let now = now.as_millis() as u64;
        let until = self.silent_until.load(Ordering::Relaxed);
        let next = now + PAUSE.as_millis() as u64;
        now >= until
            && self
                .silent_until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_counted_by_its_own_name() {
        let counts = Counts::default();
        counts.hit(Limit::HeadSize, None);
        counts.hit(Limit::Lifetime, None);
        counts.hit(Limit::Lifetime, None);
        let reached: Vec<_> = counts.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(reached, [("head_size", 1), ("lifetime", 2)]);
        assert_eq!(counts.all().count(), Limit::ALL.len());
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{}", limit.option());
        }
    }

    #[test]
    fn a_limit_is_named_every_ten_seconds() {
        let count = Count::default();
        let due: Vec<bool> = [0, 1, 9_999, 10_000, 19_999, 60_000]
            .map(|now| count.is_due(Duration::from_millis(now)))
            .into();
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}

//! When the server gives no values: what is wrong with one key, and what with all of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashSet;

use super::entries::{Now, State, back_off};
use super::mirror::Mirror;
use super::node::Node;
use super::reads::{BATCH_KEYS, PATIENCE};
use super::report::Complaint;
use crate::hub::Reason;
use crate::upstream::NodeId;
use crate::upstream::reader::{ReadError, ReadErrorKind, Reading};

/// Keys that a server is asked for which has just refused: enough to see whether it would give them.
const PROBE: usize = 16;

/// Keys that cannot be read are asked for again this far apart, however many they are: a user may be denied a million.
const PACE: Duration = Duration::from_millis(5);

/// When one of them can be read after all, the others are asked for at once, but not more often than this, nor at more
/// than ten times the pace.
const ALL_AGAIN: Duration = Duration::from_secs(1);

/// What an error says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The value: it was read, and is of no use.
    Value,
    /// This key; others may well be read.
    Key,
    /// Every key of this server, for a while.
    Server,
    /// This connection: another one may know more.
    Connection,
}

impl Scope {
    pub fn of(kind: ReadErrorKind) -> Scope {
        match kind {
            ReadErrorKind::Unsupported => Scope::Value,
            ReadErrorKind::Busy | ReadErrorKind::Loading | ReadErrorKind::MasterDown => Scope::Server,
            // A connection that does not answer may be half gone, and nothing else would tell.
            ReadErrorKind::Timeout | ReadErrorKind::Connection | ReadErrorKind::OutOfStep => Scope::Connection,
            ReadErrorKind::NoPermission
            | ReadErrorKind::TryAgain
            | ReadErrorKind::Moved
            | ReadErrorKind::Ask
            | ReadErrorKind::ClusterDown
            | ReadErrorKind::TooLarge(_)
            | ReadErrorKind::NoRoom(_)
            | ReadErrorKind::Other => Scope::Key,
        }
    }
}

/// The server answers no reads at all.
#[derive(Debug)]
pub(super) struct Refusal {
    since: Now,
    attempts: u32,
    retry_at: Instant,
    /// Why, in a word for clients.
    pub reason: Reason,
    /// What they were told.
    pub told: Option<Complaint>,
}

/// Keys that could not be read for a while although the server gives values.
#[derive(Debug)]
pub(super) struct Troubled {
    keys: HashSet<Bytes>,
    /// The next of them is not asked for before.
    next: Instant,
    /// All of them are not asked for at once before.
    all: Instant,
}

impl Troubled {
    pub fn new(now: Now) -> Troubled {
        Troubled {
            keys: HashSet::default(),
            next: now.mono,
            all: now.mono,
        }
    }

    /// A key could not be read again. Takes when it would be tried next if it were alone, gives when it will be.
    pub fn add(&mut self, key: &Bytes, alone: Instant) -> Instant {
        self.keys.insert(key.clone());
        let at = alone.max(self.next);
        self.next = at + PACE;
        at
    }

    pub fn remove(&mut self, key: &Bytes) {
        self.keys.remove(key);
    }

    /// One of them could be read: those that may well be readable too.
    fn all(&mut self, now: Now) -> HashSet<Bytes> {
        if self.keys.is_empty() || now.mono < self.all {
            return HashSet::default();
        }
        let most = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        self.all = now.mono + ALL_AGAIN.max(PACE / 10 * most);
        self.next = now.mono;
        std::mem::take(&mut self.keys)
    }
}

impl Node {
    /// How many keys the server may be asked for now; `None` while it must be left alone.
    pub fn most_keys(&self, now: Now) -> Option<usize> {
        match &self.refusal {
            None => Some(BATCH_KEYS),
            Some(refusal) => (self.flights.is_empty() && refusal.retry_at <= now.mono).then_some(PROBE),
        }
    }

    /// When a server that refuses is asked again, or where nobody wants to know, when that it does is forgotten.
    pub fn next_probe_at(&self) -> Option<Instant> {
        let refusal = self.refusal.as_ref().filter(|_| self.flights.is_empty())?;
        let wait = if self.is_asked() { Duration::ZERO } else { PATIENCE };
        Some(refusal.retry_at + wait)
    }

    /// A server that was not asked for a while may give values again.
    pub fn lapse(&mut self, now: Now) {
        if self.flights.is_empty() && !self.is_asked() {
            self.refusal.take_if(|refusal| refusal.retry_at + PATIENCE <= now.mono);
        }
    }

    fn is_asked(&self) -> bool {
        !self.queue.is_empty() && self.reader.is_some()
    }
}

impl Mirror {
    /// What a batch says about the server and the connection.
    pub(super) fn judge(&mut self, id: NodeId, results: &[Result<Reading, ReadError>], now: Now) {
        let node = &mut self.nodes[id];
        let errors = || results.iter().filter_map(|result| result.as_ref().err());
        let Some(error) = errors().find(|error| Scope::of(error.kind) == Scope::Server) else {
            let answered = |result: &Result<Reading, ReadError>| match result {
                Ok(_) => true,
                Err(error) => Scope::of(error.kind) != Scope::Connection,
            };
            if results.iter().any(answered) {
                node.refusal = None;
            }
            if let Some(error) = errors().find(|error| Scope::of(error.kind) == Scope::Connection) {
                tracing::debug!(%error, "the reader's connection is of no use");
                self.unlinked(id, now);
            }
            return;
        };
        let refusal = node.refusal.get_or_insert(Refusal {
            since: now,
            attempts: 0,
            retry_at: now.mono,
            reason: reason(error.kind),
            told: None,
        });
        refusal.reason = reason(error.kind);
        refusal.retry_at = now.mono + back_off(refusal.attempts, &mut self.jitter);
        refusal.attempts += 1;
        let since = refusal.since;
        if now.mono.saturating_duration_since(since.mono) >= PATIENCE {
            let reason = refusal.reason;
            if refusal.told.as_ref().is_none_or(|told| told.reason != reason) {
                refusal.told = Some(Complaint::new(reason, since, error));
            }
            for log in self.ids_of(id) {
                if self.is_behind(log, id) {
                    self.expect_changed(log, now);
                    self.stale(log, reason, since.wall);
                }
            }
        }
    }

    /// A key could be read that could not be before: whatever kept it and others from it may be over.
    pub(super) fn relieved(&mut self, key: &Bytes, now: Now) {
        self.troubled.remove(key);
        for key in self.troubled.all(now) {
            let Some(entry) = self.keys.get_mut(&key) else { continue };
            if let Some(trouble) = &mut entry.trouble {
                trouble.retry_at = now.mono;
            }
            if entry.state == State::Waiting {
                entry.state = State::Clean;
                self.dirty(&key, false, now);
            }
        }
    }

    /// A batch has been under way for a long time: who waits for it is behind.
    pub(super) fn takes_long(&mut self, node: NodeId, flight: u64, now: Now) {
        let Some(flight) = self.nodes[node].flights.get(&flight) else {
            return;
        };
        let entries = flight.keys.iter().filter_map(|key| self.keys.get(key));
        let entries = entries.filter(|entry| !entry.is_looked_at());
        let logs = entries.flat_map(|entry| {
            let happenings = entry.reading.iter().map(|each| each.log);
            entry.uses.iter().map(|each| each.log).chain(happenings)
        });
        let mut ids: Vec<u64> = logs.collect();
        ids.sort_unstable();
        ids.dedup();
        let since = now.wall.checked_sub(PATIENCE).unwrap_or(now.wall);
        for id in ids {
            self.expect_changed(id, now);
            self.stale(id, reason(ReadErrorKind::Timeout), since);
        }
    }

    /// Whether a key of the log that is on the node may have changed and was not read since.
    fn is_behind(&self, id: u64, node: NodeId) -> bool {
        let Some(log) = self.logs.get(&id) else { return false };
        let owners = self.nodes.owners();
        let unread = |key: &Bytes| self.keys.get(key).is_some_and(|entry| entry.state != State::Clean);
        let changed = |key: &Bytes| unread(key) && owners.of(key) == node;
        !log.is_whole() || log.fifo.as_ref().is_some_and(|fifo| !fifo.is_empty()) || log.keys.iter().any(changed)
    }
}

/// The word that clients are told.
/// Every word that `reason` gives.
pub const KINDS: [&str; 11] = [
    "busy",
    "loading",
    "no-permission",
    "try-again",
    "upstream-moved",
    "cluster-down",
    "master-down",
    "timeout",
    "upstream-lost",
    "overflow",
    "unreadable",
];

pub(super) fn reason(kind: ReadErrorKind) -> Reason {
    Reason(match kind {
        ReadErrorKind::Busy => "busy",
        ReadErrorKind::Loading => "loading",
        ReadErrorKind::NoPermission => "no-permission",
        ReadErrorKind::TryAgain => "try-again",
        ReadErrorKind::Moved | ReadErrorKind::Ask => "upstream-moved",
        ReadErrorKind::ClusterDown => "cluster-down",
        ReadErrorKind::MasterDown => "master-down",
        ReadErrorKind::Timeout => "timeout",
        ReadErrorKind::Connection | ReadErrorKind::OutOfStep => "upstream-lost",
        ReadErrorKind::NoRoom(_) => "overflow",
        ReadErrorKind::Unsupported | ReadErrorKind::TooLarge(_) | ReadErrorKind::Other => "unreadable",
    })
}

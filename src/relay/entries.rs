//! What the mirror knows of one key and of one log.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use smallvec::SmallVec;

use super::channels::Table;
use super::deadlines::Tick;
use super::happenings::Fifo;
use super::timers::TimerId;
use crate::hub::{Log, Reason};
use crate::keyspace::{EventName, Kind};
use crate::mapping::{MappingId, Source};
use crate::payload::Fingerprint;
use crate::upstream::NodeId;
#[cfg(doc)]
use crate::upstream::feed;

/// Reads of one key are at least this far apart, whatever happens to it: no browser shows more.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For all that is waited for.
    pub mono: Instant,
    /// For what clients are told.
    pub wall: SystemTime,
}

impl Now {
    pub fn read() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// What the key's captures are in one mapping, in the order of the pattern.
pub(super) type Captures = SmallVec<[(Arc<str>, Bytes); 2]>;

/// One key, as long as a state channel shows it or a happening waits for its value.
#[derive(Debug, Default)]
pub(super) struct KeyEntry {
    /// The slots that show it.
    pub uses: SmallVec<[Use; 1]>,
    /// Happenings that wait for a read which begins after them.
    pub happenings: Vec<Happening>,
    /// Happenings that the read in flight will serve.
    pub reading: Vec<Happening>,
    pub state: State,
    /// The mirror's count of activations when `uses` was last known to name every log that shows the key; 0 is never.
    pub as_of: u64,
    /// The last event since the last read began, from the first of them on.
    pub event: Option<Event>,
    /// The last event before the read in flight began.
    pub reading_event: Option<Event>,
    /// When the last read began.
    pub last_read: Option<Instant>,
    /// The node to be asked next instead of the one that has its slot, which is being moved.
    pub asked: Option<NodeId>,
    /// What keeps it from being read.
    pub trouble: Option<Box<Trouble>>,
    /// When it expires, a little after.
    pub deadline: Option<Tick>,
    /// The entry in the deadlines that stands for it, at its deadline or before.
    pub armed: Option<Tick>,
    /// How many deadlines in a row found the key still there.
    pub overdue: u8,
    /// The read in flight is a second look at a key that is not known to have changed.
    pub verifying: bool,
    /// Whether a timer is set that forgets it.
    pub forgetting: bool,
    /// Its time has come, or it was gone when last read and nothing shows it any more. Many expire at once, and it matters
    /// how soon that is told.
    pub probably_gone: bool,
    /// Its type when last read.
    pub kind: Option<Kind>,
    /// Bytes of memory that its value took when last read.
    pub size: Option<usize>,
}

/// That a key may have changed was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The server's name for what happened, which client tracking does not tell.
    pub name: Option<EventName>,
    /// When it was heard, in microseconds since 1970.
    pub heard_at: u64,
    /// When the first was heard of those that no read has answered yet, by the same clock.
    pub since: u64,
}

impl Event {
    pub fn new(name: Option<EventName>, heard_at: u64) -> Event {
        Event {
            name,
            heard_at,
            since: heard_at,
        }
    }

    /// This one after another that no read has answered either.
    pub fn after(self, earlier: Option<Event>) -> Event {
        let since = earlier.map_or(self.since, |earlier| earlier.since.min(self.since));
        Event { since, ..self }
    }
}

/// Where a key stands between "may have changed" and "was read".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// What was read is the last that is known of it.
    #[default]
    Clean,
    /// It may have changed, but nobody listens.
    Deferred,
    /// It may have changed and is not to be read yet; a timer is set.
    Waiting,
    /// It may have changed and stands in a queue.
    Queued { urgent: bool },
    /// It is being read. `again`: it may have changed since the read began.
    Reading { flight: u64, again: bool },
}

/// One slot that shows a key.
#[derive(Debug)]
pub(super) struct Use {
    pub log: u64,
    pub mapping: MappingId,
    pub captures: Captures,
    /// What was last put into the slot.
    pub last: Option<Last>,
    /// Its absence is part of the channel's state.
    pub fixed: bool,
    pub awaits: Awaits,
}

/// What was last put into a slot, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// None: the key had a type that cannot be read.
    pub fingerprint: Option<Fingerprint>,
    /// In milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// Which read the log waits for before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    Nothing,
    /// One that has not begun.
    Next,
    /// The one in flight.
    This,
}

/// A place in a log's queue of happenings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening {
    pub log: u64,
    pub ticket: u64,
    pub mapping: MappingId,
}

/// Reads that failed one after the other.
#[derive(Debug)]
pub(super) struct Trouble {
    pub since: Now,
    pub attempts: u32,
    pub retry_at: Instant,
    /// The node that did not give the value at first.
    pub node: NodeId,
    /// Logs that count this key as failing.
    pub logs: SmallVec<[u64; 2]>,
}

impl KeyEntry {
    /// Whether nothing needs it.
    pub fn is_idle(&self) -> bool {
        self.uses.is_empty() && self.happenings.is_empty() && self.reading.is_empty()
    }

    /// Whether nobody listens to any channel that needs it.
    pub fn is_cold(&self, logs: &HashMap<u64, LogEntry>) -> bool {
        let listened = |log: &u64| logs.get(log).is_some_and(|log| log.lingering.is_none());
        self.happenings.is_empty() && !self.uses.iter().any(|each| listened(&each.log))
    }

    /// Whether nothing but a second look is in flight for it: if that comes to nothing, nothing is missed.
    pub fn is_looked_at(&self) -> bool {
        let needed = self.uses.iter().any(|each| each.awaits != Awaits::Nothing) || !self.reading.is_empty();
        self.verifying && !needed && matches!(self.state, State::Reading { again: false, .. })
    }

    /// From when on it may be read.
    pub fn due(&self, table: &Table, now: Instant) -> Instant {
        let rules = self.uses.iter().filter_map(|each| table.rule(each.mapping));
        let wanted = rules.map(|rule| rule.min_interval);
        let wanted = wanted.min().filter(|_| self.happenings.is_empty()).unwrap_or_default();
        let paced = self.last_read.map(|last| last + wanted.max(MIN_INTERVAL));
        let retry = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        [paced, retry].into_iter().flatten().fold(now, Instant::max)
    }
}

/// One log that key events are heard for.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub log: Arc<Log>,
    pub sources: Vec<Source>,
    /// Keys with a use of this log.
    pub keys: HashSet<Bytes>,
    /// Set while it has no subscribers: when it is closed.
    pub lingering: Option<TimerId>,
    /// Whether the hub was told that the log is whole.
    pub filled: bool,
    /// Uses that wait for a read.
    pub awaiting: usize,
    /// The nodes that may have its keys.
    pub parts: SmallVec<[Part; 1]>,
    /// The [plan](feed::Plan) by which its nodes must be heard.
    pub plan: u64,
    /// Keys that could not be read for a while.
    pub failing: usize,
    /// It is being read again after a loss, and counted in the mirror's recovery.
    pub recovering: bool,
    /// What those who come back with a cursor must be told: values may have gone back while nobody listened.
    pub missed: Option<Stale>,
    /// What subscribers were told.
    pub stale: Option<Stale>,
    /// In events mode, the happenings that wait for their values.
    pub fifo: Option<Fifo>,
    /// When its old messages may go.
    pub trim: TimerId,
}

/// What a log waits for of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub node: NodeId,
    /// Events were lost, and reading again has not begun.
    pub outdated: bool,
    /// In events mode: happenings were lost, and clients were not told yet.
    pub lost: bool,
    pub scan: Scan,
}

/// Whether a log waits for a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// No, or no more.
    Done,
    /// For one that has not begun.
    Waiting,
    /// For the one under way.
    Running,
}

/// What subscribers were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    pub reason: Reason,
    pub since: SystemTime,
}

impl LogEntry {
    /// Whether its subscribers are to be told of troubles. Nobody subscribes to a lingering log, but an events log
    /// records on, and those who come back must find the trouble in it.
    pub fn is_told(&self) -> bool {
        self.lingering.is_none() || self.fifo.is_some()
    }

    /// Whether somebody was told that it may be behind, and not yet that it is fresh.
    pub fn is_stale(&self) -> bool {
        self.stale.is_some() && self.is_told()
    }

    /// Whether all that it waits for has come.
    pub fn is_whole(&self) -> bool {
        let is_whole = |part: &Part| !part.outdated && part.scan == Scan::Done;
        self.awaiting == 0 && self.parts.iter().all(is_whole)
    }

    /// What it waits for of this node, if that may have keys of it.
    pub fn part(&self, node: NodeId) -> Option<&Part> {
        self.parts.iter().find(|part| part.node == node)
    }

    pub fn part_mut(&mut self, node: NodeId) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.node == node)
    }
}

/// How long to wait before an attempt after `attempts` failed ones: from 5 to 10 ms, doubling up to 1 s.
pub(super) fn back_off(attempts: u32, jitter: &mut Jitter) -> Duration {
    let longest = Duration::from_millis(10) * 2_u32.pow(attempts.min(7));
    jitter.half_to_all(longest.min(Duration::from_secs(1)))
}

/// A small generator of numbers that need not be unguessable, only different on every instance (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Jitter(pub u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Somewhere between half of `longest` and all of it.
    pub fn half_to_all(&mut self, longest: Duration) -> Duration {
        let part = (self.next() >> 40) as f64 / (1_u64 << 24) as f64;
        longest.mul_f64(0.5 + part / 2.0)
    }
}

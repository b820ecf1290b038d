//! The mirror's tables: which logs are active, which keys they show, and when a log is whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::channels::Table;
use super::entries::{Awaits, Jitter, KeyEntry, LogEntry, Now, Scan, Stale, State, Use};
use super::happenings::Fifo;
use super::intake::{Backlog, Interest, Item, Shared, Taken};
use super::reads::Flight;
use super::resync::{LOST, Outage, Recovery};
use super::scan::Scans;
use super::timers::{Timer, Timers};
use crate::hub::{Appender, Log, Mode, Name, Reason};
use crate::mapping::{KeySet, MappingId, Scratch};

/// How often a log's old messages are dropped although nothing happens in it.
const TRIM: Duration = Duration::from_secs(30);

/// All that is known of the keys behind active channels. It does no I/O: it is told what came and asked what to do, with
/// the time as an argument.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) table: Arc<Table>,
    pub(super) appender: Appender,
    pub(super) shared: Arc<Shared>,
    pub(super) scratch: Scratch,
    pub(super) logs: HashMap<u64, LogEntry>,
    pub(super) by_name: HashMap<Name, u64>,
    pub(super) keys: HashMap<Bytes, KeyEntry>,
    /// Keys to be read; an entry is void unless its key is in [`State::Queued`].
    pub(super) queue: Queue,
    pub(super) timers: Timers,
    /// Batches of reads under way.
    pub(super) flights: HashMap<u64, Flight>,
    /// Numbers flights and outages.
    pub(super) last_id: u64,
    pub(super) scans: Scans,
    /// How many state logs were ever activated; see [`KeyEntry::as_of`].
    pub(super) activations: u64,
    /// Grows whenever changes may have happened unheard: replies to what was asked before are void.
    pub(super) generation: u64,
    /// The process that the feed hears, while it does.
    pub(super) feed: Option<String>,
    /// The process that the reader reads, while it does.
    pub(super) reader: Option<String>,
    /// Whether the server does not answer the feed.
    pub(super) late: bool,
    /// Set while keys cannot be heard or read.
    pub(super) outage: Option<Outage>,
    pub(super) recovery: Option<Recovery>,
    pub(super) jitter: Jitter,
    /// What was logged once already.
    pub(super) said: HashSet<(MappingId, &'static str)>,
    /// Bytes of the values read lately, on average.
    pub(super) typical: usize,
}

/// Keys to be read: those that changed before those that only need to be known.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub urgent: VecDeque<Bytes>,
    pub bulk: VecDeque<Bytes>,
}

impl Queue {
    pub fn push(&mut self, key: Bytes, urgent: bool) {
        if urgent { &mut self.urgent } else { &mut self.bulk }.push_back(key);
    }
}

impl Mirror {
    pub fn new(table: Arc<Table>, shared: Arc<Shared>, appender: Appender, seed: u64, now: Now) -> Mirror {
        let mut mirror = Mirror {
            table,
            appender,
            shared,
            scratch: Scratch::default(),
            logs: HashMap::new(),
            by_name: HashMap::new(),
            keys: HashMap::new(),
            queue: Queue::default(),
            timers: Timers::default(),
            flights: HashMap::new(),
            last_id: 0,
            scans: Scans::default(),
            activations: 0,
            generation: 0,
            feed: None,
            reader: None,
            late: false,
            outage: None,
            recovery: None,
            jitter: Jitter(seed),
            said: HashSet::new(),
            typical: super::reads::BATCH_BYTES / super::reads::BATCH_KEYS,
        };
        mirror.away(now);
        mirror
    }

    /// Makes visible what was appended.
    pub fn commit(&mut self) {
        self.appender.commit();
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Subscribers came or went.
    pub fn interest(&mut self, logs: Vec<Arc<Log>>, now: Now) {
        for log in logs {
            let view = log.view();
            let (closed, listened) = (view.is_closed(), view.subscribers() > 0);
            let (lingers, filled) = (view.lingers(), view.is_filled(u64::MAX));
            drop(view);
            match self.logs.get_mut(&log.id) {
                _ if closed => self.remove(log.id),
                None if listened => self.activate(log, now),
                None => self.close(&log),
                Some(entry) if listened => {
                    entry.filled = filled;
                    self.awaken(log.id, now);
                }
                Some(entry) if entry.lingering.is_some() => {}
                Some(_) if lingers && !log.channel.linger.is_zero() => self.linger(log.id, now),
                Some(_) => self.close(&log),
            }
        }
    }

    fn activate(&mut self, log: Arc<Log>, now: Now) {
        let (id, name) = (log.id, log.channel.name.clone());
        let backlog = match log.channel.mode {
            Mode::State => None,
            Mode::Events => Some(Backlog::new(log.channel.retention.messages.max(1))),
        };
        // Heard from here on, and only then read.
        let fifo = backlog.clone().map(Fifo::new);
        self.shared.insert(name.clone(), Interest { log: id, backlog });
        self.appender.activate(&log);
        let sources = self.table.mappings.sources(&name);
        let state = fifo.is_none();
        self.by_name.insert(name, id);
        let entry = LogEntry {
            log,
            sources,
            keys: HashSet::new(),
            lingering: None,
            filled: false,
            awaiting: 0,
            scan: Scan::Done,
            failing: 0,
            outdated: state,
            recovering: false,
            stale: None,
            fifo,
        };
        let fixed: Vec<Bytes> = entry.sources.iter().filter_map(|source| one(&source.keys)).collect();
        self.logs.insert(id, entry);
        self.timers.set(now.mono + TRIM, Timer::Trim(id));
        if state {
            self.activations += 1;
            for key in fixed {
                self.adopt(&key, false);
            }
        }
        self.resume(id, now);
    }

    /// Somebody listens (again): what was put off is read, then the log is whole.
    fn awaken(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(timer) = log.lingering.take() else {
            return self.settle(id);
        };
        self.timers.cancel(timer);
        self.expect_changed(id, now);
        self.resume(id, now);
    }

    /// Brings a log that is listened to up to date, as far as that is possible now.
    fn resume(&mut self, id: u64, now: Now) {
        if let Some(outage) = self.outage.as_ref().filter(|outage| outage.told) {
            let since = outage.since.wall;
            self.stale(id, LOST, since);
        } else if self.late {
            self.stale(id, super::resync::LATE, now.wall);
        }
        match self.logs.get(&id) {
            Some(log) if log.outdated && self.feed.is_some() => self.begin(id, now),
            _ => self.settle(id),
        }
    }

    fn linger(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let at = now.mono + log.log.channel.linger;
        log.lingering = Some(self.timers.set(at, Timer::Linger(id)));
    }

    fn close(&mut self, log: &Arc<Log>) {
        // If somebody has come meanwhile, we are told.
        if self.appender.hub().clone().close(log) {
            self.remove(log.id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(log) = self.logs.remove(&id) else { return };
        let name = &log.log.channel.name;
        if self.by_name.get(name) == Some(&id) {
            self.by_name.remove(name);
            self.shared.remove(name);
        }
        if let Some(timer) = log.lingering {
            self.timers.cancel(timer);
        }
        for key in &log.keys {
            if let Some(entry) = self.keys.get_mut(key) {
                entry.uses.retain(|each| each.log != id);
                if entry.is_idle() {
                    self.forget(key);
                }
            }
        }
        if log.recovering {
            self.recovered();
        }
    }

    /// Drops a key that nothing needs. A read of it may be in flight; its reply will find nothing.
    fn forget(&mut self, key: &Bytes) {
        if let Some(timer) = self.keys.remove(key).and_then(|entry| entry.armed) {
            self.timers.cancel(timer);
        }
    }

    /// Takes what the feed's thread has put down, and leaves `taken` empty.
    pub fn take(&mut self, taken: &mut Taken, now: Now) {
        // Keys first: the end of a silence must find those that became known by it.
        for (key, event) in taken.keys.drain() {
            if self.keys.get(&key).is_none_or(|entry| entry.as_of != self.activations) {
                self.adopt(&key, false);
            }
            let Some(entry) = self.keys.get_mut(&key) else { continue };
            entry.as_of = self.activations;
            entry.event = Some(event);
            self.dirty(&key, true, now);
        }
        for item in taken.items.drain(..) {
            match item {
                Item::Up { run_id } => self.up(run_id, now),
                Item::Lost { why } => self.lost(&why, now),
                Item::Flushed => self.flushed(super::resync::FLUSHED, now),
                Item::Late(late) => self.be_late(late, now),
                Item::Happening {
                    log,
                    mapping,
                    key,
                    event,
                } => self.happened(log, mapping, key, event, now),
                Item::Missed { log, count } => self.missed(log, count, now),
            }
        }
        if taken.overflowed {
            self.flushed(super::resync::OVERFLOW, now);
        }
        taken.clear();
    }

    /// Gives the key a use for every state log that shows it and has none yet; for one that was found by the scan, only
    /// for logs that wait for the scan. Says whether there was a new one.
    pub(super) fn adopt(&mut self, key: &Bytes, scanned: bool) -> bool {
        let Mirror {
            table,
            scratch,
            logs,
            by_name,
            keys,
            ..
        } = self;
        let mut new = false;
        table.mappings.each(key, scratch, |mapping, channel, captures| {
            let Some((id, log)) = by_name.get(channel).and_then(|id| Some((*id, logs.get_mut(id)?))) else {
                return;
            };
            if log.fifo.is_some() || scanned && log.scan != Scan::Running {
                return;
            }
            let entry = keys.entry(key.clone()).or_default();
            if entry.uses.iter().any(|each| each.log == id && each.mapping == mapping) {
                return;
            }
            let captures = captures.iter();
            let own = log.sources.iter().filter(|source| source.mapping == mapping);
            entry.uses.push(Use {
                log: id,
                mapping,
                captures: captures
                    .map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value)))
                    .collect(),
                last: None,
                fixed: own.filter_map(|source| one(&source.keys)).any(|fixed| fixed == *key),
                awaits: if scanned { Awaits::Next } else { Awaits::Nothing },
            });
            log.keys.insert(key.clone());
            log.awaiting += usize::from(scanned);
            new = true;
        });
        new
    }

    /// Reads all of a log again, or for the first time; it is whole when that is done.
    pub(super) fn begin(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        log.outdated = false;
        let many = |keys: &KeySet| matches!(keys, KeySet::Matching(_));
        if log.scan == Scan::Done && log.sources.iter().any(|source| many(&source.keys)) {
            log.scan = Scan::Waiting;
            self.scans.waiting.push(id);
        }
        self.expect(id, now, |_| Some(Awaits::Next));
        self.settle(id);
    }

    /// Lets a log wait for those of its keys that may have changed.
    pub(super) fn expect_changed(&mut self, id: u64, now: Now) {
        self.expect(id, now, |state| match state {
            State::Clean => None,
            State::Reading { again: false, .. } => Some(Awaits::This),
            State::Deferred | State::Waiting | State::Queued { .. } | State::Reading { .. } => Some(Awaits::Next),
        });
    }

    fn expect(&mut self, id: u64, now: Now, which: impl Fn(State) -> Option<Awaits>) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let names = std::mem::take(&mut log.keys);
        for key in &names {
            let Some(entry) = self.keys.get_mut(key) else { continue };
            let Some(awaits) = which(entry.state) else { continue };
            for each in entry.uses.iter_mut().filter(|each| each.log == id) {
                log.awaiting += usize::from(each.awaits == Awaits::Nothing);
                if each.awaits != Awaits::Next {
                    each.awaits = awaits;
                }
            }
        }
        for key in &names {
            let awaited = |entry: &KeyEntry| entry.uses.iter().any(|each| each.awaits == Awaits::Next);
            if self.keys.get(key).is_some_and(awaited) {
                self.dirty(key, false, now);
            }
        }
        if let Some(log) = self.logs.get_mut(&id) {
            log.keys = names;
        }
    }

    /// The key may have changed, or must be known: it will be read, unless nobody listens.
    pub(super) fn dirty(&mut self, key: &Bytes, urgent: bool, now: Now) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        match &mut entry.state {
            State::Reading { again, .. } => *again = true,
            State::Waiting | State::Queued { urgent: true } => {}
            State::Queued { urgent: false } if !urgent => {}
            State::Clean | State::Deferred | State::Queued { urgent: false } => {
                if entry.is_idle() {
                    entry.state = State::Clean;
                    return;
                }
                if entry.is_cold(&self.logs) {
                    entry.state = State::Deferred;
                    return;
                }
                let due = entry.due(&self.table, now.mono);
                if due > now.mono {
                    entry.state = State::Waiting;
                    self.timers.set(due, Timer::Read(key.clone()));
                } else {
                    entry.state = State::Queued { urgent };
                    self.queue.push(key.clone(), urgent);
                }
            }
        }
    }

    /// Tells a log's subscribers that it may be behind; said once, unless all is lost that was only slow.
    pub(super) fn stale(&mut self, id: u64, reason: Reason, since: SystemTime) {
        let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_told()) else {
            return;
        };
        if log.stale.is_none_or(|told| told.reason != reason && reason == LOST) {
            let since = log.stale.map_or(since, |told| told.since);
            log.stale = Some(Stale { reason, since });
            self.appender.stale(&log.log, reason, since);
        }
    }

    /// Tells the hub what has become true of a log: that it is whole, that it is fresh.
    pub(super) fn settle(&mut self, id: u64) {
        let healthy = self.outage.is_none() && !self.late;
        let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_whole()) else {
            return;
        };
        if !log.filled {
            // Nobody waits for it, and keys may have been put off.
            if !log.is_told() {
                return;
            }
            self.appender.fill(&log.log);
            log.filled = true;
        }
        let fresh = healthy && log.failing == 0;
        if let Some(Stale { reason, since }) = log.stale.take_if(|_| fresh) {
            self.appender.fresh(&log.log, reason, since);
        }
        if fresh && std::mem::take(&mut log.recovering) {
            self.recovered();
        }
    }

    /// All logs, oldest first.
    pub(super) fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.logs.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// When [`Mirror::tick`] or [`Mirror::next_page`] will have something to do if nothing comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        [self.timers.next(), self.next_page_at()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Read(key) => {
                    if let Some(entry) = self.keys.get_mut(&key).filter(|entry| entry.state == State::Waiting) {
                        entry.state = State::Clean;
                        self.dirty(&key, true, now);
                    }
                }
                Timer::Deadline(key) => self.expired(&key, now),
                Timer::Forget(key) => {
                    if let Some(entry) = self.keys.get_mut(&key) {
                        entry.forgetting = false;
                        if entry.is_idle() && entry.state == State::Clean {
                            self.forget(&key);
                        }
                    }
                }
                Timer::Linger(id) => {
                    if let Some(log) = self.logs.get(&id).map(|entry| entry.log.clone()) {
                        self.close(&log);
                    }
                }
                Timer::Trim(id) => {
                    if let Some(entry) = self.logs.get(&id) {
                        self.appender.trim(&entry.log, now.mono);
                        self.timers.set(now.mono + TRIM, Timer::Trim(id));
                    }
                }
                Timer::Slow(generation) => self.slow(generation, now),
                Timer::Outage(number) => self.outlasts(number),
            }
        }
    }
}

/// The key of a source that has exactly one.
fn one(keys: &KeySet) -> Option<Bytes> {
    match keys {
        KeySet::One(key) => Some(key.clone()),
        KeySet::Matching(_) => None,
    }
}

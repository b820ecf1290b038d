//! The mirror's tables: which logs are active, which keys they show, and which of those may have changed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::channels::Table;
use super::entries::{Awaits, Jitter, KeyEntry, LogEntry, Now, Scan, State, Use};
use super::intake::{Item, Shared, Taken};
use super::interest::{TRIM, one};
use super::reads::Flight;
use super::refusal::Refusal;
use super::resync::{Outage, Recovery};
use super::scan::Scans;
use super::timers::{Timer, Timers};
use crate::hub::{Appender, Name};
use crate::mapping::{MappingId, Scratch};
use crate::switches::{self, Switch};

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
    /// When something last came, for what is said of how long a recovery took.
    pub(super) now: Now,
    /// Set while the server answers no reads at all.
    pub(super) refusal: Option<Refusal>,
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
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.bulk.is_empty()
    }

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
            now,
            refusal: None,
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
            // Found or heard, a log that is not whole yet must not be called so before the key was read: the scan will pass
            // by what is known already.
            let awaited = scanned || !log.filled || !log.is_whole();
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
                awaits: if awaited { Awaits::Next } else { Awaits::Nothing },
            });
            log.keys.insert(key.clone());
            log.awaiting += usize::from(awaited);
            new = true;
        });
        new
    }

    /// The key may have changed, or must be known: it will be read, unless nobody listens.
    pub(super) fn dirty(&mut self, key: &Bytes, urgent: bool, now: Now) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        match &mut entry.state {
            State::Reading { again, .. } => *again = !switches::off(Switch::ReadAgain),
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

    /// When [`Mirror::tick`] or [`Mirror::next_page`] will have something to do if nothing comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        let wakes = [self.timers.next(), self.next_page_at(), self.next_probe_at()];
        wakes.into_iter().flatten().min()
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
                Timer::Flight(flight) => self.takes_long(flight, now),
                Timer::Slow(generation) => self.slow(generation, now),
                Timer::Outage(number) => self.outlasts(number),
            }
        }
    }
}

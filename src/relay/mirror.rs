//! The mirror's tables: which logs are active, which keys they show, and which of those may have changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;

use super::backlog::Waiting;
use super::channels::Table;
use super::deadlines::Deadlines;
use super::entries::{Awaits, Jitter, KeyEntry, LogEntry, Now, Scan, State, Use};
use super::intake::Shared;
use super::interest::{TRIM, one};
use super::limits::{Limits, Reached};
use super::node::Nodes;
use super::reads::BATCH_KEYS;
use super::refusal::Troubled;
use super::resync::Recovery;
use super::taken::{Item, Taken};
use super::timers::{Timer, TimerId, Timers};
use super::verify::Verify;
use crate::hub::{Appender, Limit, Name};
use crate::mapping::{MappingId, Scratch};
use crate::switches::{self, Switch};
use crate::upstream::NodeId;

/// All that is known of the keys behind active channels. It does no I/O: it is told what came and asked what to do, with
/// the time as an argument.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) table: Arc<Table>,
    pub(super) appender: Appender,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) reached: Reached,
    /// Happenings of all channels that wait.
    pub(super) waiting: Arc<Waiting>,
    pub(super) scratch: Scratch,
    pub(super) logs: HashMap<u64, LogEntry>,
    pub(super) by_name: HashMap<Name, u64>,
    /// Each has a place, so that they can be visited one after the other ([`Verify`]). Strangers may choose names in here; they
    /// are bounded in number, and by which of them fall together is drawn anew for each table.
    pub(super) keys: IndexMap<Bytes, KeyEntry, RandomState>,
    pub(super) nodes: Nodes,
    pub(super) timers: Timers,
    pub(super) deadlines: Deadlines,
    pub(super) verify: Verify,
    pub(super) troubled: Troubled,
    /// Numbers flights and outages.
    pub(super) last_id: u64,
    /// Passes over the keys of a node that were begun.
    pub(super) passes: u64,
    /// How many state logs were ever activated; see [`KeyEntry::as_of`].
    pub(super) activations: u64,
    pub(super) recovery: Option<Recovery>,
    /// When something last came, for what is said of how long a recovery took.
    pub(super) now: Now,
    pub(super) jitter: Jitter,
    /// The timers of mappings that are polled.
    pub(super) polls: HashMap<MappingId, TimerId>,
    /// What was logged once already.
    pub(super) said: HashSet<(MappingId, &'static str)>,
    /// Bytes of memory that the values read lately took, on average.
    pub(super) typical: usize,
}

impl Mirror {
    /// `verify` is how long a round of second looks takes, if there are any.
    pub fn new(
        table: Arc<Table>,
        shared: Arc<Shared>,
        appender: Appender,
        verify: Option<Duration>,
        limits: Limits,
        seed: u64,
        now: Now,
    ) -> Mirror {
        let mut mirror = Mirror {
            table,
            appender,
            shared,
            limits,
            reached: Reached::default(),
            waiting: Waiting::new(limits.keys, limits.reading),
            scratch: Scratch::default(),
            logs: HashMap::default(),
            by_name: HashMap::default(),
            keys: IndexMap::default(),
            nodes: Nodes::new(),
            timers: Timers::default(),
            deadlines: Deadlines::new(now.mono),
            verify: Verify::new(verify, now.mono),
            troubled: Troubled::new(now),
            last_id: 0,
            passes: 0,
            activations: 0,
            recovery: None,
            now,
            jitter: Jitter(seed),
            polls: HashMap::default(),
            said: HashSet::default(),
            typical: super::reads::BATCH_BYTES / BATCH_KEYS,
        };
        mirror.away(NodeId::FIRST, now);
        mirror.begin_polling(None, now.mono);
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
            self.verify.heard(&key);
            if self.keys.get(&key).is_none_or(|entry| entry.as_of != self.activations) {
                self.adopt(&key, None, now);
            }
            let Some(entry) = self.keys.get_mut(&key) else { continue };
            entry.as_of = self.activations;
            entry.event = Some(event.after(entry.event.take()));
            self.dirty(&key, true, now);
        }
        for (node, item) in taken.items.drain(..) {
            self.know(node, now);
            match item {
                Item::Up(heard) => self.up(node, heard, now),
                Item::Hears(plan) => self.hears(node, plan, now),
                Item::Lost { why, reason } => self.lost(node, &why, reason, now),
                Item::Unheard => self.be_unheard(node, now),
                Item::Flushed(cause) => self.changed(node, cause, now),
                Item::Behind(since) => self.be_behind(node, since, now),
                Item::Late(late) => self.be_late(node, late, now),
                Item::Slots(slots) => self.share_out(slots, now),
                Item::ClockSet { ahead_ms } => self.clock_set(node, ahead_ms),
                Item::Answered { number } => self.verify.answered(node, number),
                Item::Happening {
                    log,
                    mapping,
                    key,
                    event,
                    heard_at,
                } => self.happened(log, mapping, key, (event, heard_at), now),
                Item::Published {
                    log,
                    mapping,
                    topic,
                    message,
                    heard_at,
                } => self.published(log, mapping, &topic, (message, heard_at), now),
                Item::Missed { log, count } => self.missed(log, count, now),
            }
        }
        self.append_gaps(now);
        if taken.overflowed && !switches::off(Switch::Overflow) {
            tracing::warn!("more keys changed at once than can be kept: all are read again");
            for node in self.nodes.ids() {
                self.flushed(node, super::resync::OVERFLOW, now);
            }
        }
        taken.clear();
    }

    /// Gives the key a use for every state log that shows it and has none yet; for one that was found by the scan of a
    /// node, only for logs that wait for that scan. Says whether there was a new one.
    pub(super) fn adopt(&mut self, key: &Bytes, scanned: Option<NodeId>, now: Now) -> bool {
        let mut new = self.adopt_some(key, scanned);
        while !self.reached.overfull.is_empty() && self.end_overfull(now) {
            new |= self.adopt_some(key, scanned);
        }
        new
    }

    fn adopt_some(&mut self, key: &Bytes, scanned: Option<NodeId>) -> bool {
        let Mirror {
            table,
            scratch,
            logs,
            by_name,
            keys,
            limits,
            reached,
            ..
        } = self;
        let mut new = false;
        table.mappings.each(key, scratch, |mapping, channel, captures| {
            let Some((id, log)) = by_name.get(channel).and_then(|id| Some((*id, logs.get_mut(id)?))) else {
                return;
            };
            let waits = |node| log.part(node).is_some_and(|part| part.scan == Scan::Running);
            if log.fifo.is_some() || scanned.is_some_and(|node| !waits(node)) {
                return;
            }
            let over = match () {
                () if log.keys.contains(key) => None,
                () if log.keys.len() >= limits.keys_per_channel => Some(Limit::KeysPerChannel),
                () if keys.len() >= limits.keys(log.filled) && !keys.contains_key(key) => Some(Limit::Keys),
                () => None,
            };
            if let Some(limit) = over {
                return reached.overfull.push((id, limit));
            }
            let entry = keys.entry(key.clone()).or_default();
            if entry.uses.iter().any(|each| each.log == id && each.mapping == mapping) {
                return;
            }
            // Found or heard, a log that is not whole yet must not be called so before the key was read: the scan will pass
            // by what is known already.
            let awaited = scanned.is_some() || !log.filled || !log.is_whole();
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
                    self.forgive(key);
                    return;
                }
                let due = entry.due(&self.table, now.mono);
                if due > now.mono {
                    entry.state = State::Waiting;
                    self.timers.set(due, Timer::Read(key.clone()));
                } else {
                    entry.state = State::Queued { urgent };
                    let asked = entry.asked.filter(|there| self.nodes[*there].is_there());
                    let node = asked.unwrap_or_else(|| self.nodes.owners().of(key));
                    let Mirror { nodes, keys, .. } = self;
                    let queue = &mut nodes[node].queue;
                    queue.push(key.clone(), urgent);
                    // While nothing can be read, keys may come and go for long.
                    if queue.len() > 2 * keys.len() + BATCH_KEYS {
                        let queued = |entry: &KeyEntry| matches!(entry.state, State::Queued { .. });
                        queue.retain(|key| keys.get(key).is_some_and(queued));
                    }
                }
            }
        }
    }

    /// When [`Mirror::tick`] or [`Mirror::next_page`] will have something to do if nothing comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        let wakes = self
            .nodes
            .iter()
            .flat_map(|node| [node.next_page_at(), node.next_probe_at()]);
        wakes
            .chain([self.timers.next(), self.deadlines.next(), self.verify.next()])
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        self.relieve();
        self.expire(now);
        self.visit(now);
        self.count_repairs(now);
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Read(key) => {
                    if let Some(entry) = self.keys.get_mut(&key).filter(|entry| entry.state == State::Waiting) {
                        entry.state = State::Clean;
                        self.dirty(&key, true, now);
                    }
                }
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
                    if let Some(entry) = self.logs.get_mut(&id) {
                        self.appender.trim(&entry.log, now.mono);
                        entry.trim = self.timers.set(now.mono + TRIM, Timer::Trim(id));
                    }
                }
                Timer::Poll(mapping) => self.poll(mapping, now),
                Timer::Flight(node, flight) => self.takes_long(node, flight, now),
                Timer::Slow(node, generation) => self.slow(node, generation, now),
                Timer::Outage(node, number) => self.outlasts(node, number),
                Timer::Unbar(name) => self.unbar(&name),
            }
        }
    }
}

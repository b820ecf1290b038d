//! Logs of the mirror: when one becomes active, when it is whole, when it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use foldhash::HashSet;

use super::backlog::Backlog;
use super::entries::{Awaits, KeyEntry, LogEntry, Now, Part, Scan, Stale, State};
use super::happenings::Fifo;
use super::intake::Interest;
use super::mirror::Mirror;
use super::resync::{BEHIND, EVENTS_OFF, LATE, gives_way};
use super::timers::Timer;
use crate::hub::{Log, Mode, Reason};
use crate::mapping::KeySet;
use crate::upstream::NodeId;

/// How often a log's old messages are dropped although nothing happens in it.
pub(super) const TRIM: Duration = Duration::from_secs(30);

impl Mirror {
    /// Subscribers came or went.
    pub fn interest(&mut self, logs: Vec<Arc<Log>>, now: Now) {
        self.now = now;
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
                Some(entry) if lingers && !self.table.linger(&entry.sources).is_zero() => self.linger(log.id, now),
                Some(_) => self.close(&log),
            }
        }
    }

    fn activate(&mut self, log: Arc<Log>, now: Now) {
        let (id, name) = (log.id, log.channel.name.clone());
        let backlog = match log.channel.mode {
            Mode::State => None,
            Mode::Events => Some(Backlog::new(log.channel.retention, self.waiting.clone())),
        };
        // Heard from here on, and only then read.
        let fifo = backlog.clone().map(Fifo::new);
        self.shared.insert(name.clone(), Interest { log: id, backlog });
        self.appender.activate(&log);
        let sources = self.table.mappings.sources(&name);
        let plan = self.table.plan(&sources);
        let state = fifo.is_none();
        self.by_name.insert(name, id);
        let nodes = self.nodes.owners().of_all(&sources).into_iter();
        let parts = nodes.map(|node| Part {
            node,
            // Of happenings only those count that are heard.
            outdated: state || !self.nodes[node].hears(plan),
            lost: false,
            scan: Scan::Done,
        });
        let parts = parts.collect();
        let entry = LogEntry {
            log,
            sources,
            keys: HashSet::default(),
            lingering: None,
            filled: false,
            awaiting: 0,
            failing: 0,
            parts,
            plan,
            recovering: false,
            missed: None,
            stale: None,
            fifo,
            trim: self.timers.set(now.mono + TRIM, Timer::Trim(id)),
        };
        let fixed: Vec<Bytes> = entry.sources.iter().filter_map(|source| one(&source.keys)).collect();
        self.logs.insert(id, entry);
        if state {
            self.activations += 1;
            for key in fixed {
                self.adopt(&key, None, now);
            }
        }
        self.resume(id, now);
    }

    /// Somebody listens (again): what was put off is read, then the log is whole.
    fn awaken(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let was_stale = log.is_stale();
        let Some(timer) = log.lingering.take() else {
            return self.settle(id);
        };
        if log.is_stale() && !was_stale {
            self.shared.stats.stale.fetch_add(1, Ordering::Relaxed);
        }
        self.timers.cancel(timer);
        if let Some(Stale { reason, since }) = log.missed.take() {
            self.stale(id, reason, since);
        }
        self.expect_changed(id, now);
        self.resume(id, now);
    }

    /// Brings a log that is listened to up to date, as far as that is possible now.
    pub(super) fn resume(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get(&id) else { return };
        let plan = log.plan;
        for part in log.parts.clone() {
            let node = &self.nodes[part.node];
            let heard = node.hears(plan);
            if let Some(outage) = node.outage.as_ref().filter(|outage| outage.told) {
                let (reason, since) = (outage.reason, outage.since.wall);
                self.stale(id, reason, since);
            } else if let Some(since) = node.late {
                self.stale(id, LATE, since);
            } else if let Some(since) = node.behind {
                self.stale(id, BEHIND, since);
            } else if let Some(since) = node.unheard {
                self.stale(id, EVENTS_OFF, since);
            }
            if part.outdated && heard {
                self.begin(id, part.node, now);
            }
        }
        self.settle(id);
    }

    fn linger(&mut self, id: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let at = now.mono + self.table.linger(&log.sources);
        let was_stale = log.is_stale();
        log.lingering = Some(self.timers.set(at, Timer::Linger(id)));
        if was_stale && !log.is_stale() {
            self.shared.stats.stale.fetch_sub(1, Ordering::Relaxed);
        }
        // It is read no more, until somebody returns.
        if !log.is_told() && std::mem::take(&mut log.recovering) {
            self.recovered();
        }
    }

    pub(super) fn close(&mut self, log: &Arc<Log>) {
        // If somebody has come meanwhile, we are told.
        if self.appender.hub().clone().close(log) {
            self.remove(log.id);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(log) = self.logs.remove(&id) else { return };
        self.shared
            .stats
            .stale
            .fetch_sub(log.is_stale().into(), Ordering::Relaxed);
        let name = &log.log.channel.name;
        if self.by_name.get(name) == Some(&id) {
            self.by_name.remove(name);
            self.shared.remove(name);
        }
        // Also of those that had a part of it before slots were moved.
        for node in self.nodes.ids() {
            self.nodes[node].scans.waiting.remove(&id);
        }
        self.timers.cancel(log.trim);
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
    pub(super) fn forget(&mut self, key: &Bytes) {
        let Some(mut entry) = self.keys.swap_remove(key) else {
            return;
        };
        self.deadlines.disarm(&mut entry);
        if let Some(trouble) = entry.trouble {
            self.troubled.remove(key);
            self.nodes[trouble.node].failing.remove(&trouble);
        }
    }

    /// Reads all of a log that is on the node again, or for the first time; it is whole when that is done.
    pub(super) fn begin(&mut self, id: u64, node: NodeId, now: Now) {
        let owners = self.nodes.owners().clone();
        let Some(log) = self.logs.get_mut(&id) else { return };
        let state = log.fifo.is_none();
        let many = |keys: &KeySet| matches!(keys, KeySet::Matching(_)) && owners.has(node, keys);
        let many = log.sources.iter().any(|source| many(&source.keys));
        let Some(part) = log.part_mut(node) else { return };
        part.outdated = false;
        if state && many && part.scan == Scan::Done {
            part.scan = Scan::Waiting;
            self.nodes[node].scans.waiting.insert(id);
        }
        self.expect(id, now, |key, _| (owners.of(key) == node).then_some(Awaits::Next));
        self.settle(id);
    }

    /// Lets a log wait for those of its keys that may have changed, and for the happenings that wait for their values.
    pub(super) fn expect_changed(&mut self, id: u64, now: Now) {
        if let Some(fifo) = self.logs.get_mut(&id).and_then(|log| log.fifo.as_mut()) {
            fifo.expect();
        }
        self.expect(id, now, |_, state| match state {
            State::Clean => None,
            State::Reading { again: false, .. } => Some(Awaits::This),
            State::Deferred | State::Waiting | State::Queued { .. } | State::Reading { .. } => Some(Awaits::Next),
        });
    }

    fn expect(&mut self, id: u64, now: Now, which: impl Fn(&[u8], State) -> Option<Awaits>) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let names = std::mem::take(&mut log.keys);
        for key in &names {
            let Some(entry) = self.keys.get_mut(key) else { continue };
            let Some(awaits) = which(key, entry.state) else {
                continue;
            };
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

    /// Tells a log's subscribers that it may be behind; said again only when the reason becomes a graver or a more
    /// certain one, and then since when it was behind at first.
    pub(super) fn stale(&mut self, id: u64, reason: Reason, since: SystemTime) {
        let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_told()) else {
            return;
        };
        if log.stale.is_none_or(|told| gives_way(told.reason, reason)) {
            let since = log.stale.map_or(since, |told| told.since);
            if log.stale.replace(Stale { reason, since }).is_none() {
                self.shared.stats.stale.fetch_add(1, Ordering::Relaxed);
            }
            self.appender.stale(&log.log, reason, since);
        }
    }

    /// Tells the hub what has become true of a log: that it is whole, that it is fresh.
    pub(super) fn settle(&mut self, id: u64) {
        let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_whole()) else {
            return;
        };
        let healthy = log.parts.iter().all(|part| self.nodes[part.node].is_healthy());
        if !log.filled {
            // Nobody waits for it, and keys may have been put off.
            if !log.is_told() {
                return;
            }
            self.appender.fill(&log.log);
            log.filled = true;
        }
        let appended = log.fifo.as_ref().is_none_or(Fifo::is_fresh);
        let fresh = healthy && log.failing == 0 && appended;
        let was_stale = log.is_stale();
        if let Some(Stale { reason, since }) = log.stale.take_if(|_| fresh) {
            self.appender.fresh(&log.log, reason, since);
            self.shared.stats.stale.fetch_sub(was_stale.into(), Ordering::Relaxed);
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

    /// All logs that the node may have keys of, oldest first.
    pub(super) fn ids_of(&self, node: NodeId) -> Vec<u64> {
        let mut ids = self.ids();
        ids.retain(|id| self.logs.get(id).is_some_and(|log| log.part(node).is_some()));
        ids
    }
}

/// The key of a source that has exactly one.
pub(super) fn one(keys: &KeySet) -> Option<Bytes> {
    match keys {
        KeySet::One(key) => Some(key.clone()),
        KeySet::Matching(_) | KeySet::Published(_) => None,
    }
}

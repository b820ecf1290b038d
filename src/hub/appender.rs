//! The one writer: assigns sequences, appends, then moves the watermark.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::channel::Mode;
use super::inbox::Inbox;
use super::limit::Limit;
use super::log::{Log, SlotKey, Trim};
use super::message::{Body, Message, Payload, Reason};
use super::registry::{Hub, Revision};

/// There is one in the process, owned by one thread, so sequences and appends are in one order without a lock of their
/// own. Nothing is visible to subscribers before [`Appender::commit`].
#[derive(Debug)]
pub struct Appender {
    hub: Arc<Hub>,
    last: u64,
    grown: Vec<Arc<Log>>,
    /// When what is appended next was heard of.
    heard: Option<u64>,
}

impl Appender {
    pub(super) fn new(hub: Arc<Hub>) -> Appender {
        let last = hub.watermark();
        Appender {
            hub,
            last,
            grown: Vec::new(),
            heard: None,
        }
    }

    /// The hub that this appends to.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    fn sequence(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// From here on the log is complete: call it when key events begin to be heard for it, before the first read.
    pub fn activate(&mut self, log: &Arc<Log>) {
        let sequence = self.sequence();
        log.view().activate(sequence);
    }

    /// The log holds the whole state: those who wait for it may be served.
    pub fn fill(&mut self, log: &Arc<Log>) {
        let sequence = self.sequence();
        log.view().fill(sequence);
        self.grown.push(log.clone());
    }

    /// What the next call appends was heard of then, in microseconds since 1970: from there on it is counted how long it takes
    /// to its clients. Without it, as for what only a comparison found, nothing is counted.
    pub fn heard(&mut self, at: Option<u64>) {
        self.heard = at;
    }

    /// Appends the newest value of a slot; `None` where it is gone and nothing says so to clients. `fixed`: the slot's
    /// absence is part of the channel's state. Appending the deletion of what was never there does nothing.
    pub fn put(&mut self, log: &Arc<Log>, key: SlotKey, fixed: bool, payload: Option<Payload>, now: Instant) {
        debug_assert_eq!(log.channel.mode, Mode::State);
        let body = payload.map_or(Body::Void, Body::Change);
        let message = Message::new(self.sequence(), log.channel.clone(), body);
        let message = message.charged(&self.hub.account, key.name.len());
        let message = Arc::new(message.heard(self.heard.take()));
        let mut view = log.view();
        if let Some(grown) = view.put(key, fixed, message, now) {
            view.trim(&log.channel, now);
            drop(view);
            self.grown.push(log.clone());
            if grown > 0 {
                self.make_room(log);
            }
        }
    }

    /// Appends a happening.
    pub fn push(&mut self, log: &Arc<Log>, payload: Payload, now: Instant) {
        self.push_body(log, Body::Change(payload), now);
    }

    /// Appends that happenings are missing.
    pub fn gap(&mut self, log: &Arc<Log>, reason: Reason, missed: Option<u64>, now: Instant) {
        self.push_body(log, Body::Gap { reason, missed }, now);
    }

    fn push_body(&mut self, log: &Arc<Log>, body: Body, now: Instant) {
        debug_assert_eq!(log.channel.mode, Mode::Events);
        let message = Message::new(self.sequence(), log.channel.clone(), body);
        let message = message.charged(&self.hub.account, 0);
        let message = Arc::new(message.heard(self.heard.take()));
        let mut view = log.view();
        view.push(message, now);
        view.trim(&log.channel, now);
        drop(view);
        self.grown.push(log.clone());
        self.make_room(log);
    }

    /// A log has grown. Where that was too much for all logs together, lingering ones go first, then encodings, which can be
    /// made anew, then what an events log retains, which is told as a gap; and if that is not enough, a log that is not whole
    /// yet ends itself, and for one that is whole the largest ends: else a small channel would end for what a large one takes.
    fn make_room(&mut self, log: &Arc<Log>) {
        let filled = log.view().is_filled(u64::MAX);
        let Some(mut over) = self.hub.over(filled) else { return };
        while self.hub.evict(Limit::LogBytes).is_some() {
            match self.hub.over(filled) {
                Some(still) => over = still,
                None => return,
            }
        }
        // What was let go may be held for a moment by those who are just sending it, so it cannot be asked anew.
        if self.hub.strip(over) >= over {
            return;
        }
        let largest = filled.then(|| self.hub.largest()).flatten();
        let victim = largest.as_ref().unwrap_or(log);
        let mut cut = victim.view().cut(over);
        if cut < over {
            cut += log.view().cut(over - cut);
        }
        if cut > 0 {
            self.hub.limited.hit(Limit::LogBytes);
        }
        if cut < over {
            self.end(victim, Limit::LogBytes);
        }
    }

    /// Ends all subscribers of a log, which is closed: the limit does not let it be what it should be.
    pub fn end(&mut self, log: &Arc<Log>, limit: Limit) {
        if self.hub.end(log, limit) {
            // There must be a commit that tells the shards.
            self.sequence();
            self.grown.push(log.clone());
        }
    }

    /// Has other channels from now on, or others who may read them. Those that are concerned are closed with all their
    /// subscribers, and given; of their names there are new logs at once. What was appended is made visible before, so that
    /// nothing of it is seen together with what comes after.
    pub fn revise(&mut self, revision: Revision<impl Fn(&str) -> bool, impl FnOnce()>) -> Vec<Arc<Log>> {
        self.commit();
        let ended = self.hub.revise(revision);
        if !ended.is_empty() {
            // There must be a commit that tells the shards.
            self.sequence();
            self.grown.extend(ended.iter().cloned());
        }
        self.commit();
        ended
    }

    /// Appends that the log may be behind from here on.
    pub fn stale(&mut self, log: &Arc<Log>, reason: Reason, since: SystemTime) {
        self.status(log, Body::Stale { reason, since });
    }

    /// Appends that the log is true again: everything that differed was appended before.
    pub fn fresh(&mut self, log: &Arc<Log>, reason: Reason, since: SystemTime) {
        self.status(log, Body::Fresh { reason, since });
    }

    fn status(&mut self, log: &Arc<Log>, body: Body) {
        let message = Arc::new(Message::new(self.sequence(), log.channel.clone(), body));
        log.view().set_status(message);
        self.grown.push(log.clone());
    }

    /// Drops what is too old; call it now and then for logs in which nothing happens.
    pub fn trim(&mut self, log: &Arc<Log>, now: Instant) -> Trim {
        log.view().trim(&log.channel, now)
    }

    /// Makes all that was appended visible, and tells the shards concerned.
    pub fn commit(&mut self) {
        if self.last == self.hub.watermark() {
            return;
        }
        self.hub.watermark.store(self.last, Ordering::Release);
        self.grown.sort_unstable_by_key(|log| log.id);
        self.grown.dedup_by_key(|log| log.id);
        Inbox::put(&self.hub.inboxes(), self.last, &self.grown);
        self.grown.clear();
        self.hub.progress.notify_waiters();
    }
}

//! Losses and their repair: what the feed and the reader's connection tell, and what clients are told of it.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::entries::{Now, Stale};
use super::mirror::Mirror;
use super::moves::MOVED;
use super::node::Heard;
use super::reads::PATIENCE;
use super::refusal;
use super::timers::Timer;
use crate::hub::Reason;
use crate::switches::{self, Switch};
use crate::upstream::feed::{Cause, LostReason};
use crate::upstream::reader::ReadErrorKind;
use crate::upstream::{Endpoint, NodeId};

/// There is no connection, or there was none.
pub(super) const LOST: Reason = Reason("upstream-lost");
/// The server does not answer.
pub(super) const LATE: Reason = Reason("upstream-late");
/// Keys came or went without events.
pub(super) const FLUSHED: Reason = Reason("upstream-flushed");
/// Two databases changed places.
const SWAPPED: Reason = Reason("upstream-swapped");
/// The data of a primary was loaded or merged.
const RESYNCED: Reason = Reason("upstream-resynced");
/// The server did not send all key events.
pub(super) const EVENTS_OFF: Reason = Reason("events-off");
/// The server is a replica, and its primary is out of its reach.
pub(super) const BEHIND: Reason = Reason("upstream-behind");
/// There was more than could be kept.
pub(super) const OVERFLOW: Reason = Reason("overflow");

/// Every reason that a gap has in the counts of operators.
pub const GAPS: [&str; 7] = [
    LOST.0,
    FLUSHED.0,
    SWAPPED.0,
    RESYNCED.0,
    MOVED.0,
    EVENTS_OFF.0,
    OVERFLOW.0,
];

/// Whether clients who were told one reason are told the other, too. What is lost counts more than what is slow; and that
/// the server is there but will not say is news to those who think it away, whereas keys that fail each in their own way
/// are told once. What keeps a resync says more than what began it, unless it is only that a read takes its time.
pub(super) fn gives_way(told: Reason, new: Reason) -> bool {
    let is_resync = |reason| [FLUSHED, SWAPPED, RESYNCED, OVERFLOW, MOVED].contains(&reason);
    let kept = is_resync(told) && new != refusal::reason(ReadErrorKind::Timeout);
    let vague = [LOST, LATE, BEHIND].contains(&told) || kept;
    told != new && (new == LOST || vague && !is_resync(new))
}

/// Keys cannot be heard or cannot be read.
#[derive(Debug)]
pub(super) struct Outage {
    number: u64,
    pub since: Now,
    /// The word that clients are told.
    pub reason: Reason,
    /// Whether clients were told: of a short one, in which nothing was lost, they are not.
    pub told: bool,
}

/// The word that clients are told of a loss.
pub(super) fn lost(reason: &LostReason) -> Reason {
    match reason {
        LostReason::Loading => refusal::reason(ReadErrorKind::Loading),
        LostReason::Login(_) | LostReason::Rights(_) => refusal::reason(ReadErrorKind::NoPermission),
        LostReason::Notifications(_) => EVENTS_OFF,
        _ => LOST,
    }
}

/// Whether it is the process of this name that is heard.
fn is_same(run_id: &str, heard: &Heard) -> bool {
    heard.run_id == run_id || switches::off(Switch::SameServer)
}

/// Reading again after a loss.
#[derive(Debug)]
pub(super) struct Recovery {
    since: Now,
    reason: Reason,
    /// Logs that are not whole yet.
    logs: usize,
    /// Slots that turned out to differ.
    pub differences: usize,
}

impl Mirror {
    /// The feed of a node hears this process, and misses nothing from here on.
    pub(super) fn up(&mut self, id: NodeId, heard: Heard, now: Now) {
        let reader = self.nodes[id].reader.as_ref();
        if reader.is_some_and(|reader| !is_same(reader, &heard)) {
            self.unlinked(id, now);
        }
        let node = &mut self.nodes[id];
        let again = node.generation > 0;
        node.feed = Some(heard);
        node.late = None;
        node.generation += 1;
        let since = node.outage.as_ref().map_or(now, |outage| outage.since);
        self.verify.excuse(id);
        self.tell_gaps(id, LOST, now);
        let recovery = again.then_some((LOST, since));
        self.begin_outdated(id, recovery, now);
        self.end_outage(id, now);
    }

    /// The feed of a node may miss events from here on. Said again when the reason becomes another.
    pub(super) fn lost(&mut self, id: NodeId, why: &str, reason: Reason, now: Now) {
        tracing::debug!(node = id.0, why, "events may be lost");
        let node = &mut self.nodes[id];
        node.late = None;
        node.behind = None;
        node.unheard = None;
        if node.feed.take().is_some() {
            node.generation += 1;
            self.shared.stats.gap(id, LOST.0, Some(why), now.wall);
            self.verify.excuse(id);
            for log in self.logs.values_mut() {
                let (state, filled) = (log.fifo.is_none(), log.filled);
                let lingers = !log.is_told();
                if lingers && log.part_mut(id).is_some() {
                    log.missed.get_or_insert(Stale {
                        reason: LOST,
                        since: now.wall,
                    });
                }
                if let Some(part) = log.part_mut(id) {
                    part.outdated |= state && !switches::off(Switch::Resync);
                    part.lost |= !state && filled;
                }
            }
        }
        self.unlinked(id, now);
        if let Some(outage) = &mut self.nodes[id].outage {
            outage.reason = reason;
            let number = outage.number;
            self.outlasts(id, number);
        }
    }

    /// Something changed keys of a node without an event each.
    pub(super) fn changed(&mut self, id: NodeId, cause: Cause, now: Now) {
        let reason = match cause {
            Cause::Signal | Cause::SignalOfReplica | Cause::Flushed => FLUSHED,
            Cause::Swapped => SWAPPED,
            Cause::FullSync => RESYNCED,
            Cause::Unheard => EVENTS_OFF,
        };
        if cause.loses_events() {
            let events = self.logs.values_mut().filter(|log| log.fifo.is_some() && log.filled);
            for part in events.filter_map(|log| log.part_mut(id)) {
                part.lost = true;
            }
            self.tell_gaps(id, reason, now);
        }
        if cause.may_go_back() {
            for log in self.ids_of(id) {
                self.may_go_back(log, reason, now);
            }
        }
        if cause == Cause::Swapped {
            // The connection may still read what was this database: a new one chooses anew.
            self.unlinked(id, now);
        }
        self.flushed(id, reason, now);
        if cause == Cause::Unheard && self.nodes[id].unheard.take().is_some() {
            for log in self.ids_of(id) {
                self.expect_changed(log, now);
                self.settle(log);
            }
        }
    }

    /// What a log shows may be followed by older values: its subscribers are told, now or when they come back.
    fn may_go_back(&mut self, id: u64, reason: Reason, now: Now) {
        let Some(log) = self.logs.get_mut(&id).filter(|log| log.fifo.is_none()) else {
            return;
        };
        let since = now.wall;
        match log.is_told() {
            true => self.stale(id, reason, since),
            false => drop(log.missed.get_or_insert(Stale { reason, since })),
        }
    }

    /// The server of a node does not send all key events any more.
    pub(super) fn be_unheard(&mut self, id: NodeId, now: Now) {
        self.nodes[id].unheard = Some(now.wall);
        self.verify.excuse(id);
        for log in self.ids_of(id) {
            self.stale(log, EVENTS_OFF, now.wall);
        }
    }

    /// Keys of a node may have changed without events, though the connection is there.
    pub(super) fn flushed(&mut self, id: NodeId, reason: Reason, now: Now) {
        if self.nodes[id].feed.is_none() {
            return;
        }
        for log in self.logs.values_mut().filter(|log| log.fifo.is_none()) {
            if let Some(part) = log.part_mut(id) {
                part.outdated = true;
            }
        }
        self.begin_anew(id, reason, now);
    }

    /// Lets what is outdated be read again from a node that is heard; clients are told if that takes long.
    pub(super) fn begin_anew(&mut self, id: NodeId, reason: Reason, now: Now) {
        self.shared.stats.gap(id, reason.0, None, now.wall);
        self.verify.excuse(id);
        let node = &mut self.nodes[id];
        node.generation += 1;
        let slow = Timer::Slow(id, node.generation);
        self.begin_outdated(id, Some((reason, now)), now);
        self.timers.set(now.mono + PATIENCE, slow);
    }

    /// The server does not answer, or does again and nothing was lost.
    pub(super) fn be_late(&mut self, id: NodeId, late: bool, now: Now) {
        let node = &mut self.nodes[id];
        node.late = (late && node.feed.is_some()).then_some(now.wall);
        let late = node.late;
        for log in self.ids_of(id) {
            if let Some(since) = late {
                self.stale(log, LATE, since);
            } else {
                self.expect_changed(log, now);
                self.settle(log);
            }
        }
    }

    /// The node is a replica that may be behind its primary from now on, or is not any more.
    pub(super) fn be_behind(&mut self, id: NodeId, since: Option<SystemTime>, now: Now) {
        self.nodes[id].behind = since;
        for log in self.ids_of(id) {
            match since {
                Some(since) => self.stale(log, BEHIND, since),
                None => {
                    self.expect_changed(log, now);
                    self.settle(log);
                }
            }
        }
    }

    /// Lets all logs that somebody listens to be read again from the node; the others when somebody returns.
    pub(super) fn begin_outdated(&mut self, node: NodeId, recovery: Option<(Reason, Now)>, now: Now) {
        let listened = |id: &u64| {
            let log = self.logs.get(id).filter(|log| log.is_told());
            log.is_some_and(|log| log.part(node).is_some_and(|part| part.outdated) && self.nodes[node].hears(log.plan))
        };
        let ids: Vec<u64> = self.ids().into_iter().filter(listened).collect();
        if let Some((reason, since)) = recovery {
            // A loss during a recovery makes it longer.
            let recovery = self.recovery.get_or_insert(Recovery {
                since,
                reason,
                logs: 0,
                differences: 0,
            });
            for id in &ids {
                if let Some(log) = self.logs.get_mut(id) {
                    recovery.logs += usize::from(!std::mem::replace(&mut log.recovering, true));
                }
            }
            // So that it ends even if there is no log.
            recovery.logs += 1;
        }
        for id in ids {
            self.begin(id, node, now);
        }
        if recovery.is_some() {
            self.now = now;
            self.recovered();
        }
    }

    /// One log less is being recovered.
    pub(super) fn recovered(&mut self) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.logs = recovery.logs.saturating_sub(1);
        if recovery.logs > 0 {
            return;
        }
        if let Some(Recovery {
            since,
            reason,
            differences,
            ..
        }) = self.recovery.take()
        {
            let took = self.now.mono.saturating_duration_since(since.mono);
            let stats = &self.shared.stats;
            stats.resyncs.add(reason.0);
            stats.resync_time.add(took);
            stats.differences.fetch_add(differences as u64, Ordering::Relaxed);
            let (nodes, owners) = (&self.nodes, self.nodes.owners());
            // A node that is still away has its recovery before it; one that has no keys any more has none.
            let is_over = |node| nodes[node].feed.is_some() || !owners.has_any(node);
            stats
                .gap_log
                .end(self.now.wall, differences as u64, |node| node.is_none_or(is_over));
            let seconds = took.as_secs_f64();
            tracing::info!(reason = reason.0, seconds, differences, "the mirror is true again");
        }
    }

    /// A resync that clients were not told of takes its time.
    pub(super) fn slow(&mut self, node: NodeId, generation: u64, now: Now) {
        if generation != self.nodes[node].generation {
            return;
        }
        // Why it takes long says more than what began it.
        let refusal = self.nodes[node].refusal.as_ref().map(|refusal| refusal.reason);
        let began = self.recovery.as_ref().map(|recovery| recovery.reason);
        let reason = refusal.or(began).unwrap_or(FLUSHED);
        for id in self.ids_of(node) {
            if self.logs.get(&id).is_some_and(|log| !log.is_whole() && log.filled) {
                let since = now.wall.checked_sub(PATIENCE).unwrap_or(now.wall);
                self.stale(id, reason, since);
            }
        }
    }

    /// Where a reader of the node is to connect to, if one is wanted.
    pub fn wants_reader(&self, id: NodeId) -> Option<&Endpoint> {
        let node = &self.nodes[id];
        node.feed
            .as_ref()
            .filter(|_| node.reader.is_none())
            .map(|heard| &heard.at)
    }

    /// Whether keys of the node can be read.
    pub fn has_reader(&self, id: NodeId) -> bool {
        self.nodes[id].reader.is_some()
    }

    /// A reader is connected. `false`: it reads another process than the feed hears and must be given up.
    pub fn linked(&mut self, id: NodeId, run_id: &str, now: Now) -> bool {
        let node = &mut self.nodes[id];
        if node.feed.as_ref().is_none_or(|heard| !is_same(run_id, heard)) {
            return false;
        }
        node.reader = Some(run_id.to_owned());
        self.end_outage(id, now);
        true
    }

    /// The reader's connection is gone. Nothing is lost by that: what was in flight is read again.
    pub fn unlinked(&mut self, id: NodeId, now: Now) {
        self.nodes[id].reader = None;
        self.abandon_flights(id, now);
        // Keys of others that were to be asked for here.
        self.requeue(id);
        match switches::off(Switch::ScanAgain) {
            false => self.abandon_pass(id),
            true => self.end_pass(id),
        }
        self.away(id, now);
    }

    /// Keys of the node cannot be heard or read from now on.
    pub(super) fn away(&mut self, id: NodeId, now: Now) {
        if self.nodes[id].outage.is_none() {
            let number = self.next_id();
            self.nodes[id].outage = Some(Outage {
                number,
                since: now,
                reason: LOST,
                told: false,
            });
            self.timers.set(now.mono + PATIENCE, Timer::Outage(id, number));
        }
    }

    /// The outage is worth telling.
    pub(super) fn outlasts(&mut self, id: NodeId, number: u64) {
        let outage = self.nodes[id].outage.as_mut();
        let Some(outage) = outage.filter(|outage| outage.number == number) else {
            return;
        };
        outage.told = true;
        let (reason, since) = (outage.reason, outage.since.wall);
        for log in self.ids_of(id) {
            self.stale(log, reason, since);
        }
    }

    /// If both connections are there the outage is over; who was told so is told again when all is read.
    fn end_outage(&mut self, id: NodeId, now: Now) {
        let node = &mut self.nodes[id];
        if !node.is_there() {
            return;
        }
        let Some(outage) = node.outage.take() else { return };
        for log in self.ids_of(id) {
            if outage.told {
                self.expect_changed(log, now);
            }
            self.settle(log);
        }
    }
}

//! Events channels: what happened, in order, each with the value read after it, and what was published, as it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::backlog::Backlog;
use super::delivery;
use super::entries::{Captures, Happening, Now};
use super::mirror::Mirror;
use super::resync::OVERFLOW;
use super::values::render;
use crate::hub::{Limit, Payload, Reason};
use crate::keyspace::{EventName, Value};
use crate::mapping::MappingId;
use crate::payload::{Change, Projected};
use crate::upstream::NodeId;

/// A channel that goes on overflowing is told of this often.
const QUIET: Duration = Duration::from_secs(60);

/// One log's happenings from the first that waits for its value on.
#[derive(Debug)]
pub(super) struct Fifo {
    /// Ticket of the first entry.
    first: u64,
    entries: VecDeque<Pending>,
    backlog: Arc<Backlog>,
    /// The log is not fresh before the entry with this ticket is the first.
    until: u64,
    /// When the log was last told that it overflows.
    overflowed: Option<Instant>,
}

/// What will be appended when all before it was.
#[derive(Debug)]
enum Pending {
    /// Waits for the value.
    Happening {
        event: EventName,
        heard_at: u64,
        captures: Captures,
    },
    /// May be appended; nothing where the mapping has no form for it.
    Ready {
        payload: Option<Payload>,
        /// What it counts in the backlog.
        bytes: usize,
        heard_at: u64,
    },
    /// Happenings are missing here.
    Gap { reason: Reason, missed: Option<u64> },
}

impl Fifo {
    pub fn new(backlog: Arc<Backlog>) -> Fifo {
        Fifo {
            first: 0,
            entries: VecDeque::new(),
            backlog,
            until: 0,
            overflowed: None,
        }
    }

    /// What waits now must be appended before the log is fresh.
    pub fn expect(&mut self) {
        self.until = self.first + self.entries.len() as u64;
    }

    /// Whether all that must be appended before the log is fresh was appended.
    pub fn is_fresh(&self) -> bool {
        self.first >= self.until
    }

    /// Whether no happening waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// So many more happenings are missing behind what is here; says whether that is a gap of its own, and not more of the
    /// one that is last.
    fn miss(&mut self, count: u64) -> bool {
        if let Some(Pending::Gap {
            reason: OVERFLOW,
            missed: Some(missed),
        }) = self.entries.back_mut()
        {
            *missed += count;
            return false;
        }
        self.push(Pending::Gap {
            reason: OVERFLOW,
            missed: Some(count),
        });
        true
    }

    fn push(&mut self, pending: Pending) -> u64 {
        self.entries.push_back(pending);
        self.first + self.entries.len() as u64 - 1
    }
}

impl Mirror {
    /// Something happened to a key of an events channel, and was heard at that time.
    pub(super) fn happened(
        &mut self,
        id: u64,
        mapping: MappingId,
        key: Bytes,
        (event, heard_at): (EventName, u64),
        now: Now,
    ) {
        let captures = self.captures(mapping, &key);
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(fifo) = &mut log.fifo else { return };
        if self.keys.len() >= self.limits.keys(false) && !self.keys.contains_key(&key) {
            // Without its value it cannot be told, and there is no place for the key: the last eighth is for channels
            // that would be ended without it.
            fifo.backlog.remove(0);
            self.appender.hub().limited.hit(Limit::Keys);
            return self.missed(id, 1, now);
        }
        let ticket = fifo.push(Pending::Happening {
            event,
            heard_at,
            captures,
        });
        let happening = Happening {
            log: id,
            ticket,
            mapping,
        };
        self.keys.entry(key.clone()).or_default().happenings.push(happening);
        self.dirty(&key, true, now);
    }

    /// A message was published for an events channel, and was heard at that time.
    pub(super) fn published(
        &mut self,
        id: u64,
        mapping: MappingId,
        topic: &[u8],
        (message, heard_at): (Value, u64),
        now: Now,
    ) {
        let captures = self.captures(mapping, topic);
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(fifo) = &mut log.fifo else { return };
        let Some(rule) = self.table.rule(mapping) else { return };
        let bytes = message.size_in_bytes();
        let change = Change {
            channel: &log.log.channel.name,
            key: topic,
            captures: &captures,
            value: &rule.payload.project(message),
            event: None,
            heard_at: Some(heard_at),
            expires_at: None,
        };
        let payload = render(&self.table, &self.shared.stats, &mut self.said, mapping, &change);
        if let Some(payload) = &payload {
            delivery::tell(&log.log, topic, None, payload.absent);
        }
        fifo.push(Pending::Ready {
            payload,
            bytes,
            heard_at,
        });
        self.drain(id, now.mono);
    }

    fn captures(&mut self, mapping: MappingId, name: &[u8]) -> Captures {
        let taken = self.table.mappings.captures(mapping, name, &mut self.scratch);
        let taken = taken.iter().flat_map(|taken| taken.iter());
        taken
            .map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value)))
            .collect()
    }

    /// Happenings were too many to be kept. The gap is appended by [`Mirror::append_gaps`], so that those of one moment are
    /// one.
    pub(super) fn missed(&mut self, id: u64, count: u64, now: Now) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(fifo) = &mut log.fifo else { return };
        let stats = &self.shared.stats;
        if fifo.miss(count) {
            self.reached.gaps.push(id);
            stats.gaps.add(OVERFLOW.0);
        }
        stats.missed.fetch_add(count, Ordering::Relaxed);
        let until = fifo.overflowed.map(|last| last + QUIET);
        if until.is_none_or(|until| until <= now.mono) {
            fifo.overflowed = Some(now.mono);
            let detail = format!(
                "more happens than the events channel `{}` can keep",
                log.log.channel.name
            );
            let gaps = &stats.gap_log;
            gaps.begin(None, String::new(), OVERFLOW.0, Some(detail), now.wall);
            gaps.end(now.wall, 0, |node| node.is_none());
            tracing::warn!(count, "an events channel overflows: its subscribers are told");
        }
    }

    /// Appends the gaps before which nothing waits.
    pub(super) fn append_gaps(&mut self, now: Now) {
        for id in std::mem::take(&mut self.reached.gaps) {
            self.drain(id, now.mono);
        }
    }

    /// The feed of the node hears again: whoever reads a log that it did not hear for must know.
    pub(super) fn tell_gaps(&mut self, node: NodeId, reason: Reason, now: Now) {
        for id in self.ids() {
            let Some(log) = self.logs.get_mut(&id) else { continue };
            let lost = log.part_mut(node).is_some_and(|part| std::mem::take(&mut part.lost));
            if let Some(fifo) = log.fifo.as_mut().filter(|_| lost) {
                fifo.push(Pending::Gap { reason, missed: None });
                self.drain(id, now.mono);
            }
        }
    }

    /// The value of a happening's key was read after it happened; `None` for one that cannot be read.
    pub(super) fn serve(
        &mut self,
        happening: Happening,
        key: &[u8],
        value: Option<&Projected>,
        expires_at: Option<u64>,
    ) {
        let Happening {
            log: id,
            ticket,
            mapping,
        } = happening;
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(fifo) = &mut log.fifo else { return };
        let at = ticket
            .checked_sub(fifo.first)
            .and_then(|at| fifo.entries.get_mut(at as usize));
        let Some(pending) = at else { return };
        let Pending::Happening {
            event,
            heard_at,
            captures,
        } = &*pending
        else {
            return;
        };
        let heard_at = *heard_at;
        let payload = value.and_then(|value| {
            let change = Change {
                channel: &log.log.channel.name,
                key,
                captures,
                value,
                event: Some(event),
                heard_at: Some(heard_at),
                expires_at,
            };
            render(&self.table, &self.shared.stats, &mut self.said, mapping, &change)
        });
        if let Some(payload) = &payload {
            delivery::tell(&log.log, key, Some(event), payload.absent);
        }
        *pending = Pending::Ready {
            payload,
            bytes: 0,
            heard_at,
        };
    }

    /// Appends what waits for nothing.
    pub(super) fn drain(&mut self, id: u64, now: Instant) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(fifo) = &mut log.fifo else { return };
        while let Some(pending) = fifo.entries.front_mut() {
            match pending {
                Pending::Happening { .. } => break,
                Pending::Ready {
                    payload,
                    bytes,
                    heard_at,
                } => {
                    fifo.backlog.remove(*bytes);
                    if let Some(payload) = payload.take() {
                        self.appender.heard(Some(*heard_at));
                        self.appender.push(&log.log, payload, now);
                    }
                }
                Pending::Gap { reason, missed } => self.appender.gap(&log.log, *reason, *missed, now),
            }
            fifo.entries.pop_front();
            fifo.first += 1;
        }
        self.settle(id);
    }
}

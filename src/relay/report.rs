//! What operators are told of the mirror: its sizes, and whether its keys can be read.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use smallvec::SmallVec;

use super::entries::{Now, Trouble};
use super::mirror::Mirror;
use super::node::Node;
use super::resync::LOST;
use crate::hub::Reason;
use crate::upstream::reader::ReadError;

/// Why keys of a node could not be read for so long that clients were told.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    pub reason: Reason,
    pub since: SystemTime,
    /// The server's words.
    error: String,
}

impl Complaint {
    pub fn new(reason: Reason, since: Now, error: &ReadError) -> Complaint {
        Complaint {
            reason,
            since: since.wall,
            error: error.to_string(),
        }
    }
}

/// Keys of a node that could not be read for so long that clients were told.
#[derive(Debug, Default)]
pub(super) struct Failing {
    keys: usize,
    /// Of the first of them.
    first: Option<Complaint>,
}

impl Failing {
    /// One more.
    pub fn add(&mut self, reason: Reason, since: Now, error: &ReadError) {
        self.keys += 1;
        self.first.get_or_insert_with(|| Complaint::new(reason, since, error));
    }

    /// One less, if it was one of them.
    pub fn remove(&mut self, trouble: &Trouble) {
        if trouble.logs.is_empty() {
            return;
        }
        self.keys -= 1;
        if self.keys == 0 {
            self.first = None;
        }
    }
}

/// What is said of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Why its keys cannot be read, and since when.
    trouble: Option<(Reason, SystemTime)>,
    /// Whether it has keys at all.
    serves: bool,
}

impl Mirror {
    /// Says how things stand now.
    pub fn report(&mut self, now: Now) {
        let stats = &self.shared.stats;
        let dirty = self.nodes.iter().map(|node| node.queue.len()).sum();
        stats.dirty.store(dirty, Ordering::Relaxed);
        stats.keys.store(self.keys.len(), Ordering::Relaxed);
        stats.deadlines.store(self.deadlines.len(), Ordering::Relaxed);
        for id in self.nodes.ids() {
            let serves = self.nodes.owners().has_any(id);
            let node = &mut self.nodes[id];
            node.lapse(now);
            let report = Report {
                trouble: node.trouble(now),
                serves,
            };
            if node.reported == Some(report) {
                continue;
            }
            let before = node.reported.replace(report).and_then(|report| report.trouble);
            let complaint = node.complaint().filter(|_| node.reader.is_some());
            stats.node(id, |node| {
                node.serves = serves;
                match (report.trouble, complaint) {
                    (Some((reason, since)), Some(complaint)) => node.readable.fail(reason.0, &*complaint.error, since),
                    (Some((reason, since)), None) => {
                        node.readable
                            .fail(reason.0, "there is no connection to read with", since);
                    }
                    (None, _) => node.readable.mend(now.wall),
                }
            });
            // Of a connection that is lost those tell who make it.
            let address = node.feed.as_ref().map(|heard| heard.at.address.to_string());
            match (complaint, before) {
                (Some(Complaint { reason, .. }), Some((before, _))) if *reason == before => {}
                (Some(Complaint { reason, error, .. }), _) => {
                    tracing::warn!(
                        address,
                        reason = reason.0,
                        error,
                        "keys cannot be read: clients are told stale"
                    );
                }
                (None, Some((reason, _))) if report.trouble.is_none() && reason != LOST => {
                    tracing::info!(address, "keys can be read again");
                }
                _ => {}
            }
        }
    }

    /// The key was read, or nobody waits for it any more: that it could not be read is over. Gives the logs that counted it,
    /// if there was any trouble.
    pub(super) fn forgive(&mut self, key: &Bytes) -> Option<SmallVec<[u64; 2]>> {
        let trouble = self.keys.get_mut(key).and_then(|entry| entry.trouble.take())?;
        self.troubled.remove(key);
        self.nodes[trouble.node].failing.remove(&trouble);
        for id in &trouble.logs {
            if let Some(log) = self.logs.get_mut(id) {
                log.failing -= 1;
            }
        }
        Some(trouble.logs)
    }
}

impl Node {
    /// Why its keys cannot be read, and since when.
    fn trouble(&self, now: Now) -> Option<(Reason, SystemTime)> {
        if self.reader.is_none() {
            let since = self.outage.as_ref().map_or(now, |outage| outage.since);
            return Some((LOST, since.wall));
        }
        self.complaint().map(|complaint| (complaint.reason, complaint.since))
    }

    /// What clients were told of reads that come to nothing.
    fn complaint(&self) -> Option<&Complaint> {
        let refusal = self.refusal.as_ref().and_then(|refusal| refusal.told.as_ref());
        refusal
            .or(self.failing.first.as_ref())
            .or_else(|| self.scans.complaint())
    }
}

//! What operators are told of the mirror: its sizes, and whether its keys can be read.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::entries::{Now, Trouble};
use super::mirror::Mirror;
use super::node::Node;
use super::reads::PATIENCE;
use super::resync::LOST;
use crate::hub::Reason;

/// Keys that could not be read for a while, and clients were told.
#[derive(Debug, Default)]
pub(super) struct Failing {
    keys: usize,
    /// Why the first of them failed, and since when.
    first: Option<(Reason, SystemTime)>,
}

impl Failing {
    /// One more.
    pub fn add(&mut self, reason: Reason, since: SystemTime) {
        self.keys += 1;
        self.first.get_or_insert((reason, since));
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
#[derive(Debug, PartialEq, Eq)]
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
        for id in self.nodes.ids() {
            let serves = self.nodes.owners().has_any(id);
            let node = &mut self.nodes[id];
            let report = Report {
                trouble: node.trouble(now),
                serves,
            };
            if node.reported.as_ref() == Some(&report) {
                continue;
            }
            stats.node(id, |node| {
                node.serves = serves;
                match report.trouble {
                    Some((reason, since)) => node.readable.fail(reason.0, detail(reason), since),
                    None => node.readable.mend(now.wall),
                }
            });
            node.reported = Some(report);
        }
    }
}

impl Node {
    /// Why its keys cannot be read, and since when.
    fn trouble(&self, now: Now) -> Option<(Reason, SystemTime)> {
        if self.reader.is_none() {
            let since = self.outage.as_ref().map_or(now, |outage| outage.since);
            return Some((LOST, since.wall));
        }
        let scan = self.scans.trouble();
        let scan = scan.filter(|trouble| now.mono.saturating_duration_since(trouble.since.mono) >= PATIENCE);
        let refusal = self.refusal.as_ref().and_then(|refusal| refusal.told());
        refusal
            .or(self.failing.first)
            .or(scan.map(|trouble| (trouble.reason, trouble.since.wall)))
    }
}

fn detail(reason: Reason) -> String {
    match reason {
        LOST => "there is no connection to read with".into(),
        Reason(word) => format!("the server does not give the values of keys ({word})"),
    }
}

//! What the relay counts, and what is true of its upstream nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::gaps::Gaps;
use crate::tally::{Durations, Tally};
#[cfg(doc)]
use crate::upstream::feed::LostReason;
use crate::upstream::feed::Role;
use crate::upstream::{NodeId, ServerInfo};

pub use super::refusal::KINDS;
pub use super::resync::GAPS;
pub use crate::mapping::UNROUTABLE;

/// Every number is read on its own; together they are a moment's blur.
#[derive(Debug, Default)]
pub struct Stats {
    /// Key events heard.
    pub events: AtomicU64,
    /// Those of them that belong to a channel that somebody listens to.
    pub mapped: AtomicU64,
    /// Messages heard on Pub/Sub channels.
    pub published: AtomicU64,
    /// Those of them that have no channel, as their mapping names it after a field of the message ([`UNROUTABLE`]).
    pub unroutable: Tally,
    /// Losses of the feed, once for each reason that was found while it was away ([`LostReason::WORDS`]).
    pub lost: Tally,
    /// Times that the feed heard again after a loss.
    pub reconnects: AtomicU64,
    /// Times that the server did not answer in time.
    pub late: AtomicU64,
    /// Gaps: times from when on events may have been missed ([`GAPS`]).
    pub gaps: Tally,
    /// The last of them, each with how it ended.
    pub gap_log: Gaps,
    /// Resyncs that came to their end, by the gap that they followed.
    pub resyncs: Tally,
    /// How long a resync took, from the gap to its end.
    pub resync_time: Durations,
    /// Slots that a resync found to differ.
    pub differences: AtomicU64,
    /// Differences that a second look found and that nothing accounted for.
    pub repairs: AtomicU64,
    /// Keys read.
    pub reads: AtomicU64,
    /// Reads and scans that gave no value ([`KINDS`]).
    pub read_errors: Tally,
    /// Microseconds that passes have waited between their pages, so as not to take more than their share of the server.
    pub scan_pauses: AtomicU64,
    /// Happenings of events channels that were too many to be kept.
    pub missed: AtomicU64,
    /// Changes that the mapping's format has no form for.
    pub unsendable: AtomicU64,
    /// Channels that are stale now.
    pub stale: AtomicUsize,
    /// Keys mirrored now.
    pub keys: AtomicUsize,
    /// Keys that wait to be read now.
    pub dirty: AtomicUsize,
    /// Keys whose expiry is awaited now.
    pub deadlines: AtomicUsize,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    /// By the pattern; mappings of the same one count together.
    mappings: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

/// One upstream node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is.
    pub address: String,
    /// Whether its key events are heard.
    pub heard: Condition,
    /// Whether its keys are read.
    pub readable: Condition,
    /// Whether it has what its primary has, if it is a plain replica.
    pub current: Condition,
    /// What it said that it is since it was last heard. That links of an active replica are down is no trouble.
    pub role: Option<Role>,
    /// Whether it has keys; one that has none any more, or none yet, does not count.
    pub serves: bool,
    /// What it said of itself when it was last heard.
    pub server: Option<ServerInfo>,
}

/// What is well, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is wrong with it; nothing if it is well.
    pub trouble: Option<Trouble>,
    /// Since when it is well, or is not: another trouble in place of one does not begin anew.
    pub since: SystemTime,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub detail: String,
}

impl Stats {
    /// Changes what is known of a node; one that is not known yet is made.
    pub fn node(&self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        change(nodes.entry(id).or_insert_with(Node::new));
    }

    /// Key events heard, and those of them that belong to a channel that somebody listens to: never more than the first.
    pub fn key_events(&self) -> (u64, u64) {
        // The second is counted after the first, so it is read before it.
        let mapped = self.mapped.load(Ordering::Acquire);
        (self.events.load(Ordering::Acquire).max(mapped), mapped)
    }

    /// What counts the events and messages that mappings of this pattern have taken for a channel that somebody listens to.
    pub fn mapping(&self, pattern: &str) -> Arc<AtomicU64> {
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.entry(pattern.to_owned()).or_default().clone()
    }

    /// How much each pattern's mappings have taken, those that have taken nothing left out.
    pub fn mappings(&self) -> Vec<(String, u64)> {
        let mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = mappings
            .iter()
            .map(|(pattern, count)| (pattern.clone(), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Events of this node may be missed from now on.
    pub(super) fn gap(&self, id: NodeId, reason: &'static str, detail: Option<&str>, since: SystemTime) {
        self.gaps.add(reason);
        let mut address = String::new();
        self.node(id, |node| address.clone_from(&node.address));
        self.gap_log
            .begin(Some(id), address, reason, detail.map(str::to_owned), since);
    }

    /// All nodes that have keys, in the order of their numbers.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.values().filter(|node| node.serves).cloned().collect()
    }
}

impl Node {
    fn new() -> Node {
        let connecting = Condition {
            trouble: Some(Trouble {
                reason: "connecting",
                detail: "there was no connection yet".into(),
            }),
            since: SystemTime::now(),
        };
        Node {
            address: String::new(),
            heard: connecting.clone(),
            readable: connecting,
            current: Condition {
                trouble: None,
                since: SystemTime::now(),
            },
            role: None,
            serves: true,
            server: None,
        }
    }
}

impl Condition {
    /// It is not well since then, unless it was not before.
    pub fn fail(&mut self, reason: &'static str, detail: impl Into<String>, since: SystemTime) {
        if self.trouble.is_none() {
            self.since = since;
        }
        let detail = detail.into();
        self.trouble = Some(Trouble { reason, detail });
    }

    /// It is well since then, unless it was before.
    pub fn mend(&mut self, since: SystemTime) {
        if self.trouble.take().is_some() {
            self.since = since;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_condition_counts_from_its_last_turn() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut condition = Condition {
            trouble: None,
            since: at(0),
        };
        condition.mend(at(1));
        assert_eq!(condition.since, at(0));
        condition.fail("closed", "it went", at(2));
        condition.fail("unreachable", "it is away", at(3));
        let trouble = condition.trouble.as_ref().map(|trouble| trouble.reason);
        assert_eq!((trouble, condition.since), (Some("unreachable"), at(2)));
        condition.mend(at(4));
        condition.mend(at(5));
        assert_eq!((condition.trouble, condition.since), (None, at(4)));
    }
}

//! Keys that become another node's: a cluster has moved slots.

use smallvec::SmallVec;

use super::entries::{LogEntry, Now, Part, Scan};
use super::mirror::Mirror;
use super::node::{Owners, slot_of_all};
use crate::hub::Reason;
use crate::mapping::{KeySet, Source};
use crate::switches::{self, Switch};
use crate::upstream::NodeId;
use crate::upstream::reader::ReadError;
use crate::upstream::topology::slots::{self, Slots};

/// Keys are on another node than before.
pub(super) const MOVED: Reason = Reason("upstream-moved");

impl Mirror {
    /// Makes a node known that something was heard of; like all it begins by being away.
    pub(super) fn know(&mut self, node: NodeId, now: Now) {
        while self.nodes.len() <= usize::from(node.0) {
            let added = self.nodes.add();
            self.away(added, now);
        }
    }

    /// The nodes have these slots from now on. What the keys of moved slots went through on their way was perhaps not
    /// heard, so they are read again from where they are now; at once if that node is heard, else as soon as it is.
    pub(super) fn share_out(&mut self, slots: Slots, now: Now) {
        for &node in slots.holders() {
            self.know(node, now);
        }
        let before = self.nodes.share_out(slots.clone());
        let moved = Moved::between(before, slots);
        if moved.gained.is_empty() {
            return;
        }
        for node in self.nodes.ids() {
            self.requeue(node);
        }
        for id in self.ids() {
            let Some(log) = self.logs.get_mut(&id) else { continue };
            let nodes = self.nodes.owners().of_all(&log.sources);
            let parts: SmallVec<[Part; 1]> = nodes.into_iter().map(|node| moved.part(log, node)).collect();
            log.parts = parts;
        }
        for node in moved.gained {
            if self.nodes[node].feed.is_some() {
                self.tell_gaps(node, MOVED, now);
                self.begin_anew(node, MOVED, now);
            }
        }
        // Some of them waited for a node that is theirs no more, and others are a node's now that is away.
        for id in self.ids() {
            if self.logs.get(&id).is_some_and(LogEntry::is_told) {
                self.resume(id, now);
            }
        }
    }

    /// Sorts the keys that wait to be read from a node to where they are now.
    pub(super) fn requeue(&mut self, node: NodeId) {
        if matches!(self.nodes.owners(), Owners::One) {
            return;
        }
        let queue = &mut self.nodes[node].queue;
        let urgent = std::mem::take(&mut queue.urgent);
        let (bulk, alone) = (std::mem::take(&mut queue.bulk), std::mem::take(&mut queue.alone));
        for (keys, urgent) in [(urgent, true), (alone, true), (bulk, false)] {
            for key in keys {
                if let Some(entry) = self.keys.get_mut(&key) {
                    entry.asked = None;
                }
                let owner = self.nodes.owners().of(&key);
                self.nodes[owner].queue.push(key, urgent);
            }
        }
    }

    /// The node that a key was said to be on while its slot is moved there, if it can be asked.
    pub(super) fn asked(&self, error: &ReadError) -> Option<NodeId> {
        let node = self.nodes.at(&error.asks()?)?;
        self.nodes[node].is_there().then_some(node)
    }
}

/// Slots that are another node's than before.
struct Moved {
    before: Owners,
    now: Slots,
    /// Who got some.
    gained: Vec<NodeId>,
}

impl Moved {
    fn between(before: Owners, now: Slots) -> Moved {
        let mut moved = Moved {
            before,
            now,
            gained: Vec::new(),
        };
        let gained = moved.now.holders().iter().copied();
        moved.gained = gained
            .filter(|&node| (0..slots::COUNT).any(|slot| moved.to(node, slot)))
            .collect();
        moved
    }

    /// Whether the node got this slot.
    fn to(&self, node: NodeId, slot: u16) -> bool {
        self.now.node(slot) == node && self.before.of_slot(slot) != node
    }

    /// What a log waits for of a node from now on.
    fn part(&self, log: &LogEntry, node: NodeId) -> Part {
        let arrived = |source: &Source| match (&source.keys, slot_of_all(&source.keys)) {
            // What is published has no slot.
            (KeySet::Published(_), _) => false,
            (_, Some(slot)) => self.to(node, slot),
            (_, None) => self.gained.contains(&node),
        };
        let arrived = log.sources.iter().any(arrived);
        let state = log.fifo.is_none();
        let mut part = log.part(node).copied().unwrap_or(Part {
            node,
            outdated: false,
            lost: false,
            scan: Scan::Done,
        });
        part.outdated |= arrived && state && !switches::off(Switch::Moved);
        part.lost |= arrived && !state && log.filled;
        part
    }
}

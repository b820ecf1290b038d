//! The upstream nodes as the mirror knows them: which keys are whose, and how each of them is.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::HashMap;
use smallvec::{SmallVec, smallvec};

use super::reads::{BATCH_KEYS, Flight};
use super::refusal::Refusal;
use super::report::{Failing, Report};
use super::resync::Outage;
use super::scan::{Scans, literal_prefix};
use crate::mapping::{KeySet, Source};
#[cfg(doc)]
use crate::upstream::feed;
use crate::upstream::topology::slots::{Slots, slot_of};
use crate::upstream::{Address, Endpoint, NodeId};

/// What is heard of one node, what is asked of it, and what keeps it from answering.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Grows whenever changes may have happened unheard: replies to what was asked before are void.
    pub generation: u64,
    /// The process that the feed hears, while it does.
    pub feed: Option<Heard>,
    /// The [plan](feed::Plan) by which it hears, or heard last.
    pub plan: u64,
    /// The process that the reader reads, while it does.
    pub reader: Option<String>,
    /// Since when the server does not answer the feed.
    pub late: Option<SystemTime>,
    /// Since when it is a replica that may be behind its primary.
    pub behind: Option<SystemTime>,
    /// Since when the server does not send all key events.
    pub unheard: Option<SystemTime>,
    /// Set while keys cannot be heard or read.
    pub outage: Option<Outage>,
    /// Set while the server answers no reads at all.
    pub refusal: Option<Refusal>,
    /// Keys to be read; an entry is void unless its key is in [`State::Queued`](super::entries::State::Queued).
    pub queue: Queue,
    /// Batches of reads under way.
    pub flights: HashMap<u64, Flight>,
    pub scans: Scans,
    pub failing: Failing,
    /// Why its keys could not be read, as operators were told last.
    pub reported: Option<Report>,
}

/// The process that a feed hears, and where.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub run_id: String,
    pub at: Endpoint,
}

/// Keys to be read: those that changed before those that only need to be known.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub urgent: VecDeque<Bytes>,
    pub bulk: VecDeque<Bytes>,
    /// Keys that need most of the room for what is read: each finds it only while nothing else is under way. They come here
    /// from the other two, so that those have their turn before there are more of them.
    pub alone: VecDeque<Bytes>,
    /// Keys for a second look; whatever happened to them since has taken its own place. A few, or none.
    pub looks: Vec<Bytes>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.urgent.len() + self.bulk.len() + self.alone.len()
    }

    /// Keeps only keys that are still to be read; one that stands in two queues, in both.
    pub fn retain(&mut self, keep: impl Fn(&Bytes) -> bool) {
        self.urgent.retain(&keep);
        self.bulk.retain(&keep);
        self.alone.retain(&keep);
    }

    pub fn push(&mut self, key: Bytes, urgent: bool) {
        if urgent { &mut self.urgent } else { &mut self.bulk }.push_back(key);
    }
}

impl Node {
    /// Whether what is known of its keys can be true.
    pub fn is_healthy(&self) -> bool {
        self.outage.is_none() && [self.late, self.behind, self.unheard].iter().all(Option::is_none)
    }

    /// Whether it can be asked for keys: events are heard, and values can be read.
    pub fn is_there(&self) -> bool {
        self.feed.is_some() && self.reader.is_some()
    }

    /// Whether all is heard of it that this plan, or an earlier one, asks for.
    pub fn hears(&self, plan: u64) -> bool {
        self.feed.is_some() && self.plan >= plan
    }

    /// Keys in queues and in flight.
    pub fn unread(&self) -> usize {
        self.queue.len() + self.flights.len() * BATCH_KEYS
    }
}

/// All nodes, and which keys are whose.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    owners: Owners,
}

/// Which keys are whose.
#[derive(Clone, Debug)]
pub(super) enum Owners {
    /// All keys are the first node's.
    One,
    Many(Slots),
}

impl Owners {
    /// Whose key this is.
    pub fn of(&self, key: &[u8]) -> NodeId {
        match self {
            Owners::One => NodeId::FIRST,
            Owners::Many(slots) => slots.node(slot_of(key)),
        }
    }

    /// Whose slot this is.
    pub fn of_slot(&self, slot: u16) -> NodeId {
        match self {
            Owners::One => NodeId::FIRST,
            Owners::Many(slots) => slots.node(slot),
        }
    }

    /// Whether the node has any keys.
    pub fn has_any(&self, node: NodeId) -> bool {
        match self {
            Owners::One => node == NodeId::FIRST,
            Owners::Many(slots) => slots.holders().contains(&node),
        }
    }

    /// Who may have keys of these sources, or hears what is published for them, in order.
    pub fn of_all(&self, sources: &[Source]) -> SmallVec<[NodeId; 1]> {
        let Owners::Many(slots) = self else {
            return smallvec![NodeId::FIRST];
        };
        let mut nodes: SmallVec<[NodeId; 1]> = SmallVec::new();
        for source in sources {
            match (&source.keys, slot_of_all(&source.keys)) {
                // A cluster passes on to all nodes what is published; the first feed alone hears it.
                (KeySet::Published(_), _) => nodes.push(NodeId::FIRST),
                (_, Some(slot)) => nodes.push(slots.node(slot)),
                (_, None) => nodes.extend_from_slice(slots.holders()),
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Whether the node may have keys of the set.
    pub fn has(&self, node: NodeId, keys: &KeySet) -> bool {
        match (self, slot_of_all(keys)) {
            (Owners::Many(slots), Some(slot)) => slots.node(slot) == node,
            (Owners::Many(_), None) if matches!(keys, KeySet::Published(_)) => node == NodeId::FIRST,
            _ => self.has_any(node),
        }
    }
}

/// The one slot that all keys of the set are in, if there is one.
pub(super) fn slot_of_all(keys: &KeySet) -> Option<u16> {
    match keys {
        KeySet::One(key) => Some(slot_of(key)),
        KeySet::Matching(glob) => {
            let prefix = literal_prefix(glob);
            let tag = prefix.iter().position(|&byte| byte == b'{')? + 1;
            let length = prefix[tag..].iter().position(|&byte| byte == b'}')?;
            // An empty tag is none: then all of the key counts.
            (length > 0).then(|| slot_of(&prefix))
        }
        KeySet::Published(_) => None,
    }
}

impl Nodes {
    /// One node that has all keys.
    pub fn new() -> Nodes {
        Nodes {
            nodes: vec![Node::default()],
            owners: Owners::One,
        }
    }

    /// Which keys are whose.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Says anew which keys are whose.
    pub fn share_out(&mut self, slots: Slots) -> Owners {
        std::mem::replace(&mut self.owners, Owners::Many(slots))
    }

    /// Adds one that is not known yet.
    pub fn add(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        NodeId((self.nodes.len() - 1) as u16)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.nodes.iter()
    }

    /// The node whose key this is.
    pub fn owner(&mut self, key: &[u8]) -> &mut Node {
        let id = self.owners.of(key);
        &mut self[id]
    }

    /// The node that was reached at an address.
    pub fn at(&self, address: &Address) -> Option<NodeId> {
        let is_there = |node: &Node| node.feed.as_ref().is_some_and(|heard| heard.at.address == *address);
        let at = self.nodes.iter().position(is_there)?;
        Some(NodeId(at as u16))
    }
}

impl Index<NodeId> for Nodes {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id.0)]
    }
}

impl IndexMut<NodeId> for Nodes {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(id.0)]
    }
}

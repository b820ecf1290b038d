//! Which node a key is on: the slots of a cluster.

use std::sync::Arc;

use redis_protocol::redis_keyslot;

use crate::upstream::NodeId;

/// How many slots the keys of a cluster are spread over.
pub const COUNT: u16 = 16_384;

/// Which node holds which slot. A slot that nobody serves stays with the node that had it last: asked for a key of it, a
/// server says that it does not serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    nodes: Arc<[NodeId]>,
    /// Each node that has a slot, once, in order.
    holders: Arc<[NodeId]>,
}

/// The slot of a key.
pub fn slot_of(key: &[u8]) -> u16 {
    redis_keyslot(key)
}

impl Slots {
    /// Who holds a slot.
    pub fn node(&self, slot: u16) -> NodeId {
        self.nodes[usize::from(slot % COUNT)]
    }

    /// Each node that has a slot, once, in order.
    pub fn holders(&self) -> &[NodeId] {
        &self.holders
    }
}

impl FromIterator<NodeId> for Slots {
    /// One node for each slot, in order; slots that are left over are the first node's.
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Slots {
        let rest = std::iter::repeat(NodeId::FIRST);
        let nodes: Arc<[NodeId]> = nodes.into_iter().chain(rest).take(usize::from(COUNT)).collect();
        let mut holders = nodes.to_vec();
        holders.sort_unstable();
        holders.dedup();
        Slots {
            nodes,
            holders: holders.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` has them.
    #[test]
    fn keys_have_the_slots_that_servers_give_them() {
        for (key, slot) in [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{foo}.bar", 12182),
            ("a{foo}", 12182),
            // An empty tag is none.
            ("{}foo{bar}", 6127),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }
}

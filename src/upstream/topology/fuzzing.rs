//! What servers say of others.

use redis_protocol::resp3::types::OwnedFrame;

use super::{cluster, nodes::View, sentinel, slots};
use crate::upstream::{Address, NodeId};

/// Takes each two replies as a sentinel's.
pub(in crate::upstream) fn answers(mut replies: impl Iterator<Item = OwnedFrame>) {
    while let (Some(address), Some(fields)) = (replies.next(), replies.next()) {
        let _ = (sentinel::address_in(address, "main"), sentinel::epoch_in(fields));
    }
}

/// What is understood of a node's answer is a cluster: each slot is one, and each primary gets a seat of its own.
pub(in crate::upstream) fn nodes(text: &str) {
    let asked = Address::Tcp {
        host: "asked".into(),
        port: 1,
    };
    let Some(view) = View::parse(text, &asked) else { return };
    let all = view.primaries.iter().flat_map(|primary| primary.slots.iter().cloned());
    assert!(all.clone().flatten().all(|slot| slot < slots::COUNT));
    assert_eq!(view.covered(), all.flatten().count());
    let taken: Vec<&str> = view
        .primaries
        .iter()
        .rev()
        .map(|primary| primary.id.as_str())
        .take(3)
        .collect();
    let seats = cluster::seats(&taken, &[NodeId(1), NodeId(2)], &view.primaries);
    assert_eq!(seats.len(), view.primaries.len());
    assert!(seats.contains(&NodeId::FIRST));
    let mut once = seats.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seats.len(), "{text:?}");
}

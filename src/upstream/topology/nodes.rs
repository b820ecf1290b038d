//! What a node of a cluster says of all of them: its answer to `CLUSTER NODES`.
//!
//! Unlike `CLUSTER SLOTS` it names primaries that have no slots yet: keys may be on their way there already, and what is
//! written to them is heard only there.

use std::ops::RangeInclusive;

use super::slots;
use crate::upstream::Address;

/// Most nodes of a cluster, the number that its specification foresees: each primary gets a feed of its own.
const MAX_NODES: usize = 1000;

/// What one node knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// How new the configuration is that the node itself stands for; 0 if it is no primary. It grows with each failover
    /// and each slot that is taken over, so that of two primaries which both have a slot the one with the larger is right.
    pub epoch: u64,
    pub primaries: Vec<Primary>,
    /// Nodes that have no keys of their own, but know where they are.
    pub others: Vec<Address>,
}

/// A primary as another node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    /// Its name in the cluster, the same whatever its address.
    pub id: String,
    pub address: Address,
    pub slots: Vec<RangeInclusive<u16>>,
}

impl View {
    /// Reads an answer of the node at `asked`; None if it is none.
    pub fn parse(text: &str, asked: &Address) -> Option<View> {
        let mut view = View::default();
        let lines = text.lines().filter(|line| !line.is_empty());
        for (number, line) in lines.enumerate() {
            if number >= MAX_NODES {
                return None;
            }
            let mut words = line.split(' ');
            let mut next = || words.next();
            let (id, place, flags) = (next()?, next()?, next()?);
            let (_primary, _ping, _pong, epoch, _link) = (next()?, next()?, next()?, next()?, next()?);
            let is = |flag: &str| flags.split(',').any(|each| each == flag);
            let Some(address) = address(place, asked).filter(|_| !is("noaddr") && !is("handshake")) else {
                continue;
            };
            if is("myself") && is("master") {
                view.epoch = epoch.parse().ok()?;
            }
            // In brackets stands what is on its way.
            let slots = words.filter(|word| !word.starts_with('[')).map(range);
            let slots: Vec<_> = slots.collect::<Option<_>>()?;
            // One that failed and has nothing will not come back as it was.
            let gone = is("fail") && slots.is_empty();
            if is("master") && !gone {
                let id = id.to_owned();
                view.primaries.push(Primary { id, address, slots });
            } else {
                view.others.push(address);
            }
        }
        // A slot is one primary's. This also bounds what is done for each range.
        if view.covered() > usize::from(slots::COUNT) {
            return None;
        }
        // Each node has its own order.
        view.primaries.sort_by(|a, b| a.id.cmp(&b.id));
        // Each gets a seat by its name.
        if view.primaries.windows(2).any(|pair| pair[0].id == pair[1].id) {
            return None;
        }
        (!view.primaries.is_empty()).then_some(view)
    }

    /// Where all of them are.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let primaries = self.primaries.iter().map(|primary| &primary.address);
        primaries.chain(&self.others)
    }

    /// How many slots somebody has.
    pub fn covered(&self) -> usize {
        let slots = self.primaries.iter().flat_map(|primary| primary.slots.iter().cloned());
        slots.map(Iterator::count).sum()
    }
}

/// `host:port@port`, perhaps with more behind a comma. A node that does not know how others reach it leaves out the host:
/// it is where it was `asked`.
fn address(place: &str, asked: &Address) -> Option<Address> {
    let place = place.split([',', '@']).next()?;
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port > 0)?;
    match (host, asked) {
        ("", Address::Tcp { host, .. }) => Some(host.clone()),
        ("", Address::Unix(_)) => None,
        _ => Some(host.to_owned()),
    }
    .map(|host| Address::Tcp { host, port })
}

fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty() && *range.end() < slots::COUNT).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        let host = host.to_owned();
        Address::Tcp { host, port }
    }

    #[test]
    fn an_answer_is_understood() {
        let text = "\
            aaa :7000@17000 myself,master - 0 0 7 connected 0-100 200 [93-<-bbb] [77->-bbb]\n\
            bbb ::1:7001@17001,host.internal master - 0 1 3 connected 101-199\n\
            ccc 127.0.0.1:7002@17002 slave bbb 0 1 3 connected\n\
            ddd 127.0.0.1:7003@17003 master,fail - 0 1 2 disconnected\n\
            eee 127.0.0.1:7004@17004 master - 0 1 0 connected\n\
            fff :0@0 master,noaddr - 0 1 0 disconnected\n";
        let view = View::parse(text, &at("10.0.0.1", 7000)).unwrap();
        assert_eq!((view.epoch, view.covered()), (7, 201));
        let primaries = view
            .primaries
            .iter()
            .map(|primary| (primary.id.as_str(), &primary.address));
        assert_eq!(
            primaries.collect::<Vec<_>>(),
            [
                ("aaa", &at("10.0.0.1", 7000)),
                ("bbb", &at("::1", 7001)),
                ("eee", &at("127.0.0.1", 7004))
            ]
        );
        assert_eq!(view.primaries[0].slots, [0..=100, 200..=200]);
        assert_eq!(view.others, [at("127.0.0.1", 7002), at("127.0.0.1", 7003)]);
    }

    #[test]
    fn a_replica_stands_for_nothing() {
        let text = "aaa h:1@2 master - 0 0 7 connected 0-1\nbbb h:2@3 myself,slave aaa 0 0 7 connected\n";
        assert_eq!(View::parse(text, &at("h", 2)).unwrap().epoch, 0);
    }

    #[test]
    fn other_text_is_no_answer() {
        for text in [
            "",
            "\n",
            "hello",
            "a b c d e f g h\n",
            "a h:1@2 master - 0 0 x connected 5-y\n",
            // Slots that are none, and one slot of two primaries.
            "a h:1@2 master - 0 0 1 connected 0-16384\n",
            "a h:1@2 master - 0 0 1 connected 9-1\n",
            "a h:1@2 master - 0 0 1 connected 0-16383\nb h:2@2 master - 0 0 1 connected 7\n",
            "a h:1@2 master - 0 0 1 connected 0\na h:2@2 master - 0 0 1 connected 1\n",
            &"a h:1@2 slave b 0 0 1 connected\n".repeat(1001),
        ] {
            assert_eq!(View::parse(text, &at("h", 1)), None, "{text}");
        }
    }
}

//! Follows a cluster: a feed for each primary, and the slots shared out among them.
//!
//! All nodes are asked all the time, primaries and replicas. The newest configuration is believed, so that a primary
//! which was replaced and does not know of it yet leads nobody astray.

use std::{collections::HashMap, future::Future, pin::Pin};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{select, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Doubt, Ears,
    asked::{self, Asked, MEMORY},
    location,
    nodes::{Primary, View},
    slots,
};
use crate::upstream::{
    Address, Endpoint, NodeId,
    feed::{self, FatalError, Plan, look::text},
    link::{Link, LinkError},
};

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See [`super::run`].
pub(super) async fn follow(
    seeds: Vec<Address>,
    options: feed::Options,
    plans: watch::Receiver<Plan>,
    ears: impl Ears,
    doubt: Doubt,
    stop: CancellationToken,
) -> Result<(), FatalError> {
    let mut known = Known::new(seeds, options.endpoint.clone(), doubt);
    let mut map = Map::default();
    let mut feeds: FuturesUnordered<Task<Result<(), FatalError>>> = FuturesUnordered::new();
    known.ask();
    loop {
        select! {
            Some(ended) = feeds.next(), if !feeds.is_empty() => return ended,
            Some((asked, view)) = known.asking.next() => {
                known.answered(asked, view);
                if let Some(view) = known.newest().filter(|view| !map.shows(view)) {
                    // A mistake that every node has is found at the first ones; later ones must not end it all.
                    let strict = map.view.is_none();
                    let view = view.clone();
                    tracing::info!(primaries = view.primaries.len(), slots = view.covered(), "the cluster's primaries");
                    for (node, location) in map.follow(view, &ears) {
                        let topics = options.topics && node == NodeId::FIRST;
                        let options = feed::Options { strict, topics, ..options.clone() };
                        let (ear, plans, stop) = (ears.ear(node), plans.clone(), stop.clone());
                        feeds.push(Box::pin(feed::run(options, location, plans, ear, stop)));
                    }
                }
                known.ask();
            }
        }
    }
}

/// Asks the nodes until one answers, and gives the primaries that have slots.
pub(super) async fn primaries(seeds: &[Address], endpoint: &Endpoint) -> Result<Vec<Address>, String> {
    let mut troubles = Vec::new();
    for address in seeds {
        let endpoint = Endpoint {
            address: address.clone(),
            ..endpoint.clone()
        };
        match view(Asked::new(endpoint), None).await.1 {
            Ok(view) => {
                let primaries = view.primaries.into_iter().filter(|primary| !primary.slots.is_empty());
                return Ok(primaries.map(|primary| primary.address).collect());
            }
            Err(error) => troubles.push(format!("{address}: {error}")),
        }
    }
    Err(troubles.join("; "))
}

/// What is known from whom.
struct Known {
    seeds: Vec<Address>,
    endpoint: Endpoint,
    doubt: Doubt,
    views: HashMap<Address, (Instant, View)>,
    /// Who is being asked, and what is wrong with them.
    troubles: HashMap<Address, Option<String>>,
    asking: FuturesUnordered<Task<(Asked, Result<View, LinkError>)>>,
}

impl Known {
    fn new(seeds: Vec<Address>, endpoint: Endpoint, doubt: Doubt) -> Known {
        Known {
            seeds,
            endpoint,
            doubt,
            views: HashMap::new(),
            troubles: HashMap::new(),
            asking: FuturesUnordered::new(),
        }
    }

    /// The view of whoever stands for the newest configuration; among equals always the same.
    fn newest(&self) -> Option<&View> {
        let views = self.views.iter();
        let newest = views.max_by_key(|(address, (_, view))| (view.epoch, view.covered(), address.to_string()));
        newest.map(|(_, (_, view))| view)
    }

    /// Whom to ask: all nodes, and as long as none of them has answered, those that the config names.
    fn wanted(&self) -> Vec<Address> {
        match self.newest() {
            Some(view) => view.addresses().cloned().collect(),
            None => self.seeds.iter().chain(self.troubles.keys()).cloned().collect(),
        }
    }

    /// Asks those who are not being asked yet.
    fn ask(&mut self) {
        for address in self.wanted() {
            if !self.troubles.contains_key(&address) {
                self.troubles.insert(address.clone(), None);
                let endpoint = Endpoint {
                    address,
                    ..self.endpoint.clone()
                };
                self.asking.push(Box::pin(view(Asked::new(endpoint), None)));
            }
        }
    }

    fn answered(&mut self, asked: Asked, answer: Result<View, LinkError>) {
        let address = asked.endpoint.address.clone();
        let trouble = match answer {
            Ok(view) => {
                self.views.insert(address.clone(), (Instant::now(), view));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        self.views.retain(|_, (since, _)| since.elapsed() < MEMORY);
        if !self.wanted().contains(&address) {
            self.troubles.remove(&address);
            self.views.remove(&address);
            return;
        }
        if let Some(why) = &trouble
            && self.troubles.get(&address) != Some(&trouble)
        {
            tracing::warn!(node = %address, why, "a node does not say where the keys of the cluster are");
        }
        self.troubles.insert(address, trouble);
        self.asking.push(Box::pin(view(asked, Some(self.doubt.clone()))));
    }
}

/// Asks a node, after a pause if there may be `doubt` meanwhile.
async fn view(mut asked: Asked, doubt: Option<Doubt>) -> (Asked, Result<View, LinkError>) {
    if let Some(doubt) = doubt {
        asked::pause(&doubt).await;
    }
    let address = asked.endpoint.address.clone();
    let answer = asked
        .ask(async |link: &mut Link| {
            let reply = link.command(&[b"CLUSTER", b"NODES"]).await?;
            let view = Some(reply).and_then(text).and_then(|text| View::parse(&text, &address));
            view.ok_or_else(|| LinkError::Unexpected("CLUSTER NODES".into()))
        })
        .await;
    (asked, answer)
}

/// What was made of the view that is believed.
#[derive(Default)]
struct Map {
    view: Option<View>,
    slots: Vec<NodeId>,
    seats: Vec<Seat>,
}

/// A node as the rest of keyrelay knows it. Its server may become another: the first one always has one.
struct Seat {
    /// Which primary has it; empty if none.
    id: String,
    found: watch::Sender<Option<Address>>,
}

impl Map {
    /// Whether it was made of this.
    fn shows(&self, view: &View) -> bool {
        self.view.as_ref().is_some_and(|own| own.primaries == view.primaries)
    }

    /// Shares the slots out anew, and lets every feed go to where its server is now. Gives the nodes that want a feed.
    fn follow(&mut self, view: View, ears: &impl Ears) -> Vec<(NodeId, location::Location)> {
        let ids: Vec<&str> = self.seats.iter().map(|seat| seat.id.as_str()).collect();
        let seats = seats(&ids, &self.slots, &view.primaries);
        self.slots.resize(usize::from(slots::COUNT), NodeId::FIRST);
        for (primary, seat) in view.primaries.iter().zip(&seats) {
            for slot in primary.slots.iter().cloned().flatten() {
                if let Some(node) = self.slots.get_mut(usize::from(slot)) {
                    *node = *seat;
                }
            }
        }
        ears.slots(self.slots.iter().copied().collect());
        let mut added = Vec::new();
        while self.seats.len()
            < seats
                .iter()
                .map(|seat| usize::from(seat.0) + 1)
                .max()
                .unwrap_or_default()
        {
            let (found, location) = location::found();
            added.push((NodeId(self.seats.len() as u16), location));
            let id = String::new();
            self.seats.push(Seat { id, found });
        }
        for (number, seat) in (0..).map(NodeId).zip(&mut self.seats) {
            let at = seats.iter().position(|seat| *seat == number);
            let primary = at.map(|at| &view.primaries[at]);
            seat.id = primary.map(|primary| primary.id.clone()).unwrap_or_default();
            location::tell(&seat.found, primary.map(|primary| primary.address.clone()));
        }
        self.view = Some(view);
        added
    }
}

/// The seat of each primary: the one it has, else the free one whose slots it takes over, else any free one, else a new
/// one. The first is never left free, for Pub/Sub is heard there.
pub(super) fn seats(taken: &[&str], slots: &[NodeId], primaries: &[Primary]) -> Vec<NodeId> {
    let seat_of = |id: &str| taken.iter().position(|seat| *seat == id);
    let mut seats: Vec<Option<usize>> = primaries.iter().map(|primary| seat_of(&primary.id)).collect();
    for (at, primary) in primaries.iter().enumerate() {
        if seats[at].is_some() {
            continue;
        }
        let free = (0..).filter(|seat| !seats.contains(&Some(*seat)));
        let last = taken.len().max(seats.len());
        let common = |seat: usize| {
            let own = primary.slots.iter().cloned().flatten();
            own.filter(|slot| {
                slots
                    .get(usize::from(*slot))
                    .is_some_and(|node| usize::from(node.0) == seat)
            })
            .count()
        };
        seats[at] = free
            .take_while(|seat| *seat <= last)
            .max_by_key(|&seat| (common(seat), usize::MAX - seat));
    }
    let mut seats: Vec<usize> = seats.into_iter().flatten().collect();
    if !seats.contains(&0)
        && let Some(last) = seats.iter_mut().max()
    {
        *last = 0;
    }
    seats.into_iter().map(|seat| NodeId(seat as u16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(id: &str, slots: std::ops::RangeInclusive<u16>) -> Primary {
        Primary {
            id: id.into(),
            address: Address::Unix(id.into()),
            slots: vec![slots],
        }
    }

    fn of(seats: &[u16]) -> Vec<NodeId> {
        seats.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn who_has_a_seat_keeps_it() {
        let (a, b, c) = (primary("a", 0..=1), primary("b", 2..=3), primary("c", 4..=5));
        assert_eq!(seats(&[], &[], &[a.clone(), b.clone()]), of(&[0, 1]));
        assert_eq!(
            seats(&["a", "b"], &of(&[0, 0, 1, 1]), &[b.clone(), c.clone(), a.clone()]),
            of(&[1, 2, 0])
        );
        assert_eq!(seats(&["a", "b", ""], &of(&[0, 0, 1, 1]), &[a, b, c]), of(&[0, 1, 2]));
    }

    #[test]
    fn who_takes_over_slots_takes_over_the_seat() {
        let slots = of(&[0, 0, 1, 1, 2, 2]);
        let (a, new, c) = (primary("a", 0..=1), primary("new", 2..=3), primary("c", 4..=5));
        assert_eq!(seats(&["a", "b", "c"], &slots, &[a, c, new]), of(&[0, 2, 1]));
        let (x, y) = (primary("x", 4..=5), primary("y", 0..=3));
        assert_eq!(seats(&["a", "b", "c"], &slots, &[x, y]), of(&[2, 0]));
    }

    #[test]
    fn the_first_seat_is_never_free() {
        let (b, c) = (primary("b", 0..=3), primary("c", 4..=5));
        assert_eq!(seats(&["a", "b", "c"], &of(&[0, 0, 1, 1, 2, 2]), &[b, c]), of(&[1, 0]));
    }
}

//! Who made which logs, and whose lingering log goes first when there is no room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::log::Log;

/// Whoever a log is kept for: an opaque number for a client's address. The hub compares them and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Maker(pub u64);

impl Maker {
    /// Where nothing tells clients apart. It may make as many logs as there may be.
    pub const NOBODY: Maker = Maker(0);
}

/// The logs of the registry, by their makers, and whoever subscribed to them. Nothing is kept of a maker without any.
#[derive(Debug, Default)]
pub(super) struct Makers {
    holdings: HashMap<Maker, Holding>,
    /// Every maker with idle logs, the one that has most of them last; of several the one whose oldest is the oldest.
    ranking: BTreeSet<(usize, Reverse<u64>, Maker)>,
    last_idle: u64,
}

#[derive(Debug, Default)]
struct Holding {
    /// Active ones and idle ones.
    logs: usize,
    /// Its own, to whosever logs.
    subscriptions: usize,
    /// Those without subscribers in the order they became idle; the key stands in the log (`LogView::idle`).
    idle: BTreeMap<u64, Arc<Log>>,
}

impl Holding {
    fn rank(&self, maker: Maker) -> Option<(usize, Reverse<u64>, Maker)> {
        let (&oldest, _) = self.idle.first_key_value()?;
        Some((self.idle.len(), Reverse(oldest), maker))
    }
}

impl Makers {
    /// How many logs it has.
    pub fn logs(&self, maker: Maker) -> usize {
        self.holdings.get(&maker).map_or(0, |holding| holding.logs)
    }

    /// One more log is its own.
    pub fn add(&mut self, maker: Maker) {
        self.holdings.entry(maker).or_default().logs += 1;
    }

    /// A log of its own, which is not idle, is gone or is another's now.
    pub fn remove(&mut self, maker: Maker) {
        self.give_back(maker, |holding| holding.logs -= 1);
    }

    /// How many subscriptions it has.
    pub fn subscriptions(&self, maker: Maker) -> usize {
        self.holdings.get(&maker).map_or(0, |holding| holding.subscriptions)
    }

    /// It has one more subscription.
    pub fn subscribe(&mut self, maker: Maker) {
        self.holdings.entry(maker).or_default().subscriptions += 1;
    }

    /// A subscription of its own is dropped.
    pub fn unsubscribe(&mut self, maker: Maker) {
        self.give_back(maker, |holding| holding.subscriptions -= 1);
    }

    fn give_back(&mut self, maker: Maker, give_back: impl FnOnce(&mut Holding)) {
        if let Some(holding) = self.holdings.get_mut(&maker) {
            give_back(holding);
            if holding.logs == 0 && holding.subscriptions == 0 {
                self.holdings.remove(&maker);
            }
        }
    }

    /// A log of its own has become idle; gives its place.
    pub fn idle(&mut self, maker: Maker, log: Arc<Log>) -> u64 {
        self.last_idle += 1;
        let place = self.last_idle;
        self.change(maker, |idle| drop(idle.insert(place, log)));
        place
    }

    /// The idle log in this place has become active, or goes.
    pub fn wake(&mut self, maker: Maker, place: u64) {
        self.change(maker, |idle| drop(idle.remove(&place)));
    }

    /// The oldest idle log of whoever has the most idle ones.
    pub fn first_to_go(&self) -> Option<Arc<Log>> {
        let (_, _, maker) = self.ranking.last()?;
        self.oldest(*maker)
    }

    /// Its own oldest idle log.
    pub fn oldest(&self, maker: Maker) -> Option<Arc<Log>> {
        let (_, log) = self.holdings.get(&maker)?.idle.first_key_value()?;
        Some(log.clone())
    }

    fn change(&mut self, maker: Maker, change: impl FnOnce(&mut BTreeMap<u64, Arc<Log>>)) {
        let Some(holding) = self.holdings.get_mut(&maker) else {
            return;
        };
        if let Some(rank) = holding.rank(maker) {
            self.ranking.remove(&rank);
        }
        change(&mut holding.idle);
        self.ranking.extend(holding.rank(maker));
    }

    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let idle = self.holdings.values().map(|holding| holding.idle.len());
        (self.holdings.len(), idle.sum())
    }
}

//! Which channels have subscribers, and which of those are behind: the many counted, the first few named.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::status::unix_ms;
use crate::fanout::Behind;
use crate::hub::{Hub, Log, Mode, Name};

/// Channels that are named for their many subscribers; so many more at most because a subscriber of theirs is behind. More
/// rows than a person reads.
pub const NAMED: usize = 50;

/// Channels that are looked at before other work of the thread gets its turn. The hub's registry is held for so many at a
/// time: of 100,000 channels on a busy machine for 10 µs on the whole and 60 µs at most, and the look at all took 8 to 30 ms.
const AT_ONCE: usize = 512;

/// The channels, as `/status` tells them.
#[derive(Debug, Default, Serialize)]
pub struct Channels {
    /// How many have a log.
    pub active: usize,
    /// How many of them have a subscriber; the others linger.
    pub subscribed: usize,
    /// How many subscriptions there are: each client has one for each of its channels.
    pub subscriptions: usize,
    /// How many have subscribers who were told that it may be behind its keys.
    pub stale: usize,
    /// How many have a subscriber that takes nothing although there is something for it.
    pub behind: usize,
    /// The [`NAMED`] with most subscribers, and those [`NAMED`] that are furthest behind.
    pub top: Vec<Row>,
}

/// One channel.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `state` or `events`.
    pub mode: &'static str,
    /// Its subscribers.
    pub subscribers: usize,
    /// Values that are there, or happenings that are retained.
    pub entries: usize,
    /// How many of its subscribers are behind.
    pub behind: usize,
    /// For how many milliseconds the slowest of them has taken nothing; 0 if none is behind.
    pub lag: u64,
    /// Why and since when its subscribers were told that it may be behind its keys.
    pub stale: Option<Stale>,
}

/// That a channel may be behind its keys.
#[derive(Debug, Serialize)]
pub struct Stale {
    /// Why, in the word that clients are told.
    pub reason: &'static str,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
}

/// Looks at all channels, a few at a time.
pub async fn survey(hub: &Hub, behind: &HashMap<Name, Behind>) -> Channels {
    let mut channels = Channels {
        behind: behind.len(),
        subscriptions: hub.subscriptions(),
        ..Channels::default()
    };
    let mut slowest: Vec<(&Name, Duration)> = behind.iter().map(|(name, behind)| (name, behind.lag)).collect();
    slowest.sort_unstable_by_key(|(_, lag)| Reverse(*lag));
    slowest.truncate(NAMED);
    let lags: HashMap<&Name, Duration> = slowest.into_iter().collect();
    let mut late = Vec::new();
    let mut largest: BinaryHeap<Reverse<(usize, Ranked)>> = BinaryHeap::with_capacity(NAMED + 1);
    loop {
        let logs = hub.some(channels.active, AT_ONCE);
        if logs.is_empty() {
            break;
        }
        for log in logs {
            let (subscribers, stale) = {
                let view = log.view();
                (view.subscribers(), view.stale().is_some())
            };
            channels.active += 1;
            channels.subscribed += usize::from(subscribers > 0);
            channels.stale += usize::from(stale && subscribers > 0);
            if lags.contains_key(&log.channel.name) {
                late.push(log);
            } else if subscribers > 0
                && largest
                    .peek()
                    .is_none_or(|Reverse((least, _))| subscribers > *least || largest.len() < NAMED)
            {
                largest.push(Reverse((subscribers, Ranked(log))));
                if largest.len() > NAMED {
                    largest.pop();
                }
            }
        }
        tokio::task::yield_now().await;
    }
    let largest = largest.into_iter().map(|Reverse((_, Ranked(log)))| log);
    channels.top = late.into_iter().chain(largest).map(|log| row(&log, behind)).collect();
    channels
        .top
        .sort_unstable_by(|a, b| (b.lag, b.subscribers, &a.name).cmp(&(a.lag, a.subscribers, &b.name)));
    channels
}

fn row(log: &Log, behind: &HashMap<Name, Behind>) -> Row {
    let late = behind.get(&log.channel.name).copied().unwrap_or_default();
    let view = log.view();
    Row {
        name: log.channel.name.to_string(),
        mode: match log.channel.mode {
            Mode::State => "state",
            Mode::Events => "events",
        },
        subscribers: view.subscribers(),
        entries: view.len(),
        behind: late.subscribers,
        lag: late.lag.as_millis() as u64,
        stale: view.stale().map(|(reason, since)| Stale {
            reason: reason.0,
            since: unix_ms(since),
        }),
    }
}

/// A log in the order of its number, so that of equals the older stay.
struct Ranked(Arc<Log>);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> std::cmp::Ordering {
        other.0.id.cmp(&self.0.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Access, Catalog, Channel, Options, Way};

    struct All;

    impl Catalog for All {
        fn access(&self, _: &str) -> Option<Vec<Access>> {
            Some(vec![vec![Way::Public]])
        }

        fn describe(&self, name: &str) -> Option<Channel> {
            Some(Channel::of_state(name))
        }
    }

    /// All are counted, and of many the few with most subscribers are named, and those that are behind.
    #[tokio::test]
    async fn the_many_are_counted_and_the_first_named() {
        const MANY: usize = 3 * AT_ONCE + 7;
        let (hub, _appender) = Hub::new(Options::channels(MANY + 1), 1, All);
        let open = |number: usize| hub.subscribe(&format!("c{number}"), true).unwrap();
        let mut held: Vec<_> = (0..MANY).map(open).collect();
        // The later ones have more.
        for more in 1..=NAMED + 10 {
            held.extend((MANY - more..MANY).map(open));
        }
        drop(hub.subscribe("lingers", true).unwrap());
        let lag = Duration::from_millis(1_500);
        let late = Behind { subscribers: 1, lag };
        let behind = HashMap::from([("c3".into(), late), ("gone".into(), late)]);
        let channels = survey(&hub, &behind).await;
        assert_eq!((channels.active, channels.subscribed), (MANY + 1, MANY));
        assert_eq!(
            (channels.subscriptions, channels.stale, channels.behind),
            (held.len(), 0, 2)
        );
        let first = &channels.top[0];
        assert_eq!((&*first.name, first.lag, first.behind), ("c3", 1_500, 1));
        let largest: Vec<(String, usize)> = (0..NAMED)
            .map(|place| (format!("c{}", MANY - 1 - place), NAMED + 11 - place))
            .collect();
        let named = channels.top[1..].iter();
        assert_eq!(
            named.map(|row| (row.name.clone(), row.subscribers)).collect::<Vec<_>>(),
            largest
        );
    }
}

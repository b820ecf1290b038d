//! What the server itself says happened, in order, and whether a subscriber heard that.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::keys::{EVENT_PATTERNS, KEYS, name_of, text};
use super::picture::Item;
use super::redis::Redis;
use crate::harness::Reply;

/// Who gets `ready` hears at the latest what happens after this much more time; only what the witness and the relay hear at
/// different times can come in between.
const MARGIN: Duration = Duration::from_millis(300);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Event {
        key: String,
        event: String,
    },
    /// The witness did not hear for a while: others may have heard more or less here.
    Break,
}

/// A subscriber of the server, past relay and proxy.
pub struct Witness {
    server: SocketAddr,
    /// By channel.
    heard: RefCell<HashMap<String, Vec<(Instant, Happened)>>>,
    channel_of: HashMap<Vec<u8>, (String, String)>,
    /// Whether it is subscribed now.
    up: RefCell<bool>,
}

impl Witness {
    pub fn new(server: SocketAddr) -> Witness {
        let events = KEYS.iter().filter_map(|key| {
            let channel = key.events.clone()?;
            Some((key.bytes.clone(), (channel, name_of(&text(&key.bytes)))))
        });
        let channel_of: HashMap<Vec<u8>, (String, String)> = events.collect();
        // What happened before is not known, and may still be retained or under way.
        let before = |(channel, _): &(String, String)| (channel.clone(), vec![Witness::silence()]);
        Witness {
            server,
            heard: RefCell::new(channel_of.values().map(before).collect()),
            channel_of,
            up: RefCell::new(false),
        }
    }

    fn silence() -> (Instant, Happened) {
        (Instant::now(), Happened::Break)
    }

    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Listens for ever.
    pub async fn run(&self) {
        loop {
            let _ = self.listen().await;
            if self.up.replace(false) {
                for heard in self.heard.borrow_mut().values_mut() {
                    heard.push(Witness::silence());
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn listen(&self) -> std::io::Result<()> {
        let mut redis = Redis::connect(self.server).await?;
        let mut subscribe = vec!["PSUBSCRIBE"];
        subscribe.extend(EVENT_PATTERNS);
        let reply = redis.pipeline(&[subscribe]).await?;
        if let Reply::Error(error) = &reply[0] {
            return Err(std::io::Error::other(error.clone()));
        }
        redis.receive().await?;
        self.up.replace(true);
        loop {
            let Reply::Array(parts) = redis.receive().await? else {
                continue;
            };
            let [_, _, Reply::Bulk(channel), Reply::Bulk(event)] = &*parts else {
                continue;
            };
            let key = channel.splitn(2, |&byte| byte == b':').nth(1).unwrap_or_default();
            let Some((channel, key)) = self.channel_of.get(key) else {
                continue;
            };
            let happened = Happened::Event {
                key: key.clone(),
                event: String::from_utf8_lossy(event).into_owned(),
            };
            let mut heard = self.heard.borrow_mut();
            heard
                .entry(channel.clone())
                .or_default()
                .push((Instant::now(), happened));
        }
    }

    /// What is wrong with what a subscriber heard, by channel, from relays of which each has its witness. What happened
    /// after `end` need not have come; `lag` is how much later than the relay the witness may have heard.
    pub fn judge(witnesses: [&Witness; 2], items: &[Item], end: Instant, lag: Duration) -> Vec<(String, String)> {
        let heard = witnesses.map(|witness| witness.heard.borrow());
        let mut judges: BTreeMap<&str, Judge<'_>> = BTreeMap::new();
        let mut wrong = Vec::new();
        let mut here = 0;
        for item in items {
            match item {
                Item::New(relay) => {
                    here = *relay;
                    judges.clear();
                }
                Item::Resumed(relay) => {
                    here = *relay;
                    judges.values_mut().for_each(Judge::resume);
                }
                Item::Cursor => judges.values_mut().for_each(Judge::keep),
                Item::Joined(channel) | Item::Left(channel) => drop(judges.remove(&**channel)),
                Item::Ready { channel, .. } | Item::Event { channel, .. } | Item::Gap { channel, .. } => {
                    let all = heard[here].get(channel).map_or(&[][..], |all| all);
                    let judge = judges.entry(channel).or_insert_with(|| Judge::new(all, lag));
                    if let Err(why) = judge.take(item, all) {
                        wrong.push((channel.clone(), why));
                        // One mistake makes others.
                        return wrong;
                    }
                }
            }
        }
        for (channel, judge) in judges {
            if let Err(why) = judge.end(end) {
                wrong.push((channel.to_owned(), why));
            }
        }
        wrong
    }

    /// All that the server said of a channel, with the time since `start`.
    pub fn account(&self, channel: &str, start: Instant) -> String {
        let heard = self.heard.borrow();
        let mut text = format!("    the server of {channel}:\n");
        for (at, happened) in heard.get(channel).into_iter().flatten() {
            let _ = match at.checked_duration_since(start) {
                Some(since) => write!(text, "      {:>6} ms ", since.as_millis()),
                None => write!(text, "      before    "),
            };
            text.push_str(&excerpt(&[(*at, happened.clone())]));
            text.push('\n');
        }
        text
    }
}

/// Follows one subscriber through one channel's happenings. As the same may happen twice, it is somewhere in a set of
/// places.
struct Judge<'a> {
    all: &'a [(Instant, Happened)],
    margin: Duration,
    /// Numbers of the happenings that may come next, ascending.
    next: Vec<usize>,
    /// Anything may be missing before the next.
    gap: bool,
    /// When `ready` came first.
    ready: Option<Instant>,
    /// All that was retained has been asked for.
    retained: bool,
    /// As they were when the cursor was given.
    kept: (&'a [(Instant, Happened)], Vec<usize>, bool),
}

impl<'a> Judge<'a> {
    fn new(all: &'a [(Instant, Happened)], lag: Duration) -> Judge<'a> {
        let next: Vec<usize> = (0..=all.len()).collect();
        Judge {
            all,
            margin: MARGIN + lag,
            kept: (all, next.clone(), false),
            next,
            gap: false,
            ready: None,
            retained: false,
        }
    }

    fn keep(&mut self) {
        self.kept = (self.all, self.next.clone(), self.gap);
    }

    fn resume(&mut self) {
        (self.all, self.next, self.gap) = self.kept.clone();
    }

    /// `here`: what the witness of the relay that tells this has heard.
    fn take(&mut self, item: &Item, here: &'a [(Instant, Happened)]) -> Result<(), String> {
        match item {
            Item::Ready { at, .. } => {
                self.ready.get_or_insert(*at);
                // A page that begins now has at most missed what happened before.
                let latest = self.all.partition_point(|(heard, _)| *heard < *at + self.margin);
                if !self.gap {
                    let kept = self.next.partition_point(|&next| next <= latest);
                    self.next.truncate(kept.max(1));
                }
                Ok(())
            }
            Item::Gap { unknown: true, .. } => {
                self.all = here;
                self.next = (0..=self.all.len()).collect();
                (self.gap, self.retained) = (true, true);
                Ok(())
            }
            Item::Gap {
                missed: Some(missed), ..
            } if !self.gap => {
                self.next = self.next.iter().map(|next| next + *missed as usize).collect();
                Ok(())
            }
            Item::Gap { .. } => {
                self.gap = true;
                Ok(())
            }
            Item::Event {
                key, event, at: came, ..
            } => {
                let wanted = Happened::Event {
                    key: key.clone(),
                    event: event.clone(),
                };
                let starts: Vec<usize> = match (self.gap, self.next.first()) {
                    (true, Some(&first)) => (first..=self.all.len()).collect(),
                    _ => self.next.clone(),
                };
                let mut next = Vec::new();
                for start in starts {
                    let mut at = start;
                    while let Some((_, happened)) = self.all.get(at) {
                        let Happened::Break = happened else {
                            if *happened == wanted {
                                next.push(at + 1);
                            }
                            break;
                        };
                        // What happened before the witness heard is still under way until `ready`, and comes later only to
                        // who asked for all that is retained.
                        let late = |ready: Instant| *came >= ready + self.margin;
                        if at > 0 || self.retained || !self.ready.is_some_and(late) {
                            next.push(at);
                        }
                        // Behind the witness's own hole it may go on at once.
                        at += 1;
                    }
                }
                next.sort_unstable();
                next.dedup();
                if next.is_empty() {
                    let near = |at: usize| excerpt(&self.all[at.saturating_sub(3)..self.all.len().min(at + 5)]);
                    let expected: Vec<String> = self.next.iter().take(3).map(|&at| near(at)).collect();
                    let places = self.next.len();
                    return Err(format!(
                        "{event} of {key:?} came where ({places} places, gap {}) the server said {expected:?}",
                        self.gap
                    ));
                }
                (self.next, self.gap) = (next, false);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&self, end: Instant) -> Result<(), String> {
        let due = |(heard, happened): &&(Instant, Happened)| *heard < end && matches!(happened, Happened::Event { .. });
        let whole = |next: &usize| self.all.iter().skip(*next).find(due).is_none();
        if self.gap || self.next.iter().any(whole) {
            return Ok(());
        }
        let missing = self.next.last().map(|&next| excerpt(&self.all[next..]));
        Err(format!("silent about what happened last: {missing:?}"))
    }
}

/// What happened, briefly.
fn excerpt(all: &[(Instant, Happened)]) -> String {
    let each = all.iter().take(8).map(|(_, happened)| match happened {
        Happened::Event { key, event } => format!("{event} {key}"),
        Happened::Break => "(a hole)".into(),
    });
    each.collect::<Vec<_>>().join(", ")
}

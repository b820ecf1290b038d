//! What a page that heard all this would show, and what is wrong with what it heard.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

use super::content::stamp;
use super::keys::{ELSEWHERE, is_events, name_of};
use super::wire::Heard;

/// How many of the last things heard are kept for a failure's text.
const TRACE: usize = 1000;

/// One step of what was heard of events channels, judged afterwards against what the server said (`witness`).
#[derive(Clone, Debug)]
pub enum Item {
    /// A page that knows nothing, at this relay.
    New(usize),
    /// The same page again, from where its cursor stood.
    Resumed(usize),
    /// A channel has joined that is new to the page; it hears what happens from now on.
    Joined(String),
    /// A channel is no longer listened to.
    Left(String),
    /// `ready` for this channel.
    Ready { channel: String, at: Instant },
    Event {
        channel: String,
        key: String,
        event: String,
        at: Instant,
    },
    Gap {
        channel: String,
        missed: Option<u64>,
        unknown: bool,
    },
    /// The cursor stands behind all before.
    Cursor,
}

/// A value, or that it is gone, as it was heard.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub key: String,
    /// None: it is gone.
    pub stamp: Option<u64>,
    /// An event told it, not a comparison.
    pub by_event: bool,
}

/// What a key may not fall behind.
#[derive(Clone, Copy, Debug)]
struct Floor {
    stamp: u64,
    /// It was gone after that.
    gone: bool,
}

/// A channel in the list.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `ready` was said of it on this connection.
    pub ready: bool,
    /// When that was said to this page first.
    pub announced: Option<Instant>,
    pub stale: bool,
    /// When it was stale, the last time still open.
    pub stales: Vec<(Instant, Option<Instant>)>,
    /// When it was told that something may be missing: `stale`, `reset`, `gap`.
    pub told: Vec<Instant>,
    /// When it began and ceased to be stale or not ready, in turns, beginning with the time from which it was true.
    pub true_since: Option<Instant>,
    pub spans: Vec<(Instant, Instant)>,
    pub seen: Vec<Seen>,
    /// From when on it showed what which relay had told.
    relays: Vec<(Instant, usize)>,
    floors: HashMap<String, Floor>,
    pub values: BTreeMap<String, Value>,
}

#[derive(Default)]
pub struct Picture {
    pub channels: BTreeMap<String, Status>,
    pub items: Vec<Item>,
    /// Short form of the cursor: the last id.
    pub last_id: Option<String>,
    /// The part of the long form that stands for the list.
    pub set: Option<String>,
    pub wrong: BTreeSet<String>,
    /// When an older value came after a newer one and nobody said stale: wrong, if the server had not gone back itself.
    /// With whether it is the same value, which was said to be gone.
    pub backs: Vec<(Instant, bool, String)>,
    /// Channels taken out: what was under way may still come.
    pub removed: BTreeSet<String>,
    pub heard: usize,
    /// Who tells.
    relay: usize,
    trace: VecDeque<(Instant, String)>,
}

impl Picture {
    /// The long form of the cursor.
    pub fn cursor(&self) -> Option<String> {
        let (id, set) = (self.last_id.as_ref()?, self.set.as_ref()?);
        Some(format!("{id}-{set}"))
    }

    /// A page opened anew: nothing is known.
    pub fn forget(&mut self, relay: usize, list: &[String], now: Instant) {
        self.relay = relay;
        self.channels.clear();
        self.removed.clear();
        (self.last_id, self.set) = (None, None);
        for channel in list {
            self.channels.insert(channel.clone(), Status::default());
        }
        self.items.push(Item::New(relay));
        self.note(now, "- a new page");
    }

    /// The same page connects again, with this list.
    pub fn resume(&mut self, relay: usize, list: &[String], now: Instant) {
        self.relay = relay;
        self.part(now);
        let (channels, items) = (&mut self.channels, &mut self.items);
        channels.retain(|channel, _| {
            let stays = list.contains(channel);
            if !stays {
                items.push(Item::Left(channel.clone()));
            }
            stays
        });
        self.items.push(Item::Resumed(relay));
        for channel in list {
            if !self.channels.contains_key(channel) {
                self.join(channel);
            }
        }
        let cursor = self.cursor();
        self.note(now, format!("- back with {cursor:?} for {list:?}"));
    }

    /// A channel that the page knows nothing of.
    pub fn join(&mut self, channel: &str) {
        self.removed.remove(channel);
        self.channels.insert(channel.to_owned(), Status::default());
        self.items.push(Item::Joined(channel.to_owned()));
    }

    /// A channel is no longer in the list.
    pub fn remove(&mut self, channel: &str) {
        self.channels.remove(channel);
        self.items.push(Item::Left(channel.to_owned()));
        self.removed.insert(channel.to_owned());
    }

    /// Nobody reads for a while.
    pub fn pause(&mut self, now: Instant) {
        self.channels.values_mut().for_each(|status| status.cease(now));
    }

    /// What comes is read again.
    pub fn go_on(&mut self, now: Instant) {
        for status in self
            .channels
            .values_mut()
            .filter(|status| status.ready && !status.stale)
        {
            status.true_since.get_or_insert(now);
        }
    }

    /// The connection is over.
    pub fn part(&mut self, now: Instant) {
        for status in self.channels.values_mut() {
            status.cease(now);
            status.ready = false;
        }
    }

    pub fn note(&mut self, now: Instant, what: impl Into<String>) {
        let mut what: String = what.into();
        if what.len() > 300 {
            let end = (0..=300).rev().find(|&at| what.is_char_boundary(at)).unwrap_or(0);
            what.truncate(end);
        }
        self.trace.push_back((now, what));
        if self.trace.len() > TRACE {
            self.trace.pop_front();
        }
    }

    /// The last things heard, with the time since `start`.
    pub fn trace(&self, start: Instant) -> String {
        let line = |(at, what): &(Instant, String)| {
            let ms = at.saturating_duration_since(start).as_millis();
            format!("      {ms:>6} ms {what}\n")
        };
        self.trace.iter().map(line).collect()
    }

    pub fn hear(&mut self, heard: Heard, now: Instant) {
        self.heard += 1;
        match heard {
            Heard::Message { id, data, text } => {
                self.note(now, text);
                self.message(data, now);
                self.moved(id);
            }
            Heard::Control { kind, id, data, text } => {
                self.note(now, text);
                self.control(&kind, &data, now);
                self.moved(id);
            }
        }
    }

    fn moved(&mut self, id: Option<String>) {
        if let Some(id) = id {
            self.last_id = Some(id);
            self.items.push(Item::Cursor);
        }
    }

    fn message(&mut self, data: Value, now: Instant) {
        let channel = data["channel"].as_str().unwrap_or_default().to_owned();
        let key = name_of(&data["key"]);
        let value = &data["value"];
        let Some(status) = self.channels.get_mut(&channel) else {
            if !self.removed.contains(&channel) {
                self.wrong
                    .insert(format!("a message of {channel}, which is not subscribed"));
            }
            return;
        };
        status.told_by(self.relay, now);
        if value.as_str() == Some(ELSEWHERE) && !status.stale {
            self.wrong
                .insert(format!("{channel}: {key:?} is shown as it is on another server"));
        }
        if let Some(event) = data["event"].as_str().filter(|_| is_events(&channel)) {
            let event = event.to_owned();
            self.items.push(Item::Event {
                channel,
                key,
                event,
                at: now,
            });
            return;
        }
        let newest = stamp(value);
        let floor = status.floors.get(&key).copied();
        let free = status.stale || value.is_null() && floor.is_none();
        if let (Some(floor), Some(stamp), false) = (floor, newest, free)
            && (stamp < floor.stamp || floor.gone && stamp == floor.stamp)
        {
            let gone = if floor.gone { ", and that it was gone" } else { "" };
            let back = format!(
                "{channel}: {key:?} goes back to #{stamp} after #{}{gone}, and nobody said stale",
                floor.stamp
            );
            self.backs.push((now, stamp == floor.stamp, back));
        }
        match (newest, value.is_null()) {
            (Some(stamp), _) => drop(status.floors.insert(key.clone(), Floor { stamp, gone: false })),
            (None, true) => {
                if let Some(floor) = status.floors.get_mut(&key) {
                    floor.gone = true;
                }
            }
            // A value without a stamp says nothing about its age.
            (None, false) => drop(status.floors.remove(&key)),
        }
        let stamp = newest.or((!value.is_null()).then_some(0));
        status.seen.push(Seen {
            at: now,
            key: key.clone(),
            stamp,
            by_event: data.get("event").is_some(),
        });
        match value.is_null() {
            true => drop(status.values.remove(&key)),
            false => drop(status.values.insert(key, data)),
        }
    }

    fn control(&mut self, kind: &str, data: &Value, now: Instant) {
        let reason = data["reason"].as_str().unwrap_or_default();
        if let (Some(cursor), "ready") = (data["cursor"].as_str(), kind) {
            let mut parts = cursor.splitn(3, '-');
            let id = [parts.next(), parts.next()].map(Option::unwrap_or_default).join("-");
            self.set = parts.next().map(str::to_owned);
            self.moved(Some(id));
        }
        let Some(named) = data["channels"].as_object() else {
            if kind == "error" {
                self.wrong.insert(format!("refused: {data}"));
            }
            return;
        };
        for (channel, about) in named {
            let Some(status) = self.channels.get_mut(channel) else {
                // The answer may cross with what takes the channel out.
                continue;
            };
            status.told_by(self.relay, now);
            match kind {
                "ready" => {
                    status.ready = true;
                    status.no_longer_stale(now);
                    status.announced.get_or_insert(now);
                    status.true_since.get_or_insert(now);
                    if is_events(channel) {
                        let channel = channel.clone();
                        self.items.push(Item::Ready { channel, at: now });
                    }
                }
                "stale" => {
                    status.cease(now);
                    status.told.push(now);
                    if !std::mem::replace(&mut status.stale, true) {
                        status.stales.push((now, None));
                    }
                }
                "fresh" => {
                    if !status.no_longer_stale(now) {
                        self.wrong.insert(format!("{channel}: fresh without stale"));
                    }
                    if status.ready {
                        status.true_since.get_or_insert(now);
                    }
                }
                "reset" => {
                    status.cease(now);
                    status.ready = false;
                    status.told.push(now);
                    status.floors.clear();
                    status.values.clear();
                }
                "gap" => {
                    status.told.push(now);
                    self.items.push(Item::Gap {
                        channel: channel.clone(),
                        missed: about["missed"].as_u64(),
                        unknown: reason == "unknown-cursor",
                    });
                }
                _ => {}
            }
        }
    }
}

impl Status {
    /// It is no longer said to be true.
    fn cease(&mut self, now: Instant) {
        if let Some(since) = self.true_since.take() {
            self.spans.push((since, now));
        }
    }

    /// The relay that had told what it showed then: until another one says something, it is still the one before.
    pub fn relay_at(&self, at: Instant) -> Option<usize> {
        let told = self.relays.iter().rfind(|(since, _)| *since <= at);
        told.map(|(_, relay)| *relay)
    }

    fn told_by(&mut self, relay: usize, now: Instant) {
        if self.relays.last().is_none_or(|(_, last)| *last != relay) {
            self.relays.push((now, relay));
        }
    }

    /// Whether it was stale before.
    fn no_longer_stale(&mut self, now: Instant) -> bool {
        if let (true, Some((_, end))) = (self.stale, self.stales.last_mut()) {
            *end = Some(now);
        }
        std::mem::take(&mut self.stale)
    }

    pub fn stale_at(&self, at: Instant) -> bool {
        let mut stales = self.stales.iter();
        stales.any(|(from, to)| *from <= at && to.is_none_or(|to| at <= to))
    }

    /// When it was said to be true, the last time until `now`.
    pub fn truths(&self, now: Instant) -> Vec<(Instant, Instant)> {
        let open = self.true_since.map(|since| (since, now));
        self.spans.iter().copied().chain(open).collect()
    }
}

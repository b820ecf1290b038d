//! The status as channels of a hub of its own, filled once a second while somebody watches.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Sources;
use super::status::Status;
use crate::hub::{Access, Appender, Catalog, Channel, Hub, Log, Options, Payload, SlotKey, Snapshot, Way};

/// What a dashboard subscribes to: every member of `/status` under its name, but for what the other two have; the channels
/// that are named, under their names; the last gaps, under their numbers.
pub const CHANNELS: [&str; 3] = ["status", "channels", "gaps"];

/// Dashboards at once: a few people look in an emergency, each at two screens. Streams are counted here and not where
/// connections are, so that they take no place from probes and scrapers.
const DASHBOARDS: usize = 8;

/// How often it is looked whether anything is new.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a channel is kept for who comes back with a cursor.
const LINGER: Duration = Duration::from_secs(60);

/// The catalog of these channels.
struct Names;

impl Catalog for Names {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        CHANNELS.contains(&name).then(|| vec![vec![Way::Public]])
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        CHANNELS.contains(&name).then(|| Channel::of_state(name))
    }
}

/// Fills the channels.
#[derive(Debug)]
pub struct Streams {
    sources: Sources,
    appender: Appender,
    /// Those that have a log.
    open: Vec<Open>,
}

/// A channel that has a log.
#[derive(Debug)]
struct Open {
    log: Arc<Log>,
    /// What stands in it, by key.
    shown: HashMap<String, Bytes>,
    /// Since when nobody watches.
    idle: Option<Instant>,
}

/// A message, in the form that any `json` mapping has.
#[derive(Serialize)]
struct Message<'a> {
    channel: &'a str,
    key: &'a str,
    value: Option<&'a Value>,
}

impl Streams {
    /// The hub, and what fills it. `epoch` as for [`Hub::new`].
    pub fn new(sources: Sources, epoch: u64) -> (Arc<Hub>, Streams) {
        let options = Options {
            channels_per_maker: usize::MAX,
            subscriptions: DASHBOARDS * CHANNELS.len(),
            ..Options::channels(CHANNELS.len())
        };
        let (hub, appender) = Hub::new(options, epoch, Names);
        let open = Vec::new();
        let streams = Streams {
            sources,
            appender,
            open,
        };
        (hub, streams)
    }

    /// Fills the channels until it is dropped. Once the relay drains, whoever watches is shown so, and `drained` is told
    /// that the streams may end.
    pub async fn run(mut self, drained: CancellationToken) {
        let hub = self.appender.hub().clone();
        let drain = self.sources.drain.clone();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => {
                    self.show().await;
                    // The shard has its turn before this one goes on.
                    tokio::task::yield_now().await;
                    drained.cancel();
                    return pending().await;
                }
                () = hub.interested().rung() => {
                    if self.follow(&hub.interest()) {
                        self.show().await;
                        ticks.reset();
                    }
                }
                _ = ticks.tick(), if !self.open.is_empty() => {
                    self.close_idle();
                    if self.open.iter().any(|open| open.idle.is_none()) {
                        self.show().await;
                    }
                }
            }
        }
    }

    /// Takes note of who came and went; whether somebody came to a channel that must be filled.
    fn follow(&mut self, logs: &[Arc<Log>]) -> bool {
        let mut new = false;
        for log in logs {
            let (subscribers, closed) = {
                let view = log.view();
                (view.subscribers(), view.is_closed())
            };
            let at = self.open.iter().position(|open| open.log.id == log.id);
            match at {
                _ if closed => self.open.retain(|open| open.log.id != log.id),
                Some(at) => self.open[at].idle = (subscribers == 0).then(Instant::now),
                None => {
                    self.appender.activate(log);
                    self.open.push(Open {
                        log: log.clone(),
                        shown: HashMap::new(),
                        idle: (subscribers == 0).then(Instant::now),
                    });
                }
            }
            new |= subscribers > 0 && !closed;
        }
        new
    }

    fn close_idle(&mut self) {
        let hub = self.appender.hub();
        self.open.retain(|open| {
            let is_old = open.idle.is_some_and(|since| since.elapsed() > LINGER);
            !(is_old && hub.close(&open.log))
        });
    }

    /// Appends what differs from what stands in the channels.
    async fn show(&mut self) {
        let status = Status::of(&self.sources).await;
        let (now, parts) = (Instant::now(), parts(&status));
        let Streams { appender, open, .. } = self;
        for Open { log, shown, .. } in open.iter_mut() {
            let name = &*log.channel.name;
            let Some(at) = CHANNELS.iter().position(|each| *each == name) else {
                continue;
            };
            let part = &parts[at];
            let gone = |key: &String| !part.iter().any(|(other, _)| other == key);
            let gone: Vec<String> = shown.keys().filter(|key| gone(key)).cloned().collect();
            for key in gone {
                shown.remove(&key);
                appender.put(log, slot(&key), false, Some(payload(name, &key, None)), now);
            }
            for (key, value) in part {
                let payload = payload(name, key, Some(value));
                if shown.get(key) != Some(&payload.live) {
                    shown.insert(key.clone(), payload.live.clone());
                    appender.put(log, slot(key), false, Some(payload), now);
                }
            }
            if !log.view().is_filled(u64::MAX) {
                appender.fill(log);
            }
        }
        appender.commit();
    }
}

/// What the channels are to hold, in the order of [`CHANNELS`].
fn parts(status: &Status) -> [Vec<(String, Value)>; CHANNELS.len()] {
    let mut members = match value(status) {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    members.remove("gaps");
    if let Some(Value::Object(channels)) = members.get_mut("channels") {
        channels.remove("top");
    }
    let rows = status.channels.top.iter().map(|row| (row.name.clone(), value(row)));
    let gaps = status.gaps.iter().map(|gap| (gap.number.to_string(), value(gap)));
    [members.into_iter().collect(), rows.collect(), gaps.collect()]
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).expect("names and numbers become JSON")
}

fn slot(key: &str) -> SlotKey {
    SlotKey {
        source: 0,
        name: Bytes::copy_from_slice(key.as_bytes()),
    }
}

fn payload(channel: &str, key: &str, value: Option<&Value>) -> Payload {
    let message = Message { channel, key, value };
    let live = serde_json::to_vec(&message).expect("names and numbers become JSON");
    Payload {
        live: live.into(),
        snapshot: Snapshot::Same,
        json: true,
        absent: value.is_none(),
    }
}

//! The state of channels as one JSON body: `{"channels":{"cart:42":[…]},"cursor":"…","stale":{"cart:42":{…}}}`.
//!
//! An item is a payload: its JSON where it is JSON, else a string. A state channel gives the values that are there (none where
//! its mapping has snapshots switched off), an events channel the happenings that it still keeps. `stale` is there only where
//! channels may be behind their keys, and says of them why and since when.
//!
//! The watermark is taken before the first value is read, and the cursor stands at it. So a value that was appended meanwhile is
//! in the body and comes a second time to a client that goes on from the cursor, but nothing can be missing between the two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use crate::hub::{Body, Cursor, Hub, Log, Message, Mode, Payload, Reason, Subscription, set_of};
use crate::session::Ending;

/// How long a request waits until the channels are read: a proxy in front gives up after 30 s or more.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Largest body: it is built in memory, for each request anew.
pub const MAX_BODY: usize = 64 << 20;

/// Values taken at one lock of a log, so that no append waits for long.
const BATCH: usize = 256;

/// Bytes written before the thread's streams get a turn: some 100 µs.
const SLICE: usize = 256 << 10;

/// Most bytes of all bodies that are being written or not sent yet: who asks for much and reads nothing has but this much
/// together with all others who do. Two of the largest, so that a large one does not keep every other out.
pub const MAX_BODIES: usize = 2 * MAX_BODY;

/// Room for what stands around a channel's payloads, and around all channels.
const ENVELOPE: usize = 256;

/// Bytes of the bodies of the process.
static BODIES: AtomicUsize = AtomicUsize::new(0);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It would be larger than [`MAX_BODY`].
    TooLarge,
    /// All bodies together would be larger than [`MAX_BODIES`].
    Full,
    /// A channel was ended meanwhile.
    Ended,
}

/// A body that is counted for as long as it is there.
#[derive(Debug, Default)]
pub struct Counted {
    bytes: Vec<u8>,
    counted: usize,
}

/// The channels whose state is not there yet, each with why as a fixed word: the reason for which it is stale, or `filling`
/// where it is still being read, or `overload` and the like where it was ended.
pub fn missing<'a>(hub: &Hub, subscriptions: &'a [Subscription]) -> impl Iterator<Item = (&'a str, &'static str)> {
    let watermark = hub.watermark();
    subscriptions.iter().filter_map(move |subscription| {
        let log = subscription.log();
        let view = log.view();
        let stale = view.stale().map(|(reason, _)| reason.0);
        let ended = view.ended().map(|ended| Ending::from(ended).reason());
        let why = ended.or(stale).unwrap_or("filling");
        (!view.is_filled(watermark)).then_some((&*log.channel.name, why))
    })
}

/// Waits until the logs hold the whole state and gives the watermark at which they did; `None` after [`PATIENCE`], or if one was ended. It does
/// nothing but wait, so it may be dropped at any time.
pub async fn filled(hub: &Hub, subscriptions: &[Subscription]) -> Option<u64> {
    let wait = async {
        loop {
            // Before the watermark is read: progress in between wakes at once.
            let progress = hub.progress();
            let watermark = hub.watermark();
            let filled = |subscription: &Subscription| subscription.log().view().is_filled(watermark);
            if subscriptions.iter().all(filled) {
                return Some(watermark);
            }
            if subscriptions.iter().any(is_ended) {
                return None;
            }
            progress.await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.ok().flatten()
}

fn is_ended(subscription: &Subscription) -> bool {
    subscription.log().view().ended().is_some()
}

/// Why a channel may be behind its keys, and since when in milliseconds since 1970.
#[derive(Serialize)]
struct Stale {
    since: u64,
    reason: &'static str,
}

impl Stale {
    fn of((reason, since): (Reason, SystemTime)) -> Stale {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Stale {
            since: since.as_millis() as u64,
            reason: reason.0,
        }
    }
}

impl Counted {
    /// Takes all the memory that is expected to be needed at once, if it is to be had: a body that grows takes more than it
    /// is long, and leaves holes.
    fn reserve(&mut self, expected: usize) -> Result<(), Failed> {
        let expected = expected.min(MAX_BODY);
        self.count(expected)?;
        self.bytes.reserve_exact(expected);
        Ok(())
    }

    /// Counts what it has grown by.
    fn grown(&mut self) -> Result<(), Failed> {
        match self.bytes.len() > MAX_BODY {
            true => Err(Failed::TooLarge),
            false => self.count(self.bytes.capacity()),
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failed> {
        let more = bytes.saturating_sub(self.counted);
        self.counted += more;
        // What was counted is given back with the body.
        match BODIES.fetch_add(more, Ordering::Relaxed) + more > MAX_BODIES {
            true => Err(Failed::Full),
            false => Ok(()),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        BODIES.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body, with the cursor at `watermark`.
pub async fn render(hub: &Hub, subscriptions: &[Subscription], watermark: u64) -> Result<Bytes, Failed> {
    let logs = || subscriptions.iter().map(Subscription::log);
    let mut counted = Counted::default();
    let mut expected = ENVELOPE;
    for log in logs() {
        expected += ENVELOPE + 2 * log.channel.name.len() + size_of(log, watermark).await;
    }
    counted.reserve(expected)?;
    let body = &mut counted.bytes;
    body.extend_from_slice(b"{\"channels\":{");
    for (i, log) in logs().enumerate() {
        let body = &mut counted.bytes;
        if i > 0 {
            body.push(b',');
        }
        write_string(body, &log.channel.name);
        body.extend_from_slice(b":[");
        match log.channel.mode {
            Mode::State if !log.channel.snapshot => {}
            Mode::State => write_state(&mut counted, log).await?,
            Mode::Events => write_events(&mut counted, log, watermark).await?,
        }
        counted.bytes.push(b']');
    }
    let cursor = Cursor {
        epoch: hub.epoch,
        sequence: watermark,
        set: Some(set_of(logs().map(|log| &*log.channel.name))),
    };
    let body = &mut counted.bytes;
    body.extend_from_slice(format!("}},\"cursor\":\"{cursor}\"").as_bytes());
    if subscriptions.iter().any(is_ended) {
        // Values were let go, perhaps before they were read.
        return Err(Failed::Ended);
    }
    // Asked last: what became stale while the values were read is told, too.
    let stale: BTreeMap<&str, Stale> = logs()
        .filter_map(|log| Some((&*log.channel.name, Stale::of(log.view().stale()?))))
        .collect();
    if !stale.is_empty() {
        body.extend_from_slice(b",\"stale\":");
        serde_json::to_writer(&mut *body, &stale).expect("words and numbers become JSON, and a Vec takes it");
    }
    body.push(b'}');
    counted.grown()?;
    Ok(Bytes::from_owner(counted))
}

/// About how many bytes the payloads of a log take, with what stands between them.
async fn size_of(log: &Log, watermark: u64) -> usize {
    let (mut size, mut from, mut after) = (0, 0, 0);
    loop {
        let mut taken = 0;
        {
            let view = log.view();
            while taken < BATCH {
                let found = match log.channel.mode {
                    Mode::State if !log.channel.snapshot => None,
                    Mode::State => view.slot(from, 0, u64::MAX),
                    Mode::Events => view.next(after, watermark),
                };
                let Some(found) = found else { break };
                from = found.slot.map_or(from, |slot| slot + 1);
                after = found.message.sequence;
                size += found.message.size() + 1;
                taken += 1;
            }
        }
        if taken < BATCH {
            return size;
        }
        tokio::task::yield_now().await;
    }
}

async fn write_state(body: &mut Counted, log: &Log) -> Result<(), Failed> {
    let mut first = true;
    let mut from = 0;
    loop {
        let mut batch: Vec<Arc<Message>> = Vec::new();
        {
            let view = log.view();
            // A slot holds its newest message only, so there is none to be had at the watermark itself.
            while let Some(found) = view.slot(from, 0, u64::MAX) {
                from = found.slot.map_or(from, |slot| slot + 1);
                batch.push(found.message);
                if batch.len() == BATCH {
                    break;
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        for message in batch {
            if let Body::Change(payload) = &message.body {
                write_item(body, &mut first, payload, &payload.snapshot()).await?;
            }
        }
    }
}

async fn write_events(body: &mut Counted, log: &Log, watermark: u64) -> Result<(), Failed> {
    let mut first = true;
    let mut after = 0;
    loop {
        let mut batch: Vec<Arc<Message>> = Vec::new();
        {
            let view = log.view();
            while let Some(found) = view.next(after, watermark) {
                after = found.message.sequence;
                batch.push(found.message);
                if batch.len() == BATCH {
                    break;
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        for message in batch {
            if let Body::Change(payload) = &message.body {
                write_item(body, &mut first, payload, &payload.live).await?;
            }
        }
    }
}

async fn write_item(counted: &mut Counted, first: &mut bool, payload: &Payload, bytes: &[u8]) -> Result<(), Failed> {
    let body = &mut counted.bytes;
    let before = body.len();
    if !std::mem::take(first) {
        body.push(b',');
    }
    if payload.json {
        body.extend_from_slice(bytes);
    } else {
        write_string(body, &String::from_utf8_lossy(bytes));
    }
    let after = body.len();
    counted.grown()?;
    if before / SLICE != after / SLICE {
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn write_string(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("a string becomes JSON, and a Vec takes it");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::hub::{SlotKey, Snapshot};
    use crate::server::testing::hub;

    fn payload(text: &'static str, json: bool, absent: bool) -> Payload {
        Payload {
            live: text.into(),
            snapshot: Snapshot::Same,
            json,
            absent,
        }
    }

    fn slot(name: &'static str) -> SlotKey {
        SlotKey {
            source: 0,
            name: Bytes::from_static(name.as_bytes()),
        }
    }

    async fn read(hub: &Hub, subscriptions: &[Subscription], watermark: u64) -> Value {
        serde_json::from_slice(&render(hub, subscriptions, watermark).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn values_happenings_and_one_cursor() {
        let (hub, mut appender) = hub(10);
        let open = |name| hub.subscribe(name, false).unwrap();
        let all = [open("a"), open("events:b"), open("blind:c")];
        let now = Instant::now();
        let log = all[0].log();
        appender.put(log, slot("1"), false, Some(payload("{\"v\":1}", true, false)), now);
        appender.put(log, slot("2"), false, Some(payload("x\"y", false, false)), now);
        appender.put(log, slot("3"), false, Some(payload("3", true, false)), now);
        appender.put(log, slot("3"), false, Some(payload("null", true, true)), now);
        appender.put(log, slot("4"), false, None, now);
        appender.put(log, slot("5"), true, Some(payload("null", true, true)), now);
        appender.push(all[1].log(), payload("1", true, false), now);
        appender.gap(all[1].log(), Reason("lost"), None, now);
        appender.push(all[1].log(), payload("2", true, false), now);
        appender.put(all[2].log(), slot("1"), false, Some(payload("1", true, false)), now);
        for subscription in &all {
            appender.fill(subscription.log());
        }
        appender.commit();
        let watermark = filled(&hub, &all).await.unwrap();
        assert_eq!(watermark, hub.watermark());
        let body = read(&hub, &all, watermark).await;
        assert_eq!(
            body["channels"],
            json!({"a": [{"v": 1}, "x\"y", null], "events:b": [1, 2], "blind:c": []})
        );
        let cursor = Cursor::parse(body["cursor"].as_str().unwrap()).unwrap();
        assert_eq!((cursor.epoch, cursor.sequence), (hub.epoch, watermark));
        assert_eq!(cursor.set, Some(set_of(["a", "events:b", "blind:c"])));
        assert_eq!(body.get("stale"), None);
    }

    #[tokio::test]
    async fn what_is_appended_meanwhile_is_not_lost_and_staleness_is_told() {
        let (hub, mut appender) = hub(10);
        let all = [
            hub.subscribe("a", false).unwrap(),
            hub.subscribe("events:b", false).unwrap(),
        ];
        for subscription in &all {
            appender.fill(subscription.log());
        }
        appender.commit();
        let watermark = filled(&hub, &all).await.unwrap();
        let now = Instant::now();
        appender.put(all[0].log(), slot("1"), false, Some(payload("1", true, false)), now);
        appender.push(all[1].log(), payload("1", true, false), now);
        appender.stale(all[0].log(), Reason("upstream-lost"), SystemTime::UNIX_EPOCH);
        appender.commit();
        let body = read(&hub, &all, watermark).await;
        // A slot has no older value to give; a happening comes after the cursor.
        assert_eq!(body["channels"], json!({"a": [1], "events:b": []}));
        assert_eq!(body["stale"], json!({"a": {"since": 0, "reason": "upstream-lost"}}));
        assert!(body["cursor"].as_str().unwrap().contains(&format!("-{watermark}-")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_yet_is_waited_for_but_not_for_ever() {
        let (hub, mut appender) = hub(10);
        let all = [hub.subscribe("a", false).unwrap()];
        assert_eq!(filled(&hub, &all).await, None);
        assert_eq!(missing(&hub, &all).collect::<Vec<_>>(), [("a", "filling")]);
        appender.stale(all[0].log(), Reason("upstream-lost"), SystemTime::UNIX_EPOCH);
        appender.commit();
        assert_eq!(missing(&hub, &all).collect::<Vec<_>>(), [("a", "upstream-lost")]);
        let fill = async {
            appender.fill(all[0].log());
            tokio::task::yield_now().await;
            appender.commit();
        };
        let (watermark, ()) = tokio::join!(filled(&hub, &all), fill);
        assert_eq!(watermark, Some(hub.watermark()));
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        let (hub, mut appender) = hub(10);
        let all = [hub.subscribe("a", false).unwrap()];
        let big: Bytes = vec![b'1'; MAX_BODY / 2].into();
        for name in ["1", "2"] {
            let mut payload = payload("", true, false);
            payload.live = big.clone();
            appender.put(all[0].log(), slot(name), false, Some(payload), Instant::now());
        }
        appender.commit();
        assert_eq!(render(&hub, &all, hub.watermark()).await, Err(Failed::TooLarge));
    }
}

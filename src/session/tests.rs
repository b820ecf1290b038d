//! A session against a plain model, over the real hub.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::hub::{Access, Appender, Catalog, Hub, Mode, Options, Payload, Reason, Retention, SlotKey, Snapshot, Way};

mod schedules;
mod stale;

/// Channels that begin with `e` are events channels; those that begin with `n` have no snapshot.
struct Any;

impl Catalog for Any {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.describe(name).map(|_| vec![vec![Way::Public]])
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        Some(Channel {
            name: name.into(),
            mode: if name.starts_with('e') {
                Mode::Events
            } else {
                Mode::State
            },
            event_name: None,
            retention: Retention {
                messages: 1000,
                bytes: 1 << 20,
                age: Duration::from_secs(60),
            },
            snapshot: !name.starts_with('n'),
            on_reset: Vec::new(),
        })
    }
}

struct World {
    hub: Arc<Hub>,
    appender: Appender,
    now: Instant,
}

impl World {
    fn new() -> World {
        let (hub, appender) = Hub::new(Options::channels(100), 7, Any);
        World {
            hub,
            appender,
            now: Instant::now(),
        }
    }

    /// An active, filled channel.
    fn open(&mut self, name: &str) -> Subscription {
        let subscription = self.hub.subscribe(name, true).unwrap();
        if subscription.log().view().complete_from() == u64::MAX {
            self.appender.activate(subscription.log());
        }
        self.appender.fill(subscription.log());
        self.appender.commit();
        subscription
    }

    /// So slowly that it is not kept for those who are just being sent it.
    fn delete_slowly(&mut self, log: &Arc<Log>, key: usize) {
        self.now += Duration::from_millis(10);
        self.put(log, &key.to_string(), None);
    }

    fn put(&mut self, log: &Arc<Log>, key: &str, value: Option<u64>) {
        let key = SlotKey {
            source: 0,
            name: Bytes::copy_from_slice(key.as_bytes()),
        };
        let live = Bytes::from(format!("{}={}", String::from_utf8_lossy(&key.name), value.unwrap_or(0)));
        let payload = Payload {
            live,
            snapshot: Snapshot::Same,
            json: false,
            absent: value.is_none(),
        };
        match log.channel.mode {
            Mode::State => self.appender.put(log, key, false, Some(payload), self.now),
            Mode::Events => self.appender.push(log, payload, self.now),
        }
    }

    fn commit(&mut self) -> u64 {
        self.appender.commit();
        self.hub.watermark()
    }
}

/// What a client makes of the steps, and the checks that hold for every stream.
#[derive(Default)]
struct Client {
    /// Per channel: the values it shows.
    state: HashMap<String, BTreeMap<String, String>>,
    /// Per channel: the happenings it saw.
    events: HashMap<String, Vec<u64>>,
    /// Per channel and key: the sequence shown.
    shown: HashMap<(String, String), u64>,
    last_id: u64,
    cursor: Option<String>,
    readies: usize,
    resets: usize,
    gaps: usize,
}

impl Client {
    fn take(&mut self, step: Step) {
        match step {
            Step::Message { message, rendition } => {
                let channel = message.channel.name.to_string();
                if rendition == Rendition::Live {
                    assert!(message.sequence > self.last_id, "ids grow");
                    self.last_id = message.sequence;
                    self.cursor = Some(
                        Cursor {
                            epoch: 7,
                            sequence: self.last_id,
                            set: None,
                        }
                        .to_string(),
                    );
                }
                let Body::Change(payload) = &message.body else { return };
                if message.channel.mode == Mode::Events {
                    let seen = self.events.entry(channel).or_default();
                    assert!(
                        seen.last().is_none_or(|&last| last < message.sequence),
                        "in order, each once"
                    );
                    seen.push(message.sequence);
                    return;
                }
                let text = String::from_utf8(payload.live.to_vec()).unwrap();
                let (key, value) = text.split_once('=').unwrap();
                let shown = self.shown.insert((channel.clone(), key.into()), message.sequence);
                assert!(
                    shown.is_none_or(|shown| shown < message.sequence),
                    "no key goes back or comes twice: {text}"
                );
                let state = self.state.entry(channel).or_default();
                match payload.absent {
                    true => state.remove(key),
                    false => state.insert(key.into(), value.into()),
                };
            }
            Step::Ready { cursor, .. } => {
                self.readies += 1;
                self.cursor = Some(cursor.to_string());
            }
            Step::Reset { channel, .. } => {
                self.resets += 1;
                self.state.remove(&*channel);
                self.shown.retain(|(of, _), _| *of != *channel);
            }
            Step::Gap { .. } => self.gaps += 1,
            Step::OnReset { .. } => {}
        }
    }

    /// Takes at most `most` steps; whether there may be more.
    fn pull(&mut self, session: &mut Session, watermark: u64, most: usize) -> bool {
        for _ in 0..most {
            match session.next(watermark) {
                Some(step) => self.take(step),
                None => return false,
            }
        }
        true
    }
}

fn start(client: &Client, names: &[&str]) -> Start {
    Start::judge(client.cursor.as_deref(), 7, set_of(names.iter().copied()), true)
}

#[test]
fn ready_waits_for_a_value_that_the_watermark_has_not_reached() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    world.put(&log, "x", Some(1));
    world.put(&log, "y", Some(1));
    let before = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, before, None);
    // Renewed before the session came to it: its predecessor is gone, and itself may not be taken yet.
    world.put(&log, "y", Some(2));
    let mut client = Client::default();
    client.pull(&mut session, before, 99);
    assert_eq!((client.readies, client.state["a"].len()), (0, 1));
    let watermark = world.commit();
    while client.readies == 0 {
        client.take(session.next(watermark).unwrap());
    }
    assert_eq!(client.state["a"].len(), 2, "the snapshot is whole when ready is said");
    // A value that is renewed all the time does not keep a new client waiting for ever.
    let mut session = Session::new(7);
    session.subscribe(world.open("a"), Start::New, watermark, None);
    let mut client = Client::default();
    let mut watermark = watermark;
    for n in 3..200 {
        world.put(&log, "x", Some(n));
        client.pull(&mut session, watermark, 99);
        watermark = world.commit();
    }
    assert_eq!((client.readies, client.state["a"].len()), (1, 1));
    client.pull(&mut session, watermark, 99);
    assert_eq!(client.state["a"]["x"], "199");
}

#[test]
fn without_a_snapshot_only_what_changes_after_the_state_was_read_is_sent() {
    let mut world = World::new();
    let subscription = world.hub.subscribe("n", true).unwrap();
    let log = subscription.log().clone();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, world.hub.watermark(), None);
    world.appender.activate(&log);
    world.put(&log, "x", Some(1));
    world.appender.fill(&log);
    let watermark = world.commit();
    let mut client = Client::default();
    client.pull(&mut session, watermark, 99);
    assert_eq!((client.readies, client.state.get("n")), (1, None));
    world.put(&log, "x", Some(2));
    let watermark = world.commit();
    client.pull(&mut session, watermark, 99);
    assert_eq!(client.state["n"]["x"], "2");
}

#[test]
fn a_new_session_gets_the_state_then_ready_then_what_happens_with_ids() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    world.put(&log, "k", Some(1));
    world.put(&log, "gone", Some(1));
    world.put(&log, "gone", None);
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, Some(3));
    let first = session.next(watermark).unwrap();
    assert!(matches!(
        &first,
        Step::Message {
            rendition: Rendition::Snapshot,
            ..
        }
    ));
    let ready = session.next(watermark).unwrap();
    let Step::Ready {
        channels,
        cursor,
        reference,
    } = ready
    else {
        panic!("{ready:?}")
    };
    assert_eq!(
        (channels, cursor.sequence, reference),
        (vec![("a".into(), 1)], watermark, Some(3))
    );
    assert!(session.next(watermark).is_none() && session.is_live());
    world.put(&log, "k", Some(2));
    let watermark = world.commit();
    let live = session.next(watermark).unwrap();
    assert!(matches!(live, Step::Message { rendition: Rendition::Live, message } if message.sequence == watermark));
}

#[test]
fn a_channel_that_is_not_filled_is_waited_for_and_stale_is_told_first() {
    let mut world = World::new();
    let subscription = world.hub.subscribe("a", true).unwrap();
    let log = subscription.log().clone();
    world.appender.activate(&log);
    world
        .appender
        .stale(&log, Reason("away"), std::time::SystemTime::UNIX_EPOCH);
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::Unknown, watermark, None);
    let stale = session.next(watermark);
    assert!(matches!(stale, Some(Step::Message { message, .. }) if matches!(message.body, Body::Stale { .. })));
    assert!(session.next(watermark).is_none() && !session.is_live());
    world.put(&log, "k", Some(1));
    world.appender.fill(&log);
    world
        .appender
        .fresh(&log, Reason("away"), std::time::SystemTime::UNIX_EPOCH);
    let watermark = world.commit();
    let steps: Vec<Step> = std::iter::from_fn(|| session.next(watermark)).collect();
    assert!(matches!(&steps[0], Step::Reset { .. }));
    assert!(matches!(
        &steps[1],
        Step::Message {
            rendition: Rendition::Snapshot,
            ..
        }
    ));
    assert!(matches!(&steps[2], Step::Message { message, .. } if matches!(message.body, Body::Fresh { .. })));
    assert!(matches!(&steps[3], Step::Ready { .. }));
    assert_eq!(steps.len(), 4);
    assert!(session.is_live());
}

#[test]
fn ready_waits_while_a_channel_is_stale() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    world.put(&log, "k", Some(1));
    world
        .appender
        .stale(&log, Reason("late"), std::time::SystemTime::UNIX_EPOCH);
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 99);
    assert_eq!(
        (client.readies, client.state["a"].len()),
        (0, 1),
        "the last known state, but no ready"
    );
    world.put(&log, "k", Some(2));
    let watermark = world.commit();
    client.pull(&mut session, watermark, 99);
    assert_eq!((client.readies, client.last_id), (0, 0), "no id before ready");
    world
        .appender
        .fresh(&log, Reason("late"), std::time::SystemTime::UNIX_EPOCH);
    let watermark = world.commit();
    client.pull(&mut session, watermark, 99);
    assert_eq!(client.readies, 1);
    assert!(session.is_live());
}

/// A client hears another reason, the same one only once, and `fresh` once for all of them.
#[test]
fn a_new_reason_is_news() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    Client::default().pull(&mut session, watermark, 99);
    let since = std::time::SystemTime::UNIX_EPOCH;
    let mut told = |world: &mut World| {
        let watermark = world.commit();
        let steps = std::iter::from_fn(|| session.next(watermark));
        let told = steps.map(|step| match step {
            Step::Message { message, .. } => match message.body {
                Body::Stale { reason, .. } => reason.0,
                Body::Fresh { .. } => "fresh",
                _ => "other",
            },
            _ => "other",
        });
        told.collect::<Vec<_>>()
    };
    world.appender.stale(&log, Reason("late"), since);
    assert_eq!(told(&mut world), ["late"]);
    world.appender.stale(&log, Reason("late"), since);
    assert_eq!(told(&mut world), [""; 0]);
    world.appender.stale(&log, Reason("lost"), since);
    assert_eq!(told(&mut world), ["lost"]);
    world.appender.fresh(&log, Reason("lost"), since);
    assert_eq!(told(&mut world), ["fresh"]);
    world.appender.fresh(&log, Reason("lost"), since);
    assert_eq!(told(&mut world), [""; 0]);
}

#[test]
fn a_catch_up_calls_no_stale_channel_ready() {
    let mut world = World::new();
    let both = [world.open("a"), world.open("b")];
    let logs = both.each_ref().map(|subscription| subscription.log().clone());
    let watermark = world.commit();
    let mut session = Session::new(7);
    for subscription in both {
        session.subscribe(subscription, Start::New, watermark, None);
    }
    let mut client = Client::default();
    client.pull(&mut session, watermark, 99);
    session.fall_behind(watermark);
    let since = std::time::SystemTime::UNIX_EPOCH;
    world.appender.stale(&logs[0], Reason("late"), since);
    world.put(&logs[1], "k", Some(1));
    let watermark = world.commit();
    let steps: Vec<Step> = std::iter::from_fn(|| session.next(watermark)).collect();
    let Some(Step::Ready { channels, cursor, .. }) = steps.last() else {
        panic!("{steps:?}")
    };
    assert_eq!(*channels, [("b".into(), 1)]);
    assert_eq!(
        (cursor.sequence, cursor.set),
        (watermark, Some(set_of(["a", "b"]))),
        "it is the cursor of the whole list"
    );
}

#[test]
fn what_is_appended_but_not_committed_makes_no_one_spin() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    let watermark = world.commit();
    for i in 0..10 * WINDOW as u64 {
        world.put(&log, &i.to_string(), Some(i));
    }
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut client = Client::default();
    assert!(!client.pull(&mut session, watermark, 99));
    assert_eq!(
        client.readies, 0,
        "any of them may have taken the place of what the watermark had"
    );
    let watermark = world.commit();
    assert!(!client.pull(&mut session, watermark, 9999));
    assert!(session.is_live() && client.readies == 1);
}

#[test]
fn a_channel_that_is_filled_during_a_sweep_is_sent_whole() {
    let mut world = World::new();
    let late = world.hub.subscribe("b", true).unwrap();
    let log = late.log().clone();
    world.appender.activate(&log);
    // Read, but the whole of it is not.
    world.put(&log, "x", Some(1));
    let first = world.open("a");
    for key in ["k", "l"] {
        world.put(&first.log().clone(), key, Some(1));
    }
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(late, Start::New, watermark, None);
    session.subscribe(first, Start::New, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 1);
    // The sweep has passed the place of the other channel by, and goes on under another watermark.
    world.put(&log, "y", Some(1));
    let watermark = world.commit();
    client.pull(&mut session, watermark, 1);
    world.appender.fill(&log);
    let watermark = world.commit();
    client.pull(&mut session, watermark, 99);
    assert_eq!((client.readies, client.state["b"].len()), (1, 2));
}

#[test]
fn deletions_trimmed_before_they_were_seen_reset_the_channel() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    for i in 0..2_000 {
        world.put(&log, &i.to_string(), Some(i));
    }
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 9999);
    for i in 0..2_000 {
        world.delete_slowly(&log, i);
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 9999);
    assert_eq!(client.resets, 1);
    assert!(client.state.get("a").is_none_or(BTreeMap::is_empty));
    assert!(session.is_live());
}

/// A log of 2,000 values, and a session that has them all.
fn caught_up(world: &mut World) -> (Arc<Log>, Session, Client) {
    let subscription = world.open("a");
    let log = subscription.log().clone();
    for i in 0..2_000 {
        world.put(&log, &i.to_string(), Some(i));
    }
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 9999);
    (log, session, client)
}

#[test]
fn deletions_trimmed_while_a_sweep_is_on_its_way_reset_the_channel() {
    let mut world = World::new();
    let (log, mut session, mut client) = caught_up(&mut world);
    session.fall_behind(world.hub.watermark());
    for i in 0..1_000 {
        world.delete_slowly(&log, i);
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 10);
    // These push out those that the sweep has not come to.
    for i in 1_000..2_000 {
        world.delete_slowly(&log, i);
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 9999);
    assert!(client.state.get("a").is_none_or(BTreeMap::is_empty));
    assert!(session.is_live() && client.resets == 1);
}

#[test]
fn old_deletions_that_go_while_a_sweep_is_on_its_way_reset_the_channel() {
    let mut world = World::new();
    let (log, mut session, mut client) = caught_up(&mut world);
    session.fall_behind(world.hub.watermark());
    for i in 0..100 {
        world.put(&log, &i.to_string(), None);
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 10);
    world.appender.trim(&log, world.now + Duration::from_secs(3600));
    client.pull(&mut session, watermark, 9999);
    assert_eq!(client.state["a"].len(), 1_900);
    assert!(session.is_live());
}

#[test]
fn what_was_pushed_out_by_what_is_not_yet_visible_resets_once() {
    let mut world = World::new();
    let (log, mut session, mut client) = caught_up(&mut world);
    let before = world.hub.watermark();
    for i in 0..2_000 {
        world.delete_slowly(&log, i);
    }
    session.fall_behind(before);
    client.pull(&mut session, before, 9999);
    client.pull(&mut session, before, 9999);
    let watermark = world.commit();
    client.pull(&mut session, watermark, 9999);
    assert_eq!((client.resets, session.is_live()), (1, true));
    assert!(client.state.get("a").is_none_or(BTreeMap::is_empty));
}

#[test]
fn happenings_dropped_while_a_sweep_is_on_its_way_are_told() {
    let mut world = World::new();
    let subscription = world.open("e");
    let log = subscription.log().clone();
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 9);
    session.fall_behind(watermark);
    for i in 0..500 {
        world.put(&log, "k", Some(i));
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 10);
    for i in 0..900 {
        world.put(&log, "k", Some(i));
    }
    let watermark = world.commit();
    client.pull(&mut session, watermark, 9999);
    assert_eq!((client.gaps, session.is_live()), (1, true));
    assert_eq!(client.events["e"].len(), 1_010);
}

#[test]
fn a_gap_is_told_once_although_an_old_status_stands_before_what_is_retained() {
    let mut world = World::new();
    let subscription = world.open("e");
    let log = subscription.log().clone();
    let since = std::time::SystemTime::UNIX_EPOCH;
    world.appender.stale(&log, Reason("late"), since);
    world.appender.fresh(&log, Reason("late"), since);
    for i in 0..1_500 {
        world.put(&log, "k", Some(i));
    }
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::Unknown, watermark, None);
    let mut client = Client::default();
    client.pull(&mut session, watermark, 9999);
    assert_eq!((client.gaps, client.readies, session.is_live()), (1, 1, true));
    assert_eq!(client.events["e"].len(), 1_000);
}

/// Rule: under sustained writes of one hot and many cool keys to a client that takes less than half, every key is seen
/// again and again.
#[test]
fn who_leaves_a_channel_is_given_the_cursor_of_the_rest() {
    let mut world = World::new();
    let both = [world.open("a"), world.open("b")];
    let logs = both.each_ref().map(|subscription| subscription.log().clone());
    let watermark = world.commit();
    let mut session = Session::new(7);
    for subscription in both {
        session.subscribe(subscription, Start::New, watermark, None);
    }
    let mut client = Client::default();
    client.pull(&mut session, watermark, usize::MAX);
    assert!(session.is_live());
    let ready = |session: &mut Session, watermark| {
        std::iter::from_fn(|| session.next(watermark)).find_map(|step| match step {
            Step::Ready {
                channels,
                cursor,
                reference,
            } => Some((channels, cursor, reference)),
            _ => None,
        })
    };
    let rest = |sequence| Cursor {
        epoch: 7,
        sequence,
        set: Some(set_of(["b"])),
    };
    // What comes meanwhile comes after it.
    world.put(&logs[1], "k", Some(1));
    let newer = world.commit();
    session.unsubscribe("a").unwrap();
    session.announce_rest(watermark, Some(9));
    assert!(!session.is_live(), "the walk must not pass it");
    let told = ready(&mut session, watermark);
    assert_eq!(told, Some((vec![("b".into(), 1)], rest(watermark), Some(9))));
    assert!(matches!(session.next(newer), Some(Step::Message { message, .. }) if message.sequence == newer));
    assert!(session.next(newer).is_none() && session.is_live());

    // In the midst of a sweep it is told at the end of it.
    session.fall_behind(newer);
    world.put(&logs[1], "k", Some(2));
    let watermark = world.commit();
    session.announce_rest(0, None);
    assert_eq!(
        ready(&mut session, watermark),
        Some((vec![("b".into(), 1)], rest(watermark), None))
    );
    assert_eq!(ready(&mut session, watermark), None, "once");
}

#[test]
fn who_leaves_the_only_channel_before_it_is_filled_is_answered() {
    let world = World::new();
    let mut session = Session::new(7);
    session.subscribe(world.hub.subscribe("a", true).unwrap(), Start::New, 0, Some(1));
    assert!(session.next(0).is_none());
    session.unsubscribe("a").unwrap();
    session.announce_rest(0, Some(2));
    let ready = session.next(0);
    assert!(
        matches!(&ready, Some(Step::Ready { channels, reference: Some(2), .. }) if channels.is_empty()),
        "{ready:?}"
    );
    assert!(session.next(0).is_none() && session.is_live());
}

#[test]
fn who_leaves_the_channel_that_kept_all_waiting_is_told_that_the_rest_is_ready() {
    let mut world = World::new();
    let there = world.open("a");
    let missing = world.hub.subscribe("b", true).unwrap();
    let mut session = Session::new(7);
    session.subscribe(there, Start::New, 0, Some(1));
    session.subscribe(missing, Start::New, 0, Some(1));
    let watermark = world.commit();
    assert!(session.next(watermark).is_none(), "`b` is not filled yet");
    session.unsubscribe("b").unwrap();
    session.announce_rest(watermark, Some(2));
    let ready = session.next(watermark);
    assert!(
        matches!(&ready, Some(Step::Ready { channels, .. }) if *channels == [("a".into(), 0)]),
        "{ready:?}"
    );
}

#[test]
fn a_slow_client_sees_every_key_again_and_again() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, 0, None);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut value = 0;
    for round in 0..4_000u64 {
        for key in [0, 1 + round % 99] {
            value += 1;
            world.put(&log, &key.to_string(), Some(value));
        }
        let watermark = world.commit();
        if let Some(Step::Message { message, .. }) = session.next(watermark)
            && let Body::Change(payload) = &message.body
        {
            let text = String::from_utf8(payload.live.to_vec()).unwrap();
            *seen.entry(text.split('=').next().unwrap().into()).or_default() += 1;
        }
        session.fall_behind(watermark);
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.values().all(|&times| times >= 20), "{seen:?}");
}

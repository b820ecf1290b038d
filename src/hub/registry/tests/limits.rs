//! What is done when there is no room.

use std::borrow::Cow;

use super::*;
use crate::hub::{Encoding, Maker, Message, SlotKey};

const ANNA: Maker = Maker(1);
const FLOOD: Maker = Maker(2);

fn limited(max_channels: usize, channels_per_maker: usize) -> Arc<Hub> {
    let options = Options {
        channels_per_maker,
        ..Options::channels(max_channels)
    };
    Hub::new(options, 7, Any).0
}

/// Subscribes and leaves.
fn visit(hub: &Arc<Hub>, maker: Maker, name: &str) -> Result<(), SubscribeError> {
    hub.subscribe_for(maker, name).map(drop)
}

fn has(hub: &Hub, name: &str) -> bool {
    hub.registry().logs.contains_key(name)
}

/// How often the limit was reached.
fn reached(hub: &Hub, option: &str) -> u64 {
    let mut counts = hub.limited.all();
    counts.find(|(each, _)| *each == option).unwrap().1
}

#[test]
fn a_stranger_with_random_names_evicts_none_but_its_own() {
    let hub = limited(100, 1000);
    for name in ["a1", "a2", "a3"] {
        visit(&hub, ANNA, name).unwrap();
    }
    for number in 0..10_000 {
        visit(&hub, FLOOD, &format!("random {number}")).unwrap();
    }
    assert_eq!(hub.channels(), 100);
    for name in ["a1", "a2", "a3"] {
        assert!(has(&hub, name), "{name} went for a stranger's");
    }
    assert!(has(&hub, "random 9999") && !has(&hub, "random 9902"), "its oldest goes");
    // Among those who have as many, the oldest goes.
    let hub = limited(3, 1000);
    for (maker, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        visit(&hub, Maker(maker), name).unwrap();
    }
    assert!(!has(&hub, "a") && has(&hub, "b") && has(&hub, "d"));
}

#[test]
fn an_address_makes_so_many_channels_and_no_more() {
    let hub = limited(100, 3);
    let held: Vec<Subscription> = ["f1", "f2"].map(|name| hub.subscribe_for(FLOOD, name).unwrap()).into();
    visit(&hub, FLOOD, "f3").unwrap();
    visit(&hub, FLOOD, "f4").unwrap();
    assert!(!has(&hub, "f3") && has(&hub, "f4"), "its own oldest that lingers goes");
    let last = hub.subscribe_for(FLOOD, "f4").unwrap();
    let refused = Some(SubscribeError::Full(Limit::ChannelsPerAddress));
    assert_eq!(visit(&hub, FLOOD, "f5").err(), refused);
    // Others may make what they like, and what they have it may join.
    let anna = hub.subscribe_for(ANNA, "a").unwrap();
    visit(&hub, ANNA, "a2").unwrap();
    drop(last);
    visit(&hub, FLOOD, "a").unwrap();
    assert!(has(&hub, "f4"));
    // To take over what lingers is as good as making it.
    visit(&hub, FLOOD, "a2").unwrap();
    assert!(!has(&hub, "f4") && has(&hub, "a2"));
    // What it made stays its own while others have it.
    let last = hub.subscribe_for(FLOOD, "a2").unwrap();
    let joined = ["f1", "f2", "a2"].map(|name| hub.subscribe_for(Maker(3), name).unwrap());
    drop((held, last));
    assert_eq!(visit(&hub, FLOOD, "f5").err(), refused);
    drop(joined);
    visit(&hub, FLOOD, "f5").unwrap();
    drop(anna);
    assert_eq!(reached(&hub, "channels_per_address"), 4);
    // Where nothing tells clients apart, the limit would be for all of them together.
    for number in 0..10 {
        visit(&hub, Maker::NOBODY, &number.to_string()).unwrap();
    }
    assert!(has(&hub, "0") && has(&hub, "9"));
}

#[test]
fn an_address_has_so_many_subscriptions_whosever_channels_they_are_of() {
    let hub = limited(100, 3);
    let _anna = ["a1", "a2"].map(|name| hub.subscribe_for(ANNA, name).unwrap());
    let mut held: Vec<Subscription> = ["a1", "a2", "a1"]
        .map(|name| hub.subscribe_for(FLOOD, name).unwrap())
        .into();
    let refused = Some(SubscribeError::Full(Limit::ChannelsPerAddress));
    assert_eq!(visit(&hub, FLOOD, "a1").err(), refused);
    assert_eq!(visit(&hub, FLOOD, "f1").err(), refused);
    visit(&hub, ANNA, "a1").unwrap();
    held.pop();
    visit(&hub, FLOOD, "f1").unwrap();
    assert_eq!(reached(&hub, "channels_per_address"), 2);
    // Where nothing tells clients apart, the limit would be for all of them together.
    let all = [0; 10].map(|_| hub.subscribe("a1", true).unwrap());
    drop((held, all));
    // Of who is gone nothing is kept.
    hub.subscribe_for(ANNA, "f1").unwrap();
    assert_eq!(hub.registry().makers.counts().0, 1);
}

#[test]
fn a_channel_lingers_for_who_left_it_last() {
    let hub = limited(100, 1);
    let first = hub.subscribe_for(ANNA, "a").unwrap();
    let second = hub.subscribe_for(FLOOD, "a").unwrap();
    drop(first);
    drop(second);
    visit(&hub, ANNA, "a2").unwrap();
    assert!(has(&hub, "a"), "it is no more Anna's");
    visit(&hub, FLOOD, "f").unwrap();
    assert!(!has(&hub, "a"));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let hub = limited(2, 2);
    let _held = ["a", "b"].map(|name| hub.subscribe_for(ANNA, name).unwrap());
    for number in 0..1000_u64 {
        let refused = hub.subscribe_for(Maker(number + 10), &format!("random {number}"));
        assert_eq!(refused.err(), Some(SubscribeError::Full(Limit::Channels)));
        let unknown = hub.subscribe_for(Maker(number + 10), &format!("no {number}"));
        assert_eq!(unknown.err(), Some(SubscribeError::Unknown));
    }
    hub.interest();
    let registry = hub.registry();
    assert_eq!((registry.logs.len(), registry.makers.counts()), (2, (1, 0)));
    drop(registry);
    assert!(hub.interest().is_empty());
    assert_eq!(reached(&hub, "max_channels"), 1000);
}

#[test]
fn every_maker_is_forgotten_with_its_last_log() {
    let hub = limited(10, 10);
    for number in 0..1000 {
        visit(&hub, Maker(number), &format!("n{number}")).unwrap();
    }
    assert_eq!(hub.registry().makers.counts(), (10, 10));
    for log in hub.interest() {
        hub.close(&log);
    }
    assert_eq!(hub.registry().makers.counts(), (0, 0));
}

/// A hub of state channels and events channels whose logs may take so many bytes, with what is put into it.
struct Bytes {
    hub: Arc<Hub>,
    appender: Appender,
}

struct Both;

impl Catalog for Both {
    fn access(&self, name: &str) -> Option<Vec<crate::hub::Access>> {
        Any.access(name)
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        let mut channel = Any.describe(name)?;
        channel.retention.messages = 1000;
        channel.retention.bytes = usize::MAX;
        channel.retention.age = Duration::from_secs(3600);
        if !name.starts_with("events") {
            channel.mode = Mode::State;
        }
        Some(channel)
    }
}

fn payload(bytes: usize) -> Payload {
    Payload {
        live: vec![b'x'; bytes].into(),
        snapshot: Snapshot::Same,
        json: false,
        absent: false,
    }
}

impl Bytes {
    fn new(log_bytes: usize) -> Bytes {
        let options = Options {
            log_bytes,
            ..Options::channels(1000)
        };
        let (hub, appender) = Hub::new(options, 7, Both);
        Bytes { hub, appender }
    }

    fn open(&mut self, name: &str) -> Subscription {
        let subscription = self.hub.subscribe(name, true).unwrap();
        self.appender.activate(subscription.log());
        subscription
    }

    fn fill(&mut self, subscription: &Subscription) {
        self.appender.fill(subscription.log());
    }

    fn put(&mut self, log: &Arc<Log>, name: &'static str, bytes: usize) {
        let key = SlotKey {
            source: 0,
            name: name.into(),
        };
        self.appender.put(log, key, false, Some(payload(bytes)), Instant::now());
        self.appender.commit();
    }
}

#[test]
fn all_that_messages_hold_is_counted_and_let_go() {
    let mut world = Bytes::new(usize::MAX);
    let a = world.open("a");
    world.put(a.log(), "k", 10_000);
    let one = world.hub.log_bytes();
    assert!((10_000..11_000).contains(&one), "{one}");
    let message = a.log().view().next(0, u64::MAX).unwrap().message;
    message.encoded(Encoding(0), |_| vec![0; 20_000].into());
    message.encoded(Encoding(0), |_| vec![0; 20_000].into());
    let encoded = world.hub.log_bytes();
    assert!((30_000..32_000).contains(&encoded), "{encoded}");
    world.put(a.log(), "k", 100);
    assert!(world.hub.log_bytes() > encoded, "somebody holds it still");
    drop(message);
    assert!(world.hub.log_bytes() < 1_000);
    let log = a.log().clone();
    drop(a);
    assert!(world.hub.close(&log));
    drop((log, world.hub.interest()));
    assert_eq!(world.hub.log_bytes(), 0);
}

#[test]
fn encodings_are_kept_while_they_take_no_room_of_others() {
    let mut world = Bytes::new(80_000);
    let a = world.open("a");
    world.put(a.log(), "k", 10_000);
    world.put(a.log(), "k2", 10_000);
    let log = a.log().clone();
    let message = |after| log.view().next(after, u64::MAX).unwrap().message;
    let first = message(0);
    let ask = |message: &Message, place| {
        let bytes = message.encoded(Encoding(place), |_| vec![0; 20_000].into());
        assert_eq!(bytes.len(), 20_000);
        matches!(bytes, Cow::Borrowed(_))
    };
    assert_eq!([0, 1, 2, 0].map(|place| ask(&first, place)), [true, false, false, true]);
    // One that turned out longer than was thought, and one that is not even tried.
    let second = message(first.sequence);
    assert_eq!([0, 0].map(|place| ask(&second, place)), [false, false]);
    assert!(world.hub.log_bytes() <= 60_000, "{}", world.hub.log_bytes());
    drop(first);
    world.put(&log, "k", 100);
    assert_eq!(
        [3, 3].map(|place| ask(&second, place)),
        [true, true],
        "there is room again"
    );
}

#[test]
fn encodings_go_before_any_channel() {
    let mut world = Bytes::new(80_000);
    let [read, grows] = ["read", "grows"].map(|name| {
        let subscription = world.open(name);
        world.put(subscription.log(), "k", 17_000);
        world.fill(&subscription);
        subscription
    });
    let first = |subscription: &Subscription| subscription.log().view().next(0, u64::MAX).unwrap().message;
    let message = first(&read);
    message.encoded(Encoding(0), |_| vec![0; 17_000].into());
    let sequence = message.sequence;
    drop(message);
    let before = world.hub.log_bytes();
    world.put(grows.log(), "k2", 30_000);
    let ended = [&read, &grows].map(|subscription| subscription.log().view().ended());
    assert_eq!(ended, [None, None]);
    let after = world.hub.log_bytes();
    assert!(before > 50_000 && after < 67_000, "{before} {after}");
    let message = first(&read);
    assert_eq!((message.sequence, message.size()), (sequence, 17_000), "it is the same");
    drop(message);
    // What opens has room in the same way, and is ended where nothing is left to let go.
    let new = world.open("new");
    world.put(new.log(), "k", 20_000);
    let ended = [&read, &grows, &new].map(|subscription| subscription.log().view().ended());
    assert_eq!(ended, [None, None, Some(Ended::Limit(Limit::LogBytes))]);
}

#[test]
fn a_small_channel_is_not_ended_for_what_a_large_one_takes() {
    let mut world = Bytes::new(80_000);
    let [large, small] = ["large", "small"].map(|name| {
        let subscription = world.open(name);
        world.put(subscription.log(), "k", 100);
        world.fill(&subscription);
        subscription
    });
    world.put(large.log(), "k", 77_000);
    // Somebody holds so much that it is too much.
    let held = world.hub.account.charge(10_000);
    world.put(small.log(), "k", 100);
    world.put(large.log(), "k", 76_000);
    let ended = [&large, &small].map(|subscription| subscription.log().view().ended());
    assert_eq!(ended, [None, None], "neither has grown");
    world.put(small.log(), "k", 101);
    let ended = [&large, &small].map(|subscription| subscription.log().view().ended());
    assert_eq!(ended, [Some(Ended::Limit(Limit::LogBytes)), None]);
    drop(held);
}

#[test]
fn where_bytes_are_short_what_lingers_goes_then_what_is_new_then_what_grows() {
    let mut world = Bytes::new(80_000);
    let old = world.open("old");
    world.put(old.log(), "k", 30_000);
    let old_log = old.log().clone();
    drop(old);
    let a = world.open("a");
    world.put(a.log(), "k", 30_000);
    world.fill(&a);
    assert!(!old_log.view().is_closed());
    let b = world.open("b");
    world.put(b.log(), "k", 30_000);
    world.fill(&b);
    assert!(old_log.view().is_closed(), "nobody has it");
    let c = world.open("c");
    world.put(c.log(), "k", 10_000);
    assert_eq!(
        c.log().view().ended(),
        Some(Ended::Limit(Limit::LogBytes)),
        "the last eighth is not for it"
    );
    assert_eq!(c.log().view().len(), 0);
    assert!(!c.log().view().is_filled(u64::MAX));
    let after = world.hub.log_bytes();
    assert!(after < 62_000, "{after}");
    world.put(a.log(), "k2", 15_000);
    assert_eq!(a.log().view().ended(), None, "but for those that are whole");
    let refused = world.hub.subscribe("d", true).err();
    assert_eq!(refused, Some(SubscribeError::Full(Limit::LogBytes)));
    assert!(
        world.hub.subscribe("a", true).is_ok(),
        "who wants what is there gets it"
    );
    world.put(a.log(), "k3", 15_000);
    assert_eq!(a.log().view().ended(), Some(Ended::Limit(Limit::LogBytes)));
    assert_eq!(b.log().view().ended(), None);
    assert!(world.hub.subscribe("d", true).is_ok(), "there is room again");
    assert_eq!(
        world.hub.interest().iter().filter(|log| log.view().is_closed()).count(),
        3
    );
}

#[test]
fn an_events_channel_keeps_less_and_says_so() {
    let mut world = Bytes::new(80_000);
    let a = world.open("events");
    world.fill(&a);
    for _ in 0..20 {
        world.appender.push(a.log(), payload(10_000), Instant::now());
    }
    world.appender.commit();
    let view = a.log().view();
    assert_eq!(view.ended(), None);
    assert!((5..8).contains(&view.len()), "{}", view.len());
    assert!(view.complete_from() > 2, "who has not got them is told of a gap");
    drop(view);
    assert!(world.hub.log_bytes() <= 80_000);
    world.appender.push(a.log(), payload(90_000), Instant::now());
    assert_eq!(a.log().view().ended(), Some(Ended::Limit(Limit::LogBytes)));
}

#[test]
fn a_closed_log_takes_nothing_any_more() {
    let mut world = Bytes::new(10_000);
    let a = world.open("a");
    world.put(a.log(), "k", 20_000);
    let ended = a.log().clone();
    world.put(&ended, "k", 100);
    world.fill(&a);
    world.appender.activate(&ended);
    let view = ended.view();
    assert_eq!((view.len(), view.is_filled(u64::MAX)), (0, false));
    assert_eq!(view.complete_from(), u64::MAX);
    drop(view);
    drop(a);
    assert_eq!(world.hub.registry().makers.counts(), (0, 0));
    let again = world.hub.subscribe("a", true).unwrap();
    assert_ne!(again.log().id, ended.id);
}

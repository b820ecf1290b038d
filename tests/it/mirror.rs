//! Feed, relay and hub together against a real server, without clients around them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyrelay::hub::{self, Body, Hub, Mode, Retention, Subscription, Way};
use keyrelay::keyspace::EventName;
use keyrelay::mapping::MappingId;
use keyrelay::pattern::{ChannelTemplate, KeyPattern, Subject};
use keyrelay::payload::{self, Decode, Format, Renderer};
use keyrelay::relay::{self, Rule};
use keyrelay::upstream::feed::{self, Notifications};
use keyrelay::upstream::topology::{Doubt, Location};
use keyrelay::upstream::{Address, Endpoint, Source, Subscriptions, reader};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::harness::{Data, Server, eventually};
use crate::redis;

/// A relay without clients, stopped when dropped.
struct Mirror {
    hub: Arc<Hub>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

fn rule(id: u32, key: &str, channel: &str) -> Rule {
    let pattern = KeyPattern::parse(key).unwrap();
    let options = payload::Options {
        format: Format::Json,
        decode: Decode::None,
        fields: None,
        expires: false,
        heard: false,
        max_value: 1000,
    };
    Rule {
        id: MappingId(id),
        payload: Renderer::new(options, pattern.captures()).unwrap(),
        subject: Subject::Keys,
        pattern,
        channel: ChannelTemplate::parse(channel).unwrap(),
        access: vec![Way::Public],
        mode: if channel.starts_with("log") {
            Mode::Events
        } else {
            Mode::State
        },
        on: channel
            .starts_with("log:sets")
            .then(|| vec![EventName::from_bytes(b"set")]),
        event_name: None,
        linger: Duration::from_secs(30),
        snapshot: true,
        retain: Retention {
            messages: 1000,
            bytes: 1 << 20,
            age: Duration::from_secs(30),
        },
        max_value: 1000,
        min_interval: Duration::ZERO,
        poll: None,
        expires: false,
        file: Arc::from(Path::new("mirror.toml")),
        line: 1,
    }
}

fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work);
    })
}

impl Mirror {
    fn start(server: &Server, mappings: &[(&str, &str)]) -> Mirror {
        Mirror::limited(server, mappings, relay::MAX_DIRTY)
    }

    /// With so many keys at most that wait to be taken.
    fn limited(server: &Server, mappings: &[(&str, &str)], max_dirty: usize) -> Mirror {
        let rules: Vec<Rule> = (0..)
            .zip(mappings)
            .map(|(id, (key, channel))| rule(id, key, channel))
            .collect();
        let patterns: Vec<KeyPattern> = rules.iter().map(|rule| rule.pattern.clone()).collect();
        let subscriptions = Subscriptions::plan(Source::Notifications, &patterns.iter().collect::<Vec<_>>(), &[], 0);
        let endpoint = Endpoint {
            address: Address::Tcp {
                host: server.address().ip().to_string(),
                port: server.address().port(),
            },
            tls: None,
            db: 0,
            username: None,
            password: None,
            client_name: "keyrelay-test".into(),
        };
        let (catalog, intake, relay) = relay::new(relay::Options {
            rules: rules.into_iter().map(Arc::new).collect(),
            timeout: reader::TIMEOUT,
            verify: None,
            doubt: Doubt::default(),
            max_dirty,
            limits: relay::Limits::NONE,
            turns: Arc::default(),
        })
        .unwrap();
        let (hub, appender) = Hub::new(hub::Options::channels(10_000), 1, catalog);
        let options = feed::Options {
            endpoint,
            notifications: Notifications::Ensure,
            topics: true,
            strict: true,
        };
        let stop = CancellationToken::new();
        let (feed_stop, relay_stop) = (stop.clone(), stop.clone());
        let (plans, planned) = watch::channel(feed::Plan {
            number: 0,
            subscriptions,
        });
        let feed = on_a_thread(async move {
            let _plans = plans;
            feed::run(options, Location::Fixed, planned, intake, feed_stop)
                .await
                .unwrap()
        });
        let relay = on_a_thread(relay.run(appender, relay_stop));
        let threads = vec![feed, relay];
        Mirror { hub, stop, threads }
    }

    fn subscribe(&self, name: &str) -> Subscription {
        self.hub.subscribe(name, true).unwrap()
    }

    /// Waits until the channel is whole, fresh, and shows exactly these values, in the order of their keys.
    #[track_caller]
    fn shows(&self, channel: &Subscription, expected: Value) {
        eventually(&format!("the channel shows {expected}"), || {
            let view = channel.log().view();
            let watermark = self.hub.watermark();
            let mut keys = BTreeMap::new();
            let mut from = 0;
            while let Some(found) = view.slot(from, 0, watermark) {
                from = found.slot.unwrap() + 1;
                let Body::Change(payload) = &found.message.body else {
                    continue;
                };
                let change: Value = serde_json::from_slice(&payload.snapshot()).unwrap();
                assert_eq!(change.get("event"), None, "a snapshot names no event");
                keys.insert(change["key"].to_string(), change["value"].clone());
            }
            let values: Vec<Value> = keys.into_values().collect();
            let calm = view.is_filled(watermark) && view.stale().is_none();
            (calm && json!(values) == expected).then_some(())
        });
    }

    /// All that the channel tells, from its beginning.
    fn told(&self, channel: &Subscription) -> Vec<String> {
        let mut told = Vec::new();
        channel.log().view().since(0, self.hub.watermark(), |message| {
            told.push(match &message.body {
                Body::Change(payload) => {
                    let change: Value = serde_json::from_slice(&payload.live).unwrap();
                    let text = |name: &str| change[name].as_str().unwrap_or("-").to_owned();
                    format!("{} {} {}", text("event"), text("key"), text("value"))
                }
                Body::Gap { reason, .. } => format!("gap {}", reason.0),
                Body::Stale { reason, .. } => format!("stale {}", reason.0),
                Body::Fresh { reason, .. } => format!("fresh {}", reason.0),
                Body::Void => "void".to_owned(),
            });
        });
        told
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a thread of the mirror panicked");
        }
    }
}

#[test]
fn every_type_of_value_is_shown_and_followed() {
    let server = Server::start();
    redis!(server, "SET", "k", "a");
    let mirror = Mirror::start(&server, &[("k", "k")]);
    let channel = mirror.subscribe("k");
    mirror.shows(&channel, json!(["a"]));
    redis!(server, "SET", "k", b"\xff");
    mirror.shows(&channel, json!([{"base64": "/w=="}]));
    redis!(server, "DEL", "k");
    mirror.shows(&channel, json!([null]));
    redis!(server, "HSET", "k", "f", "v");
    mirror.shows(&channel, json!([{"f": "v"}]));
    redis!(server, "DEL", "k");
    redis!(server, "RPUSH", "k", "message", "a", "b");
    mirror.shows(&channel, json!([["message", "a", "b"]]));
    redis!(server, "DEL", "k");
    redis!(server, "SADD", "k", "b", "a");
    mirror.shows(&channel, json!([["a", "b"]]));
    redis!(server, "DEL", "k");
    redis!(server, "ZADD", "k", "1.5", "m");
    mirror.shows(&channel, json!([[{"member": "m", "score": 1.5}]]));
    redis!(server, "DEL", "k");
    redis!(server, "XADD", "k", "1-1", "f", "v");
    mirror.shows(&channel, json!([[{"id": "1-1", "fields": {"f": "v"}}]]));
}

#[test]
fn a_pattern_is_enumerated_and_followed() {
    let server = Server::start();
    for id in 0..500 {
        redis!(server, "SET", format!("message:1:{id:03}"), id.to_string());
        redis!(server, "SET", format!("noise:{id}"), "x");
    }
    let mirror = Mirror::start(&server, &[("message:{room}:{id}", "room:{room}")]);
    let rooms = [mirror.subscribe("room:1"), mirror.subscribe("room:2")];
    let mut expected: Vec<Value> = (0..500).map(|id| json!(id.to_string())).collect();
    mirror.shows(&rooms[0], json!(expected));
    mirror.shows(&rooms[1], json!([]));
    redis!(server, "DEL", "message:1:000");
    redis!(server, "RENAME", "message:1:499", "message:2:1");
    expected.pop();
    expected.remove(0);
    mirror.shows(&rooms[0], json!(expected));
    mirror.shows(&rooms[1], json!(["499"]));
}

#[test]
fn what_happens_while_the_server_is_away_is_shown_when_it_is_back() {
    let mut server = Server::start();
    redis!(server, "SET", "m:1", "a");
    redis!(server, "SET", "m:2", "b");
    redis!(server, "SET", "one", "c");
    server.save();
    let mirror = Mirror::start(&server, &[("m:{id}", "all"), ("one", "one"), ("job:{id}", "log")]);
    let [all, one, log] = ["all", "one", "log"].map(|name| mirror.subscribe(name));
    mirror.shows(&all, json!(["a", "b"]));
    redis!(server, "SET", "m:3", "x");
    redis!(server, "SET", "job:1", "heard");
    mirror.shows(&all, json!(["a", "b", "x"]));
    eventually("the happening is told", || {
        mirror.told(&log).contains(&"set job:1 heard".to_owned()).then_some(())
    });
    server.kill();
    eventually("the channels are stale", || {
        [&all, &one, &log]
            .iter()
            .all(|each| each.log().view().stale().is_some())
            .then_some(())
    });
    server.restart(Data::Kept);
    mirror.shows(&all, json!(["a", "b"]));
    mirror.shows(&one, json!(["c"]));
    redis!(server, "SET", "job:2", "again");
    eventually("the gap stands before what came after it", || {
        let mut told = mirror.told(&log);
        told.retain(|each| !each.starts_with("fresh"));
        (told == ["set job:1 heard", "gap upstream-lost", "set job:2 again"]).then_some(())
    });
    server.restart(Data::Lost);
    mirror.shows(&all, json!([]));
    mirror.shows(&one, json!([null]));
}

#[test]
fn a_flush_is_shown_at_once_and_without_a_word() {
    let server = Server::start();
    redis!(server, "MSET", "m:1", "a", "m:2", "b", "one", "c");
    let mirror = Mirror::start(&server, &[("m:{id}", "all"), ("one", "one")]);
    let [all, one] = ["all", "one"].map(|name| mirror.subscribe(name));
    mirror.shows(&all, json!(["a", "b"]));
    mirror.shows(&one, json!(["c"]));
    redis!(server, "FLUSHALL");
    mirror.shows(&all, json!([]));
    mirror.shows(&one, json!([null]));
    redis!(server, "SET", "m:1", "d");
    mirror.shows(&all, json!(["d"]));
    let told = mirror.told(&all);
    assert!(!told.iter().any(|each| each.starts_with("stale")), "{told:?}");
}

/// More keys change at once than may wait: all is read again, and nothing is missing.
#[test]
fn a_burst_that_outruns_the_mirror_is_read_again() {
    const KEYS: usize = 3000;
    let server = Server::start();
    let mirror = Mirror::limited(&server, &[("m:{id}", "all")], 20);
    let all = mirror.subscribe("all");
    mirror.shows(&all, json!([]));
    let scans = server.calls("scan");
    let burst = "for i = 1, ARGV[1] do redis.call('SET', string.format('m:%05d', i), ARGV[2] .. i) end";
    for round in ["first ", "second "] {
        redis!(server, "EVAL", burst, "0", KEYS.to_string(), round);
        let expected: Vec<String> = (1..=KEYS).map(|id| format!("{round}{id}")).collect();
        mirror.shows(&all, json!(expected));
    }
    assert!(server.calls("scan") > scans, "it was read again");
}

#[test]
fn an_expiry_is_shown_at_its_time() {
    let server = Server::start();
    // Among so many keys that expire later the server itself would take half a minute to find it.
    let many = "for i = 1, 10000 do redis.call('SET', 'noise:' .. i, 'x', 'PX', 1000000) end";
    redis!(server, "EVAL", many, "0");
    let mirror = Mirror::start(&server, &[("k", "k")]);
    let channel = mirror.subscribe("k");
    redis!(server, "SET", "k", "a", "PX", "300");
    let begun = Instant::now();
    mirror.shows(&channel, json!(["a"]));
    mirror.shows(&channel, json!([null]));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn happenings_are_told_in_order_and_only_those_asked_for() {
    let server = Server::start();
    let mirror = Mirror::start(&server, &[("job:{id}", "log:all"), ("job:{id}", "log:sets")]);
    let [all, sets] = ["log:all", "log:sets"].map(|name| mirror.subscribe(name));
    mirror.shows(&all, json!([]));
    for id in 0..100 {
        redis!(server, "SET", format!("job:{id}"), "x");
        redis!(server, "EXPIRE", format!("job:{id}"), "1000");
    }
    let key_of = |line: &String| line.split(' ').nth(1).unwrap().to_owned();
    let event_of = |line: &String| line.split(' ').next().unwrap().to_owned();
    let told = eventually("all is told", || {
        let told = mirror.told(&all);
        (told.len() == 200).then_some(told)
    });
    let keys: Vec<String> = told.iter().map(key_of).collect();
    let expected: Vec<String> = (0..200).map(|at| format!("job:{}", at / 2)).collect();
    assert_eq!(keys, expected);
    assert!(
        told.chunks(2)
            .all(|pair| event_of(&pair[0]) == "set" && event_of(&pair[1]) == "expire")
    );
    assert_eq!(mirror.told(&sets).len(), 100);
}

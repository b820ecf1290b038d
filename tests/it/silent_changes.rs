//! Changes of which no event tells are noticed at once or within a second, repaired, and nothing else is told.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Memory, Relay, Reply, Server, Sse, debug_allowed, eventually, mapping, names};
use crate::{both, redis};

/// One channel of all keys `v:*`, and one of what happens to keys `e:*`.
const MAPPINGS: [&str; 2] = [
    "key = \"v:{id}\"\nchannel = \"v\"",
    "key = \"e:{id}\"\nchannel = \"e\"\nmode = \"events\"",
];

/// Time for one look and its consequences, on a machine that is busy.
const SOON: Duration = Duration::from_millis(2500);

struct Setup<C> {
    server: Server,
    relay: Relay,
    client: C,
}

fn mappings() -> String {
    MAPPINGS.map(mapping).concat()
}

impl<C: Client> Setup<C> {
    /// With two keys, which the client knows.
    #[track_caller]
    fn new() -> Setup<C> {
        Setup::without("")
    }

    /// The same with a mechanism of the relay switched off.
    #[track_caller]
    fn without(mechanism: &str) -> Setup<C> {
        let server = Server::with_config(debug_allowed());
        let url = format!("url = \"{}\"", server.url());
        Setup::of(server, mechanism, &url)
    }

    #[track_caller]
    fn of(server: Server, mechanism: &str, upstream: &str) -> Setup<C> {
        redis!(server, "MSET", "v:1", "one", "v:2", "two");
        let relay = Relay::without(mechanism, upstream, "", &mappings());
        let mut client = C::open(&relay, &["v", "e"]);
        client.ready();
        client.sees("v", "v:2", "two");
        Setup { server, relay, client }
    }

    /// Everything was told that there is to tell: keys and values since `before`, without the marker.
    #[track_caller]
    fn told_since(&mut self, before: usize) -> Vec<(String, Value)> {
        redis!(self.server, "SET", "v:marker", before.to_string());
        self.client.sees("v", "v:marker", before.to_string());
        let messages = &self.client.memory().messages[before..];
        let mut told: Vec<_> = messages.iter().map(|each| (each.key(), each.value().clone())).collect();
        told.retain(|(key, _)| key != "v:marker");
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }

    fn heard(&self) -> usize {
        self.client.memory().messages.len()
    }

    /// No trouble was told.
    #[track_caller]
    fn is_calm(&self) {
        let memory = self.client.memory();
        let troubles = ["stale", "fresh", "gap"].map(|kind| memory.count(kind));
        assert_eq!(troubles, [0; 3], "{:?}", memory.controls);
    }
}

/// How many channels the client knows to be stale.
fn stale(memory: &Memory) -> usize {
    let mut stale = HashSet::new();
    for (kind, data) in &memory.controls {
        match kind.as_str() {
            "stale" => stale.extend(names(&data["channels"])),
            "fresh" => stale.retain(|channel| !names(&data["channels"]).contains(channel)),
            _ => {}
        }
    }
    stale.len()
}

fn resyncs(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("keyrelay_resyncs_total{{reason=\"{reason}\"}}"))
}

both! {
    fn a_flush_is_told_at_once<C>() {
        for flush in ["FLUSHALL", "FLUSHDB"] {
            let mut setup = Setup::<C>::new();
            let before = setup.heard();
            let begun = Instant::now();
            redis!(setup.server, flush);
            setup.client.until("all is gone", |memory| memory.state.is_empty());
            // The looks of the watch do not help: it counts no flushes where there is a signal.
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            let gone = [("v:1".to_owned(), Value::Null), ("v:2".to_owned(), Value::Null)];
            assert_eq!(setup.told_since(before), gone);
            setup.is_calm();
        }
    }

    /// It is signalled all the same: read again, and nothing told.
    fn a_flush_of_another_database_is_not_told<C>() {
        let mut setup = Setup::<C>::new();
        let mut other = setup.server.connect();
        for command in [&["SELECT", "1"][..], &["SET", "v:1", "elsewhere"], &["FLUSHDB"]] {
            let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(other.command(&words).unwrap(), Reply::Status("OK".into()));
        }
        eventually("all was read again", || (resyncs(&setup.relay, "upstream-flushed") == 1.0).then_some(()));
        let before = setup.heard();
        assert_eq!(setup.told_since(before), []);
        setup.is_calm();
        assert_eq!(setup.client.memory().values_of("v:1"), [json!("one")]);
    }

    fn a_reload_tells_nothing<C>() {
        let mut setup = Setup::<C>::new();
        redis!(setup.server, "DEBUG", "RELOAD");
        eventually("all was read again", || (resyncs(&setup.relay, "upstream-flushed") == 1.0).then_some(()));
        let before = setup.heard();
        assert_eq!(setup.told_since(before), []);
        setup.is_calm();
        assert_eq!(setup.client.memory().values_of("v:1"), [json!("one")]);
    }

    /// Only what differs is told, and the new database is the one that is read from then on, also on KeyDB, where open
    /// connections stay with the old one.
    fn swapped_databases<C>() {
        let mut setup = Setup::<C>::new();
        let mut other = setup.server.connect();
        for command in [&["SELECT", "1"][..], &["MSET", "v:2", "two", "v:3", "three"], &["SWAPDB", "0", "1"]] {
            let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(other.command(&words).unwrap(), Reply::Status("OK".into()));
        }
        setup.client.sees("v", "v:3", "three");
        setup.client.misses("v", "v:1");
        assert_eq!(setup.client.memory().values_of("v:2"), [json!("two")], "what is the same is not told again");
        let mut writer = setup.server.connect();
        writer.command(&[b"SET", b"v:2", b"live"]).unwrap();
        setup.client.sees("v", "v:2", "live");
        writer.command(&[b"SELECT", b"1"]).unwrap();
        writer.command(&[b"SET", b"v:1", b"not here"]).unwrap();
        writer.command(&[b"SELECT", b"0"]).unwrap();
        writer.command(&[b"SET", b"v:4", b"here"]).unwrap();
        setup.client.sees("v", "v:4", "here");
        let memory = setup.client.memory();
        assert_eq!(memory.value("v", "v:1"), None);
        // Values may have gone back.
        let told: Vec<&Value> = memory.controls.iter().filter(|(kind, _)| kind == "stale").map(|(_, data)| data).collect();
        assert!(told.len() == 1 && told[0]["reason"] == "upstream-swapped" && names(&told[0]["channels"]) == ["v"], "{told:?}");
        assert_eq!((stale(memory), memory.count("gap")), (0, 0));
        assert!(setup.relay.log().contains("databases were swapped"));
    }

    /// Who may not ask for the signal learns of a flush by the counters, and the log says what is missing.
    fn a_flush_without_the_signal<C>() {
        let server = Server::start();
        let rule = "on >secret ~* &* -@all +hello +auth +ping +select +psubscribe +subscribe +info +config +client|list \
                    +client|setname +client|id +@read";
        server.grant("reset resetchannels");
        server.grant(rule);
        let upstream = format!("url = \"redis://relay:secret@{}/0\"", server.address());
        let mut setup = Setup::<C>::of(server, "", &upstream);
        assert!(setup.relay.log().contains("ACL SETUSER relay +client|tracking"), "{}", setup.relay.log());
        let before = setup.heard();
        redis!(setup.server, "FLUSHDB");
        setup.client.until("all is gone", |memory| memory.state.is_empty());
        assert_eq!(setup.told_since(before).len(), 2);
        setup.is_calm();
    }

    /// Whoever may set the notifications sets them again; what went unheard is read, or is a gap, and clients are stale till
    /// then.
    fn notifications_are_switched_off<C>() {
        let mut setup = Setup::<C>::new();
        for (round, value) in ["", "Kx", "E"].into_iter().enumerate() {
            redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", value);
            redis!(setup.server, "SET", "v:1", format!("unheard {round}"));
            redis!(setup.server, "SET", "e:1", "unheard");
            setup.client.sees("v", "v:1", format!("unheard {round}"));
            let gaps = round + 1;
            setup.client.until("a gap", |memory| memory.count("gap") == gaps);
            setup.client.until("fresh", |memory| stale(memory) == 0);
            redis!(setup.server, "SET", "e:2", round.to_string());
            setup.client.until("what happens next", |memory| memory.value("e", "e:2") == Some(&json!(round.to_string())));
        }
        let memory = setup.client.memory();
        let reasons = |of: &str| -> Vec<_> {
            memory.controls.iter().filter(|(kind, _)| kind == of).map(|(_, data)| data["reason"].clone()).collect()
        };
        assert_eq!(reasons("gap"), ["events-off"; 3]);
        assert!(memory.count("stale") >= 3);
        assert!(reasons("stale").iter().all(|reason| reason == "events-off"), "{:?}", memory.controls);
        assert!(memory.messages.iter().all(|each| each.key() != "e:1"), "nobody heard of it");
        assert!(setup.relay.log().contains("key events are on again"));
    }

    /// Of several relays at one server whoever sets it right lets all others see it before.
    fn each_relay_notices_that_notifications_were_switched_off<C>() {
        let mut setup = Setup::<C>::new();
        let other = Relay::start(&setup.server, &mappings());
        let mut second = C::open(&other, &["v", "e"]);
        second.ready();
        for round in 0..2 {
            redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "");
            redis!(setup.server, "SET", "v:1", format!("unheard {round}"));
            for client in [&mut setup.client, &mut second] {
                client.until("stale", |memory| stale(memory) == 2);
            }
            for client in [&mut setup.client, &mut second] {
                client.sees("v", "v:1", format!("unheard {round}"));
                client.until("a gap", |memory| memory.count("gap") == round + 1);
                client.until("fresh", |memory| stale(memory) == 0);
            }
        }
    }

    /// So does one that finds them off as it starts.
    fn a_relay_that_starts_lets_others_notice<C>() {
        let mut setup = Setup::<C>::new();
        for round in 0..3 {
            redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "");
            redis!(setup.server, "SET", "v:1", format!("unheard {round}"));
            let other = Relay::start(&setup.server, &mappings());
            let mut second = C::open(&other, &["v"]);
            second.sees("v", "v:1", format!("unheard {round}"));
            setup.client.sees("v", "v:1", format!("unheard {round}"));
            setup.client.until("a gap", |memory| memory.count("gap") == round + 1);
            setup.client.until("fresh", |memory| stale(memory) == 0);
            second.ready();
        }
    }

    /// Who may not is stale until somebody else has set them right.
    fn required_notifications_are_switched_off<C>() {
        let server = Server::start();
        redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
        let upstream = format!("url = \"{}\"\nnotifications = \"require\"", server.url());
        let mut setup = Setup::<C>::of(server, "", &upstream);
        redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "Kg");
        redis!(setup.server, "SET", "v:1", "unheard");
        let told = |memory: &crate::harness::Memory| memory.controls.iter().any(|(kind, data)| kind == "stale" && data["reason"] == "events-off");
        setup.client.until("stale", told);
        let readiness = setup.relay.readiness();
        assert!(readiness.contains("is not heard: events-off: "), "{readiness}");
        assert!(setup.relay.metric("keyrelay_upstream_losses_total{reason=\"events-off\"}") >= 1.0);
        eventually("it is logged", || setup.relay.log().contains("CONFIG SET notify-keyspace-events").then_some(()));
        redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "KA");
        setup.client.sees("v", "v:1", "unheard");
        setup.client.until("fresh", |memory| memory.count("fresh") > 0 && memory.count("gap") == 1);
        eventually("it is ready", || setup.relay.ready().then_some(()));
        redis!(setup.server, "SET", "v:1", "heard");
        setup.client.sees("v", "v:1", "heard");
    }
}

/// With the mechanisms off, the tests above would wait in vain.
#[test]
fn without_the_watch_a_swap_is_not_noticed() {
    let mut setup = Setup::<Sse>::without("silent-watch");
    redis!(setup.server, "SWAPDB", "0", "1");
    setup.server.looked_at_twice();
    // On KeyDB the reader would not even see a marker.
    assert_eq!(setup.relay.metric("keyrelay_resyncs_total"), 0.0);
    setup.client.poll(Duration::ZERO);
    assert_eq!(setup.client.memory().value("v", "v:1"), Some(&json!("one")));
}

#[test]
fn without_the_signal_and_the_watch_a_flush_is_not_noticed() {
    let mut setup = Setup::<Sse>::without("flush-signal");
    redis!(setup.server, "FLUSHALL");
    setup.server.looked_at_twice();
    let before = setup.heard();
    assert_eq!(setup.told_since(before), []);
    assert_eq!(setup.client.memory().value("v", "v:1"), Some(&json!("one")));
}

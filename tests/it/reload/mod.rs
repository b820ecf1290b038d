//! Another config while the relay runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::{Client, Data, End, Relay, Reply, Server, Sse, Ws, eventually, is_tracking, mapping};
use crate::{both, every_way, redis};

mod access;
mod refused;
mod subscriptions;

/// Key `KIND:{id}`, channel of the same name.
pub fn keys(kind: &str) -> String {
    mapping(&format!("key = \"{kind}:{{id}}\""))
}

/// Keeps whatever a test writes for a client that reads it later.
pub const RETAIN: &str = "retain = { messages = 100_000, bytes = \"64MiB\" }";

/// The same in events mode, of `set` alone.
pub fn events(kind: &str) -> String {
    mapping(&format!(
        "key = \"{kind}:{{id}}\"\nmode = \"events\"\non = [\"set\"]\n{RETAIN}"
    ))
}

/// Whether nothing but messages was said, and `ready`: who reads slowly catches up, and hears it again then.
#[track_caller]
fn undisturbed(client: &impl Client) {
    let mut said = client.memory().controls.iter().map(|(kind, _)| kind.as_str());
    assert!(said.all(|kind| kind == "ready"), "{}", client.tail());
}

/// Hears the end that a reload brings.
#[track_caller]
pub fn ended(client: &mut impl Client) {
    let told = client.control("end");
    assert_eq!(
        (&told["reason"], &told["reconnect"]),
        (&json!("reload"), &json!(true)),
        "{told}"
    );
    let code = match client.closed() {
        End::Proper(code) => code,
        End::Cut => panic!("cut"),
    };
    assert!(matches!(code, None | Some(1012)), "{code:?}");
}

every_way! {
    /// While its keys are written and other mappings come, go and become others, fifty times.
    fn who_is_not_concerned_notices_nothing<C>() {
        const RELOADS: usize = 50;
        let server = Server::start();
        let stays = keys("stays") + &if is_tracking() { String::new() } else { events("log") };
        let mut relay = Relay::start(&server, &(stays.clone() + &keys("other")));
        let mut state = C::open(&relay, &["stays:1"]);
        state.ready();
        let mut log = (!is_tracking()).then(|| C::open(&relay, &["log:1"]));
        if let Some(log) = &mut log {
            log.ready();
        }
        let (begun, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut resp = server.connect();
        let writer = thread::spawn({
            let (begun, done) = (begun.clone(), done.clone());
            move || {
                let mut written = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    written += 1;
                    for key in ["stays:1", "log:1"] {
                        resp.command(&[b"SET", key.as_bytes(), written.to_string().as_bytes()]).unwrap();
                    }
                    begun.store(true, Ordering::Relaxed);
                }
                written
            }
        });
        eventually("something is written", || begun.load(Ordering::Relaxed).then_some(()));
        for round in 0..RELOADS {
            let others = match round % 5 {
                0 => keys("new"),
                1 => keys("other") + &mapping("subscribe = \"news\""),
                2 => mapping("key = \"other:{id}\"\nfields = [\"a\"]"),
                3 => String::new(),
                _ => keys("other"),
            };
            // Where it stands in the file is no matter.
            let log = relay.reload(&match round % 2 {
                0 => stays.clone() + &others,
                _ => others + &stays,
            });
            assert!(log.contains("\"config reloaded\""), "{log}");
        }
        done.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        state.sees("stays:1", "stays:1", written.to_string());
        undisturbed(&state);
        let values = state.memory().values_of("stays:1");
        let numbers: Vec<u64> = values[1..].iter().map(|value| value.as_str().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        if let Some(log) = &mut log {
            log.until("all happenings", |memory| memory.messages.len() as u64 >= written);
            let values = log.memory().values_of("log:1");
            // A value may be a newer one than that of its event, and there is one message for each.
            assert_eq!(values.len() as u64, written);
            undisturbed(log);
        }
        assert_eq!(relay.metric("keyrelay_repairs_total"), 0.0);
    }

    fn a_mapping_that_goes<C>() {
        let server = Server::start();
        let mut relay = Relay::start(&server, &(keys("stays") + &keys("goes")));
        redis!(server, "SET", "goes:1", "a");
        let mut stays = C::open(&relay, &["stays:1"]);
        stays.ready();
        let mut goes = C::open(&relay, &["stays:1", "goes:1"]);
        goes.sees("goes:1", "goes:1", "a");
        goes.ready();
        let log = relay.reload(&keys("stays"));
        assert!(log.contains("\"what\":\"gone\"") && log.contains("keyrelay.toml:"), "{log}");
        assert!(log.contains("\"channels_ended\":1"), "{log}");
        ended(&mut goes);
        let refused = relay.get("/events?channel=goes:1");
        assert_eq!(refused.status(), 404);
        assert_eq!(refused.json()["channels"], json!({"goes:1": "no mapping gives a channel of this name"}));
        redis!(server, "SET", "stays:1", "b");
        stays.sees("stays:1", "stays:1", "b");
        undisturbed(&stays);
        // It comes back, and what was written meanwhile is there.
        redis!(server, "SET", "goes:1", "c");
        relay.reload(&(keys("stays") + &keys("goes")));
        let mut again = C::resume(&relay, &["stays:1", "goes:1"], goes.memory().query_cursor.clone());
        again.sees("goes:1", "goes:1", "c");
        redis!(server, "SET", "goes:1", "d");
        again.sees("goes:1", "goes:1", "d");
    }

    fn a_mapping_that_comes<C>() {
        let server = Server::start();
        let mut relay = Relay::start(&server, &keys("stays"));
        redis!(server, "SET", "comes:1", "a");
        redis!(server, "SET", "many:1:a", "x");
        assert_eq!(relay.get("/events?channel=comes:1").status(), 404);
        let many = mapping("key = \"many:{list}:{id}\"\nchannel = \"list:{list}\"");
        let log = relay.reload(&(keys("stays") + &keys("comes") + &many));
        assert!(log.contains("\"what\":\"came\",\"count\":2"), "{log}");
        let mut client = C::open(&relay, &["comes:1", "list:1"]);
        client.sees("comes:1", "comes:1", "a");
        client.sees("list:1", "many:1:a", "x");
        client.ready();
        // Once it is ready nothing is missed, the first write after it included.
        redis!(server, "SET", "comes:1", "b");
        redis!(server, "SET", "many:1:b", "y");
        client.sees("comes:1", "comes:1", "b");
        client.sees("list:1", "many:1:b", "y");
        redis!(server, "DEL", "many:1:a");
        client.misses("list:1", "many:1:a");
        assert_eq!(relay.metric("keyrelay_repairs_total"), 0.0);
    }

    /// The channel of one name is of other keys, or has another payload.
    fn a_mapping_that_changes<C>() {
        let server = Server::start();
        redis!(server, "SET", "one:1", "a");
        redis!(server, "SET", "two:1", "b");
        redis!(server, "HSET", "hash:1", "x", "1", "y", "2");
        let of = |kind: &str| mapping(&format!("key = \"{kind}:{{id}}\"\nchannel = \"c:{{id}}\""));
        let hash = |more: &str| keys("hash") + more + "\n";
        let mut relay = Relay::start(&server, &(of("one") + &hash("fields = [\"x\"]")));
        let mut client = C::open(&relay, &["c:1"]);
        client.sees("c:1", "one:1", "a");
        client.ready();
        let mut hashes = C::open(&relay, &["hash:1"]);
        hashes.sees("hash:1", "hash:1", json!({"x": "1"}));
        hashes.ready();
        let log = relay.reload(&(of("two") + &hash("fields = [\"y\"]")));
        assert!(log.contains("\"what\":\"changed\",\"count\":1"), "{log}");
        ended(&mut client);
        ended(&mut hashes);
        let mut client = C::open(&relay, &["c:1", "hash:1"]);
        client.sees("c:1", "two:1", "b");
        client.sees("hash:1", "hash:1", json!({"y": "2"}));
        client.ready();
        redis!(server, "SET", "one:1", "old");
        redis!(server, "SET", "two:1", "new");
        client.sees("c:1", "two:1", "new");
        assert_eq!(client.memory().value("c:1", "one:1"), None);
        // One more mapping for the name makes it another channel, too.
        relay.reload(&(of("one") + &of("two") + &hash("fields = [\"y\"]")));
        ended(&mut client);
        let mut both = C::open(&relay, &["c:1"]);
        both.sees("c:1", "one:1", "old");
        both.sees("c:1", "two:1", "new");
    }

    /// What clients do not see ends nobody.
    fn a_mapping_that_is_adjusted<C>() {
        let server = Server::start();
        let with = |more: &str| keys("k") + more + "\n";
        let mut relay = Relay::start(&server, &with("linger = \"1h\""));
        let mut client = C::open(&relay, &["k:1"]);
        client.ready();
        for more in ["linger = \"0s\"\nmin_interval = \"2ms\"", "poll = \"100ms\"", "linger = \"0s\"\npoll = \"200ms\""] {
            let log = relay.reload(&with(more));
            assert!(log.contains("\"what\":\"adjusted\"") && log.contains("\"channels_ended\":0"), "{log}");
        }
        redis!(server, "SET", "k:1", "a");
        client.sees("k:1", "k:1", "a");
        undisturbed(&client);
        // It does not linger any more.
        drop(client);
        eventually("the channel is gone", || (relay.metric("keyrelay_channels") == 0.0).then_some(()));
    }
}

both! {
    /// The server is away while the mappings change: who waits for it is right when it is back.
    fn while_the_server_is_away<C>() {
        let mut server = Server::start();
        let mut relay = Relay::start(&server, &keys("stays"));
        redis!(server, "SET", "stays:1", "a");
        redis!(server, "SET", "comes:1", "b");
        redis!(server, "SAVE");
        let mut stays = C::open(&relay, &["stays:1"]);
        stays.sees("stays:1", "stays:1", "a");
        stays.ready();
        server.kill();
        stays.control("stale");
        let log = relay.reload(&(keys("stays") + &keys("comes")));
        assert!(log.contains("\"config reloaded\""), "{log}");
        let mut comes = C::open(&relay, &["comes:1"]);
        comes.control("stale");
        server.restart(Data::Kept);
        stays.control("fresh");
        comes.sees("comes:1", "comes:1", "b");
        comes.ready();
        redis!(server, "SET", "comes:1", "c");
        redis!(server, "SET", "stays:1", "d");
        comes.sees("comes:1", "comes:1", "c");
        stays.sees("stays:1", "stays:1", "d");
        assert_eq!(stays.memory().count("end"), 0);
    }

    /// In a drain there is nobody left to be given another config.
    fn during_a_drain<C>() {
        let server = Server::start();
        let mut relay = Relay::start(&server, &keys("k"));
        let mut client = C::open(&relay, &["k:1"]);
        client.ready();
        relay.signal(rustix::process::Signal::TERM);
        for _ in 0..3 {
            relay.signal(rustix::process::Signal::HUP);
        }
        assert_eq!(client.control("end")["reason"], "drain");
        let (status, _) = relay.wait();
        assert!(status.success(), "{status}");
    }
}

/// What is opened on a WebSocket that is there, once its mapping has come.
#[test]
fn on_an_open_web_socket() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("stays"));
    let mut client = Ws::open(&relay, &["stays:1"]);
    client.ready();
    client.send(&json!({"type": "subscribe", "channels": ["comes:1"], "ref": 1}));
    assert_eq!(client.control("error")["reason"], "unknown");
    redis!(server, "SET", "comes:1", "a");
    relay.reload(&(keys("stays") + &keys("comes")));
    client.send(&json!({"type": "subscribe", "channels": ["comes:1"], "ref": 2}));
    client.sees("comes:1", "comes:1", "a");
    redis!(server, "SET", "comes:1", "b");
    client.sees("comes:1", "comes:1", "b");
    assert_eq!(client.memory().count("end"), 0);
}

/// Each leaves the process, and what it holds of the server, as it was.
#[test]
fn a_hundred_reloads() {
    let server = Server::start();
    let stays = keys("stays");
    let mut relay = Relay::start(&server, &stays);
    let mut client = Sse::open(&relay, &["stays:1"]);
    client.ready();
    let round = |relay: &mut Relay, n: usize| {
        let more: String = (0..5).map(|which| keys(&format!("k{n}x{which}"))).collect();
        relay.reload(&(stays.clone() + &more + &mapping(&format!("subscribe = \"topic:{n}:*\""))));
        let mut one = Sse::open(relay, &[&format!("k{n}x0:1")]);
        one.ready();
    };
    let numbers = |relay: &Relay| {
        let pid = relay.pid().as_raw_nonzero();
        let entries = |dir: &str| std::fs::read_dir(format!("/proc/{pid}/{dir}")).unwrap().count();
        (entries("task"), relay.resident())
    };
    let patterns = || match redis!(server, "PUBSUB", "NUMPAT") {
        Reply::Integer(count) => count,
        other => panic!("{other:?}"),
    };
    // The first ones take what is kept: stacks, buffers, tables.
    (0..20).for_each(|n| round(&mut relay, n));
    let (threads, memory) = numbers(&relay);
    (20..120).for_each(|n| round(&mut relay, n));
    relay.reload(&stays);
    eventually("nothing else is subscribed to", || (patterns() == 1).then_some(()));
    let listed = redis!(server, "CLIENT", "LIST").text();
    let own = listed.lines().filter(|line| line.contains("name=keyrelay")).count();
    assert_eq!(own, 2, "the feed and the reader: {listed}");
    let (threads_after, memory_after) = numbers(&relay);
    // A thread that reads configs may have gone, and may have come.
    assert!(threads_after <= threads + 1, "{threads} threads, then {threads_after}");
    assert!(memory_after < memory + (4 << 20), "{memory} bytes, then {memory_after}");
    redis!(server, "SET", "stays:1", "a");
    client.sees("stays:1", "stays:1", "a");
    undisturbed(&client);
    assert_eq!(relay.metric("keyrelay_repairs_total"), 0.0);
}

/// Asked for while one is under way: the last config holds.
#[test]
fn two_in_a_row() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("a"));
    for _ in 0..5 {
        relay.signal(rustix::process::Signal::HUP);
    }
    relay.reload(&keys("b"));
    for _ in 0..5 {
        relay.signal(rustix::process::Signal::HUP);
    }
    eventually("the last config holds", || {
        (relay.get("/channels/b:1").status() == 200 && relay.get("/channels/a:1").status() == 404).then_some(())
    });
}

//! A cursor that is brought to another process: the relay was restarted, or the client came to another one.

use serde_json::{Value, json};

use crate::harness::{Client, Event, Relay, Reply, Server, eventually, mapping, mesh, names};
use crate::{both, redis};

/// Two channels of state and one of happenings.
fn mappings() -> String {
    let state = ["a", "b"].map(|name| mapping(&format!("key = \"{name}:{{id}}\"\nchannel = \"{name}\"")));
    let log = mapping("key = \"log:{id}\"\nchannel = \"log\"\nmode = \"events\"");
    [state.concat(), log].concat()
}

/// A page of these channels that has seen all, and its cursor.
fn page<C: Client>(relay: &Relay, channels: &[&str]) -> (C, Option<String>) {
    let mut client = C::open(relay, channels);
    client.ready();
    let cursor = client.cursor();
    assert!(cursor.is_some());
    (client, cursor)
}

/// The channels that were reset, and the reason; each before its first message.
#[track_caller]
fn resets<C: Client>(client: &mut C) -> Vec<String> {
    let mut reset = Vec::new();
    loop {
        match client.next() {
            Event::Control(kind, data) if kind == "reset" => {
                assert_eq!(data["reason"], "unknown-cursor");
                reset.extend(names(&data["channels"]).into_iter().map(str::to_owned));
            }
            Event::Control(kind, _) if kind == "ready" => break,
            Event::Message(message) => {
                assert!(
                    reset.contains(&message.channel().to_owned()),
                    "sent before the reset: {message:?}"
                );
                assert_eq!(message.id, None, "a snapshot has no ids");
            }
            _ => {}
        }
    }
    reset.sort();
    reset
}

both! {
    /// What was forgotten at one relay is not remembered because the other one knows an older cursor.
    fn back_again_before_the_state_was_whole<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1");
        let relays = [Relay::start(&server, &mappings()), Relay::start(&server, &mappings())];
        let (_stays, _) = page::<C>(&relays[0], &["a"]);
        let (page, cursor) = page::<C>(&relays[0], &["a"]);
        drop(page);
        let mut away = C::resume(&relays[1], &["a"], cursor);
        away.until("reset", |memory| memory.count("reset") > 0);
        let cursor = away.memory().cursor.clone();
        drop(away);
        let mut back = C::resume(&relays[0], &["a"], cursor);
        assert_eq!(resets(&mut back), ["a"]);
        assert_eq!(back.memory().state.len(), 2);
    }

    fn a_relay_that_was_restarted<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1", "b:1", "1");
        let mut relay = Relay::start(&server, &mappings());
        let (one, cursor_of_one) = page::<C>(&relay, &["a"]);
        let (two, cursor_of_two) = page::<C>(&relay, &["a", "b"]);
        drop((one, two));
        relay.kill();
        // Nobody hears of it, deletions least of all.
        redis!(server, "SET", "a:1", "2");
        redis!(server, "DEL", "a:2");
        relay.restart();
        let mut one = C::resume(&relay, &["a"], cursor_of_one);
        assert_eq!(resets(&mut one), ["a"]);
        assert_eq!(one.memory().state.len(), 1);
        assert_eq!(one.memory().value("a", "a:1"), Some(&json!("2")));
        let mut two = C::resume(&relay, &["a", "b"], cursor_of_two);
        assert_eq!(resets(&mut two), ["a", "b"]);
        assert_eq!(two.memory().state.len(), 2);
        for client in [&mut one, &mut two] {
            redis!(server, "INCR", "a:1");
            let now = redis!(server, "GET", "a:1");
            let Reply::Bulk(now) = now else { panic!("{now:?}") };
            client.sees("a", "a:1", String::from_utf8(now).expect("a number"));
        }
        // The new cursor is one of this process.
        let cursor = two.cursor();
        drop(two);
        let mut two = C::resume(&relay, &["a", "b"], cursor);
        two.ready();
        assert_eq!(two.memory().count("reset"), 0);
    }

    /// There and back again: each relay knows its own cursors only, while it keeps them.
    fn from_one_relay_to_another<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "b:1", "1");
        let relays = [Relay::start(&server, &mappings()), Relay::start(&server, &mappings())];
        let (client, here) = page::<C>(&relays[0], &["a", "b"]);
        drop(client);
        redis!(server, "SET", "a:1", "2");
        let mut client = C::resume(&relays[1], &["a", "b"], here.clone());
        assert_eq!(resets(&mut client), ["a", "b"]);
        assert_eq!(client.memory().value("a", "a:1"), Some(&json!("2")));
        redis!(server, "DEL", "b:1");
        client.misses("b", "b:1");
        let there = client.cursor();
        drop(client);
        let mut client = C::resume(&relays[0], &["a", "b"], there);
        assert_eq!(resets(&mut client), ["a", "b"]);
        // What the one relay has heard the other may be about to hear.
        client.misses("b", "b:1");
        assert_eq!(client.memory().state.len(), 1);
        assert_eq!(client.memory().value("a", "a:1"), Some(&json!("2")));
        drop(client);
        // The first relay still keeps what came after the first cursor.
        let mut client = C::resume(&relays[0], &["a", "b"], here);
        client.ready();
        assert_eq!(client.memory().count("reset"), 0);
        assert_eq!(client.memory().values_of("a:1"), [json!("2")]);
        assert_eq!(client.memory().values_of("b:1"), [Value::Null]);
    }

    /// From one region to another and back, each relay beside a node of its own that takes writes.
    fn from_one_region_to_another<C>() {
        let Some(nodes) = mesh::<2>() else { return };
        redis!(nodes[0], "MSET", "a:1", "1", "a:2", "1", "b:1", "1");
        let arrives = |node: usize, key: &str, value: &str| {
            let value = Reply::Bulk(value.into());
            eventually("the write has come to the other region", || (redis!(nodes[node], "GET", key) == value).then_some(()));
        };
        arrives(1, "b:1", "1");
        let relays = nodes.each_ref().map(|node| Relay::start(node, &mappings()));
        for channels in [&["a"][..], &["a", "b"]] {
            let keys = channels.len() + 1;
            let (client, mut cursor) = page::<C>(&relays[0], channels);
            drop(client);
            for (here, there) in [(1, 0), (0, 1)] {
                // On the way: one change in the region that was left, one in the other.
                let value = |what: &str| format!("{what} {here} {keys}");
                redis!(nodes[there], "SET", "a:1", value("left"));
                redis!(nodes[here], "SET", "a:2", value("entered"));
                arrives(here, "a:1", &value("left"));
                let mut client = C::resume(&relays[here], channels, cursor);
                assert_eq!(resets(&mut client), channels);
                assert_eq!(client.memory().state.len(), keys);
                assert_eq!(client.memory().value("a", "a:1"), Some(&json!(value("left"))));
                assert_eq!(client.memory().value("a", "a:2"), Some(&json!(value("entered"))));
                redis!(nodes[there], "SET", "a:1", value("live"));
                client.sees("a", "a:1", value("live"));
                redis!(nodes[here], "DEL", "a:2");
                client.misses("a", "a:2");
                // Later it would take away what is written there next.
                eventually("the deletion has come to the other region", || {
                    (redis!(nodes[there], "EXISTS", "a:2") == Reply::Integer(0)).then_some(())
                });
                cursor = client.cursor();
            }
        }
    }

    /// Of happenings nobody knows how many were missed; what the other relay has kept of them is told.
    fn happenings_elsewhere<C>() {
        let server = Server::start();
        let mut relays = [Relay::start(&server, &mappings()), Relay::start(&server, &mappings())];
        let (mut witness, _) = page::<C>(&relays[1], &["log"]);
        let (client, cursor) = page::<C>(&relays[0], &["log", "a"]);
        drop(client);
        redis!(server, "SET", "log:1", "1");
        witness.sees("log", "log:1", "1");
        let mut client = C::resume(&relays[1], &["log", "a"], cursor.clone());
        client.sees("log", "log:1", "1");
        client.until("ready", |memory| memory.count("ready") > 0);
        let kinds: Vec<&str> = client.memory().controls.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["gap", "reset", "ready"]);
        let (_, gap) = &client.memory().controls[0];
        assert_eq!(gap["channels"], json!({"log": {"missed": null}}));
        assert_eq!(gap["reason"], "unknown-cursor");
        drop(client);
        // A process that was just started has kept nothing, and says no less.
        relays[0].restart();
        let mut client = C::resume(&relays[0], &["log", "a"], cursor);
        client.ready();
        assert_eq!((client.memory().count("gap"), client.memory().count("reset")), (1, 1));
        assert_eq!(client.memory().messages, []);
        redis!(server, "SET", "log:2", "2");
        client.sees("log", "log:2", "2");
    }

    /// A page that comes back while the relay it comes to does not hear its server yet.
    fn to_a_relay_that_is_not_ready<C>() {
        let mut server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1");
        server.save();
        let mut relay = Relay::start(&server, &mappings());
        let (client, cursor) = page::<C>(&relay, &["a"]);
        drop(client);
        server.kill();
        relay.restart();
        let mut client = C::resume(&relay, &["a"], cursor);
        client.control("stale");
        assert_eq!(client.memory().messages, [], "it knows nothing yet");
        server.restart(crate::harness::Data::Kept);
        assert_eq!(resets(&mut client), ["a"]);
        assert_eq!(client.memory().state.len(), 2);
    }
}

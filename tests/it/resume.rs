//! Coming back with a cursor: exactly what changed since, or a reset; never silence, never a wrong tail.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Client, Event, Memory, Message, Relay, Server, Sse, Ws, eventually, mapping, names, target};
use crate::{every_way, redis};

/// Three channels, each of a pattern.
fn mappings() -> String {
    ["a", "b", "c"]
        .map(|name| mapping(&format!("key = \"{name}:{{id}}\"\nchannel = \"{name}\"")))
        .concat()
}

/// Everything that the server holds, as a client of the three channels must see it.
fn truth(server: &Server, channels: &[&str]) -> BTreeMap<(String, String), Value> {
    let mut state = BTreeMap::new();
    for channel in channels {
        for id in 0..10 {
            let key = format!("{channel}:{id}");
            if let crate::harness::Reply::Bulk(value) = redis!(server, "GET", key) {
                let value = String::from_utf8(value).expect("a text");
                state.insert(((*channel).to_owned(), key), json!(value));
            }
        }
    }
    state
}

/// Takes `count` events (messages or control events), as far as they come before `ready` (inclusive).
fn take<C: Client>(client: &mut C, count: usize) -> bool {
    for _ in 0..count {
        if matches!(client.next(), Event::Control(kind, _) if kind == "ready") {
            return true;
        }
    }
    false
}

/// What a page holds that lost its connection and came back: the old state under what the new connection told.
fn page(before: &BTreeMap<(String, String), Value>, memory: &Memory) -> BTreeMap<(String, String), Value> {
    let mut state = before.clone();
    for (kind, data) in &memory.controls {
        if kind == "reset" {
            let reset = names(&data["channels"]);
            state.retain(|(channel, _), _| !reset.contains(&channel.as_str()));
        }
    }
    for message in &memory.messages {
        let slot = (message.channel().to_owned(), message.key());
        match message.value() {
            Value::Null => drop(state.remove(&slot)),
            value => drop(state.insert(slot, value.clone())),
        }
    }
    state
}

/// No slot told the same value twice in one connection without a reset between, and ids only grow.
#[track_caller]
fn nothing_twice<C: Client>(client: &C) {
    if client.memory().count("reset") == 0 {
        let mut told = BTreeSet::new();
        for message in &client.memory().messages {
            let once = told.insert((message.channel().to_owned(), message.key(), message.value().to_string()));
            assert!(once, "told twice: {message:?}");
        }
    }
    let sequences: Vec<u64> = client
        .memory()
        .messages
        .iter()
        .filter_map(|message| message.id.as_deref())
        .map(sequence)
        .collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "ids must grow: {sequences:?}");
}

fn sequence(id: &str) -> u64 {
    id.split('-')
        .nth(1)
        .and_then(|sequence| sequence.parse().ok())
        .unwrap_or_else(|| panic!("not an id: {id}"))
}

every_way! {
    fn a_known_cursor_gets_what_changed<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1", "b:1", "1");
        let relay = Relay::start(&server, &mappings());
        let mut client = C::open(&relay, &["a", "b"]);
        client.ready();
        redis!(server, "SET", "a:1", "2");
        client.sees("a", "a:1", "2");
        let cursor = client.cursor();
        assert!(cursor.is_some());
        drop(client);
        redis!(server, "SET", "b:1", "2");
        redis!(server, "SET", "b:1", "3");
        redis!(server, "DEL", "a:2");
        let mut client = C::resume(&relay, &["a", "b"], cursor);
        client.ready();
        client.sees("b", "b:1", "3");
        client.until("a:2 is told to be gone", |memory| memory.values_of("a:2") == [Value::Null]);
        assert_eq!(client.memory().count("reset"), 0);
        assert!(client.memory().values_of("a:1").is_empty(), "what was had is not sent again");
        redis!(server, "SET", "a:1", "4");
        client.sees("a", "a:1", "4");
        nothing_twice(&client);
    }

    fn a_cursor_of_another_process_is_reset<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "b:1", "1");
        let mut relay = Relay::start(&server, &mappings());
        let mut client = C::open(&relay, &["a", "b"]);
        client.ready();
        let cursor = client.memory().cursor.clone();
        relay.restart();
        redis!(server, "DEL", "a:1");
        let mut client = C::resume(&relay, &["a", "b"], cursor);
        client.ready();
        let resets = client.memory().controls.iter().filter(|(kind, _)| kind == "reset");
        let reset: BTreeSet<&str> = resets.flat_map(|(_, data)| names(&data["channels"])).collect();
        assert_eq!(reset, BTreeSet::from(["a", "b"]));
        assert_eq!(client.memory().state, truth(&server, &["a", "b"]));
    }

    fn a_cursor_that_is_none_is_reset<C>() {
        let server = Server::start();
        redis!(server, "SET", "a:1", "1");
        let relay = Relay::start(&server, &mappings());
        for cursor in ["0", "-", "latest", "ffffffffffffffff-99999999999999999999"] {
            let mut client = C::resume(&relay, &["a"], Some(cursor.to_owned()));
            client.ready();
            assert_eq!(client.memory().count("reset"), 1, "{cursor}");
            assert_eq!(client.memory().state, truth(&server, &["a"]));
        }
    }

    /// Deletions are kept for a while only; a cursor from before the oldest that is still known cannot be served.
    fn a_cursor_that_is_too_old_is_reset<C>() {
        const KEYS: usize = 2500;
        let server = Server::start();
        let relay = Relay::start(&server, &mappings());
        let mut early = C::open(&relay, &["a"]);
        early.ready();
        let cursor = early.memory().cursor.clone();
        drop(early);
        let mut witness = C::open(&relay, &["a"]);
        witness.ready();
        for id in 0..KEYS {
            redis!(server, "SET", format!("a:{id}"), "x");
        }
        witness.until("all keys", |memory| memory.state.len() == KEYS);
        for id in 0..KEYS {
            redis!(server, "DEL", format!("a:{id}"));
        }
        witness.until("no key", |memory| memory.state.is_empty());
        // Fresh deletions are kept for a while longer than so many old ones, and are dropped by what comes after that.
        let late = eventually("the deletions are dropped", || {
            redis!(server, "INCR", "a:last");
            let mut late = C::resume(&relay, &["a"], cursor.clone());
            late.ready();
            (late.memory().count("reset") == 1).then_some(late)
        });
        assert_eq!(late.memory().state.len(), 1, "the snapshot holds the one key that is left");
    }

    /// A page loses its connection after every single message of a snapshot, comes back, and adds a channel.
    fn a_snapshot_cut_anywhere<C>() {
        let server = Server::start();
        for id in 0..4 {
            redis!(server, "MSET", format!("a:{id}"), "1", format!("b:{id}"), "1", format!("c:{id}"), "1");
        }
        let relay = Relay::start(&server, &mappings());
        for cut in 0.. {
            let mut first = C::open(&relay, &["a", "b"]);
            let whole = take(&mut first, cut);
            let (cursor, before) = (first.memory().cursor.clone(), first.memory().state.clone());
            assert!(whole || cursor.is_none(), "a snapshot that is not whole must not be resumed: {cursor:?}");
            drop(first);
            redis!(server, "SET", format!("a:{}", cut % 4), format!("cut {cut}"));
            let mut second = C::resume(&relay, &["a", "b"], cursor);
            second.ready();
            nothing_twice(&second);
            let mut third = second.add(&relay, "c");
            third.until("the whole truth", |memory| {
                memory.count("ready") > 0 && memory.value("c", "c:3").is_some()
            });
            redis!(server, "SET", "c:0", format!("cut {cut}"));
            third.sees("c", "c:0", format!("cut {cut}"));
            let expected = truth(&server, &["a", "b", "c"]);
            third.until(&format!("the whole truth, after a cut behind {cut} messages"), |memory| {
                page(&before, memory) == expected
            });
            if whole {
                assert!(cut >= 8, "a snapshot of eight keys is eight messages");
                break;
            }
        }
    }

    /// The same for a catch-up, of which deletions are part.
    fn a_catch_up_cut_anywhere<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mappings());
        for cut in 0.. {
            for id in 0..5 {
                redis!(server, "MSET", format!("a:{id}"), format!("{cut} old"), format!("b:{id}"), format!("{cut} old"));
            }
            redis!(server, "SET", "c:1", format!("{cut} old"));
            let mut first = C::open(&relay, &["a", "b"]);
            first.ready();
            first.until("the old values", |memory| memory.state == truth(&server, &["a", "b"]));
            let mut witness = C::open(&relay, &["a", "b"]);
            let (cursor, before) = (first.cursor(), first.memory().state.clone());
            drop(first);

            for id in 0..3 {
                redis!(server, "SET", format!("a:{id}"), format!("{cut} new"));
                redis!(server, "SET", format!("b:{id}"), format!("{cut} new"));
            }
            redis!(server, "DEL", "a:4");
            // Once the witness has it all, the relay has heard what was written.
            let written = truth(&server, &["a", "b"]);
            witness.until("what was written", |memory| memory.state == written);
            let mut second = C::resume(&relay, &["a", "b"], cursor);
            let whole = take(&mut second, cut);
            assert_eq!(second.memory().count("reset"), 0, "a cursor that is known is believed");
            nothing_twice(&second);
            let (cursor, before) = (second.memory().cursor.clone(), page(&before, second.memory()));
            drop(second);

            redis!(server, "SET", "b:4", format!("{cut} newest"));
            witness.sees("b", "b:4", format!("{cut} newest"));
            let mut third = C::resume(&relay, &["a", "b"], cursor);
            third.ready();
            third.sees("b", "b:4", format!("{cut} newest"));
            assert_eq!(third.memory().count("reset"), 0, "a cursor that is known is believed");
            nothing_twice(&third);
            if whole {
                let told: BTreeSet<String> = third.memory().messages.iter().map(|message| message.key()).collect();
                assert_eq!(told, BTreeSet::from(["b:4".to_owned()]), "what was had is not sent again");
            }
            let before = page(&before, third.memory());
            assert_eq!(before, truth(&server, &["a", "b"]), "after a cut behind {cut} messages");

            let mut fourth = third.add(&relay, "c");
            redis!(server, "SET", "c:1", format!("{cut} newest"));
            fourth.sees("c", "c:1", format!("{cut} newest"));
            let expected = truth(&server, &["a", "b", "c"]);
            fourth.until(&format!("the whole truth, after a cut behind {cut} messages"), |memory| {
                memory.count("ready") > 0 && page(&before, memory) == expected
            });
            if whole {
                assert!(cut >= 7, "a catch-up of seven keys is seven messages");
                break;
            }
        }
    }

    /// Live messages of two channels are merged by sequence, so that the id of one never stands before another unsent.
    fn live_changes_cut_anywhere<C>() {
        const WRITES: usize = 12;
        let server = Server::start();
        let relay = Relay::start(&server, &mappings());
        for cut in 0..=WRITES {
            let mut client = C::open(&relay, &["a", "b"]);
            client.ready();
            let mut witness = C::open(&relay, &["a", "b"]);
            witness.ready();
            let keys: Vec<String> = (0..WRITES).map(|i| format!("{}:{}", ["a", "b"][i % 2], i / 2)).collect();
            for key in &keys {
                redis!(server, "SET", key, format!("cut {cut}"));
            }
            for key in &keys {
                witness.sees(&key[..1], key, format!("cut {cut}"));
            }
            let before = client.memory().messages.len();
            client.until("messages before the cut", |memory| memory.messages.len() == before + cut);
            // What came without an id is told again, if the cut comes before the `ready` that stands for it.
            let covered = client.memory().covered.max(before);
            let mut told: Vec<String> = client.memory().messages[before..covered].iter().map(Message::key).collect();
            nothing_twice(&client);
            let cursor = client.memory().cursor.clone();
            drop(client);
            let mut client = C::resume(&relay, &["a", "b"], cursor);
            client.ready();
            assert_eq!(client.memory().count("reset"), 0);
            told.extend(client.memory().messages.iter().map(|message| message.key()));
            told.sort();
            let mut expected = keys.clone();
            expected.sort();
            assert_eq!(told, expected, "every key once, in two parts, cut behind {cut}");
        }
    }

    /// What happened to a channel that nobody held is not known: its cursor must not be believed.
    fn a_channel_that_lingered_out_is_reset<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1", "b:1", "1");
        // At the limit of channels the oldest that lingers goes.
        let relay = Relay::with(&server, "max_channels = 1", &mappings());
        let mut client = C::open(&relay, &["a"]);
        client.ready();
        let cursor = client.memory().cursor.clone();
        drop(client);
        let mut other = crate::harness::eventually("the lingering channel makes room", || {
            let mut other = C::open(&relay, &["b"]);
            let event = other.next();
            matches!(event, Event::Message(_)).then_some(other)
        });
        other.ready();
        redis!(server, "DEL", "a:1");
        redis!(server, "SET", "b:1", "2");
        other.sees("b", "b:1", "2");
        drop(other);
        let mut client = crate::harness::eventually("the other channel makes room", || {
            let mut client = C::resume(&relay, &["a"], cursor.clone());
            let event = client.next();
            matches!(event, Event::Control(kind, _) if kind == "reset").then_some(client)
        });
        client.ready();
        assert_eq!(client.memory().state, truth(&server, &["a"]));
    }

    /// A channel that lingers only notes which keys are dirty; who returns gets what changed, without a reset.
    fn a_channel_that_lingers_is_believed<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a:1", "1", "a:2", "1");
        let relay = Relay::start(&server, &mappings());
        let mut client = C::open(&relay, &["a"]);
        client.ready();
        let cursor = client.memory().cursor.clone();
        drop(client);
        redis!(server, "DEL", "a:1");
        let mut client = C::resume(&relay, &["a"], cursor);
        client.until("the deletion", |memory| memory.values_of("a:1") == [Value::Null]);
        assert_eq!(client.memory().count("reset"), 0);
        assert!(client.memory().values_of("a:2").is_empty());
    }
}

/// A page that is loaded anew has no `Last-Event-ID`, but may have been rendered with a cursor.
#[test]
fn sse_takes_a_cursor_from_the_query() {
    let server = Server::start();
    redis!(server, "MSET", "a:1", "1", "b:1", "1");
    let relay = Relay::start(&server, &mappings());
    let mut client = Sse::open(&relay, &["a", "b"]);
    client.ready();
    let cursor = client
        .memory()
        .query_cursor
        .clone()
        .expect("ready tells a cursor for the query");
    redis!(server, "SET", "b:1", "2");
    client.sees("b", "b:1", "2");
    let request = |channels: &[&str], cursor: &str, headers: &[(&str, &str)]| {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let mut sse = Sse::request(&relay, &target(&channels, &format!("&cursor={cursor}")), headers, None);
        sse.ready();
        sse
    };
    let known = request(&["b", "a"], &cursor, &[]);
    assert_eq!(
        known.memory().count("reset"),
        0,
        "the order of the list does not matter"
    );
    assert_eq!(known.memory().messages.len(), 1);
    let wrong_list = request(&["a"], &cursor, &[]);
    assert_eq!(
        wrong_list.memory().count("reset"),
        1,
        "a cursor holds for its list of channels"
    );
    let (without_list, _) = cursor.rsplit_once('-').expect("three parts");
    let without_list = request(&["a", "b"], without_list, &[]);
    assert_eq!(
        without_list.memory().count("reset"),
        2,
        "in the query the list must be named"
    );
    // The header is newer: it is what a browser sends that reconnects by itself to the URL it was given.
    let last = known.memory().cursor.clone().expect("an id");
    let header = request(&["a", "b"], "old", &[("Last-Event-ID", last.as_str())]);
    assert_eq!(header.memory().count("reset"), 0);
    assert_eq!(header.memory().messages, []);
}

/// One connection, its list growing and shrinking.
#[test]
fn ws_subscribes_and_unsubscribes() {
    let server = Server::start();
    redis!(server, "MSET", "a:1", "1", "b:1", "1");
    let relay = Relay::start(&server, &mappings());
    let mut client = Ws::open(&relay, &["a"]);
    client.ready();
    let mut client = client.add(&relay, "b");
    client.sees("b", "b:1", "1");
    client.ready();
    assert_eq!(
        client.memory().values_of("a:1").len(),
        1,
        "what was had is not sent again"
    );
    client.send(&json!({"type": "unsubscribe", "channels": ["a"], "ref": 9}));
    // Answered in order: once the pong is here, the list is the new one.
    client.send(&json!({"type": "ping", "ref": 10}));
    client.control("pong");
    redis!(server, "SET", "a:1", "2");
    redis!(server, "SET", "b:1", "2");
    client.sees("b", "b:1", "2");
    assert_eq!(
        client.memory().values_of("a:1").len(),
        1,
        "nothing more of a channel that was left"
    );
    let cursor = client.cursor();
    drop(client);
    let mut client = Ws::resume(&relay, &["b"], cursor);
    client.ready();
    assert_eq!(client.memory().count("reset"), 0);
    assert_eq!(client.memory().messages, []);
}

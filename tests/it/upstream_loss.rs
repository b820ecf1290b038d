//! The server goes away and comes back: clients stay, are told, and end with what is true.

use serde_json::{Value, json};

use crate::harness::{Client, Data, Relay, Server, eventually, mapping, names};
use crate::{every_way, redis};

every_way! {
    /// Clients are accepted and told `stale`; their snapshot waits.
    fn away_at_the_start<C>() {
        let mut server = Server::away();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        let stale = client.control("stale");
        assert_eq!(names(&stale["channels"]), ["v"]);
        assert!(stale["reason"].is_string());
        assert_eq!(client.memory().count("ready"), 0);
        server.restart(Data::Lost);
        redis!(server, "SET", "v:1", "here");
        client.sees("v", "v:1", "here");
        client.until("ready", |memory| memory.count("ready") == 1);
        redis!(server, "SET", "v:1", "again");
        client.sees("v", "v:1", "again");
    }

    /// `stale`, then what differs and nothing else, then `fresh`.
    fn killed_and_started_again<C>() {
        let mut server = Server::start();
        redis!(server, "MSET", "v:1", "one", "v:2", "old", "v:3", "three", "v:4", "four");
        server.save();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        // What was not saved is lost in the crash: a value, a key, a deletion.
        redis!(server, "SET", "v:2", "new");
        client.sees("v", "v:2", "new");
        redis!(server, "SET", "v:5", "five");
        client.sees("v", "v:5", "five");
        redis!(server, "DEL", "v:4");
        client.misses("v", "v:4");
        let before = client.memory().messages.len();
        server.kill();
        let stale = client.control("stale");
        assert_eq!(names(&stale["channels"]), ["v"]);
        server.restart(Data::Kept);
        client.control("fresh");
        let mut told: Vec<(String, Value)> =
            client.memory().messages[before..].iter().map(|message| (message.key(), message.value().clone())).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("v:2", json!("old")), ("v:4", json!("four")), ("v:5", Value::Null)];
        assert_eq!(told, expected.map(|(key, value)| (key.to_owned(), value)), "what differs and nothing else");
        assert!(
            client.memory().messages[before..].iter().all(|message| message.json.get("event").is_none()),
            "what a comparison found has no event"
        );
        redis!(server, "SET", "v:1", "live");
        client.sees("v", "v:1", "live");
    }

    fn everything_is_gone_afterwards<C>() {
        let mut server = Server::start();
        redis!(server, "MSET", "v:1", "one", "v:2", "two");
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        server.restart(Data::Lost);
        client.until("every key is told to be gone", |memory| memory.state.is_empty());
        client.until("fresh", |memory| memory.count("fresh") > 0);
    }

    /// Who comes while the server is away gets what is known, marked as stale.
    fn joining_while_it_is_away<C>() {
        let mut server = Server::start();
        redis!(server, "SET", "v:1", "one");
        server.save();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut first = C::open(&relay, &["v"]);
        first.ready();
        server.kill();
        first.control("stale");
        let mut second = C::open(&relay, &["v"]);
        second.control("stale");
        assert_eq!(second.memory().count("ready"), 0, "ready implies fresh");
        server.restart(Data::Kept);
        second.until("ready", |memory| memory.count("ready") > 0);
        assert_eq!(second.memory().value("v", "v:1"), Some(&json!("one")));
        first.until("fresh", |memory| memory.count("fresh") > 0);
        assert_eq!(first.memory().values_of("v:1").len(), 1, "what is the same is not sent again");
    }

    /// A server that does not answer for a while has lost nothing: no reading again is needed.
    fn a_server_that_stands_still<C>() {
        let server = Server::start();
        redis!(server, "SET", "v:1", "one");
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        server.freeze();
        client.control("stale");
        server.thaw();
        client.control("fresh");
        redis!(server, "SET", "v:1", "two");
        client.sees("v", "v:1", "two");
        assert_eq!(client.memory().values_of("v:1"), [json!("one"), json!("two")]);
    }
}

/// The reason is said once, however long it lasts, and never with a key or a value.
#[test]
fn the_log_says_why_once() {
    let mut server = Server::start();
    redis!(server, "SET", "v:secret-key", "secret-value");
    server.save();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = crate::harness::Sse::open(&relay, &["v"]);
    client.ready();
    server.kill();
    client.control("stale");
    // Some attempts to come back fail meanwhile.
    let refused = |relay: &Relay| relay.log().lines().filter(|line| line.contains("WARN")).count();
    eventually("the log says that the server is away", || {
        (refused(&relay) > 0).then_some(())
    });
    server.restart(Data::Kept);
    client.control("fresh");
    let warnings = refused(&relay);
    assert!(warnings <= 2, "said {warnings} times:\n{}", relay.log());
    assert!(!relay.log().contains("secret"), "a key or a value is in the log");
}

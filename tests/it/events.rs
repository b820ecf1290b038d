//! Events mode: what happened, in order, and never a silent hole.

use serde_json::{Value, json};

use crate::harness::{Relay, Server, mapping};
use crate::{both, redis};

const LOG: &str = "key = \"log:{id}\"\nchannel = \"log\"\nmode = \"events\"";

both! {
    fn every_event_in_order<C>() {
        let server = Server::start();
        redis!(server, "SET", "log:old", "before");
        let relay = Relay::start(&server, &mapping(LOG));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        assert_eq!(client.memory().messages, [], "no cursor means from now");
        redis!(server, "SET", "log:a", "1");
        redis!(server, "SET", "log:a", "1");
        redis!(server, "EXPIRE", "log:a", "1000");
        redis!(server, "RPUSH", "log:b", "x");
        redis!(server, "DEL", "log:a");
        client.until("five events", |memory| memory.messages.len() >= 5);
        let told: Vec<(String, Value)> =
            client.memory().messages.iter().map(|message| (message.key(), message.json["event"].clone())).collect();
        let expected = [("log:a", "set"), ("log:a", "set"), ("log:a", "expire"), ("log:b", "rpush"), ("log:a", "del")];
        assert_eq!(told, expected.map(|(key, event)| (key.to_owned(), json!(event))));
        assert!(client.memory().messages.iter().all(|message| message.id.is_some()));
        // The value is the one read after the event, possibly a newer one: here at the latest it is what there is.
        redis!(server, "SET", "log:c", "now");
        client.sees("log", "log:c", "now");
        assert!(client.memory().value("log", "log:a").is_none());
    }

    fn a_burst_is_told_event_by_event<C>() {
        const EVENTS: usize = 500;
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(&format!("{LOG}\nretain = {{ messages = 1000 }}")));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        let mut connection = server.connect();
        for _ in 0..EVENTS {
            connection.send(&[b"INCR", b"log:n"]).expect("the server takes commands");
        }
        for _ in 0..EVENTS {
            connection.receive().expect("the server answers");
        }
        client.until("every event", |memory| memory.messages.len() >= EVENTS);
        let values: Vec<u64> = client
            .memory()
            .messages
            .iter()
            .map(|message| message.value().as_str().and_then(|text| text.parse().ok()).expect("a number"))
            .collect();
        assert!(values.is_sorted(), "a value is never older than one told before");
        assert_eq!(values.last(), Some(&(EVENTS as u64)));
        redis!(server, "SET", "log:n", "end");
        client.sees("log", "log:n", "end");
        assert_eq!(client.memory().messages.len(), EVENTS + 1, "each event once");
    }

    /// More happens at once than is kept: what is missing is announced, and the newest is there.
    fn a_burst_beyond_the_retention<C>() {
        const EVENTS: usize = 300;
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(&format!("{LOG}\nretain = {{ messages = 10 }}")));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        let mut connection = server.connect();
        for n in 1..=EVENTS {
            connection.send(&[b"SET", format!("log:{n}").as_bytes(), b"x"]).expect("the server takes commands");
        }
        client.sees("log", &format!("log:{EVENTS}"), "x");
        let told = client.memory().messages.len();
        assert!(told == EVENTS || client.memory().count("gap") > 0, "{told} of {EVENTS} and no word of the others");
    }

    fn only_the_events_that_are_asked_for<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(&format!("{LOG}\non = [\"set\", \"expired\"]")));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        redis!(server, "RPUSH", "log:list", "x");
        redis!(server, "SET", "log:a", "1");
        redis!(server, "DEL", "log:a");
        redis!(server, "SET", "log:b", "2");
        client.sees("log", "log:b", "2");
        let keys: Vec<String> = client.memory().messages.iter().map(|message| message.key()).collect();
        assert_eq!(keys, ["log:a", "log:b"]);
    }

    fn coming_back_within_the_retention<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(LOG));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        redis!(server, "SET", "log:a", "0");
        client.sees("log", "log:a", "0");
        let cursor = client.cursor();
        drop(client);
        // The channel records on after its last subscriber.
        for n in 1..=5 {
            redis!(server, "SET", format!("log:{n}"), n.to_string());
        }
        let mut client = C::resume(&relay, &["log"], cursor);
        client.sees("log", "log:5", "5");
        let keys: Vec<String> = client.memory().messages.iter().map(|message| message.key()).collect();
        assert_eq!(keys, ["log:1", "log:2", "log:3", "log:4", "log:5"]);
        assert_eq!((client.memory().count("gap"), client.memory().count("reset")), (0, 0));
    }

    /// More happened than is kept: the hole is announced, then comes what is left.
    fn coming_back_too_late<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(&format!("{LOG}\nretain = {{ messages = 3 }}")));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        redis!(server, "SET", "log:a", "0");
        client.sees("log", "log:a", "0");
        let cursor = client.cursor();
        let mut witness = C::open(&relay, &["log"]);
        witness.ready();
        drop(client);
        for n in 1..=10 {
            redis!(server, "SET", format!("log:{n}"), n.to_string());
            witness.sees("log", &format!("log:{n}"), n.to_string());
        }
        let mut client = C::resume(&relay, &["log"], cursor);
        client.control("gap");
        client.sees("log", "log:10", "10");
        let keys: Vec<String> = client.memory().messages.iter().map(|message| message.key()).collect();
        assert_eq!(keys, ["log:8", "log:9", "log:10"]);
        assert_eq!(client.memory().count("gap"), 1);
    }

    fn a_cursor_that_nobody_knows<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping(LOG));
        let mut witness = C::open(&relay, &["log"]);
        witness.ready();
        redis!(server, "SET", "log:1", "1");
        redis!(server, "SET", "log:2", "2");
        witness.sees("log", "log:2", "2");
        let mut client = C::resume(&relay, &["log"], Some("00000000000000ff-7-00000000000000ff".to_owned()));
        client.control("gap");
        client.sees("log", "log:2", "2");
        let keys: Vec<String> = client.memory().messages.iter().map(|message| message.key()).collect();
        assert_eq!(keys, ["log:1", "log:2"], "what is retained");
    }

    /// The connection to the server broke: what was missed is not known, and that is said.
    fn a_lost_server_is_a_gap<C>() {
        let mut server = Server::start();
        let relay = Relay::start(&server, &mapping(LOG));
        let mut client = C::open(&relay, &["log"]);
        client.ready();
        server.restart(crate::harness::Data::Lost);
        client.control("gap");
        client.until("the channel is fresh again", |memory| memory.count("fresh") > 0 || memory.count("stale") == 0);
        crate::harness::eventually("an event is heard again", || {
            redis!(server, "SET", "log:a", "after");
            client.poll(std::time::Duration::from_millis(50));
            client.memory().value("log", "log:a").map(|value| assert_eq!(value, "after"))
        });
    }
}

//! What clients are told of a state that may be behind: in which order, why, and since when.

use serde_json::{Value, json};

use crate::harness::{Client, Data, Event, Relay, Server, eventually, http, mapping};
use crate::{both, redis};

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// The sequence of an id or cursor.
fn sequence(id: &str) -> u64 {
    let sequence = id.split('-').nth(1).and_then(|sequence| sequence.parse().ok());
    sequence.unwrap_or_else(|| panic!("not an id: {id}"))
}

/// Why and since when the channel `v` is what the control event says.
fn why(data: &Value) -> (&Value, &Value) {
    let since = &data["channels"]["v"]["since"];
    assert!(since.as_u64().is_some_and(|since| since > 1_700_000_000_000), "{data}");
    (&data["reason"], since)
}

/// `kind`, and of a message its key, of the next things heard.
fn heard<C: Client>(client: &mut C, count: usize) -> Vec<String> {
    let event = |event| match event {
        Event::Message(message) => message.key(),
        Event::Control(kind, _) => kind,
        other => format!("{other:?}"),
    };
    (0..count).map(|_| event(client.next())).collect()
}

both! {
    /// What a client gets that comes meanwhile: that it is behind, what was known, what differs, that it is true, `ready`.
    fn who_joins_is_told_first<C>() {
        let mut server = Server::start();
        redis!(server, "SET", "v:1", "one");
        server.save();
        let relay = Relay::start(&server, &mapping(MAPPING));
        let mut first = C::open(&relay, &["v"]);
        first.ready();
        redis!(server, "SET", "v:2", "unsaved");
        first.sees("v", "v:2", "unsaved");
        server.kill();
        let told = first.control("stale");
        let mut second = C::open(&relay, &["v"]);
        assert_eq!(heard(&mut second, 1), ["stale"]);
        let (_, data) = second.memory().controls[0].clone();
        assert_eq!(why(&data), why(&told), "the same reason and time for all");
        assert_eq!(why(&data).0, "upstream-lost");
        let mut known = heard(&mut second, 2);
        known.sort();
        assert_eq!(known, ["v:1", "v:2"]);
        server.restart(Data::Kept);
        assert_eq!(heard(&mut second, 3), ["v:2", "fresh", "ready"]);
        let fresh = first.control("fresh");
        assert_eq!(why(&fresh), why(&told), "what it was fresh from");
    }

    /// `fresh` comes after all that differs, and who comes back with its id has missed nothing.
    fn fresh_is_the_end_of_the_repair<C>() {
        let mut server = Server::start();
        for n in 0..50 {
            redis!(server, "SET", format!("v:{n}"), "old");
        }
        server.save();
        let relay = Relay::start(&server, &mapping(MAPPING));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        for n in 0..50 {
            redis!(server, "SET", format!("v:{n}"), "new");
            client.sees("v", &format!("v:{n}"), "new");
        }
        let before = client.memory().messages.len();
        server.restart(Data::Kept);
        client.control("fresh");
        let memory = client.memory();
        assert_eq!(memory.messages.len() - before, 50, "all of it, before `fresh`");
        let cursor = memory.cursor.clone().expect("fresh has an id");
        let last = memory.messages.last().and_then(|message| message.id.as_deref()).expect("a live message has an id");
        assert!(sequence(&cursor) >= sequence(last), "{cursor} stands behind {last}");
        drop(client);
        let mut client = C::resume(&relay, &["v"], Some(cursor));
        client.ready();
        assert_eq!((client.memory().messages.len(), client.memory().count("reset")), (0, 0));
    }

    /// A server that is slow and then gone: both are said, with the time when it began.
    fn late_and_then_lost<C>() {
        let mut server = Server::start();
        redis!(server, "SET", "v:1", "one");
        server.save();
        let relay = Relay::start(&server, &mapping(MAPPING));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        server.freeze();
        let late = client.control("stale");
        assert_eq!(why(&late).0, "upstream-late");
        server.kill();
        let lost = client.control("stale");
        assert_eq!(why(&lost), (&json!("upstream-lost"), why(&late).1));
        server.restart(Data::Kept);
        let fresh = client.control("fresh");
        assert_eq!(why(&fresh), why(&lost));
        assert_eq!(client.memory().count("stale"), 2);
    }

    /// Keys that cannot be read: clients, the plain state, readiness and metrics say so with one word.
    fn what_cannot_be_read_is_said_everywhere<C>() {
        let server = Server::start();
        redis!(server, "SET", "v:1", "one");
        let relay = Relay::start(&server, &mapping(MAPPING));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        redis!(server, "ACL", "SETUSER", "default", "-get", "-strlen", "-mget", "-getrange");
        redis!(server, "SET", "v:1", "two");
        let stale = client.control("stale");
        assert_eq!(why(&stale).0, "no-permission");
        eventually("readiness follows", || relay.readiness().contains("cannot be read: no-permission").then_some(()));
        assert_eq!(relay.metric("keyrelay_stale_channels"), 1.0);
        assert!(relay.metric("keyrelay_read_errors_total{kind=\"no-permission\"}") >= 1.0);
        let plain = http::get(relay.address(), "/channels/v").json();
        let since = why(&stale).1;
        assert_eq!(plain["stale"], json!({"v": {"since": since, "reason": "no-permission"}}));
        // Who comes now is told, and is not told `ready`.
        let mut second = C::open(&relay, &["v"]);
        second.control("stale");
        assert_eq!(second.memory().count("ready"), 0);
        redis!(server, "ACL", "SETUSER", "default", "+@all");
        let fresh = client.control("fresh");
        assert_eq!(why(&fresh), why(&stale));
        assert_eq!(client.memory().value("v", "v:1"), Some(&json!("two")), "before `fresh`");
        second.ready();
        eventually("readiness follows", || relay.ready().then_some(()));
        assert_eq!(http::get(relay.address(), "/channels/v").json().get("stale"), None);
    }

    /// Nobody knows how many happenings are missing; that some may be is said where they are missing.
    fn a_loss_is_a_gap_in_events_mode<C>() {
        let mut server = Server::start();
        let relay = Relay::start(&server, &mapping(&format!("{MAPPING}\nmode = \"events\"")));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        redis!(server, "SET", "v:1", "before");
        client.sees("v", "v:1", "before");
        server.restart(Data::Lost);
        client.control("fresh");
        redis!(server, "SET", "v:1", "after");
        client.sees("v", "v:1", "after");
        let kinds: Vec<&str> = client.memory().controls.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["ready", "stale", "gap", "fresh"]);
        let (_, gap) = &client.memory().controls[2];
        assert_eq!(gap["channels"], json!({"v": {"missed": null}}));
        assert_eq!(gap["reason"], "upstream-lost");
    }
}

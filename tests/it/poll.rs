//! Keys that are read again and again, because no server tells of their changes.

use serde_json::json;

use crate::harness::{Client, Relay, Reply, Server, Sse, mapping};
use crate::{both, redis};

/// Whether the server is a KeyDB; says so loudly if it is not.
fn is_keydb(server: &Server) -> bool {
    let known = matches!(redis!(server, "COMMAND", "INFO", "expiremember"), Reply::Array(all) if all != [Reply::Nil]);
    if !known {
        eprintln!("skipped: EXPIREMEMBER and KEYDB.NHSET are KeyDB's");
    }
    known
}

both! {
    /// KeyDB lets a field of a hash expire without a word.
    fn a_field_that_expires<C>() {
        let server = Server::start();
        if !is_keydb(&server) {
            return;
        }
        redis!(server, "HSET", "h:1", "stays", "1", "goes", "2");
        let relay = Relay::start(&server, &mapping("key = \"h:{id}\"\npoll = \"200ms\""));
        let mut client = C::open(&relay, &["h:1"]);
        client.ready();
        redis!(server, "EXPIREMEMBER", "h:1", "goes", "1");
        client.until("the field is gone", |memory| {
            memory.value("h:1", "h:1") == Some(&json!({"stays": "1"}))
        });
    }

    /// KEYDB.NHSET without a path writes a string, and raises no event.
    fn a_string_that_is_written_silently<C>() {
        let server = Server::start();
        if !is_keydb(&server) {
            return;
        }
        redis!(server, "SET", "s:1", "one");
        let relay = Relay::start(&server, &mapping("key = \"s:{id}\"\npoll = \"200ms\""));
        let mut client = C::open(&relay, &["s:1"]);
        client.ready();
        redis!(server, "KEYDB.NHSET", "s:1", "two");
        client.sees("s:1", "s:1", "two");
        // A nested hash is of a type that no command but its own can read: shown as gone.
        redis!(server, "KEYDB.NHSET", "s:1.a.b", "three");
        client.misses("s:1", "s:1");
    }

    /// A server that announces nothing at all: what is polled is seen all the same, and is no repair.
    fn a_server_that_announces_nothing<C>() {
        let server = Server::start();
        redis!(server, "CONFIG", "SET", "notify-keyspace-events", "");
        redis!(server, "SET", "v:1", "one");
        let upstream = format!("url = \"{}\"\nnotifications = \"assume\"", server.url());
        let relay = Relay::reaching(&upstream, "", &mapping("key = \"v:{id}\"\nchannel = \"v\"\npoll = \"100ms\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        for value in ["two", "three"] {
            redis!(server, "SET", "v:1", value);
            client.sees("v", "v:1", value);
        }
        let event = |message: &crate::harness::Message| message.json.get("event").is_some();
        assert!(!client.memory().messages.iter().any(event), "no event is known");
        redis!(server, "DEL", "v:1");
        client.misses("v", "v:1");
        assert_eq!(relay.metric("keyrelay_repairs_total"), 0.0);
    }
}

/// Nobody listens, nothing is read.
#[test]
fn only_what_somebody_listens_to_is_polled() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:2", "two");
    let upstream = format!("url = \"{}\"\nverify = \"off\"", server.url());
    let relay = Relay::reaching(&upstream, "", &mapping("key = \"v:{id}\"\npoll = \"100ms\""));
    let mut first = Sse::open(&relay, &["v:1"]);
    first.ready();
    let reads = relay.metric("keyrelay_reads_total");
    crate::harness::eventually("it is read again and again", || {
        (relay.metric("keyrelay_reads_total") >= reads + 3.0).then_some(())
    });
    drop(first);
    let mut second = Sse::open(&relay, &["v:2"]);
    second.ready();
    let reads = |server: &Server| {
        let Reply::Bulk(info) = redis!(server, "OBJECT", "IDLETIME", "v:1") else {
            return redis!(server, "OBJECT", "IDLETIME", "v:1");
        };
        panic!("{info:?}");
    };
    crate::harness::eventually("nobody reads it any more", || match reads(&server) {
        Reply::Integer(seconds) if seconds >= 2 => Some(()),
        _ => None,
    });
}

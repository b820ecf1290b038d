//! The second look at mirrored keys: it repairs what nothing else noticed, and says so.

use crate::harness::{Client, Relay, Server, Sse, eventually, mapping};
use crate::{both, redis};

/// A server that sends no key events, and a relay that was told not to ask.
fn deaf(more: &str, mappings: &str) -> (Server, Relay) {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "");
    let upstream = format!("url = \"{}\"\nnotifications = \"assume\"\n{more}", server.url());
    let relay = Relay::reaching(&upstream, "", mappings);
    (server, relay)
}

both! {
    fn what_nothing_said_is_found_counted_and_logged_with_its_mapping<C>() {
        let (server, mut relay) = deaf("verify = \"1s\"", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        relay.may_repair();
        redis!(server, "MSET", "v:1", "one", "v:2", "two");
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        redis!(server, "SET", "v:1", "changed");
        redis!(server, "DEL", "v:2");
        client.sees("v", "v:1", "changed");
        client.misses("v", "v:2");
        eventually("both are counted", || (relay.metric("keyrelay_repairs_total") == 2.0).then_some(()));
        let log = relay.log();
        let line = log.lines().find(|line| line.contains("nothing said so: repaired")).unwrap();
        assert!(line.contains("keyrelay.toml") && line.contains("line"), "{line}");
        assert!(!log.contains("v:1"), "a key is in the log:\n{log}");
    }
}

/// What events, deadlines and the look for silent changes find is no repair, however often verify looks.
#[test]
fn what_is_heard_is_no_repair() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    redis!(server, "SET", "v:0", "x");
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    // Some are read by verify just when they are written.
    for i in 0..2_000 {
        redis!(
            server,
            "SET",
            format!("v:{}", i % 50),
            i.to_string(),
            "PX",
            (500 + i).to_string()
        );
    }
    redis!(server, "SWAPDB", "0", "1");
    client.until("all are gone", |memory| memory.state.is_empty());
    redis!(server, "SWAPDB", "0", "1");
    redis!(server, "SET", "v:last", "x");
    client.sees("v", "v:last", "x");
    client.until("those of the other database expire", |memory| memory.state.len() == 1);
    // A difference waits for 2 s before it counts.
    let seen = relay.metric("keyrelay_reads_total");
    eventually("verify had three rounds more", || {
        (relay.metric("keyrelay_reads_total") >= seen + 3.0).then_some(())
    });
    assert_eq!(relay.metric("keyrelay_repairs_total"), 0.0);
}

#[test]
fn off_means_that_nothing_is_read() {
    let (server, relay) = deaf("verify = \"off\"", &mapping("key = \"{name}\""));
    redis!(server, "SET", "k", "one");
    let mut client = Sse::open(&relay, &["k"]);
    client.ready();
    let reads = relay.metric("keyrelay_reads_total");
    redis!(server, "SET", "k", "two");
    let mut other = Sse::open(&relay, &["other"]);
    other.ready();
    assert_eq!(
        relay.metric("keyrelay_reads_total"),
        reads + 1.0,
        "only what was asked for"
    );
}

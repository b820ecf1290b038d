//! The primary is wherever the sentinels say.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Memory, Relay, Sentinel, Server, Sse, eventually, mapping};
use crate::redis;

const VALUES: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// How long after the failover is known to the sentinels the relay may still hold on to the old primary.
const NOTICE: Duration = Duration::from_secs(1);

fn relay(sentinel: &Sentinel) -> Relay {
    Relay::at(&sentinel.url(), "", &mapping(VALUES))
}

/// Writes, and waits until the replica has it too.
fn set(primary: &Server, key: &str, value: &str) {
    redis!(primary, "SET", key, value);
    redis!(primary, "WAIT", "1", "10000");
}

/// Whether the relay's feed and reader are connected to the server.
fn is_connected(server: &Server) -> bool {
    let mut connection = server.connect();
    let list = connection.command(&[b"CLIENT", b"LIST"]).unwrap().text();
    list.lines().filter(|line| line.contains(" name=keyrelay ")).count() >= 2
}

/// Whether what was said last is that nothing is behind. A `stale` may be said twice before, for another reason.
fn is_calm(memory: &Memory) -> bool {
    let mut said = memory.controls.iter().rev().map(|(kind, _)| kind.as_str());
    said.find(|kind| ["stale", "fresh"].contains(kind)) != Some("stale")
}

/// What was told after so many messages.
fn told(client: &Sse, before: usize) -> Vec<(String, Value)> {
    let news = client.memory().messages[before..].iter();
    news.map(|message| (message.key(), message.value().clone())).collect()
}

#[test]
fn the_primary_dies_and_comes_back_as_a_replica() {
    let mut sentinel = Sentinel::start();
    for key in ["v:1", "v:2", "v:3"] {
        set(&sentinel.servers[0], key, "old");
    }
    let relay = relay(&sentinel);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    set(&sentinel.servers[0], "v:1", "new");
    client.sees("v", "v:1", "new");
    let before = client.memory().messages.len();
    sentinel.servers[0].kill();
    client.control("stale");
    sentinel.until_primary(1);
    // Nobody has told the relay of what is written before it is there.
    redis!(sentinel.servers[1], "SET", "v:2", "changed");
    redis!(sentinel.servers[1], "DEL", "v:3");
    client.control("fresh");
    client.sees("v", "v:2", "changed");
    client.misses("v", "v:3");
    let mut news = told(&client, before);
    news.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("v:2".to_owned(), json!("changed")), ("v:3".to_owned(), Value::Null)];
    assert_eq!(news, expected, "what differs and nothing else");
    sentinel.servers[0].restart(Data::Kept);
    eventually("the old primary follows the new one", || {
        let role = crate::harness::info(&sentinel.servers[0], "role")?;
        (role == "slave").then_some(())
    });
    set(&sentinel.servers[1], "v:1", "again");
    client.sees("v", "v:1", "again");
    assert!(is_connected(&sentinel.servers[1]) && !is_connected(&sentinel.servers[0]));
}

/// Its connections stay open, and nothing comes from them: what counts is what the sentinels say.
#[test]
fn the_primary_freezes() {
    let sentinel = Sentinel::start();
    set(&sentinel.servers[0], "v:1", "old");
    let relay = relay(&sentinel);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    sentinel.servers[0].freeze();
    sentinel.until_primary(1);
    let known = Instant::now();
    eventually("the relay is at the new primary", || {
        is_connected(&sentinel.servers[1]).then_some(())
    });
    assert!(known.elapsed() < NOTICE, "after {:?}", known.elapsed());
    redis!(sentinel.servers[1], "SET", "v:1", "new");
    client.sees("v", "v:1", "new");
    client.until("fresh", is_calm);
    // It awakes, and for a moment takes itself for the primary.
    sentinel.servers[0].thaw();
    redis!(sentinel.servers[1], "SET", "v:1", "newer");
    client.sees("v", "v:1", "newer");
    eventually("it is a replica", || {
        let role = crate::harness::info(&sentinel.servers[0], "role")?;
        (role == "slave").then_some(())
    });
    redis!(sentinel.servers[1], "SET", "v:1", "newest");
    client.sees("v", "v:1", "newest");
    let values = client.memory().values_of("v:1");
    assert_eq!(values, ["old", "new", "newer", "newest"].map(|value| json!(value)));
}

/// The old primary stays reachable all the time.
#[test]
fn a_failover_that_somebody_asked_for() {
    let sentinel = Sentinel::start();
    set(&sentinel.servers[0], "v:1", "old");
    let relay = relay(&sentinel);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(sentinel.sentinels[0], "SENTINEL", "FAILOVER", "keys");
    sentinel.until_primary(1);
    redis!(sentinel.servers[1], "SET", "v:1", "new");
    client.sees("v", "v:1", "new");
    client.until("fresh", |memory| memory.count("stale") > 0 && is_calm(memory));
    eventually("the relay has left the old primary", || {
        (!is_connected(&sentinel.servers[0])).then_some(())
    });
}

/// Any sentinel will do, and a name that none of them knows is said in the log.
#[test]
fn sentinels_that_know_nothing() {
    let sentinel = Sentinel::start();
    let away = Server::away();
    let known = sentinel.sentinels[2].address();
    let relay = Relay::at(
        &format!("redis-sentinel://{},{known}/keys", away.address()),
        "",
        &mapping(VALUES),
    );
    redis!(sentinel.servers[0], "SET", "v:1", "there");
    let mut client = Sse::open(&relay, &["v"]);
    client.sees("v", "v:1", "there");
    let relay = Relay::at(&format!("redis-sentinel://{known}/other"), "", &mapping(VALUES));
    let mut client = Sse::open(&relay, &["v"]);
    client.control("stale");
    eventually("the log says so", || {
        relay
            .log()
            .contains("it watches no primary named `other`")
            .then_some(())
    });
}

//! What the relay asks of the server: little, and nothing for those who do not listen.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::harness::{Client, Relay, Server, Sse, mapping};
use crate::redis;

/// A relay that reads only what changed.
fn start(server: &Server, mappings: &str) -> Relay {
    let upstream = format!("url = \"{}\"\nverify = \"off\"", server.url());
    Relay::reaching(&upstream, "", mappings)
}

/// Commands that look at keys or their values.
const READS: &[&str] = &[
    "get", "getrange", "strlen", "type", "exists", "mget", "dump", "pttl", "ttl", "hgetall", "hmget", "hlen", "hscan",
    "lrange", "llen", "smembers", "scard", "sscan", "zrange", "zcard", "zscan", "xrange", "xlen", "scan", "keys",
];

/// Commands that the relay may send: none of them changes a key.
const HARMLESS: &[&str] = &[
    "hello",
    "auth",
    "client",
    "config",
    "info",
    "ping",
    "echo",
    "time",
    "select",
    "subscribe",
    "psubscribe",
    "unsubscribe",
    "punsubscribe",
    "role",
    "command",
    "readonly",
    "cluster",
    "memory",
    "object",
];

/// How often each command was called since the statistics were reset, subcommands under their command.
fn calls(server: &Server) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in redis!(server, "INFO", "commandstats").text().lines() {
        let Some((command, rest)) = line
            .strip_prefix("cmdstat_")
            .and_then(|line| line.split_once(":calls="))
        else {
            continue;
        };
        let count: u64 = rest
            .split(',')
            .next()
            .and_then(|count| count.parse().ok())
            .expect("a count");
        let command = command.split('|').next().unwrap_or(command).to_ascii_lowercase();
        *calls.entry(command).or_default() += count;
    }
    calls
}

fn reads(server: &Server) -> u64 {
    let calls = calls(server);
    READS.iter().filter_map(|command| calls.get(*command)).sum()
}

#[test]
fn nothing_is_read_for_nobody() {
    let server = Server::start();
    let relay = start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v:{id}\""));
    let mut client = Sse::open(&relay, &["v:heard"]);
    client.ready();
    relay.checked();
    redis!(server, "CONFIG", "RESETSTAT");
    for id in 0..500 {
        redis!(server, "SET", format!("v:{id}"), "x");
    }
    redis!(server, "SET", "v:heard", "x");
    client.sees("v:heard", "v:heard", "x");
    let reads = reads(&server);
    assert!(
        reads <= 10,
        "{reads} reads for one key that somebody listens to: {:?}",
        calls(&server)
    );
}

#[test]
fn one_read_for_all_who_listen() {
    const CLIENTS: usize = 50;
    const CHANGES: u64 = 40;
    let server = Server::start();
    let relay = start(&server, &mapping("key = \"v:{id}\""));
    let mut clients: Vec<Sse> = (0..CLIENTS).map(|_| Sse::open(&relay, &["v:1"])).collect();
    for client in &mut clients {
        client.ready();
    }
    relay.checked();
    redis!(server, "CONFIG", "RESETSTAT");
    for change in 0..CHANGES {
        redis!(server, "SET", "v:1", change.to_string());
        for client in &mut clients {
            client.sees("v:1", "v:1", change.to_string());
        }
    }
    // A read is its length, its value and its expiry: three or four commands.
    let reads = reads(&server);
    assert!(
        reads <= 5 * CHANGES,
        "{reads} reads for {CHANGES} changes: {:?}",
        calls(&server)
    );
}

/// Channels that must be enumerated share the passes over the keys.
#[test]
fn many_rooms_share_a_scan() {
    const ROOMS: usize = 200;
    let server = Server::start();
    let mut connection = server.connect();
    for key in 0..20_000 {
        let key = format!("m:{}:{key}", key % ROOMS);
        connection
            .send(&[b"SET", key.as_bytes(), b"x"])
            .expect("the server takes commands");
        connection.receive().expect("the server answers");
    }
    let relay = start(&server, &mapping("key = \"m:{room}:{id}\"\nchannel = \"room:{room}\""));
    relay.checked();
    let paused = || relay.metric("keyrelay_scan_pause_seconds_total");
    assert_eq!(paused(), 0.0);
    let since = Instant::now();
    redis!(server, "CONFIG", "RESETSTAT");
    let mut first = Sse::open(&relay, &["room:0"]);
    first.ready();
    let one_pass = calls(&server)["scan"];
    redis!(server, "CONFIG", "RESETSTAT");
    let mut rest: Vec<Sse> = (1..ROOMS)
        .map(|room| Sse::open(&relay, &[&format!("room:{room}")]))
        .collect();
    for client in &mut rest {
        client.ready();
        assert_eq!(client.memory().state.len(), 20_000 / ROOMS);
    }
    let all = calls(&server)["scan"];
    // They come over some time: each waits for at most the pass that goes on and one more.
    assert!(
        all <= 12 * one_pass,
        "{all} SCAN calls for {} rooms, {one_pass} for one",
        ROOMS - 1
    );
    let (paused, took) = (paused(), since.elapsed().as_secs_f64());
    assert!(paused > 0.0 && paused < took, "{paused} s of {took} s");
}

#[test]
fn no_key_is_written() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "x");
    redis!(server, "HSET", "v:2", "a", "b");
    redis!(server, "CONFIG", "RESETSTAT");
    let relay = start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    relay.checked();
    let unknown: Vec<String> = calls(&server)
        .into_keys()
        .filter(|command| !READS.contains(&command.as_str()) && !HARMLESS.contains(&command.as_str()))
        .collect();
    assert!(unknown.is_empty(), "not known to leave keys alone: {unknown:?}");
}

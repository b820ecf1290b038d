//! What only `source = "tracking"` does.

use serde_json::json;

use crate::harness::{Client, Relay, Server, Sse, eventually, mapping, track};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

fn start(server: &Server, mappings: &str) -> Relay {
    track();
    Relay::start(server, mappings)
}

/// The server's setting is neither asked for nor touched, and no message has an event's name.
#[test]
fn no_setting_is_needed() {
    let server = Server::start();
    let relay = start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(server, "SET", b"v:\xff", "binary");
    redis!(server, "SET", "v:1", "one");
    client.sees("v", "v:1", "one");
    client.until("the binary key", |memory| memory.messages.len() == 2);
    assert!(
        client
            .memory()
            .messages
            .iter()
            .all(|message| message.json.get("event").is_none())
    );
    let stats = redis!(server, "INFO", "commandstats").text();
    assert!(!stats.contains("cmdstat_config"), "{stats}");
}

/// A change in another database is told too, without its number: it costs a read, and nothing is sent.
#[test]
fn another_database_is_not_shown() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "here");
    let relay = start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(server, "SELECT", "1");
    redis!(server, "SET", "v:1", "elsewhere");
    redis!(server, "DEL", "v:1");
    redis!(server, "SELECT", "0");
    redis!(server, "SET", "v:2", "end");
    client.sees("v", "v:2", "end");
    assert_eq!(client.memory().values_of("v:1"), [json!("here")]);
}

/// All keys of a script come in one push, however large it is.
#[test]
fn a_push_of_any_size_is_taken() {
    const KEYS: usize = 300_000;
    let server = Server::start();
    let relay = start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    // Some 20 MB: more than one frame may have, and less than the server lets a subscriber wait for.
    let script = "for n = 1, ARGV[1] do redis.call('SET', 'w:' .. string.rep('x', 50) .. n, n) end \
                  redis.call('SET', 'v:last', 'x')";
    let mapped = start(&server, &mapping("key = \"w:{id}\"\nchannel = \"w:{id}\""));
    let mut other = Sse::open(&mapped, &[&format!("w:{}{KEYS}", "x".repeat(50))]);
    other.ready();
    redis!(server, "EVAL", script, "0", KEYS.to_string());
    client.sees("v", "v:last", "x");
    other.until("the last key", |memory| memory.messages.len() == 2);
    let log = mapped.log();
    assert_eq!(log.matches("upstream connected").count(), 1, "{log}");
}

/// The server does not hold ever more for a relay that takes nothing: it cuts it off, and the relay begins anew.
#[test]
fn a_relay_that_stands_still_is_cut_off() {
    let server = Server::start();
    let relay = start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(
        server,
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 1000000 0 0"
    );
    relay.freeze();
    let feeds = |server: &Server| {
        let clients = redis!(server, "CLIENT", "LIST").text();
        clients
            .lines()
            .filter(|line| line.contains("name=keyrelay ") && line.contains("sub=1"))
            .count()
    };
    assert_eq!(feeds(&server), 1);
    let script = "for n = 1, 2000 do redis.call('SET', 'v:' .. string.rep('x', 500) .. n, ARGV[1]) end";
    eventually("the server has had enough", || {
        redis!(server, "EVAL", script, "0", "x");
        (feeds(&server) == 0).then_some(())
    });
    redis!(
        server,
        "EVAL",
        "for _, key in ipairs(redis.call('KEYS', 'v:x*')) do redis.call('DEL', key) end",
        "0"
    );
    redis!(server, "SET", "v:1", "last");
    relay.thaw();
    client.sees("v", "v:1", "last");
    client.until("what went meanwhile is gone", |memory| memory.state.len() == 1);
}

/// Tracking does not tell of it: the look at the server each second does.
#[test]
fn swapped_databases_are_noticed() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:2", "two");
    redis!(server, "SELECT", "1");
    redis!(server, "MSET", "v:2", "other", "v:3", "three");
    redis!(server, "SELECT", "0");
    let relay = start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(server, "SWAPDB", "0", "1");
    client.sees("v", "v:3", "three");
    client.sees("v", "v:2", "other");
    client.misses("v", "v:1");
}

//! Keys that expire are told at their deadline, though the server itself comes to say so much later.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::{Client, Relay, Reply, Server, Sse, mapping};
use crate::{both, redis};

/// With so many others that expire later, a server takes longer than [`SOON`] to come to a key by itself.
const OTHERS: usize = 20_000;

/// What a machine on which everything runs at once may need for what takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

fn with_others() -> Server {
    let server = Server::start();
    let script = format!("for i = 1, {OTHERS} do redis.call('SET', 'other:' .. i, 'x', 'EX', 3600 + i) end");
    redis!(server, "EVAL", script, "0");
    server
}

fn unix_ms(after: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (now + after).as_millis().to_string()
}

both! {
    fn each_key_is_told_to_be_gone_when_its_time_has_come<C>() {
        const KEYS: u64 = 200;
        let server = with_others();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        let begun = Instant::now();
        let after = |i: u64| Duration::from_millis(1_000 + 5 * i);
        for i in 0..KEYS {
            redis!(server, "SET", format!("v:{i}"), "x");
            redis!(server, "PEXPIREAT", format!("v:{i}"), unix_ms(after(i).saturating_sub(begun.elapsed())));
        }
        client.until("all are there", |memory| memory.messages.len() >= KEYS as usize);
        client.until("all are gone", |memory| memory.state.is_empty());
        let late = begun.elapsed().saturating_sub(after(KEYS - 1));
        assert!(late < SOON, "{late:?} late");
    }

    /// Whatever moves a deadline is followed.
    fn a_deadline_that_is_moved_or_removed_is_followed<C>() {
        let server = with_others();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        // Not before: on a slow machine they would be gone before the relay is there.
        let keys = ["persisted", "replaced", "prolonged", "kept", "shortened"];
        for key in keys {
            redis!(server, "SET", format!("v:{key}"), "x", "PX", if key == "shortened" { "100000" } else { "4000" });
        }
        client.until("all are there", |memory| memory.state.len() == keys.len());
        redis!(server, "PERSIST", "v:persisted");
        redis!(server, "SET", "v:replaced", "y");
        redis!(server, "PEXPIRE", "v:prolonged", "100000");
        redis!(server, "SET", "v:kept", "y", "KEEPTTL");
        redis!(server, "PEXPIRE", "v:shortened", "1500");
        let begun = Instant::now();
        client.until("those that expire are gone", |memory| {
            ["v:kept", "v:shortened"].iter().all(|key| memory.value("v", key).is_none())
        });
        assert!(begun.elapsed() < Duration::from_millis(4_000) + SOON, "{:?}", begun.elapsed());
        for (key, value) in [("v:persisted", "x"), ("v:replaced", "y"), ("v:prolonged", "x")] {
            assert_eq!(client.memory().value("v", key), Some(&json!(value)), "{key}");
        }
    }
}

/// GETEX sets and removes a deadline, too.
#[test]
fn getex_is_followed() {
    let server = with_others();
    let known =
        |name: &str| matches!(redis!(server, "COMMAND", "INFO", name), Reply::Array(all) if all != [Reply::Nil]);
    if !known("getex") {
        eprintln!("skipped: this server has no GETEX");
        return;
    }
    redis!(server, "SET", "v:gone", "x");
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(server, "SET", "v:stays", "x", "PX", "4000");
    client.sees("v", "v:stays", "x");
    redis!(server, "GETEX", "v:stays", "PERSIST");
    redis!(server, "GETEX", "v:gone", "PX", "1500");
    let begun = Instant::now();
    client.misses("v", "v:gone");
    assert!(
        begun.elapsed() < Duration::from_millis(1_500) + SOON,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(client.memory().value("v", "v:stays"), Some(&json!("x")));
}

/// Nobody who keeps up is given a reset in place of the deletions.
#[test]
fn many_keys_of_one_channel_expire_together() {
    const KEYS: usize = 10_000;
    let server = with_others();
    let script = format!(
        "for i = 1, {KEYS} do redis.call('SET', 'v:' .. i, 'x'); redis.call('PEXPIREAT', 'v:' .. i, ARGV[1]) end"
    );
    redis!(server, "EVAL", script, "0", unix_ms(Duration::from_secs(4)));
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    client.until("all are gone", |memory| memory.state.is_empty());
    assert_eq!(client.memory().count("reset"), 0);
}

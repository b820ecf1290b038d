//! The relay itself is stopped, slow, or overrun.

use std::time::Duration;

use serde_json::Value;

use super::{Setup, listen_for};
use crate::harness::{Client, Memory, Reply, Side};
use crate::redis;

/// A script that writes over and over to `ARGV[2]` keys, in all `ARGV[1]` times, beginning its values with `ARGV[3]`.
const BURST: &str = "for i = 1, ARGV[1] do redis.call('SET', 'v:b' .. i % ARGV[2], ARGV[3] .. i) end";

/// The client has for every key what the server has.
#[track_caller]
fn shows_what_is_there(setup: &mut Setup) {
    let Reply::Array(keys) = redis!(setup.server, "KEYS", "v:*") else {
        panic!("KEYS gives a list")
    };
    let keys: Vec<String> = keys.iter().map(Reply::text).collect();
    for key in &keys {
        let value = redis!(setup.server, "GET", key).text();
        setup.client.sees("v", key, Value::String(value));
    }
    let all = |memory: &Memory| memory.state.len() == keys.len();
    setup.client.until("nothing that is gone", all);
}

/// The process does not run for a while, and writes go on. Whatever was heard late counts, nothing is taken for lost.
fn stopped_for(time: Duration) {
    let mut setup = Setup::new();
    setup.relay.freeze();
    setup.write();
    for round in 0..10 {
        redis!(setup.server, "EVAL", BURST, "0", "200", "20", format!("{round} "));
        listen_for(&mut setup.client, time / 10);
    }
    setup.relay.thaw();
    redis!(setup.server, "SET", "v:last", "1");
    setup.client.sees("v", "v:last", "1");
    shows_what_is_there(&mut setup);
    setup.hears_calm();
    assert_eq!((setup.proxy.made(Side::Feed), setup.proxy.made(Side::Reader)), (1, 1));
    setup.is_live();
}

#[test]
fn stopped_for_a_moment() {
    stopped_for(Duration::from_secs(3));
}

/// For longer than a server may be silent: it was asked nothing meanwhile, and has all that it said still there.
#[test]
fn stopped_for_long() {
    stopped_for(Duration::from_secs(12));
}

/// Memory goes with the keys, not with the writes.
#[test]
fn a_burst_of_writes_to_few_keys() {
    /// A queue of the events would take ten times as much.
    const ALLOWED: u64 = 20 << 20;
    let mut setup = Setup::new();
    let before = setup.relay.resident();
    for round in 0..20 {
        redis!(setup.server, "EVAL", BURST, "0", "50000", "1000", format!("{round} "));
    }
    redis!(setup.server, "SET", "v:last", "1");
    setup.client.sees("v", "v:last", "1");
    let grown = setup.relay.resident().saturating_sub(before);
    println!("a million writes to a thousand keys: {grown} bytes");
    shows_what_is_there(&mut setup);
    assert!(grown < ALLOWED, "grown by {grown} bytes");
    setup.hears_calm();
    setup.is_live();
}

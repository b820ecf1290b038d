//! The server answers reads with errors: no key is forgotten, and after a second clients are told why.

use super::{MAPPING, Setup, listen_for};
use crate::harness::{Client, FEED, Relay, Reply, Server, Side, Sse, eventually, mapping, own_all_slots};
use crate::redis;
use std::time::Duration;

/// What is written is heard only after the server was broken, and can be read only after it was mended.
#[track_caller]
fn broken_and_mended(mut setup: Setup, reason: &str, break_it: impl FnOnce(&Setup), mend: impl FnOnce(&Setup)) {
    setup.proxy.hold(FEED, true);
    setup.write();
    break_it(&setup);
    setup.proxy.hold(FEED, false);
    setup.hears_stale(reason);
    mend(&setup);
    setup.hears_fresh();
    let memory = setup.client.memory();
    let value = |key| memory.value("v", key).and_then(|value| value.as_str());
    assert_eq!(
        ["v:1", "v:2", "v:3", "v:4"].map(value),
        [Some("new"), None, Some("three"), Some("four")]
    );
    assert_eq!(
        setup.look(),
        (vec![format!("stale {reason}"), format!("fresh {reason}")], 3)
    );
    assert_eq!((setup.proxy.made(Side::Feed), setup.proxy.made(Side::Reader)), (1, 1));
    setup.is_live();
}

#[test]
fn busy_with_a_script() {
    let setup = Setup::new();
    let mut script = None;
    let busy = |setup: &Setup| script = Some(setup.server.keep_busy());
    broken_and_mended(setup, "busy", busy, |setup| {
        redis!(setup.server, "SCRIPT", "KILL");
    });
}

/// What passes by itself is waited for, at the start as well.
#[test]
fn busy_at_the_start() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let _script = server.keep_busy();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.control("stale");
    redis!(server, "SCRIPT", "KILL");
    client.until("ready", |memory| memory.count("ready") == 1);
    client.sees("v", "v:1", "one");
}

/// A user that may do everything, for now.
fn as_user() -> Setup {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:2", "two", "v:3", "three");
    server.grant("on >secret ~* &* +@all");
    Setup::of(server, "relay:secret@", MAPPING)
}

#[test]
fn the_right_to_read_is_taken_away() {
    for [taken, given] in [
        ["-getrange", "+getrange"],
        ["-pttl", "+pttl"],
        ["-@all", "+@all"],
        ["resetkeys", "~*"],
    ] {
        let set = |setup: &Setup, rule: &str| {
            redis!(setup.server, "ACL", "SETUSER", "relay", rule);
        };
        broken_and_mended(
            as_user(),
            "no-permission",
            |setup| set(setup, taken),
            |setup| set(setup, given),
        );
    }
}

/// Keys that may be read are told while others may not, and these are not asked for all the time.
#[test]
fn some_keys_may_not_be_read() {
    const DENIED: usize = 1000;
    let mut setup = as_user();
    setup.server.grant("resetkeys ~v:3");
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'v:denied:' .. i, 'x') end";
    redis!(setup.server, "EVAL", fill, "0", DENIED.to_string());
    let mapped = "for i = 1, ARGV[1] do redis.call('SET', 'v:d' .. i, 'x') end";
    redis!(setup.server, "EVAL", mapped, "0", DENIED.to_string());
    // A busy machine may be slow before it is denied anything for a second.
    setup.client.control("stale");
    setup.look();
    setup.is_live();
    let reads = || super::rejected(&setup.server, "pttl");
    // In the first second or two they are asked for as often as any key.
    listen_for(&mut setup.client, Duration::from_secs(2));
    let before = reads();
    listen_for(&mut setup.client, Duration::from_secs(2));
    let often = reads() - before;
    assert!(often < 600, "asked {often} times in 2 s for {DENIED} keys");
    setup.server.grant("~*");
    setup.hears_fresh();
    assert_eq!(setup.client.memory().state.len(), 3 + DENIED);
    setup.look();
    setup.is_live();
}

/// Without SCAN no channel of many keys can be begun; who waits for one is told.
#[test]
fn the_right_to_scan_comes_late() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    server.grant("on >secret ~* &* +@all -scan");
    let url = format!("redis://relay:secret@{}/0", server.address());
    let relay = Relay::at(&url, "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    assert_eq!(client.control("stale")["reason"], "no-permission");
    assert_eq!(client.memory().count("ready"), 0);
    server.grant("+scan");
    client.ready();
    assert_eq!(client.memory().value("v", "v:1"), Some(&"one".into()));
}

/// A replica that loads what its primary sends answers no reads until it has.
#[test]
fn loading() {
    let primary = Server::start();
    redis!(primary, "CONFIG", "SET", "repl-diskless-sync", "no");
    let fill = "for i = 1, 4000 do redis.call('SET', 'other:' .. i, 'x') end";
    redis!(primary, "EVAL", fill, "0");
    redis!(primary, "MSET", "v:1", "new", "v:3", "three", "v:4", "four");
    let mut setup = Setup::new();
    // Microseconds for each key, and bytes after which the server looks at its connections while it loads.
    redis!(setup.server, "CONFIG", "SET", "key-load-delay", "500");
    redis!(
        setup.server,
        "CONFIG",
        "SET",
        "loading-process-events-interval-bytes",
        "1024"
    );
    redis!(
        setup.server,
        "REPLICAOF",
        "127.0.0.1",
        primary.address().port().to_string()
    );
    setup.hears_stale("loading");
    setup.hears_fresh();
    let heard = std::mem::replace(&mut setup.server, primary);
    let controls = setup.hears_the_repair();
    // That its primary is not there yet was said before, if there was the time.
    assert!(
        controls.ends_with(&["stale loading".into(), "fresh loading".into()]),
        "{controls:?}"
    );
    drop(heard);
}

/// A replica that is told not to answer while its primary is away.
#[test]
fn the_primary_is_away() {
    let primary = Server::start();
    redis!(primary, "MSET", "v:1", "one", "v:2", "two", "v:3", "three");
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "replica-serve-stale-data", "no");
    redis!(server, "REPLICAOF", "127.0.0.1", primary.address().port().to_string());
    eventually("the replica is in step", || {
        redis!(server, "INFO", "replication")
            .text()
            .contains("master_link_status:up")
            .then_some(())
    });
    drop(primary);
    eventually("the replica refuses", || {
        let refused = server.connect().command(&[b"GET", b"v:1"]).unwrap();
        matches!(refused, Reply::Error(_)).then_some(())
    });
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.control("stale");
    assert_eq!(client.memory().count("ready"), 0);
    redis!(server, "REPLICAOF", "NO", "ONE");
    client.ready();
    assert_eq!(client.memory().state.len(), 3);
}

/// A node of a cluster that has no owner for a slot.
#[test]
fn the_cluster_is_down() {
    let server = Server::with_config("cluster-enabled yes");
    own_all_slots(&server, true);
    for (key, value) in [("v:1", "one"), ("v:2", "two"), ("v:3", "three")] {
        redis!(server, "SET", key, value);
    }
    let setup = Setup::of(server, "", MAPPING);
    broken_and_mended(
        setup,
        "cluster-down",
        |setup| own_all_slots(&setup.server, false),
        |setup| own_all_slots(&setup.server, true),
    );
}

//! The feed's connection fails.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Setup, listen_for};
use crate::harness::{Client, Cut, Drip, FEED, Side, eventually};
use crate::redis;

/// The connection is cut and cannot be made again until events were lost.
fn cut(how: Cut) {
    let mut setup = Setup::new();
    setup.proxy.refuse(FEED, true);
    setup.proxy.cut(FEED, how);
    setup.hears_stale("upstream-lost");
    setup.write();
    setup.proxy.refuse(FEED, false);
    assert_eq!(setup.hears_the_repair(), ["stale upstream-lost", "fresh upstream-lost"]);
}

#[test]
fn reset() {
    cut(Cut::Reset);
}

#[test]
fn closed() {
    cut(Cut::Close);
}

#[test]
fn killed_by_an_operator() {
    let mut setup = Setup::new();
    setup.proxy.refuse(FEED, true);
    redis!(setup.server, "CLIENT", "KILL", "TYPE", "pubsub");
    setup.hears_stale("upstream-lost");
    setup.write();
    setup.proxy.refuse(FEED, false);
    assert_eq!(setup.hears_the_repair(), ["stale upstream-lost", "fresh upstream-lost"]);
}

/// Nothing closes: only the PING that is not answered tells.
#[test]
fn half_open() {
    let mut setup = Setup::new();
    setup.proxy.cut(FEED, Cut::Vanish);
    setup.write();
    let begun = Instant::now();
    setup.hears_stale("upstream-late");
    let late = begun.elapsed();
    let heard = setup.hears_the_repair();
    let lost = begun.elapsed();
    let told = ["stale upstream-late", "stale upstream-lost", "fresh upstream-lost"];
    assert_eq!(heard, told);
    let seconds = |time: Duration| time.as_secs_f64();
    assert!(
        (2.0..6.0).contains(&seconds(late)),
        "a PING every 2 s is late after 2 s: {late:?}"
    );
    assert!((8.0..16.0).contains(&seconds(lost)), "lost after 10 s: {lost:?}");
}

/// Frozen for longer than the relay waits: it is a gap, although the process is the same.
#[test]
fn a_server_that_is_frozen_for_long() {
    let mut setup = Setup::new();
    setup.proxy.refuse(FEED, true);
    setup.server.freeze();
    setup.hears_stale("upstream-late");
    eventually("the feed gives the connection up", || {
        (setup.proxy.open(Side::Feed) == 0).then_some(())
    });
    setup.server.thaw();
    setup.write();
    setup.proxy.refuse(FEED, false);
    let told = ["stale upstream-late", "stale upstream-lost", "fresh upstream-lost"];
    assert_eq!(setup.hears_the_repair(), told);
}

/// A late answer on the same connection lost nothing: nothing is read again but what is heard then.
#[test]
fn a_server_that_is_frozen_for_a_moment() {
    let mut setup = Setup::new();
    let scans = setup.scans();
    setup.server.freeze();
    setup.hears_stale("upstream-late");
    setup.server.thaw();
    setup.hears_fresh();
    assert_eq!(
        setup.look(),
        (vec!["stale upstream-late".into(), "fresh upstream-late".into()], 0)
    );
    setup.is_live();
    assert_eq!(setup.scans(), scans);
    assert_eq!((setup.proxy.made(Side::Feed), setup.proxy.made(Side::Reader)), (1, 1));
}

/// Events that crawl are late and in order; as long as bytes come, nothing is taken for lost.
#[test]
fn drip_fed() {
    let mut setup = Setup::with("key = \"v:{id}\"\nchannel = \"v\"\nmode = \"events\"", |_| {});
    // An event of 60 bytes takes a second: the answer to a PING waits behind them for more than 10.
    let every = Duration::from_millis(16);
    setup.proxy.drip(FEED, Some(Drip { bytes: 1, every }));
    for n in 1..=14 {
        redis!(setup.server, "SET", format!("v:{n:02}"), n.to_string());
    }
    let begun = Instant::now();
    setup.client.sees("v", "v:14", "14");
    assert!(begun.elapsed() > Duration::from_secs(10), "{:?}", begun.elapsed());
    let keys: Vec<String> = setup.client.memory().messages.iter().map(|each| each.key()).collect();
    let expected: Vec<String> = (1..=14).map(|n| format!("v:{n:02}")).collect();
    assert_eq!(keys, expected);
    setup.proxy.calm();
    setup.hears_fresh();
    assert_eq!(setup.client.memory().count("gap"), 0);
    assert_eq!(setup.proxy.made(Side::Feed), 1);
}

/// The relay hears too slowly, so the server cuts it off in the middle of a burst.
#[test]
fn killed_for_its_output_buffer() {
    let mut setup = Setup::new();
    redis!(
        setup.server,
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 64kb 0 0"
    );
    setup.proxy.hold(FEED, true);
    burst_until_the_feed_is_killed(&setup);
    setup.write();
    setup.proxy.hold(FEED, false);
    shows_the_burst(&mut setup);
}

/// The same by a relay that does not run for a while.
#[test]
fn killed_for_its_output_buffer_while_the_relay_was_stopped() {
    let mut setup = Setup::new();
    redis!(
        setup.server,
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 64kb 0 0"
    );
    setup.relay.freeze();
    burst_until_the_feed_is_killed(&setup);
    setup.write();
    setup.relay.thaw();
    shows_the_burst(&mut setup);
}

/// Writes ten keys over and over.
fn burst_until_the_feed_is_killed(setup: &Setup) {
    let round = "for i = 1, 20000 do redis.call('SET', 'v:b' .. i % 10, ARGV[1] .. i) end";
    let mut n = 0;
    eventually("the server has no subscriber any more", || {
        n += 1;
        redis!(setup.server, "EVAL", round, "0", format!("{n} "));
        redis!(setup.server, "CLIENT", "LIST", "TYPE", "pubsub")
            .text()
            .is_empty()
            .then_some(())
    });
}

fn shows_the_burst(setup: &mut Setup) {
    setup.hears_fresh();
    let (controls, _) = setup.look();
    assert_eq!(controls, ["stale upstream-lost", "fresh upstream-lost"]);
    let memory = setup.client.memory();
    for digit in 0..10 {
        let key = format!("v:b{digit}");
        let value = redis!(setup.server, "GET", &key).text();
        assert_eq!(memory.value("v", &key), Some(&Value::String(value)));
    }
    assert_eq!(memory.value("v", "v:1"), Some(&"new".into()));
    assert_eq!(memory.value("v", "v:2"), None);
    setup.is_live();
}

/// Cut again and again, the relay comes back each time and ends with what is true.
#[test]
fn flapping() {
    let mut setup = Setup::new();
    for n in 0..10 {
        setup.proxy.cut(FEED, if n % 2 == 0 { Cut::Reset } else { Cut::Close });
        redis!(setup.server, "SET", "v:1", n.to_string());
        listen_for(&mut setup.client, Duration::from_millis(100));
    }
    setup.client.sees("v", "v:1", "9");
    setup.hears_fresh();
    eventually("one connection of each kind is left", || {
        ((setup.proxy.open(Side::Feed), setup.proxy.open(Side::Reader)) == (1, 1)).then_some(())
    });
    setup.is_live();
}

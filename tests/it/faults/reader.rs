//! The connections that read fail: no key is forgotten, and clients hear of what takes long.

use std::time::{Duration, Instant};

use super::{MAPPING, Setup, listen_for};
use crate::harness::{
    BOTH, Client, Cut, Drip, FEED, Place, Proxy, READER, Relay, Server, Side, Sse, eventually, mapping,
};
use crate::redis;

/// More keys than one page of a scan and one batch of reads have.
const MANY: usize = 3000;

fn many(server: &Server) {
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'v:' .. i, 'value ' .. i) end";
    redis!(server, "EVAL", fill, "0", MANY.to_string());
}

/// The client has all of them.
#[track_caller]
fn has_many(client: &Sse) {
    let memory = client.memory();
    for n in 1..=MANY {
        let value = format!("value {n}");
        assert_eq!(memory.value("v", &format!("v:{n}")), Some(&value.into()));
    }
    assert_eq!(memory.state.len(), MANY);
}

/// While the reader is away keys are heard and not read: nothing is lost, and nothing more than that is read.
fn cut(how: Cut) {
    let mut setup = Setup::new();
    let scans = setup.scans();
    setup.proxy.refuse(READER, true);
    setup.proxy.cut(READER, how);
    setup.hears_stale("upstream-lost");
    setup.write();
    setup.proxy.refuse(READER, false);
    setup.hears_fresh();
    // The events may have come before the reader did or after.
    setup.client.sees("v", "v:1", "new");
    setup.client.misses("v", "v:2");
    setup.client.sees("v", "v:4", "four");
    assert_eq!(setup.client.memory().value("v", "v:3"), Some(&"three".into()));
    assert_eq!(
        setup.look(),
        (vec!["stale upstream-lost".into(), "fresh upstream-lost".into()], 3)
    );
    assert_eq!(setup.scans(), scans, "nothing was lost");
    assert_eq!(setup.proxy.made(Side::Feed), 1);
    setup.is_live();
}

#[test]
fn reset() {
    cut(Cut::Reset);
}

#[test]
fn closed() {
    cut(Cut::Close);
}

/// Of a short outage, in which nothing is lost, nobody is told.
#[test]
fn killed_by_an_operator() {
    let mut setup = Setup::new();
    redis!(setup.server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    eventually("the reader is back", || {
        (setup.proxy.made(Side::Reader) == 2).then_some(())
    });
    setup.is_live();
    setup.client.sees("v", "v:1", "one");
    assert_eq!(setup.client.memory().count("stale"), 0);
}

/// A read that is not answered is slow after a second, and after five the connection is given up.
#[test]
fn half_open() {
    let mut setup = Setup::new();
    setup.proxy.cut(READER, Cut::Vanish);
    setup.write();
    let begun = Instant::now();
    setup.hears_stale("timeout");
    let told = begun.elapsed();
    setup.hears_fresh();
    let memory = setup.client.memory();
    assert_eq!(
        (memory.value("v", "v:1"), memory.value("v", "v:2")),
        (Some(&"new".into()), None)
    );
    assert_eq!(setup.look(), (vec!["stale timeout".into(), "fresh timeout".into()], 3));
    assert!((0.9..4.0).contains(&told.as_secs_f64()), "{told:?}");
    setup.is_live();
}

/// A relay's first pass over the keys breaks off: it begins anew on the next connection.
fn cut_in_a_scan(how: Cut, nth: u32, bytes: u64) {
    let server = Server::start();
    many(&server);
    let proxy = Proxy::start(server.address());
    let command = "SCAN";
    proxy.cut_at(READER, Place::Answer { command, nth, bytes }, how);
    let relay = Relay::at(&proxy.url(), "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    has_many(&client);
    assert_eq!((proxy.is_to_be_cut(Side::Reader), proxy.made(Side::Reader)), (false, 2));
    assert!(
        server.calls("scan") >= u64::from(nth) - 1 + MANY as u64 / 99,
        "the pass begins anew"
    );
    assert_eq!(client.memory().messages.len(), MANY, "each once");
}

#[test]
fn reset_in_a_scan() {
    cut_in_a_scan(Cut::Reset, 1, 10);
}

#[test]
fn closed_in_a_scan() {
    cut_in_a_scan(Cut::Close, 7, 200);
}

#[test]
fn half_open_in_a_scan() {
    cut_in_a_scan(Cut::Vanish, 20, 500);
}

/// The first connection breaks wherever it may, while it is made, in a page of keys, in a value.
#[test]
fn cut_after_any_byte() {
    let server = Server::start();
    many(&server);
    let mut bytes = 0;
    while bytes < 60_000 {
        bytes = bytes * 3 / 2 + 50;
        let how = if bytes % 2 == 0 { Cut::Reset } else { Cut::Close };
        let proxy = Proxy::start(server.address());
        proxy.cut_at(READER, Place::Bytes(bytes), how);
        let relay = Relay::at(&proxy.url(), "", &mapping(MAPPING));
        let mut client = Sse::open(&relay, &["v"]);
        client.ready();
        has_many(&client);
        assert_eq!((proxy.is_to_be_cut(Side::Reader), proxy.made(Side::Reader)), (false, 2));
        assert_eq!(client.memory().messages.len(), MANY, "each once");
    }
}

/// Answers that come late, but come, are waited for.
#[test]
fn slow() {
    let mut setup = Setup::new();
    setup.proxy.delay(READER, Duration::from_secs(2));
    setup.write();
    setup.hears_stale("timeout");
    setup.proxy.calm();
    setup.hears_fresh();
    assert_eq!(setup.look(), (vec!["stale timeout".into(), "fresh timeout".into()], 3));
    assert_eq!(setup.proxy.made(Side::Reader), 1);
    setup.is_live();
}

/// Answers in crumbs of every size are put together.
#[test]
fn drip_fed() {
    let mut setup = Setup::new();
    let items: Vec<String> = (0..50).map(|n| format!("item\r\n{n}")).collect();
    for bytes in 1..8 {
        let every = Duration::from_micros(100);
        setup.proxy.drip(BOTH, Some(Drip { bytes, every }));
        let mut push = vec!["RPUSH", "v:list"];
        push.extend(items.iter().map(String::as_str));
        let push: Vec<&dyn AsRef<[u8]>> = push.iter().map(|word| word as &dyn AsRef<[u8]>).collect();
        setup.server.run(&push);
        setup.client.sees("v", "v:list", items.clone());
        redis!(setup.server, "DEL", "v:list");
        setup.client.misses("v", "v:list");
    }
    setup.proxy.calm();
    assert_eq!((setup.proxy.made(Side::Feed), setup.proxy.made(Side::Reader)), (1, 1));
    setup.is_live();
}

/// The server stands still, and somebody comes: the read is not answered, and the connection is given up before the feed's.
#[test]
fn a_server_that_is_frozen_in_a_read() {
    let one = mapping("key = \"v:{id}\"\nchannel = \"one:{id}\"");
    let mut setup = Setup::with(&format!("{MAPPING}\n{one}"), |server| {
        redis!(server, "SET", "v:3", "three");
    });
    let scans = setup.scans();
    setup.server.freeze();
    let mut second = Sse::open(&setup.relay, &["one:3"]);
    assert_eq!(second.control("stale")["reason"], "timeout");
    eventually("another reader is tried", || {
        (setup.proxy.made(Side::Reader) > 1).then_some(())
    });
    setup.server.thaw();
    second.ready();
    assert_eq!(second.memory().value("one:3", "v:3"), Some(&"three".into()));
    setup.hears_fresh();
    assert_eq!((setup.proxy.made(Side::Feed), setup.scans()), (1, scans));
    assert_eq!(setup.look().1, 0);
    setup.is_live();
}

/// After a failover one connection leads to the old server and one to the new: nothing of either is sent as true.
fn on_different_servers(first: &[Side], second: &[Side]) {
    let other = Server::start();
    redis!(other, "MSET", "v:1", "new", "v:3", "three", "v:4", "four");
    let mut setup = Setup::new();
    setup.proxy.lead(first, other.address());
    setup.proxy.cut(first, Cut::Close);
    setup.hears_stale("upstream-lost");
    // On the server that is heard, and on the one that is read.
    redis!(setup.server, "SET", "v:3", "of the old server");
    redis!(other, "SET", "v:5", "of the new server");
    listen_for(&mut setup.client, Duration::from_secs(2));
    assert_eq!(setup.look(), (vec!["stale upstream-lost".into()], 0));
    redis!(other, "DEL", "v:5");
    setup.proxy.lead(second, other.address());
    setup.proxy.cut(second, Cut::Close);
    setup.server = other;
    assert_eq!(setup.hears_the_repair(), ["fresh upstream-lost"]);
}

#[test]
fn reads_another_server_than_is_heard() {
    on_different_servers(READER, FEED);
}

#[test]
fn hears_another_server_than_is_read() {
    on_different_servers(FEED, READER);
}

/// Connections that could not be used are closed, however they came about.
#[test]
fn nothing_is_left_behind() {
    let mut setup = Setup::new();
    for _ in 0..5 {
        // The feed is lost again while the reader is still connecting.
        setup.proxy.delay(READER, Duration::from_millis(300));
        let made = setup.proxy.made(Side::Reader);
        setup.proxy.cut(BOTH, Cut::Reset);
        eventually("a reader is being connected", || {
            (setup.proxy.made(Side::Reader) > made).then_some(())
        });
        setup.proxy.cut(FEED, Cut::Reset);
        setup.proxy.calm();
    }
    setup.hears_fresh();
    eventually("one connection of each kind is left", || {
        ((setup.proxy.open(Side::Feed), setup.proxy.open(Side::Reader)) == (1, 1)).then_some(())
    });
    setup.look();
    setup.is_live();
}

//! The fault-injecting proxy of the harness does what the tests of faults take for granted.

use std::time::{Duration, Instant};

use crate::harness::{BOTH, Cut, Drip, FEED, Place, Proxy, READER, Reply, Resp, Server, Side, eventually};
use crate::redis;

/// A connection through the proxy that it must take for the feed's.
fn feed(proxy: &Proxy) -> Resp {
    let mut connection = Resp::connect(proxy.address()).unwrap();
    connection.command(&[b"HELLO", b"2", b"SETNAME", b"feed"]).unwrap();
    connection
}

/// A connection through the proxy that it must take for the reader's.
fn reader(proxy: &Proxy) -> Resp {
    let mut connection = Resp::connect(proxy.address()).unwrap();
    connection.command(&[b"PING"]).unwrap();
    connection
}

fn is_dead(connection: &mut Resp) -> bool {
    connection.command(&[b"PING"]).is_err()
}

#[test]
fn each_side_is_cut_by_itself() {
    let server = Server::start();
    let proxy = Proxy::start(server.address());
    for how in [Cut::Reset, Cut::Close] {
        let (mut feed, mut reader) = (feed(&proxy), reader(&proxy));
        assert_eq!((proxy.open(Side::Feed), proxy.open(Side::Reader)), (1, 1));
        proxy.cut(FEED, how);
        assert!(is_dead(&mut feed), "{how:?}");
        eventually("the proxy has forgotten it", || {
            (proxy.open(Side::Feed) == 0).then_some(())
        });
        assert!(!is_dead(&mut reader), "{how:?}");
        proxy.cut(READER, how);
        assert!(is_dead(&mut reader), "{how:?}");
        eventually("the proxy has forgotten it", || {
            (proxy.open(Side::Reader) == 0).then_some(())
        });
    }
    assert_eq!((proxy.made(Side::Feed), proxy.made(Side::Reader)), (2, 2));
}

#[test]
fn what_goes_to_a_vanished_or_swallowed_connection_is_lost() {
    let server = Server::start();
    let proxy = Proxy::start(server.address());
    let mut vanished = reader(&proxy);
    proxy.cut(BOTH, Cut::Vanish);
    vanished.send(&[b"SET", b"k", b"lost"]).unwrap();
    proxy.swallow(READER, true);
    let mut swallowed = Resp::connect(proxy.address()).unwrap();
    swallowed.send(&[b"SET", b"k", b"lost"]).unwrap();
    // By then the proxy has come to both.
    feed(&proxy);
    assert_eq!(redis!(server, "EXISTS", "k"), Reply::Integer(0));
    assert_eq!(proxy.made(Side::Reader), 1);
    // A vanished connection is not closed by the proxy, but the relay may give it up.
    assert_eq!(proxy.open(Side::Reader), 1);
    drop(vanished);
    eventually("it is given up", || (proxy.open(Side::Reader) == 0).then_some(()));
}

#[test]
fn new_connections_are_refused_or_led_elsewhere() {
    let (server, other) = (Server::start(), Server::start());
    redis!(server, "SET", "name", "server");
    redis!(other, "SET", "name", "other");
    let proxy = Proxy::start(server.address());
    let name = |connection: &mut Resp| connection.command(&[b"GET", b"name"]).unwrap().text();
    let mut old = reader(&proxy);
    proxy.lead(READER, other.address());
    assert_eq!(name(&mut old), "server");
    assert_eq!(name(&mut reader(&proxy)), "other");
    assert_eq!(name(&mut feed(&proxy)), "server");
    proxy.refuse(READER, true);
    assert!(is_dead(&mut Resp::connect(proxy.address()).unwrap()));
    assert_eq!(name(&mut feed(&proxy)), "server");
    proxy.calm();
    assert_eq!(name(&mut reader(&proxy)), "other");
}

#[test]
fn bytes_come_late_in_crumbs_or_when_they_are_let_go() {
    let server = Server::start();
    redis!(server, "SET", "k", "x".repeat(300));
    let proxy = Proxy::start(server.address());
    let mut reader = reader(&proxy);
    let mut takes = |what: &str, least: Duration| {
        let begun = Instant::now();
        assert_eq!(reader.command(&[b"GET", b"k"]).unwrap().text().len(), 300);
        assert!(begun.elapsed() >= least, "{what}: {:?}", begun.elapsed());
    };
    proxy.delay(READER, Duration::from_millis(50));
    takes("delay", Duration::from_millis(50));
    proxy.calm();
    let every = Duration::from_millis(1);
    proxy.drip(READER, Some(Drip { bytes: 10, every }));
    takes("drip", 30 * every);
    proxy.drip(READER, None);
    proxy.hold(READER, true);
    let freer = std::thread::scope(|scope| {
        let held = scope.spawn(|| takes("hold", Duration::ZERO));
        eventually("the server has answered", || {
            let calls = redis!(server, "INFO", "commandstats").text();
            calls.contains("cmdstat_get:calls=3").then_some(())
        });
        assert!(!held.is_finished());
        proxy.hold(READER, false);
        held.join()
    });
    freer.unwrap();
}

#[test]
fn a_connection_is_cut_in_the_middle_of_an_answer() {
    let server = Server::start();
    redis!(server, "SET", "k", "x".repeat(300));
    let proxy = Proxy::start(server.address());
    let mut first = reader(&proxy);
    let place = Place::Answer {
        command: "GET",
        nth: 2,
        bytes: 200,
    };
    proxy.cut_at(READER, place, Cut::Close);
    assert!(first.command(&[b"GET", b"k"]).is_ok());
    assert!(proxy.is_to_be_cut(Side::Reader));
    let cut = first.command(&[b"GET", b"k"]).unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(!proxy.is_to_be_cut(Side::Reader));
    let mut second = reader(&proxy);
    assert!(second.command(&[b"GET", b"k"]).is_ok(), "only once");
    proxy.cut_at(READER, Place::Bytes(3), Cut::Reset);
    assert!(is_dead(&mut second));
}

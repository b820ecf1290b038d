//! Connections in all and of one address.

use super::{BEHIND, Way, from, limited, reached, told};
use crate::harness::{Client, Server, Sse, Ws, eventually};
use crate::redis;

/// Whoever comes when the relay is full is told in its own way, those who are there do not notice, and when one of them
/// leaves there is room again.
#[test]
fn in_all() {
    let server = Server::start();
    let relay = limited(&server, "", "connections = 3");
    let way = Way::default();
    let (mut sse, mut ws, third) = (
        way.live(way.sse(&relay)),
        way.live(way.ws(&relay)),
        way.live(way.ws(&relay)),
    );

    way.refused_sse(&relay, "overload");
    way.refused_ws(&relay, "overload");
    way.refused_get(&relay, 503);
    assert_eq!(reached(&relay, "connections"), 3.0);
    told(&relay, "connections");

    redis!(server, "SET", "v:1", "one");
    sse.sees("v:1", "v:1", "one");
    ws.sees("v:1", "v:1", "one");
    drop(third);
    let mut fourth = eventually("there is room again", || {
        let mut sse = way.sse(&relay);
        sse.until("it begins or ends", |memory| {
            memory.count("ready") + memory.count("end") > 0
        });
        (sse.memory().count("ready") > 0).then_some(sse)
    });
    fourth.sees("v:1", "v:1", "one");
    assert_eq!((sse.memory().count("end"), ws.memory().count("end")), (0, 0));
}

/// One of the connections that are refused is closed after it was told, so that they cannot be held.
#[test]
fn who_is_refused_does_not_stay() {
    let server = Server::start();
    let relay = limited(&server, "", "connections = 1");
    let way = Way::default();
    let _only = way.live(way.sse(&relay));
    let refused = way.get(&relay);
    assert_eq!(refused.head.header("connection"), Some("close"));
    assert!(refused.following().is_none());
}

/// Each address has its own number, whatever the others do.
#[test]
fn of_one_address() {
    let server = Server::start();
    let relay = limited(&server, BEHIND, "connections_per_address = 2");
    let (ada, bob) = (from("203.0.113.1"), from("203.0.113.2"));
    let (mut sse, ws) = (ada.live(ada.sse(&relay)), ada.live(ada.ws(&relay)));

    ada.refused_sse(&relay, "too-many");
    ada.refused_ws(&relay, "too-many");
    ada.refused_get(&relay, 429);
    assert_eq!(reached(&relay, "connections_per_address"), 3.0);
    let line = told(&relay, "connections_per_address");
    assert!(line.contains("203.0.113.1"), "{line}");

    let mut other = bob.live(bob.ws(&relay));
    assert_eq!(bob.get(&relay).head.status, 200);
    eventually("what was answered holds nothing", || {
        (bob.get(&relay).head.status == 200).then_some(())
    });
    redis!(server, "SET", "v:1", "one");
    sse.sees("v:1", "v:1", "one");
    other.sees("v:1", "v:1", "one");
    drop(ws);
    eventually("there is room again", || {
        (ada.get(&relay).head.status == 200).then_some(())
    });
}

/// Of IPv6 a customer has a /64 and may take any address in it.
#[test]
fn of_one_64() {
    let server = Server::start();
    let relay = limited(&server, BEHIND, "connections_per_address = 1");
    let one = from("2001:db8:0:1::1");
    let _held = one.live(one.sse(&relay));
    from("2001:db8:0:1:ffff::2").refused_get(&relay, 429);
    assert_eq!(from("2001:db8:0:2::1").get(&relay).head.status, 200);
}

/// Every place comes back, whichever way a client goes.
#[test]
fn places_come_back() {
    let server = Server::start();
    let relay = limited(
        &server,
        BEHIND,
        "connections_per_address = 1\nconnects_per_second = 10_000\nconnects_burst = 10_000",
    );
    let ada = from("203.0.113.1");
    let free = |what: &str| {
        eventually(what, || (ada.get(&relay).head.status == 200).then_some(()));
    };
    let sse: Sse = ada.live(ada.sse(&relay));
    drop(sse);
    free("a stream was cut");
    let mut ws: Ws = eventually("so did the place of an answer", || {
        let mut ws = ada.ws(&relay);
        ws.until("it begins or ends", |memory| {
            memory.count("ready") + memory.count("end") > 0
        });
        (ws.memory().count("ready") > 0).then_some(ws)
    });
    ws.socket.close(None).expect("a close frame can be sent");
    ws.closed();
    free("a WebSocket was closed");
    drop(ws);
    eventually("a request is refused for itself", || {
        let bad = crate::harness::http::request(
            relay.address(),
            "GET",
            "/events?channel=",
            &[("X-Forwarded-For", "203.0.113.1")],
        );
        (bad.status() == 400).then_some(())
    });
    free("a request was refused");
}

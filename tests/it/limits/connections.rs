//! Connections in all and of one address.

use super::{BEHIND, Visitor, from, limited, reached, told};
use crate::harness::{Client, Server, Sse, Way, Ws, eventually};
use crate::redis;

/// Whoever comes when the relay is full is told in its own way, those who are there do not notice, and when one of them
/// leaves there is room again.
#[test]
pub fn in_all() {
    let server = Server::start();
    let relay = limited(&server, "", "connections = 3");
    let visitor = Visitor::default();
    let (mut sse, mut ws, third) = (
        visitor.live(visitor.sse(&relay)),
        visitor.live(visitor.ws(&relay)),
        visitor.live(visitor.ws(&relay)),
    );

    visitor.refused_sse(&relay, "overload");
    visitor.refused_ws(&relay, "overload");
    visitor.refused_get(&relay, 503);
    assert_eq!(reached(&relay, "connections"), 3.0);
    told(&relay, "connections");

    redis!(server, "SET", "v:1", "one");
    sse.sees("v:1", "v:1", "one");
    ws.sees("v:1", "v:1", "one");
    drop(third);
    let mut fourth = eventually("there is room again", || {
        let mut sse = visitor.sse(&relay);
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
pub fn who_is_refused_does_not_stay() {
    let server = Server::start();
    let relay = limited(&server, "", "connections = 1");
    let visitor = Visitor::default();
    let _only = visitor.live(visitor.sse(&relay));
    let refused = visitor.get(&relay);
    if Way::current() != Way::Http2 {
        assert_eq!(refused.head.header("connection"), Some("close"));
    }
    // Over HTTP/2 another request may be on its way when it is told to leave.
    let mut asked = Some(refused);
    eventually("the connection is closed", || {
        let answer = asked.take()?;
        assert_eq!(answer.head.status, 503);
        asked = answer.next("/channels/v:1", &[]);
        asked.is_none().then_some(())
    });
}

/// Each address has its own number, whatever the others do.
#[test]
pub fn of_one_address() {
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
pub fn of_one_64() {
    let server = Server::start();
    let relay = limited(&server, BEHIND, "connections_per_address = 1");
    let one = from("2001:db8:0:1::1");
    let _held = one.live(one.sse(&relay));
    from("2001:db8:0:1:ffff::2").refused_get(&relay, 429);
    assert_eq!(from("2001:db8:0:2::1").get(&relay).head.status, 200);
}

/// Every place comes back, whichever way a client goes.
#[test]
pub fn places_come_back() {
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
        let bad = ada.exchange(&relay, "/events?channel=", &ada.headers());
        (bad.head.status == 400).then_some(())
    });
    free("a request was refused");
}

//! Whom proxies speak for, and that nobody else is believed.

use std::io::Read;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{BEHIND, Visitor, from, limited, reached};
use crate::harness::http::{Exchange, connect, request};
use crate::harness::{Client, PATIENCE, Relay, Server, eventually, mapping};
use crate::redis;

const ANNOUNCED: &str = "proxies = [\"127.0.0.1\"]\nclient_address = \"proxy-protocol\"";

fn announced(first: &[u8]) -> Visitor<'_> {
    Visitor {
        first,
        ..Visitor::default()
    }
}

/// A header of version 2 for this IPv4 address.
fn v2(command: u8, last: u8) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, 0x11, 0, 12, 203, 0, 113, last, 127, 0, 0, 1, 0, 1, 0, 2]);
    bytes
}

/// What a stranger writes into its request is not taken for an address: neither to pass for many, nor to use up what
/// others may have.
#[test]
pub fn a_stranger_is_not_believed() {
    let server = Server::start();
    for options in [
        "",
        "proxies = [\"10.0.0.0/8\", \"unix\"]\nclient_address = \"x-forwarded-for\"",
        "proxies = [\"127.0.0.1\"]\nclient_address = \"fly-client-ip\"",
    ] {
        let relay = limited(&server, options, "connections_per_address = 1");
        let ada = from("203.0.113.1");
        let _streams = [ada.live(ada.sse(&relay)), ada.live(ada.sse(&relay))];
        assert_eq!(ada.get(&relay).head.status, 200, "{options}");
        assert_eq!(reached(&relay, "connections_per_address"), 0.0, "{options}");
    }
}

/// Where nobody listed speaks, loopback is not limited: a proxy stands there, for all its clients.
#[test]
pub fn an_unlisted_proxy_is_not_one_client() {
    let server = Server::start();
    let relay = limited(
        &server,
        "",
        "connections_per_address = 1\nconnects_per_second = 1\nconnects_burst = 1",
    );
    let visitor = Visitor::default();
    let _streams = [0; 5].map(|_| visitor.live(visitor.ws(&relay)));
    assert_eq!(visitor.get(&relay).head.status, 200);
}

/// The client is the last that the proxies named; what it says of itself before that does not count. Where nothing can be
/// read, it is the proxy itself.
#[test]
pub fn the_last_word_counts() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nclient_address = \"x-forwarded-for\"";
    let relay = limited(&server, options, "connections_per_address = 1");
    let ada = from("198.51.100.7, 203.0.113.1, 10.0.0.1");
    let _held = ada.live(ada.sse(&relay));
    from("203.0.113.1").refused_get(&relay, 429);
    from("8.8.8.8, 203.0.113.1, 10.1.1.1").refused_get(&relay, 429);
    for other in [
        "198.51.100.7",
        "203.0.113.1, 198.51.100.8",
        "203.0.113.1, unknown",
        "",
        "10.0.0.1",
    ] {
        assert_eq!(from(other).get(&relay).head.status, 200, "{other}");
    }
}

/// An answer that its client does not read has the client's place until it is given up, though the connection is the proxy's.
#[test]
fn an_answer_has_a_place_until_it_is_read() {
    /// More than the buffers of both ends take.
    const SIZE: usize = 16 << 20;
    let server = Server::start();
    let value = "x".repeat(1 << 20);
    for id in 0..SIZE / value.len() {
        redis!(server, "SET", format!("m:{id}"), &value);
    }
    let mappings = mapping("key = \"v:{id}\"") + &mapping("key = \"m:{id}\"\nchannel = \"m\"");
    let limits = "[limits]\nconnections_per_address = 1\nconnects_per_second = 10_000\nconnects_burst = 10_000\n";
    let relay = Relay::with(&server, BEHIND, &format!("{limits}{mappings}"));
    let ada = from("203.0.113.1");
    let stream = connect(relay.address(), Some(64 << 10));
    let mut unread = Exchange::send(stream, "GET", "/channels/m", &ada.headers());
    assert_eq!(unread.head.status, 200);
    ada.refused_get(&relay, 429);
    assert_eq!(from("203.0.113.2").get(&relay).head.status, 200);
    // Read, it holds nothing, though the connection goes on.
    assert!(unread.read_to_end().len() > SIZE);
    let again = eventually("the place is given back", || {
        let stream = connect(relay.address(), Some(64 << 10));
        let again = Exchange::send(stream, "GET", "/channels/m", &ada.headers());
        (again.head.status == 200).then_some(again)
    });
    ada.refused_get(&relay, 429);
    drop(again);
    eventually("the place is given back", || {
        (ada.get(&relay).head.status == 200).then_some(())
    });
}

/// Fly's own header.
#[test]
pub fn fly() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\"]\nclient_address = \"fly-client-ip\"";
    let relay = limited(&server, options, "connections_per_address = 1");
    let get = |address: &str| {
        let headers = [("Fly-Client-IP", address), ("X-Forwarded-For", "198.51.100.1")];
        let stream = Visitor::default().connect(&relay);
        Exchange::send(stream, "GET", "/events?channel=v:1", &headers)
    };
    let mut held = crate::harness::Sse::read(get("203.0.113.1"));
    held.ready();
    let mut refused = crate::harness::Sse::read(get("203.0.113.1"));
    assert_eq!(refused.control("end")["reason"], "too-many");
    let mut other = crate::harness::Sse::read(get("203.0.113.2"));
    other.ready();
}

/// Both versions of the PROXY protocol, whichever way its clients are spoken to.
#[test]
pub fn a_proxy_that_passes_tcp_on() {
    let server = Server::start();
    let relay = limited(&server, ANNOUNCED, "connections_per_address = 1");
    let (one, two) = (v2(0x21, 1), v2(0x21, 2));
    let v1: &[u8] = b"PROXY TCP4 203.0.113.1 127.0.0.1 4711 7400\r\n";
    let mut sse = announced(v1).live(announced(v1).sse(&relay));
    for visitor in [announced(v1), announced(&one)] {
        visitor.refused_sse(&relay, "too-many");
        visitor.refused_ws(&relay, "too-many");
        visitor.refused_get(&relay, 429);
    }
    let mut ws = announced(&two).live(announced(&two).ws(&relay));
    redis!(server, "SET", "v:1", "one");
    sse.sees("v:1", "v:1", "one");
    ws.sees("v:1", "v:1", "one");
    drop(sse);
    eventually("there is room again", || {
        (announced(&one).get(&relay).head.status == 200).then_some(())
    });
}

/// The proxy's own connections and those of whom it knows nothing are nobody's.
#[test]
pub fn a_proxy_that_speaks_for_itself() {
    let server = Server::start();
    let relay = limited(&server, ANNOUNCED, "connections_per_address = 1");
    let local = v2(0x20, 1);
    for first in [local.as_slice(), b"PROXY UNKNOWN\r\n"] {
        let visitor = announced(first);
        let _streams = [visitor.live(visitor.sse(&relay)), visitor.live(visitor.sse(&relay))];
        assert_eq!(visitor.get(&relay).head.status, 200);
    }
}

/// A listed proxy that does not say whom it speaks for is not served: its clients would all be taken for it.
#[test]
pub fn a_header_that_is_none() {
    let server = Server::start();
    let relay = limited(&server, ANNOUNCED, "");
    let early = b"GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n";
    let mut late = v2(0x21, 1);
    late[12] = 0x31;
    for first in [
        early.as_slice(),
        b"PROXY TCP4 203.0.113.1 127.0.0.1 1\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\nGET / HTTP/1.1\r\n\r\n",
        &late,
    ] {
        let mut stream = announced(first).connect(&relay);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut answer = Vec::new();
        // With bytes unread, the connection is reset.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{}", first.escape_ascii());
    }
    eventually("the log names the proxy", || {
        let log = relay.log();
        let line = log
            .lines()
            .find(|line| line.contains("does not begin as `client_address` says"))?;
        line.contains("127.0.0.1").then_some(())
    });
}

/// A header that never comes does not hold its place for long.
#[test]
pub fn a_header_that_never_comes() {
    let server = Server::start();
    let relay = limited(&server, ANNOUNCED, "head_timeout = \"1s\"");
    let mut stream = announced(b"PROXY TCP4 203.0.113.1").connect(&relay);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the connection is closed in order");
    assert_eq!(answer, b"");
    assert_eq!(reached(&relay, "head_timeout"), 1.0);
}

/// Nobody waits for one when the process is to end.
#[test]
pub fn a_header_that_never_comes_holds_up_no_end() {
    let server = Server::start();
    let options = format!("{ANNOUNCED}\ndrain = \"20s\"");
    let mut relay = limited(&server, &options, "head_timeout = \"60s\"");
    let _half = announced(b"PROXY TCP4 203.0.113.1").connect(&relay);
    // Accepted in order, so that the other one is served by now.
    let visitor = announced(b"PROXY UNKNOWN\r\n");
    assert_eq!(visitor.get(&relay).head.status, 200);
    relay.signal(Signal::TERM);
    let (status, took) = relay.wait();
    assert!(
        status.success() && took < Duration::from_secs(10),
        "{status} after {took:?}"
    );
}

/// What is refused is logged with the client's address, whichever way it asked.
#[test]
pub fn refusals_name_the_client() {
    let server = Server::start();
    let relay: Relay = limited(&server, BEHIND, "");
    let named = |what: &str, address: &str| {
        eventually("the refusal is logged with the address", || {
            let log = relay.log();
            let mut lines = log.lines().filter(|line| line.contains(what));
            lines.any(|line| line.contains(address)).then_some(())
        });
    };
    let headers = [("X-Forwarded-For", "203.0.113.1"), ("Origin", "https://evil.example")];
    let refused = request(relay.address(), "GET", "/channels/plain", &headers[..1]);
    assert_eq!(refused.status(), 404);
    named("channels refused", "203.0.113.1");
    let refused = request(relay.address(), "GET", "/channels/v:1", &headers);
    assert_eq!(refused.status(), 403);
    named("origin refused", "203.0.113.1");
    let mut ws = from("203.0.113.2").ws(&relay);
    ws.ready();
    ws.send(&json!({"type": "subscribe", "channels": ["later"]}));
    ws.control("error");
    named("channels refused", "203.0.113.2");
    let log = relay.log();
    assert!(
        !log.contains("plain") && !log.contains("later"),
        "no channel is named at info: {log}"
    );
}

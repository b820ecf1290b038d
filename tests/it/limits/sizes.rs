//! Heads, messages, lists of channels: what just fits is taken, one more is not.

use std::io::{ErrorKind, Read, Write};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Visitor, limited, reached};
use crate::harness::http::{Exchange, connect};
use crate::harness::tokens::{ACCESS, token};
use crate::harness::{Client, End, PATIENCE, Relay, Server, Sse, Stream, Way, Ws, eventually, frames, over};
use crate::redis;

/// What is answered to a request whose head has this many bytes.
fn answered(relay: &Relay, size: usize) -> Option<u16> {
    if Way::current() == Way::Http2 {
        // As RFC 9113 §6.5.2 counts: 32 bytes more for each field, with those that stand for the line of the request.
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "relay.test"),
            (":path", "/channels/v:1"),
            ("cookie", ""),
        ];
        let others: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let cookie = "x".repeat(size - others);
        let headers = [("cookie", cookie.as_str())];
        let answer = relay.connect_http2(None).try_send("GET", "/channels/v:1", &headers);
        return answer.map(|(head, _)| head.status);
    }
    let begin = "GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\nCookie: ";
    let head = format!("{begin}{}\r\n\r\n", "x".repeat(size - begin.len() - 4));
    let mut stream = relay.connect(None);
    stream.write_all(head.as_bytes()).expect("the relay takes a request");
    Exchange::receive(stream).map(|answer| answer.head.status)
}

#[test]
pub fn a_head() {
    let server = Server::start();
    let relay = limited(&server, "", "head_size = \"8KiB\"");
    let visitor = Visitor::default();
    let mut stream = visitor.live(visitor.sse(&relay));
    assert_eq!(answered(&relay, 8 << 10), Some(200));
    assert_eq!(reached(&relay, "head_size"), 0.0);
    assert_eq!(answered(&relay, (8 << 10) + 1), Some(431));
    // Over HTTP/2 it is the library that answers, which does not say so, and that closes the connection far beyond.
    let is_http2 = Way::current() == Way::Http2;
    assert_eq!(answered(&relay, 64 << 10), (!is_http2).then_some(431));
    if !is_http2 {
        eventually("it is counted", || (reached(&relay, "head_size") == 2.0).then_some(()));
    }
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

/// However long a head may be, a URL cannot be longer than what the parser takes.
#[test]
pub fn a_url() {
    let server = Server::start();
    let relay = limited(&server, "", "head_size = \"128KiB\"");
    let status = |size: usize| relay.get(&format!("/channels/v:1?{}", "x".repeat(size))).status();
    assert_eq!(status(60 << 10), 200);
    assert_eq!(status(66 << 10), 414);
}

/// What comes before the connection is closed; whether that was in order is no matter here.
#[track_caller]
fn rest(mut stream: Stream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it stays open"),
        _ => bytes,
    }
}

/// A connection on which a head has begun.
#[track_caller]
fn begun(relay: &Relay) -> Stream {
    let (mut stream, bytes) = match Way::current() {
        Way::Http2 => (frames::connect(relay), frames::begun()),
        Way::Plain | Way::Tls => (relay.connect(None), b"GET /channels/v:1 HTT".to_vec()),
    };
    stream.write_all(&bytes).expect("the relay takes a connection");
    stream
}

/// Whoever begins a head and does not end it gives its place back.
#[test]
pub fn the_time_for_a_head() {
    let server = Server::start();
    let relay = limited(&server, "", "head_timeout = \"1s\"\nconnections = 2");
    let visitor = Visitor::default();
    let mut stream = visitor.live(visitor.sse(&relay));
    let came = rest(begun(&relay));
    if Way::current() != Way::Http2 {
        assert_eq!(came, b"");
    }
    eventually("it is counted", || {
        (reached(&relay, "head_timeout") == 1.0).then_some(())
    });
    eventually("its place is free", || {
        (visitor.get(&relay).head.status == 200).then_some(())
    });
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

/// What comes before a head has no more time than one, and none of its own.
#[test]
fn the_time_for_a_handshake() {
    over(Way::Tls);
    let server = Server::start();
    let relay = limited(&server, "", "head_timeout = \"1s\"\nconnections = 2");
    let visitor = Visitor::default();
    let mut stream = visitor.live(visitor.sse(&relay));
    // Nothing, and the beginning of a record with a handshake.
    for (number, first) in [&b""[..], &[22, 3, 1, 0, 200, 1, 0, 0]].into_iter().enumerate() {
        let mut slow = connect(relay.address(), None);
        slow.write_all(first).expect("the relay takes a connection");
        assert_eq!(rest(slow.into()), b"");
        let reached = || reached(&relay, "head_timeout") == number as f64 + 1.0;
        eventually("it is counted", || reached().then_some(()));
        eventually("its place is free", || {
            (visitor.get(&relay).head.status == 200).then_some(())
        });
    }
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

#[test]
pub fn a_message() {
    let server = Server::start();
    let relay = limited(&server, "", "message_size = \"1KiB\"");
    let ping = |size: usize| {
        let text = r#"{"type":"ping","ref":1,"more":""}"#;
        text.replace("\"\"", &format!("\"{}\"", "x".repeat(size - text.len())))
    };
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    ws.socket
        .send(Frame::text(ping(1024)))
        .expect("the relay takes a message");
    ws.control("pong");
    assert_eq!(reached(&relay, "message_size"), 0.0);
    ws.socket
        .send(Frame::text(ping(1025)))
        .expect("the relay takes a message");
    let end = ws.control("end");
    assert_eq!(
        (end["reason"].as_str(), end["reconnect"].as_bool()),
        (Some("too-big"), Some(false))
    );
    assert_eq!(ws.closed(), End::Proper(Some(1009)));
    assert_eq!(reached(&relay, "message_size"), 1.0);
}

#[test]
pub fn channels() {
    let server = Server::start();
    let relay = limited(&server, "", "channels_per_connection = 3");
    let three = ["v:1", "v:2", "v:3"];
    let mut sse = Sse::open(&relay, &three);
    sse.ready();
    for target in [
        "/events?channel=v:1&channel=v:2&channel=v:3&channel=v:4",
        "/channels?channel=v:1&channel=v:2&channel=v:3&channel=v:4",
    ] {
        let refused = relay.get(target);
        assert_eq!(refused.status(), 400);
        assert!(refused.text().contains("more than 3 channels"), "{}", refused.text());
    }
    let mut ws = Ws::open(&relay, &three);
    ws.ready();
    ws.send(&json!({"type": "subscribe", "channels": ["v:4"], "ref": 7}));
    let error = ws.control("error");
    assert_eq!(
        (error["reason"].as_str(), error["ref"].as_u64()),
        (Some("too-many"), Some(7))
    );
    assert_eq!(reached(&relay, "channels_per_connection"), 3.0);
    // The connection goes on, and has room for another channel once it has left one.
    ws.send(&json!({"type": "unsubscribe", "channels": ["v:1"]}));
    ws.send(&json!({"type": "subscribe", "channels": ["v:4"]}));
    redis!(server, "SET", "v:4", "four");
    ws.sees("v:4", "v:4", "four");
    redis!(server, "SET", "v:1", "one");
    sse.sees("v:1", "v:1", "one");
}

/// What a token lists is asked for when nothing is named, and counts as much.
#[test]
pub fn channels_of_a_token() {
    let server = Server::start();
    let relay = Relay::start(
        &server,
        &format!(
            "[limits]\nchannels_per_connection = 3\n[access]\n{ACCESS}\n[[mapping]]\nkey = \"v:{{id}}\"\naccess = \"listed\"\n"
        ),
    );
    let status = |channels: &[&str]| {
        let token = token(600, json!({"channels": channels}));
        relay.get(&format!("/channels?token={token}")).status()
    };
    assert_eq!(status(&["v:1", "v:2", "v:3"]), 200);
    assert_eq!(status(&["v:1", "v:2", "v:3", "v:4"]), 400);
    assert_eq!(reached(&relay, "channels_per_connection"), 1.0);
}

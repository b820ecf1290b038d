//! Heads, messages, lists of channels: what just fits is taken, one more is not.

use std::io::{Read, Write};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Way, limited, reached};
use crate::harness::http::{Exchange, connect, get};
use crate::harness::tokens::{ACCESS, token};
use crate::harness::{Client, End, PATIENCE, Relay, Server, Sse, Ws, eventually};
use crate::redis;

/// A request's head of exactly this many bytes.
fn head(size: usize) -> String {
    let begin = "GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\nCookie: ";
    format!("{begin}{}\r\n\r\n", "x".repeat(size - begin.len() - 4))
}

#[test]
fn a_head() {
    let server = Server::start();
    let relay = limited(&server, "", "head_size = \"8KiB\"");
    let way = Way::default();
    let mut stream = way.live(way.sse(&relay));
    let status = |size: usize| {
        let mut stream = connect(relay.address(), None);
        stream
            .write_all(head(size).as_bytes())
            .expect("the relay takes a request");
        Exchange::receive(stream).map(|answer| answer.head.status)
    };
    assert_eq!(status(8 << 10), Some(200));
    assert_eq!(reached(&relay, "head_size"), 0.0);
    assert_eq!(status((8 << 10) + 1), Some(431));
    assert_eq!(status(64 << 10), Some(431));
    eventually("it is counted", || (reached(&relay, "head_size") == 2.0).then_some(()));
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

/// However long a head may be, a URL cannot be longer than what the parser takes.
#[test]
fn a_url() {
    let server = Server::start();
    let relay = limited(&server, "", "head_size = \"128KiB\"");
    let status = |size: usize| get(relay.address(), &format!("/channels/v:1?{}", "x".repeat(size))).status();
    assert_eq!(status(60 << 10), 200);
    assert_eq!(status(66 << 10), 414);
}

/// Whoever begins a head and does not end it gives its place back.
#[test]
fn the_time_for_a_head() {
    let server = Server::start();
    let relay = limited(&server, "", "head_timeout = \"1s\"\nconnections = 2");
    let way = Way::default();
    let mut stream = way.live(way.sse(&relay));
    let mut slow = connect(relay.address(), None);
    slow.write_all(b"GET /channels/v:1 HTT")
        .expect("the relay takes a connection");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut answer = String::new();
    slow.read_to_string(&mut answer)
        .expect("the connection is closed in order");
    assert_eq!(answer, "");
    eventually("it is counted", || {
        (reached(&relay, "head_timeout") == 1.0).then_some(())
    });
    eventually("its place is free", || {
        (way.get(&relay).head.status == 200).then_some(())
    });
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

#[test]
fn a_message() {
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
fn channels() {
    let server = Server::start();
    let relay = limited(&server, "", "channels_per_connection = 3");
    let three = ["v:1", "v:2", "v:3"];
    let mut sse = Sse::open(&relay, &three);
    sse.ready();
    for target in [
        "/events?channel=v:1&channel=v:2&channel=v:3&channel=v:4",
        "/channels?channel=v:1&channel=v:2&channel=v:3&channel=v:4",
    ] {
        let refused = get(relay.address(), target);
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
fn channels_of_a_token() {
    let server = Server::start();
    let relay = Relay::start(
        &server,
        &format!(
            "[limits]\nchannels_per_connection = 3\n[access]\n{ACCESS}\n[[mapping]]\nkey = \"v:{{id}}\"\naccess = \"listed\"\n"
        ),
    );
    let status = |channels: &[&str]| {
        let token = token(600, json!({"channels": channels}));
        get(relay.address(), &format!("/channels?token={token}")).status()
    };
    assert_eq!(status(&["v:1", "v:2", "v:3"]), 200);
    assert_eq!(status(&["v:1", "v:2", "v:3", "v:4"]), 400);
    assert_eq!(reached(&relay, "channels_per_connection"), 1.0);
}

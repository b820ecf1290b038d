//! How often clients may come, and speak.

use std::io::{ErrorKind, Read};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{BEHIND, Visitor, from, limited, reached};
use crate::harness::http::Exchange;
use crate::harness::{Client, End, PATIENCE, Server, Ws, eventually};
use crate::redis;

/// Whoever connects too often has to wait, and nobody else.
#[test]
pub fn connects() {
    let server = Server::start();
    let relay = limited(&server, BEHIND, "connects_per_second = 1\nconnects_burst = 2");
    let (ada, bob) = (from("203.0.113.1"), from("203.0.113.2"));
    let mut stream = ada.live(ada.sse(&relay));
    // As many as there may be in the time that this takes.
    while ada.get(&relay).head.status == 200 {}
    // The second for the next one may be over in between.
    eventually("a stream is refused", || {
        let mut sse = ada.sse(&relay);
        sse.until("it begins or ends", |memory| {
            memory.count("ready") + memory.count("end") > 0
        });
        let (_, end) = sse.memory().controls.iter().find(|(kind, _)| kind == "end")?;
        assert_eq!(end["reason"], "too-fast");
        Some(())
    });
    eventually("a WebSocket is refused", || {
        let mut ws = ada.ws(&relay);
        ws.until("it begins or ends", |memory| {
            memory.count("ready") + memory.count("end") > 0
        });
        let (_, end) = ws.memory().controls.iter().find(|(kind, _)| kind == "end")?;
        assert_eq!(end["reason"], "too-fast");
        assert_eq!(ws.closed(), End::Proper(Some(1013)));
        Some(())
    });
    eventually("a request is refused", || {
        (ada.get(&relay).head.status == 429).then_some(())
    });
    assert!(reached(&relay, "connects_per_second") >= 4.0);

    assert_eq!(bob.get(&relay).head.status, 200);
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
    eventually("a second has passed", || {
        (ada.get(&relay).head.status == 200).then_some(())
    });
}

/// Requests on one connection count as much as connections do: otherwise keep-alive would be the way around.
#[test]
pub fn requests_of_one_connection() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\"]\nclient_address = \"proxy-protocol\"";
    let relay = limited(&server, options, "connects_per_second = 1\nconnects_burst = 3");
    let visitor = Visitor {
        first: b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n",
        ..Visitor::default()
    };
    let mut answer = visitor.get(&relay);
    for number in 1..=3 {
        assert_eq!(answer.head.status, 200, "of request {number}");
        answer = answer.next("/channels/v:1", &[]).expect("an answer");
    }
    // As many as there may be in the time that this takes.
    while answer.head.status == 200 {
        answer = answer.next("/channels/v:1", &[]).expect("an answer");
    }
    assert_eq!(answer.head.status, 429);
    assert!(reached(&relay, "connects_per_second") >= 1.0);
}

/// Far beyond the rate a connection is closed at once: not a byte is spent on it.
#[test]
pub fn a_flood() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\"]\nclient_address = \"proxy-protocol\"";
    let relay = limited(&server, options, "connects_per_second = 1\nconnects_burst = 5");
    let visitor = Visitor {
        first: b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n",
        ..Visitor::default()
    };
    let other = Visitor {
        first: b"PROXY TCP4 203.0.113.2 127.0.0.1 1 2\r\n",
        ..Visitor::default()
    };
    let mut stream = other.live(other.sse(&relay));
    let (mut served, mut told, mut closed) = (0, 0, 0);
    for _ in 0..100 {
        let mut stream = relay.speak(visitor.connect(&relay));
        // It may be closed before that.
        let _ = std::io::Write::write_all(&mut stream, b"GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n");
        match Exchange::receive(stream).map(|answer| answer.head.status) {
            Some(200) => served += 1,
            Some(429) => told += 1,
            Some(other) => panic!("{other}"),
            None => closed += 1,
        }
    }
    assert!(served >= 5 && told >= 5 && closed >= 50, "{served} {told} {closed}");
    redis!(server, "SET", "v:1", "one");
    stream.sees("v:1", "v:1", "one");
}

/// A WebSocket client that does not stop talking is ended; it may come back.
#[test]
pub fn messages() {
    let server = Server::start();
    let relay = limited(&server, "", "messages_per_second = 1\nmessages_burst = 5");
    let mut quiet = Ws::open(&relay, &["v:1"]);
    quiet.ready();
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    for number in 0..4 {
        ws.send(&json!({"type": "ping", "ref": number}));
    }
    ws.until("all are answered", |memory| memory.count("pong") == 4);
    assert_eq!(reached(&relay, "messages_per_second"), 0.0);
    for number in 0..20 {
        // It may be closed before that.
        let text = json!({"type": "ping", "ref": number}).to_string();
        let _ = ws.socket.send(Frame::text(text));
    }
    let end = ws.control("end");
    assert_eq!(
        (end["reason"].as_str(), end["reconnect"].as_bool()),
        (Some("too-fast"), Some(true))
    );
    assert_eq!(ws.closed(), End::Proper(Some(1013)));
    assert_eq!(reached(&relay, "messages_per_second"), 1.0);
    redis!(server, "SET", "v:1", "one");
    quiet.sees("v:1", "v:1", "one");
}

/// Pings of the protocol itself are messages too.
#[test]
pub fn pings() {
    let server = Server::start();
    let relay = limited(&server, "", "messages_per_second = 1\nmessages_burst = 5");
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    ws.socket
        .get_ref()
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    for _ in 0..20 {
        let _ = ws.socket.send(Frame::Ping("beat".into()));
    }
    let mut rest = Vec::new();
    match ws.socket.get_mut().read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    let pongs = rest.windows(6).filter(|part| part == b"\x8a\x04beat").count();
    assert!(pongs < 10, "{pongs} answers");
    assert_eq!(reached(&relay, "messages_per_second"), 1.0);
}

//! How often clients may come, and speak.

use std::io::{ErrorKind, Read};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{BEHIND, Way, from, limited, reached};
use crate::harness::http::Exchange;
use crate::harness::{Client, End, PATIENCE, Server, Ws, eventually};
use crate::redis;

/// Whoever connects too often has to wait, and nobody else.
#[test]
fn connects() {
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
fn requests_of_one_connection() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\"]\nclient_address = \"proxy-protocol\"";
    let relay = limited(&server, options, "connects_per_second = 1\nconnects_burst = 3");
    let way = Way {
        first: b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n",
        ..Way::default()
    };
    let requests = "GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n".repeat(20);
    let mut stream = way.connect(&relay);
    std::io::Write::write_all(&mut stream, requests.as_bytes()).expect("the relay takes requests");
    let mut exchange = Exchange::receive(stream);
    let mut answers = Vec::new();
    while let Some(answer) = exchange {
        answers.push(answer.head.status);
        exchange = (answers.len() < 20).then(|| answer.following()).flatten();
    }
    assert_eq!(answers.len(), 20);
    assert_eq!(answers[..3], [200, 200, 200]);
    assert!(
        answers.iter().filter(|status| **status == 429).count() >= 10,
        "{answers:?}"
    );
}

/// Far beyond the rate a connection is closed at once: not a byte is spent on it.
#[test]
fn a_flood() {
    let server = Server::start();
    let options = "proxies = [\"127.0.0.1\"]\nclient_address = \"proxy-protocol\"";
    let relay = limited(&server, options, "connects_per_second = 1\nconnects_burst = 5");
    let way = Way {
        first: b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n",
        ..Way::default()
    };
    let other = Way {
        first: b"PROXY TCP4 203.0.113.2 127.0.0.1 1 2\r\n",
        ..Way::default()
    };
    let mut stream = other.live(other.sse(&relay));
    let (mut served, mut told, mut closed) = (0, 0, 0);
    for _ in 0..100 {
        let mut stream = way.connect(&relay);
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
fn messages() {
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
fn pings() {
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

//! HTTP/2 without TLS, from a proxy that knows that the relay understands it.

use std::time::Duration;

use crate::harness::{Body, Http2, Relay, Server, mapping};
use crate::redis;

const PATIENCE: Duration = Duration::from_secs(20);

/// Reads until the body has shown this.
#[track_caller]
fn until(connection: &mut Http2, body: &mut Body, wanted: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(wanted) {
        let piece = connection.read(body, PATIENCE).expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
    heard
}

/// A thousand streams of one connection are all served, each with its own channel.
#[test]
fn one_connection_carries_a_thousand_streams() {
    const STREAMS: usize = 1_000;
    let server = Server::start();
    let relay = Relay::with(&server, "", &mapping("key = \"v:{id}\""));
    let mut connection = relay.connect_knowing(None);
    let mut streams: Vec<Body> = (0..STREAMS)
        .map(|at| {
            let (head, body) = connection.send("GET", &format!("/events?channel=v:{}", at % 10), &[]);
            assert_eq!(head.status, 200);
            body
        })
        .collect();
    for body in &mut streams {
        until(&mut connection, body, "keyrelay.ready");
    }
    for channel in 0..10 {
        redis!(server, "SET", format!("v:{channel}"), format!("value {channel}."));
    }
    for (at, body) in streams.iter_mut().enumerate() {
        until(&mut connection, body, &format!("value {}.", at % 10));
    }
    let (head, _) = connection.send("GET", "/nothing", &[]);
    assert_eq!(head.status, 404, "other requests go on beside");
}

/// A stream whose window is full delays no other, and gets the newest value when it is read again.
#[test]
fn a_stalled_stream_stalls_no_other() {
    let server = Server::start();
    let relay = Relay::with(&server, "", &mapping("key = \"v:{id}\""));
    let mut connection = relay.connect_knowing(Some(16 << 10));
    let mut open = |channel: &str| {
        let (head, mut body) = connection.send("GET", &format!("/events?channel=v:{channel}"), &[]);
        assert_eq!(head.status, 200);
        until(&mut connection, &mut body, "keyrelay.ready");
        body
    };
    let (mut stalled, mut quick) = (open("large"), open("small"));
    for round in 0..200 {
        redis!(server, "SET", "v:large", format!("{round} {}", "x".repeat(50_000)));
        redis!(server, "SET", "v:small", format!("round {round}."));
        until(&mut connection, &mut quick, &format!("round {round}."));
    }
    redis!(server, "SET", "v:large", "the end");
    let heard = until(&mut connection, &mut stalled, "the end");
    assert!(
        heard.matches("\"event\"").count() < 100,
        "what was superseded is not sent"
    );
}

/// Whoever speaks HTTP/1.1 on the next connection is understood as before, also where its request comes byte by byte.
#[test]
fn http_1_is_spoken_beside_it() {
    let server = Server::start();
    let relay = Relay::with(&server, "", &mapping("key = \"v:{id}\""));
    let mut connection = relay.connect_knowing(None);
    assert_eq!(connection.send("GET", "/channels/v:1", &[]).0.status, 200);
    assert_eq!(relay.get("/channels/v:1").status(), 200);
    let mut stream = relay.connect(None);
    for byte in b"PRESENT / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n" {
        std::io::Write::write_all(&mut stream, &[*byte]).expect("the relay reads");
    }
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

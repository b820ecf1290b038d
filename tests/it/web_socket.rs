//! What only WebSocket has: bare payloads, messages from clients, closing.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use crate::harness::http::{Exchange, connect};
use crate::harness::{Client, End, Event, PATIENCE, PROTOCOL, Relay, Server, Ws, eventually, mapping};
use crate::redis;

fn relay(server: &Server) -> Relay {
    let html = "key = \"html:{id}\"\nformat = \"raw\"\nabsent = \"<gone>\"";
    Relay::start(server, &[mapping("key = \"v:{id}\""), mapping(html)].concat())
}

#[test]
fn a_handshake() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "{\"n\": 1}");
    let relay = relay(&server);
    let mut ws = Ws::request(&relay, "/ws?channel=v:1", None);
    let chosen = ws
        .response
        .headers()
        .get("sec-websocket-protocol")
        .map(|value| value.as_bytes().to_vec());
    assert_eq!(chosen.as_deref(), Some(PROTOCOL.as_bytes()));
    ws.sees("v:1", "v:1", "{\"n\": 1}");
    ws.ready();
    // No subprotocol offered, none chosen.
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let plain = Exchange::send(connect(relay.address(), None), "GET", "/ws", &headers);
    assert_eq!(plain.head.status, 101);
    assert_eq!(plain.head.header("sec-websocket-protocol"), None);
    assert_eq!(
        plain.head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "RFC 6455 §1.3"
    );
}

#[test]
fn a_ping_is_answered() {
    let server = Server::start();
    let relay = relay(&server);
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    ws.send(&json!({"type": "ping", "ref": 7}));
    assert_eq!(ws.control("pong")["ref"], 7);
    ws.socket
        .send(Frame::Ping("beat".into()))
        .expect("the relay takes a ping");
    ws.socket
        .get_ref()
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    assert_eq!(ws.socket.read().expect("a pong"), Frame::Pong("beat".into()));
}

/// What cannot be understood is answered, and the connection goes on.
#[test]
fn messages_that_are_wrong() {
    let server = Server::start();
    let relay = relay(&server);
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    for wrong in [
        "{\"type\": \"dance\"}",
        "{",
        "[]",
        "{\"type\": \"subscribe\"}",
        "{\"type\":\"subscribe\",\"channels\":7}",
    ] {
        ws.socket.send(Frame::text(wrong)).expect("the relay takes a message");
        ws.control("error");
    }
    redis!(server, "SET", "v:1", "one");
    ws.sees("v:1", "v:1", "one");
}

/// What `<turbo-stream-source src="ws://…">` reads: payloads and nothing else.
#[test]
fn bare_payloads() {
    let server = Server::start();
    redis!(server, "SET", "html:1", "<p>one</p>");
    let relay = relay(&server);
    let mut ws = Ws::request(&relay, "/ws?channel=html:1&raw=1", None);
    let next = |ws: &mut Ws| {
        ws.socket
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        loop {
            match ws.socket.read().expect("the stream goes on") {
                Frame::Text(text) => return text.to_string(),
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("not a payload: {other:?}"),
            }
        }
    };
    assert_eq!(next(&mut ws), "<p>one</p>");
    redis!(server, "SET", "html:1", "<p>two</p>");
    assert_eq!(next(&mut ws), "<p>two</p>");
    redis!(server, "DEL", "html:1");
    assert_eq!(next(&mut ws), "<gone>");
}

/// A page cannot see the status of a handshake, and who gets bare payloads hears of nothing else: the close code tells.
#[test]
fn bare_payloads_are_refused_whole() {
    let server = Server::start();
    redis!(server, "SET", "html:1", "<p>one</p>");
    let relay = relay(&server);
    let mut ws = Ws::request(&relay, "/ws?channel=html:1&channel=secret&raw=1", None);
    assert_eq!(ws.closed(), End::Proper(Some(4403)));
    assert!(ws.memory().messages.is_empty());
}

#[test]
fn a_message_that_is_too_big() {
    let server = Server::start();
    let relay = relay(&server);
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    // The relay may close before it has taken all of it.
    let _ = ws.socket.send(Frame::text("x".repeat(4 << 20)));
    match ws.closed() {
        End::Proper(Some(1009)) | End::Cut => {}
        end => panic!("ended with {end:?}"),
    }
}

#[test]
fn a_close_is_answered() {
    let server = Server::start();
    let relay = relay(&server);
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    let goodbye = CloseFrame {
        code: CloseCode::Normal,
        reason: "bye".into(),
    };
    ws.socket.close(Some(goodbye)).expect("the relay takes a close");
    let answered = eventually("the answer to a close", || match ws.socket.read() {
        Ok(Frame::Close(frame)) => Some(frame.map(|frame| frame.code)),
        Ok(_) => None,
        Err(Error::ConnectionClosed) => Some(None),
        Err(err) => panic!("the connection broke: {err}"),
    });
    assert!(matches!(answered, None | Some(CloseCode::Normal)), "{answered:?}");
}

/// A subscription that is there already is answered again: a client that is not sure may ask twice.
#[test]
fn subscribing_twice() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = relay(&server);
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    ws.send(&json!({"type": "subscribe", "channels": ["v:1"], "ref": 2}));
    assert_eq!(ws.control("ready")["ref"], 2);
    assert_eq!(ws.memory().values_of("v:1").len(), 1, "what was had is not sent again");
    assert_ne!(ws.poll(Duration::ZERO), Some(Event::Closed(End::Cut)));
}

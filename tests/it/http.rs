//! The URLs: answers, refusals, and who may ask from where.

use std::io::Write;
use std::time::Duration;

use crate::harness::http::{Exchange, connect, get, request};
use crate::harness::{Client, Event, Relay, Server, Sse, Ws, mapping};
use crate::redis;

/// One public mapping of a channel per key.
fn relay(server: &Server, options: &str) -> Relay {
    Relay::with(server, options, &mapping("key = \"v:{id}\""))
}

#[test]
fn the_state_of_channels() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:2", "two");
    let relay = relay(&server, "");
    // A cursor holds while somebody keeps the channels: a plain GET does not.
    let mut witness = Sse::open(&relay, &["v:1", "v:2", "v:3"]);
    witness.ready();
    let response = get(relay.address(), "/channels?channel=v:1&channel=v:3&channel[]=v:2");
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(
        response
            .header("cache-control")
            .is_some_and(|value| value.contains("no-store"))
    );
    let body = response.json();
    let text = response.text();
    assert!(text.contains("\"one\"") && text.contains("\"two\""), "{text}");
    // One cursor for the same list: a page rendered on the server goes on where its state ends.
    let cursor = body["cursor"].as_str().unwrap_or_else(|| panic!("no cursor in {body}"));
    redis!(server, "SET", "v:2", "newer");
    let target = format!("/events?channel=v:1&channel=v:2&channel=v:3&cursor={cursor}");
    let mut sse = Sse::request(&relay, &target, &[], None);
    sse.sees("v:2", "v:2", "newer");
    assert_eq!(sse.memory().messages.len(), 1, "only what changed since");
}

#[test]
fn the_state_of_one_channel() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:a/b c", "two");
    let relay = relay(&server, "");
    let response = get(relay.address(), "/channels/v:1");
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.text().contains("\"one\""), "{}", response.text());
    let response = get(relay.address(), "/channels/v%3Aa%2Fb%20c");
    assert!(response.text().contains("\"two\""), "{}", response.text());
    let head = request(relay.address(), "HEAD", "/channels/v:1", &[]);
    assert_eq!(head.status(), 200);
}

#[test]
fn the_head_of_a_stream() {
    let server = Server::start();
    let relay = relay(&server, "");
    let sse = Sse::open(&relay, &["v:1"]);
    let head = &sse.exchange.head;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let cache = head.header("cache-control").unwrap_or_default();
    assert!(cache.contains("no-store") && cache.contains("no-transform"), "{cache}");
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(head.header("content-length"), None);
}

#[test]
fn a_stream_tells_when_to_retry_and_beats_when_idle() {
    let server = Server::start();
    let relay = relay(&server, "heartbeat = \"1s\"");
    let mut sse = Sse::open(&relay, &["v:1"]);
    sse.ready();
    assert!(sse.memory().retry.is_some());
    crate::harness::eventually("a heartbeat", || {
        (sse.poll(Duration::from_millis(100)) == Some(Event::Heartbeat)).then_some(())
    });
    let mut ws = Ws::open(&relay, &["v:1"]);
    ws.ready();
    crate::harness::eventually("a ping", || {
        (ws.poll(Duration::from_millis(100)) == Some(Event::Heartbeat)).then_some(())
    });
}

/// All or nothing: a refusal names every channel that is refused, and why.
#[test]
fn channels_that_no_mapping_makes() {
    let server = Server::start();
    let relay = relay(&server, "");
    for path in ["/events", "/channels"] {
        let response = get(
            relay.address(),
            &format!("{path}?channel=v:1&channel=secret&channel=other:9"),
        );
        assert!([403, 404].contains(&response.status()), "{}", response.text());
        let text = response.text();
        assert!(text.contains("secret") && text.contains("other:9"), "{text}");
        assert!(!text.contains("\"v:1\""), "what is allowed is not refused: {text}");
    }
    let response = get(relay.address(), "/channels/secret");
    assert!([403, 404].contains(&response.status()), "{}", response.text());
    let mut ws = Ws::open(&relay, &["v:1", "secret", "other:9"]);
    ws.until("an error for each refused channel", |memory| memory.count("error") >= 2);
    let refused: Vec<String> = ws.memory().controls.iter().map(|(_, data)| data.to_string()).collect();
    let refused = refused.concat();
    assert!(refused.contains("secret") && refused.contains("other:9"), "{refused}");
}

#[test]
fn requests_that_are_wrong() {
    let server = Server::start();
    let relay = relay(&server, "");
    for (target, status) in [
        ("/", 404),
        ("/nothing", 404),
        ("/events/", 404),
        ("/events", 400),
        ("/channels", 400),
        ("/events?channel=", 400),
        ("/events?channel=%FF", 400),
    ] {
        let response = get(relay.address(), target);
        assert_eq!(response.status(), status, "{target}: {}", response.text());
        assert!(!response.body.is_empty(), "{target}: an answer says what is wrong");
    }
    for target in ["/", "/readyz", "/metrics"] {
        let told = get(relay.address(), target).text();
        assert!(
            told.contains("[admin]"),
            "what is elsewhere is said to be there: {told}"
        );
    }
    for method in ["HEAD", "POST", "PUT", "DELETE"] {
        let response = request(
            relay.address(),
            method,
            "/events?channel=v:1",
            &[("Content-Length", "0")],
        );
        assert_eq!(response.status(), 405, "{method}");
        assert!(
            response.header("allow").is_some_and(|allow| allow.contains("GET")),
            "{method}"
        );
    }
    let plain = get(relay.address(), "/ws");
    assert!([400, 426].contains(&plain.status()), "{}", plain.text());
}

#[test]
fn the_prefix_of_all_paths() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = relay(&server, "path = \"/keyrelay\"");
    assert_eq!(get(relay.address(), "/channels/v:1").status(), 404);
    assert_eq!(get(relay.address(), "/keyrelay/channels/v:1").status(), 200);
    let mut sse = Sse::request(&relay, "/keyrelay/events?channel=v:1", &[], None);
    sse.sees("v:1", "v:1", "one");
    let mut ws = Ws::request(&relay, "/keyrelay/ws?channel=v:1", None);
    ws.sees("v:1", "v:1", "one");
}

#[test]
fn pages_of_other_origins() {
    let server = Server::start();
    let relay = relay(&server, "origins = [\"https://app.example.com\"]");
    let friend = ("Origin", "https://app.example.com");
    let stranger = ("Origin", "https://evil.example.com");
    for target in ["/channels/v:1", "/channels?channel=v:1"] {
        let response = request(relay.address(), "GET", target, &[friend]);
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.header("access-control-allow-origin"),
            Some("https://app.example.com")
        );
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
        assert!(
            response
                .header("vary")
                .is_some_and(|vary| vary.to_ascii_lowercase().contains("origin"))
        );
    }
    let stream = Exchange::send(connect(relay.address(), None), "GET", "/events?channel=v:1", &[friend]);
    assert_eq!(
        stream.head.header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    let refused = request(relay.address(), "GET", "/events?channel=v:1", &[stranger]);
    assert_eq!(refused.status(), 403, "{}", refused.text());
    assert_eq!(refused.header("access-control-allow-origin"), None);

    let ask = [
        friend,
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "last-event-id"),
    ];
    let preflight = request(relay.address(), "OPTIONS", "/events?channel=v:1", &ask);
    assert_eq!(preflight.status(), 204);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    let allowed = preflight
        .header("access-control-allow-headers")
        .unwrap_or_default()
        .to_ascii_lowercase();
    for header in ["authorization", "cache-control", "last-event-id"] {
        assert!(allowed.contains(header), "{allowed}");
    }
    assert!(
        preflight
            .header("access-control-allow-methods")
            .is_some_and(|methods| methods.contains("GET"))
    );
    let handshake = |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        Exchange::send(connect(relay.address(), None), "GET", "/ws?channel=v:1", &headers)
            .head
            .status
    };
    assert_eq!(handshake("https://app.example.com"), 101);
    assert_eq!(handshake("https://evil.example.com"), 403);
    // A page of the relay's own host is no other origin.
    assert_eq!(handshake("http://relay.test"), 101);
}

/// No chunks for HTTP/1.0: the end of the connection is the end of the body.
#[test]
fn a_stream_over_http_1_0() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = relay(&server, "");
    let stream = connect(relay.address(), None);
    let exchange = Exchange::send_as(stream, "HTTP/1.0", "GET", "/events?channel=v:1", &[]);
    assert_eq!(exchange.head.header("transfer-encoding"), None);
    let mut sse = Sse::read(exchange);
    sse.sees("v:1", "v:1", "one");
    sse.ready();
    redis!(server, "SET", "v:1", "two");
    sse.sees("v:1", "v:1", "two");
}

/// A head that is sent byte by byte must not hold a connection for ever.
#[test]
fn a_half_sent_head_is_cut() {
    let server = Server::start();
    let relay = relay(&server, "");
    let mut stream = connect(relay.address(), None);
    stream
        .write_all(b"GET /events?channel=v:1 HTTP/1.1\r\nHost: relay")
        .expect("the relay takes bytes");
    // Patience is longer than the time a head may take; what comes is an answer (408) or the end.
    let answer = Exchange::receive(stream);
    assert!(answer.is_none_or(|exchange| exchange.head.status == 408));
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = relay(&server, "");
    let mut stream = connect(relay.address(), None);
    let head = "GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n";
    let last = "GET /events?channel=v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n";
    // Sent together: what stands behind the first request must not be lost when the last takes the socket over.
    stream
        .write_all(format!("{head}{last}").as_bytes())
        .expect("the relay takes requests");
    let first = Exchange::receive(stream).expect("an answer to the first");
    assert_eq!(first.head.status, 200);
    let second = first.following().expect("an answer to the second");
    let mut sse = Sse::read(second);
    sse.sees("v:1", "v:1", "one");
    redis!(server, "SET", "v:1", "two");
    sse.sees("v:1", "v:1", "two");
}

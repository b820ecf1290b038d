//! Requests that a proxy in front could understand differently: of what may be a body nothing is ever answered as if it
//! were a request.

use super::{Scene, answer, sent, statuses};
use crate::harness::mapping;
use crate::redis;

/// What nobody gets who did not ask for it in a way that leaves no doubt.
const SECRET: &str = "s3cret";

/// A request that hides in another.
const HIDDEN: &str = "GET /channels/v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n";

fn scene() -> Scene {
    let scene = Scene::new("", &mapping("key = \"v:{id}\""));
    redis!(scene.server, "SET", "v:1", SECRET);
    scene
}

/// Each row: what is sent, and the statuses that come back before the connection is closed.
#[track_caller]
fn rows(rows: &[(&str, String, &[u16])]) {
    let mut scene = scene();
    let streams: Vec<_> = rows
        .iter()
        .map(|(_, bytes, _)| sent(&scene.relay, bytes.as_bytes()))
        .collect();
    scene.undisturbed();
    let answers: Vec<String> = streams.into_iter().map(answer).collect();
    let mut wrong = Vec::new();
    for ((what, _, expected), answers) in rows.iter().zip(&answers) {
        if statuses(answers) != *expected || answers.contains(SECRET) {
            wrong.push(format!(
                "{what}: {:?} instead of {expected:?}\n{answers}",
                statuses(answers)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.over();
}

/// A request with these headers, and what follows them.
fn get(headers: &str, rest: &str) -> String {
    format!("GET /channels/by:stander HTTP/1.1\r\nHost: relay.test\r\n{headers}\r\n{rest}")
}

#[test]
pub fn lengths_that_contradict_each_other() {
    let length = HIDDEN.len();
    rows(&[
        (
            "two lengths",
            get(&format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), HIDDEN),
            &[400],
        ),
        (
            "two lengths in one line",
            get(&format!("Content-Length: {length}, 0\r\n"), HIDDEN),
            &[400],
        ),
        (
            "a length, then chunks",
            get(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                &format!("0\r\n\r\n{HIDDEN}"),
            ),
            &[400],
        ),
        (
            "chunks, then a length",
            get(
                &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
                &format!("0\r\n\r\n{HIDDEN}"),
            ),
            &[400],
        ),
        ("a negative length", get("Content-Length: -1\r\n", HIDDEN), &[400]),
        ("a length with a sign", get("Content-Length: +0\r\n", HIDDEN), &[400]),
        ("a length in hex", get("Content-Length: 0x0\r\n", HIDDEN), &[400]),
        (
            "a length beyond all numbers",
            get("Content-Length: 99999999999999999999\r\n", HIDDEN),
            &[400],
        ),
    ]);
}

#[test]
pub fn bodies_where_none_belongs() {
    let length = HIDDEN.len();
    rows(&[
        (
            "a body of a GET",
            get(&format!("Content-Length: {length}\r\n"), HIDDEN),
            &[400],
        ),
        (
            "a part of it",
            get(&format!("Content-Length: {}\r\n", length + 1), HIDDEN),
            &[400],
        ),
        (
            "a body in chunks",
            get(
                "Transfer-Encoding: chunked\r\n",
                &format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
            ),
            &[400],
        ),
        (
            "no chunk, then a request",
            get("Transfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        (
            "chunks of no length",
            get("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{HIDDEN}")),
            &[400],
        ),
        (
            "an encoding after the chunks",
            get("Transfer-Encoding: chunked, gzip\r\n", &format!("0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        (
            "an encoding that is none",
            get("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        (
            "a WebSocket's handshake with a body",
            format!(
                "GET /ws HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
            ),
            &[400],
        ),
        (
            "a request behind a stream's",
            format!("GET /events?channel=by:stander HTTP/1.1\r\nHost: relay.test\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        (
            "a method with a body",
            format!("POST /channels/by:stander HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
            &[405],
        ),
    ]);
}

#[test]
pub fn heads_that_are_none() {
    rows(&[
        (
            "a folded line",
            get("X-One: 1\r\n Transfer-Encoding: chunked\r\n", HIDDEN),
            &[400],
        ),
        (
            "a blank before the colon",
            get("Transfer-Encoding : chunked\r\n", HIDDEN),
            &[400],
        ),
        ("NUL in a value", get("X-One: a\0b\r\n", HIDDEN), &[400]),
        ("NUL in a name", get("X\0One: a\r\n", HIDDEN), &[400]),
        (
            "a bare CR",
            get("X-One: a\rTransfer-Encoding: chunked\r\n", HIDDEN),
            &[400],
        ),
        ("a line without a colon", get("nonsense\r\n", HIDDEN), &[400]),
        ("an empty name", get(": a\r\n", HIDDEN), &[400]),
        (
            "NUL in the target",
            format!("GET /channels/v:1\0 HTTP/1.1\r\nHost: a\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        (
            "a blank in the target",
            format!("GET /channels/v:1 x HTTP/1.1\r\nHost: a\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        ("no version", "GET /channels/v:1\r\n\r\n".to_owned(), &[400]),
        (
            "a version that is none",
            format!("GET / HTTP/9.9\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        ("HTTP/2 by surprise", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[]),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{7}\u{1}\0\0\u{3}\u{3}".to_owned(), &[400]),
        ("no HTTP at all", "hello\r\n\r\n".to_owned(), &[400]),
    ]);
}

/// These leave no doubt: each is one request, and is answered as one.
#[test]
pub fn heads_that_are_odd_but_clear() {
    let close = "Connection: close\r\n\r\n";
    rows(&[
        (
            "the whole URL",
            format!("GET http://other.test/channels/by:stander HTTP/1.1\r\nHost: relay.test\r\n{close}"),
            &[200],
        ),
        (
            "an authority",
            format!("CONNECT v:1 HTTP/1.1\r\nHost: a\r\n{close}"),
            &[404],
        ),
        (
            "an asterisk",
            format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{close}"),
            &[404],
        ),
        (
            "lines that end in LF alone",
            "GET /channels/by:stander HTTP/1.1\nHost: relay.test\nConnection: close\n\n".to_owned(),
            &[200],
        ),
        (
            "an upgrade that nobody knows",
            format!(
                "GET /channels/by:stander HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n{close}"
            ),
            &[200],
        ),
        (
            "a path that climbs",
            format!("GET /channels/../channels/v:1 HTTP/1.1\r\nHost: a\r\n{close}"),
            &[404],
        ),
        (
            "no body, in so many words",
            format!("GET /channels/by:stander HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{close}"),
            &[200],
        ),
    ]);
}

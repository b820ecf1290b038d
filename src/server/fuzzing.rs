//! Heads of requests, whatever is in them.

use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::credentials::Places;
use super::door::Guest;
use super::gate::Gate;
use super::origin::Origins;
use super::proxy_protocol;
use super::query::{MAX_NAME, Query};
use super::request::{Desk, Outcome};
use super::route::Route;
use super::testing::hub;
use crate::access::Verifier;
use crate::limits::{self, Limits};

/// As many channels as one request may name where the config says nothing.
const CHANNELS: usize = 1_000;

const LISTED: &str = "https://app.example.com";

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// Headers that an answer may have, whatever was asked.
const ANSWERED: [&str; 20] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-type",
    "referrer-policy",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
];

/// A line with method and target, then lines with headers: the answer has its own headers and no others, opens no
/// channel that was not asked for, and gives a foreign origin nothing.
pub fn request(data: &[u8]) {
    let Some(parts) = parse(data) else { return };
    if let Some(query) = parts.uri.query() {
        query_holds(None, query);
    }
    if let Some(Route::Channel(name)) = Route::find("", parts.uri.path()) {
        query_holds(Some(name), parts.uri.query().unwrap_or_default());
    }
    let (hub, _appender) = hub(50);
    let limits = Limits::new(limits::Options::default(), Arc::default());
    let desk = Desk {
        path: String::new(),
        origins: Origins::new(&[LISTED.to_owned()]),
        places: Places {
            cookie: Some("keyrelay".to_owned()),
            ..Places::default()
        },
        gate: Gate::new(hub.clone(), Verifier::default(), limits.clone()),
        limits,
        channels: CHANNELS,
        drain: CancellationToken::new(),
    };
    // A channel that is not filled yet is waited for.
    let outcome =
        RUNTIME.with(|runtime| runtime.block_on(async { desk.handle(&parts, false, Guest::default()).now_or_never() }));
    let Some(outcome) = outcome else { return };
    match outcome {
        Outcome::Answer(answer) => {
            for name in answer.headers().keys() {
                assert!(ANSWERED.contains(&name.as_str()), "{name} was not to be sent");
            }
            origin_holds(&parts, answer.headers());
            assert_eq!(hub.channels(), 0, "who is answered holds no channel");
        }
        Outcome::Stream(opening) => {
            let headers = head_of(&opening.head);
            origin_holds(&parts, &headers);
            let query = Query::parse(None, parts.uri.query().unwrap_or_default(), "token", CHANNELS)
                .expect("it was understood");
            for log in opening.session.logs() {
                let name = &*log.channel.name;
                assert!(
                    query.channels.iter().any(|asked| asked == name),
                    "{name:?} was not asked for"
                );
            }
        }
        Outcome::Farewell(bytes) => origin_holds(&parts, &head_of(&bytes)),
    }
}

/// What a proxy sends before a connection's own bytes: its end is found as soon as it is there, and never sooner.
pub fn proxy(data: &[u8]) {
    let data = &data[..data.len().min(600)];
    let whole = proxy_protocol::parse(data);
    for length in 0..data.len() {
        match (proxy_protocol::parse(&data[..length]), &whole) {
            (Ok(None), _) => assert!(!matches!(whole, Ok(Some((_, end))) if end <= length)),
            (Ok(Some(found)), whole) => assert_eq!(*whole, Ok(Some(found))),
            (Err(_), whole) => assert!(whole.is_err()),
        }
    }
}

fn parse(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let at = memchr::memchr(b':', line)?;
        let value = line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..]);
        request = request.header(&line[..at], value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

fn query_holds(name: Option<&str>, query: &str) {
    let Ok(query) = Query::parse(name, query, "token", CHANNELS) else {
        return;
    };
    let mut names: Vec<&str> = query.channels.iter().map(String::as_str).collect();
    assert!(names.iter().all(|name| (1..=MAX_NAME).contains(&name.len())));
    assert!(names.len() <= CHANNELS);
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a channel twice");
    assert_ne!(query.cursor.as_deref(), Some(""));
}

/// The headers of a head that was written by hand; each must be one that may be there.
fn head_of(bytes: &[u8]) -> HeaderMap {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head has an end");
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let status = lines.next().expect("a status line");
    assert!(status.starts_with(b"HTTP/1.1 200 OK") || status.starts_with(b"HTTP/1.1 101 Switching Protocols"));
    let mut headers = HeaderMap::new();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{}", line.escape_ascii());
        let at = memchr::memchr(b':', line).expect("a header has a name");
        let name = std::str::from_utf8(&line[..at]).expect("a name is text");
        assert!(ANSWERED.contains(&name), "{name} was not to be sent");
        let name = hyper::header::HeaderName::from_bytes(&line[..at]).expect("a name");
        let value = line[at + 1..].trim_ascii_start();
        headers.append(name, hyper::header::HeaderValue::from_bytes(value).expect("a value"));
    }
    headers
}

fn origin_holds(request: &Parts, answer: &HeaderMap) {
    let asked = request.headers.get(ORIGIN).map(|origin| origin.as_bytes());
    let allowed = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.as_bytes());
    let listed = asked.is_some_and(|asked| asked.eq_ignore_ascii_case(LISTED.as_bytes()));
    assert_eq!(allowed, asked.filter(|_| listed), "who may read is named, nobody else");
    assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), listed);
}

//! Heads of requests, whatever is in them.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};
use ipnet::IpNet;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::credentials::Places;
use super::door::Guest;
use super::gate::Gate;
use super::proxy_protocol;
use super::query::{MAX_NAME, Query};
use super::request::{Desk, Outcome};
use super::route::Route;
use super::terms::Live;
use super::testing::hub;
use super::visitor::{ClientAddress, Visitor, Visitors};
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
    let places = Places {
        cookie: Some("keyrelay".to_owned()),
        ..Places::default()
    };
    let desk = Desk {
        path: String::new(),
        gate: Gate::new(hub.clone(), Live::letting(&[LISTED], places), limits.clone()),
        limits,
        channels: CHANNELS,
        drain: CancellationToken::new(),
        front: None,
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
            for log in hub.interest() {
                let view = log.view();
                let is_kept = view.subscribers() > 0 || view.lingers();
                assert!(!is_kept, "who is answered holds no channel");
            }
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

/// What a proxy says of its client, in a header of the PROXY protocol or of HTTP: a decision about the one stands whatever
/// follows, and in the other nothing that a client wrote counts before what its proxy has appended.
pub fn proxies(data: &[u8]) {
    let mut decided = None;
    for end in 0..=data.len() {
        let parsed = proxy_protocol::parse(&data[..end]);
        match &decided {
            Some(before) => assert_eq!(&parsed, before, "a decision was taken back"),
            None if parsed == Ok(None) => {}
            None => decided = Some(parsed),
        }
    }
    assert!(data.len() < 4_096 || decided.is_some(), "a header has no end");
    if let Some(Ok(Some((_, length)))) = decided {
        assert!(length <= data.len());
    }
    let Ok(before) = HeaderValue::from_bytes(data) else {
        return;
    };
    let visitors = Visitors {
        proxies: vec![IpNet::from(IpAddr::from([10, 0, 0, 1]))],
        unix: false,
        told: ClientAddress::ForwardedFor,
    };
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", before);
    let _ = visitors.named(&headers);
    headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.9, 10.0.0.1"));
    let client = Visitor::told(IpAddr::from([203, 0, 113, 9]));
    assert_eq!(visitors.named(&headers), Some(client));
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
        headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
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

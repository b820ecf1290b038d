//! How a request is refused, in whatever way its client understands.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{ACCEPT, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};

use super::answer::{self, Refusal, lines};
use super::gate::Denial;
use super::handshake::Handshake;
use super::request::Outcome;
use super::route::Route;
use crate::access::Failure;
use crate::hub;
use crate::limits::Limit;
use crate::session::Ending;
use crate::transport::{Wire, ending, sse, ws};

/// Milliseconds after which a client comes back for which there was no room.
pub const RETRY_REFUSED: (u32, u32) = (2_000, 10_000);

/// The request itself is wrong.
pub fn bad(error: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error)
}

/// Nothing that was shown counts.
pub fn unauthorized(failure: &Failure) -> Refusal {
    let status = match failure {
        Failure::Denied => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    challenge(Refusal::new(status, failure.to_string()))
}

/// RFC 9110 §15.5.2 asks for a challenge with every 401.
fn challenge(refusal: Refusal) -> Refusal {
    match refusal.status {
        StatusCode::UNAUTHORIZED => refusal.with(WWW_AUTHENTICATE, "Bearer"),
        _ => refusal,
    }
}

/// Some channels may not be opened.
pub fn refused(denied: &BTreeMap<String, Denial>) -> Refusal {
    let any = |what: fn(&Denial) -> bool| denied.values().any(what);
    let (status, error) = if any(|denial| matches!(denial, Denial::Unknown | Denial::Name(_))) {
        (StatusCode::NOT_FOUND, "these channels cannot be opened")
    } else if any(|denial| matches!(denial, Denial::Credential(failure) if *failure != Failure::Denied)) {
        (
            StatusCode::UNAUTHORIZED,
            "what this client has shown does not open these channels",
        )
    } else {
        (StatusCode::FORBIDDEN, "these channels are not open to this client")
    };
    let mut refusal = Refusal::new(status, error);
    refusal.channels = denied
        .iter()
        .map(|(name, denial)| (name.clone(), denial.to_string()))
        .collect();
    challenge(refusal)
}

/// Refuses a client for a limit of connections.
pub fn no_place(limit: Limit, route: Route<'_>, request: &Parts, headers: &HeaderMap) -> Result<Outcome, Refusal> {
    let (why, what) = match limit {
        Limit::Connections => (Ending::Overload, "there is no room for one more client now"),
        Limit::ConnectsPerSecond => (Ending::TooFast, "your address connects too often"),
        Limit::ConnectionsPerSubject => (Ending::TooMany, "the subject of your token has too many connections"),
        _ => (Ending::TooMany, "your address has too many connections"),
    };
    match route {
        Route::Events if accepts_stream(&request.headers) => later(request, headers, why),
        Route::WebSocket => {
            let handshake = Handshake::parse(request.version, &request.headers)?;
            let head = ws::response_head(handshake.key, handshake.subprotocol, lines(headers));
            let query = request.uri.query().unwrap_or_default();
            let wire = match query.split('&').any(|part| part == "raw=1") {
                true => Wire::RawWebSocket,
                false => Wire::WebSocket,
            };
            Ok(farewell(head, wire, why))
        }
        _ => {
            let refusal = Refusal::for_now(format!("{what}: come back later"), jitter(RETRY_REFUSED));
            let status = match why {
                Ending::Overload => refusal.status,
                _ => StatusCode::TOO_MANY_REQUESTS,
            };
            Err(Refusal { status, ..refusal })
        }
    }
}

/// How a client is told that finds no room.
pub fn full(limit: hub::Limit) -> Ending {
    match limit {
        hub::Limit::ChannelsPerAddress => Ending::TooMany,
        hub::Limit::KeysPerChannel => Ending::TooManyKeys,
        hub::Limit::Channels | hub::Limit::Subscriptions | hub::Limit::Keys | hub::Limit::LogBytes => Ending::Overload,
    }
}

/// Tells a client to come back: a browser's EventSource by a stream that ends at once, others by the status.
pub fn later(request: &Parts, headers: &HeaderMap, why: Ending) -> Result<Outcome, Refusal> {
    let retry = jitter(RETRY_REFUSED);
    if !accepts_stream(&request.headers) {
        return Err(Refusal::for_now(
            format!("no stream can begin now ({})", why.reason()),
            retry,
        ));
    }
    let mut body = BytesMut::from(sse::without_chunk(&sse::opening(retry)));
    body.extend_from_slice(&sse::without_chunk(&sse::end_event(why, retry)));
    Ok(Outcome::Answer(answer::stream_that_ends(
        body.freeze(),
        headers.clone(),
    )))
}

/// Accepts a WebSocket and ends it at once: a close code tells a browser what a status would not.
pub fn farewell(head: Bytes, wire: Wire, why: Ending) -> Outcome {
    let mut bytes = BytesMut::from(head);
    bytes.extend_from_slice(&ending(why, jitter(RETRY_REFUSED), wire));
    Outcome::Farewell(bytes.freeze())
}

/// Whether the client may be a browser's EventSource; that one may also leave the header out.
fn accepts_stream(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    values.peek().is_none()
        || values.filter_map(|value| value.to_str().ok()).any(|value| {
            ["text/event-stream", "text/*", "*/*"]
                .iter()
                .any(|range| value.contains(range))
        })
}

/// A random time between two limits in milliseconds.
pub fn jitter((least, most): (u32, u32)) -> Duration {
    // It is drawn for every stream, and the system's randomness costs a call.
    Duration::from_millis(fastrand::u32(least..=most).into())
}

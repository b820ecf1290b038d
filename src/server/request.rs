//! What a request gets: an answer, or a stream that leaves hyper.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{ACCEPT, ALLOW, CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Version};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer, Refusal};
use super::gate::{Denial, Gate, Refused};
use super::handshake::Handshake;
use super::origin::{Origins, Verdict, preflight};
use super::query::Query;
use super::route::Route;
use super::snapshot;
use crate::fanout::Transport;
use crate::hub::Subscription;
use crate::session::{Ending, Session, Start};
use crate::transport::{Wire, ending, sse, ws};

/// Milliseconds after which a lost client comes back: soon, and not all in the same second.
const RETRY: (u32, u32) = (1_000, 3_000);

/// Milliseconds after which a client comes back for which there was no room.
const RETRY_REFUSED: (u32, u32) = (2_000, 10_000);

/// What all requests of the process are answered with.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Prefix of all URLs.
    pub path: String,
    /// Whose pages may read.
    pub origins: Origins,
    /// Which channels are open.
    pub gate: Gate,
    /// No stream begins once this is cancelled.
    pub drain: CancellationToken,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered by hyper.
    Answer(Answer),
    /// Its socket leaves hyper for a shard.
    Stream(Opening),
    /// Its socket leaves hyper to be closed after these bytes.
    Farewell(Bytes),
}

/// A stream about to begin.
#[derive(Debug)]
pub struct Opening {
    /// How the client is spoken to.
    pub transport: Transport,
    /// The head of the response and the first bytes of its body.
    pub head: Bytes,
    /// The client's channels.
    pub session: Session,
}

impl Desk {
    /// Handles one request. `has_body`: more than a head was sent.
    pub async fn handle(&self, request: &Parts, has_body: bool) -> Outcome {
        let headers = self.origins.headers(&request.headers);
        let mut outcome = match self.judge(request, has_body, &headers).await {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Answer(refusal.answer(headers)),
        };
        // Where a body ends, a proxy in front may see otherwise: nothing behind it is taken for a request.
        if let (Outcome::Answer(answer), true) = (&mut outcome, has_body) {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        outcome
    }

    async fn judge(&self, request: &Parts, has_body: bool, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        let Some(route) = Route::find(&self.path, request.uri.path()) else {
            let path = &self.path;
            let error = format!("nothing is here: the URLs are {path}/events, {path}/ws and {path}/channels");
            return Err(Refusal::new(StatusCode::NOT_FOUND, error));
        };
        if request.method == Method::OPTIONS {
            let mut headers = headers.clone();
            preflight(&mut headers, route.allow());
            headers.insert(ALLOW, HeaderValue::from_static(route.allow()));
            return Ok(Outcome::Answer(answer::empty(StatusCode::NO_CONTENT, headers)));
        }
        if !route.takes(&request.method) {
            return Err(Refusal::method(route.allow()));
        }
        if has_body {
            return Err(bad("a request here has no body: everything stands in the URL"));
        }
        if self.origins.judge(&request.headers) == Verdict::Foreign {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "pages of this origin may not connect: add it to `origins` in [server], or let the proxy in front pass the \
                 header Host on as it came",
            ));
        }
        let name = match route {
            Route::Channel(name) => Some(name),
            _ => None,
        };
        let query =
            Query::parse(name, request.uri.query().unwrap_or_default()).map_err(|error| bad(error.to_string()))?;
        if query.channels.is_empty() && route != Route::WebSocket {
            return Err(bad("no channel is named: write ?channel=NAME, once for each"));
        }
        match route {
            Route::Events => self.events(request, &query, headers),
            Route::WebSocket => self.web_socket(request, &query, headers),
            Route::Channels | Route::Channel(_) => self.channels(&query, headers).await,
        }
    }

    fn events(&self, request: &Parts, query: &Query, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        if self.drain.is_cancelled() {
            return later(request, headers, Ending::Drain);
        }
        let subscriptions = match self.open(query, true) {
            Ok(subscriptions) => subscriptions,
            Err(Refused::Full) => return later(request, headers, Ending::Overload),
            Err(Refused::ForGood(denied)) => return Err(not_found(&denied)),
        };
        let last = request.headers.get("last-event-id").map(|value| value.as_bytes());
        let session = self.session(subscriptions, self.start(query, last));
        let opening = sse::opening(jitter(RETRY));
        // The stream is the last thing on its connection, so the next request of a proxy must not come here.
        let close = (CONNECTION.as_str(), "close".as_bytes());
        let nosniff = ("x-content-type-options", "nosniff".as_bytes());
        let (framing, first, own) = match request.version {
            Version::HTTP_10 => (sse::Framing::Close, sse::without_chunk(&opening), None),
            _ => (sse::Framing::Chunked, opening, Some(close)),
        };
        let extra = own.into_iter().chain([nosniff]).chain(lines(headers));
        let mut head = BytesMut::from(sse::response_head(framing, extra));
        head.extend_from_slice(&first);
        Ok(Outcome::Stream(Opening {
            transport: Transport::Sse {
                chunked: framing == sse::Framing::Chunked,
            },
            head: head.freeze(),
            session,
        }))
    }

    fn web_socket(&self, request: &Parts, query: &Query, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        let handshake = Handshake::parse(request.version, &request.headers)?;
        let head = ws::response_head(handshake.key, handshake.subprotocol, lines(headers));
        let wire = if query.raw { Wire::RawWebSocket } else { Wire::WebSocket };
        if self.drain.is_cancelled() {
            return Ok(farewell(head, wire, Ending::Drain));
        }
        let mut head = BytesMut::from(head);
        let subscriptions = match self.open(query, true) {
            Ok(subscriptions) => subscriptions,
            Err(Refused::Full) => return Ok(farewell(head.freeze(), wire, Ending::Overload)),
            // Who hears nothing but payloads can be told before the handshake only.
            Err(Refused::ForGood(denied)) if query.raw => return Err(not_found(&denied)),
            // As if the first message had asked for them.
            Err(Refused::ForGood(denied)) => {
                for (channel, denial) in &denied {
                    let frame = ws::error_message(Some(channel), denial.word(), &denial.to_string(), None);
                    head.extend_from_slice(&frame);
                }
                Vec::new()
            }
        };
        Ok(Outcome::Stream(Opening {
            transport: Transport::WebSocket { raw: query.raw },
            head: head.freeze(),
            session: self.session(subscriptions, self.start(query, None)),
        }))
    }

    async fn channels(&self, query: &Query, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        let subscriptions = match self.open(query, false) {
            Ok(subscriptions) => subscriptions,
            Err(Refused::Full) => {
                return Err(Refusal::for_now(
                    "too many channels are in use: come back later",
                    jitter(RETRY_REFUSED),
                ));
            }
            Err(Refused::ForGood(denied)) => return Err(not_found(&denied)),
        };
        let hub = self.gate.hub();
        let watermark = tokio::select! {
            watermark = snapshot::filled(hub, &subscriptions) => watermark,
            () = self.drain.cancelled() => None,
        };
        let Some(watermark) = watermark else {
            let mut refusal = Refusal::for_now(
                "the state of these channels is not there yet: come back later",
                jitter(RETRY_REFUSED),
            );
            let missing = snapshot::missing(hub, &subscriptions);
            refusal.channels = missing.map(|(name, why)| (name.to_owned(), why.to_owned())).collect();
            return Err(refusal);
        };
        match snapshot::render(hub, &subscriptions, watermark).await {
            Ok(body) => Ok(Outcome::Answer(answer::json(
                StatusCode::OK,
                body.into(),
                headers.clone(),
            ))),
            Err(snapshot::TooLarge) => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the state has more than 64 MiB: ask for fewer channels, or read it as a stream from /events",
            )),
        }
    }

    fn open(&self, query: &Query, lingers: bool) -> Result<Vec<Subscription>, Refused> {
        self.gate.open(query.channels.iter().map(String::as_str), lingers)
    }

    fn start(&self, query: &Query, last_event_id: Option<&[u8]>) -> Start {
        let names = query.channels.iter().map(String::as_str);
        self.gate.start(names, last_event_id, query.cursor.as_deref())
    }

    fn session(&self, subscriptions: Vec<Subscription>, start: Start) -> Session {
        let hub = self.gate.hub();
        let mut session = Session::new(hub.epoch);
        let watermark = hub.watermark();
        for subscription in subscriptions {
            session.subscribe(subscription, start, watermark, None);
        }
        session
    }
}

fn bad(error: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error)
}

fn not_found(denied: &std::collections::BTreeMap<String, Denial>) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::NOT_FOUND, "these channels cannot be opened");
    refusal.channels = denied
        .iter()
        .map(|(name, denial)| (name.clone(), denial.to_string()))
        .collect();
    refusal
}

/// Tells a client to come back: a browser's EventSource by a stream that ends at once, others by the status.
fn later(request: &Parts, headers: &HeaderMap, why: Ending) -> Result<Outcome, Refusal> {
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
fn farewell(head: Bytes, wire: Wire, why: Ending) -> Outcome {
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

fn lines(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// A random time between two limits in milliseconds.
fn jitter((least, most): (u32, u32)) -> Duration {
    // Without randomness, which an early boot may lack, all come back at the same time: no reason to refuse them.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    Duration::from_millis(u64::from(least + random % (most - least + 1)))
}

#[cfg(test)]
mod tests;

//! What a request gets: an answer, or a stream that leaves hyper.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Version};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer, Refusal, lines};
use super::credentials::Credentials;
use super::door::Guest;
use super::gate::{Denial, Gate, Grant, Refused, no_room};
use super::handshake::Handshake;
use super::holder::{Expiry, Holder, Page};
use super::origin::{self, Verdict, preflight};
use super::query::{Query, QueryError};
use super::refuse::{RETRY_REFUSED, bad, farewell, full, jitter, later, no_place, refused, unauthorized};
use super::route::Route;
use super::side::Front;
use super::snapshot;
use super::terms::Terms;
use super::visit::Visit;
use crate::access::{Deadline, Failure};
use crate::fanout::{self, Transport, Until};
use crate::hub::{self, Subscription};
use crate::limits::{Limit, Limits, Permits};
use crate::session::{Ending, Session, Start};
use crate::transport::{Wire, sse, ws};

/// Milliseconds after which a lost client comes back: soon, and not all in the same second.
const RETRY: (u32, u32) = (1_000, 3_000);

/// What operators and their tools look for at the wrong listener. This one never serves it.
const FOR_OPERATORS: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/status"];

/// What all requests of the process are answered with.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Prefix of all URLs.
    pub path: String,
    /// Which channels are open.
    pub gate: Gate,
    /// What clients may take together.
    pub limits: Arc<Limits>,
    /// Channels that one client may open.
    pub channels: usize,
    /// No stream begins once this is cancelled.
    pub drain: CancellationToken,
    /// Answers whatever it can before it is looked at here.
    pub front: Option<Arc<dyn Front>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered by hyper.
    Answer(Answer),
    /// Its socket leaves hyper for a shard.
    Stream(Box<Opening>),
    /// Its socket leaves hyper to be closed after these bytes.
    Farewell(Bytes),
}

/// A stream about to begin.
#[derive(Debug)]
pub struct Opening {
    /// How the client is spoken to.
    pub transport: Transport,
    /// What is written first: over HTTP/1 the head of the response, and the first bytes of its body.
    pub head: Bytes,
    /// The head of the response over HTTP/2, where hyper writes it.
    pub headers: HeaderMap,
    /// The client's channels.
    pub session: Session,
    /// Until when it may read them.
    pub until: Until,
    /// What it asks while it is connected, if it can.
    pub gate: Option<Arc<dyn fanout::Gate>>,
    /// By which revision of the hub it was let in.
    pub judged: u64,
    /// What it gives back when it goes, what its connection holds aside.
    pub permits: Box<Permits>,
}

/// What one request asks for.
struct Wanted<'a> {
    /// The channels.
    names: Vec<String>,
    /// Whether the URL names them; otherwise the token does, and the same URL may stand for others next time.
    named: bool,
    query: &'a Query,
    holder: Arc<Holder>,
    deadline: Deadline,
    guest: Guest,
}

impl Wanted<'_> {
    fn until(&self, expires: Expiry) -> Until {
        Until {
            expires,
            renewable: self.holder.is_renewable(),
            announced: self.query.expiring,
        }
    }
}

impl Desk {
    /// Handles one request. `has_body`: more than a head was sent.
    pub async fn handle(&self, request: &Parts, has_body: bool, guest: Guest) -> Outcome {
        let terms = self.gate.terms();
        let headers = terms.origins.headers(&request.headers);
        // Where a body ends, a proxy in front may see otherwise: nothing behind it is taken for a request.
        let is_last = guest.is_last || has_body;
        let outcome = self.judge(terms, request, has_body, guest, &headers).await;
        let mut outcome = outcome.unwrap_or_else(|refusal| Outcome::Answer(refusal.answer(headers)));
        if let (true, Outcome::Answer(answer)) = (is_last, &mut outcome) {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        outcome
    }

    async fn judge(
        &self,
        terms: Arc<Terms>,
        request: &Parts,
        has_body: bool,
        guest: Guest,
        headers: &HeaderMap,
    ) -> Result<Outcome, Refusal> {
        if let Some(front) = &self.front
            && let Some(answer) = front.answer(request).await
        {
            return Ok(Outcome::Answer(answer));
        }
        let Some(route) = Route::find(&self.path, request.uri.path()) else {
            let path = &self.path;
            let mut error = format!("nothing is here: the URLs are {path}/events, {path}/ws and {path}/channels");
            if FOR_OPERATORS.contains(&request.uri.path()) {
                error.push_str("; those for operators are at the listener of [admin] (docs/operations.md)");
            }
            return Err(Refusal::new(StatusCode::NOT_FOUND, error));
        };
        if let Some(limit) = guest.refused {
            return no_place(limit, route, request, headers);
        }
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
        let verdict = terms.origins.judge(&request.headers);
        if verdict == Verdict::Foreign {
            if let Some(unsaid) = self.gate.refusals.say() {
                let origin = shown(request.headers.get(ORIGIN));
                tracing::info!(address = %guest.visitor, ?origin, unsaid, "origin refused");
            }
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
        let text = request.uri.query().unwrap_or_default();
        let parsed = Query::parse(name, text, &terms.places.parameter, self.channels);
        let mut query = parsed.map_err(|error| self.malformed(&error))?;
        let trusts_cookies = origin::trusts_cookies(verdict, &request.headers, route == Route::WebSocket);
        let credentials = Credentials::of(&request.headers, &query, &terms.places, trusts_cookies);
        let page = page(&request.headers, verdict);
        let holder = self
            .gate
            .holder(terms, credentials, guest.visitor, page)
            .map_err(|failure| unauthorized(&failure))?;
        let mut asked = Wanted {
            names: std::mem::take(&mut query.channels),
            named: true,
            query: &query,
            holder: Arc::new(holder),
            deadline: Deadline::from_now(),
            guest,
        };
        for name in asked.holder.signed_names() {
            if !asked.names.iter().any(|known| known == name) {
                asked.names.push(name.to_owned());
            }
        }
        if asked.names.is_empty() && route != Route::WebSocket {
            asked.names = self.plain_names(request, &asked).await?;
            asked.named = false;
        }
        // What is signed and what a token lists counts as well.
        if asked.names.len() > self.channels {
            return Err(self.malformed(&QueryError::TooMany(self.channels)));
        }
        match route {
            Route::Events => self.events(request, asked, headers).await,
            Route::WebSocket => self.web_socket(request, asked, headers).await,
            Route::Channels | Route::Channel(_) => self.channels(&asked, headers).await,
        }
    }

    fn malformed(&self, error: &QueryError) -> Refusal {
        if matches!(error, QueryError::TooMany(_)) {
            self.limits.counts().hit(Limit::ChannelsPerConnection, None);
        }
        bad(error.to_string())
    }

    /// The channels of a request that names none: those that its token lists by their names.
    async fn plain_names(&self, request: &Parts, asked: &Wanted<'_>) -> Result<Vec<String>, Refusal> {
        let unnamed = "no channel is named: write ?channel=NAME, once for each";
        match asked.holder.plain_names(asked.deadline).await {
            Ok(names) if names.is_empty() => Err(bad(format!("{unnamed}; the token lists none by its name either"))),
            Ok(names) => Ok(names),
            Err(Failure::Missing) => Err(bad(unnamed)),
            Err(failure @ Failure::Unavailable(_)) => {
                self.gate.log_unavailable(asked.guest.visitor, &failure);
                Err(Refusal::for_now(failure.to_string(), jitter(RETRY_REFUSED)))
            }
            Err(failure) => {
                if let Some(unsaid) = self.gate.refusals.say() {
                    tracing::info!(
                        address = %asked.guest.visitor,
                        reason = failure.word(),
                        path = request.uri.path(),
                        unsaid,
                        "token refused"
                    );
                }
                Err(unauthorized(&failure))
            }
        }
    }

    async fn events(&self, request: &Parts, mut asked: Wanted<'_>, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        if self.drain.is_cancelled() {
            return later(request, headers, Ending::Drain);
        }
        let grant = match self.open(&asked, true).await {
            Ok(grant) => grant,
            Err(Refused::Full(limit)) => return later(request, headers, full(limit)),
            Err(Refused::Unavailable(_)) => return later(request, headers, Ending::Unavailable),
            Err(Refused::TooMany) => return no_place(Limit::ConnectionsPerSubject, Route::Events, request, headers),
            Err(Refused::ForGood(denied)) => return Err(refused(&denied)),
        };
        let last = request.headers.get("last-event-id").map(|value| value.as_bytes());
        asked.guest.permits.subject = grant.holder.give_place();
        let gate = Visit::of(&self.gate, &grant).map(|visit| Arc::new(visit) as Arc<dyn fanout::Gate>);
        let (expires, judged) = (grant.expires, grant.judged);
        let session = self.session(grant.subscriptions, self.start(&asked, last));
        let opening = sse::opening(jitter(RETRY));
        if request.version == Version::HTTP_2 {
            return Ok(Outcome::Stream(Box::new(Opening {
                transport: Transport::Sse { chunked: false },
                head: sse::without_chunk(&opening),
                headers: answer::stream_headers(headers.clone()),
                session,
                until: asked.until(expires),
                gate,
                judged,
                permits: asked.guest.permits,
            })));
        }
        // The stream is the last thing on its connection, so the next request of a proxy must not come here.
        let close = (CONNECTION.as_str(), "close".as_bytes());
        let (framing, first, own) = match request.version {
            Version::HTTP_10 => (sse::Framing::Close, sse::without_chunk(&opening), None),
            _ => (sse::Framing::Chunked, opening, Some(close)),
        };
        let extra = own.into_iter().chain(lines(headers));
        let mut head = BytesMut::from(sse::response_head(framing, extra));
        head.extend_from_slice(&first);
        Ok(Outcome::Stream(Box::new(Opening {
            transport: Transport::Sse {
                chunked: framing == sse::Framing::Chunked,
            },
            head: head.freeze(),
            headers: HeaderMap::new(),
            session,
            until: asked.until(expires),
            gate,
            judged,
            permits: asked.guest.permits,
        })))
    }

    async fn web_socket(
        &self,
        request: &Parts,
        mut asked: Wanted<'_>,
        headers: &HeaderMap,
    ) -> Result<Outcome, Refusal> {
        let handshake = Handshake::parse(request.version, &request.headers)?;
        let head = ws::response_head(handshake.key, handshake.subprotocol, lines(headers));
        let raw = asked.query.raw;
        let wire = if raw { Wire::RawWebSocket } else { Wire::WebSocket };
        if self.drain.is_cancelled() {
            return Ok(farewell(head, wire, Ending::Drain));
        }
        let mut head = BytesMut::from(head);
        let grant = match self.open(&asked, true).await {
            Ok(grant) => grant,
            Err(Refused::Full(limit)) => return Ok(farewell(head.freeze(), wire, full(limit))),
            Err(Refused::Unavailable(_)) => return Ok(farewell(head.freeze(), wire, Ending::Unavailable)),
            Err(Refused::TooMany) => return Ok(farewell(head.freeze(), wire, Ending::TooMany)),
            // Who hears nothing but payloads can be told by the close code only.
            Err(Refused::ForGood(denied)) if raw => {
                let why = match denied.values().next() {
                    Some(Denial::Credential(failure)) => Ending::Refused(failure.word()),
                    Some(denial) => Ending::Refused(denial.word()),
                    None => Ending::Refused("closed"),
                };
                return Ok(farewell(head.freeze(), wire, why));
            }
            // As if the first message had asked for them.
            Err(Refused::ForGood(denied)) => {
                for (channel, denial) in &denied {
                    let frame = ws::error_message(Some(channel), denial.word(), &denial.to_string(), None);
                    head.extend_from_slice(&frame);
                }
                Grant {
                    subscriptions: Vec::new(),
                    expires: None,
                    holder: asked.holder.clone(),
                    judged: self.gate.hub().revision(),
                    is_public: true,
                }
            }
        };
        let gate = match raw {
            true => {
                // Its holder need not live as long as it does.
                asked.guest.permits.subject = grant.holder.give_place();
                Visit::of(&self.gate, &grant)
            }
            false => Some(Visit::new(self.gate.clone(), grant.holder.clone())),
        };
        Ok(Outcome::Stream(Box::new(Opening {
            transport: Transport::WebSocket { raw },
            head: head.freeze(),
            headers: HeaderMap::new(),
            until: asked.until(grant.expires),
            judged: grant.judged,
            session: self.session(grant.subscriptions, self.start(&asked, None)),
            gate: gate.map(|visit| Arc::new(visit) as Arc<dyn fanout::Gate>),
            permits: asked.guest.permits,
        })))
    }

    async fn channels(&self, asked: &Wanted<'_>, headers: &HeaderMap) -> Result<Outcome, Refusal> {
        let subscriptions = match self.open(asked, false).await {
            Ok(grant) => grant.subscriptions,
            Err(Refused::Full(limit)) => {
                let refusal = Refusal::for_now(no_room(limit), jitter(RETRY_REFUSED));
                let status = match limit {
                    hub::Limit::ChannelsPerAddress => StatusCode::TOO_MANY_REQUESTS,
                    _ => refusal.status,
                };
                return Err(Refusal { status, ..refusal });
            }
            // Who only looks takes no place.
            Err(Refused::TooMany) => return Err(Refusal::for_now("come back later", jitter(RETRY_REFUSED))),
            Err(Refused::Unavailable(failure)) => {
                return Err(Refusal::for_now(failure.to_string(), jitter(RETRY_REFUSED)));
            }
            Err(Refused::ForGood(denied)) => return Err(refused(&denied)),
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
            Ok(body) => Ok(Outcome::Answer(answer::json(StatusCode::OK, body, headers.clone()))),
            Err(snapshot::Failed::Full) => {
                self.limits.counts().refused_bodies.fetch_add(1, Ordering::Relaxed);
                Err(Refusal::for_now(
                    "too much state is being sent already: come back later, or read it as a stream from /events",
                    jitter(RETRY_REFUSED),
                ))
            }
            Err(snapshot::Failed::Ended) => Err(Refusal::for_now(
                "these channels were just ended: come back later",
                jitter(RETRY_REFUSED),
            )),
            Err(snapshot::Failed::TooLarge) => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the state has more than 64 MiB: ask for fewer channels, or read it as a stream from /events",
            )),
        }
    }

    async fn open(&self, asked: &Wanted<'_>, lingers: bool) -> Result<Grant, Refused> {
        self.gate
            .open(&asked.holder, &asked.names, lingers, asked.deadline)
            .await
    }

    fn start(&self, asked: &Wanted<'_>, last_event_id: Option<&[u8]>) -> Start {
        let cursor = asked.query.cursor.as_deref();
        self.gate.start(&asked.names, asked.named, last_event_id, cursor)
    }

    fn session(&self, subscriptions: Vec<Subscription>, start: Start) -> Session {
        let hub = self.gate.hub();
        let mut session = Session::new(hub.epoch);
        let watermark = hub.watermark();
        session.reserve(subscriptions.len());
        for subscription in subscriptions {
            session.subscribe(subscription, start, watermark, None);
        }
        session
    }
}

/// The page that sends a request with these headers and this verdict, if it is one of another origin.
fn page(headers: &HeaderMap, verdict: Verdict) -> Option<Page> {
    if !matches!(verdict, Verdict::Listed | Verdict::Any) {
        return None;
    }
    // Copied, for the request's own would keep all of its head.
    let origin = HeaderValue::from_bytes(headers.get(ORIGIN)?.as_bytes()).ok()?;
    Some(Page { origin, verdict })
}

/// What a stranger wrote into a header, for a line of the log.
fn shown(header: Option<&HeaderValue>) -> String {
    let text = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    text.unwrap_or_default().chars().take(100).collect()
}

#[cfg(test)]
mod tests;

//! A connection that speaks HTTP/2: hyper serves its requests, and carries its streams as bodies from the shard.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::answer::{self, Answer};
use super::connection::Site;
use super::door::Caller;
use super::request::{Opening, Outcome};
use crate::fanout::{Client, Far, Handle, Parting, Socket, Watch, pipe};
use crate::limits::{Limit, Permits};

/// Requests and streams that one connection may have at once (RFC 9113 §6.5.2 advises no fewer): a browser has one
/// connection for all pages of an origin.
pub const MAX_STREAMS: u32 = 100;

/// As many over a connection without TLS: no browser speaks HTTP/2 there, but a proxy does, for a thousand of them.
pub const MAX_PROXIED: u32 = 1_024;

/// Bytes of one stream that may wait for the connection: what waits there is sent even if it is superseded meanwhile.
const UNSENT: usize = 16 * 1024;

/// Bytes of a whole answer that are handed on at once, each to be taken in the time for a write.
const PIECE: usize = 16 * 1024;

/// Requests have no bodies here, so that what a client may send unasked can be as little as it may be at the beginning.
const WINDOW: u32 = 65_535;

/// What a client that never asked for anything may take to close a connection that it was told to leave.
const GOODBYE: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Over the request that the task serves, once it has a body.
    static GUARD: RefCell<Option<Guard>>;
}

/// What ends the task of a client that takes nothing: its body is not asked for more then, so it cannot.
enum Guard {
    /// The shard.
    Stream(Watch),
    /// The deadline of an answer's piece.
    Whole(Deadline),
}

/// The bytes of an answer.
enum Content {
    Whole(Whole),
    Stream(Far),
}

/// The body of an answer that is there as a whole: it is handed on piece by piece, so that the task, and with it what the
/// request holds, lives until the client has made room for the last one.
struct Whole {
    rest: Bytes,
    /// What the next piece may take to be taken.
    write_timeout: Duration,
    /// When all must be.
    end: Instant,
    deadline: Deadline,
    _permits: Box<Permits>,
}

type Deadline = Rc<RefCell<Pin<Box<Sleep>>>>;

/// Runs each request in a task of its own.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    load: Rc<Load>,
    /// What a stream that has ended may take to arrive.
    linger: Duration,
}

/// What a connection has to do.
#[derive(Default)]
struct Load {
    /// Requests and streams that are not over.
    active: Cell<usize>,
    /// Of the connection's task, to be woken when there are none.
    waker: RefCell<Option<Waker>>,
}

/// Counts as active until dropped.
struct Active(Rc<Load>);

/// Serves one connection until it is closed, with at most so many streams at once.
pub async fn serve<S>(stream: S, caller: Caller, site: Rc<Site>, streams: u32)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let tasks = Tasks {
        tracker: site.tasks.clone(),
        load: Rc::default(),
        linger: site.write_timeout,
    };
    let load = tasks.load.clone();
    let drain = site.desk.drain.clone();
    let (most, patience) = (site.head.size, site.time_for(&caller));
    let (is_told, lifetime) = (caller.is_refused(), site.lifetime);
    let limits = site.desk.limits.clone();
    let linger = tasks.linger;
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        let mut guest = caller.guest_beside(request.headers());
        let permits = std::mem::take(&mut guest.permits);
        // Boxed, so that a stream does not keep the room that answering took.
        Box::pin(async move {
            let (mut request, body) = request.into_parts();
            let has_body = !body.is_end_stream();
            // Refused or none: its frames need no room here.
            drop(body);
            as_elsewhere(&mut request);
            let outcome = site.desk.handle(&request, has_body, guest).await;
            Ok::<_, Infallible>(respond(outcome, &request.method, permits, &site))
        })
    });
    let connection = http2::Builder::new(tasks)
        .max_concurrent_streams(streams)
        // The library takes only what is smaller.
        .max_header_list_size(u32::try_from(most + 1).unwrap_or(u32::MAX))
        .max_send_buf_size(UNSENT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);

    let mut connection = pin!(connection);
    let mut drained = pin!(async {
        tokio::select! {
            () = drain.cancelled() => {}
            () = age(lifetime) => {}
        }
    });
    let mut idle = pin!(sleep_until(Instant::now() + patience));
    let (mut is_idle, mut ending, mut goodbye) = (true, false, GOODBYE);
    let ended = poll_fn(|cx| {
        if !ending && drained.as_mut().poll(cx).is_ready() {
            ending = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let was_idle = std::mem::replace(&mut is_idle, load.is_idle(cx));
            if is_told {
                // It was asked the one thing that such a connection is for, and goes, whatever it asks beside.
                if !is_idle && !ending {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + GOODBYE);
                    continue;
                }
            } else if is_idle && !was_idle {
                idle.as_mut().reset(Instant::now() + patience);
                // The last of what was answered may still be on its way, and what is told behind it.
                goodbye = linger;
            }
            if !(is_idle || is_told) || idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if ending {
                // It was told, and does not go.
                return Poll::Ready(Ok(()));
            }
            ending = true;
            limits.counts().hit(Limit::HeadTimeout, None);
            connection.as_mut().graceful_shutdown();
            idle.as_mut().reset(Instant::now() + goodbye);
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Until a connection is so old that its client is to begin another: a tenth sooner or later than others, as streams are.
async fn age(lifetime: Option<Duration>) {
    let Some(lifetime) = lifetime else {
        return pending().await;
    };
    // Spreads moments only; without randomness they come together.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    sleep(lifetime.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))).await;
}

/// Puts a head into the form that it has over HTTP/1.1: the server's name stands in a header, and all cookies stand in one
/// (RFC 9113 §8.2.3, §8.3.1).
fn as_elsewhere(request: &mut Parts) {
    let authority = request.uri.authority();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers.insert(HOST, host);
    }
    let cookies = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let cookies = cookies.collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(cookies) = HeaderValue::from_bytes(&cookies)
        && request.headers.contains_key(COOKIE)
    {
        request.headers.insert(COOKIE, cookies);
    }
}

fn respond(outcome: Outcome, method: &Method, permits: Box<Permits>, site: &Site) -> Response<Content> {
    match outcome {
        Outcome::Answer(answer) => whole(answer, method, permits, site.write_timeout),
        Outcome::Stream(opening) => stream(*opening, *permits, &site.shard),
        // Only WebSockets are sent off so, and those are not opened over HTTP/2.
        Outcome::Farewell(_) => {
            let answer = answer::empty(StatusCode::BAD_REQUEST, HeaderMap::new());
            whole(answer, method, permits, site.write_timeout)
        }
    }
}

fn whole(answer: Answer, method: &Method, permits: Box<Permits>, write_timeout: Duration) -> Response<Content> {
    let end = Instant::now() + answer::time_to_read(&answer, write_timeout);
    let (mut head, body) = answer.into_parts();
    let mut rest = content(body);
    if method == Method::HEAD {
        head.headers.insert(CONTENT_LENGTH, rest.len().into());
        rest = Bytes::new();
    }
    let deadline = Rc::new(RefCell::new(Box::pin(sleep(write_timeout))));
    if !rest.is_empty() {
        GUARD.with(|guard| guard.replace(Some(Guard::Whole(deadline.clone()))));
    }
    let body = Whole {
        rest,
        write_timeout,
        end,
        deadline,
        _permits: permits,
    };
    Response::from_parts(head, Content::Whole(body))
}

/// What an answer consists of: there at once, in one frame.
fn content(mut body: Full<Bytes>) -> Bytes {
    let frame = body.frame().now_or_never().flatten();
    let data = frame.and_then(|frame| frame.ok()?.into_data().ok());
    data.unwrap_or_default()
}

fn stream(mut opening: Opening, permits: Permits, shard: &Handle) -> Response<Content> {
    let (near, far) = pipe();
    GUARD.with(|guard| guard.replace(Some(Guard::Stream(far.watch()))));
    opening.permits.or(permits);
    shard.adopt(Client {
        socket: Socket::Piped(near),
        transport: opening.transport,
        head: opening.head,
        read_ahead: Bytes::new(),
        session: opening.session,
        until: opening.until,
        gate: opening.gate,
        judged: opening.judged,
        permits: opening.permits,
    });
    let mut response = Response::new(Content::Stream(far));
    *response.headers_mut() = opening.headers;
    response
}

/// A request to its end. One whose client takes nothing is ended by its guard; dropped, it is reset, and the others of its
/// connection go on.
async fn to_its_end(request: impl Future<Output = ()>, linger: Duration) {
    let mut request = pin!(request);
    let parting = poll_fn(|cx| {
        if request.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        GUARD.with(|guard| match &*guard.borrow() {
            Some(Guard::Stream(watch)) => watch.poll_parting(cx).map(Some),
            Some(Guard::Whole(deadline)) => {
                let late = deadline.borrow_mut().as_mut().poll(cx);
                late.map(|()| Some(Parting::GivenUp))
            }
            None => Poll::Pending,
        })
    })
    .await;
    match parting {
        // Whoever does not take it in time has gone or does not want to know.
        Some(Parting::Orderly) => drop(timeout(linger, request).await),
        Some(Parting::GivenUp) => tracing::debug!("a client that took nothing was given up"),
        None => {}
    }
}

impl Load {
    /// Whether there is nothing to do; if there is, the task is woken when there no longer is.
    fn is_idle(&self, cx: &Context<'_>) -> bool {
        let is_idle = self.active.get() == 0;
        self.waker.replace((!is_idle).then(|| cx.waker().clone()));
        is_idle
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, request: F) {
        self.load.active.set(self.load.active.get() + 1);
        let active = Active(self.load.clone());
        let linger = self.linger;
        self.tracker.spawn_local(GUARD.scope(RefCell::default(), async move {
            let _active = active;
            to_its_end(request, linger).await;
        }));
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        let waker = self.0.waker.take();
        if let Some(waker) = waker.filter(|_| self.0.active.get() == 0) {
            waker.wake();
        }
    }
}

impl Whole {
    /// The next piece; asked for once the client has made room for those before. The last one is a single byte: when there is
    /// room for that, there was for all others.
    fn next(&mut self) -> Option<Bytes> {
        let size = match self.rest.len() {
            0 => return None,
            1 => 1,
            more => PIECE.min(more - 1),
        };
        let deadline = Instant::now() + self.write_timeout;
        self.deadline.borrow_mut().as_mut().reset(deadline.min(self.end));
        // A copy, since a piece on its way would keep all of the answer.
        Some(Bytes::copy_from_slice(&self.rest.split_to(size)))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Content::Whole(body) => Poll::Ready(body.next().map(|piece| Ok(Frame::data(piece)))),
            Content::Stream(far) => far.poll_take(cx).map(|taken| match taken {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some(Ok(Frame::data(bytes))),
                Err(error) => Some(Err(error)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(body) => body.rest.is_empty(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(body) => SizeHint::with_exact(body.rest.len() as u64),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;

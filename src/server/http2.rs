//! A connection that speaks HTTP/2: hyper serves its requests, and carries its streams as bodies from the shard.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::answer::{self, Answer};
use super::connection::Site;
use super::door::{Caller, Guest};
use super::request::{Desk, Opening, Outcome};
use crate::fanout::{Client, Far, Handle, Parting, Socket, Watch, pipe};

/// Requests and streams that one connection may have at once (RFC 9113 §6.5.2 advises no fewer): a browser has one
/// connection for all pages of an origin.
const MAX_STREAMS: u32 = 100;

/// Bytes of one stream that may wait for the connection: what waits there is sent even if it is superseded meanwhile.
const UNSENT: usize = 16 * 1024;

/// Requests have no bodies here, so that what a client may send unasked can be as little as it may be at the beginning.
const WINDOW: u32 = 65_535;

/// What a client may take to close a connection that it was told to leave.
const GOODBYE: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Of the request that the task serves, once it is a stream.
    static WATCH: RefCell<Option<Watch>>;
}

/// The bytes of an answer.
enum Content {
    Whole(Full<Bytes>),
    Stream(Far),
}

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

/// Serves one connection until it is closed.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, caller: Caller, site: Rc<Site>) {
    let tasks = Tasks {
        tracker: site.tasks.clone(),
        load: Rc::default(),
        linger: site.write_timeout,
    };
    let load = tasks.load.clone();
    let drain = site.desk.drain.clone();
    let (most, patience) = (site.head.size, site.time_for(&caller));
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        let guest = caller.guest_beside(request.headers());
        // Boxed, so that a stream does not keep the room that answering took.
        Box::pin(async move {
            let (mut request, body) = request.into_parts();
            let has_body = !body.is_end_stream();
            // Refused or none: its frames need no room here.
            drop(body);
            as_elsewhere(&mut request);
            Ok::<_, Infallible>(respond(&site.desk, &site.shard, &request, has_body, guest).await)
        })
    });
    let connection = http2::Builder::new(tasks)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
        .max_send_buf_size(UNSENT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);

    let mut connection = pin!(connection);
    let mut drained = pin!(drain.cancelled());
    let mut idle = pin!(sleep_until(Instant::now() + patience));
    let (mut is_idle, mut ending) = (true, false);
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
            if is_idle && !was_idle {
                idle.as_mut().reset(Instant::now() + patience);
            }
            if !is_idle || idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if ending {
                // It was told, and does not go.
                return Poll::Ready(Ok(()));
            }
            ending = true;
            connection.as_mut().graceful_shutdown();
            idle.as_mut().reset(Instant::now() + GOODBYE);
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
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

async fn respond(desk: &Desk, shard: &Handle, request: &Parts, has_body: bool, guest: Guest) -> Response<Content> {
    match desk.handle(request, has_body, guest).await {
        Outcome::Answer(answer) => whole(answer, &request.method),
        Outcome::Stream(opening) => stream(*opening, shard),
        // Only WebSockets are sent off so, and those are not opened over HTTP/2.
        Outcome::Farewell(_) => whole(answer::empty(StatusCode::BAD_REQUEST, HeaderMap::new()), &Method::GET),
    }
}

fn whole(answer: Answer, method: &Method) -> Response<Content> {
    let (mut head, mut body) = answer.into_parts();
    if method == Method::HEAD {
        let size = body.size_hint().exact().unwrap_or_default();
        head.headers.insert(CONTENT_LENGTH, size.into());
        body = Full::default();
    }
    Response::from_parts(head, Content::Whole(body))
}

fn stream(opening: Opening, shard: &Handle) -> Response<Content> {
    let (near, far) = pipe();
    WATCH.with(|watch| watch.replace(Some(far.watch())));
    shard.adopt(Client {
        socket: Socket::Piped(near),
        transport: opening.transport,
        head: opening.head,
        read_ahead: Bytes::new(),
        session: opening.session,
        until: opening.until,
        gate: opening.gate,
        permits: opening.permits,
    });
    let mut response = Response::new(Content::Stream(far));
    *response.headers_mut() = opening.headers;
    response
}

/// A request to its end. A stream whose client takes nothing is never asked for more, so that its body cannot tell that
/// the shard has let go of it; dropped, it is reset, and the others of its connection go on.
async fn to_its_end(request: impl Future<Output = ()>, linger: Duration) {
    let mut request = pin!(request);
    let parting = poll_fn(|cx| {
        if request.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        WATCH.with(|watch| match &*watch.borrow() {
            Some(watch) => watch.poll_parting(cx).map(Some),
            None => Poll::Pending,
        })
    })
    .await;
    if parting == Some(Parting::Orderly) {
        // Whoever does not take it in time has gone or does not want to know.
        let _ = timeout(linger, request).await;
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
        self.tracker.spawn_local(WATCH.scope(RefCell::default(), async move {
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

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Content::Whole(body) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Content::Stream(far) => far.poll_take(cx).map(|taken| match taken {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some(Ok(Frame::data(bytes))),
                Err(error) => Some(Err(error)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(body) => body.is_end_stream(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(body) => body.size_hint(),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;

    use super::*;
    use crate::server::Head;
    use crate::server::listen::Accepted;
    use crate::server::testing::{arrival, hub, site};

    /// What a client sends first (RFC 9113 §3.4): the preface, and SETTINGS without any.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// The head of a frame that tells to leave.
    const GOAWAY: u8 = 7;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_told_to_leave_and_closed() {
        let (hub, _appender) = hub(10);
        let (site, _shard) = site(&hub);
        let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let caller = arrival(&site, Accepted::Unix(peer)).caller;
        let (ours, mut client) = tokio::io::duplex(4096);
        client.write_all(PREFACE).await.unwrap();
        let since = Instant::now();
        let mut heard = Vec::new();
        let reading = async {
            // It answers nothing.
            client.read_to_end(&mut heard).await.unwrap();
            since.elapsed()
        };
        let both = async { tokio::join!(serve(ours, caller, site), reading).1 };
        let took = LocalSet::new().run_until(both).await;
        let limit = Head::default().timeout + GOODBYE;
        assert!((limit..limit + GOODBYE).contains(&took), "{took:?}");
        let mut frames = Vec::new();
        while let [a, b, c, kind, ..] = heard[..] {
            frames.push(kind);
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            heard.drain(..9 + length);
        }
        assert!(frames.contains(&GOAWAY), "{frames:?}");
    }

    #[test]
    fn a_head_becomes_what_it_is_over_http_1() {
        let request = Request::get("https://relay.test:8443/events?channel=a")
            .header(HOST, "another.test")
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2; c=3");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        as_elsewhere(&mut parts);
        assert_eq!(
            parts.headers[HOST], "relay.test:8443",
            "the URL is what the server is asked for"
        );
        assert_eq!(
            parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2; c=3"]
        );
        let (mut parts, ()) = Request::get("/events").body(()).unwrap().into_parts();
        as_elsewhere(&mut parts);
        assert!(parts.headers.is_empty());
    }
}

//! One connection: hyper reads its requests until one of them takes the socket over.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Head;
use super::answer;
use super::door::{Arrival, Caller};
use super::http2;
use super::io::{Begun, Io, Signs, farewell};
use super::listen::Accepted;
use super::request::{Desk, Opening, Outcome};
use super::secured;
use super::tls::Keeper;
use crate::fanout::{Client, Handle, Socket, Transport};
use crate::limits::{Limit, Permits};

/// The time for the head of a connection that is only to be told that there is no place for it.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a drain waits for the first request of a connection, which is then told to come back: a client that was let in
/// a moment before would take an end without a word for a failure. A connection needs a round trip to begin, or two.
const UNHEARD: Duration = Duration::from_secs(1);

/// What every connection of a thread is served with.
#[derive(Debug)]
pub struct Site {
    /// Answers requests.
    pub desk: Rc<Desk>,
    /// Takes streams.
    pub shard: Handle,
    /// How a request may begin.
    pub head: Head,
    /// How long a client may take nothing.
    pub write_timeout: Duration,
    /// How long a stream, and a connection that carries many, lives.
    pub lifetime: Option<Duration>,
    /// What TCP connections are encrypted with.
    pub tls: Option<Arc<Keeper>>,
    /// Where tasks of the thread begin.
    pub tasks: TaskTracker,
    /// Once this is cancelled, a connection takes no request after the one that is being answered.
    pub closing: CancellationToken,
}

/// What leaves hyper.
pub enum Exit {
    /// To a shard.
    Stream(Box<Opening>),
    /// To be closed after these bytes, and until then to hold what the request does.
    Farewell(Bytes, Box<Permits>),
}

/// An answer of which the socket has not taken all.
struct Unread {
    deadline: Pin<Box<Sleep>>,
    _permits: Box<Permits>,
}

impl Site {
    /// Comes when a connection that has not asked for anything is waited for no longer.
    pub async fn given_up(&self) {
        self.closing.cancelled().await;
        sleep(UNHEARD).await;
    }

    /// The time for a head of this caller, and for whatever must come before one.
    pub fn time_for(&self, caller: &Caller) -> Duration {
        match caller.is_refused() {
            true => self.head.timeout.min(REFUSED_TIMEOUT),
            false => self.head.timeout,
        }
    }
}

/// Serves one connection until it is closed or handed to the shard.
pub async fn serve(arrival: Arrival, site: Rc<Site>) {
    let Arrival { stream, mut caller } = arrival;
    let tls = match &stream {
        Accepted::Tcp { .. } => site.tls.as_ref().map(|tls| tls.config()),
        Accepted::Unix(_) => None,
    };
    let mut io = Io::new(stream, site.write_timeout);
    if caller.is_announced() {
        let announced = tokio::select! {
            biased;
            () = site.given_up() => return,
            announced = timeout(site.head.timeout, caller.announce(&mut io)) => announced,
        };
        match announced {
            Ok(Ok(Some(()))) => {}
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::info!(%error, proxy = %caller.peer(), "a proxy's connection does not begin as `client_address` says");
                return;
            }
            Err(_) => return site.desk.limits.counts().hit(Limit::HeadTimeout, None),
        }
    }
    if let Some(tls) = tls {
        // Boxed, so that a plain connection does not pay for it.
        return Box::pin(secured::serve(io, caller, tls, site)).await;
    }
    // hyper has 16 KiB for a connection from its beginning, so that one begins with something to read.
    let begun = tokio::select! {
        biased;
        begun = timeout(site.time_for(&caller), io.begin()) => begun,
        () = site.given_up() => return,
    };
    match begun {
        Ok(Ok(Some(Begun::Http1))) => {}
        Ok(Ok(Some(Begun::Http2))) => {
            // The shard is first to end a stream that takes nothing: it knows and counts it as one.
            io.wait_at_most(site.write_timeout * 2);
            // A task of its own, which does not keep the room that reading the request took.
            site.tasks
                .clone()
                .spawn_local(http2::serve(io, caller, site, http2::MAX_PROXIED));
            return;
        }
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection ended early"),
        Err(_) => return site.desk.limits.counts().hit(Limit::HeadTimeout, None),
    }
    let signs = io.signs();
    signs.hasty.set(true);
    let Some((io, read_ahead, exit)) = requests(io, signs, &caller, &site).await else {
        return;
    };
    leave(io, read_ahead, exit, caller, &site.shard, Io::into_socket).await;
}

/// Answers the requests of one connection over HTTP/1.1 until one of them leaves hyper, and with it the connection, what
/// was read of it beyond that request, and whereto. `signs`: those of the socket.
pub async fn requests<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    signs: Rc<Signs>,
    caller: &Caller,
    site: &Site,
) -> Option<(S, Bytes, Exit)> {
    let desk = &site.desk;
    let exit: Rc<Cell<Option<Exit>>> = Rc::default();
    let unread: Rc<Cell<Option<Unread>>> = Rc::default();
    let heard = Cell::new(false);
    let write_timeout = site.write_timeout;
    let service = service_fn(|request: Request<Incoming>| {
        heard.set(true);
        let (desk, exit, unread) = (desk.clone(), exit.clone(), unread.clone());
        let mut guest = caller.guest(request.headers());
        let permits = std::mem::take(&mut guest.permits);
        // Boxed, so that the connection can be taken apart.
        Box::pin(async move {
            let (request, body) = request.into_parts();
            let left = match desk.handle(&request, !body.is_end_stream(), guest).await {
                Outcome::Answer(answer) => {
                    let deadline = Box::pin(sleep(answer::time_to_read(&answer, write_timeout)));
                    unread.set(Some(Unread {
                        deadline,
                        _permits: permits,
                    }));
                    return Ok::<Response<Full<Bytes>>, Infallible>(answer);
                }
                Outcome::Stream(mut opening) => {
                    opening.permits.or(*permits);
                    Exit::Stream(opening)
                }
                Outcome::Farewell(bytes) => Exit::Farewell(bytes, permits),
            };
            exit.set(Some(left));
            // The answer is written elsewhere: hyper must not begin one.
            pending().await
        })
    });
    let mut connection = http1::Builder::new()
        // Without a timer there is no timeout.
        .timer(TokioTimer::new())
        .header_read_timeout(site.time_for(caller))
        .max_buf_size(site.head.size)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);

    let mut drained = pin!(site.closing.cancelled());
    let mut given_up = pin!(site.given_up());
    let (mut draining, mut closing) = (false, false);
    let ended = poll_fn(|cx| {
        draining = draining || drained.as_mut().poll(cx).is_ready();
        loop {
            if draining && !closing && (heard.get() || given_up.as_mut().poll(cx).is_ready()) {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let was_heard = heard.get();
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(result));
            }
            if signs.unwatched.take() && !is_set(&exit) {
                // It goes on, so it must be heard of.
                signs.hasty.set(false);
                continue;
            }
            // Its first request was its last.
            if was_heard == heard.get() || !draining {
                break;
            }
        }
        // An answer is one piece to hyper, which writes of it what the socket takes.
        let mut answer = unread.take().filter(|_| signs.stalled.get());
        let deadline = answer.as_mut().map(|answer| answer.deadline.as_mut());
        if deadline.is_some_and(|deadline| deadline.poll(cx).is_ready()) {
            tracing::debug!("a client that read an answer too slowly was given up");
            return Poll::Ready(None);
        }
        unread.set(answer);
        // An answer to an earlier request must be out before the socket is. hyper waits for that before it goes on to the
        // next request, but promises it nowhere.
        let ready = is_set(&exit) && !signs.stalled.get();
        if ready { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    if let Some(result) = ended {
        if let Err(error) = result {
            match () {
                () if error.is_timeout() => desk.limits.counts().hit(Limit::HeadTimeout, None),
                () if error.is_parse_too_large() => desk.limits.counts().hit(Limit::HeadSize, None),
                () => {}
            }
            tracing::debug!(%error, "a connection ended early");
        }
        return None;
    }
    let parts = connection.into_parts();
    Some((parts.io.into_inner(), parts.read_buf, exit.take()?))
}

fn is_set<T>(cell: &Cell<Option<T>>) -> bool {
    let value = cell.take();
    let is_set = value.is_some();
    cell.set(value);
    is_set
}

/// Goes on with a connection that has left hyper; `into_socket` makes of it what a shard can serve.
pub async fn leave<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    read_ahead: Bytes,
    exit: Exit,
    caller: Caller,
    shard: &Handle,
    into_socket: impl FnOnce(S) -> io::Result<Socket>,
) {
    let mut opening = match exit {
        Exit::Stream(opening) => *opening,
        Exit::Farewell(bytes, _permits) => return farewell(stream, &bytes).await,
    };
    opening.permits.or(caller.into_permits());
    let is_stream = matches!(opening.transport, Transport::Sse { .. });
    // A stream of events is never over, so a request behind it would never be answered. Empty lines are no request.
    if is_stream && read_ahead.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
        let error = "a request that opens a stream must be the last of its connection";
        return farewell(stream, &plain_answer(error)).await;
    }
    match into_socket(stream) {
        Ok(socket) => shard.adopt(Client {
            socket,
            transport: opening.transport,
            head: opening.head,
            read_ahead: if is_stream { Bytes::new() } else { read_ahead },
            session: opening.session,
            until: opening.until,
            gate: opening.gate,
            judged: opening.judged,
            permits: opening.permits,
        }),
        Err(error) => tracing::debug!(%error, "a connection could not be handed over"),
    }
}

/// The last answer of a connection, written without hyper. `error` needs no escaping in JSON.
pub fn plain_answer(error: &str) -> Vec<u8> {
    let body = format!(r#"{{"error":"{error}"}}"#);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    headers.insert("content-length", body.len().into());
    let mut bytes = answer::head(StatusCode::BAD_REQUEST, &headers);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdStream;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;
    use crate::server::Accepted;
    use crate::server::testing::{WRITE_TIMEOUT, arrival, drip, filled, hub, site};

    /// A connection whose client has sent these bytes, and what serves it; the channel `big` has a value of this size.
    async fn connection(bytes: &[u8], size: usize) -> (impl Future<Output = ()>, UnixStream) {
        let (hub, mut appender) = hub(10);
        let held = filled(&hub, &mut appender, size);
        let (site, shard) = site(&hub);
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut client = UnixStream::from_std(theirs).unwrap();
        client.write_all(bytes).await.unwrap();
        let arrival = arrival(&site, Accepted::Unix(ours));
        let serving = async move {
            let _alive = (held, shard);
            serve(arrival, site).await;
        };
        (serving, client)
    }

    /// How long a client is served that sends these bytes and then does nothing more.
    async fn silent(bytes: &[u8]) -> (Duration, UnixStream) {
        // Larger than the buffers of a Unix socket.
        let (serving, client) = connection(bytes, 4 << 20).await;
        let since = Instant::now();
        LocalSet::new().run_until(serving).await;
        (since.elapsed(), client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_cut_off() {
        for head in ["", "GET /events?channel=a HTTP/1.1\r\nHost: re"] {
            let (took, mut client) = silent(head.as_bytes()).await;
            assert!(
                (Head::default().timeout..Head::default().timeout * 2).contains(&took),
                "{head:?}: {took:?}"
            );
            assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_next_request_is_closed() {
        let (took, _client) = silent(b"GET /nothing HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        assert!(
            (Head::default().timeout..Head::default().timeout * 2).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_is_given_up() {
        let (took, _client) = silent(b"GET /channels/big HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        assert!((WRITE_TIMEOUT..WRITE_TIMEOUT * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_by_drips_is_given_up() {
        const SIZE: usize = 16 << 20;
        let (serving, mut client) = connection(b"GET /channels/big HTTP/1.1\r\nHost: relay\r\n\r\n", SIZE).await;
        let both = async { tokio::join!(serving, drip(&mut client, WRITE_TIMEOUT / 8)).1 };
        let (took, size) = LocalSet::new().run_until(both).await;
        let due = WRITE_TIMEOUT + Duration::from_secs(64);
        assert!((due..due + WRITE_TIMEOUT).contains(&took), "{took:?}");
        assert!(size < SIZE, "{size}");
    }

    /// As fast as it must be read, and for longer than a client may take nothing.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_slowly_is_whole() {
        const SIZE: usize = 16 << 20;
        let (serving, mut client) = connection(b"GET /channels/big HTTP/1.1\r\nHost: relay\r\n\r\n", SIZE).await;
        let both = async { tokio::join!(serving, drip(&mut client, Duration::from_millis(250))).1 };
        let (took, size) = LocalSet::new().run_until(both).await;
        assert!(took > WRITE_TIMEOUT, "{took:?}");
        assert!(size > SIZE, "{size}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_answers_are_out_before_the_socket_is() {
        // More answers than the socket takes while nobody reads.
        let count = 2_000;
        let mut requests = "OPTIONS /ws HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(count);
        requests.push_str("GET /events?channel=big HTTP/1.1\r\nHost: relay\r\n\r\nGET");
        let (serving, mut client) = connection(requests.as_bytes(), 1).await;
        let reading = async {
            // The clock moves only when there is nothing left to do: the server waits for this client. The last words of
            // a connection wait for a second.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut all = String::new();
            client.read_to_string(&mut all).await.unwrap();
            assert_eq!(all.matches("HTTP/1.1 204 No Content").count(), count);
            assert!(all.contains("HTTP/1.1 400 Bad Request"));
        };
        let both = async { tokio::join!(serving, reading) };
        LocalSet::new().run_until(both).await;
    }
}

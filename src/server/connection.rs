//! One connection: hyper reads its requests until one of them takes the socket over.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use super::Head;
use super::answer;
use super::door::Arrival;
use super::io::Io;
use super::request::{Desk, Opening, Outcome};
use crate::fanout::{Client, Handle, Transport};
use crate::limits::Limit;

/// The time for the head of a connection that is only to be told that there is no place for it.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);

/// What leaves hyper.
enum Exit {
    Stream(Box<Opening>),
    Farewell(Bytes),
}

/// Serves one connection until it is closed or handed to the shard.
pub async fn serve(arrival: Arrival, desk: Rc<Desk>, shard: Handle, head: Head, write_timeout: Duration) {
    let Arrival { stream, mut caller } = arrival;
    let mut io = match Io::new(stream, write_timeout) {
        Ok(io) => io,
        Err(error) => {
            tracing::debug!(%error, "a connection could not be registered");
            return;
        }
    };
    if caller.is_announced() {
        match timeout(head.timeout, caller.announce(&mut io)).await {
            Ok(Ok(Some(()))) => {}
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::info!(%error, proxy = %caller.peer(), "a proxy's connection does not begin as `client_address` says");
                return;
            }
            Err(_) => return desk.limits.counts().hit(Limit::HeadTimeout, None),
        }
    }
    let time = match caller.is_refused() {
        true => head.timeout.min(REFUSED_TIMEOUT),
        false => head.timeout,
    };
    let stalled = io.stalled();
    let exit: Rc<Cell<Option<Exit>>> = Rc::default();
    let drain = desk.drain.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (desk, exit) = (desk.clone(), exit.clone());
        let guest = caller.guest(request.headers());
        // Boxed, so that the connection can be taken apart.
        Box::pin(async move {
            let (request, body) = request.into_parts();
            let left = match desk.handle(&request, !body.is_end_stream(), guest).await {
                Outcome::Answer(answer) => return Ok::<Response<Full<Bytes>>, Infallible>(answer),
                Outcome::Stream(opening) => Exit::Stream(opening),
                Outcome::Farewell(bytes) => Exit::Farewell(bytes),
            };
            exit.set(Some(left));
            // The answer is written elsewhere: hyper must not begin one.
            pending().await
        })
    });
    let mut connection = http1::Builder::new()
        // Without a timer there is no timeout.
        .timer(TokioTimer::new())
        .header_read_timeout(time)
        .max_buf_size(head.size)
        .half_close(false)
        .serve_connection(TokioIo::new(io), service);

    let mut drained = pin!(drain.cancelled());
    let mut draining = false;
    let ended = poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(result));
        }
        let left = exit.take();
        // An answer to an earlier request must be out before the socket is. hyper waits for that before it goes on to the
        // next request, but promises it nowhere.
        let ready = left.is_some() && !stalled.get();
        exit.set(left);
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
        return;
    }
    let parts = connection.into_parts();
    let (io, read_ahead) = (parts.io.into_inner(), parts.read_buf);
    match exit.take() {
        Some(Exit::Stream(mut opening)) => {
            opening.permits.or(caller.into_permits());
            hand_over(io, read_ahead, *opening, &shard).await;
        }
        Some(Exit::Farewell(bytes)) => io.farewell(&bytes).await,
        None => {}
    }
}

async fn hand_over(io: Io, read_ahead: Bytes, opening: Opening, shard: &Handle) {
    let is_stream = matches!(opening.transport, Transport::Sse { .. });
    // A stream of events is never over, so a request behind it would never be answered. Empty lines are no request.
    if is_stream && read_ahead.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
        io.farewell(&pipelined()).await;
        return;
    }
    match io.into_socket() {
        Ok(socket) => shard.adopt(Client {
            socket,
            transport: opening.transport,
            head: opening.head,
            read_ahead: if is_stream { Bytes::new() } else { read_ahead },
            session: opening.session,
            until: opening.until,
            gate: opening.gate,
            permits: opening.permits,
        }),
        Err(error) => tracing::debug!(%error, "a connection could not be handed over"),
    }
}

/// The answer to a request behind which another one came.
fn pipelined() -> Vec<u8> {
    let body = br#"{"error":"a request that opens a stream must be the last of its connection"}"#;
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
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdStream;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::Verifier;
    use crate::fanout;
    use crate::hub::{Payload, SlotKey, Snapshot};
    use crate::limits::{self, Limits};
    use crate::server::Accepted;
    use crate::server::credentials::Places;
    use crate::server::door::Door;
    use crate::server::gate::Gate;
    use crate::server::origin::Origins;
    use crate::server::testing::hub;
    use crate::server::visitor::Visitors;

    const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

    const HEAD: Head = Head {
        size: 64 << 10,
        timeout: Duration::from_secs(10),
    };

    /// A connection whose client has sent these bytes, and what serves it; the channel `big` has a value of this size.
    async fn connection(bytes: &[u8], size: usize) -> (impl Future<Output = ()>, UnixStream) {
        let (hub, mut appender) = hub(10);
        let held = hub.subscribe("big", true).unwrap();
        let payload = Payload {
            live: vec![b'1'; size].into(),
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        };
        let key = SlotKey {
            source: 0,
            name: Bytes::new(),
        };
        appender.put(held.log(), key, false, Some(payload), std::time::Instant::now());
        appender.fill(held.log());
        appender.commit();
        let limits = Limits::new(limits::Options::default(), Arc::default());
        let desk = Desk {
            path: String::new(),
            origins: Origins::new(&[]),
            places: Places::default(),
            gate: Gate::new(hub.clone(), Verifier::default(), limits.clone()),
            limits,
            channels: 1_000,
            drain: CancellationToken::new(),
        };
        let options = fanout::Options {
            heartbeat: Duration::from_secs(15),
            write_timeout: WRITE_TIMEOUT,
            drain: Duration::from_secs(4),
            bounds: fanout::Bounds::default(),
            pinned: 64 << 20,
        };
        let (shard, handle) = fanout::shard(options, &hub, Arc::default(), 0).unwrap();
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut client = UnixStream::from_std(theirs).unwrap();
        client.write_all(bytes).await.unwrap();
        let door = Door::new(desk.limits.clone(), Visitors::default());
        let arrival = door.admit(Accepted::Unix(ours)).unwrap();
        let serving = async move {
            let _alive = (held, shard);
            serve(arrival, Rc::new(desk), handle, HEAD, WRITE_TIMEOUT).await;
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
            assert!((HEAD.timeout..HEAD.timeout * 2).contains(&took), "{head:?}: {took:?}");
            assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_next_request_is_closed() {
        let (took, _client) = silent(b"GET /nothing HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        assert!((HEAD.timeout..HEAD.timeout * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_is_given_up() {
        let (took, _client) = silent(b"GET /channels/big HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        assert!((WRITE_TIMEOUT..WRITE_TIMEOUT * 2).contains(&took), "{took:?}");
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

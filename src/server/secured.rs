//! A connection over TLS, from its first byte on.
//!
//! Once a request over HTTP/1.1 is for a stream, the connection leaves hyper as a plain one does; in place of its socket
//! the shard is given a pipe, and a task of its own carries the bytes between it and TLS. Streams over HTTP/2 are in
//! [`http2`](super::http2).

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Site, leave, plain_answer, requests};
use super::door::Caller;
use super::http2;
use super::io::{Io, farewell};
use super::tls::HTTP_2;
use crate::fanout::{Far, Parting, Socket, pipe};
use crate::limits::Limit;

/// Bytes that wait, encrypted, for a socket that takes nothing: one record. What waits here is sent even if it is
/// superseded meanwhile.
const UNSENT: usize = 16 * 1024;

/// The first byte of a connection that begins with TLS: the type of a record with a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// Read at once from a client.
const READ: usize = 2 * 1024;

/// Serves one connection until it is closed or its stream has ended. The handshake may take as long as a head.
pub async fn serve(io: Io, caller: Caller, config: Arc<ServerConfig>, site: Rc<Site>) {
    let begun = tokio::select! {
        biased;
        () = site.given_up() => return,
        begun = timeout(site.time_for(&caller), begin(io, config)) => begun,
    };
    let mut stream = match begun {
        Ok(Some(stream)) => stream,
        Ok(None) => return,
        Err(_) => return site.desk.limits.counts().hit(Limit::HeadTimeout, None),
    };
    let (io, session) = stream.get_mut();
    session.set_buffer_limit(Some(UNSENT));
    if session.alpn_protocol() == Some(HTTP_2) {
        // The shard is first to end a stream that takes nothing: it knows and counts it as one.
        io.wait_at_most(site.write_timeout * 2);
        // A task of its own, which does not keep the room that the handshake took.
        site.tasks
            .clone()
            .spawn_local(http2::serve(stream, caller, site, http2::MAX_STREAMS));
        return;
    }
    let signs = io.signs();
    let Some((stream, read_ahead, exit)) = requests(stream, signs, &caller, &site).await else {
        return;
    };
    leave(stream, read_ahead, exit, caller, &site.shard, |mut stream| {
        stream.get_mut().0.wait_at_most(site.write_timeout * 2);
        let (near, far) = pipe();
        site.tasks.spawn_local(carry(stream, far));
        Ok(Socket::Piped(near))
    })
    .await;
}

async fn begin(mut io: Io, config: Arc<ServerConfig>) -> Option<TlsStream<Io>> {
    let mut first = [0];
    if io.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first != [HANDSHAKE] {
        tracing::debug!("a connection began without TLS");
        if first[0].is_ascii_uppercase() {
            let error = "TLS is spoken here: begin the URL with https:// (wss://)";
            farewell(io, &plain_answer(error)).await;
        }
        return None;
    }
    match TlsAcceptor::from(config).accept(io).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// Carries bytes between a client and the shard, until the shard lets go of it or it has gone.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, far: Far) {
    let mut far = far;
    let watch = far.watch();
    let mut carrier = Carrier::default();
    let whole = std::future::poll_fn(|cx| {
        let carried = carrier.poll(&mut stream, &mut far, cx);
        match carried {
            Poll::Ready(Ok(())) => watch.poll_parting(cx).map(|_| true),
            Poll::Ready(Err(_)) => Poll::Ready(false),
            // Asked here as well: while bytes wait for the socket, nothing is taken from the shard, and its word not heard.
            Poll::Pending => match watch.poll_parting(cx) {
                Poll::Ready(Parting::GivenUp) => Poll::Ready(false),
                _ => Poll::Pending,
            },
        }
    })
    .await;
    drop(far);
    if whole {
        // Boxed, since it is needed for a moment only.
        Box::pin(farewell(stream, b"")).await;
    }
}

#[derive(Debug, Default)]
struct Carrier {
    /// Taken from the shard and not yet written.
    rest: Bytes,
    /// The client will send nothing more.
    heard: bool,
    /// The shard has nothing more to say.
    said: bool,
    /// The client was told so.
    closed: bool,
}

impl Carrier {
    /// Ready when all was carried to the client that the shard has to say; an error if one of the two is gone.
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        far: &mut Far,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_up(stream, far, cx)?;
        self.poll_down(stream, far, cx)
    }

    fn poll_up<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        far: &mut Far,
        cx: &mut Context<'_>,
    ) -> std::io::Result<()> {
        while !self.heard {
            let Poll::Ready(room) = far.poll_room(cx) else { break };
            let mut space = [0; READ];
            let mut buffer = ReadBuf::new(&mut space[..room.min(READ)]);
            let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut buffer) else {
                break;
            };
            read?;
            match buffer.filled() {
                [] => {
                    self.heard = true;
                    far.end();
                }
                bytes => far.put(bytes),
            }
        }
        Ok(())
    }

    fn poll_down<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        far: &mut Far,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut stream = Pin::new(stream);
        while !self.said {
            if self.rest.is_empty() {
                match far.poll_take(cx)? {
                    Poll::Ready(bytes) if bytes.is_empty() => {
                        self.said = true;
                        break;
                    }
                    Poll::Ready(bytes) => self.rest = bytes,
                    Poll::Pending => break,
                }
            }
            match stream.as_mut().poll_write(cx, &self.rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(size) => self.rest.advance(size),
                Poll::Pending => break,
            }
        }
        let flushed = stream.as_mut().poll_flush(cx)?;
        if self.said && flushed.is_ready() && !self.closed {
            self.closed = stream.poll_shutdown(cx)?.is_ready();
        }
        match self.closed {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use rustls::crypto::ring;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::LocalSet;
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::server::Head;
    use crate::server::door::Arrival;
    use crate::server::listen::Accepted;
    use crate::server::testing::{WRITE_TIMEOUT, arrival, drip, filled, hub, site};

    fn config() -> Arc<ServerConfig> {
        configs().0
    }

    /// Of the relay, and of a client that trusts it.
    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let server = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        (Arc::new(server), Arc::new(client))
    }

    /// What a client gets that sends these bytes and then does nothing more, and how long it is served.
    async fn silent(bytes: &[u8]) -> (Vec<u8>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (hub, _appender) = hub(10);
        let (site, _shard) = site(&hub);
        let Arrival { stream, caller } = arrival(
            &site,
            Accepted::Tcp {
                stream: ours,
                peer: None,
            },
        );
        let io = Io::new(stream, WRITE_TIMEOUT);
        client.write_all(bytes).await.unwrap();
        let since = Instant::now();
        let mut answer = Vec::new();
        let reading = async {
            // A reset is an end as well.
            let _ = client.read_to_end(&mut answer).await;
            drop(client);
        };
        LocalSet::new()
            .run_until(async { tokio::join!(serve(io, caller, config(), site), reading) })
            .await;
        (answer, since.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_never_ends_is_cut_off() {
        // Nothing, and the beginning of a record.
        for bytes in [&b""[..], &[HANDSHAKE, 3, 1, 0, 200, 1, 0, 0]] {
            let (answer, took) = silent(bytes).await;
            assert_eq!(answer, b"");
            assert!(
                (Head::default().timeout..Head::default().timeout * 2).contains(&took),
                "{bytes:?}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_by_drips_is_given_up() {
        const SIZE: usize = 16 << 20;
        let (hub, mut appender) = hub(10);
        let _held = filled(&hub, &mut appender, SIZE);
        let (site, _shard) = site(&hub);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let Arrival { stream, caller } = arrival(&site, Accepted::Unix(ours));
        let io = Io::new(stream, WRITE_TIMEOUT);
        let (server, client) = configs();
        let reading = async {
            let socket = tokio::net::UnixStream::from_std(theirs).unwrap();
            let name = "relay.test".try_into().unwrap();
            let mut stream = TlsConnector::from(client).connect(name, socket).await.unwrap();
            let request = b"GET /channels/big HTTP/1.1\r\nHost: relay.test\r\n\r\n";
            stream.write_all(request).await.unwrap();
            drip(&mut stream, WRITE_TIMEOUT / 32).await
        };
        let both = async { tokio::join!(serve(io, caller, server, site), reading).1 };
        let (took, size) = LocalSet::new().run_until(both).await;
        let due = WRITE_TIMEOUT + Duration::from_secs(64);
        assert!((due..due + WRITE_TIMEOUT).contains(&took), "{took:?}");
        assert!(size < SIZE, "{size}");
    }

    /// While bytes wait for its socket, of which it takes none.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_the_shard_gives_up_is_let_go_at_once() {
        let (near, far) = pipe();
        let (ours, _client) = tokio::io::duplex(16);
        near.send(&[b'x'; 100]).unwrap();
        let giving_up = async {
            // The clock moves only when all is carried that can be.
            tokio::time::sleep(Duration::from_millis(1)).await;
            near.give_up();
        };
        let since = Instant::now();
        let both = async { tokio::join!(carry(ours, far), giving_up) };
        assert!(tokio::time::timeout(WRITE_TIMEOUT * 3, both).await.is_ok());
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_something_else_is_told_or_closed() {
        let (answer, took) = silent(b"GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("https://"), "{answer}");
        assert!(took < Head::default().timeout, "{took:?}");
        let (answer, took) = silent(b"\x00\x01\x02").await;
        assert_eq!((answer, took < Head::default().timeout), (Vec::new(), true));
    }
}

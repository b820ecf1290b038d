//! HTTP/2, over TLS or by prior knowledge: a connection that reads only while it is asked to, so that a client can be slow.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::eventually::PATIENCE;
use super::http::{Head, More};

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// One connection.
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Empty<Bytes>>,
}

/// The body of one answer.
pub struct Body {
    incoming: Incoming,
}

impl Http2 {
    /// Speaks HTTP/2 on a connection, with windows of this many bytes for each stream: over TLS, or without it if it is known
    /// that the relay understands it.
    #[track_caller]
    pub fn begin(stream: TcpStream, config: Option<Arc<ClientConfig>>, window: Option<usize>) -> Http2 {
        stream.set_nonblocking(true).expect("a socket");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, connection) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            let is_known = config.is_none();
            let stream: Box<dyn Socket> = match config {
                None => Box::new(stream),
                Some(config) => {
                    let name = ServerName::try_from("relay.test").expect("a name");
                    let stream = TlsConnector::from(config).connect(name, stream).await;
                    let stream = stream.expect("a TLS handshake");
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    Box::new(stream)
                }
            };
            let mut builder = http2::Builder::new(TokioExecutor::new());
            if let Some(window) = window {
                builder.initial_stream_window_size(window as u32);
            }
            if is_known {
                // As proxies have it: what one of a thousand streams has not read yet is in the way of no other.
                builder.initial_connection_window_size(16 << 20);
            }
            builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2 begins")
        });
        runtime.spawn(connection);
        Http2 { runtime, sender }
    }

    /// Sends a request and reads the head of its answer.
    #[track_caller]
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> (Head, Body) {
        self.try_send(method, target, headers).expect("an answer")
    }

    /// The same; nothing if the relay takes no request any more.
    #[track_caller]
    pub fn try_send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<(Head, Body)> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("https://relay.test{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).expect("a request");
        let answering = self.sender.send_request(request);
        let answer = self.runtime.block_on(async { timeout(PATIENCE, answering).await });
        let answer = answer.expect("an answer in time").ok()?;
        let headers = answer.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
        let head = Head {
            status: answer.status().as_u16(),
            headers: headers.collect(),
        };
        let incoming = answer.into_body();
        Some((head, Body { incoming }))
    }

    /// Reads what comes next of a body.
    pub fn read(&mut self, body: &mut Body, wait: Duration) -> Result<Bytes, More> {
        let frame = self
            .runtime
            .block_on(async { timeout(wait, body.incoming.frame()).await });
        match frame {
            Err(_) => Err(More::Nothing),
            Ok(None) => Err(More::Ended),
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(_))) => Err(More::Cut),
        }
    }

    /// Whether the other side takes further requests.
    pub fn is_open(&mut self, wait: Duration) -> bool {
        let ready = self
            .runtime
            .block_on(async { timeout(wait, self.sender.ready()).await });
        matches!(ready, Ok(Ok(())))
    }
}

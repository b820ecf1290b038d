//! What operators and their tools ask: whether it lives, whether it is ready, what it counts, how it stands.
//!
//! It has a listener of its own, so that none of this is ever open to those whom the public listener serves.
//!
//! * `health`: `/livez` and `/readyz`
//! * `metrics`: `/metrics`
//! * `status`: `/status`, and the same in a line

mod health;
mod metrics;
mod status;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::server::{Accepted, Address, Io, Listener, accept};
use crate::{fanout, relay};
use metrics::Metrics;
pub use status::line;

/// Most connections at once: a few scrapers and probes keep one each, and anything more must not take descriptors from
/// clients. Further ones wait.
const MAX_CONNECTIONS: usize = 32;

/// Time for a whole head, and between two requests of one connection: longer than most intervals of scraping.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest head in bytes.
const MAX_HEAD: usize = 16 << 10;

/// An answer that is not taken within this time is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the admin listener needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Address,
}

/// Those who know what is asked for.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The channels.
    pub hub: Arc<Hub>,
    /// The clients.
    pub fanout: Arc<fanout::Stats>,
    /// The mirror and the upstream nodes.
    pub relay: Arc<relay::Stats>,
    /// Cancelled when the drain begins.
    pub drain: CancellationToken,
}

/// Says on stdout where it listens (`admin http://127.0.0.1:7401`).
pub fn announce(listener: &Listener) {
    let mut stdout = io::stdout().lock();
    let line = match listener.address() {
        Address::Tcp(address) => format!("admin http://{address}"),
        address @ Address::Unix(_) => format!("admin {address}"),
    };
    // A closed stdout is no reason not to serve.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Answers until it is dropped, in a drain too.
///
/// # Errors
/// If connections cannot be accepted.
pub async fn run(listener: Listener, sources: Sources) -> io::Result<()> {
    let desk = Desk {
        metrics: Metrics::new(sources.clone()),
        sources,
    };
    let (sender, mut incoming) = mpsc::channel(1);
    let mut accepting = pin!(accept(listener, Some, vec![sender], CancellationToken::new()));
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            ended = &mut accepting => return ended,
            Some(stream) = incoming.recv(), if connections.len() < MAX_CONNECTIONS => {
                connections.push(serve(stream, &desk));
            }
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: Accepted, desk: &Desk) {
    let io = match Io::new(stream, WRITE_TIMEOUT) {
        Ok(io) => io,
        Err(error) => {
            tracing::debug!(%error, "an admin connection could not be registered");
            return;
        }
    };
    let answer = |request: Request<_>| {
        let answer = desk.answer(&request);
        async { Ok::<_, Infallible>(answer) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service_fn(answer));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Answers requests.
#[derive(Debug)]
struct Desk {
    sources: Sources,
    metrics: Metrics,
}

impl Desk {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let path = request.uri().path();
        if !["/livez", "/readyz", "/metrics", "/status"].contains(&path) {
            let urls = "there are /livez, /readyz, /metrics and /status\n";
            return whole(StatusCode::NOT_FOUND, TEXT, urls.into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/livez" => whole(StatusCode::OK, TEXT, "alive\n".into()),
            "/readyz" => {
                let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
                let (ready, text) = health::text(&health::parts(&self.sources), verbose);
                let status = match ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                whole(status, TEXT, text)
            }
            "/metrics" => {
                let accept = request.headers().get_all(ACCEPT).iter();
                let (kind, text) = self.metrics.text(accept.filter_map(|value| value.to_str().ok()));
                whole(StatusCode::OK, kind, text)
            }
            _ => whole(StatusCode::OK, "application/json", status::json(&self.sources)),
        }
    }
}

fn whole(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

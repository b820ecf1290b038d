//! The page of the demo, served from an origin of its own as an app would serve it.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

const PAGE: &str = include_str!("page.html");

/// The page with its places filled in: where the events come from, and how to talk to the server.
pub fn fill(events: &str, client: &str) -> String {
    PAGE.replace("__EVENTS__", events).replace("__CLI__", client)
}

/// Serves the page at `/` until stopped.
pub fn serve(listener: TcpListener, page: String, stop: CancellationToken) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let page = Arc::new(Bytes::from(page));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return Ok(()),
            };
            // A client that is gone before it is accepted is no reason to stop.
            let Ok((socket, _)) = accepted else { continue };
            let page = page.clone();
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = respond(&request, &page);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::task::spawn_local(async move {
                // The browser went away: nothing to do.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), answer)
                    .await;
            });
        }
    })
}

fn respond<B>(request: &Request<B>, page: &Bytes) -> Response<Full<Bytes>> {
    let mut response = match request.uri().path() {
        "/" => Response::new(Full::new(page.clone())),
        _ => {
            let mut missing = Response::new(Full::new(Bytes::from_static(b"the page is at /\n")));
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_place_left_open() {
        let page = fill("http://127.0.0.1:1/events?channel=room:lobby", "redis-cli -p 2");
        assert!(!page.contains("__"));
        assert!(page.contains("redis-cli -p 2 set room:lobby:topic"));
    }
}

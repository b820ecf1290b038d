//! Answers requests that are for no stream.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::host::Reach;
use super::metrics::Metrics;
use super::status::Status;
use super::streams::CHANNELS;
use super::{Sources, health};
use crate::server::{Answer, Front};

/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";

/// The dashboard: it asks nobody but this listener for anything, and runs nothing that does not come from here. Its styles
/// and its script stand in files of their own for that, as the policy lets in nothing inline.
const PAGE: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/dashboard.html")),
    (
        "/dashboard.css",
        "text/css; charset=utf-8",
        include_str!("page/dashboard.css"),
    ),
    (
        "/dashboard.js",
        "text/javascript; charset=utf-8",
        include_str!("page/dashboard.js"),
    ),
];

/// What every answer has. No page may show one in a frame, take one for a resource of its own, or learn from a window that
/// shows it; and whatever a channel's name may hold, nothing of it is run.
const HEADERS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Answers requests.
#[derive(Debug)]
pub struct Desk {
    /// Those who know what is asked for.
    pub sources: Sources,
    /// Encodes the counts.
    pub metrics: Metrics,
    /// Who may reach the listener.
    pub reach: Reach,
}

impl Front for Desk {
    fn answer<'a>(&'a self, request: &'a Parts) -> Pin<Box<dyn Future<Output = Option<Answer>> + 'a>> {
        Box::pin(self.judge(request))
    }
}

impl Desk {
    async fn judge(&self, request: &Parts) -> Option<Answer> {
        let path = request.uri.path();
        let for_machines = ["/livez", "/readyz", "/metrics"].contains(&path);
        let host = request.headers.get(HOST);
        if !self
            .reach
            .admits(host.map(|host| host.to_str().unwrap_or_default()), for_machines)
        {
            let why = "by this name a page of a stranger may have led here: ask by the address, or as localhost (ssh -L, \
                       fly proxy, kubectl port-forward)\n";
            return Some(whole(StatusCode::FORBIDDEN, TEXT, why));
        }
        if path == "/events" {
            return stray(request.uri.query().unwrap_or_default());
        }
        let file = PAGE.iter().find(|(name, ..)| *name == path);
        if file.is_none() && !for_machines && path != "/status" {
            let urls = "there are /, /livez, /readyz, /metrics, /status and /events\n";
            return Some(whole(StatusCode::NOT_FOUND, TEXT, urls));
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut answer = whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(answer);
        }
        if let Some((_, kind, text)) = file {
            return Some(whole(StatusCode::OK, kind, *text));
        }
        Some(match path {
            "/livez" => whole(StatusCode::OK, TEXT, "alive\n"),
            "/readyz" => {
                let query = request.uri.query().unwrap_or_default();
                let verbose = query.split('&').any(|part| part.split('=').next() == Some("verbose"));
                let (ready, text) = health::text(&health::parts(&self.sources), verbose);
                let status = match ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                whole(status, TEXT, text)
            }
            "/metrics" => {
                let accept = request.headers.get_all(ACCEPT).iter();
                let (kind, text) = self.metrics.text(accept.filter_map(|value| value.to_str().ok()));
                whole(StatusCode::OK, kind, text)
            }
            _ => whole(
                StatusCode::OK,
                "application/json",
                Status::of(&self.sources).await.json(),
            ),
        })
    }
}

/// Refuses those who ask for channels that are not here: it is the other listener that they mean. That none of its mappings
/// gives such a channel, which the streams would say, need not be so.
fn stray(query: &str) -> Option<Answer> {
    let mut asked = form_urlencoded::parse(query.as_bytes());
    let is_stray = asked.any(|(name, value)| matches!(&*name, "channel" | "channel[]") && !CHANNELS.contains(&&*value));
    let error = format!(
        "this is the listener for operators, and its channels are {}; clients connect to `listen` of [server]",
        CHANNELS.join(", ")
    );
    let body = serde_json::json!({ "error": error }).to_string();
    is_stray.then(|| whole(StatusCode::NOT_FOUND, "application/json", body))
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

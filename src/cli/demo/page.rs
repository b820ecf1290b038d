//! The page of the demo: its files, and the endpoint that its clicks go to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use redis_protocol::resp3::types::OwnedFrame;
use serde_json::json;
use tokio::net::TcpListener;

use super::action::Action;
use super::server::{Names, Server};
use crate::upstream::LinkError;

/// What the page is made of: path, type, content.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("page/page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/visitor.js", SCRIPT, include_str!("page/visitor.js")),
    ("/widgets.js", SCRIPT, include_str!("page/widgets.js")),
    ("/words.js", SCRIPT, include_str!("page/words.js")),
    ("/picture.js", SCRIPT, include_str!("page/picture.js")),
    ("/connections.js", SCRIPT, include_str!("page/connections.js")),
    ("/times.js", SCRIPT, include_str!("page/times.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// Longest body of a click in bytes: all texts of the longest action, each character escaped.
const MAX_BODY: usize = 2 << 10;

/// Connections at once: a browser has six for each of its tabs at most, and keeps them. Further ones wait.
const MAX_CONNECTIONS: usize = 128;

/// How long it waits before it accepts again where that failed.
const BACK_OFF: Duration = Duration::from_millis(10);

/// How long a server stands: long enough to see what keyrelay says of it, and short of being taken for lost (10 s).
const FREEZE: Duration = Duration::from_secs(5);

/// A browser says by this whether the page that asks is of the same origin.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// One region, as the page knows it.
pub struct Region {
    /// A short name, part of keys.
    pub name: &'static str,
    /// What people call it.
    pub city: &'static str,
    /// Where its keys are.
    pub server: Rc<Server>,
    /// Where its relay listens, e.g. `http://127.0.0.1:7400`.
    pub relay: String,
    /// Where its relay answers operators.
    pub admin: String,
}

/// All that is asked for at one address.
pub struct Site {
    /// Where it is, and from where clicks must come.
    address: SocketAddr,
    regions: Vec<Region>,
    settings: Bytes,
    policy: HeaderValue,
}

type Answer = Response<Full<Bytes>>;

impl Site {
    /// The site at this address. `names` are those of the servers; there is one for each region if they can replicate.
    pub fn new(address: SocketAddr, names: &Names, regions: Vec<Region>) -> anyhow::Result<Site> {
        let described: Vec<_> = regions
            .iter()
            .map(|region| {
                json!({
                    "name": region.name,
                    "city": region.city,
                    "relay": region.relay,
                    "admin": region.admin,
                    "client": region.server.client(),
                })
            })
            .collect();
        let settings = json!({
            "server": names.server,
            "replicated": names.replicates,
            "freeze_ms": FREEZE.as_millis() as u64,
            "regions": described,
        });
        let mut policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                          connect-src 'self'"
            .to_owned();
        for region in &regions {
            let socket = region.relay.replacen("http", "ws", 1);
            policy.push_str(&format!(" {} {socket}", region.relay));
        }
        Ok(Site {
            address,
            regions,
            settings: settings.to_string().into(),
            policy: policy.parse()?,
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = match self.route(request).await {
            Ok(answer) => answer,
            Err(Refused(status, why)) => {
                let mut refused = whole(JSON, json!({ "error": why }).to_string());
                *refused.status_mut() = status;
                refused
            }
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let path = request.uri().path();
        if *request.method() == Method::GET {
            if path == "/settings.json" {
                return Ok(whole(JSON, self.settings.clone()));
            }
            let found = FILES.iter().find(|(name, ..)| *name == path);
            let (_, kind, text) = found.ok_or_else(|| Refused(StatusCode::NOT_FOUND, "the page is at /".to_owned()))?;
            return Ok(whole(kind, *text));
        }
        let at = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let (region, what) = at
            .and_then(|(name, what)| Some((self.regions.iter().find(|region| region.name == name)?, what)))
            .ok_or_else(|| Refused(StatusCode::NOT_FOUND, "there is no such region".to_owned()))?;
        if *request.method() != Method::POST {
            return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST".to_owned()));
        }
        clicked(request.headers(), self.address)?;
        match what {
            "write" => region.write(request.into_body()).await,
            "freeze" => region.freeze(),
            _ => Err(Refused(
                StatusCode::NOT_FOUND,
                "a region has `write` and `freeze`".to_owned(),
            )),
        }
    }
}

impl Region {
    async fn write(&self, body: Incoming) -> Result<Answer, Refused> {
        let wrong = |why| Refused(StatusCode::BAD_REQUEST, why);
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| wrong(error.to_string()))?.to_bytes();
        let action: Action = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        let commands = action.commands(self.name).map_err(wrong)?;
        let commands: Vec<&[String]> = commands.iter().map(Vec::as_slice).collect();
        let reply = self.server.send(&commands).await;
        let reply = reply.map_err(|error| {
            let status = match error {
                // It is there: what the key holds does not fit, as a list does not where one counts.
                LinkError::Refused { .. } => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            Refused(status, format!("not written: {error}"))
        })?;
        let number = match reply {
            OwnedFrame::Number { data, .. } => Some(data),
            _ => None,
        };
        Ok(whole(JSON, json!({ "number": number }).to_string()))
    }

    fn freeze(&self) -> Result<Answer, Refused> {
        let failed = |error: std::io::Error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let frozen = self.server.freeze().map_err(failed)?;
        let frozen = frozen.ok_or_else(|| Refused(StatusCode::CONFLICT, "the server stands already".to_owned()))?;
        // Whoever asked may be gone before it goes on.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(FREEZE).await;
            drop(frozen);
        });
        Ok(whole(JSON, "{}"))
    }
}

/// Why a request is not done, for whoever looks at the page.
struct Refused(StatusCode, String);

/// Serves the site; ends when it is dropped. It needs a `LocalSet` around it.
pub async fn serve(listener: &TcpListener, site: Site) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let Ok((socket, _)) = accepted else {
                    // It may be gone already; or there are no descriptors, and soon there are.
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                };
                let answer = service_fn(|request| async { Ok::<_, Infallible>(site.answer(request).await) });
                connections.push(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
            }
            // One that broke is as good as one that ended.
            Some(_) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

/// Whether it is our own page that writes: browsers say of each POST which page has sent it, and let no page send JSON
/// elsewhere without asking.
fn clicked(headers: &HeaderMap, address: SocketAddr) -> Result<(), Refused> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(ORIGIN) == Some(&format!("http://{address}"));
    if !own || text(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin") {
        return Err(Refused(
            StatusCode::FORBIDDEN,
            "only the demo's own page may write".to_owned(),
        ));
    }
    match text(CONTENT_TYPE) == Some(JSON) {
        true => Ok(()),
        false => Err(Refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the body must be {JSON}"),
        )),
    }
}

fn whole(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(pair).collect()
    }

    /// A page of another origin can send a click only with a header that gives it away.
    #[test]
    fn only_the_page_itself_may_write() {
        let address: SocketAddr = "127.0.0.1:5000".parse().expect("an address");
        let own = ("origin", "http://127.0.0.1:5000");
        let json = ("content-type", "application/json");
        let same = ("sec-fetch-site", "same-origin");
        let status = |lines: &[(&'static str, &'static str)]| match clicked(&headers(lines), address) {
            Ok(()) => 200,
            Err(Refused(status, _)) => status.as_u16(),
        };
        assert_eq!(status(&[own, json, same]), 200);
        assert_eq!(status(&[own, json]), 200, "older browsers do not say it");
        assert_eq!(status(&[json, same]), 403);
        assert_eq!(status(&[("origin", "null"), json]), 403);
        assert_eq!(
            status(&[
                ("origin", "http://127.0.0.1:5001"),
                json,
                ("sec-fetch-site", "same-site")
            ]),
            403
        );
        assert_eq!(status(&[own, json, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status(&[own, same]), 415);
        assert_eq!(status(&[own, same, ("content-type", "text/plain")]), 415);
    }
}

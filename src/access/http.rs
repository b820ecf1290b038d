//! A client for one HTTP request at a time, to those places only that the config or the command line names.
//!
//! It follows no redirect, uses no proxy, keeps no connection, and reads no more than it was told to.

mod stream;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection};
use hyper::header::{HOST, HeaderValue};
use hyper::http::response::Parts;
use hyper::http::uri::{InvalidUri, PathAndQuery};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use stream::Stream;

/// Endings of names that are not given out on the internet: RFC 6761, RFC 6762, RFC 8375, ICANN's `.internal`, and what
/// Kubernetes resolves inside a cluster.
const PRIVATE_NAMES: [&str; 7] = ["localhost", "local", "internal", "lan", "arpa", "svc", "test"];

/// How long nothing comes before the other end is asked whether it is there, and asked again. Nine questions (Linux's
/// tcp_keepalive_probes) without an answer end the connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where a request goes: https, or http within the machine or a private network.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    https: bool,
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    path: PathAndQuery,
}

/// Why a text is not such a URL, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct UrlError {
    /// What is wrong with it.
    pub what: &'static str,
    /// Why that is refused.
    pub why: &'static str,
    /// What to write instead.
    pub instead: String,
}

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    tls: Option<TlsConnector>,
}

/// An answer whose body is read while it comes.
pub struct Streamed {
    /// Status and headers.
    pub head: Parts,
    body: Incoming,
    connection: Connection<TokioIo<Stream>, Full<Bytes>>,
    /// It has nothing more to do.
    driven: bool,
}

/// What came back: status and headers, and the body.
pub type Answer = (Parts, Bytes);

/// Why nothing came back that is of use; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system's trust store is empty.
    #[error("the system trusts no authority: install the package ca-certificates")]
    NoRoots,
    /// The name is not known.
    #[error("its host has no address: {0}")]
    Resolve(io::Error),
    /// The name leads over http to the internet.
    #[error(
        "http leads to an address that is not private ({0}): what is sent could be read and changed on the way; use https"
    )]
    Public(IpAddr),
    /// Nobody accepts a connection.
    #[error("it cannot be connected to: {0}")]
    Connect(io::Error),
    /// The other side is not trusted.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// What came is no TLS.
    #[error(
        "it does not speak TLS at this port: name another port, or write http:// if it is within this machine or a private network"
    )]
    NotTls,
    /// What came is no HTTP, or nothing came; with all causes.
    #[error("HTTP failed: {0}")]
    Http(String),
    /// The body is longer than this many bytes.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection ended before the body did.
    #[error("its answer broke off")]
    Broken,
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> ClientError {
        // As text: a source would be told a second time by whoever tells of sources too.
        let mut told = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            told.push_str(&format!(": {error}"));
            cause = error.source();
        }
        ClientError::Http(told)
    }
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is none, or leads over http to the internet.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let wrong = |what, why, instead: String| UrlError { what, why, instead };
        // What stands where a scheme would may be all that is missing.
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        let whole = match (host.is_empty(), could_be_private(host)) {
            (true, _) => "write e.g. https://app.example.com/path".to_owned(),
            (false, true) => format!("write http://{rest}"),
            (false, false) => format!("write https://{rest}"),
        };
        let whole = |what| wrong(what, "scheme, host and path are needed", whole.clone());
        let uri: Uri = text.parse().map_err(|_| whole("not a URL"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(whole("neither https:// nor http://")),
        };
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong(
                "a user or password in the URL",
                "they are not sent",
                "leave out what stands before the @".into(),
            ));
        }
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(whole("no host"));
        }
        if !https && !could_be_private(host) {
            return Err(wrong(
                "http over the internet",
                "who sits in between could read what is sent, and answer in another's place",
                format!(
                    "write https{}; http will do within this machine or a private network",
                    &text[4..]
                ),
            ));
        }
        Ok(Url {
            https,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }

    /// The URL of this path below this one. Whoever wrote one of these ends means what is above it.
    ///
    /// # Errors
    /// If it is none, as one that is too long.
    pub fn below(&self, ends: &[&str], path: &str) -> Result<Url, InvalidUri> {
        let base = self.path.path().trim_end_matches('/');
        let base = ends.iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
        Ok(Url {
            path: format!("{base}{path}").parse()?,
            ..self.clone()
        })
    }

    /// The request as it is sent there.
    fn address(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        *request.uri_mut() = Uri::from(self.path.clone());
        let host = self.authority().parse().expect("the host of a URL is a header's value");
        request.headers_mut().insert(HOST, host);
        request
    }

    /// As in the header `Host` (RFC 9110 §7.2).
    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Without the query, which may hold a secret.
impl Url {
    /// Whether a redirect from here leads to the same path over TLS, on whatever host: a server that insists on TLS says
    /// so to every request.
    pub(super) fn moves_to_tls(&self, location: Option<&HeaderValue>) -> bool {
        let target = location.and_then(|location| location.to_str().ok()?.parse::<Uri>().ok());
        target.is_some_and(|target| {
            !self.https && target.scheme_str() == Some("https") && target.path() == self.path.path()
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Client {
    /// One that trusts whom the system trusts.
    pub fn new() -> Client {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Client::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> Client {
        if roots.is_empty() {
            return Client { tls: None };
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Client {
            tls: Some(TlsConnector::from(Arc::new(config))),
        }
    }

    /// Sends a request to the URL and reads the answer, of at most so many bytes. It takes as long as it takes: the caller
    /// bounds it, and ends it by dropping it.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn send(&self, url: &Url, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, ClientError> {
        exchange(self.connect(url).await?, url.address(request), most).await
    }

    /// Sends a request to the URL and leaves the body of the answer to be read while it comes.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn open(&self, url: &Url, request: Request<Full<Bytes>>) -> Result<Streamed, ClientError> {
        let stream = TokioIo::new(self.connect(url).await?);
        let (mut sender, mut connection) = http1::handshake(stream).await?;
        let mut sent = std::pin::pin!(sender.send_request(url.address(request)));
        let (answer, driven) = tokio::select! {
            biased;
            answer = &mut sent => (answer?, false),
            // What went wrong with it the request hears as well.
            _ = &mut connection => (sent.await?, true),
        };
        let (head, body) = answer.into_parts();
        Ok(Streamed {
            head,
            body,
            connection,
            driven,
        })
    }

    async fn connect(&self, url: &Url) -> Result<Stream, ClientError> {
        let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(ClientError::Resolve)?.collect();
        // Of a name the config could not know where it leads.
        if !url.https
            && let Some(public) = addresses.iter().find(|address| !is_private(address.ip()))
        {
            return Err(ClientError::Public(public.ip()));
        }
        let stream = TcpStream::connect(&addresses[..]).await.map_err(ClientError::Connect)?;
        stream.set_nodelay(true).map_err(ClientError::Connect)?;
        // A stream may be silent for minutes, and its other end gone without a word.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keepalive)
            .map_err(ClientError::Connect)?;
        if !url.https {
            return Ok(Stream::Plain(stream));
        }
        let tls = self.tls.as_ref().ok_or(ClientError::NoRoots)?;
        let name = ServerName::try_from(url.host.clone())
            .map_err(|error| ClientError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = tls.connect(name, stream).await.map_err(of_tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Streamed {
    /// The next bytes of the body; `None` at its end. What has come is not lost if this is dropped while it waits.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.body.frame() => frame,
                _ = &mut self.connection, if !self.driven => {
                    self.driven = true;
                    continue;
                }
            };
            match frame? {
                // Trailers say nothing here.
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_) => continue,
                },
                Err(_) => return Some(Err(ClientError::Broken)),
            }
        }
    }
}

/// Sends a request over a connection that is there and reads the answer, of at most so many bytes.
///
/// # Errors
/// If there is no whole answer.
pub async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| match error
            .is::<http_body_util::LengthLimitError>()
        {
            true => ClientError::TooLarge(most),
            false => ClientError::Broken,
        })?;
        Ok((parts, body.to_bytes()))
    };
    // The connection is driven here rather than by a task of its own, so that both end together.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What went wrong with it the exchange hears as well.
        _ = connection => exchange.await,
    }
}

/// What the end of a TLS handshake means.
fn of_tls(error: io::Error) -> ClientError {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(_)) => ClientError::NotTls,
        _ => ClientError::Tls(error),
    }
}

/// Whether a host may turn out to be this machine or one of a private network.
fn could_be_private(host: &str) -> bool {
    match host.parse() {
        Ok(address) => is_private(address),
        Err(_) => match host.trim_end_matches('.').rsplit_once('.') {
            None => true,
            Some((_, last)) => PRIVATE_NAMES.iter().any(|name| last.eq_ignore_ascii_case(name)),
        },
    }
}

/// This machine, and networks that are not routed on the internet: RFC 1918, RFC 3927, RFC 6598, RFC 4193, RFC 4291.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            None => is_private_v6(v6),
        },
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (first == 100 && (64..128).contains(&second))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

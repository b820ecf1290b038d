//! HTTP/1.1 by hand: a request, its head, and a body that can be read piece by piece, slowly, or not at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::eventually::PATIENCE;
use super::http2::{Body, Http2};
use super::stream::Stream;

/// How to open a connection to the relay.
pub fn connect(address: SocketAddr, receive_buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if let Some(bytes) = receive_buffer {
        // Must be set before connecting: the window that TCP offers is scaled then.
        socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF can be set");
    }
    socket
        .connect_timeout(&address.into(), PATIENCE)
        .expect("the relay accepts connections");
    socket.set_tcp_nodelay(true).expect("TCP_NODELAY can be set");
    socket.into()
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err} in the body: {}", self.text()))
    }
}

/// Status and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// `GET target`, the whole answer.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, &[])
}

/// `GET target` by the address, as operators ask; the whole answer.
#[track_caller]
pub fn ask(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, &[("Host", &address.to_string())])
}

/// A request without a body, the whole answer.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let exchange = Exchange::send(connect(address, None), method, target, headers);
    match method {
        "HEAD" => Response {
            head: exchange.head,
            body: Vec::new(),
        },
        _ => exchange.response(),
    }
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    Length(usize),
    UntilClosed,
}

/// What reading more of a body gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// The body has grown.
    Grown,
    /// Nothing came in the time given.
    Nothing,
    /// The body ended as it should: last chunk, length reached, or closed where that is the only way.
    Ended,
    /// The connection broke before that.
    Cut,
}

/// What carries an answer.
enum Carrier {
    Http1(Stream),
    Http2(Box<Http2>, Body),
}

/// A request that was answered with a head, its body being read.
pub struct Exchange {
    carrier: Carrier,
    pub head: Head,
    framing: Framing,
    /// Bytes as they came, not decoded yet.
    raw: Vec<u8>,
    /// Bytes of the body, not taken yet.
    pub body: Vec<u8>,
    /// Length of the body so far, taken bytes included.
    length: usize,
    end: Option<More>,
}

impl Exchange {
    /// Sends a request and reads the head of its answer.
    #[track_caller]
    pub fn send(stream: impl Into<Stream>, method: &str, target: &str, headers: &[(&str, &str)]) -> Exchange {
        Exchange::send_as(stream, "HTTP/1.1", method, target, headers)
    }

    /// The same with the version of HTTP named.
    #[track_caller]
    pub fn send_as(
        stream: impl Into<Stream>,
        version: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Exchange {
        let mut stream = stream.into();
        let head = head(method, target, version, headers);
        stream.write_all(head.as_bytes()).expect("the relay takes the request");
        Exchange::receive(stream).unwrap_or_else(|| panic!("no answer to {method} {target}"))
    }

    /// The same over HTTP/2.
    #[track_caller]
    pub fn send_http2(mut connection: Http2, method: &str, target: &str, headers: &[(&str, &str)]) -> Exchange {
        let (head, body) = connection.send(method, target, headers);
        Exchange::of_http2(Box::new(connection), head, body)
    }

    fn of_http2(connection: Box<Http2>, head: Head, body: Body) -> Exchange {
        Exchange {
            carrier: Carrier::Http2(connection, body),
            head,
            framing: Framing::UntilClosed,
            raw: Vec::new(),
            body: Vec::new(),
            length: 0,
            end: None,
        }
    }

    /// Reads the head of an answer; nothing if the connection ends before one came.
    pub fn receive(stream: impl Into<Stream>) -> Option<Exchange> {
        Exchange::receive_after(stream.into(), Vec::new())
    }

    /// Reads it to its end.
    #[track_caller]
    pub fn response(mut self) -> Response {
        let body = self.read_to_end();
        Response { head: self.head, body }
    }

    /// The answer to a request that was sent behind this one, once this one has ended.
    pub fn following(mut self) -> Option<Exchange> {
        self.read_to_end();
        match self.carrier {
            Carrier::Http1(stream) => Exchange::receive_after(stream, self.raw),
            Carrier::Http2(..) => panic!("over HTTP/2 no answer follows another"),
        }
    }

    /// The answer to `GET target` on the same connection, once this one has ended; nothing if the connection has.
    #[track_caller]
    pub fn next(mut self, target: &str, headers: &[(&str, &str)]) -> Option<Exchange> {
        self.read_to_end();
        match self.carrier {
            Carrier::Http1(mut stream) => {
                let _ = stream.write_all(head("GET", target, "HTTP/1.1", headers).as_bytes());
                Exchange::receive_after(stream, self.raw)
            }
            Carrier::Http2(mut connection, _) => {
                let (head, body) = connection.try_send("GET", target, headers)?;
                Some(Exchange::of_http2(connection, head, body))
            }
        }
    }

    /// The same, some of it having been read already.
    fn receive_after(mut stream: Stream, mut raw: Vec<u8>) -> Option<Exchange> {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => raw.extend_from_slice(&piece[..count]),
            }
        };
        let text = String::from_utf8(raw[..end].to_vec()).expect("the head is text");
        raw.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let mut status = lines.next().unwrap_or_default().split(' ');
        let status = status.nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let headers = lines
            .map(|line| line.split_once(':').expect("a header has a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let head = Head { status, headers };
        let framing = match (head.header("transfer-encoding"), head.header("content-length")) {
            (Some("chunked"), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().expect("a length")),
            (None, None) if matches!(status, 101 | 204 | 304) => Framing::Length(0),
            _ => Framing::UntilClosed,
        };
        let mut exchange = Exchange {
            carrier: Carrier::Http1(stream),
            head,
            framing,
            raw,
            body: Vec::new(),
            length: 0,
            end: None,
        };
        exchange.decode();
        Some(exchange)
    }

    /// Reads once from the socket, for at most `wait`.
    pub fn read(&mut self, wait: Duration) -> More {
        self.read_at_most(wait, 64 << 10)
    }

    /// The same, taking at most `limit` bytes off the socket.
    pub fn read_at_most(&mut self, wait: Duration, limit: usize) -> More {
        if let Some(end) = self.end {
            return end;
        }
        let stream = match &mut self.carrier {
            Carrier::Http1(stream) => stream,
            Carrier::Http2(connection, body) => {
                return match connection.read(body, wait) {
                    Ok(bytes) => {
                        self.body.extend_from_slice(&bytes);
                        More::Grown
                    }
                    Err(More::Nothing) => More::Nothing,
                    Err(end) => *self.end.insert(end),
                };
            }
        };
        // A timeout of zero would mean none at all.
        stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))
            .expect("a timeout can be set");
        let mut piece = vec![0; limit];
        match stream.read(&mut piece) {
            Ok(0) => {
                let end = if self.framing == Framing::UntilClosed {
                    More::Ended
                } else {
                    More::Cut
                };
                self.end = Some(end);
                return end;
            }
            Ok(count) => self.raw.extend_from_slice(&piece[..count]),
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return More::Nothing,
            Err(_) => {
                self.end = Some(More::Cut);
                return More::Cut;
            }
        }
        self.decode();
        self.end.filter(|_| self.body.is_empty()).unwrap_or(More::Grown)
    }

    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.end {
                Some(More::Ended) => return std::mem::take(&mut self.body),
                Some(_) => panic!("the body was cut after {} bytes", self.length),
                None => drop(self.read(deadline.saturating_duration_since(Instant::now()))),
            }
            assert!(
                Instant::now() < deadline,
                "the body does not end: {}",
                String::from_utf8_lossy(&self.body)
            );
        }
    }

    /// Moves what is complete from `raw` to `body`.
    fn decode(&mut self) {
        match self.framing {
            Framing::UntilClosed => {
                self.length += self.raw.len();
                self.body.append(&mut self.raw);
            }
            Framing::Length(length) => {
                // What stands behind it belongs to the next answer.
                let count = self.raw.len().min(length - self.length);
                self.length += count;
                self.body.extend(self.raw.drain(..count));
                if self.length == length {
                    self.end = Some(More::Ended);
                }
            }
            Framing::Chunked => {
                while let Some(line_end) = self.raw.windows(2).position(|window| window == b"\r\n") {
                    let line = std::str::from_utf8(&self.raw[..line_end]).expect("a chunk size is text");
                    let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                        .unwrap_or_else(|err| panic!("{err}: chunk size {line:?}"));
                    let whole = line_end + 2 + size + 2;
                    if self.raw.len() < whole {
                        return;
                    }
                    assert_eq!(&self.raw[whole - 2..whole], b"\r\n", "a chunk ends with a line end");
                    self.body.extend_from_slice(&self.raw[line_end + 2..whole - 2]);
                    self.length += size;
                    self.raw.drain(..whole);
                    if size == 0 {
                        self.end = Some(More::Ended);
                        return;
                    }
                }
            }
        }
    }
}

/// A request's line and headers.
fn head(method: &str, target: &str, version: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {target} {version}\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        head.push_str("Host: relay.test\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// Percent-encodes everything but unreserved characters, for a query value or a path segment.
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

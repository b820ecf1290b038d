//! The server over real sockets, with a hub in place of everything to its left.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;

use super::testing::hub;
use super::*;
use crate::hub::{Appender, Payload, SlotKey, Snapshot, Subscription};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Site {
    address: Address,
    hub: Arc<Hub>,
    appender: Appender,
    drain: CancellationToken,
    server: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Site {
    fn start(max_channels: usize) -> Site {
        Site::start_at(&Address::Tcp("127.0.0.1:0".parse().unwrap()), max_channels)
    }

    fn start_at(address: &Address, max_channels: usize) -> Site {
        let (hub, appender) = hub(max_channels);
        let drain = CancellationToken::new();
        let listeners = bind(std::slice::from_ref(address)).unwrap();
        let address = listeners[0].address().clone();
        let options = Options {
            listen: Vec::new(),
            path: String::new(),
            origins: Vec::new(),
            places: Places::default(),
            access: access::Options::default(),
            visitors: Visitors::default(),
            head: Head::default(),
            limits: limits::Options::default(),
            tls: None,
        };
        let fanout = fanout::Options {
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(4),
            bounds: fanout::Bounds::default(),
            pinned: 64 << 20,
        };
        let (serving, token) = (hub.clone(), drain.clone());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let kept = Kept {
                live: Live::default(),
                tls: None,
            };
            let work = Work {
                hub: serving,
                stats: Arc::default(),
                beside: None,
            };
            runtime.block_on(serve(listeners, options, kept, fanout, work, token))
        });
        Site {
            address,
            hub,
            appender,
            drain,
            server: Some(server),
        }
    }

    fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.address else {
            unreachable!("the test knows where it listens");
        };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes as they are.
    fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    /// A filled state channel with one value; it is held, so that it stays.
    fn channel(&mut self, name: &str, value: impl Into<Bytes>) -> Subscription {
        let held = self.hub.subscribe(name, true).unwrap();
        self.appender.activate(held.log());
        self.put(&held, value);
        self.appender.fill(held.log());
        self.appender.commit();
        held
    }

    fn put(&mut self, held: &Subscription, value: impl Into<Bytes>) {
        let payload = Payload {
            live: value.into(),
            snapshot: Snapshot::Same,
            json: true,
            absent: false,
        };
        let key = SlotKey {
            source: 0,
            name: Bytes::from_static(b"key"),
        };
        self.appender.put(held.log(), key, false, Some(payload), Instant::now());
        self.appender.commit();
    }

    /// Drains and waits.
    fn end(&mut self) -> anyhow::Result<()> {
        self.drain.cancel();
        self.server.take().unwrap().join().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.drain.cancel();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Reads until the text has come, and gives all up to then.
#[track_caller]
fn until(stream: &mut impl Read, text: &str) -> String {
    let mut read = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let size = stream.read(&mut part).expect("more comes in time");
        // What came before was searched, but for what the text may begin in.
        let from = read.len().saturating_sub(text.len());
        read.extend_from_slice(&part[..size]);
        if memchr::memmem::find(&read[from..], text.as_bytes()).is_some() {
            return String::from_utf8_lossy(&read).into_owned();
        }
        assert!(size > 0, "ended without {text:?}: {}", String::from_utf8_lossy(&read));
    }
}

/// Reads to the end.
#[track_caller]
fn all(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).unwrap();
    String::from_utf8_lossy(&read).into_owned()
}

#[test]
fn a_stream_gives_the_state_and_then_every_change() {
    let mut site = Site::start(10);
    let held = site.channel("a", "\"one\"");
    let mut chunked = site.send("GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n");
    let head = until(&mut chunked, "keyrelay.ready").to_ascii_lowercase();
    assert!(
        head.contains("transfer-encoding: chunked") && head.contains("data: \"one\""),
        "{head}"
    );
    let mut plain = site.send("GET /events?channel=a HTTP/1.0\r\n\r\n");
    let head = until(&mut plain, "keyrelay.ready").to_ascii_lowercase();
    assert!(
        !head.contains("transfer-encoding") && head.contains("\n\ndata: \"one\"\n\n"),
        "{head}"
    );
    site.put(&held, "\"two\"");
    until(&mut chunked, "data: \"two\"\n\n\r\n");
    until(&mut plain, "data: \"two\"\n\n");
}

#[test]
fn requests_follow_each_other_and_the_last_may_be_a_stream() {
    let mut site = Site::start(10);
    // Larger than any socket buffer: the answer is still on its way when the stream is asked for.
    let big = format!("\"{}\"", "x".repeat(16 << 20));
    let _big = site.channel("big", big);
    let _small = site.channel("small", "1");
    let mut stream = site.send(
        "GET /channels/small HTTP/1.1\r\nHost: relay\r\n\r\n\
         GET /nothing HTTP/1.1\r\nHost: relay\r\n\r\n\
         GET /channels/big HTTP/1.1\r\nHost: relay\r\n\r\n\
         GET /events?channel=small HTTP/1.1\r\nHost: relay\r\n\r\n",
    );
    let text = until(&mut stream, "keyrelay.ready");
    assert_eq!(text.matches("HTTP/1.1 200").count(), 3);
    assert_eq!(text.matches("HTTP/1.1 404").count(), 1);
    let (before, rest) = text.split_once("[\"x").unwrap();
    assert_eq!(before.matches("HTTP/1.1").count(), 3);
    let big = rest.bytes().take_while(|&byte| byte == b'x').count();
    assert_eq!(big + 1, 16 << 20, "answers come in order and whole");
}

#[test]
fn a_head_has_no_body() {
    let mut site = Site::start(10);
    let _held = site.channel("a", "1");
    let mut stream = site.send(
        "HEAD /channels/a HTTP/1.1\r\nHost: relay\r\n\r\n\
         HEAD /channels/no:1 HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n",
    );
    let text = all(&mut stream);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
    assert!(!text.contains('{') && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn a_unix_socket_serves_alike() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    let mut site = Site::start_at(&Address::Unix(path.clone()), 10);
    let held = site.channel("a", "\"one\"");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n")
        .unwrap();
    until(&mut stream, "keyrelay.ready");
    site.put(&held, "\"two\"");
    until(&mut stream, "data: \"two\"");
    site.end().unwrap();
    assert!(!path.exists());
}

#[test]
fn nothing_may_follow_a_stream() {
    let mut site = Site::start(10);
    let _held = site.channel("a", "1");
    let mut stream = site.send(
        "GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\nGET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n",
    );
    let text = all(&mut stream);
    assert!(
        text.starts_with("HTTP/1.1 400") && text.contains("must be the last"),
        "{text}"
    );
    let mut stream = site.send("GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n\r\n");
    until(&mut stream, "keyrelay.ready");
}

#[test]
fn heads_have_limits() {
    let site = Site::start(10);
    let url = format!("GET /events?x={} HTTP/1.1\r\nHost: relay\r\n\r\n", "x".repeat(1 << 20));
    let header = format!("GET / HTTP/1.1\r\nHost: relay\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    for head in [&url, &header, "nonsense\r\n\r\n"] {
        let mut stream = site.connect();
        // The server may close before all is written.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let status = String::from_utf8_lossy(&answer)
            .chars()
            .skip(9)
            .take(3)
            .collect::<String>();
        assert!(["", "400", "414", "431"].contains(&status.as_str()), "{status}");
    }
}

#[test]
fn a_web_socket_is_handed_over_with_what_was_read_ahead() {
    let mut site = Site::start(10);
    let _held = site.channel("a", "\"one\"");
    let mut stream = site.connect();
    let mut request = b"GET /ws HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    // A masked text frame with the mask 0 behind the head, in the same packet.
    let message = br#"{"type":"subscribe","channels":["a"],"ref":1}"#;
    request.extend_from_slice(&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0]);
    request.extend_from_slice(message);
    stream.write_all(&request).unwrap();
    let text = until(&mut stream, "\"ready\"");
    assert!(
        text.starts_with("HTTP/1.1 101") && text.contains("\"data\":\"one\""),
        "{text}"
    );
}

#[test]
fn for_want_of_room_a_web_socket_is_closed_with_a_code() {
    let site = Site::start(0);
    let mut stream = site.send(
        "GET /ws?channel=a HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 101"));
    assert!(memchr::memmem::find(&bytes, &1013_u16.to_be_bytes()).is_some());
}

#[test]
fn a_drain_ends_streams_idle_connections_and_the_server() {
    let mut site = Site::start(10);
    let _held = site.channel("a", "1");
    let mut stream = site.send("GET /events?channel=a HTTP/1.1\r\nHost: relay\r\n\r\n");
    until(&mut stream, "keyrelay.ready");
    let mut idle = site.send("GET /channels/a HTTP/1.1\r\nHost: relay\r\n\r\n");
    until(&mut idle, "\"cursor\"");
    let unused = site.connect();
    // Waits for a channel that nobody will fill.
    let mut waiting = site.send("GET /channels/b HTTP/1.1\r\nHost: relay\r\n\r\n");
    let since = Instant::now();
    while site.hub.channels() < 2 {
        assert!(since.elapsed() < PATIENCE, "the request is heard");
        std::thread::yield_now();
    }
    let since = Instant::now();
    site.end().unwrap();
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    let rest = all(&mut stream);
    assert!(rest.contains("keyrelay.end") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(all(&mut idle), "");
    let answer = all(&mut waiting);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(unused);
    let Address::Tcp(address) = site.address else {
        unreachable!("the test knows where it listens");
    };
    assert!(TcpStream::connect(address).is_err());
}

//! Clients that speak HTTP/2: many streams on one connection, by prior knowledge.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, LocalSet};

use super::load::PATIENCE;
use super::writer::{MARK, Writer};

/// What a stream may be sent before its client has read it.
const WINDOW: u32 = 65_535;

/// What all streams of a connection may be: room for those that are read, whatever the others do.
const WINDOW_OF_ALL: u32 = 16 << 20;

/// When no further stream was opened for so long, the connection takes no more.
const FULL: Duration = Duration::from_millis(500);

/// What streams tell.
#[derive(Debug, Default)]
struct Tally {
    opened: Cell<usize>,
    deliveries: Cell<u64>,
}

/// Streams that count what they get, and nothing else.
pub struct Streams {
    runtime: Runtime,
    local: LocalSet,
    tally: Rc<Tally>,
    connections: Vec<SendRequest<Empty<Bytes>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Streams {
    pub fn none() -> Streams {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Streams {
            runtime: runtime.expect("a runtime"),
            local: LocalSet::new(),
            tally: Rc::default(),
            connections: Vec::new(),
            tasks: Vec::new(),
        }
    }

    /// Opens so many streams of this path, on as few connections as the other side allows.
    pub fn open(&mut self, address: SocketAddr, path: &str, count: usize) {
        let all = self.tally.opened.get() + count;
        while self.tally.opened.get() < all {
            let before = self.tally.opened.get();
            self.connect(address);
            self.add(address, path, all - before, true);
            assert!(self.tally.opened.get() > before, "a connection takes no stream at all");
        }
    }

    /// Opens a stream that is not read, on the last connection or a first one.
    pub fn open_stalled(&mut self, address: SocketAddr, path: &str) {
        if self.connections.is_empty() {
            self.connect(address);
        }
        self.add(address, path, 1, false);
    }

    /// Opens streams on the last connection, as many as it takes.
    pub fn add(&mut self, address: SocketAddr, path: &str, count: usize, is_read: bool) {
        let connection = self.connections.last().expect("there is one");
        let url = format!("http://{address}{path}");
        let target = self.tally.opened.get() + count;
        for _ in 0..count {
            let (connection, tally, url) = (connection.clone(), self.tally.clone(), url.clone());
            let task = self.local.spawn_local(read(connection, url, tally, is_read));
            self.tasks.push(task);
        }
        let (mut last, mut since) = (0, Instant::now());
        while self.tally.opened.get() < target && since.elapsed() < FULL {
            self.run(Duration::from_millis(1));
            if self.tally.opened.get() != last {
                (last, since) = (self.tally.opened.get(), Instant::now());
            }
        }
        // In the order in which they were asked for: the last ones wait for room.
        let waiting = target - self.tally.opened.get();
        for task in self.tasks.drain(self.tasks.len() - waiting..) {
            task.abort();
        }
    }

    fn connect(&mut self, address: SocketAddr) {
        let connecting = async {
            let socket = TcpStream::connect(address).await.expect("a listener");
            socket.set_nodelay(true).expect("a socket");
            http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW_OF_ALL)
                .handshake(TokioIo::new(socket))
                .await
                .expect("HTTP/2")
        };
        let (sender, connection) = self.local.block_on(&self.runtime, connecting);
        // Ends with its streams.
        self.local.spawn_local(async { drop(connection.await) });
        self.connections.push(sender);
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Messages that were received since the last reset.
    pub fn deliveries(&self) -> u64 {
        self.tally.deliveries.get()
    }

    /// Counts anew.
    pub fn reset(&mut self) {
        self.tally.deliveries.set(0);
    }

    /// Has messages written at this rate, and reads; how many were written.
    pub fn flow(&mut self, writer: &mut Writer, rate: u32, time: Duration) -> u64 {
        let start = Instant::now();
        let (mut written, pause) = (0, Duration::from_secs(1) / rate);
        while start.elapsed() < time {
            writer.write_next();
            written += 1;
            self.run((pause * written).saturating_sub(start.elapsed()));
        }
        u64::from(written)
    }

    /// Reads until nothing comes any more.
    pub fn quiet(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let before = self.deliveries();
            self.run(Duration::from_millis(100));
            if self.deliveries() == before {
                return;
            }
        }
    }

    /// Reads for so long.
    fn run(&self, time: Duration) {
        // The clock is that of the runtime, so that it is asked for within.
        let sleeping = async { tokio::time::sleep(time).await };
        self.local.block_on(&self.runtime, sleeping);
    }
}

/// Whether who listens there speaks HTTP/2 without having been asked by TLS (RFC 9113 §3.3).
pub fn are_spoken_at(address: SocketAddr) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// What the type of a frame is, and which it is for SETTINGS, the first one of who speaks it.
    const TYPE: (usize, u8) = (3, 4);
    let mut socket = std::net::TcpStream::connect(address).expect("a listener");
    socket.set_read_timeout(Some(FULL)).expect("a socket");
    let mut head = [0; 9];
    socket.write_all(PREFACE).is_ok() && socket.read_exact(&mut head).is_ok() && head[TYPE.0] == TYPE.1
}

async fn read(mut connection: SendRequest<Empty<Bytes>>, url: String, tally: Rc<Tally>, is_read: bool) {
    let request = Request::get(url).body(Empty::new()).expect("a URL");
    // Whoever opens streams sees that they are not opened.
    let Ok(response) = connection.send_request(request).await else {
        return;
    };
    assert!(response.status().is_success(), "{}", response.status());
    tally.opened.set(tally.opened.get() + 1);
    let mut body = response.into_body();
    if !is_read {
        std::future::pending::<()>().await;
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.expect("the stream goes on");
        let marks = frame
            .data_ref()
            .map_or(0, |bytes| memchr::memchr_iter(MARK, bytes).count());
        tally.deliveries.set(tally.deliveries.get() + marks as u64);
    }
}

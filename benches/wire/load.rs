//! The load: very many clients in one epoll loop.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

use super::Transport;
use super::machine::now;
use super::process::Door;
use super::writer::{MARK, STAMP, Writer};

/// Stands in what says that all that was due has been sent, and nowhere else.
const READY: &[u8] = b"ready";

/// Clients are connected by so many, so that they do not overrun the backlog of the listener.
const TOGETHER: usize = 200;

/// Connections of one source address, of the some 28,000 ports that each has.
const PER_ADDRESS: usize = 20_000;

/// How long a state is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// After this time without a byte nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(60);

/// Who subscribes to what.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    pub transport: Transport,
    pub clients: usize,
    /// Channels that there are, `bench:0` and so on.
    pub channels: usize,
    /// Channels of each client. Clients take turns in them.
    pub each: usize,
}

impl Audience {
    /// So many clients, each of whom has the next one of the channels.
    pub fn new(transport: Transport, clients: usize, channels: usize) -> Audience {
        Audience {
            transport,
            clients,
            channels,
            each: 1,
        }
    }

    /// How many deliveries a message on any channel makes, on average.
    pub fn each_message(self) -> f64 {
        (self.clients * self.each) as f64 / self.channels as f64
    }

    /// The channels of a client, spread over all.
    pub fn channels_of(self, client: usize) -> impl Iterator<Item = usize> {
        let apart = self.channels / self.each;
        (0..self.each).map(move |at| (client + at * apart) % self.channels)
    }

    /// What a client asks for; `more` stands behind the channels.
    pub fn request(self, door: &Door, client: usize, more: &str) -> String {
        if let Some(template) = &door.template {
            let channel = self.channels_of(client).map(|channel| format!("bench:{channel}"));
            let path = template.replace("{channel}", &channel.collect::<Vec<_>>().join(","));
            return format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        }
        let channels = self
            .channels_of(client)
            .map(|channel| format!("channel=bench:{channel}"));
        let query = channels.collect::<Vec<_>>().join("&");
        match self.transport {
            Transport::Sse => format!("GET /events?{query}{more} HTTP/1.1\r\nHost: bench\r\n\r\n"),
            Transport::WebSocket => format!(
                "GET /ws?{query}{more} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        }
    }
}

/// A client.
struct Client {
    socket: TcpStream,
    /// What it asks for once it is connected.
    request: Option<String>,
    bytes: u64,
    marks: u32,
    is_ready: bool,
}

/// When a message was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How many have received it.
    pub clients: usize,
    /// When the last of them had it, in ns of [`now`].
    pub last: u64,
}

/// Clients that count what they get, and nothing else.
pub struct Clients {
    set: OwnedFd,
    clients: Vec<Client>,
    deliveries: u64,
    bytes: u64,
    /// Clients whose connections were cut.
    lost: usize,
    /// By when they were written, if anybody wants to know.
    seen: Option<HashMap<u64, Seen>>,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
}

impl Clients {
    /// Connects all of an audience, each after the last one was answered, or nearly so.
    pub fn connect(door: &Door, audience: Audience) -> Clients {
        Clients::come(
            door,
            (0..audience.clients).map(|client| audience.request(door, client, "")),
        )
    }

    /// Connects a client for each of these requests.
    pub fn come(door: &Door, requests: impl Iterator<Item = String>) -> Clients {
        let mut clients = Clients::none();
        for request in requests {
            clients.add(door.address, request);
            let count = clients.clients.len();
            if count.is_multiple_of(TOGETHER) {
                clients.until("a client was not answered", |all| {
                    all[count - TOGETHER..].iter().all(Client::is_open)
                });
            }
        }
        clients.until("a client was not answered", |all| all.iter().all(Client::is_open));
        clients
    }

    /// Has clients for all of these requests come at once.
    pub fn storm(door: &Door, requests: impl Iterator<Item = String>) -> Clients {
        let mut clients = Clients::none();
        for request in requests {
            clients.add(door.address, request);
        }
        clients
    }

    fn none() -> Clients {
        Clients {
            set: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set"),
            clients: Vec::new(),
            deliveries: 0,
            bytes: 0,
            lost: 0,
            seen: None,
            events: Vec::with_capacity(512),
            scratch: vec![0; 256 * 1024],
        }
    }

    fn add(&mut self, address: SocketAddr, request: String) {
        let number = self.clients.len();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let host = (number / PER_ADDRESS) as u8;
        if host > 0 {
            let source = SocketAddr::from(([127, 0, 0, 1 + host], 0));
            socket.bind(&source.into()).expect("a free port");
        }
        socket.set_nonblocking(true).expect("a socket");
        // Mostly under way; if it fails, the loop finds out.
        let _ = socket.connect(&address.into());
        let socket = TcpStream::from(socket);
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        epoll::add(&self.set, &socket, EventData::new_u64(number as u64), wanted).expect("room for a socket");
        self.clients.push(Client {
            socket,
            request: Some(request),
            bytes: 0,
            marks: 0,
            is_ready: false,
        });
    }

    /// Sees to it that every client has received a message since it was connected.
    pub fn until_all_have_one(&mut self, writer: &mut Writer) {
        let deadline = Instant::now() + PATIENCE;
        while self.clients.iter().any(|client| client.marks == 0) {
            assert!(Instant::now() < deadline, "a client got no message");
            writer.write_all_channels();
            self.read(Duration::from_millis(100));
        }
        self.quiet();
    }

    /// Reads until each client has got so many messages since it was connected.
    pub fn until_marks(&mut self, marks: u32) {
        self.until("a client has not got all messages", |all| {
            all.iter().all(|client| client.marks >= marks)
        });
    }

    /// Reads until so many messages were received since the last reset; false if they do not come.
    pub fn until_deliveries(&mut self, deliveries: u64) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.deliveries < deliveries && Instant::now() < deadline {
            self.poll(Duration::from_millis(50));
        }
        self.deliveries >= deliveries
    }

    /// Reads until each client has a value and, of who says so, has heard that this was all; false if they do not come.
    pub fn until_back(&mut self, door: &Door) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let says_so = door.template.is_none();
        let mut waiting = 0;
        while Instant::now() < deadline && self.lost == 0 {
            // Who is back stays so.
            while waiting < self.clients.len() && self.clients[waiting].is_back(says_so) {
                waiting += 1;
            }
            if waiting == self.clients.len() {
                return true;
            }
            self.poll(Duration::from_millis(50));
        }
        false
    }

    fn until(&mut self, else_: &str, is_so: impl Fn(&[Client]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.clients) {
            assert!(Instant::now() < deadline, "{else_}");
            self.poll(Duration::from_millis(50));
            self.assert_all_there();
        }
    }

    fn assert_all_there(&self) {
        assert!(
            self.lost == 0,
            "{} clients were sent away: the limit of open files may be too low",
            self.lost
        );
    }

    /// Reads until nothing comes any more.
    pub fn quiet(&mut self) {
        loop {
            let before = self.bytes;
            self.read(QUIET);
            if self.bytes == before {
                return;
            }
        }
    }

    /// Has messages written at this rate, and reads; how many were written.
    pub fn flow(&mut self, writer: &mut Writer, rate: u32, time: Duration) -> u64 {
        let start = Instant::now();
        let (mut written, pause) = (0, Duration::from_secs(1) / rate);
        loop {
            let passed = start.elapsed();
            if passed >= time {
                self.assert_all_there();
                return u64::from(written);
            }
            while pause * written <= passed {
                writer.write_next();
                written += 1;
            }
            self.poll((pause * written).saturating_sub(start.elapsed()));
        }
    }

    /// Reads for so long.
    pub fn read(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.poll(left);
        }
    }

    fn poll(&mut self, time: Duration) {
        self.events.clear();
        let timeout = Timespec::try_from(time).expect("a short time");
        let room = rustix::buffer::spare_capacity(&mut self.events);
        if epoll::wait(&self.set, room, Some(&timeout)).is_err() {
            return;
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            // The structure is packed: its fields are copied.
            let (number, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.ask(number);
            }
            if flags.contains(EventFlags::IN) {
                self.take(number);
            } else if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                self.lose(number);
            }
        }
        self.events = events;
    }

    /// It is connected, and says what it wants.
    fn ask(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if let Some(request) = client.request.take()
            && (&client.socket).write_all(request.as_bytes()).is_err()
        {
            return self.lose(number);
        }
        let token = EventData::new_u64(number as u64);
        let wanted = EventFlags::IN | EventFlags::RDHUP;
        epoll::modify(&self.set, &self.clients[number].socket, token, wanted).expect("it is in the set");
    }

    fn take(&mut self, number: usize) {
        let client = &mut self.clients[number];
        match (&client.socket).read(&mut self.scratch) {
            Ok(0) => self.lose(number),
            Ok(size) => {
                let bytes = &self.scratch[..size];
                let marks = memchr::memchr_iter(MARK, bytes).count();
                client.marks += marks as u32;
                client.bytes += size as u64;
                client.is_ready = client.is_ready || memchr::memmem::find(bytes, READY).is_some();
                self.deliveries += marks as u64;
                self.bytes += size as u64;
                if let Some(seen) = &mut self.seen {
                    note(seen, bytes);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.lose(number),
        }
    }

    fn lose(&mut self, number: usize) {
        self.lost += 1;
        epoll::delete(&self.set, &self.clients[number].socket).expect("it is in the set");
    }

    /// Counts anew.
    pub fn reset(&mut self) {
        (self.deliveries, self.bytes) = (0, 0);
    }

    /// Messages that were received.
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Bytes that were received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes from now on when each message is received.
    pub fn note(&mut self) {
        self.seen = Some(HashMap::new());
    }

    /// What was noted, by when each message was written, in ns of [`now`].
    pub fn noted(&mut self) -> HashMap<u64, Seen> {
        self.seen.take().unwrap_or_default()
    }

    /// Cuts all connections.
    pub fn cut(self) {
        drop(self);
    }
}

impl Drop for Clients {
    /// Without the minute that the ports of connections are kept for which end in order.
    fn drop(&mut self) {
        for client in &self.clients {
            let socket = socket2::SockRef::from(&client.socket);
            // Then its port is kept.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

impl Client {
    fn is_open(&self) -> bool {
        self.bytes > 0
    }

    fn is_back(&self, says_so: bool) -> bool {
        self.marks > 0 && (self.is_ready || !says_so)
    }
}

/// Notes each message of which the stamp came with the mark behind it.
fn note(seen: &mut HashMap<u64, Seen>, bytes: &[u8]) {
    let at = now();
    for mark in memchr::memchr_iter(MARK, bytes) {
        let stamp = mark
            .checked_sub(STAMP)
            .and_then(|start| std::str::from_utf8(&bytes[start..mark]).ok());
        if let Some(stamp) = stamp.and_then(|digits| digits.parse().ok()) {
            let seen = seen.entry(stamp).or_default();
            seen.clients += 1;
            seen.last = at;
        }
    }
}

//! The load: very many clients in one epoll loop, and the one who writes what they are to receive.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

use super::Transport;
use super::process::Server;

/// Stands in every value once, and nowhere else in what is sent.
const MARK: u8 = b'Z';

/// Clients are connected by so many, so that they do not overrun the backlog of the listener.
const TOGETHER: usize = 200;

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Subscribers that count what they get, and nothing else.
pub struct Clients {
    set: OwnedFd,
    sockets: Vec<TcpStream>,
    counts: Vec<u32>,
    deliveries: u64,
    bytes: u64,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
}

impl Clients {
    /// Connects clients that take turns in the channels.
    pub fn connect(address: SocketAddr, count: usize, channels: usize, transport: Transport) -> Clients {
        let mut clients = Clients {
            set: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set"),
            sockets: Vec::with_capacity(count),
            counts: vec![0; count],
            deliveries: 0,
            bytes: 0,
            events: Vec::with_capacity(512),
            scratch: vec![0; 256 * 1024],
        };
        for number in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // More addresses than one, as closed connections keep their ports for a minute.
            let source = SocketAddr::from(([127, 0, 0, 2 + (number % 8) as u8], 0));
            socket.bind(&source.into()).expect("a free port");
            socket.connect(&address.into()).expect("a listener");
            let mut socket = TcpStream::from(socket);
            socket
                .write_all(request(number % channels, transport).as_bytes())
                .expect("room for a request");
            socket.set_nonblocking(true).expect("a socket");
            let wanted = EventFlags::IN | EventFlags::RDHUP;
            epoll::add(&clients.set, &socket, EventData::new_u64(number as u64), wanted).expect("room for a socket");
            clients.sockets.push(socket);
            if number % TOGETHER == TOGETHER - 1 {
                clients.read(Duration::from_millis(20));
            }
        }
        clients
    }

    /// Sees to it that every client has received a message since it was connected.
    pub fn until_all_have_one(&mut self, writer: &mut Writer) {
        let deadline = Instant::now() + PATIENCE;
        while self.counts.contains(&0) {
            assert!(Instant::now() < deadline, "a client got no message");
            writer.write_all_channels();
            self.read(Duration::from_millis(100));
        }
        self.quiet();
    }

    /// Reads until nothing comes any more.
    pub fn quiet(&mut self) {
        loop {
            let before = self.bytes;
            self.read(Duration::from_millis(100));
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
                return u64::from(written);
            }
            while pause * written <= passed {
                writer.write_next();
                written += 1;
            }
            self.poll((pause * written).saturating_sub(start.elapsed()));
        }
    }

    fn read(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.poll(left);
        }
    }

    fn poll(&mut self, time: Duration) {
        self.events.clear();
        let timeout = Timespec::try_from(time).expect("a short time");
        if epoll::wait(
            &self.set,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        )
        .is_err()
        {
            return;
        }
        for event in &self.events {
            let number = event.data.u64() as usize;
            match (&self.sockets[number]).read(&mut self.scratch) {
                Ok(0) => panic!("client {number} was sent away: the limit of open files may be too low"),
                Ok(size) => {
                    let marks = memchr::memchr_iter(MARK, &self.scratch[..size]).count();
                    self.counts[number] += marks as u32;
                    self.deliveries += marks as u64;
                    self.bytes += size as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("client {number} was cut off: {error}"),
            }
        }
    }

    /// Counts anew.
    pub fn reset(&mut self) {
        (self.deliveries, self.bytes) = (0, 0);
    }

    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn request(channel: usize, transport: Transport) -> String {
    match transport {
        Transport::Sse => format!("GET /events?channel=bench:{channel} HTTP/1.1\r\nHost: bench\r\n\r\n"),
        Transport::WebSocket => format!(
            "GET /ws?channel=bench:{channel} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    }
}

/// Writes values.
pub struct Writer {
    connection: TcpStream,
    channels: usize,
    sequence: u64,
}

impl Writer {
    pub fn new(server: &Server, channels: usize) -> Writer {
        let connection = TcpStream::connect(server.address).expect("the server");
        connection.set_nodelay(true).expect("a socket");
        Writer {
            connection,
            channels,
            sequence: 0,
        }
    }

    /// A message on every channel.
    pub fn write_all_channels(&mut self) {
        for _ in 0..self.channels {
            self.write_next();
        }
    }

    /// A message on the next channel.
    pub fn write_next(&mut self) {
        self.sequence += 1;
        let key = format!("bench:{}", self.sequence as usize % self.channels);
        let value = format!("{:010}{}{}", self.sequence, MARK as char, "x".repeat(120));
        let sizes = (key.len(), value.len());
        let command = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            sizes.0, sizes.1
        );
        self.connection.write_all(command.as_bytes()).expect("the server reads");
        let mut answer = [0; 5];
        self.connection.read_exact(&mut answer).expect("the server answers");
        assert_eq!(&answer, b"+OK\r\n", "what the server says to a SET");
    }
}

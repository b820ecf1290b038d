//! The floor: hears that a key changed, gets its value, and sends it to each subscriber, all in one bare epoll loop.
//!
//! It checks nothing, and survives nothing. With two threads the first one does all that and has half of the sockets; it
//! hands each frame on to the second one, which has the other half.

mod frames;
mod half;
mod heard;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::Transport;
use half::{FIRST, Half};
use heard::{Change, Heard};

/// Tokens of what a loop has besides clients.
const LISTENER: u64 = 0;
const FEED: u64 = 1;
const READER: u64 = 2;
const INBOX: u64 = 3;

/// Events that are taken at once.
const TOGETHER: usize = 256;

/// What the floor does besides sending each value to each subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How clients are spoken to.
    pub transport: Transport,
    /// Whether a second thread has half of the sockets.
    pub two_threads: bool,
    /// Whether each client is sent a comment every 15 s.
    pub heartbeat: bool,
    /// How many of the last messages of its channel a client is sent that comes back with a cursor, each by a `send`.
    pub backlog: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            transport: Transport::Sse,
            two_threads: false,
            heartbeat: false,
            backlog: 0,
        }
    }
}

impl Options {
    /// The arguments that [`Options::from_arguments`] reads.
    pub fn to_arguments(self) -> Vec<String> {
        let threads = if self.two_threads { "2" } else { "1" };
        let heartbeat = if self.heartbeat { "heartbeat" } else { "silent" };
        let words = [self.transport.name(), threads, heartbeat];
        words
            .map(str::to_owned)
            .into_iter()
            .chain([self.backlog.to_string()])
            .collect()
    }

    /// What these arguments say; `None` if nothing.
    pub fn from_arguments(arguments: &[String]) -> Option<Options> {
        let [transport, threads, heartbeat, backlog] = arguments else {
            return None;
        };
        Some(Options {
            transport: Transport::ALL.into_iter().find(|known| known.name() == transport)?,
            two_threads: threads == "2",
            heartbeat: heartbeat == "heartbeat",
            backlog: backlog.parse().ok()?,
        })
    }
}

/// What the first thread hands on to the second one.
enum Parcel {
    Client(TcpStream),
    Change(Arc<Change>),
}

/// Where it does.
struct Inbox {
    parcels: Mutex<Vec<Parcel>>,
    /// Is written to when the first parcel comes.
    bell: OwnedFd,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox {
            parcels: Mutex::default(),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd"),
        }
    }

    fn put(&self, parcel: Parcel) {
        let mut parcels = self.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        parcels.push(parcel);
        if parcels.len() == 1 {
            rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).expect("room in the counter");
        }
    }

    fn take(&self) -> Vec<Parcel> {
        let mut count = [0; 8];
        // Nothing to read is as well: the parcels count.
        let _ = rustix::io::read(&self.bell, &mut count);
        std::mem::take(&mut *self.parcels.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says on standard output where it listens, and serves until it is killed.
pub fn run(server: SocketAddr, options: Options) {
    let listener = listen();
    let mut feed = TcpStream::connect(server).expect("the server");
    let mut reader = TcpStream::connect(server).expect("the server");
    feed.write_all(b"PSUBSCRIBE __keyspace@0__:bench:*\r\n")
        .expect("the server");
    for socket in [&feed, &reader] {
        socket.set_nonblocking(true).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
    }
    let mut half = Half::new(options);
    half.watch(&listener, LISTENER);
    half.watch(&feed, FEED);
    half.watch(&reader, READER);
    let other = options.two_threads.then(|| start_other(options));
    println!("listening {}", listener.local_addr().expect("it is bound"));
    let mut heard = Heard::new(options);
    let mut accepted = 0_usize;
    let mut scratch = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(TOGETHER);
    loop {
        half.wait(&mut events);
        for event in events.iter().copied() {
            match event.data.u64() {
                LISTENER => {
                    let Ok((socket, _)) = listener.accept() else { continue };
                    accepted += 1;
                    match &other {
                        Some(other) if accepted.is_multiple_of(2) => other.put(Parcel::Client(socket)),
                        _ => half.accept(socket),
                    }
                }
                FEED => {
                    let Ok(size) = feed.read(&mut scratch) else { continue };
                    let commands = heard.hear(&scratch[..size]);
                    if !commands.is_empty() {
                        reader.write_all(&commands).expect("the server takes commands");
                    }
                }
                READER => {
                    let Ok(size) = reader.read(&mut scratch) else { continue };
                    for change in heard.get(&scratch[..size]) {
                        if let Some(other) = &other {
                            other.put(Parcel::Change(change.clone()));
                        }
                        half.deliver(&change);
                    }
                }
                FIRST.. => {
                    for channel in half.handle(event) {
                        if let Some(commands) = heard.want(channel) {
                            reader.write_all(&commands).expect("the server takes commands");
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Starts the second thread.
fn start_other(options: Options) -> Arc<Inbox> {
    let inbox = Arc::new(Inbox::new());
    let own = inbox.clone();
    std::thread::spawn(move || {
        let mut half = Half::new(options);
        half.watch(&own.bell, INBOX);
        let mut events = Vec::with_capacity(TOGETHER);
        loop {
            half.wait(&mut events);
            for event in events.iter().copied() {
                if event.data.u64() >= FIRST {
                    half.handle(event);
                    continue;
                }
                for parcel in own.take() {
                    match parcel {
                        Parcel::Client(socket) => half.accept(socket),
                        Parcel::Change(change) => half.deliver(&change),
                    }
                }
            }
        }
    });
    inbox
}

fn listen() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(4096).expect("a listener");
    socket.set_nonblocking(true).expect("a listener");
    socket.into()
}

//! The floor: hears that a key changed, gets its value, and sends it to each subscriber, all in one bare epoll loop.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::Transport;

/// Tokens of the listener and of the two connections to the server; clients follow.
const LISTENER: u64 = 0;
const FEED: u64 = 1;
const READER: u64 = 2;
const FIRST: u64 = 3;

/// What the server calls a key of this bench in its notifications, up to the number.
const NAME: &[u8] = b"@0__:bench:";

/// How a notification of a SET ends.
const SET: &[u8] = b"$3\r\nset\r\n";

/// Says on standard output where it listens, and serves until it is killed.
pub fn run(server: SocketAddr, transport: Transport) {
    let listener = listen();
    let mut feed = TcpStream::connect(server).expect("the server");
    let mut reader = TcpStream::connect(server).expect("the server");
    feed.write_all(b"PSUBSCRIBE __keyspace@0__:bench:*\r\n")
        .expect("the server");
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set");
    for socket in [&feed, &reader] {
        socket.set_nonblocking(true).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
    }
    epoll::add(&set, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("room in the set");
    epoll::add(&set, &feed, EventData::new_u64(FEED), EventFlags::IN).expect("room in the set");
    epoll::add(&set, &reader, EventData::new_u64(READER), EventFlags::IN).expect("room in the set");
    println!("listening {}", listener.local_addr().expect("it is bound"));
    let mut floor = Floor {
        transport,
        sockets: Vec::new(),
        channels: Vec::new(),
        asked: VecDeque::new(),
        sequence: 0,
    };
    let (mut heard, mut got) = (Vec::new(), Vec::new());
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    let mut scratch = vec![0; 64 * 1024];
    let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    loop {
        events.clear();
        if epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for epoll::Event { flags, data, .. } in events.iter().copied() {
            match data.u64() {
                LISTENER => {
                    let Ok((socket, _)) = listener.accept() else { continue };
                    socket.set_nonblocking(true).expect("a socket");
                    socket.set_nodelay(true).expect("a socket");
                    let token = FIRST + floor.sockets.len() as u64;
                    epoll::add(&set, &socket, EventData::new_u64(token), wanted).expect("room for a socket");
                    floor.sockets.push(socket);
                }
                FEED => {
                    let Ok(size) = feed.read(&mut scratch) else { continue };
                    heard.extend_from_slice(&scratch[..size]);
                    let commands = floor.hear(&mut heard);
                    reader.write_all(&commands).expect("the server takes commands");
                }
                READER => {
                    let Ok(size) = reader.read(&mut scratch) else { continue };
                    got.extend_from_slice(&scratch[..size]);
                    floor.deliver(&mut got);
                }
                client if flags.contains(EventFlags::IN) => {
                    let index = (client - FIRST) as usize;
                    if let Ok(size) = (&floor.sockets[index]).read(&mut scratch) {
                        floor.join(index, &scratch[..size]);
                    }
                }
                _ => {}
            }
        }
    }
}

fn listen() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(4096).expect("a listener");
    socket.set_nonblocking(true).expect("a listener");
    socket.into()
}

struct Floor {
    transport: Transport,
    sockets: Vec<TcpStream>,
    /// The sockets of each channel.
    channels: Vec<Vec<usize>>,
    /// The channels whose values were asked for and did not come yet.
    asked: VecDeque<usize>,
    sequence: u64,
}

impl Floor {
    /// A client asks for a channel.
    fn join(&mut self, index: usize, request: &[u8]) {
        let Some(channel) = number_behind(b"channel=bench:", request) else {
            return;
        };
        if self.channels.len() <= channel {
            self.channels.resize(channel + 1, Vec::new());
        }
        self.channels[channel].push(index);
        // One that has gone already is found out later.
        let _ = (&self.sockets[index]).write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    }

    /// The commands that get what has changed.
    fn hear(&mut self, heard: &mut Vec<u8>) -> Vec<u8> {
        let mut commands = Vec::new();
        let mut done = 0;
        for at in memchr::memmem::find_iter(heard, SET) {
            // The pattern stands before the name, and has no number.
            let notification = &heard[done..at];
            done = at + SET.len();
            let name = memchr::memmem::rfind(notification, NAME);
            if let Some(channel) = name.and_then(|at| number_behind(NAME, &notification[at..])) {
                let key = format!("bench:{channel}");
                let command = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
                commands.extend_from_slice(command.as_bytes());
                self.asked.push_back(channel);
            }
        }
        heard.drain(..done);
        commands
    }

    /// Sends every value that has come as a whole.
    fn deliver(&mut self, got: &mut Vec<u8>) {
        let mut rest = &got[..];
        while let Some((value, after)) = bulk(rest) {
            rest = after;
            let Some(channel) = self.asked.pop_front() else {
                continue;
            };
            self.sequence += 1;
            let frame = frame(channel, self.sequence, value, self.transport);
            for &index in self.channels.get(channel).map_or(&[][..], Vec::as_slice) {
                match (&self.sockets[index]).write(&frame) {
                    Ok(size) if size == frame.len() => {}
                    Ok(_) => panic!("a client does not read fast enough to measure anything"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // A client that has gone.
                    Err(_) => {}
                }
            }
        }
        let done = got.len() - rest.len();
        got.drain(..done);
    }
}

/// The first bulk string (`$<length>\r\n<bytes>\r\n`) if it is whole, and what stands behind it.
fn bulk(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let length: usize = std::str::from_utf8(bytes.get(1..end - 1)?).ok()?.parse().ok()?;
    let (value, after) = bytes[end + 1..].split_at_checked(length)?;
    Some((std::str::from_utf8(value).ok()?, after.get(2..)?))
}

/// The number behind the first `name`.
fn number_behind(name: &[u8], text: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(text, name)? + name.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[at..at + digits]).ok()?.parse().ok()
}

/// The frame that the relay makes of a value.
fn frame(channel: usize, sequence: u64, value: &str, transport: Transport) -> Vec<u8> {
    let payload = format!(r#"{{"channel":"bench:{channel}","key":"bench:{channel}","value":"{value}","event":"set"}}"#);
    let id = format!("{:016x}-{sequence}", 0x0123_4567_89ab_cdef_u64);
    match transport {
        Transport::Sse => {
            let event = format!("id: {id}\ndata: {payload}\n\n");
            format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
        }
        Transport::WebSocket => {
            let message = format!(r#"{{"type":"message","channel":"bench:{channel}","id":"{id}","data":{payload}}}"#);
            let mut frame = vec![0x81, 126];
            frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
            frame.extend_from_slice(message.as_bytes());
            frame
        }
    }
}

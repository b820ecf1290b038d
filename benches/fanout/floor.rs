//! The floor: accepts, and sends what it is told to, with nothing between the epoll loop and `send`.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::epoll::{self, EventData, EventFlags};

/// Tokens of the two listeners and of the connection that tells of messages; clients follow.
const CLIENTS: u64 = 0;
const ORDERS: u64 = 1;
const ORDER: u64 = 2;
const FIRST: u64 = 3;

/// The head of what [`super::load::Writer`] sends: the channel and the length of the frame that follows.
pub const HEAD: usize = 8;

/// Says on standard output where clients and orders are accepted, and serves until it is killed.
pub fn run() {
    let listeners = [(CLIENTS, listen()), (ORDERS, listen())];
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set");
    for (token, listener) in &listeners {
        epoll::add(&set, listener, EventData::new_u64(*token), EventFlags::IN).expect("a listener");
    }
    let ports = listeners
        .each_ref()
        .map(|(_, listener)| listener.local_addr().expect("bound").port());
    println!("listening {} {}", ports[0], ports[1]);
    let [(_, clients), (_, orders)] = listeners;
    let mut sockets: Vec<TcpStream> = Vec::new();
    let mut channels: Vec<Vec<usize>> = Vec::new();
    let mut order: Option<TcpStream> = None;
    let mut told: Vec<u8> = Vec::new();
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
                CLIENTS => {
                    let Ok((socket, _)) = clients.accept() else { continue };
                    socket.set_nonblocking(true).expect("a socket");
                    socket.set_nodelay(true).expect("a socket");
                    let token = FIRST + sockets.len() as u64;
                    epoll::add(&set, &socket, EventData::new_u64(token), wanted).expect("room for a socket");
                    sockets.push(socket);
                }
                ORDERS => {
                    let Ok((socket, _)) = orders.accept() else { continue };
                    socket.set_nonblocking(true).expect("a socket");
                    epoll::add(&set, &socket, EventData::new_u64(ORDER), EventFlags::IN).expect("room for a socket");
                    order = Some(socket);
                }
                ORDER => {
                    let Some(mut socket) = order.as_ref() else { continue };
                    match socket.read(&mut scratch) {
                        // Whoever started this has gone.
                        Ok(0) => return,
                        Ok(size) => told.extend_from_slice(&scratch[..size]),
                        Err(_) => continue,
                    }
                    deliver(&mut told, &channels, &sockets);
                }
                client => {
                    if !flags.contains(EventFlags::IN) {
                        continue;
                    }
                    let index = (client - FIRST) as usize;
                    let Ok(size) = (&sockets[index]).read(&mut scratch) else {
                        continue;
                    };
                    if let Some(channel) = channel_of(&scratch[..size]) {
                        if channels.len() <= channel {
                            channels.resize(channel + 1, Vec::new());
                        }
                        channels[channel].push(index);
                        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                        let _ = (&sockets[index]).write(head);
                    }
                }
            }
        }
    }
}

fn listen() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(4096).expect("a listener");
    socket.set_nonblocking(true).expect("a listener");
    socket.into()
}

/// Sends every frame that was told of as a whole.
fn deliver(told: &mut Vec<u8>, channels: &[Vec<usize>], sockets: &[TcpStream]) {
    let mut rest = &told[..];
    while let Some((head, after)) = rest.split_at_checked(HEAD) {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let Some((frame, after)) = after.split_at_checked(number(4)) else {
            break;
        };
        for &index in channels.get(number(0)).map_or(&[][..], Vec::as_slice) {
            match (&sockets[index]).write(frame) {
                Ok(size) if size == frame.len() => {}
                Ok(_) => panic!("a client took a part of a frame: it does not read fast enough to measure anything"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A client that has gone.
                Err(_) => {}
            }
        }
        rest = after;
    }
    let done = told.len() - rest.len();
    told.drain(..done);
}

/// The number behind `channel=bench:` in a request.
fn channel_of(request: &[u8]) -> Option<usize> {
    let name = b"channel=bench:";
    let at = memchr::memmem::find(request, name)? + name.len();
    let digits = request[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&request[at..at + digits]).ok()?.parse().ok()
}

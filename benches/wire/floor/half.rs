//! The sockets of one thread of the floor, in one bare epoll loop.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use slab::Slab;

use super::heard::{Change, channels};
use super::{Options, frames};

/// Tokens from here on are clients; below them is what the loop has besides.
pub const FIRST: u64 = 8;

/// How long the relay leaves a stream silent unless it is told otherwise.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Turns of the wheel in that time: each takes its part of the clients.
const SPOKES: usize = 150;

/// A client.
struct Client {
    socket: TcpStream,
    channels: Vec<usize>,
    /// What its socket had no room for.
    rest: Option<Box<Rest>>,
}

/// What is sent as soon as there is room.
struct Rest {
    /// The tail of what was sent in part.
    tail: Vec<u8>,
    /// What is due behind it.
    owed: VecDeque<Arc<Change>>,
}

/// What all subscribers of a channel share.
#[derive(Default)]
struct Channel {
    members: Vec<usize>,
    /// The last changes: one, or as many as those who come back may have missed.
    last: VecDeque<Arc<Change>>,
    /// What a new client of this channel alone is sent, while nothing changes.
    welcome: Option<Vec<u8>>,
}

/// The sockets of one thread.
pub struct Half {
    options: Options,
    set: OwnedFd,
    clients: Slab<Client>,
    channels: Vec<Channel>,
    /// Who is sent a heartbeat together.
    wheel: Vec<Vec<usize>>,
    spoke: usize,
    next: Instant,
    scratch: Vec<u8>,
}

impl Half {
    pub fn new(options: Options) -> Half {
        Half {
            options,
            set: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set"),
            clients: Slab::new(),
            channels: Vec::new(),
            wheel: vec![Vec::new(); SPOKES],
            spoke: 0,
            next: Instant::now() + HEARTBEAT / SPOKES as u32,
            scratch: vec![0; 64 * 1024],
        }
    }

    /// Has something else waited for, under a token below [`FIRST`].
    pub fn watch(&self, what: impl AsFd, token: u64) {
        epoll::add(&self.set, what, EventData::new_u64(token), EventFlags::IN).expect("room in the set");
    }

    /// Waits for what happens next, and sends the heartbeats that are due meanwhile.
    pub fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        events.clear();
        let timeout = self.options.heartbeat.then(|| {
            let left = self.next.saturating_duration_since(Instant::now());
            Timespec::try_from(left).expect("a short time")
        });
        // A signal may come between; then nothing has happened.
        let _ = epoll::wait(&self.set, rustix::buffer::spare_capacity(events), timeout.as_ref());
        if self.options.heartbeat && self.next <= Instant::now() {
            self.beat();
        }
    }

    fn beat(&mut self) {
        self.next += HEARTBEAT / SPOKES as u32;
        self.spoke = (self.spoke + 1) % SPOKES;
        let heartbeat = frames::heartbeat(self.options.transport);
        for &index in &self.wheel[self.spoke] {
            let client = &self.clients[index];
            if client.rest.is_none() {
                // One that has gone is found out by its own event.
                let _ = (&client.socket).write(heartbeat);
            }
        }
    }

    /// Takes a client in.
    pub fn accept(&mut self, socket: TcpStream) {
        socket.set_nonblocking(true).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        let entry = self.clients.vacant_entry();
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let token = EventData::new_u64(FIRST + entry.key() as u64);
        epoll::add(&self.set, &socket, token, wanted).expect("room for a socket");
        if self.options.heartbeat {
            self.wheel[entry.key() % SPOKES].push(entry.key());
        }
        entry.insert(Client {
            socket,
            channels: Vec::new(),
            rest: None,
        });
    }

    /// Something happened to a client; the channels that it asks for.
    pub fn handle(&mut self, event: epoll::Event) -> Vec<usize> {
        let index = (event.data.u64() - FIRST) as usize;
        let Some(client) = self.clients.get_mut(index) else {
            return Vec::new();
        };
        // The structure is packed: its fields are copied.
        let flags = event.flags;
        if flags.contains(EventFlags::OUT) {
            client.go_on();
        }
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::ERR | EventFlags::HUP) {
            return Vec::new();
        }
        match client.socket.read(&mut self.scratch) {
            Ok(0) => self.forget(index),
            Ok(size) => {
                let request = &self.scratch[..size];
                let comes_back = memchr::memmem::find(request, b"cursor=").is_some();
                let wanted = channels(request);
                self.join(index, wanted.clone(), comes_back);
                return wanted;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.forget(index),
        }
        Vec::new()
    }

    fn forget(&mut self, index: usize) {
        let client = self.clients.remove(index);
        for channel in client.channels {
            let members = &mut self.channels[channel].members;
            if let Some(at) = members.iter().position(|member| *member == index) {
                members.swap_remove(at);
            }
        }
        let spoke = &mut self.wheel[index % SPOKES];
        if let Some(at) = spoke.iter().position(|member| *member == index) {
            spoke.swap_remove(at);
        }
    }

    fn join(&mut self, index: usize, wanted: Vec<usize>, comes_back: bool) {
        let most = wanted.iter().max().map_or(0, |most| most + 1);
        if self.channels.len() < most {
            self.channels.resize_with(most, Channel::default);
        }
        for &channel in &wanted {
            self.channels[channel].members.push(index);
        }
        let client = &mut self.clients[index];
        match &wanted[..] {
            &[channel] if !comes_back => {
                let channel = &mut self.channels[channel];
                if channel.welcome.is_none() {
                    channel.welcome = Some(welcome(&self.options, &wanted, [&*channel]));
                }
                client.send(channel.welcome.as_deref().expect("it was just made"));
            }
            _ if comes_back => {
                client.send(&frames::head(self.options.transport));
                client.send(&frames::ready(&wanted, 0, self.options.transport));
                for &channel in &wanted {
                    client.owe(&self.channels[channel].last);
                }
                client.go_on();
            }
            _ => {
                let channels = wanted.iter().map(|&channel| &self.channels[channel]);
                client.send(&welcome(&self.options, &wanted, channels));
            }
        }
        client.channels = wanted;
    }

    /// Sends a value to all who want it.
    pub fn deliver(&mut self, change: &Arc<Change>) {
        if self.channels.len() <= change.channel {
            self.channels.resize_with(change.channel + 1, Channel::default);
        }
        let channel = &mut self.channels[change.channel];
        if channel.last.len() >= self.options.backlog.max(1) {
            channel.last.pop_front();
        }
        channel.last.push_back(change.clone());
        channel.welcome = None;
        for &index in &channel.members {
            self.clients[index].send(&change.frame);
        }
    }
}

impl Client {
    /// Sends it now, or not at all if there is no room; what there is room for in part is sent to its end later.
    fn send(&mut self, bytes: &[u8]) {
        if self.rest.is_some() {
            return;
        }
        // One that has gone is found out by its own event.
        if let Ok(size) = self.socket.write(bytes)
            && size < bytes.len()
        {
            self.rest = Some(Box::new(Rest {
                tail: bytes[size..].to_vec(),
                owed: VecDeque::new(),
            }));
        }
    }

    /// Has these sent one by one, as soon as there is room.
    fn owe(&mut self, changes: &VecDeque<Arc<Change>>) {
        let rest = self.rest.get_or_insert_with(|| {
            Box::new(Rest {
                tail: Vec::new(),
                owed: VecDeque::new(),
            })
        });
        rest.owed.extend(changes.iter().cloned());
    }

    /// Sends what is due while there is room.
    fn go_on(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        loop {
            if rest.tail.is_empty() {
                let Some(change) = rest.owed.pop_front() else { break };
                match self.socket.write(&change.frame) {
                    Ok(size) => rest.tail.extend_from_slice(&change.frame[size..]),
                    Err(_) => return rest.owed.push_front(change),
                }
            } else {
                let Ok(size) = self.socket.write(&rest.tail) else {
                    return;
                };
                rest.tail.drain(..size);
            }
        }
        self.rest = None;
    }
}

/// Head, snapshot and `ready` of these channels.
fn welcome<'a>(options: &Options, wanted: &[usize], channels: impl IntoIterator<Item = &'a Channel>) -> Vec<u8> {
    let mut welcome = frames::head(options.transport);
    let mut sequence = 0;
    for last in channels.into_iter().filter_map(|channel| channel.last.back()) {
        welcome.extend_from_slice(&frames::snapshot(last.channel, &last.value, options.transport));
        sequence = sequence.max(last.sequence);
    }
    welcome.extend_from_slice(&frames::ready(wanted, sequence, options.transport));
    welcome
}

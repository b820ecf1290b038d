//! A shard that is driven by hand over real sockets, with a clock of its own.

mod asking;
mod delivery;
mod judging;
mod piped;
mod slow;
mod timers;
mod websocket;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use crate::hub::{
    self, Access, Appender, Catalog, Channel, Hub, Mode, Name, Payload, Reason, Retention, SlotKey, Snapshot,
    Subscription, Way,
};
use crate::limits::Rate;
use crate::session::{Session, Start};

use super::conn::{Conn, Token};
use super::core::{Core, SLICE, client};
use super::serve::CHATTER;
use super::{
    Asked, Bounds, Client, Far, Gate, Opened, Options, Refusal, Renewed, Socket, Transport, Until, limit_sends, pipe,
};

const PINNED: usize = 64 << 20;

const SSE: Transport = Transport::Sse { chunked: true };
const WS: Transport = Transport::WebSocket { raw: false };

/// Every name is a channel, but those that begin with `-`; those that begin with `e` are events channels.
struct AnyName;

impl Catalog for AnyName {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.describe(name).map(|_| vec![vec![Way::Public]])
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        let mode = if name.starts_with('e') {
            Mode::Events
        } else {
            Mode::State
        };
        (!name.starts_with('-')).then(|| Channel {
            name: name.into(),
            mode,
            event_name: None,
            retention: Retention {
                messages: 100,
                bytes: 1 << 30,
                age: Duration::from_secs(60),
            },
            snapshot: true,
            on_reset: Vec::new(),
        })
    }
}

/// Opens every channel there is, at once or, where the flag is down, once it is up. The token `long` counts for an hour,
/// `soon` for 20 s, `short` for one, no other at all.
#[derive(Clone, Debug)]
struct Open(Arc<Hub>, Arc<AtomicBool>);

impl Open {
    async fn raised(&self) {
        while !self.1.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

impl Gate for Open {
    fn open(&self, names: Vec<String>, _: Option<String>) -> Asked<Opened> {
        let this = self.clone();
        Box::pin(async move {
            this.raised().await;
            let opened = names.into_iter().map(|name| match this.0.subscribe(&name, false) {
                Ok(subscription) => Ok((subscription, Start::New)),
                Err(_) => Err(vec![Refusal {
                    channel: Some(name),
                    reason: "unknown",
                    what: "no such channel".to_owned(),
                }]),
            });
            Ok(Opened {
                channels: opened.collect::<Result<_, _>>()?,
                expires: None,
                judged: this.0.revision(),
            })
        })
    }

    fn renew(&self, token: String, _: Vec<Name>) -> Asked<Renewed> {
        let seconds = match token.as_str() {
            "long" => 3_600,
            "soon" => 20,
            "short" => 1,
            _ => {
                let refusal = Refusal {
                    channel: None,
                    reason: "expired",
                    what: "too old".to_owned(),
                };
                return Box::pin(std::future::ready(Err(vec![refusal])));
            }
        };
        let renewed = Renewed {
            expires: Some(SystemTime::now() + Duration::from_secs(seconds)),
            gate: Arc::new(self.clone()),
            judged: self.0.revision(),
        };
        Box::pin(std::future::ready(Ok(renewed)))
    }

    /// Nobody may read the channel `secret` any more.
    fn again(&self, names: Vec<Name>) -> Asked<Renewed> {
        let this = self.clone();
        Box::pin(async move {
            this.raised().await;
            match names.iter().find(|name| name.starts_with("secret")) {
                Some(name) => Err(vec![Refusal {
                    channel: Some(name.to_string()),
                    reason: "signature",
                    what: "another key".to_owned(),
                }]),
                None => Ok(Renewed {
                    expires: None,
                    judged: this.0.revision(),
                    gate: Arc::new(this),
                }),
            }
        })
    }
}

/// A shard that is driven by hand, with a clock of its own, and the hub before it.
struct Rig {
    core: Core,
    hub: Arc<Hub>,
    appender: Appender,
    now: Instant,
    listener: TcpListener,
    /// Whether gates answer at once.
    answers: Arc<AtomicBool>,
}

impl Rig {
    fn new() -> Rig {
        Rig::bound(Bounds::default())
    }

    fn bound(bounds: Bounds) -> Rig {
        let (hub, appender) = Hub::new(hub::Options::channels(10_000), 7, AnyName);
        let options = Options {
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(4),
            bounds,
            pinned: PINNED,
        };
        let now = Instant::now();
        let core = Core::new(options.clone(), &hub, Arc::default(), 1, now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        limit_sends(&listener, options.write_timeout).unwrap();
        Rig {
            core,
            hub,
            appender,
            now,
            listener,
            answers: Arc::new(AtomicBool::new(true)),
        }
    }

    fn gate(&self) -> Option<Arc<dyn Gate>> {
        Some(Arc::new(Open(self.hub.clone(), self.answers.clone())))
    }

    /// A channel that is filled and has no values yet.
    fn channel(&mut self, name: &str) -> Subscription {
        let subscription = self.hub.subscribe(name, false).unwrap();
        self.appender.activate(subscription.log());
        self.appender.fill(subscription.log());
        self.appender.commit();
        subscription
    }

    fn put(&mut self, channel: &Subscription, key: &str, value: impl Into<String>) {
        let payload = Payload {
            live: Bytes::from(value.into()),
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        };
        let key = SlotKey {
            source: 0,
            name: Bytes::copy_from_slice(key.as_bytes()),
        };
        self.appender
            .put(channel.log(), key, false, Some(payload), std::time::Instant::now());
        self.appender.commit();
    }

    /// A client, and the shard's token of it.
    fn join(&mut self, transport: Transport, names: &[&str]) -> (Peer, Token) {
        self.join_until(transport, names, Until::default())
    }

    /// A client that may read until then, and the shard's token of it.
    fn join_until(&mut self, transport: Transport, names: &[&str], until: Until) -> (Peer, Token) {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let token = self.adopt(Socket::Tcp(socket), transport, names, until);
        stream.set_nonblocking(true).unwrap();
        (
            Peer {
                stream,
                got: Vec::new(),
                ended: false,
            },
            token,
        )
    }

    /// A client whose bytes a task would carry on, and the shard's token of it.
    fn join_piped(&mut self, transport: Transport, names: &[&str]) -> (Far, Token) {
        let (near, far) = pipe();
        let token = self.adopt(Socket::Piped(near), transport, names, Until::default());
        (far, token)
    }

    fn adopt(&mut self, socket: Socket, transport: Transport, names: &[&str], until: Until) -> Token {
        let mut session = Session::new(self.hub.epoch);
        for name in names {
            session.subscribe(
                self.hub.subscribe(name, false).unwrap(),
                Start::New,
                self.hub.watermark(),
                None,
            );
        }
        let client = Client {
            socket,
            transport,
            head: Bytes::from_static(b"HEAD\r\n\r\n"),
            read_ahead: Bytes::new(),
            permits: Box::default(),
            session,
            until,
            gate: self.gate(),
            judged: 0,
        };
        self.core.handle.adopt(client);
        self.core.slice(self.now);
        let newest = self.core.clients.iter().max_by_key(|(_, conn)| conn.token.generation);
        newest.map(|(_, conn)| conn.token).unwrap()
    }

    /// Everything that can be done now.
    fn settle(&mut self) {
        self.core.take();
        while self.core.slice(self.now) || self.core.poll() > 0 {}
    }

    fn conn(&mut self, token: Token) -> Option<&mut Conn> {
        client(&mut self.core.clients, token)
    }

    /// Works until the peer has what is asked for; fails after ten seconds.
    #[track_caller]
    fn until(&mut self, peer: &mut Peer, mut enough: impl FnMut(&Peer) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            self.settle();
            peer.read();
            if enough(peer) {
                return;
            }
            let end = &peer.got[peer.got.len().saturating_sub(300)..];
            assert!(
                std::time::Instant::now() < deadline,
                "got {:?}",
                String::from_utf8_lossy(end)
            );
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn until_sees(&mut self, peer: &mut Peer, text: &str) {
        self.until(peer, |peer| peer.sees(text));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// Gives a client that reads nothing so much that its socket takes no more.
    fn choke(&mut self, token: Token, channel: &Subscription) {
        let mut round = 0;
        while !self.conn(token).unwrap().blocked {
            round += 1;
            self.put(channel, "ballast", format!("{round} {}", "x".repeat(200_000)));
            self.settle();
            assert!(round < 1_000, "a socket with no reader takes no more at some time");
        }
    }
}

struct Peer {
    stream: TcpStream,
    got: Vec<u8>,
    ended: bool,
}

impl Peer {
    fn read(&mut self) {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.ended = true,
                Ok(size) => self.got.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.ended = true,
            }
        }
    }

    fn sees(&self, text: &str) -> bool {
        memchr::memmem::find(&self.got, text.as_bytes()).is_some()
    }

    /// The body of the SSE stream; fails if the chunks are not whole and in order.
    #[track_caller]
    fn body(&self) -> String {
        let mut rest = self.got.strip_prefix(b"HEAD\r\n\r\n").expect("the head comes first");
        let mut body = Vec::new();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).expect("the head of a chunk");
            let head = std::str::from_utf8(&rest[..end - 1]).unwrap();
            let size = usize::from_str_radix(head, 16).unwrap_or_else(|_| panic!("{head:?} is no length of a chunk"));
            body.extend_from_slice(&rest[end + 1..][..size]);
            assert_eq!(&rest[end + 1 + size..][..2], b"\r\n");
            rest = &rest[end + 1 + size + 2..];
        }
        String::from_utf8(body).unwrap()
    }

    /// The `data` of all messages of the SSE stream that have an id, each with the sequence in it.
    #[track_caller]
    fn live(&self) -> Vec<(u64, String)> {
        let body = self.body();
        let events = body
            .split("\n\n")
            .filter(|event| event.starts_with("id: ") && !event.contains("event: "));
        let parsed = events.map(|event| {
            let (id, data) = event.split_once('\n').unwrap();
            let sequence = id.rsplit_once('-').unwrap().1.parse().unwrap();
            (sequence, data.strip_prefix("data: ").unwrap().to_owned())
        });
        parsed.collect()
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            0..126 => frame.push(0x80 | payload.len() as u8),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((payload.len() as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }
}

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;

use crate::hub::{self, Appender, Catalog, Channel, Mode, Payload, Retention, SlotKey, Snapshot, Subscription};
use crate::session::{Session, Start};

use super::super::{Refusal, Socket};
use super::*;

const SSE: Transport = Transport::Sse { chunked: true };
const WS: Transport = Transport::WebSocket { raw: false };

/// Every name is a channel, but those that begin with `-`; those that begin with `e` are events channels.
struct AnyName;

impl Catalog for AnyName {
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
            linger: Duration::ZERO,
            snapshot: true,
            on_reset: Vec::new(),
        })
    }
}

struct Open(Arc<Hub>);

impl Gate for Open {
    fn open(&self, names: &[String], _: Option<&str>) -> Result<Vec<(Subscription, Start)>, Vec<Refusal>> {
        let mut opened = Vec::new();
        for name in names {
            match self.0.subscribe(name, false) {
                Ok(subscription) => opened.push((subscription, Start::New)),
                Err(_) => {
                    let (channel, what) = (name.clone(), "no such channel".to_owned());
                    return Err(vec![Refusal {
                        channel,
                        reason: "unknown",
                        what,
                    }]);
                }
            }
        }
        Ok(opened)
    }
}

/// A shard that is driven by hand, with a clock of its own, and the hub before it.
struct Rig {
    core: Core,
    hub: Arc<Hub>,
    appender: Appender,
    now: Instant,
    listener: TcpListener,
}

impl Rig {
    fn new() -> Rig {
        let (hub, appender) = Hub::new(hub::Options { max_channels: 10_000 }, 7, AnyName);
        let options = Options {
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(4),
        };
        let now = Instant::now();
        let core = Core::new(options, Arc::new(Open(hub.clone())), &hub, Arc::default(), 1, now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Rig {
            core,
            hub,
            appender,
            now,
            listener,
        }
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
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
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
            socket: Socket::Tcp(socket),
            transport,
            head: Bytes::from_static(b"HEAD\r\n\r\n"),
            read_ahead: Bytes::new(),
            session,
        };
        self.core.handle.adopt(client);
        self.core.slice(self.now);
        stream.set_nonblocking(true).unwrap();
        let newest = self.core.clients.iter().max_by_key(|(_, conn)| conn.token.generation);
        let token = newest.map(|(_, conn)| conn.token).unwrap();
        (
            Peer {
                stream,
                got: Vec::new(),
                ended: false,
            },
            token,
        )
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

#[test]
fn a_client_gets_the_state_then_ready_then_what_changes() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    rig.put(&channel, "k", "one");
    let (mut peer, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "keyrelay.ready");
    rig.put(&channel, "k", "two");
    rig.put(&channel, "l", "three");
    rig.until_sees(&mut peer, "three");
    let body = peer.body();
    assert!(body.starts_with("data: one\n\nid: "), "{body}");
    let live: Vec<String> = peer.live().into_iter().map(|(_, data)| data).collect();
    assert_eq!(live, ["two", "three"]);
}

#[test]
fn a_client_of_a_channel_that_is_not_filled_waits_for_it() {
    let mut rig = Rig::new();
    let (mut peer, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "HEAD");
    let subscription = rig.hub.subscribe("a", false).unwrap();
    rig.appender.activate(subscription.log());
    rig.put(&subscription, "k", "one");
    rig.settle();
    rig.appender.fill(subscription.log());
    rig.appender.commit();
    rig.until_sees(&mut peer, "keyrelay.ready");
    assert!(peer.body().starts_with("data: one\n\n"));
}

#[test]
fn messages_of_several_channels_come_in_the_order_they_happened() {
    let mut rig = Rig::new();
    let channels = ["a", "b", "c"].map(|name| rig.channel(name));
    let mut peers: Vec<Peer> = (0..20).map(|_| rig.join(SSE, &["a", "b", "c"]).0).collect();
    for peer in &mut peers {
        rig.until_sees(peer, "keyrelay.ready");
    }
    // Without a turn between them, so that one turn has them all.
    for round in 0..30 {
        rig.put(&channels[round % 3], &format!("key {round}"), format!("value {round}"));
    }
    for peer in &mut peers {
        rig.until_sees(peer, "value 29");
        let live = peer.live();
        assert!(live.is_sorted_by_key(|(sequence, _)| *sequence), "{live:?}");
        assert_eq!(live.len(), 30);
    }
}

#[test]
fn a_client_that_does_not_read_delays_nobody_and_gets_the_newest_value() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut slow, token) = rig.join(SSE, &["a"]);
    let (mut quick, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut quick, "keyrelay.ready");
    rig.choke(token, &channel);
    for round in 0..100 {
        rig.put(&channel, "k", format!("value {round}."));
        rig.until_sees(&mut quick, &format!("value {round}."));
    }
    rig.until_sees(&mut slow, "value 99.");
    assert!(!slow.sees("value 50."), "what was superseded meanwhile is not sent");
    // No frame was torn.
    slow.body();
    assert!(rig.conn(token).unwrap().session.is_live());
    assert_eq!(rig.core.books.stats.pinned.load(Ordering::Relaxed), 0);
}

#[test]
fn half_written_frames_are_finished_before_anything_else() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    rig.choke(token, &channel);
    // A ping is answered, but not in the midst of a frame; and a heartbeat waits.
    peer.send_frame(9, b"are you there");
    rig.pass(Duration::from_secs(20));
    rig.until_sees(&mut peer, "are you there");
    let mut rest = peer.got.strip_prefix(b"HEAD\r\n\r\n").unwrap();
    let mut opcodes = Vec::new();
    while !rest.is_empty() {
        let (head, size) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize),
            size => (2, usize::from(size)),
        };
        opcodes.push(rest[0]);
        rest = &rest[head + size..];
    }
    assert!(
        opcodes.iter().all(|opcode| matches!(opcode, 0x81 | 0x8a)),
        "{opcodes:x?}"
    );
}

#[test]
fn a_walk_is_cut_into_slices_and_survives_those_who_leave_meanwhile() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let mut peers: Vec<(Peer, Token)> = (0..3 * SLICE).map(|_| rig.join(SSE, &["a"])).collect();
    rig.settle();
    assert!(
        peers
            .iter()
            .all(|(_, token)| client(&mut rig.core.clients, *token).unwrap().session.is_live())
    );
    rig.put(&channel, "k", "first");
    rig.core.take();
    let before = rig.core.books.stats.messages.load(Ordering::Relaxed);
    assert!(rig.core.slice(rig.now), "there is more");
    let sent = rig.core.books.stats.messages.load(Ordering::Relaxed) - before;
    assert_eq!(sent, SLICE as u64);
    // Some who were served and some who were not yet leave, others come, and more happens, all within the turn.
    let mut at = 0;
    peers.retain(|_| {
        at += 1;
        at % 3 != 0
    });
    rig.core.poll();
    rig.put(&channel, "k", "second");
    let mut late: Vec<Peer> = (0..10).map(|_| rig.join(SSE, &["a"]).0).collect();
    for peer in &mut late {
        rig.until_sees(peer, "second");
    }
    for (peer, _) in &mut peers {
        rig.until_sees(peer, "second");
        let live: Vec<String> = peer.live().into_iter().map(|(_, data)| data).collect();
        assert!(live == ["first", "second"] || live == ["second"], "{live:?}");
    }
    assert_eq!(peers.len(), 2 * SLICE);
    assert_eq!(rig.core.clients.len(), 2 * SLICE + 10);
}

//! A proxy between relay and server that does to connections what networks do: cuts, silence, delay, crumbs, other servers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is passed on at once where nothing makes it less.
const CHUNK: usize = 64 * 1024;

/// Which of the relay's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that hears key events; known by its first command, a HELLO with SETNAME.
    Feed,
    /// All others, which read.
    Reader,
}

/// All connections of the relay.
pub const BOTH: &[Side] = &[Side::Feed, Side::Reader];
pub const FEED: &[Side] = &[Side::Feed];
pub const READER: &[Side] = &[Side::Reader];

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By an RST, as from a firewall or a machine that has started anew.
    Reset,
    /// By a FIN, as from a process that has ended.
    Close,
    /// Not at all: the peer is silently gone, and what is sent to it vanishes.
    Vanish,
}

/// Where in the stream a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After so many further bytes from the server.
    Bytes(u64),
    /// So many bytes into the answer to what the relay sends from the `nth` (from 1 on) further command of that name on.
    Answer {
        command: &'static str,
        nth: u32,
        bytes: u64,
    },
}

/// A few bytes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drip {
    pub bytes: usize,
    pub every: Duration,
}

/// What the connections of one side are subject to; new ones as well as those that are there.
#[derive(Clone, Debug)]
struct Conditions {
    /// Where new connections lead.
    server: SocketAddr,
    refused: bool,
    swallowed: bool,
    held: bool,
    delay: Duration,
    drip: Option<Drip>,
    cut: Option<(Place, Cut)>,
}

/// One side: its conditions, and how its connections are reached.
struct Way {
    conditions: watch::Sender<Conditions>,
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    open: Vec<watch::Sender<Option<Cut>>>,
    made: usize,
}

/// A proxy that is gone, with all its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    ways: Arc<[Way; 2]>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Begins to accept, at an address of its own, what is meant for `server`.
    pub fn start(server: SocketAddr) -> Proxy {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let way = || Way {
            conditions: watch::Sender::new(Conditions {
                server,
                refused: false,
                swallowed: false,
                held: false,
                delay: Duration::ZERO,
                drip: None,
                cut: None,
            }),
            links: Mutex::default(),
        };
        let ways = Arc::new([way(), way()]);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn({
            let ways = ways.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, ways) => {}
                    }
                });
            }
        });
        Proxy {
            address,
            ways,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What the relay takes for its server.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub fn open(&self, side: Side) -> usize {
        self.way(side).links.lock().unwrap().open.len()
    }

    /// How many connections have reached the server since the start.
    pub fn made(&self, side: Side) -> usize {
        self.way(side).links.lock().unwrap().made
    }

    /// Ends the connections that are there.
    pub fn cut(&self, sides: &[Side], how: Cut) {
        for &side in sides {
            for link in &self.way(side).links.lock().unwrap().open {
                link.send_replace(Some(how));
            }
        }
    }

    /// Ends one connection of each side later, at that place.
    pub fn cut_at(&self, sides: &[Side], place: Place, how: Cut) {
        self.change(sides, |conditions| conditions.cut = Some((place, how)));
    }

    /// Whether an end that was ordered with [`cut_at`](Proxy::cut_at) has not come yet.
    pub fn is_to_be_cut(&self, side: Side) -> bool {
        self.way(side).conditions.borrow().cut.is_some()
    }

    /// Whether new connections are reset at once.
    pub fn refuse(&self, sides: &[Side], refused: bool) {
        self.change(sides, |conditions| conditions.refused = refused);
    }

    /// Whether new connections lead nowhere: what is sent vanishes. Those that are there go on.
    pub fn swallow(&self, sides: &[Side], swallowed: bool) {
        self.change(sides, |conditions| conditions.swallowed = swallowed);
    }

    /// Whether the server's bytes are held back; none is lost, they pile up.
    pub fn hold(&self, sides: &[Side], held: bool) {
        self.change(sides, |conditions| conditions.held = held);
    }

    /// How late the server's bytes come.
    pub fn delay(&self, sides: &[Side], delay: Duration) {
        self.change(sides, |conditions| conditions.delay = delay);
    }

    /// Both ways only a few bytes at a time, or as they come.
    pub fn drip(&self, sides: &[Side], drip: Option<Drip>) {
        self.change(sides, |conditions| conditions.drip = drip);
    }

    /// Where new connections lead; those that are there stay.
    pub fn lead(&self, sides: &[Side], server: SocketAddr) {
        self.change(sides, |conditions| conditions.server = server);
    }

    /// From now on nothing is done to bytes and new connections; where they lead stays.
    pub fn calm(&self) {
        self.change(BOTH, |conditions| {
            *conditions = Conditions {
                server: conditions.server,
                refused: false,
                swallowed: false,
                held: false,
                delay: Duration::ZERO,
                drip: None,
                cut: None,
            };
        });
    }

    fn change(&self, sides: &[Side], change: impl Fn(&mut Conditions)) {
        for &side in sides {
            self.way(side).conditions.send_modify(&change);
        }
    }

    fn way(&self, side: Side) -> &Way {
        &self.ways[side as usize]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("it was not waited for").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the proxy panicked");
    }
}

async fn accept(listener: std::net::TcpListener, ways: Arc<[Way; 2]>) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("the proxy can accept");
                let ways = ways.clone();
                links.spawn(async move {
                    // Whatever ends a connection has been seen by both of its ends.
                    let _ = link(client, &ways).await;
                });
            }
            Some(ended) = links.join_next() => ended.expect("a link does not panic"),
        }
    }
}

/// One connection of the relay, from its first bytes to its end.
async fn link(mut client: TcpStream, ways: &[Way; 2]) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut first = Vec::with_capacity(CHUNK);
    client.read_buf(&mut first).await?;
    let is_feed = first.windows(7).any(|word| word == b"SETNAME");
    let side = if is_feed { Side::Feed } else { Side::Reader };
    let way = &ways[side as usize];
    let conditions = way.conditions.borrow().clone();
    if conditions.refused {
        return client.set_zero_linger();
    }
    if conditions.swallowed {
        return swallow(&mut client).await;
    }
    let Ok(mut server) = TcpStream::connect(conditions.server).await else {
        return client.set_zero_linger();
    };
    server.set_nodelay(true)?;
    if first.is_empty() || first.windows(14).any(|word| word == b"keyrelay-check") {
        // The relay's look at its server, once at the start: not what these tests are about.
        server.write_all(&first).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let (order, mut ordered) = watch::channel(None);
    {
        let mut links = way.links.lock().unwrap();
        links.made += 1;
        links.open.push(order.clone());
    }
    let cutter = Cutter { way, order: &order };
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            biased;
            how = ordered.wait_for(Option::is_some) => how.ok().and_then(|how| *how),
            _ = up(first, from_client, to_server, &cutter) => None,
            _ = down(from_server, to_client, &cutter) => None,
        }
    };
    match how {
        Some(Cut::Reset) => {
            client.set_zero_linger()?;
            server.set_zero_linger()?;
        }
        Some(Cut::Close) | None => {}
        // The server hears of no end either, until the relay gives up.
        Some(Cut::Vanish) => {
            let given_up = swallow(&mut client);
            let forgotten = async {
                let _ = swallow(&mut server).await;
                std::future::pending::<()>().await;
            };
            tokio::select! { _ = given_up => {}, () = forgotten => {} }
        }
    }
    // Before the sockets are closed: who sees the end of one must not find it counted any more.
    way.links.lock().unwrap().open.retain(|link| !link.same_channel(&order));
    Ok(())
}

/// Reads and forgets until the peer closes.
async fn swallow(peer: &mut TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    while peer.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// What both directions of a connection need to know and may order.
struct Cutter<'a> {
    way: &'a Way,
    order: &'a watch::Sender<Option<Cut>>,
}

impl Cutter<'_> {
    fn conditions(&self) -> Conditions {
        self.way.conditions.borrow().clone()
    }

    /// Counts what the relay sends against the place where it is to be cut.
    fn sent(&self, bytes: &[u8]) {
        self.way.conditions.send_if_modified(|conditions| {
            let Some((
                Place::Answer {
                    command,
                    nth,
                    bytes: rest,
                },
                how,
            )) = conditions.cut
            else {
                return false;
            };
            let word = format!("\r\n${}\r\n{command}\r\n", command.len());
            let found = bytes
                .windows(word.len())
                .filter(|window| *window == word.as_bytes())
                .count() as u32;
            let place = match nth.checked_sub(found) {
                Some(0) | None => Place::Bytes(rest),
                Some(nth) => Place::Answer {
                    command,
                    nth,
                    bytes: rest,
                },
            };
            conditions.cut = Some((place, how));
            found > 0
        });
    }

    /// How many of `length` bytes from the server still come through, and how the connection ends if not all.
    fn received(&self, length: usize) -> (usize, Option<Cut>) {
        let mut through = (length, None);
        self.way.conditions.send_if_modified(|conditions| {
            let Some((Place::Bytes(rest), how)) = &mut conditions.cut else {
                return false;
            };
            if *rest >= length as u64 {
                *rest -= length as u64;
                return false;
            }
            through = (*rest as usize, Some(*how));
            conditions.cut = None;
            true
        });
        through
    }
}

async fn up(
    first: Vec<u8>,
    mut client: impl AsyncReadExt + Unpin,
    mut server: impl AsyncWriteExt + Unpin,
    cutter: &Cutter<'_>,
) -> io::Result<()> {
    let mut bytes = first;
    while !bytes.is_empty() {
        cutter.sent(&bytes);
        drip(&bytes, &mut server, cutter).await?;
        bytes.clear();
        client.read_buf(&mut bytes).await?;
    }
    Ok(())
}

async fn down(
    mut server: impl AsyncReadExt + Unpin,
    mut client: impl AsyncWriteExt + Unpin,
    cutter: &Cutter<'_>,
) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    let mut conditions = cutter.way.conditions.subscribe();
    loop {
        // As long as nobody reads them, the server keeps them.
        let _ = conditions.wait_for(|conditions| !conditions.held).await;
        let length = server.read(&mut bytes).await?;
        if length == 0 {
            return client.shutdown().await;
        }
        let _ = conditions.wait_for(|conditions| !conditions.held).await;
        let delay = cutter.conditions().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let (through, cut) = cutter.received(length);
        drip(&bytes[..through], &mut client, cutter).await?;
        if cut.is_some() {
            cutter.order.send_replace(cut);
            std::future::pending::<()>().await;
        }
    }
}

/// Writes as many bytes at a time as the conditions allow.
async fn drip(mut bytes: &[u8], to: &mut (impl AsyncWriteExt + Unpin), cutter: &Cutter<'_>) -> io::Result<()> {
    while !bytes.is_empty() {
        let drip = cutter.conditions().drip;
        let (now, later) = match drip {
            Some(drip) => bytes.split_at(bytes.len().min(drip.bytes)),
            None => (bytes, &[][..]),
        };
        to.write_all(now).await?;
        if let Some(drip) = drip {
            sleep(drip.every).await;
        }
        bytes = later;
    }
    Ok(())
}

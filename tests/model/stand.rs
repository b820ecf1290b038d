//! Servers, two relays of them, and between them a proxy for each: used by one schedule after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyrelay::switches::Switch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::keys::{ELSEWHERE, KEYS, MAPPINGS};
use super::redis::Redis;
use super::rng::Rng;
use crate::harness::{
    BOTH, Cut, Data, PATIENCE, Proxy, Relay, Reply, Server, debug_allowed, prompt_server, replicate, server_version,
};

/// What servers there are, and which of them a relay mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One server with two relays.
    Plain,
    /// A replica with two relays; what is written is written to its primary.
    Replica,
    /// Two KeyDB nodes that both take writes, each with a relay; a key is written at one of them only.
    Pair,
}

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Kind, ()> {
        match name {
            "plain" => Ok(Kind::Plain),
            "replica" => Ok(Kind::Replica),
            "pair" if has_pairs() => Ok(Kind::Pair),
            _ => Err(()),
        }
    }
}

impl Kind {
    /// That of a schedule's seed.
    pub fn of(seed: u64, focus: Option<Switch>) -> Kind {
        Kind::in_turn(Rng(!seed).index(TURNS.len()), focus)
    }

    /// Each kind as often as it ought to be there.
    pub fn in_turn(turn: usize, focus: Option<Switch>) -> Kind {
        match TURNS[turn % TURNS.len()] {
            _ if focus.is_some() => Kind::Plain,
            Kind::Pair if !has_pairs() => Kind::Replica,
            kind => kind,
        }
    }
}

/// Whether the server is one of those that can be an active replica.
pub fn has_pairs() -> bool {
    server_version().to_lowercase().contains("keydb")
}

const TURNS: [Kind; 6] = [
    Kind::Plain,
    Kind::Replica,
    Kind::Pair,
    Kind::Plain,
    Kind::Plain,
    Kind::Plain,
];

/// Loading takes a tenth of a second, in which the server says so.
const SLOW_LOADING: &str = "key-load-delay 2000\nloading-process-events-interval-bytes 1024";

/// A peer that was away for long has to be sent everything.
const SHORT_BACKLOG: &str = "active-replica yes\nmulti-master yes\nrepl-backlog-size 16kb";

pub struct Stand {
    pub kind: Kind,
    /// The first relay's server; then the replica's primary, or the other node.
    servers: Vec<Arc<Mutex<Server>>>,
    /// The address of the first, to which all is done that is not said to be done elsewhere.
    pub address: SocketAddr,
    addresses: Vec<SocketAddr>,
    /// Between servers: each is what another one takes for the server of that number.
    links: Vec<Option<Proxy>>,
    /// A server that has nothing to do with these: it is there when it was needed once.
    elsewhere: Arc<Mutex<Option<Server>>>,
    pub proxies: [Proxy; 2],
    relays: [Arc<Mutex<Relay>>; 2],
    pub relay_addresses: [SocketAddr; 2],
}

impl Stand {
    /// Starts everything; in the relays this mechanism is off.
    pub async fn start(kind: Kind, off: Option<Switch>) -> Stand {
        let started = spawn_blocking(move || Stand::start_blocking(kind, off)).await;
        started.expect("server and relays start")
    }

    fn start_blocking(kind: Kind, off: Option<Switch>) -> Stand {
        let (servers, links) = Stand::servers(kind);
        let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
        let proxies = [0, 1].map(|relay| Proxy::start(addresses[mirrored(kind, relay)]));
        let off = Switch::NAMED.iter().find(|(_, switch)| Some(*switch) == off);
        let off = off.map(|(name, _)| *name).unwrap_or_default();
        let relays = proxies.each_ref().map(|proxy| {
            let upstream = format!("url = \"{}\"\nverify = \"off\"", proxy.url());
            Relay::without(off, &upstream, "", MAPPINGS)
        });
        let relay_addresses = relays.each_ref().map(Relay::address);
        Stand {
            kind,
            servers: servers.into_iter().map(|server| Arc::new(Mutex::new(server))).collect(),
            address: addresses[0],
            addresses,
            links,
            elsewhere: Arc::default(),
            proxies,
            relays: relays.map(|relay| Arc::new(Mutex::new(relay))),
            relay_addresses,
        }
    }

    /// The servers, joined through proxies; they find each other again when they are started anew.
    fn servers(kind: Kind) -> (Vec<Server>, Vec<Option<Proxy>>) {
        let debug = debug_allowed();
        let lines = match kind {
            Kind::Plain => return (vec![Server::with_config(debug)], vec![]),
            Kind::Replica => [format!("{debug}\n{SLOW_LOADING}"), debug.to_owned()],
            Kind::Pair => [(); 2].map(|()| format!("{debug}\n{SHORT_BACKLOG}")),
        };
        let mut servers: Vec<Server> = lines.iter().map(|lines| prompt_server(lines)).collect();
        let mut links = vec![None, None];
        for from in 0..2 {
            let to = 1 - from;
            if (kind, from) == (Kind::Replica, 1) {
                continue;
            }
            let link = Proxy::start(servers[to].address());
            replicate(&servers[from], link.address());
            let (ip, port) = (link.address().ip(), link.address().port());
            servers[from].add_config(&format!("replicaof {ip} {port}"));
            links[to] = Some(link);
        }
        (servers, links)
    }

    /// The server that this relay mirrors.
    pub fn mirrored(&self, relay: usize) -> SocketAddr {
        self.addresses[self.number_mirrored(relay)]
    }

    /// Its place among [`addresses`](Stand::addresses).
    pub fn number_mirrored(&self, relay: usize) -> usize {
        mirrored(self.kind, relay)
    }

    /// The relays of the first server.
    pub fn relays_of_first(&self) -> [bool; 2] {
        [0, 1].map(|relay| mirrored(self.kind, relay) == 0)
    }

    /// Where this writer writes.
    pub fn written(&self, writer: usize) -> SocketAddr {
        match self.kind {
            Kind::Plain => self.address,
            Kind::Replica => self.addresses[1],
            Kind::Pair => self.addresses[writer % 2],
        }
    }

    /// Where what the first relay shows is written.
    pub fn source(&self) -> SocketAddr {
        self.written(0)
    }

    /// Whether nothing comes to it from another server.
    pub fn is_alone(&self, address: SocketAddr) -> bool {
        self.kind != Kind::Pair && address == self.source()
    }

    /// All servers that ought to hold the same.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The ways from server to server.
    pub fn links(&self) -> impl Iterator<Item = &Proxy> {
        self.links.iter().flatten()
    }

    /// Puts back what the last schedule may have changed; false if the servers do not come together again.
    pub async fn tidy(&self) -> bool {
        self.proxies.iter().chain(self.links()).for_each(Proxy::calm);
        for &address in &self.addresses {
            for line in [
                "DEBUG SET-ACTIVE-EXPIRE 1",
                "CONFIG SET maxmemory 0",
                "ACL SETUSER default allchannels +@all",
            ] {
                self.admin_at(address, line).await;
            }
        }
        if !self.is_joined().await {
            return false;
        }
        self.admin_at(self.source(), "FLUSHALL").await;
        if self.kind == Kind::Pair {
            self.admin_at(self.addresses[1], "FLUSHALL").await;
        }
        self.is_caught_up().await
    }

    /// Waits until the servers' links are up; false if that takes too long.
    pub async fn is_joined(&self) -> bool {
        let followers = (0..self.links.len()).filter(|&from| self.links[1 - from].is_some());
        for from in followers {
            let up = |info: &str| {
                let mut links = info
                    .lines()
                    .filter(|line| line.starts_with("master_") && line.contains("link_status:"));
                links.clone().count() > 0 && links.all(|line| line.ends_with(":up"))
            };
            let address = self.addresses[from];
            if !patiently(address, &["INFO", "replication"], |reply| up(&reply.text())).await {
                return false;
            }
        }
        true
    }

    /// Waits until each server has all that was written at the others until now; false if that takes too long.
    pub async fn is_caught_up(&self) -> bool {
        static LAST: AtomicU64 = AtomicU64::new(0);
        for (to, link) in self.links.iter().enumerate() {
            if link.is_none() {
                continue;
            }
            let mark = LAST.fetch_add(1, Ordering::Relaxed).to_string();
            let key = format!("mark:{to}");
            self.admin_at(self.addresses[to], &format!("SET {key} {mark}")).await;
            let there = |reply: &Reply| *reply == Reply::Bulk(mark.clone().into_bytes());
            if !patiently(self.addresses[1 - to], &["GET", &key], there).await {
                return false;
            }
        }
        true
    }

    /// Nothing that one server sends comes to another one, or all does again.
    pub fn part(&self, apart: bool) {
        for link in self.links() {
            link.refuse(BOTH, apart);
            if apart {
                link.cut(BOTH, Cut::Reset);
            }
        }
    }

    /// The replica follows its primary, which it had left.
    pub async fn follow(&self) {
        for link in self.links() {
            let (ip, port) = (link.address().ip(), link.address().port());
            self.admin(&format!("REPLICAOF {ip} {port}")).await;
        }
    }

    /// A server that has other values for all keys.
    pub async fn elsewhere(&self) -> SocketAddr {
        let elsewhere = self.elsewhere.clone();
        let started = spawn_blocking(move || {
            let mut elsewhere = lock(&elsewhere);
            let new = elsewhere.is_none();
            let server = elsewhere.get_or_insert_with(|| Server::with_config(debug_allowed()));
            (server.address(), new)
        });
        let (address, new) = started.await.expect("another server starts");
        // Once only: the other relay may hear it by now.
        for key in KEYS.iter().filter(|_| new) {
            self.write_elsewhere(address, &key.bytes).await;
        }
        address
    }

    pub async fn write_elsewhere(&self, address: SocketAddr, key: &[u8]) {
        self.admin_words_at(address, &[b"SET", key, ELSEWHERE.as_bytes()]).await;
    }

    /// A command of words; in a word, a no-break space stands for a blank. It is tried until the server takes it.
    pub async fn admin(&self, line: &str) {
        self.admin_at(self.address, line).await;
    }

    pub async fn admin_at(&self, address: SocketAddr, line: &str) {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.admin_words_at(address, &words).await;
    }

    pub async fn admin_words(&self, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.admin_words_at(self.address, &words).await;
    }

    async fn admin_words_at(&self, address: SocketAddr, words: &[&[u8]]) {
        for _ in 0..1000 {
            let answer = match Redis::connect(address).await {
                Ok(mut redis) => redis.command(words).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Reply::Error(error)) if error.starts_with("BUSY") || error.starts_with("LOADING") => {}
                Ok(Reply::Error(error)) if error.starts_with("MASTERDOWN") => {}
                Ok(Reply::Error(error)) if error.contains("max number of clients") => {}
                Ok(Reply::Error(error)) => panic!("{}: {error}", String::from_utf8_lossy(&words.join(&b' '))),
                // A script that published too much, or a command that kills connections.
                Ok(_) => return,
                Err(_) => {}
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "the server does not take {}",
            String::from_utf8_lossy(&words.join(&b' '))
        );
    }

    pub fn freeze(&self) {
        lock(&self.servers[0]).freeze();
    }

    pub fn thaw(&self) {
        lock(&self.servers[0]).thaw();
    }

    /// Kills the first server, or another one.
    pub async fn kill(&self, server: usize) {
        let server = self.servers[server].clone();
        let _ = spawn_blocking(move || lock(&server).kill()).await;
    }

    pub async fn restart(&self, server: usize, data: Data) {
        let server = self.servers[server].clone();
        let restarted = spawn_blocking(move || lock(&server).restart(data)).await;
        restarted.expect("the server starts again");
    }

    /// Waits until the server tells of key events, for as long as that may take.
    pub async fn wait_for_setting(&self) {
        for _ in 0..500 {
            let setting = match Redis::connect(self.address).await {
                Ok(mut redis) => redis.words("CONFIG GET notify-keyspace-events").await,
                Err(error) => Err(error),
            };
            if matches!(setting, Ok(Reply::Array(pair)) if pair.get(1).is_some_and(|value| !value.text().is_empty())) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn restart_relay(&self, relay: usize) {
        let relay = self.relays[relay].clone();
        let restarted = spawn_blocking(move || lock(&relay).restart()).await;
        restarted.expect("the relay starts again");
    }

    /// What relays and servers have logged last.
    pub fn logs(&self) -> String {
        let relays = self.relays.iter().map(|relay| ("relay", 20, lock(relay).log()));
        let servers = self.servers.iter().map(|server| ("server", 15, lock(server).log()));
        let mut text = String::new();
        for (who, count, log) in relays.chain(servers) {
            let lines: Vec<&str> = log.lines().collect();
            if let Some(at) = lines.iter().position(|line| line.contains("BUG REPORT START")) {
                let end = lines.len().min(at + 40);
                text.push_str(&format!("    a crash:\n{}\n", lines[at..end].join("\n")));
            }
            let last = &lines[lines.len().saturating_sub(count)..];
            text.push_str(&format!("    a {who}:\n{}\n", last.join("\n")));
        }
        text
    }
}

/// The server that this relay mirrors, by its number.
fn mirrored(kind: Kind, relay: usize) -> usize {
    if kind == Kind::Pair { relay } else { 0 }
}

/// Asks until the answer is right; false if that takes too long.
async fn patiently(address: SocketAddr, words: &[&str], right: impl Fn(&Reply) -> bool) -> bool {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let answer = match Redis::connect(address).await {
            Ok(mut redis) => redis.pipeline(&[words.to_vec()]).await,
            Err(error) => Err(error),
        };
        if answer.is_ok_and(|replies| right(&replies[0])) {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

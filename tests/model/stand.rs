//! A server, two relays of it, and between them a proxy for each: used by one schedule after the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyrelay::switches::Switch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::keys::MAPPINGS;
use super::redis::Redis;
use crate::harness::{Data, Proxy, Relay, Reply, Server, debug_allowed};

pub struct Stand {
    server: Arc<Mutex<Server>>,
    pub address: SocketAddr,
    pub proxies: [Proxy; 2],
    relays: [Arc<Mutex<Relay>>; 2],
    pub relay_addresses: [SocketAddr; 2],
}

impl Stand {
    /// Starts everything; in the relays this mechanism is off.
    pub async fn start(off: Option<Switch>) -> Stand {
        let started = spawn_blocking(move || Stand::start_blocking(off)).await;
        started.expect("server and relays start")
    }

    fn start_blocking(off: Option<Switch>) -> Stand {
        let server = Server::with_config(debug_allowed());
        let address = server.address();
        let proxies = [Proxy::start(address), Proxy::start(address)];
        let off = Switch::NAMED.iter().find(|(_, switch)| Some(*switch) == off);
        let off = off.map(|(name, _)| *name).unwrap_or_default();
        let relays = proxies.each_ref().map(|proxy| {
            let upstream = format!("url = \"{}\"\nverify = \"off\"", proxy.url());
            Relay::without(off, &upstream, "", MAPPINGS)
        });
        let relay_addresses = relays.each_ref().map(Relay::address);
        Stand {
            server: Arc::new(Mutex::new(server)),
            address,
            proxies,
            relays: relays.map(|relay| Arc::new(Mutex::new(relay))),
            relay_addresses,
        }
    }

    /// Puts back what the last schedule may have changed.
    pub async fn tidy(&self) {
        self.proxies.iter().for_each(Proxy::calm);
        for line in [
            "DEBUG SET-ACTIVE-EXPIRE 1",
            "CONFIG SET maxmemory 0",
            "ACL SETUSER default allchannels +@all",
            "FLUSHALL",
        ] {
            self.admin(line).await;
        }
    }

    /// A command of words; in a word, a no-break space stands for a blank. It is tried until the server takes it.
    pub async fn admin(&self, line: &str) {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.admin_words(&words).await;
    }

    pub async fn admin_words(&self, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        for _ in 0..1000 {
            let answer = match Redis::connect(self.address).await {
                Ok(mut redis) => redis.command(&words).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Reply::Error(error)) if error.starts_with("BUSY") || error.starts_with("LOADING") => {}
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
        lock(&self.server).freeze();
    }

    pub fn thaw(&self) {
        lock(&self.server).thaw();
    }

    pub async fn kill(&self) {
        let server = self.server.clone();
        let _ = spawn_blocking(move || lock(&server).kill()).await;
    }

    pub async fn restart(&self, data: Data) {
        let server = self.server.clone();
        let restarted = spawn_blocking(move || lock(&server).restart(data)).await;
        restarted.expect("the server starts again");
    }

    pub async fn kill_relay(&self, relay: usize) {
        let relay = self.relays[relay].clone();
        let _ = spawn_blocking(move || lock(&relay).kill()).await;
    }

    /// Whether it was not killed.
    pub fn runs(&self, relay: usize) -> bool {
        lock(&self.relays[relay]).runs()
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

    /// What the relays have logged last.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (n, relay) in self.relays.iter().enumerate() {
            let log = lock(relay).log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(20)..];
            text.push_str(&format!("    relay {n}:\n{}\n", last.join("\n")));
        }
        text
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

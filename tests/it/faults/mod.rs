//! Faults of connections, server and relay: each is noticed, said and repaired, and nothing is sent that did not differ.

mod answers;
mod feed;
mod reader;
mod relay;
mod server;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, Proxy, Relay, Server, Side, Sse, eventually, mapping, names};
use crate::redis;

/// One channel of all keys `v:*`.
const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// A relay that reaches its server through a proxy, and a client of it.
struct Setup {
    server: Server,
    proxy: Proxy,
    relay: Relay,
    client: Sse,
    /// The controls and messages that were looked at.
    looked: (usize, usize),
}

impl Setup {
    /// With three keys, which the client knows.
    #[track_caller]
    fn new() -> Setup {
        Setup::with(MAPPING, |server| {
            redis!(server, "MSET", "v:1", "one", "v:2", "two", "v:3", "three");
        })
    }

    /// With a mapping that gives the channel `v`, and a server that is prepared first.
    #[track_caller]
    fn with(lines: &str, prepare: impl FnOnce(&Server)) -> Setup {
        let server = Server::start();
        prepare(&server);
        Setup::of(server, "", lines)
    }

    /// With a server, and a user of it as it stands in the URL: `name:password@`.
    #[track_caller]
    fn of(server: Server, user: &str, lines: &str) -> Setup {
        let proxy = Proxy::start(server.address());
        let url = format!("redis://{user}{}/0", proxy.address());
        let relay = Relay::at(&url, "", &mapping(lines));
        let mut client = Sse::open(&relay, &["v"]);
        client.ready();
        // An events channel is ready before anything can be read.
        eventually("there is one connection of each kind", || {
            ((proxy.made(Side::Feed), proxy.made(Side::Reader)) == (1, 1)).then_some(())
        });
        // They ask for a page of keys, too.
        relay.checked();
        let mut setup = Setup {
            server,
            proxy,
            relay,
            client,
            looked: (0, 0),
        };
        setup.look();
        setup
    }

    /// The controls heard since the last look, as `stale upstream-lost`, and how many messages; all of channel `v`.
    #[track_caller]
    fn look(&mut self) -> (Vec<String>, usize) {
        let memory = self.client.memory();
        let controls = &memory.controls[self.looked.0..];
        let messages = memory.messages.len() - self.looked.1;
        self.looked = (memory.controls.len(), memory.messages.len());
        let told = controls.iter().map(|(kind, data)| {
            assert_eq!(names(&data["channels"]), ["v"]);
            match data["reason"].as_str() {
                Some(reason) => format!("{kind} {reason}"),
                None => kind.clone(),
            }
        });
        (told.collect(), messages)
    }

    /// Hears `stale` with this reason.
    #[track_caller]
    fn hears_stale(&mut self, reason: &str) {
        self.client.until(&format!("stale {reason}"), |memory| {
            let last = memory.controls.last();
            last.is_some_and(|(kind, data)| kind == "stale" && data["reason"] == reason)
        });
    }

    /// Hears `fresh` after it.
    #[track_caller]
    fn hears_fresh(&mut self) {
        self.client.until("fresh", |memory| {
            memory.controls.last().is_some_and(|(kind, _)| kind == "fresh")
        });
    }

    /// Hears `fresh` if it was told `stale`.
    #[track_caller]
    fn hears_calm(&mut self) {
        self.client.until("fresh", |memory| {
            let mut controls = memory.controls.iter().rev().map(|(kind, _)| kind.as_str());
            controls.find(|kind| ["stale", "fresh"].contains(kind)) != Some("stale")
        });
    }

    /// A value, a deletion and a new key.
    fn write(&self) {
        redis!(self.server, "SET", "v:1", "new");
        redis!(self.server, "DEL", "v:2");
        redis!(self.server, "SET", "v:4", "four");
    }

    /// Hears `fresh`, and before it what [`write`](Setup::write) did and nothing else, as what a comparison found; then
    /// what is changed next, live. Gives the controls that were heard since the last look.
    #[track_caller]
    fn hears_the_repair(&mut self) -> Vec<String> {
        self.hears_fresh();
        let told = &self.client.memory().messages[self.looked.1..];
        assert!(told.iter().all(|each| each.json.get("event").is_none()), "{told:?}");
        let mut told: Vec<_> = told.iter().map(|each| (each.key(), each.value().clone())).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("v:1", json!("new")), ("v:2", Value::Null), ("v:4", json!("four"))];
        assert_eq!(
            told,
            expected.map(|(key, value)| (key.to_owned(), value)),
            "what differs and nothing else"
        );
        let (controls, _) = self.look();
        self.is_live();
        controls
    }

    /// What is changed now is told at once, by its event.
    #[track_caller]
    fn is_live(&mut self) {
        // After a burst comes a `ready`, behind what it was too fast for.
        self.client.cursor();
        self.looked = (self.client.memory().controls.len(), self.client.memory().messages.len());
        let value = format!("live {}", self.looked.1);
        redis!(self.server, "SET", "v:3", value);
        self.client.sees("v", "v:3", value.as_str());
        assert_eq!(self.client.memory().messages.last().unwrap().json["event"], "set");
        assert_eq!(self.look(), (vec![], 1));
    }

    /// How often the server was asked for a page of keys.
    fn scans(&self) -> u64 {
        self.server.calls("scan")
    }
}

/// Lets the client listen for so long.
fn listen_for(client: &mut Sse, time: Duration) {
    assert!(time < PATIENCE);
    let end = Instant::now() + time;
    while Instant::now() < end {
        client.poll(end.saturating_duration_since(Instant::now()));
    }
}

/// How often the server refused a command.
fn rejected(server: &Server, command: &str) -> u64 {
    let stats = redis!(server, "INFO", "commandstats").text();
    let line = stats
        .lines()
        .find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let count = line.and_then(|line| line.split_once("rejected_calls="));
    count.map_or(0, |(_, count)| {
        count.split(',').next().unwrap_or_default().parse().expect("a count")
    })
}

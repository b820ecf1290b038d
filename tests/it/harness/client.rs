//! What every transport's client is to a test: it opens channels, hears events, and remembers what a page would.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::eventually::PATIENCE;
use super::relay::Relay;

/// One thing that a client heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Message(Message),
    /// `ready`, `reset`, `stale`, `fresh`, `gap`, `end`, and in WebSocket also `pong` and `error`, with their data.
    Control(String, Value),
    /// A sign of life that says nothing.
    Heartbeat,
    /// The connection is over.
    Closed(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As the transport wants it; the close code where there is one.
    Proper(Option<u16>),
    /// Without a word.
    Cut,
}

/// A message with its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub id: Option<String>,
    pub name: Option<String>,
    /// The payload as text.
    pub text: String,
    /// The payload as JSON, where it is some.
    pub json: Value,
}

impl Message {
    pub fn channel(&self) -> &str {
        self.json["channel"].as_str().unwrap_or_default()
    }

    /// The key; one that is not UTF-8 in the form it was sent in.
    pub fn key(&self) -> String {
        let key = &self.json["key"];
        key.as_str().map_or_else(|| key.to_string(), str::to_owned)
    }

    pub fn value(&self) -> &Value {
        &self.json["value"]
    }
}

/// What a client remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// What to send in order to go on after the last thing heard.
    pub cursor: Option<String>,
    /// The cursor in the last `ready`, for the query.
    pub query_cursor: Option<String>,
    /// The value of each key, by channel and key, as the messages told; a key that went is not in it.
    pub state: BTreeMap<(String, String), Value>,
    pub messages: Vec<Message>,
    /// How many of the messages the cursor stands behind. Those of a snapshot or catch-up carry no id: until `ready` they
    /// are told again to who comes back.
    pub covered: usize,
    pub controls: Vec<(String, Value)>,
    pub end: Option<End>,
    /// The last `retry` of an SSE stream, in milliseconds.
    pub retry: Option<u64>,
}

impl Memory {
    /// Takes note of an event, as a page does.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Message(message) => {
                let slot = (message.channel().to_owned(), message.key());
                // A page that holds the state needs payloads that name the key.
                match message.json.get("value") {
                    Some(Value::Null) => drop(self.state.remove(&slot)),
                    Some(value) => drop(self.state.insert(slot, value.clone())),
                    None => {}
                }
                self.messages.push(message.clone());
                if message.id.is_some() {
                    self.covered = self.messages.len();
                }
            }
            Event::Control(kind, data) => {
                if kind == "reset" {
                    let reset: Vec<&str> = names(&data["channels"]);
                    self.state.retain(|(channel, _), _| !reset.contains(&channel.as_str()));
                }
                if kind == "ready" {
                    self.query_cursor = data["cursor"].as_str().map(str::to_owned);
                    self.covered = self.messages.len();
                }
                self.controls.push((kind.clone(), data.clone()));
            }
            Event::Heartbeat => {}
            Event::Closed(end) => self.end = Some(end.clone()),
        }
    }

    /// The value of `key` in `channel`.
    pub fn value(&self, channel: &str, key: &str) -> Option<&Value> {
        self.state.get(&(channel.to_owned(), key.to_owned()))
    }

    /// How often a control event was heard.
    pub fn count(&self, kind: &str) -> usize {
        self.controls.iter().filter(|(known, _)| known == kind).count()
    }

    /// The values that one key has had, in the order they were heard.
    pub fn values_of(&self, key: &str) -> Vec<Value> {
        self.messages
            .iter()
            .filter(|message| message.key() == key)
            .map(|message| message.value().clone())
            .collect()
    }
}

/// The names in the `channels` of a control event: a list of names, or an object with a member for each.
pub fn names(channels: &Value) -> Vec<&str> {
    match channels {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::Object(members) => members.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What to ask of the relay.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub channels: Vec<String>,
    pub cursor: Option<String>,
    /// Size of the socket's receive buffer, for a client that is to be slow.
    pub receive_buffer: Option<usize>,
}

/// A client of one transport.
pub trait Client: Sized + Send + 'static {
    /// Connects and subscribes.
    fn connect(relay: &Relay, ask: Ask) -> Self;

    /// The next event, if one comes within `wait`; it is in the memory then.
    fn poll(&mut self, wait: Duration) -> Option<Event>;

    fn memory(&self) -> &Memory;

    /// Adds a channel to what this client hears, the way a page does it with this transport.
    fn add(self, relay: &Relay, channel: &str) -> Self;

    #[track_caller]
    fn open(relay: &Relay, channels: &[&str]) -> Self {
        Self::connect(
            relay,
            Ask {
                channels: owned(channels),
                ..Ask::default()
            },
        )
    }

    /// Comes back with what another connection remembered.
    #[track_caller]
    fn resume(relay: &Relay, channels: &[&str], cursor: Option<String>) -> Self {
        Self::connect(
            relay,
            Ask {
                channels: owned(channels),
                cursor,
                ..Ask::default()
            },
        )
    }

    /// A client with a small window, so that the relay soon notices when it does not read.
    #[track_caller]
    fn narrow(relay: &Relay, channels: &[&str]) -> Self {
        Self::connect(
            relay,
            Ask {
                channels: owned(channels),
                receive_buffer: Some(4096),
                ..Ask::default()
            },
        )
    }

    /// The next event that is no heartbeat; the test fails when none comes or the connection is over.
    #[track_caller]
    fn next(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(
                self.memory().end.is_none(),
                "closed while more was expected: {:?}",
                self.tail()
            );
            match self.poll(deadline.saturating_duration_since(Instant::now())) {
                Some(Event::Heartbeat) => {}
                Some(event) => return event,
                None => assert!(
                    Instant::now() < deadline,
                    "heard nothing more; before: {:?}",
                    self.tail()
                ),
            }
        }
    }

    /// Listens until `condition` holds for what is remembered.
    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&Memory) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self.memory()) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain: {what}; heard last: {:?}", self.tail());
            assert!(
                self.memory().end.is_none(),
                "closed before: {what}; heard last: {:?}",
                self.tail()
            );
            self.poll(left);
        }
    }

    /// Listens until `ready` was heard (once more).
    #[track_caller]
    fn ready(&mut self) {
        let before = self.memory().count("ready");
        self.until("ready", |memory| memory.count("ready") > before);
    }

    /// Listens until the cursor stands behind all that was heard, and gives it.
    #[track_caller]
    fn cursor(&mut self) -> Option<String> {
        self.until("a cursor behind the last message", |memory| {
            memory.covered == memory.messages.len()
        });
        self.memory().cursor.clone()
    }

    /// Listens until `key` has `value` in `channel`.
    #[track_caller]
    fn sees(&mut self, channel: &str, key: &str, value: impl Into<Value>) {
        let value = value.into();
        self.until(&format!("{key} = {value} in {channel}"), |memory| {
            memory.value(channel, key) == Some(&value)
        });
    }

    /// Listens until `key` is gone from `channel`.
    #[track_caller]
    fn misses(&mut self, channel: &str, key: &str) {
        self.until(&format!("{key} is gone from {channel}"), |memory| {
            memory.value(channel, key).is_none()
        });
    }

    /// Listens until the control event was heard, and gives its data.
    #[track_caller]
    fn control(&mut self, kind: &str) -> Value {
        let before = self.memory().controls.len();
        let found = |memory: &Memory| {
            let mut since = memory.controls[before..].iter();
            since.find(|(known, _)| known == kind).map(|(_, data)| data.clone())
        };
        self.until(kind, |memory| found(memory).is_some());
        found(self.memory()).unwrap_or_default()
    }

    /// Listens until the connection is over.
    #[track_caller]
    fn closed(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = &self.memory().end {
                return end.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the connection does not end; heard last: {:?}",
                self.tail()
            );
            self.poll(left);
        }
    }

    /// The last few things heard, for a failure's text.
    fn tail(&self) -> String {
        let memory = self.memory();
        let messages = &memory.messages[memory.messages.len().saturating_sub(3)..];
        let controls = &memory.controls[memory.controls.len().saturating_sub(4)..];
        let mut text = format!("messages {messages:?}, controls {controls:?}, end {:?}", memory.end);
        if text.len() > 2000 {
            let at = (0..=2000).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(at);
        }
        text
    }
}

fn owned(channels: &[&str]) -> Vec<String> {
    channels.iter().map(|&channel| channel.to_owned()).collect()
}

/// Declares tests that run once for each transport, from one body: `both! { fn name<C>() { … C::open(…) … } }`.
#[macro_export]
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident<$client:ident>() $body:block)+) => {$(
        $(#[$meta])*
        pub mod $name {
            #[allow(unused_imports, reason = "one list of imports for all bodies")]
            use super::*;

            pub fn body<$client: $crate::harness::Client>() $body

            #[test]
            fn sse() {
                body::<$crate::harness::Sse>();
            }

            #[test]
            fn ws() {
                body::<$crate::harness::Ws>();
            }
        }
    )+};
}

/// Like [`both!`](crate::both), and once more in front of a relay that hears by client tracking.
#[macro_export]
macro_rules! every_way {
    ($($(#[$meta:meta])* fn $name:ident<$client:ident>() $body:block)+) => {
        $crate::both! { $($(#[$meta])* fn $name<$client>() $body)+ }

        mod tracking {
            $(#[test]
            fn $name() {
                $crate::harness::track();
                super::$name::body::<$crate::harness::Sse>();
            })+
        }
    };
}

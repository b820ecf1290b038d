//! A client of Server-Sent Events that reads byte for byte what a browser would, and remembers the last id.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Ask, Client, End, Event, Memory, Message};
use super::http::{self, Exchange, More, escape};
use super::relay::Relay;

/// One stream.
pub struct Sse {
    pub exchange: Exchange,
    channels: Vec<String>,
    memory: Memory,
    /// Whether the byte order mark that may stand at the front was looked for.
    begun: bool,
    /// The fields of the event being read.
    data: String,
    name: String,
    id: Option<String>,
    /// Every field line as it came, for tests of the format.
    pub lines: Vec<String>,
    waiting: VecDeque<Event>,
}

/// The target of a stream of `channels`, with further query text (`&cursor=…`).
pub fn target(channels: &[String], more: &str) -> String {
    let query: Vec<String> = channels
        .iter()
        .map(|channel| format!("channel={}", escape(channel)))
        .collect();
    format!("/events?{}{more}", query.join("&"))
}

impl Sse {
    /// Sends a request for a stream; a refusal fails the test.
    #[track_caller]
    pub fn request(relay: &Relay, target: &str, headers: &[(&str, &str)], receive_buffer: Option<usize>) -> Sse {
        let mut all = vec![("Accept", "text/event-stream")];
        all.extend_from_slice(headers);
        Sse::read(relay.exchange("GET", target, &all, receive_buffer))
    }

    /// A stream of the admin listener, as a dashboard has it.
    #[track_caller]
    pub fn watch(relay: &Relay, channels: &[&str], cursor: Option<&str>) -> Sse {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let host = relay.admin().to_string();
        let cursor = cursor.map(|cursor| ("Last-Event-ID", cursor));
        let headers: Vec<_> = cursor.into_iter().chain([("Host", &*host)]).collect();
        let stream = http::connect(relay.admin(), None);
        let mut sse = Sse::read(Exchange::send(stream, "GET", &target(&channels, ""), &headers));
        sse.channels = channels;
        sse
    }

    /// Reads an answer as a stream.
    #[track_caller]
    pub fn read(exchange: Exchange) -> Sse {
        assert_eq!(exchange.head.status, 200, "{}", String::from_utf8_lossy(&exchange.body));
        assert_eq!(exchange.head.header("content-type"), Some("text/event-stream"));
        Sse {
            exchange,
            channels: Vec::new(),
            memory: Memory::default(),
            begun: false,
            data: String::new(),
            name: String::new(),
            id: None,
            lines: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes lines off the body until an event is whole: no further, so that the last id is that of the event given.
    fn parse(&mut self) {
        if !self.begun && self.exchange.body.len() >= 3 {
            self.begun = true;
            if self.exchange.body.starts_with("\u{feff}".as_bytes()) {
                self.exchange.body.drain(..3);
            }
        }
        let mut start = 0;
        while self.waiting.is_empty() {
            let rest = &self.exchange.body[start..];
            let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                break;
            };
            // CR, LF and CRLF end a line: after a CR the next byte must be known.
            let skip = match rest[at..] {
                [b'\r'] => break,
                [b'\r', b'\n', ..] => 2,
                _ => 1,
            };
            let line = String::from_utf8(rest[..at].to_vec()).expect("a stream is UTF-8");
            start += at + skip;
            self.line(line);
        }
        self.exchange.body.drain(..start);
    }

    fn line(&mut self, line: String) {
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => self.dispatch(),
            "" => self.waiting.push_back(Event::Heartbeat),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => self.name = value.to_owned(),
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned());
                self.memory.cursor = self.id.clone().filter(|id| !id.is_empty());
            }
            "retry" => self.memory.retry = value.parse().ok().or(self.memory.retry),
            _ => {}
        }
        if !line.is_empty() {
            self.lines.push(line);
        }
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        let id = self.id.take();
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        data.pop();
        let json = serde_json::from_str(&data).unwrap_or(Value::Null);
        self.waiting.push_back(match name.strip_prefix("keyrelay.") {
            Some(kind) => Event::Control(kind.to_owned(), json),
            None => Event::Message(Message {
                id,
                name: Some(name).filter(|name| !name.is_empty()),
                text: data,
                json,
            }),
        });
    }
}

impl Client for Sse {
    #[track_caller]
    fn connect(relay: &Relay, ask: Ask) -> Sse {
        let cursor = ask.cursor.as_deref().map(|cursor| ("Last-Event-ID", cursor));
        let headers: Vec<_> = cursor.into_iter().collect();
        let mut sse = Sse::request(relay, &target(&ask.channels, ""), &headers, ask.receive_buffer);
        sse.memory.cursor = ask.cursor;
        sse.channels = ask.channels;
        sse
    }

    fn poll(&mut self, wait: Duration) -> Option<Event> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.memory.note(&event);
                return Some(event);
            }
            if self.memory.end.is_some() {
                return None;
            }
            self.parse();
            if !self.waiting.is_empty() {
                continue;
            }
            let end = match self.exchange.read(deadline.saturating_duration_since(Instant::now())) {
                More::Grown => continue,
                More::Nothing if Instant::now() < deadline => continue,
                More::Nothing => return None,
                More::Ended => End::Proper(None),
                More::Cut => End::Cut,
            };
            self.waiting.push_back(Event::Closed(end));
        }
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A page closes its EventSource and opens another, with the cursor it was given for the list it had.
    #[track_caller]
    fn add(self, relay: &Relay, channel: &str) -> Sse {
        let mut channels = self.channels.clone();
        channels.push(channel.to_owned());
        let cursor = self
            .memory
            .query_cursor
            .as_deref()
            .map(|cursor| format!("&cursor={}", escape(cursor)));
        let more = cursor.unwrap_or_default();
        let mut sse = Sse::request(relay, &target(&channels, &more), &[], None);
        sse.memory.state = self.memory.state;
        sse.channels = channels;
        sse
    }
}

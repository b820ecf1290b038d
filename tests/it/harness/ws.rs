//! A WebSocket client that speaks `keyrelay.v1.json` and remembers its cursor.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{self, Error, Message as Frame};

use super::client::{Ask, Client, End, Event, Memory, Message};
use super::eventually::PATIENCE;
use super::relay::Relay;
use super::stream::Stream;

/// The subprotocol that keyrelay speaks.
pub const PROTOCOL: &str = "keyrelay.v1.json";

/// One connection.
pub struct Ws {
    pub socket: WebSocket<Stream>,
    pub response: Response,
    memory: Memory,
    /// The part of the cursor that stands for the list of channels, from the last `ready`.
    set: Option<String>,
}

impl Ws {
    /// Opens a connection to `target`, offering the subprotocol.
    #[track_caller]
    pub fn request(relay: &Relay, target: &str, receive_buffer: Option<usize>) -> Ws {
        let protocol = [("Sec-WebSocket-Protocol", PROTOCOL)];
        Ws::over(relay.connect(receive_buffer), target, &protocol)
    }

    /// Opens a connection to `target` with these headers alone.
    #[track_caller]
    pub fn request_with(relay: &Relay, target: &str, headers: &[(&'static str, &str)]) -> Ws {
        Ws::over(relay.connect(None), target, headers)
    }

    /// The same over a connection that is there already.
    #[track_caller]
    pub fn over(stream: impl Into<Stream>, target: &str, headers: &[(&'static str, &str)]) -> Ws {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut request = format!("ws://relay.test{target}").into_client_request().expect("a URL");
        for (name, value) in headers {
            let value = value.parse().expect("a header value");
            request.headers_mut().insert(*name, value);
        }
        let (socket, response) = tungstenite::client(request, stream).expect("the relay opens a WebSocket");
        Ws {
            socket,
            response,
            memory: Memory::default(),
            set: None,
        }
    }

    /// Sends a JSON message.
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.socket
            .send(Frame::text(message.to_string()))
            .expect("the relay takes a message");
    }

    fn event(&mut self, frame: Frame) -> Option<Event> {
        match frame {
            Frame::Text(text) => {
                let text = text.to_string();
                let frame: Value = serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err} in {text}"));
                let kind = frame["type"]
                    .as_str()
                    .unwrap_or_else(|| panic!("no type in {text}"))
                    .to_owned();
                let id = frame["id"].as_str().map(str::to_owned);
                if let Some(id) = &id {
                    self.memory.cursor = Some(self.cursor_after(id));
                }
                if kind == "message" {
                    let data = frame["data"].clone();
                    let message = Message {
                        id,
                        name: frame["name"].as_str().map(str::to_owned),
                        text: data.as_str().map_or_else(|| data.to_string(), str::to_owned),
                        json: data,
                    };
                    return Some(Event::Message(message));
                }
                if let Some(cursor) = frame["cursor"].as_str() {
                    self.set = cursor.splitn(3, '-').nth(2).map(str::to_owned);
                    self.memory.cursor = Some(cursor.to_owned());
                }
                Some(Event::Control(kind, frame))
            }
            Frame::Ping(_) => Some(Event::Heartbeat),
            Frame::Close(close) => Some(Event::Closed(End::Proper(close.map(|close| u16::from(close.code))))),
            _ => None,
        }
    }

    /// The cursor to come back with: a message is shared by all its receivers, so that its id does not name the list.
    fn cursor_after(&self, id: &str) -> String {
        match &self.set {
            Some(set) => format!("{id}-{set}"),
            None => id.to_owned(),
        }
    }
}

impl Client for Ws {
    #[track_caller]
    fn connect(relay: &Relay, ask: Ask) -> Ws {
        let mut ws = Ws::request(relay, "/ws", ask.receive_buffer);
        let mut subscribe = json!({"type": "subscribe", "channels": ask.channels});
        if let Some(cursor) = &ask.cursor {
            subscribe["cursor"] = json!(cursor);
            ws.set = cursor.splitn(3, '-').nth(2).map(str::to_owned);
        }
        ws.send(&subscribe);
        ws.memory.cursor = ask.cursor;
        ws
    }

    fn poll(&mut self, wait: Duration) -> Option<Event> {
        let deadline = Instant::now() + wait;
        while self.memory.end.is_none() {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.socket
                .get_ref()
                .set_read_timeout(Some(left))
                .expect("a timeout can be set");
            let event = match self.socket.read() {
                Ok(frame) => self.event(frame),
                Err(Error::Io(err)) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                    None
                }
                Err(Error::ConnectionClosed) => Some(Event::Closed(End::Proper(None))),
                Err(_) => Some(Event::Closed(End::Cut)),
            };
            if let Some(event) = event {
                self.memory.note(&event);
                return Some(event);
            }
        }
        None
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A page subscribes once more on the connection it has.
    #[track_caller]
    fn add(mut self, _relay: &Relay, channel: &str) -> Ws {
        self.send(&json!({"type": "subscribe", "channels": [channel]}));
        self
    }
}

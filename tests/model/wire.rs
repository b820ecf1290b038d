//! One connection of a subscriber, over either transport: bytes in, what was heard out.

use std::io;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::harness::http::escape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Sse,
    Ws,
}

/// What came; `text` is how it stood on the wire.
#[derive(Clone, Debug)]
pub enum Heard {
    Message {
        id: Option<String>,
        data: Value,
        text: String,
    },
    Control {
        kind: String,
        id: Option<String>,
        data: Value,
        text: String,
    },
}

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub channels: Vec<String>,
    /// Short form, as a browser's EventSource sends it back.
    pub last_id: Option<String>,
    /// Long form.
    pub cursor: Option<String>,
    /// A small window, so that the relay notices soon when nobody reads.
    pub narrow: bool,
}

/// Bytes of the receive buffer of a narrow connection.
const NARROW: u32 = 4096;

pub enum Connection {
    Sse(Box<Sse>),
    Ws(Box<WebSocketStream<TcpStream>>),
    /// Given up.
    Gone,
}

impl Connection {
    pub async fn open(relay: SocketAddr, transport: Transport, ask: &Ask) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        if ask.narrow {
            socket.set_recv_buffer_size(NARROW)?;
        }
        let stream = socket.connect(relay).await?;
        stream.set_nodelay(true)?;
        Ok(match transport {
            Transport::Sse => Connection::Sse(Box::new(Sse::open(stream, ask).await?)),
            Transport::Ws => {
                let mut request = "ws://relay.test/ws".into_client_request().map_err(io::Error::other)?;
                let protocol = "keyrelay.v1.json".parse().map_err(io::Error::other)?;
                request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
                let config = WebSocketConfig::default().read_buffer_size(NARROW as usize);
                let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
                let (mut socket, _) = opened.map_err(io::Error::other)?;
                let mut subscribe = json!({"type": "subscribe", "channels": ask.channels});
                if let Some(cursor) = &ask.cursor {
                    subscribe["cursor"] = json!(cursor);
                }
                let text = Frame::text(subscribe.to_string());
                socket.send(text).await.map_err(io::Error::other)?;
                Connection::Ws(Box::new(socket))
            }
        })
    }

    /// The next thing heard; an error when the connection is over. Dropped before that, nothing is lost.
    pub async fn next(&mut self) -> io::Result<Heard> {
        match self {
            Connection::Gone => Err(io::ErrorKind::NotConnected.into()),
            Connection::Sse(sse) => sse.next().await,
            Connection::Ws(socket) => loop {
                match socket.next().await {
                    Some(Ok(Frame::Text(text))) => return heard(&text),
                    Some(Ok(Frame::Close(_))) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(io::Error::other(error)),
                }
            },
        }
    }

    /// Adds a channel to the list, or takes one out; only WebSocket can.
    pub async fn send(&mut self, message: Value) -> io::Result<()> {
        match self {
            Connection::Sse(_) | Connection::Gone => Ok(()),
            Connection::Ws(socket) => {
                let text = Frame::text(message.to_string());
                socket.send(text).await.map_err(io::Error::other)
            }
        }
    }
}

fn heard(text: &str) -> io::Result<Heard> {
    let mut frame: Value = serde_json::from_str(text)?;
    let id = frame["id"].as_str().map(str::to_owned);
    let kind = frame["type"].as_str().unwrap_or_default().to_owned();
    let text = text.to_owned();
    Ok(match &*kind {
        "message" => Heard::Message {
            id,
            data: frame["data"].take(),
            text,
        },
        _ => Heard::Control {
            kind,
            id,
            data: frame,
            text,
        },
    })
}

/// A stream of Server-Sent Events.
pub struct Sse {
    stream: TcpStream,
    /// As they came.
    raw: Vec<u8>,
    /// Out of their chunks, not yet taken apart.
    body: Vec<u8>,
    data: String,
    name: String,
    id: Option<String>,
}

impl Sse {
    async fn open(mut stream: TcpStream, ask: &Ask) -> io::Result<Sse> {
        let channels = ask
            .channels
            .iter()
            .map(|channel| format!("channel={}", escape(channel)));
        let cursor = ask.cursor.iter().map(|cursor| format!("cursor={cursor}"));
        let query: Vec<String> = channels.chain(cursor).collect();
        let mut head = format!("GET /events?{} HTTP/1.1\r\nHost: relay.test\r\n", query.join("&"));
        if let Some(id) = &ask.last_id {
            head.push_str(&format!("Last-Event-ID: {id}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut raw).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        if !raw.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(&raw).into_owned()));
        }
        raw.drain(..end);
        Ok(Sse {
            stream,
            raw,
            body: Vec::new(),
            data: String::new(),
            name: String::new(),
            id: None,
        })
    }

    async fn next(&mut self) -> io::Result<Heard> {
        loop {
            while let Some(line) = self.line()? {
                if let Some(heard) = self.take(&line)? {
                    return Ok(heard);
                }
            }
            if self.unchunk()? {
                continue;
            }
            self.raw.reserve(4096);
            if self.stream.read_buf(&mut self.raw).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Moves one whole chunk to the body.
    fn unchunk(&mut self) -> io::Result<bool> {
        let Some(at) = self.raw.windows(2).position(|window| window == b"\r\n") else {
            return Ok(false);
        };
        let size = std::str::from_utf8(&self.raw[..at]).map_err(io::Error::other)?;
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = at + 2 + size;
        if self.raw.len() < end + 2 {
            return Ok(false);
        }
        self.body.extend_from_slice(&self.raw[at + 2..end]);
        self.raw.drain(..end + 2);
        Ok(true)
    }

    /// The next whole line. The relay ends its lines with LF alone.
    fn line(&mut self) -> io::Result<Option<String>> {
        let Some(at) = self.body.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = String::from_utf8(self.body[..at].to_vec()).map_err(io::Error::other)?;
        self.body.drain(..=at);
        Ok(Some(line))
    }

    fn take(&mut self, line: &str) -> io::Result<Option<Heard>> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => self.name = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "" if line.is_empty() => {
                let (name, id) = (std::mem::take(&mut self.name), self.id.take());
                let data = std::mem::take(&mut self.data);
                if data.is_empty() {
                    return Ok(None);
                }
                let text = format!("{} {name} {data}", id.as_deref().unwrap_or("no id"));
                let data = serde_json::from_str(&data)?;
                return Ok(Some(match name.strip_prefix("keyrelay.") {
                    Some(kind) => Heard::Control {
                        kind: kind.to_owned(),
                        id,
                        data,
                        text,
                    },
                    None => Heard::Message { id, data, text },
                }));
            }
            _ => {}
        }
        Ok(None)
    }
}

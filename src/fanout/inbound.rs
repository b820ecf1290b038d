//! What WebSocket clients say. The protocol is read by tungstenite, which knows nothing of sockets here; what it answers
//! goes the way of every other frame.

use std::io::{self, Cursor, ErrorKind, Read, Write};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

use crate::limits::Limit;
use crate::session::Ending;
use crate::transport::ws::{self, Request};

use super::conn::{Phase, Sent, Token};
use super::core::{Core, client, enqueue};
use super::socket::Socket;
use super::{Bounds, Transport};

#[cfg(feature = "echo")]
mod echo;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

/// Read at once from one client. Most send less than this in all their life.
const READ: usize = 2 * 1024;

/// Most messages of one client that are heard before others get their turn.
const MESSAGES: usize = 32;

/// The state of a client that is in the midst of a message. Between messages there is none, so that a client which does
/// no more than answer pings costs nothing.
#[derive(Debug)]
pub(super) struct Inbound {
    context: WebSocketContext,
    boundary: Boundary,
}

impl Inbound {
    /// `ahead`: what was read with the request; `longest`: the bytes that a message may have.
    fn new(ahead: &[u8], longest: usize) -> Inbound {
        let mut boundary = Boundary::default();
        boundary.feed(ahead);
        Inbound {
            context: WebSocketContext::from_partially_read(ahead.to_vec(), Role::Server, Some(config(longest))),
            boundary,
        }
    }
}

fn config(longest: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest))
}

/// What a client's turn led to.
enum Heard {
    /// A message.
    Text(String),
    /// Bytes, for which this protocol has no use.
    Binary(#[allow(dead_code, reason = "only tests look into it")] Bytes),
    /// Nothing to act upon.
    Other,
    /// There is nothing more to read now.
    Drained,
    /// The client has said goodbye, which is answered.
    Goodbye,
    /// It cannot go on.
    End(Ending),
}

impl Core {
    /// Keeps what was read with the request for the client's first turn.
    pub fn read_ahead(&mut self, token: Token, ahead: &[u8]) {
        let longest = self.options.bounds.message_size;
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        match conn.transport {
            Transport::WebSocket { .. } => {
                conn.inbound = Some(Box::new(Inbound::new(ahead, longest)));
                conn.readable = true;
                enqueue(conn, &mut self.ready);
            }
            Transport::Sse { .. } => self.end(token, Ending::Protocol("data after the request")),
        }
    }

    /// Reads what a WebSocket client has sent, and does what it asks for.
    pub fn hear(&mut self, token: Token) {
        let Bounds {
            messages, message_size, ..
        } = self.options.bounds;
        let now = self.books.wheel.begins(self.books.tick);
        let mut drained = false;
        for _ in 0..MESSAGES {
            let Some(conn) = client(&mut self.clients, token) else {
                return;
            };
            // Who does not take the answers is not heard either.
            if conn.phase != Phase::Open || conn.blocked || conn.asking {
                return;
            }
            let raw = conn.transport == (Transport::WebSocket { raw: true });
            let mut inbound = conn
                .inbound
                .take()
                .unwrap_or_else(|| Box::new(Inbound::new(b"", message_size)));
            let mut link = Link {
                socket: &conn.socket,
                boundary: &mut inbound.boundary,
                hung_up: conn.hung_up,
                drained,
                heard: false,
                replies: Vec::new(),
            };
            let heard = listen(&mut inbound.context, &mut link);
            let replies = Bytes::from(std::mem::take(&mut link.replies));
            drained = link.drained;
            conn.unanswered &= !link.heard;
            if matches!(heard, Heard::Drained) {
                conn.readable = false;
                if !inbound.boundary.is_clean() {
                    conn.inbound = Some(inbound);
                }
                return self.say(token, &replies);
            }
            conn.inbound = Some(inbound);
            let is_message = matches!(heard, Heard::Text(_) | Heard::Binary(_) | Heard::Other);
            if is_message && !conn.meter.take(messages, now) {
                self.books.stats.limited.hit(Limit::MessagesPerSecond, None);
                return self.end(token, Ending::TooFast);
            }
            self.say(token, &replies);
            #[cfg(feature = "echo")]
            if let Some(frame) = echo::of(&heard) {
                self.say(token, &frame);
                continue;
            }
            match heard {
                Heard::Text(text) if !raw && self.request(token, &text) => break,
                // To a client of bare payloads nothing can be said, and it has nothing to say.
                Heard::Binary(_) if raw => {}
                Heard::Binary(_) => {
                    let what = "messages are text, in JSON";
                    self.say(token, &ws::error_message(None, "malformed", what, None));
                }
                Heard::Text(_) | Heard::Other | Heard::Drained => {}
                Heard::Goodbye => return self.goodbye(token),
                Heard::End(Ending::Gone) => return self.close(token, Ending::Gone),
                Heard::End(ending) => {
                    if ending == Ending::TooBig {
                        self.books.stats.limited.hit(Limit::MessageSize, None);
                    }
                    return self.end(token, ending);
                }
            }
        }
        if let Some(conn) = client(&mut self.clients, token) {
            enqueue(conn, &mut self.ready);
        }
    }

    /// Sends a frame of the client's own, or several in one.
    pub fn say(&mut self, token: Token, frames: &Bytes) {
        let Some(conn) = client(&mut self.clients, token).filter(|_| !frames.is_empty()) else {
            return;
        };
        // A message is answered in more than one go; the second finds the socket as the first left it.
        if conn.blocked {
            return conn.append(frames, &mut self.books);
        }
        match conn.send(frames, &mut self.books) {
            Sent::Whole => {}
            Sent::Part | Sent::Nothing => conn.session.fall_behind(self.books.walked),
            Sent::Gone => self.close(token, Ending::Gone),
        }
    }

    /// The client's close frame was answered.
    fn goodbye(&mut self, token: Token) {
        if let Some(conn) = client(&mut self.clients, token) {
            conn.phase = Phase::Ended(Ending::Gone);
            if !conn.blocked {
                self.finish(token);
            }
        }
    }

    /// Does what a message asks for; `true` if its answer is the session's to give.
    fn request(&mut self, token: Token, text: &str) -> bool {
        let Some(conn) = client(&mut self.clients, token) else {
            return false;
        };
        match Request::parse(text) {
            Ok(Request::Subscribe {
                channels,
                cursor,
                reference,
            }) => return self.ask_to_subscribe(token, channels, cursor, reference),
            Ok(Request::Renew {
                token: shown,
                reference,
            }) => return self.ask_to_renew(token, shown, reference),
            Ok(Request::Unsubscribe { channels, reference }) => {
                for name in &channels {
                    if let Some(log) = conn.session.unsubscribe(name) {
                        self.subscribers.remove(log.id, token);
                    }
                }
                conn.session.announce_rest(self.books.walked, reference);
                return true;
            }
            Ok(Request::Ping { reference }) => self.say(token, &ws::pong_message(reference.as_deref())),
            Err(error) => {
                let frame = ws::error_message(None, "malformed", &error.what, error.reference.as_deref());
                self.say(token, &frame);
            }
        }
        false
    }
}

/// Reads one message, and answers what the protocol itself asks for.
fn listen(context: &mut WebSocketContext, link: &mut (impl Read + Write)) -> Heard {
    match context.read(link) {
        Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
        Ok(Message::Binary(bytes)) => Heard::Binary(bytes),
        // The answer is ready and only wants to be written; each ping has its own.
        Ok(Message::Ping(_)) => match context.flush(link) {
            Ok(()) => Heard::Other,
            Err(_) => Heard::End(Ending::Gone),
        },
        // Likewise; that it was the last thing is told as an error.
        Ok(Message::Close(_)) => {
            let _ = context.flush(link);
            Heard::Goodbye
        }
        Ok(Message::Pong(_) | Message::Frame(_)) => Heard::Other,
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Heard::Drained,
        Err(Error::Capacity(_)) => Heard::End(Ending::TooBig),
        Err(Error::Utf8(_)) => Heard::End(Ending::NotText),
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Heard::End(Ending::Gone),
        Err(Error::Protocol(_)) => Heard::End(Ending::Protocol("not a frame that a client may send")),
        Err(_) => Heard::End(Ending::Gone),
    }
}

/// Between tungstenite and the socket: reads from it, and gathers what is to be written.
struct Link<'a> {
    socket: &'a Socket,
    boundary: &'a mut Boundary,
    hung_up: bool,
    /// The socket gave less than was asked for: what comes now comes with an event of its own.
    drained: bool,
    /// Anything was read.
    heard: bool,
    replies: Vec<u8>,
}

impl Read for Link<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            return Err(ErrorKind::WouldBlock.into());
        }
        let size = self.socket.receive(buffer)?.ok_or(ErrorKind::WouldBlock)?;
        self.drained = size > 0 && size < buffer.len() && !self.hung_up;
        self.heard = true;
        self.boundary.feed(&buffer[..size]);
        Ok(size)
    }
}

impl Write for Link<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows the frames of a client only to know when it is between two messages.
#[derive(Debug, Default)]
struct Boundary {
    /// The head of a frame, as far as it has come (RFC 6455 §5.2: 14 bytes at most).
    head: [u8; 14],
    have: usize,
    /// Bytes of the payload still to come.
    rest: u64,
    /// Parts of a message came, but not its last.
    fragmented: bool,
    /// It could not be followed.
    lost: bool,
}

impl Boundary {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            if self.rest > 0 {
                let skipped = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                self.rest -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            match FrameHeader::parse(&mut Cursor::new(&self.head[..self.have])) {
                Ok(Some((header, length))) => {
                    (self.have, self.rest) = (0, length);
                    if matches!(header.opcode, OpCode::Data(_)) {
                        self.fragmented = !header.is_final;
                    }
                }
                Ok(None) => self.lost = self.have == self.head.len(),
                Err(_) => self.lost = true,
            }
        }
    }

    fn is_clean(&self) -> bool {
        self.have == 0 && self.rest == 0 && !self.fragmented && !self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_seen_wherever_the_bytes_are_cut() {
        // A masked text frame, a ping between two fragments, and a frame with a 16-bit length.
        let mut bytes = vec![0x81, 0x82, 1, 2, 3, 4, 5, 6];
        let first = bytes.len();
        bytes.extend([
            0x01, 0x81, 0, 0, 0, 0, 9, 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0,
        ]);
        let second = bytes.len();
        bytes.extend([0x82, 0xfe, 0, 200, 0, 0, 0, 0]);
        bytes.extend([0; 200]);
        for step in 1..bytes.len() {
            let mut boundary = Boundary::default();
            let mut fed = 0;
            for part in bytes.chunks(step) {
                boundary.feed(part);
                fed += part.len();
                let clean = [first, second, bytes.len()].contains(&fed);
                assert_eq!(boundary.is_clean(), clean, "after {fed} bytes by {step}");
            }
        }
    }
}

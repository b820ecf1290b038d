//! WebSocket: frames of a server (RFC 6455), and the JSON messages of the subprotocol `keyrelay.v1.json`.

mod request;

use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::control::{Control, since_1970};
use super::{Frame, write_string};
use crate::hub::{Channel, Cursor};
pub use request::{Request, RequestError};

/// The one subprotocol; a client that offers none is fine as well.
pub const SUBPROTOCOL: &str = "keyrelay.v1.json";

/// A ping without data.
pub(super) const PING: &[u8] = &[FIN | OPCODE_PING, 0];

const FIN: u8 = 0x80;
const OPCODE_TEXT: u8 = 1;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;

/// What a control frame may carry at most (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

/// The head of the response that accepts a WebSocket. `key` is the request's `Sec-WebSocket-Key`; `subprotocol` is
/// told only if the client offered it. `extra` are further headers; one that holds a line end is left out.
pub fn response_head<'a>(
    key: &[u8],
    subprotocol: Option<&'a str>,
    extra: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Bytes {
    let accept = derive_accept_key(key);
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n");
    let chosen = subprotocol.map(|name| ("sec-websocket-protocol", name.as_bytes()));
    super::write_headers(&mut out, [("sec-websocket-accept", accept.as_bytes())].into_iter());
    super::write_headers(&mut out, chosen.into_iter().chain(extra));
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// A text frame of these bytes. What is not UTF-8, which no payload should hold, is replaced: a browser would drop the
/// connection for it.
pub(super) fn text(bytes: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(bytes);
    let mut frame = Frame::new(text.len());
    frame.body().extend_from_slice(text.as_bytes());
    finish(OPCODE_TEXT, frame)
}

/// `{"type":"message","channel","id"?,"name"?,"data"}`.
pub(super) fn message(channel: &Channel, id: Option<Cursor>, payload: &[u8], json: bool) -> Bytes {
    let mut frame = Frame::new(payload.len() + payload.len() / 8 + channel.name.len() + 128);
    let out = frame.body();
    out.extend_from_slice(b"{\"type\":\"message\",\"channel\":");
    write_string(out, &channel.name);
    write_id(out, id);
    if let Some(name) = &channel.event_name {
        out.extend_from_slice(b",\"name\":");
        write_string(out, name);
    }
    out.extend_from_slice(b",\"data\":");
    let text = String::from_utf8_lossy(payload);
    match json {
        true => out.extend_from_slice(text.as_bytes()),
        false => write_string(out, &text),
    }
    out.push(b'}');
    finish(OPCODE_TEXT, frame)
}

/// `{"type":"ready","id"?,…}` and its like.
pub(super) fn control(event: &Control<'_>, id: Option<Cursor>) -> Bytes {
    let mut frame = Frame::new(256);
    let out = frame.body();
    write!(out, "{{\"type\":\"{}\"", event.word()).expect("a Vec takes all that is written");
    write_id(out, id);
    out.push(b',');
    event.write_members(out);
    out.push(b'}');
    finish(OPCODE_TEXT, frame)
}

/// The answer to [`Request::Ping`]; `reference` is JSON, as the client gave it.
pub fn pong_message(reference: Option<&str>) -> Bytes {
    let mut frame = Frame::new(64);
    let out = frame.body();
    out.extend_from_slice(b"{\"type\":\"pong\"");
    write_reference(out, reference);
    out.push(b'}');
    finish(OPCODE_TEXT, frame)
}

/// The answer to [`Request::Renew`]: until when the client may read now, if that has an end.
pub fn renewed_message(expires: Option<SystemTime>, reference: Option<&str>) -> Bytes {
    let mut frame = Frame::new(64);
    let out = frame.body();
    out.extend_from_slice(b"{\"type\":\"renewed\",\"expires_at\":");
    match expires {
        Some(at) => write!(out, "{}", since_1970(at)).expect("a Vec takes all that is written"),
        None => out.extend_from_slice(b"null"),
    }
    write_reference(out, reference);
    out.push(b'}');
    finish(OPCODE_TEXT, frame)
}

/// Tells that one channel, or the whole request if none is named, was refused, by a fixed word and by a sentence.
pub fn error_message(channel: Option<&str>, reason: &str, what: &str, reference: Option<&str>) -> Bytes {
    let mut frame = Frame::new(128 + what.len());
    let out = frame.body();
    out.extend_from_slice(b"{\"type\":\"error\"");
    for (name, value) in [("channel", channel), ("reason", Some(reason)), ("message", Some(what))] {
        if let Some(value) = value {
            write!(out, ",\"{name}\":").expect("a Vec takes all that is written");
            write_string(out, value);
        }
    }
    write_reference(out, reference);
    out.push(b'}');
    finish(OPCODE_TEXT, frame)
}

/// A close frame; of a reason longer than 123 bytes, the beginning.
pub(super) fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL - size_of::<u16>());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut frame = Frame::new(MAX_CONTROL);
    frame.body().extend_from_slice(&code.to_be_bytes());
    frame.body().extend_from_slice(&reason.as_bytes()[..end]);
    finish(OPCODE_CLOSE, frame)
}

/// An id goes without the set of channels: the frame is the same for all who subscribe to the channel.
fn write_id(out: &mut Vec<u8>, id: Option<Cursor>) {
    if let Some(id) = id {
        let id = Cursor { set: None, ..id };
        out.extend_from_slice(b",\"id\":\"");
        id.write(out);
        out.push(b'"');
    }
}

fn write_reference(out: &mut Vec<u8>, reference: Option<&str>) {
    if let Some(reference) = reference {
        write!(out, ",\"ref\":{reference}").expect("a Vec takes all that is written");
    }
}

/// A whole message in one frame, unmasked as all frames of a server are (RFC 6455 §5.1, §5.2).
fn finish(opcode: u8, frame: Frame) -> Bytes {
    let length = frame.body_len();
    let mut head = [0; Frame::HEAD];
    head[0] = FIN | opcode;
    let used = match length {
        0..=125 => {
            head[1] = length as u8;
            2
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    frame.finish(&head[..used])
}

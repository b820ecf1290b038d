//! Server-Sent Events: frames as the WHATWG HTML standard §9.2 reads them, each one chunk of an HTTP/1.1 body.

use std::time::Duration;

use bytes::Bytes;

use super::control::Control;
use super::{Frame, millis, write_number};
use crate::hub::Cursor;
use crate::session::Ending;

/// A comment, which no client hears of.
pub(super) const HEARTBEAT: &[u8] = b"3\r\n:\n\n\r\n";

/// Ends a chunked body, so that nobody between takes the end for a fault.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The headers of every stream, whatever carries it: nothing on the way may keep, change or hold back what it is sent.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store, no-transform"),
    // nginx and those that learned from it buffer an answer otherwise.
    ("x-accel-buffering", "no"),
];

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.1: in chunks.
    Chunked,
    /// HTTP/1.0: by the end of the connection.
    Close,
}

/// The head of the response that a stream is the body of. `extra` are headers beside [`HEADERS`]; one that holds a line
/// end is left out, because what stands after it would be another header.
pub fn response_head<'a>(framing: Framing, extra: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let own = HEADERS.iter().map(|(name, value)| (*name, value.as_bytes()));
    super::write_headers(&mut out, own.chain(extra));
    out.extend_from_slice(match framing {
        Framing::Chunked => b"transfer-encoding: chunked\r\n\r\n",
        Framing::Close => b"connection: close\r\n\r\n",
    });
    out.into()
}

/// What a stream begins with: a comment, so that the head is not held back for want of a body and that no data ever
/// stands at the offset where a byte order mark is cut off; and the time after which a lost client comes back.
pub fn opening(retry: Duration) -> Bytes {
    let mut frame = Frame::new(48);
    frame.body().extend_from_slice(b": keyrelay\nretry: ");
    write_number(frame.body(), millis(retry));
    frame.body().extend_from_slice(b"\n\n");
    chunk(frame)
}

/// Whether a line can hold the name, and a browser would hear it.
fn is_event_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\r', '\n', '\0'])
}

/// An event with the client's place once it has it, its name, and its data.
///
/// All three ends of a line, CR LF, LF and CR, reach the client as LF. A name that is no event name is left out.
pub(super) fn event(id: Option<Cursor>, name: Option<&str>, data: &[u8]) -> Bytes {
    let mut frame = Frame::new(data.len() + 128);
    let out = frame.body();
    write_id(out, id);
    if let Some(name) = name {
        let valid = is_event_name(name);
        debug_assert!(valid, "the config lets no such name pass: {name:?}");
        if valid {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
    }
    write_data(out, data);
    out.push(b'\n');
    chunk(frame)
}

/// A control event, under a name that `onmessage` does not hear.
pub(super) fn control(event: &Control<'_>, id: Option<Cursor>) -> Bytes {
    let mut frame = Frame::new(256);
    let out = frame.body();
    write_id(out, id);
    out.extend_from_slice(b"event: keyrelay.");
    out.extend_from_slice(event.word().as_bytes());
    if let Control::End { retry: Some(retry), .. } = event {
        out.extend_from_slice(b"\nretry: ");
        write_number(out, millis(*retry));
    }
    // JSON as it is written here stands on one line.
    out.extend_from_slice(b"\ndata: {");
    event.write_members(out);
    out.extend_from_slice(b"}\n\n");
    chunk(frame)
}

/// The event that tells a client of the end, in a chunk of its own; for streams without chunks, where
/// [`super::ending`] cannot be used whole.
pub fn end_event(ending: Ending, retry: Duration) -> Bytes {
    control(&Control::end(ending, retry), None)
}

fn write_id(out: &mut Vec<u8>, id: Option<Cursor>) {
    if let Some(id) = id {
        // As the browser sends it back for the same URL, it goes without the set of channels.
        let id = Cursor { set: None, ..id };
        out.extend_from_slice(b"id: ");
        id.write(out);
        out.push(b'\n');
    }
}

/// Writes one `data` line for every line; none of them is an event without data, so even no bytes make one line.
fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let length = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
}

fn chunk(mut frame: Frame) -> Bytes {
    // From behind; a frame is far below 4 GiB.
    let mut head = *b"00000000\r\n";
    let (mut start, mut rest) = (8, frame.body_len());
    while rest > 0 {
        start -= 1;
        head[start] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
    }
    frame.body().extend_from_slice(b"\r\n");
    frame.finish(&head[start..])
}

/// What is inside a chunk made here; it shares the chunk's bytes.
pub fn without_chunk(chunk: &Bytes) -> Bytes {
    let end_of_head = memchr::memchr(b'\n', chunk).map_or(0, |at| at + 1);
    chunk.slice(end_of_head..chunk.len().saturating_sub(2).max(end_of_head))
}

//! The bytes of messages, control events, heartbeats and endings, in SSE and in WebSocket. No I/O, no clock.
//!
//! What all subscribers of a channel get alike is encoded once and kept with the message ([`encoded`]). The shared SSE
//! frame is one chunk of an HTTP/1.1 body; where there are no chunks, [`sse::without_chunk`] shows the event inside it.

mod control;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod sse;
#[cfg(test)]
mod tests;
pub mod ws;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::hub::{Body, Channel, Cursor, Encoding, Message, Payload, tight};
use crate::session::{Ending, Rendition, Step};
use control::Control;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Server-Sent Events; every frame is a chunk.
    Sse,
    /// WebSocket with JSON messages.
    WebSocket,
    /// WebSocket with bare payloads: of nothing else is the client told.
    RawWebSocket,
}

/// Renditions of one wire among the encodings that a message caches.
const RENDITIONS: usize = 3;

impl Wire {
    fn encoding(self, rendition: Rendition) -> Encoding {
        let rendition = match (self, rendition) {
            // A bare payload has no id to leave out.
            (Wire::RawWebSocket, Rendition::Catchup) => Rendition::Live,
            (_, rendition) => rendition,
        };
        Encoding(self as usize * RENDITIONS + rendition as usize)
    }
}

const _: () = assert!(Wire::RawWebSocket as usize * RENDITIONS + (Rendition::Snapshot as usize) < Encoding::COUNT);

/// The frame of a step, `epoch` being the process's own; empty if this wire has nothing to say of it.
pub fn step(step: &Step, wire: Wire, epoch: u64) -> Bytes {
    let (event, id) = match step {
        Step::Message { message, rendition } => return encoded(message, wire, *rendition, epoch).into_owned(),
        Step::OnReset { channel, payload } => return payload_frame(channel, payload, &payload.live, None, wire),
        Step::Ready {
            channels,
            cursor,
            reference,
        } => {
            let reference = *reference;
            let event = Control::Ready {
                channels,
                cursor: *cursor,
                reference,
            };
            // In JSON the cursor is a member of its own.
            (event, (wire == Wire::Sse).then_some(*cursor))
        }
        Step::Reset { channel, reason } => {
            // A cursor that nobody knows: what the client had before is void, so coming back with the cursor of then must
            // not be taken for coming back with what it stood for, not even by the process that gave it.
            let nowhere = Cursor {
                epoch,
                sequence: 0,
                set: None,
            };
            (Control::Reset { channel, reason }, Some(nowhere))
        }
        Step::Gap { channel, reason } => {
            let missed = None;
            let event = Control::Gap {
                channel,
                reason,
                missed,
            };
            (event, None)
        }
    };
    control_frame(&event, id, wire).unwrap_or_default()
}

/// The shared frame of a message, `epoch` being the process's own; empty if this wire has nothing to say of it.
pub fn encoded(message: &Message, wire: Wire, rendition: Rendition, epoch: u64) -> Cow<'_, Bytes> {
    message.encoded(wire.encoding(rendition), |message| {
        encode(message, wire, rendition, epoch).unwrap_or_default()
    })
}

fn encode(message: &Message, wire: Wire, rendition: Rendition, epoch: u64) -> Option<Bytes> {
    let id = (rendition == Rendition::Live).then_some(Cursor {
        epoch,
        sequence: message.sequence,
        set: None,
    });
    let channel = &*message.channel;
    let name = &channel.name;
    let event = match &message.body {
        Body::Change(payload) => {
            let snapshot = rendition == Rendition::Snapshot;
            let bytes = if snapshot {
                payload.snapshot()
            } else {
                (&*payload.live).into()
            };
            return Some(payload_frame(channel, payload, &bytes, id, wire));
        }
        Body::Void => return None,
        Body::Stale { reason, since } => Control::Stale {
            channel: name,
            reason: reason.0,
            since: *since,
        },
        Body::Fresh { reason, since } => Control::Fresh {
            channel: name,
            reason: reason.0,
            since: *since,
        },
        Body::Gap { reason, missed } => Control::Gap {
            channel: name,
            reason: reason.0,
            missed: *missed,
        },
    };
    control_frame(&event, id, wire)
}

/// The frame of one rendition of a payload.
fn payload_frame(channel: &Channel, payload: &Payload, bytes: &[u8], id: Option<Cursor>, wire: Wire) -> Bytes {
    match wire {
        Wire::Sse => sse::event(id, channel.event_name.as_deref(), bytes),
        Wire::WebSocket => ws::message(channel, id, bytes, payload.json),
        Wire::RawWebSocket => ws::text(bytes),
    }
}

fn control_frame(event: &Control<'_>, id: Option<Cursor>, wire: Wire) -> Option<Bytes> {
    match wire {
        Wire::Sse => Some(sse::control(event, id)),
        Wire::WebSocket => Some(ws::control(event, id)),
        Wire::RawWebSocket => None,
    }
}

/// What an idle stream is sent, so that neither side nor anyone between takes it for dead.
pub fn heartbeat(wire: Wire) -> Bytes {
    match wire {
        Wire::Sse => Bytes::from_static(sse::HEARTBEAT),
        Wire::WebSocket | Wire::RawWebSocket => Bytes::from_static(ws::PING),
    }
}

/// Tells that the stream will end at this time; empty if this wire has nothing to say of it.
pub fn expiring(at: SystemTime, wire: Wire) -> Bytes {
    control_frame(&Control::Expiring { at }, None, wire).unwrap_or_default()
}

/// The last bytes of a stream, up to and with the end of an HTTP/1.1 body or the close frame. `retry` is the time after
/// which this client is to come back, if it is to.
pub fn ending(ending: Ending, retry: Duration, wire: Wire) -> Bytes {
    let mut bytes = Vec::new();
    // To one who has gone there is nothing to say.
    if ending != Ending::Gone {
        let event = Control::end(ending, retry);
        bytes.extend_from_slice(&control_frame(&event, None, wire).unwrap_or_default());
    }
    match wire {
        Wire::Sse => bytes.extend_from_slice(sse::LAST_CHUNK),
        Wire::WebSocket | Wire::RawWebSocket => {
            bytes.extend_from_slice(&ws::close(ending.close_code(), control::description(ending)));
        }
    }
    bytes.into()
}

/// Milliseconds, as browsers take them.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Writes header lines. A name or value with a line end is left out: what stands after it would be another header.
fn write_headers<'a>(out: &mut Vec<u8>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
    let safe = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    for (name, value) in headers.filter(|(name, value)| safe(name.as_bytes()) && safe(value)) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a number in decimal digits.
fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes text as a JSON string.
fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes all that is written, and a string is always JSON");
}

/// A frame whose head is known only when its body is: room is left for the head, and what is not needed of it is cut
/// off in front, so that the body is written once.
struct Frame(Vec<u8>);

impl Frame {
    /// The longest heads: `ffffffff\r\n` of a chunk, two bytes and a 64-bit length of a WebSocket frame.
    const HEAD: usize = 10;

    fn new(expected: usize) -> Frame {
        let mut bytes = Vec::with_capacity(Frame::HEAD + expected);
        bytes.resize(Frame::HEAD, 0);
        Frame(bytes)
    }

    fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn body_len(&self) -> usize {
        self.0.len() - Frame::HEAD
    }

    /// Puts the head, at most [`Frame::HEAD`] bytes, before the body.
    fn finish(mut self, head: &[u8]) -> Bytes {
        let start = Frame::HEAD - head.len();
        self.0[start..Frame::HEAD].copy_from_slice(head);
        tight(self.0, start)
    }
}

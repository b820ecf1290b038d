//! Which bytes a client is sent: those of its transport, with or without the chunks around them.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::hub::Message;
use crate::session::{Ending, Rendition, Step};
use crate::transport::{self, Wire, sse};

use super::Transport;

const PLAIN: Transport = Transport::Sse { chunked: false };

fn wire(transport: Transport) -> Wire {
    match transport {
        Transport::Sse { .. } => Wire::Sse,
        Transport::WebSocket { raw: false } => Wire::WebSocket,
        Transport::WebSocket { raw: true } => Wire::RawWebSocket,
    }
}

/// The shared frame of a live message.
pub(super) fn live(transport: Transport, message: &Message, epoch: u64) -> Cow<'_, Bytes> {
    let frame = transport::encoded(message, wire(transport), Rendition::Live, epoch);
    match transport {
        PLAIN => Cow::Owned(sse::without_chunk(&frame)),
        _ => frame,
    }
}

/// The frame of a step; empty if there is nothing to say of it.
pub(super) fn step(transport: Transport, step: &Step, epoch: u64) -> Bytes {
    fit(transport, transport::step(step, wire(transport), epoch))
}

/// The sign of life of an idle stream.
pub(super) fn heartbeat(transport: Transport) -> Bytes {
    fit(transport, transport::heartbeat(wire(transport)))
}

/// Tells that the stream will end at this time.
pub(super) fn expiring(transport: Transport, at: SystemTime) -> Bytes {
    fit(transport, transport::expiring(at, wire(transport)))
}

/// The last bytes of a stream.
pub(super) fn ending(transport: Transport, ending: Ending, retry: Duration) -> Bytes {
    match transport {
        PLAIN if ending == Ending::Gone => Bytes::new(),
        PLAIN => sse::without_chunk(&sse::end_event(ending, retry)),
        _ => transport::ending(ending, retry, wire(transport)),
    }
}

fn fit(transport: Transport, frame: Bytes) -> Bytes {
    match transport {
        PLAIN => sse::without_chunk(&frame),
        _ => frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_chunks_has_the_same_events() {
        let retry = Duration::from_secs(2);
        assert_eq!(heartbeat(PLAIN), ":\n\n");
        let plain = ending(PLAIN, Ending::Drain, retry);
        assert!(
            plain.starts_with(b"event: keyrelay.end\n") && plain.ends_with(b"\n\n"),
            "{plain:?}"
        );
        let chunked = ending(Transport::Sse { chunked: true }, Ending::Drain, retry);
        let inner = chunked.windows(plain.len()).any(|part| part == plain);
        assert!(inner && chunked.ends_with(b"\r\n0\r\n\r\n"), "{chunked:?}");
        assert_eq!(ending(PLAIN, Ending::Gone, retry), "");
    }
}
